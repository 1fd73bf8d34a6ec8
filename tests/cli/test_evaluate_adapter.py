"""``phasesam evaluate adapter`` with the seeded tiny model."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from phasesam.cli.app import app
from phasesam.cli.label_meaning import values_of_classes
from phasesam.engines.automatic_config import AutomaticConfig, FilterConfig
from phasesam.engines.presets import Preset
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import segment_classes
from phasesam.evaluation import adapter_scores, unet
from phasesam.models.manager import get_manager
from phasesam.simulation import ParticleConfig, simulate_particles

CLASSES = ("matrix", "particle")


@pytest.fixture(autouse=True)
def _small(tmp_path, monkeypatch):
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    quick = Preset(
        "particles", "", "", AutomaticConfig(points_per_side=5),
        FilterConfig(pred_iou=0.0, stability=0.0, nms=0.5),
    )  # fmt: skip
    monkeypatch.setattr(adapter_scores, "get_preset", lambda name: quick)
    torch.set_num_threads(1)
    yield
    get_manager().unload_all()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two images of particles: objects, and classes 0 and 7."""
    folder = tmp_path_factory.mktemp("data")
    for kind in ("images", "labels", "objects"):
        (folder / kind).mkdir()
    for name, seed in (("a", 3), ("b", 4)):
        config = ParticleConfig(shape=(64, 96), median_diameter=14, largest_diameter=25)
        micrograph = simulate_particles(config, seed=seed)
        tifffile.imwrite(folder / "images" / f"{name}.tif", micrograph.image)
        tifffile.imwrite(folder / "objects" / f"{name}.tif", micrograph.labels.astype(np.uint16))
        phases = np.where(micrograph.labels > 0, 7, 0).astype(np.uint8)
        tifffile.imwrite(folder / "labels" / f"{name}.tif", phases)
    return folder


@pytest.fixture(scope="module")
def steel(tmp_path_factory, make_adapter):
    path = tmp_path_factory.mktemp("steel") / "steel.safetensors"
    splits = {"train": ["x"], "val": ["a"], "test": ["b"]}
    return make_adapter(path, classes=CLASSES, class_values=[0, 7], splits=splits, window=None)


@pytest.fixture(scope="module")
def powder(tmp_path_factory, make_adapter):
    return make_adapter(tmp_path_factory.mktemp("powder") / "powder.safetensors", task="instance")


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", "adapter", *map(str, arguments)])


