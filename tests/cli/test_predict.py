"""New images and a fine-tuned adapter, with the seeded tiny model."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from phasesam.cli import recipe
from phasesam.cli.app import app
from phasesam.engines.automatic_config import AutomaticConfig, FilterConfig
from phasesam.engines.presets import PRESETS
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import segment_classes
from phasesam.models.adapter_store import import_adapter
from phasesam.models.manager import get_manager
from phasesam.simulation import ParticleConfig, simulate_particles

pytestmark = pytest.mark.usefixtures("own_cache")

CLASSES = ("matrix", "particle", "pore")


def blobs(seed, shape=(60, 80)):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, 60.0)
    for _ in range(6):
        image[np.hypot(y - rng.uniform(0, shape[0]), x - rng.uniform(0, shape[1])) < 9] = 180
    return (image + rng.normal(0, 5, shape)).clip(0, 255).astype(np.uint8)


def invoke(*args):
    return CliRunner().invoke(app, ["predict", *map(str, args)])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def phases(tmp_path_factory, make_adapter):
    path = tmp_path_factory.mktemp("a") / "steel.safetensors"
    return make_adapter(path, classes=CLASSES, window=48, pixel_size_um=[0.05, 0.05])


@pytest.fixture(scope="module")
def powder(tmp_path_factory, make_adapter):
    return make_adapter(tmp_path_factory.mktemp("a") / "powder.safetensors", task="instance")


@pytest.fixture(scope="module")
def batch(tmp_path_factory, phases):
    """Map an image, a stack of which one plane is blank, and a broken file."""
    folder = tmp_path_factory.mktemp("batch")
    tifffile.imwrite(folder / "a.tif", blobs(0))
    stack = np.stack([blobs(1), np.zeros((60, 80), np.uint8), blobs(2), blobs(3)])
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack")
    (folder / "broken.tif").write_bytes(b"II*\x00" + bytes(30))
    options = ("--json", "--pixel-size", "50nm", "--planes", "0-2", "--overlap", "0")
    return folder, invoke(folder / "*.tif", "--adapter", phases, "-o", folder / "out", *options)


def test_summary(batch, phases):
    _, result = batch
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert (summary["model"], summary["adapter"], summary["adapter_strength"]) == (
        "tiny", str(phases), 1,
    )  # fmt: skip
    assert (summary["task"], summary["classes"]) == ("semantic", list(CLASSES))
    assert summary["settings"] == {"window": None, "overlap": 0, "orientations": 2}
    by_name = {entry["input"].rsplit("/", 1)[-1]: entry for entry in summary["results"]}
    assert {name: entry["status"] for name, entry in by_name.items()} == {
        "a.tif": "ok", "broken.tif": "failed", "stack.tif": "ok",
    }  # fmt: skip
    assert by_name["stack.tif"]["planes"] == 3
    assert sum(by_name["a.tif"]["fractions"].values()) == pytest.approx(1, abs=1e-5)
    assert "objects" not in by_name["a.tif"]
    assert ["1 of 3 planes hold nothing" in w for w in by_name["stack.tif"]["warnings"]] == [True]
    assert set(by_name["a.tif"]["outputs"]) == {"labels", "overlay", "phases"}


def test_labels_are_those_of_the_engine(batch, phases):
    folder, _ = batch
    labels = tifffile.imread(folder / "out" / "a_labels.tif")
    expected = segment_classes(Segmenter(blobs(0), "tiny"), phases, overlap=0)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, expected.labels)
    assert expected.window == 48
    with tifffile.TiffFile(folder / "out" / "a_labels.tif") as tif:
        resolution = tif.pages[0].tags["YResolution"].value
    assert resolution[0] / resolution[1] == pytest.approx(20)  # pixels per µm


def test_planes_left_out_belong_to_no_class(batch):
    folder, _ = batch
    labels = tifffile.imread(folder / "out" / "stack_labels.tif")
    assert labels.shape == (4, 60, 80)
    assert [bool((plane == 255).all()) for plane in labels] == [False, True, False, True]
    assert labels[[0, 2]].max() < 3


def test_table_agrees_with_the_labels(batch):
    folder, result = batch
    labels = tifffile.imread(folder / "out" / "a_labels.tif")
    table = rows(folder / "out" / "a_phases.csv")
    assert [row["class"] for row in table] == list(CLASSES)
    for value, row in enumerate(table):
        pixels = np.count_nonzero(labels == value)
        assert (int(row["value"]), int(row["area_px"])) == (value, pixels)
        assert float(row["area_um2"]) == pytest.approx(pixels * 0.05**2)
        assert float(row["fraction"]) == pytest.approx(pixels / labels.size)
        assert float(row["low_95"]) <= float(row["fraction"]) <= float(row["high_95"])
    entry = next(r for r in json.loads(result.stdout)["results"] if r["input"].endswith("a.tif"))
    assert entry["fractions"]["pore"] == pytest.approx(float(table[2]["fraction"]), abs=1e-5)
    stack = rows(folder / "out" / "stack_phases.csv")
    assert [int(row["plane_0"]) for row in stack] == [0, 0, 0, 2, 2, 2]


def test_overlay(batch):
    folder, _ = batch
    for name in ("a", "stack"):
        with Image.open(folder / "out" / f"{name}_overlay.png") as overlay:
            assert overlay.size == (80, 60)


def test_results_stay(batch, phases):
    folder, _ = batch
    refused = invoke(folder / "a.tif", "--adapter", phases, "-o", folder / "out")
    assert refused.exit_code == 4
    skipped = invoke(folder / "a.tif", "--adapter", phases, "-o", folder / "out", "--skip-existing")
    assert skipped.exit_code == 0
    # What we wrote ourselves is no input.
    again = invoke(folder / "out", "--adapter", phases, "-o", folder / "out2")
    assert again.exit_code == 2


def test_for_people(phases, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", blobs(0))
    import_adapter(phases, "steel")
    result = invoke(
        tmp_path / "a.tif", "--adapter", "steel", "-o", tmp_path / "out", "--window", "0",
        "--adapter-strength", "0.5", "--pixel-size", "0.2",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert all(name in result.stdout for name in CLASSES)
    assert "matrix" in result.stderr
    assert "a pixel is 4 times as large as in the images" in result.stderr.replace("\n", " ")
    get_manager().set_strength("tiny", "steel", 0.5)
    expected = segment_classes(Segmenter(blobs(0), "tiny", adapter="steel"), window=0)
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "a_labels.tif"), expected.labels)


def test_data_bar(phases, tmp_path):
    bar = Image.new("L", (256, 40))
    draw = ImageDraw.Draw(bar)
    draw.line((0, 0, 256, 0), fill=255)
    draw.text((6, 4), "SEM HV: 15.0 kV   WD: 9.94 mm", fill=255)
    draw.text((6, 22), "View field: 102 um  Det: SE", fill=255)
    config = ParticleConfig(shape=(192, 256), median_diameter=9, largest_diameter=25)
    image = np.concatenate([simulate_particles(config, seed=3).image, np.asarray(bar)])
    tifffile.imwrite(tmp_path / "a.tif", image)
    arguments = (tmp_path / "a.tif", "--adapter", phases, "--window", "0", "--overwrite")
    assert invoke(*arguments, "-o", tmp_path / "out").exit_code == 0
    labels = tifffile.imread(tmp_path / "out" / "a_labels.tif")
    assert (labels[192:] == 255).all()
    assert labels[:192].max() < 3
    table = rows(tmp_path / "out" / "a_phases.csv")
    assert sum(int(row["area_px"]) for row in table) == 192 * 256
    assert invoke(*arguments, "-o", tmp_path / "out", "--no-data-bar-detection").exit_code == 0
    assert tifffile.imread(tmp_path / "out" / "a_labels.tif").max() < 3


def test_other_adapters_find_objects(powder, tmp_path, monkeypatch):
    everything = AutomaticConfig(points_per_side=3, iou_floor=0, stability_floor=0)
    quick = replace(
        PRESETS["pores"], automatic=everything, filter=FilterConfig(pred_iou=0, stability=0)
    )
    monkeypatch.setattr(recipe, "get_preset", lambda name: {"pores": quick}[name])
    tifffile.imwrite(tmp_path / "a.tif", blobs(0))
    found = invoke(
        tmp_path / "a.tif", "--adapter", powder, "-o", tmp_path / "out", "--preset", "pores",
        "--coco", "--json",
    )  # fmt: skip
    assert found.exit_code == 0, found.stderr
    summary = json.loads(found.stdout)
    assert summary["settings"]["preset"] == "pores"
    assert summary["adapter"] == str(powder)
    assert set(summary["results"][0]["outputs"]) == {"labels", "overlay", "objects", "coco"}
    same = CliRunner().invoke(app, ["segment", *map(str, (
        tmp_path / "a.tif", "--adapter", powder, "-o", tmp_path / "s", "--preset", "pores",
    ))])  # fmt: skip
    assert same.exit_code == 0
    one, other = (tifffile.imread(tmp_path / f / "a_labels.tif") for f in ("out", "s"))
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "predict needs an --adapter"),
        (["--adapter", "gone"], 3, "no adapter 'gone'"),
        (["--adapter", "PHASES", "--preset", "pores"], 2, "maps phases: matrix, particle, pore"),
        (["--adapter", "PHASES", "--coco"], 2, "maps phases"),
        (["--adapter", "PHASES", "--window", "-1"], 2, "--window"),
        (["--adapter", "PHASES", "--overlap", "0.95"], 2, "--overlap"),
        (["--adapter", "PHASES", "--planes", "5-2"], 2, "--planes expects"),
        (["--adapter", "PHASES", "--model", "mobile_sam"], 3, "made for other weights"),
        (["--adapter", "POWDER", "--window", "64"], 2, "for adapters with classes"),
    ],
)
def test_mistakes_end_before_the_work(phases, powder, tmp_path, arguments, code, message):
    tifffile.imwrite(tmp_path / "a.tif", blobs(0))
    named = {"PHASES": phases, "POWDER": powder}
    arguments = [named.get(argument, argument) for argument in arguments]
    result = invoke(tmp_path / "a.tif", "-o", tmp_path / "out", *arguments)
    assert result.exit_code == code
    assert message in result.stderr.replace("\n", "")
    assert not list(tmp_path.rglob("*_labels.tif"))


def test_constant_image_fails(phases, tmp_path):
    tifffile.imwrite(tmp_path / "const.tif", np.full((60, 80), 9, np.uint8))
    result = invoke(tmp_path / "const.tif", "--adapter", phases, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "nothing to map" in result.stderr


def test_planes_without_a_number_hold_nothing(phases, tmp_path):
    stack = np.stack([blobs(0), blobs(1), blobs(2)]).astype(np.float32)
    stack[1] = np.nan
    np.save(tmp_path / "cube.npy", stack)
    options = ("--adapter", phases, "--overlap", "0", "-o")
    result = invoke(tmp_path / "cube.npy", *options, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "1 of 3 planes hold nothing" in " ".join(result.stderr.split())
    labels = tifffile.imread(tmp_path / "out" / "cube_labels.tif")
    assert (labels[1] == 255).all()
    assert (labels[[0, 2]] < 3).all()
    np.save(tmp_path / "nothing.npy", np.full_like(stack, np.nan))
    result = invoke(tmp_path / "nothing.npy", *options, tmp_path / "none")
    assert result.exit_code == 1
    assert "or none is finite" in " ".join(result.stderr.split())
