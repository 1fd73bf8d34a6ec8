"""The command as a whole, with the seeded tiny model."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from phasesam.cli.app import app

TINY = ("--model", "tiny", "--points-per-side", "3", "--pred-iou", "0", "--stability", "0")


def blobs(seed, shape=(60, 80)):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, 60.0)
    for _ in range(6):
        image[np.hypot(y - rng.uniform(0, shape[0]), x - rng.uniform(0, shape[1])) < 9] = 180
    return (image + rng.normal(0, 5, shape)).clip(0, 255).astype(np.uint8)


def invoke(*args):
    return CliRunner().invoke(app, ["segment", *map(str, args)])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Run one batch: an image, a stack of two planes, a broken file."""
    folder = tmp_path_factory.mktemp("batch")
    tifffile.imwrite(folder / "a.tif", blobs(0))
    stack = np.stack([blobs(1), blobs(2)])
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack")
    (folder / "broken.tif").write_bytes(b"II*\x00" + bytes(30))
    result = invoke(
        folder / "*.tif", "-o", folder / "out", *TINY, "--coco", "--json", "--pixel-size", "50nm"
    )
    return folder, result


def test_batch_reports_the_failure_and_does_the_rest(batch):
    _, result = batch
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    by_name = {r["input"].rsplit("/", 1)[-1].rsplit("\\", 1)[-1]: r for r in summary["results"]}
    assert {n: r["status"] for n, r in by_name.items()} == {
        "a.tif": "ok",
        "broken.tif": "failed",
        "stack.tif": "ok",
    }
    assert by_name["broken.tif"]["error"]["type"] == "FileFormatError"
    assert by_name["stack.tif"]["planes"] == 2
    assert (summary["model"], summary["exit_code"]) == ("tiny", 1)
    assert summary["settings"]["filter"]["pred_iou"] == 0


def test_results_of_one_image_agree(batch):
    folder, result = batch
    out = folder / "out"
    labels = tifffile.imread(out / "a_labels.tif")
    table = rows(out / "a_objects.csv")
    assert labels.shape == (60, 80)
    assert [int(r["id"]) for r in table] == np.unique(labels[labels > 0]).tolist()
    areas = np.bincount(labels.ravel())
    assert all(int(r["area_px"]) == areas[int(r["id"])] for r in table)
    assert all(float(r["area_um2"]) == pytest.approx(int(r["area_px"]) * 0.05**2) for r in table)
    entry = next(r for r in json.loads(result.stdout)["results"] if r["input"].endswith("a.tif"))
    assert entry["objects"] == len(table)
    assert entry["coverage"] == pytest.approx((labels > 0).mean(), abs=1e-6)


def test_overlay_and_pixel_size(batch):
    from PIL import Image

    folder, _ = batch
    with Image.open(folder / "out" / "a_overlay.png") as overlay:
        assert overlay.size == (80, 60)
    with tifffile.TiffFile(folder / "out" / "a_labels.tif") as tif:
        y_resolution = tif.pages[0].tags["YResolution"].value
    assert y_resolution[0] / y_resolution[1] == pytest.approx(20)  # pixels per µm


# pycocotools' own.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_coco_holds_every_mask(batch):
    from pycocotools.coco import COCO

    folder, _ = batch
    coco = COCO(str(folder / "out" / "a_coco.json"))
    masks = coco.loadAnns(coco.getAnnIds())
    assert len(masks) >= len(rows(folder / "out" / "a_objects.csv"))
    assert all(coco.annToMask(mask).sum() == mask["area"] for mask in masks)
    stack = json.loads((folder / "out" / "stack_coco.json").read_text())
    names = [image["file_name"] for image in stack["images"]]
    assert names == ["stack.tif[0]", "stack.tif[1]"]


def test_labels_of_a_stack_are_unique(batch):
    folder, _ = batch
    labels = tifffile.imread(folder / "out" / "stack_labels.tif")
    assert labels.shape == (2, 60, 80)
    planes = [set(np.unique(plane[plane > 0])) for plane in labels]
    assert sum(map(len, planes)) == len(set.union(*planes))
    table = rows(folder / "out" / "stack_objects.csv")
    for row in table:
        assert int(row["id"]) in planes[int(row["plane_0"])]


def test_results_are_not_replaced_by_accident(batch):
    folder, _ = batch
    before = (folder / "out" / "a_objects.csv").stat().st_mtime_ns
    refused = invoke(folder / "a.tif", "-o", folder / "out", *TINY)
    assert refused.exit_code == 4
    assert "--overwrite" in refused.stderr
    skipped = invoke(folder / "a.tif", "-o", folder / "out", *TINY, "--skip-existing")
    assert skipped.exit_code == 0
    assert (folder / "out" / "a_objects.csv").stat().st_mtime_ns == before