def test_phases_of_the_images_kept_for_testing(data, steel):
    result = run(data, "--labels", "labels", "--adapter", steel, "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)["methods"]["adapted"]
    assert figures["images"] == ["b"]
    image = tifffile.imread(data / "images" / "b.tif")
    truth = tifffile.imread(data / "labels" / "b.tif") // 7
    segmenter = Segmenter(image, "tiny", adapter=str(steel), exclude_data_bar=False)
    found = segment_classes(segmenter).labels
    expected = np.count_nonzero((found == 1) & (truth == 1)) / np.count_nonzero(
        (found == 1) | (truth == 1)
    )
    assert figures["classes"]["particle"]["iou_pooled"] == pytest.approx(expected, abs=1e-6)


def test_a_unet_beside_it(data, tmp_path, make_adapter, monkeypatch):
    given = {}
    real = unet.train_unet
    monkeypatch.setattr(unet, "train_unet", lambda *a, **k: given.update(k) or real(*a, **k))
    splits = {"train": ["a"], "test": ["b"]}
    adapter = make_adapter(
        tmp_path / "x.safetensors", classes=CLASSES, class_values=[0, 7], splits=splits, window=None
    )
    result = run(
        data, "--labels", "labels", "--adapter", adapter, "--unet", 1, "--device", "cpu",
        "-o", tmp_path / "report",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "| figure | U-Net | adapted | adapted - U-Net |" in text
    assert "trained from scratch for 1 s" in text
    assert given["device"] == "cpu"


def test_a_unet_is_not_tested_on_what_it_has_learnt(data, tmp_path, make_adapter):
    adapter = make_adapter(
        tmp_path / "x.safetensors", classes=CLASSES, class_values=[0, 7], splits={"train": ["x"]}
    )
    result = run(data, "--labels", "labels", "--adapter", adapter, "--unet", 1)
    assert result.exit_code == 2, result.output
    assert "a baseline learns from the images that the adapter has learnt from" in " ".join(
        result.stderr.split()
    )


def test_values_are_named_as_the_data_say(data, steel, tmp_path):
    """The same images with other values of the same classes have the same scores."""
    expected = json.loads(run(data, "--labels", "labels", "--adapter", steel, "--json").stdout)
    swapped = tmp_path / "swapped"
    shutil.copytree(data, swapped)
    for path in (swapped / "labels").iterdir():
        tifffile.imwrite(path, np.where(tifffile.imread(path) == 7, 0, 128).astype(np.uint8))
    (swapped / "classes.csv").write_text("value,name\n0,particle\n128,matrix\n")
    result = run(swapped, "--labels", "labels", "--adapter", steel, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["methods"]["adapted"]["classes"]
    assert found == expected["methods"]["adapted"]["classes"]


def test_values_of_classes_that_the_data_do_not_have():
    learnt = {0: "matrix", 1: "pore", 2: "crack"}
    assert values_of_classes({}, learnt) == learnt
    assert values_of_classes({0: "steel"}, learnt) == learnt
    own = {0: "pore", 1: "matrix"}
    found = values_of_classes(own, learnt)
    assert found == {**own, (set(found) - {0, 1}).pop(): "crack"}
    assert max(found) > 65535, "no label has it"
    more = {0: "pore", 1: "matrix", 2: "crack", 3: "oxide"}
    assert values_of_classes(more, learnt) == more, "refused by its name, not taken for another"


def test_clicks_and_automatic_masks(data, powder, tmp_path):
    result = run(
        data, "--labels", "objects", "--adapter", powder, "--split", "train",
        "--clicks", 2, "--max-clicks", 3, "--most-objects", 2, "--min-area", 20,
        "-o", tmp_path / "report",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for part in (
        "| IoU, base |",
        "| IoU, adapted |",
        "2 clicks",
        "mSA, per image",
        "NoC@90",
        "Objects below 20 pixels",
        "At most 2 objects",
        "(IoU_after_each_click.svg)",
    ):
        assert part in text or part.strip("()") in text, part
    with (tmp_path / "report" / "clicks.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"base", "adapted"}
    # Another model answers otherwise.
    scores = [[r["iou"] for r in rows if r["method"] == m] for m in ("base", "adapted")]
    assert scores[0] != scores[1]


def test_clicks_alone(data, powder):
    result = run(
        data, "--labels", "objects", "--adapter", powder, "--split", "train", "--no-automatic",
        "--clicks", 2, "--max-clicks", 2, "--most-objects", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert "methods" not in figures
    assert figures["clicks"]["objects"] == figures["clicks"]["base"]["iou_1_click"]["n"]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ([], 2, "needs an --adapter"),
        (["--adapter", "nothing"], 3, "nothing"),
        (["--adapter", "POWDER", "--unet", "5"], 2, "classes"),
        (["--adapter", "STEEL", "--same-windows"], 2, "trained on parts of images"),
        (["--adapter", "STEEL", "--split", "nowhere"], 2, "no image to test on"),
        (["--adapter", "STEEL", "--classes", "0=matrix,7=pore"], 2, "matrix, pore"),
    ],
)
def test_what_makes_no_sense(data, powder, steel, options, code, text):
    paths = {"POWDER": str(powder), "STEEL": str(steel)}
    result = run(data, "--labels", "labels", *(paths.get(o, o) for o in options))
    assert result.exit_code == code
    assert text in result.stderr


def test_the_base_looks_at_parts_if_asked(data, tmp_path, make_adapter, monkeypatch):
    """As large as those that the adapter was trained on; else at whole images, and both is told."""
    adapter = make_adapter(tmp_path / "p.safetensors", task="instance", window=48)
    searched, clicked = [], []
    search, look = Segmenter.automatic, Segmenter.look
    monkeypatch.setattr(
        Segmenter, "automatic",
        lambda s, config: searched.append((s.adapter is None, config.window)) or search(s, config),
    )  # fmt: skip
    monkeypatch.setattr(
        Segmenter, "look",
        lambda s, *a, **k: clicked.append((s.adapter is None, s.windows and s.windows.side))
        or look(s, *a, **k),
    )  # fmt: skip
    told = {
        (): "the base at the whole image, as published",
        ("--same-windows",): "Both models look at parts of 48 pixels",
    }
    for flag, text in told.items():
        folder = tmp_path / f"report-{len(flag)}"
        result = run(
            data, "--labels", "objects", "--adapter", adapter, "--clicks", 2, "--max-clicks", 2,
            "--most-objects", 1, "-o", folder, *flag,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        report = (folder / "report.md").read_text("utf-8")
        assert text in report
        assert (
            "| figure | base | base, whole image, SAM's own settings | adapted | adapted - base |"
            in report
        )
        side = 48 if flag else None
        # Base, base with SAM's own settings on the whole image, adapted; two images.
        assert sorted(searched, key=str) == sorted(
            [(True, side), (True, None), (False, None)] * 2, key=str
        )
        assert set(clicked) == {(True, side), (False, 48)}
        searched.clear()
        clicked.clear()


def test_labels_are_read_as_in_the_training(data, tmp_path, make_adapter):
    """Parts of one label as objects each, and a value that means unlabelled."""
    path = tmp_path / "parts.safetensors"
    make_adapter(path, task="promptable", components=True, unlabelled=9)
    for kind in ("images", "objects"):
        (tmp_path / kind).mkdir()
    parts = np.zeros((64, 96), np.uint8)
    parts[4:20, 4:20] = parts[30:50, 30:50] = parts[4:20, 40:60] = 1
    parts[:, 80:] = 9
    tifffile.imwrite(tmp_path / "objects" / "a.tif", parts)
    (tmp_path / "images" / "a.tif").write_bytes((data / "images" / "a.tif").read_bytes())
    options = (tmp_path, "--adapter", path, "--labels", "objects", "--device", "cpu")
    few = ("--clicks", 2, "--max-clicks", 2)
    result = run(*options, *few, "-o", tmp_path / "one")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "the value 9 means unlabelled and parts of a label that do not touch are objects" in said
    assert "Means over 3 objects" in (tmp_path / "one" / "report.md").read_text("utf-8")
    result = run(*options, *few, "--no-components", "--unlabelled", 7, "-o", tmp_path / "two")
    assert result.exit_code == 0, result.output
    assert "as in the training" not in result.stderr
    # One of three parts, and what is unlabelled otherwise.
    assert "Means over 2 objects" in (tmp_path / "two" / "report.md").read_text("utf-8")
