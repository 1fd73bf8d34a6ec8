from __future__ import annotations

import hashlib
import io
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from phasesam.core.errors import (
    CheckpointError,
    DownloadError,
    InvalidSettingError,
    UnknownModelError,
)
from phasesam.models import download as downloads
from phasesam.models import registry
from phasesam.models.model_spec import ModelSpec
from phasesam.models.registry import (
    DEFAULT_MODEL,
    forget,
    get_spec,
    import_checkpoint,
    list_models,
    locate,
    register,
    where,
)
from phasesam.models.sam import build_model


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PHASESAM_MODELS", raising=False)
    # No test may go to the internet.
    monkeypatch.setenv("PHASESAM_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    return tmp_path / "cache" / "models"


@pytest.fixture(scope="module")
def tiny_state() -> dict[str, torch.Tensor]:
    return build_model("tiny").state_dict()


def weights_file(path: Path, **content: torch.Tensor) -> Path:
    buffer = io.BytesIO()
    torch.save(content or {"mask_decoder.x": torch.ones(3)}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return path


def test_lists_the_family():
    names = [spec.name for spec in list_models()]
    assert names[0] == DEFAULT_MODEL == "mobile_sam"
    assert len(set(names)) == len(names)
    wanted = {f"sam_vit_{size}" for size in "blh"} | {f"sam_hq_vit_{size}" for size in "blh"}
    wanted |= {"sam_hq_vit_tiny", "vit_b_lm", "vit_l_lm", "vit_b_em_organelles", "tiny"}
    assert wanted <= set(names)


@pytest.mark.parametrize("spec", list_models(), ids=lambda spec: spec.name)
def test_entries_are_complete(spec):
    assert spec.title
    assert spec.description.endswith(".")
    assert re.fullmatch(r"[A-Za-z]+-[\w.-]+", spec.licence)
    assert (spec.decoder == "hq") == ("hq" in spec.name)
    assert len(spec.pixel_mean) == len(spec.pixel_std) == 3
    if where(spec) == "generated":
        assert locate(spec, download=False) is None
        return
    assert spec.size_bytes > 10**7
    assert spec.source.startswith("https://")
    assert spec.filename
    assert spec.sha256 is None or re.fullmatch("[0-9a-f]{64}", spec.sha256)
    assert spec.sha256 or re.fullmatch("(md5|xxh128):[0-9a-f]{32}", spec.other_hash)
    if spec.url is not None:
        assert spec.url.startswith("https://")
        assert spec.url.endswith((".pth", ".pt"))


def test_files_have_different_names():
    names = [spec.filename for spec in list_models() if spec.filename]
    assert len(set(names)) == len(names)


def test_unknown_model_lists_the_known_ones():
    with pytest.raises(UnknownModelError, match=r"no model 'sam3'.*mobile_sam, sam_vit_b"):
        get_spec("sam3")


def test_default_is_bundled_and_intact():
    spec = get_spec(DEFAULT_MODEL)
    assert where(spec) == "bundled"
    path = locate(spec, download=False)
    content = path.read_bytes()
    assert len(content) == spec.size_bytes
    assert hashlib.sha256(content).hexdigest() == spec.sha256
    card = (path.parent / "README.md").read_text(encoding="utf-8")
    assert spec.sha256 in card


def test_damaged_or_missing_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "BUNDLED_WEIGHTS", tmp_path)
    spec = replace(get_spec(DEFAULT_MODEL), path=tmp_path / "mobile_sam.safetensors")
    assert where(spec) == "missing"
    with pytest.raises(CheckpointError, match=r"are gone.*Install PhaseSAM again"):
        locate(spec)
    spec.path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(CheckpointError, match=r"git lfs pull"):
        locate(spec)


def test_says_how_to_get_weights_that_are_not_here():
    spec = get_spec("sam_vit_b")
    assert where(spec) == "to download"
    with pytest.raises(DownloadError, match=r"models download sam_vit_b.*PHASESAM_MODELS"):
        locate(spec, download=False)
    with pytest.raises(DownloadError, match=r"could not fetch SAM ViT-B"):
        locate(spec)


def test_finds_weights_in_the_offline_folder_and_never_deletes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("PHASESAM_MODELS", str(tmp_path / "offline"))
    path = weights_file(tmp_path / "offline" / "sam_vit_b_01ec64.pth")
    spec = get_spec("sam_vit_b")
    assert where(spec) == "on disk"
    with pytest.raises(CheckpointError, match=r"not the published file.*Replace"):
        locate(spec)
    assert path.is_file()
    right = replace(spec, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert locate(right, download=False) == path


def test_spoilt_download_is_fetched_again(cache, monkeypatch):
    spec = get_spec("sam_vit_b")
    path = weights_file(cache / spec.filename)
    with pytest.raises(CheckpointError, match=r"not the published file"):
        locate(spec, download=False)
    assert path.is_file()
    fetched = []
    monkeypatch.setattr(downloads, "download", lambda spec, *callbacks: fetched.append(spec.name))
    locate(spec)
    assert fetched == ["sam_vit_b"]
    assert not path.exists()


def test_import_recognises_copies_and_remembers(tmp_path, cache, tiny_state):
    source = tmp_path / "run 7" / "best.pt"
    prefixed = {f"sam.{name}": tensor for name, tensor in tiny_state.items()}
    source.parent.mkdir()
    torch.save({"model_state": prefixed, "epoch": 9}, source)
    spec = import_checkpoint(source, "steel")
    assert (spec.architecture, spec.decoder) == ("tiny", "sam")
    source.unlink()
    assert get_spec("steel") == spec
    assert where(spec) == "on disk"
    assert locate(spec, download=False) == cache / "imported" / "steel.pt"
    model = build_model("steel")
    assert all(torch.equal(model.state_dict()[k], v) for k, v in tiny_state.items())
    assert "steel" in [entry.name for entry in list_models()]
    forget("steel")
    assert "steel" not in [entry.name for entry in list_models()]
    assert list((cache / "imported").iterdir()) == []
    with pytest.raises(UnknownModelError, match=r"no imported model"):
        forget("steel")


def test_imported_model_whose_copy_is_gone(tmp_path, cache, tiny_state):
    torch.save(tiny_state, tmp_path / "best.pt")
    spec = import_checkpoint(tmp_path / "best.pt", "steel")
    spec.path.unlink()
    assert where(spec) == "missing"
    with pytest.raises(CheckpointError, match=r"are gone.*Import it again.*--name steel"):
        locate(spec)
    # Perhaps from a file of another kind.
    save_file(tiny_state, tmp_path / "best.safetensors")
    again = import_checkpoint(tmp_path / "best.safetensors", "steel")
    assert where(again) == "on disk"
    assert locate(get_spec("steel")) == cache / "imported" / "steel.safetensors"
    assert [entry.name for entry in list_models()].count("steel") == 1
    with pytest.raises(InvalidSettingError, match=r"'steel' already"):
        import_checkpoint(tmp_path / "best.pt", "steel")


def test_forgets_an_imported_model_whose_copy_is_gone(tmp_path, tiny_state):
    torch.save(tiny_state, tmp_path / "best.pt")
    import_checkpoint(tmp_path / "best.pt", "steel").path.unlink()
    forget("steel")
    assert "steel" not in [entry.name for entry in list_models()]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights")
def test_others_may_read_what_was_imported(tmp_path, cache, tiny_state):
    torch.save(tiny_state, tmp_path / "best.pt")
    spec = import_checkpoint(tmp_path / "best.pt", "steel")
    for path in (spec.path, cache / "imported.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_import_refuses_spoilt_weights_and_keeps_nothing(tmp_path, cache, tiny_state):
    name = "image_encoder.pos_embed"
    nan = {**tiny_state, name: torch.full_like(tiny_state[name], torch.nan)}
    torch.save(nan, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=rf"finite numbers, but {name} contains NaN"):
        import_checkpoint(tmp_path / "best.pt", "steel")
    torch.save({k: v.to(torch.int8) for k, v in tiny_state.items()}, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"expected floating-point numbers.* has int8"):
        import_checkpoint(tmp_path / "best.pt", "steel")
    torch.save(tiny_state, tmp_path / "best.pt")
    content = bytearray((tmp_path / "best.pt").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checksum of best/data/\d+"):
        import_checkpoint(tmp_path / "best.pt", "steel")
    assert not cache.exists()


def test_imports_survive_moving_the_cache(tmp_path, cache, tiny_state, monkeypatch):
    torch.save(tiny_state, tmp_path / "best.pt")
    import_checkpoint(tmp_path / "best.pt", "steel")
    shutil.move(tmp_path / "cache", tmp_path / "elsewhere")
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "elsewhere"))
    assert locate(get_spec("steel")).is_relative_to(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["", "a b", "../up", "x" * 65, ".hidden", "mobile_sam"])
def test_import_refuses_bad_names(tmp_path, tiny_state, name):
    torch.save(tiny_state, tmp_path / "best.pt")
    with pytest.raises(InvalidSettingError, match=r"name of a model|already"):
        import_checkpoint(tmp_path / "best.pt", name)


def test_import_refuses_the_same_name_twice(tmp_path, tiny_state):
    torch.save(tiny_state, tmp_path / "best.pt")
    import_checkpoint(tmp_path / "best.pt", "steel")
    with pytest.raises(InvalidSettingError, match=r"'steel' already"):
        import_checkpoint(tmp_path / "best.pt", "steel")


def test_import_refuses_incomplete_weights_and_keeps_nothing(tmp_path, cache, tiny_state):
    incomplete = {k: v for k, v in tiny_state.items() if "iou_prediction_head" not in k}
    torch.save(incomplete, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"lacks mask_decoder.iou_prediction_head"):
        import_checkpoint(tmp_path / "best.pt", "steel")
    part_hq = {**tiny_state, "mask_decoder.hf_token.weight": torch.ones(1, 64)}
    torch.save(part_hq, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"no SAM-HQ checkpoint.*hf_mlp"):
        import_checkpoint(tmp_path / "best.pt", "steel")
    assert not cache.exists()


def test_broken_index_hides_nothing_else(cache):
    cache.mkdir(parents=True)
    for text in ("not json", "{}", '[{"name": "x"}, 3]'):
        (cache / "imported.json").write_text(text)
        assert get_spec(DEFAULT_MODEL).name == DEFAULT_MODEL


def test_registers_for_this_process(tmp_path):
    spec = ModelSpec("mine", "Mine", "tiny", path=weights_file(tmp_path / "mine.pt"))
    register(spec)
    assert get_spec("mine") is spec
    assert locate(spec) == tmp_path / "mine.pt"
    with pytest.raises(InvalidSettingError, match=r"already"):
        register(spec)


def test_listing_needs_no_torch():
    code = (
        "import sys; from phasesam.models.registry import list_models, where;"
        "[where(s) for s in list_models()]; print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
