from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from phasesam.core.errors import CheckpointError
from phasesam.models.checkpoints import (
    HQ_PARTS,
    check_archive,
    check_kind,
    check_values,
    compare,
    load_state_dict,
    recognise,
)

STATE = {
    "image_encoder.neck.0.weight": torch.arange(64.0).reshape(8, 8, 1, 1),
    "prompt_encoder.no_mask_embed.weight": torch.ones(1, 8),
    "mask_decoder.iou_token.weight": torch.zeros(1, 8),
}


def assert_read(path: Path) -> None:
    found = load_state_dict(path)
    assert sorted(found) == sorted(STATE)
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


def test_reads_archives_old_pickles_and_safetensors(tmp_path):
    torch.save(STATE, tmp_path / "new.pth")
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "safe.safetensors")
    # The content decides, not the name.
    save_file(STATE, tmp_path / "safe.pth")
    for name in ("new.pth", "old.pth", "safe.safetensors", "safe.pth"):
        assert_read(tmp_path / name)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state"])
@pytest.mark.parametrize("prefix", ["", "module.", "sam.", "module.sam."])
def test_unwraps_what_training_programs_add(tmp_path, wrapper, prefix):
    named = {prefix + name: tensor for name, tensor in STATE.items()}
    content = {wrapper: named, "epoch": 3, "optimizer": {"lr": 1e-3}}
    torch.save(content, tmp_path / "training.pt")
    assert_read(tmp_path / "training.pt")


def test_unwraps_twice(tmp_path):
    torch.save({"state_dict": {"model": STATE}}, tmp_path / "training.pt")
    assert_read(tmp_path / "training.pt")


def test_drops_what_sam_does_not_use(tmp_path):
    extra = {
        "image_encoder.norm_head.weight": torch.ones(4),
        "image_encoder.head.bias": torch.ones(4),
        "pixel_mean": torch.ones(3),
    }
    torch.save({**STATE, **extra}, tmp_path / "mobile.pt")
    assert_read(tmp_path / "mobile.pt")


class Attack:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("archive", [True, False])
def test_refuses_code_and_does_not_run_it(tmp_path, archive):
    trace = tmp_path / "was_here"
    content = {**STATE, "payload": Attack(str(trace))}
    torch.save(content, tmp_path / "evil.pt", _use_new_zipfile_serialization=archive)
    with pytest.raises(CheckpointError, match=r"more than weights.*mkdir.*run any program"):
        load_state_dict(tmp_path / "evil.pt")
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_refuses_a_plain_pickle_with_code_for_that_reason(tmp_path, protocol):
    trace = tmp_path / "was_here"
    # Also what hides the name: the same text twice is a reference the second time.
    content = ["mkdir", os.mkdir.__module__, Attack(str(trace))]
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(CheckpointError, match=r"asks for (posix|nt)\.mkdir\. .*run any program"):
        load_state_dict(tmp_path / "evil.pt")
    assert not trace.exists()


def test_refuses_a_whole_pickled_module(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(
        CheckpointError, match=r"for torch\.nn.*linear\.Linear\. .*state dict alone"
    ):
        load_state_dict(tmp_path / "module.pt")


def test_names_what_a_training_program_left_in_a_checkpoint(tmp_path):
    torch.save({"model_state": STATE, "args": argparse.Namespace(lr=1)}, tmp_path / "args.pt")
    with pytest.raises(CheckpointError, match=r"it asks for argparse\.Namespace\. "):
        load_state_dict(tmp_path / "args.pt")


@pytest.mark.parametrize("archive", [True, False])
def test_pickle_protocols(tmp_path, archive):
    path = tmp_path / "weights.pt"
    torch.save(STATE, path, pickle_protocol=3, _use_new_zipfile_serialization=archive)
    assert_read(path)
    torch.save(STATE, path, pickle_protocol=4, _use_new_zipfile_serialization=archive)
    with pytest.raises(CheckpointError, match=r"protocol 4.*expected protocol 2.*torch\.save"):
        load_state_dict(path)


@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95, 0.999])
def test_refuses_truncated_files(tmp_path, kind, kept):
    path = tmp_path / "weights"
    big = {**STATE, "mask_decoder.big": torch.randn(20_000)}
    if kind == "safetensors":
        save_file(big, path)
    else:
        torch.save(big, path, _use_new_zipfile_serialization=kind == "zip")
    assert check_kind(path) == kind
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(CheckpointError, match=r"truncated|damaged"):
        load_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 40\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><title>404</title></html>", "web page"),
        (b"<html>Sign in</html>", "web page"),
        (b"hello world, this is some text", "no weights file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "no weights file"),
        (b"PK\x03\x04" + bytes(50), "truncated"),
        ((1 << 40).to_bytes(8, "little") + b'{"a":1}', "truncated"),
        ((8).to_bytes(8, "little") + b'{"a":1} ', "damaged"),
        (b"\x80\x02garbage", "damaged"),
    ],
)
def test_says_what_a_wrong_file_is(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_state_dict(path)
    assert str(path) in str(caught.value)


def test_refuses_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "nothing.pt", tmp_path):
        with pytest.raises(CheckpointError, match=r"cannot read"):
            load_state_dict(path)


def test_refuses_an_archive_that_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(CheckpointError, match=r"damaged"):
        load_state_dict(tmp_path / "notes.zip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2, 3], "holds a list"),
        ({"epoch": 3}, "contains no weights"),
        ({"conv1.weight": torch.ones(3)}, "is no SAM.*conv1.weight"),
        ({"model": {"fc.bias": torch.ones(3)}}, "is no SAM"),
    ],
)
def test_refuses_other_content(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=message):
        load_state_dict(tmp_path / "other.pt")