def test_selected_planes_and_quiet(batch, tmp_path):
    folder, _ = batch
    result = invoke(folder / "stack.tif", "-o", tmp_path, *TINY, "--planes", "1", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    labels = tifffile.imread(tmp_path / "stack_labels.tif")
    assert [bool(plane.any()) for plane in labels] == [False, True]


def test_prompts_give_one_object_each(batch, tmp_path):
    folder, _ = batch
    prompts = tmp_path / "prompts.json"
    objects = [
        {"points": [[20, 30]], "class": "pore"},
        {"points": [[40, 50], [10, 10]], "labels": [1, 0], "scale": "group"},
        {"box": [5, 5, 40, 40]},
    ]
    prompts.write_text(json.dumps({"objects": objects}))
    result = invoke(
        folder / "a.tif", "-o", tmp_path, "-m", "tiny", "--prompts", prompts, "--json", "--coco"
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["prompted"] is True
    coco = json.loads((tmp_path / "a_coco.json").read_text())
    assert len(coco["annotations"]) == 3
    assert "pore" in {category["name"] for category in coco["categories"]}


def test_region_limits_the_search(batch, tmp_path):
    folder, _ = batch
    region = np.zeros((60, 80), np.uint8)
    region[:, :40] = 1
    tifffile.imwrite(tmp_path / "region.tif", region)
    result = invoke(folder / "a.tif", "-o", tmp_path, *TINY, "--region", tmp_path / "region.tif")
    assert result.exit_code == 0, result.stderr
    table = rows(tmp_path / "a_objects.csv")
    assert all(float(row["centroid_x"]) < 45 for row in table)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--model", "no_such_model"], 3, "no_such_model"),
        (["--device", "abacus"], 2, "abacus"),
        (["--pixel-size", "12 parsec"], 2, "--pixel-size"),
        (["--min-area", "9", "--max-area", "3"], 2, "max_area"),
        (["--prompts", "gone.json"], 2, "gone.json"),
        (["--overwrite", "--skip-existing"], 2, "exclude"),
        (["--pred-iou", "7"], 2, "--pred-iou"),
    ],
)
def test_mistakes_end_before_the_work(batch, tmp_path, args, code, message):
    folder, _ = batch
    result = invoke(folder / "a.tif", "-o", tmp_path / "out", *args)
    assert result.exit_code == code
    assert message in result.stderr.replace("\n", "")
    assert not list(tmp_path.rglob("*_labels.tif"))


def test_plane_out_of_range_fails_that_input(batch, tmp_path):
    folder, _ = batch
    result = invoke(folder / "stack.tif", "-o", tmp_path, *TINY, "--planes", "9")
    assert result.exit_code == 1
    assert "plane 9" in result.stderr


def test_nothing_to_segment(tmp_path):
    (tmp_path / "empty").mkdir()
    result = invoke(tmp_path / "empty", "-o", tmp_path / "out", *TINY)
    assert result.exit_code == 1
    assert "no images" in result.stderr


def test_output_in_the_place_of_a_file(batch, tmp_path):
    folder, _ = batch
    (tmp_path / "taken").touch()
    assert invoke(folder / "a.tif", "-o", tmp_path / "taken", *TINY).exit_code == 4


def test_interrupt_keeps_what_is_done_and_ends_with_130(batch, tmp_path, monkeypatch):
    import signal

    from phasesam.cli import batch as batch_module

    folder, _ = batch
    genuine = batch_module.segment_file

    def interrupted(job, recipe, watch, *, keep_masks=False):
        if job.source.name == "stack.tif":
            signal.raise_signal(signal.SIGINT)
        return genuine(job, recipe, watch, keep_masks=keep_masks)

    monkeypatch.setattr(batch_module, "segment_file", interrupted)
    inputs = [folder / name for name in ("a.tif", "stack.tif", "broken.tif")]
    result = invoke(*inputs, "-o", tmp_path, *TINY, "--json")
    assert result.exit_code == 130
    statuses = [entry["status"] for entry in json.loads(result.stdout)["results"]]
    assert statuses == ["ok", "cancelled", "cancelled"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a_labels.tif",
        "a_objects.csv",
        "a_overlay.png",
    ]


def test_help_shows_examples():
    text = invoke("--help").stdout
    assert "--preset particles" in text
    assert "Exit status" in text
