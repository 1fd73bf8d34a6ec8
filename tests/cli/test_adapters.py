"""Adapters on the command line, with the seeded tiny model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from phasesam.cli.app import app
from phasesam.cli.batch import adapter_summary
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapter_store import import_adapter, list_adapters, store_folder
from phasesam.models.manager import get_manager
from phasesam.models.registry import import_checkpoint
from phasesam.models.sam import build_model

pytestmark = pytest.mark.usefixtures("own_cache")

SEARCH = ("--points-per-side", "3", "--pred-iou", "0", "--stability", "0")


@pytest.fixture
def powder(tmp_path, make_adapter):
    return make_adapter(tmp_path / "run" / "best.safetensors", recipe="default", licence="MIT")


@pytest.fixture
def image(tmp_path):
    y, x = np.mgrid[:60, :80]
    inside = (y % 20 - 10) ** 2 + (x % 20 - 10) ** 2 < 40
    noise = np.random.default_rng(0).normal(0, 5, y.shape)
    tifffile.imwrite(tmp_path / "a.tif", np.clip(60 + 100 * inside + noise, 0, 255).astype("u1"))
    return tmp_path / "a.tif"


def invoke(*args):
    return CliRunner().invoke(app, [*map(str, args)])


def segment(image, out, *args):
    result = invoke("segment", image, "-o", out, *SEARCH, *args, "--json", "--overwrite")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), tifffile.imread(out / "a_labels.tif")


def test_import_list_info_forget(powder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = invoke("models", "import", powder, "--name", "powder")
    assert result.exit_code == 0, result.stderr
    assert "powder, an adapter of tiny. Use it with:  --adapter powder" in result.stdout
    lines = invoke("models", "list").stdout.splitlines()
    row = next(i for i, line in enumerate(lines) if "+ powder" in line)
    assert lines[row - 1].startswith("tiny")
    assert "adapter: promptable" in lines[row]
    assert "MIT" in lines[row]
    about = json.loads(invoke("models", "info", "powder", "--json").stdout)
    assert (about["base"], about["details"]["recipe"]) == ("tiny", "default")
    assert "powder.safetensors" in invoke("models", "info", "powder").stdout
    assert json.loads(invoke("models", "info", powder, "--json").stdout)["task"] == "promptable"
    assert invoke("models", "import", powder, "--name", "powder").exit_code == 2
    assert invoke("models", "forget", "powder").exit_code == 0
    assert list_adapters() == ()
    assert invoke("models", "forget", "powder").exit_code == 3
    assert invoke("models", "info", "powder").exit_code == 3


def test_list_for_scripts(powder, make_adapter, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    import_adapter(powder, "powder")
    make_adapter(store_folder() / "map.safetensors", classes=("matrix", "pore"))
    cut = import_adapter(powder, "cut").path
    cut.write_bytes(cut.read_bytes()[:-4])
    entries = {e["name"]: e for e in json.loads(invoke("models", "list", "--json").stdout)}
    assert [a["name"] for a in entries["tiny"]["adapters"]] == ["map", "powder"]
    assert entries["tiny"]["adapters"][0]["classes"] == ["matrix", "pore"]
    assert entries["mobile_sam"]["adapters"] == []
    (damaged,) = entries[None]["adapters"]
    assert (damaged["name"], "incomplete" in damaged["trouble"]) == ("cut", True)
    text = invoke("models", "list").stdout
    assert "without a model here" in text
    assert "damaged" in text
    assert "adapter: matrix, pore" in text


def test_a_name_means_one_thing(powder, tmp_path):
    import_adapter(powder, "powder")
    torch.save(build_model("tiny").state_dict(), tmp_path / "m.pt")
    assert (
        "an adapter 'powder'"
        in invoke("models", "import", tmp_path / "m.pt", "-n", "powder").stderr
    )
    import_checkpoint(tmp_path / "m.pt", "steel")
    assert "a model 'steel'" in invoke("models", "import", powder, "-n", "steel").stderr
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(powder.read_bytes()[:-4])
    assert "incomplete" in invoke("models", "import", cut, "-n", "cut").stderr


def test_a_summary_tells_the_window_of_an_adapter(tmp_path, make_adapter):
    path = make_adapter(tmp_path / "windowed.safetensors", window=48)
    version = get_manager().adapter_version("tiny", str(path))
    assert adapter_summary(version)["adapter_window"] == 48
    path.unlink()
    left = adapter_summary(version)
    assert len(left["adapter_sha256"]) == 64
    assert "adapter_window" not in left


def test_segment_with_an_adapter(powder, image, tmp_path):
    import_adapter(powder, "powder")
    _, plain = segment(image, tmp_path / "out", "--model", "tiny")
    # The base is that of the adapter.
    summary, adapted = segment(image, tmp_path / "out", "--adapter", "powder")
    assert (summary["model"], summary["adapter"]) == ("tiny", "powder")
    assert summary["adapter_strength"] == 1
    assert len(summary["adapter_sha256"]) == 64
    assert summary["adapter_window"] is None
    assert not np.array_equal(adapted, plain)
    _, by_path = segment(image, tmp_path / "out", "--adapter", powder)
    assert np.array_equal(by_path, adapted)
    summary, off = segment(
        image, tmp_path / "out", "--adapter", "powder", "--adapter-strength", "0"
    )
    assert summary["adapter_strength"] == 0
    assert np.array_equal(off, plain)


def test_phases_leave_objects_to_the_base(make_adapter, image, tmp_path):
    path = make_adapter(tmp_path / "map.safetensors", classes=("matrix", "pore"))
    _, plain = segment(image, tmp_path / "out", "--model", "tiny")
    summary, found = segment(image, tmp_path / "out", "--adapter", path)
    assert (summary["model"], summary["adapter"]) == ("tiny", None)
    assert np.array_equal(found, plain)
    result = invoke("segment", image, "-o", tmp_path / "more", *SEARCH, "--adapter", path)
    assert "maps phases (phasesam predict); objects are found by tiny alone" in " ".join(
        result.stderr.split()
    )


def test_prompts_with_an_adapter(powder, image, tmp_path):
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"objects": [{"points": [[30, 30]]}]}')
    arguments = ("segment", image, "--prompts", prompts, "--json", "-o")
    found = [
        json.loads(invoke(*arguments, tmp_path / str(i), *more).stdout)["results"][0]["coverage"]
        for i, more in enumerate((("-m", "tiny"), ("--adapter", powder)))
    ]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--adapter", "gone"], 3, "there is no adapter 'gone'"),
        (["--adapter", "POWDER", "--model", "mobile_sam"], 3, "made for other weights"),
        (["--adapter-strength", "0.5"], 2, "needs an --adapter"),
        (["--adapter", "POWDER", "--adapter-strength", "1.5"], 2, "--adapter-strength"),
        (["--adapter", "OTHER"], 3, "a model called 'steel_vit_b', which is not here"),
        (["--adapter", "IMAGE"], 3, "cannot be read as an adapter"),
    ],
)
def test_mistakes_end_before_the_work(
    powder, image, tmp_path, monkeypatch, arguments, code, message
):
    content = powder.read_bytes().replace(b'"base\\": \\"tiny\\"', b'"base\\": \\"steel_vit_b\\"')
    longer = int.from_bytes(content[:8], "little") + len("steel_vit_b") - len("tiny")
    (tmp_path / "other.safetensors").write_bytes(longer.to_bytes(8, "little") + content[8:])
    paths = {"POWDER": powder, "OTHER": tmp_path / "other.safetensors", "IMAGE": image}
    arguments = [paths.get(argument, argument) for argument in arguments]
    result = invoke("segment", image, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == code
    assert message in result.stderr.replace("\n", "")
    assert not list(tmp_path.rglob("*_labels.tif"))


def test_an_adapter_whose_base_is_called_otherwise_here(powder, image, tmp_path):
    torch.save(build_model("tiny").state_dict(), tmp_path / "m.pt")
    import_checkpoint(tmp_path / "m.pt", "other_name")
    _, expected = segment(image, tmp_path / "out", "--adapter", powder)
    summary, found = segment(image, tmp_path / "out", "--adapter", powder, "-m", "other_name")
    assert summary["model"] == "other_name"
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_merge(powder, image, tmp_path, suffix):
    import_adapter(powder, "powder")
    path = tmp_path / f"merged{suffix}"
    result = invoke("models", "merge", "powder", "-o", path)
    assert result.exit_code == 0, result.stderr
    assert "tiny encoder, SAM decoder" in result.stdout
    state = load_file(path) if suffix == ".safetensors" else torch.load(path)
    assert set(state) == set(build_model("tiny").state_dict())
    assert invoke("models", "import", path, "--name", "merged").exit_code == 0
    _, expected = segment(image, tmp_path / "out", "--adapter", "powder")
    _, found = segment(image, tmp_path / "out", "--model", "merged")
    assert np.mean(found != expected) < 0.01
    again = invoke("models", "merge", "powder", "-o", path)
    assert again.exit_code == 4
    assert "--overwrite" in again.stderr
    half = ("--overwrite", "--adapter-strength", "0.5", "--model", "tiny")
    assert invoke("models", "merge", "powder", "-o", path, *half).exit_code == 0


def test_merge_says_what_cannot_be_merged(make_adapter, tmp_path, powder):
    conv = AdapterConfig("conv_lora", encoder=("qkv",), rank=2)
    path = make_adapter(tmp_path / "conv.safetensors", config=conv)
    result = invoke("models", "merge", path, "-o", tmp_path / "m.pth")
    assert result.exit_code == 2
    assert "what a token gets depends on its neighbours" in result.stderr
    assert invoke("models", "merge", powder, "-o", tmp_path / "m.txt").exit_code == 2
    assert invoke("models", "merge", powder, "-o", tmp_path / "no" / "m.pth").exit_code == 2
    assert not (tmp_path / "m.pth").exists()
