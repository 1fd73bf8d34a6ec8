"""Layers of the seeded tiny model on the command line."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from typer.testing import CliRunner

from phasesam.cli.app import app
from phasesam.models.adapter_config import AdapterConfig

pytestmark = pytest.mark.usefixtures("own_cache")


def picture(seed, shape=(60, 80)):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image, labels = np.full(shape, 60.0), np.zeros(shape, np.uint8)
    for _ in range(5):
        inside = np.hypot(y - rng.uniform(0, shape[0]), x - rng.uniform(0, shape[1])) < 12
        image[inside], labels[inside] = 180, 1
    return (image + rng.normal(0, 5, shape)).clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, make_adapter):
    path = tmp_path_factory.mktemp("a") / "powder.safetensors"
    return make_adapter(path, config=AdapterConfig(blocks="all", rank=2, decoder_rank=2))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for seed in range(3):
        image, labels = picture(seed)
        tifffile.imwrite(folder / "images" / f"p{seed}.tif", image)
        tifffile.imwrite(folder / "labels" / f"p{seed}.tif", labels)
    return folder


def invoke(*args):
    return CliRunner().invoke(app, ["features", *map(str, args), "--model", "tiny"])


def refused(result, code, *words):
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    for word in words:
        assert word in " ".join(result.output.split())


def test_two_models_on_labelled_images(data, adapter, tmp_path):
    out = tmp_path / "out"
    result = invoke(
        data / "images", "--labels", data / "labels", "--classes", "matrix,particle",
        "--against", adapter, "-o", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for name in ("p0", "p1", "p2"):
        with Image.open(out / f"{name}_layers.png") as sheet:
            assert sheet.mode == "RGB"
            assert sheet.width > 5 * 160
        root = ET.parse(out / f"{name}_layers.svg").getroot()
        images = [e for e in root.iter() if e.tag.endswith("image")]
        # Input, target, and three layers of two models.
        assert len(images) == 2 + 3 * 2
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["block1", "block2", "neck"]
    assert all(0 < float(row["likeness"]) < 1 for row in rows)
    assert all(0 <= float(row["probe powder particle"]) <= 1 for row in rows)
    assert "matrix" in (out / "report.md").read_text()
    assert "<svg" in (out / "report.html").read_text()
    group = zarr.open_group(out / "layers.zarr", mode="r")
    assert group.attrs["models"] == ["tiny", "powder"]
    features = np.asarray(group["p1/powder/block2/features"])
    assert features.shape == (48, 64, 32)
    assert features.dtype == np.float16
    assert np.asarray(group["p1/powder/block2/colours"]).shape == (48, 64, 3)


def test_one_model_some_layers_and_json(data, tmp_path):
    out = tmp_path / "out"
    result = invoke(
        data / "images" / "p0.tif", "--layers", "neck,block1", "-o", out, "--no-arrays", "--json",
        "--colours", "lab", "--independent",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["layers"]["layer"] == ["block1", "neck"]
    assert "likeness" not in values["layers"]
    assert values["suggested_start"] is None
    assert not (out / "layers.zarr").exists()


def test_without_a_folder_only_a_table_is_printed(data, tmp_path):
    result = invoke(data / "images" / "p0.tif")
    assert result.exit_code == 0, result.output
    assert "block2" in result.stdout


def test_the_base_as_second_model(data, adapter, tmp_path):
    result = invoke(data / "images" / "p0.tif", "--adapter", adapter, "--against", "base", "--json")
    assert result.exit_code == 0, result.output
    assert max(json.loads(result.stdout)["layers"]["change"]) > 0


def test_planes_of_stacks(tmp_path):
    stack = np.stack([picture(seed)[0] for seed in range(3)])
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    assert invoke(tmp_path / "stack.tif", "--plane", 2).exit_code == 0
    refused(invoke(tmp_path / "stack.tif", "--plane", 3), 2, "has 3 planes, from 0; there is no")


def test_a_report_is_not_replaced_unasked(data, tmp_path):
    image, out = data / "images" / "p0.tif", tmp_path / "out"
    assert invoke(image, "-o", out, "--layers", "neck").exit_code == 0
    refused(invoke(image, "-o", out), 4, "--overwrite")
    assert invoke(image, "-o", out, "--layers", "neck", "--overwrite").exit_code == 0
    (tmp_path / "other" / "layers.zarr").mkdir(parents=True)
    refused(invoke(image, "-o", tmp_path / "other"), 4, "no Zarr group")


def test_mistakes_are_told(data, adapter, make_adapter, tmp_path):
    image = data / "images" / "p0.tif"
    refused(invoke(image, "--layers", "block7"), 2, "block1, block2, neck; got block7")
    refused(invoke(image, "--basis", "ica"), 2, "principal or classes")
    refused(invoke(image, "--basis", "classes"), 2, "of two classes or more")
    refused(invoke(image, "--classes", "a,b"), 2, "need --labels")
    refused(invoke(image, image, "--labels", data / "labels"), 2, "one file or one folder")
    refused(invoke(tmp_path / "none.tif"), 2, "none.tif")
    other = make_adapter(tmp_path / "other.safetensors", base="mobile_sam")
    refused(invoke(image, "--against", other), 3, "mobile_sam")
    flat = tmp_path / "flat.png"
    Image.fromarray(np.full((40, 50), 9, np.uint8)).save(flat)
    refused(invoke(flat), 1, "all pixels of the image of 40 x 50 are equal")