def test_refuses_a_plain_pickle(tmp_path):
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with pytest.raises(CheckpointError, match=r"plain.pt"):
        load_state_dict(tmp_path / "plain.pt")


def vit(dim: int, depth: int, hq: bool = False) -> dict[str, torch.Tensor]:
    meta = torch.device("meta")
    state = {"image_encoder.patch_embed.proj.weight": torch.empty(dim, 3, 16, 16, device=meta)}
    for index in range(depth):
        state[f"image_encoder.blocks.{index}.norm1.weight"] = torch.empty(dim, device=meta)
    if hq:
        state[HQ_PARTS[0] + "weight"] = torch.empty(1, 256, device=meta)
    return state


@pytest.mark.parametrize(
    ("dim", "depth", "name"),
    [(768, 12, "vit_b"), (1024, 24, "vit_l"), (1280, 32, "vit_h"), (32, 2, "tiny")],
)
@pytest.mark.parametrize("hq", [False, True])
def test_recognises_encoders_and_decoders(dim, depth, name, hq):
    assert recognise(vit(dim, depth, hq), "x") == (name, "hq" if hq else "sam")


def test_recognises_tiny_vit():
    state = {"image_encoder.patch_embed.seq.0.c.weight": torch.ones(32, 3, 3, 3)}
    assert recognise(state, "x") == ("vit_tiny", "sam")


def test_does_not_recognise_others():
    with pytest.raises(CheckpointError, match=r"11 blocks with 768 channels"):
        recognise(vit(768, 11), "x.pt")
    with pytest.raises(CheckpointError, match=r"no image encoder"):
        recognise(STATE, "x.pt")


def test_comparison_lists_what_does_not_fit():
    compare(STATE, STATE, "SAM", "x.pt")
    few = {name: tensor for name, tensor in STATE.items() if "iou" not in name}
    with pytest.raises(CheckpointError, match=r"lacks mask_decoder.iou_token.weight"):
        compare(few, STATE, "SAM", "x.pt")
    with pytest.raises(CheckpointError, match=r"unknown are mask_decoder.iou_token.weight"):
        compare(STATE, few, "SAM", "x.pt")
    other = {**STATE, "mask_decoder.iou_token.weight": torch.zeros(1, 9)}
    with pytest.raises(CheckpointError, match=r"iou_token.weight \(1, 9\) instead of \(1, 8\)"):
        compare(other, STATE, "SAM", "x.pt")


def test_missing_hq_parts_are_an_error_of_their_own():
    expected = {**STATE, **{part + "weight": torch.ones(1) for part in HQ_PARTS}}
    with pytest.raises(CheckpointError, match=r"no SAM-HQ checkpoint.*hf_token.*1 more.*random"):
        compare(STATE, expected, "SAM-HQ", "x.pt")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_comparison_refuses_other_than_floating_point_numbers(dtype):
    for accepted in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        compare({name: t.to(accepted) for name, t in STATE.items()}, STATE, "SAM", "x.pt")
    name = "prompt_encoder.no_mask_embed.weight"
    other = {**STATE, name: STATE[name].to(dtype)}
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointError, match=rf"expected floating-point.*{name} has {kind}\b"):
        compare(other, STATE, "SAM", "x.pt")


def test_refuses_tensors_without_plain_values():
    name = "mask_decoder.iou_token.weight"
    sparse = {**STATE, name: torch.zeros(1, 8).to_sparse()}
    with pytest.raises(CheckpointError, match=rf"{name} has float32 \(sparse_coo\)"):
        compare(sparse, STATE, "SAM", "x.pt")
    with pytest.raises(CheckpointError, match=rf"no values: {name}"):
        check_values({**STATE, name: torch.zeros(1, 8, device="meta")}, "x.pt")


def test_counters_may_be_integers():
    counted = {**STATE, "image_encoder.bn.num_batches_tracked": torch.tensor(3)}
    compare(counted, counted, "SAM", "x.pt")
    check_values(counted, "x.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_refuses_weights_that_are_not_finite(value, dtype):
    check_values(STATE, "x.pt")
    name = "image_encoder.neck.0.weight"
    spoilt = STATE[name].clone().to(dtype)
    spoilt[5, 3] = value
    with pytest.raises(CheckpointError, match=rf"finite numbers, but {name} contains NaN or inf"):
        check_values({**STATE, name: spoilt}, "x.pt")


def test_notices_changed_bytes_in_an_archive(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"mask_decoder.x": torch.ones(30_000)}, path)
    check_archive(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    path.write_bytes(content)
    # torch reads zeros where there were ones and does not mind.
    assert not load_state_dict(path)["mask_decoder.x"].all()
    with pytest.raises(CheckpointError, match=r"damaged: the checksum of weights/data/0 .*match"):
        check_archive(path)


def test_files_without_checksums_are_not_refused(tmp_path):
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "new.safetensors")
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "none.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    for name in ("old.pt", "new.safetensors", "none.pt"):
        check_archive(tmp_path / name)
        assert_read(tmp_path / name)


def test_damaged_directory_of_an_archive(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(STATE, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"PK\x01\x02", b"PK\x09\x09", 1))
    with pytest.raises(CheckpointError, match=r"is damaged"):
        check_archive(path)
