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
        (["--planes", "5-2"], 2, "--planes expects"),
        (["--region", __file__], 2, "--region"),
        (["--prompts", "PROMPTS", "--preset", "particles"], 2, "exclude"),
        (["--prompts", "PROMPTS"], 2, "no inputs: ['b.tif']"),
        (["--overwrite", "--skip-existing"], 2, "exclude"),
        (["--pred-iou", "7"], 2, "--pred-iou"),
    ],
)
def test_mistakes_end_before_the_work(batch, tmp_path, args, code, message):
    folder, _ = batch
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"images": {"b.tif": {"objects": [{"points": [[1, 1]]}]}}}')
    args = [prompts if arg == "PROMPTS" else arg for arg in args]
    result = invoke(folder / "a.tif", "-o", tmp_path / "out", *args)
    assert result.exit_code == code
    assert message in result.stderr.replace("\n", "")
    assert not list(tmp_path.rglob("*_labels.tif"))


def test_plane_out_of_range_fails_that_input(batch, tmp_path):
    folder, _ = batch
    result = invoke(folder / "stack.tif", "-o", tmp_path, *TINY, "--planes", "9")
    assert result.exit_code == 1
    assert "plane 9" in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [("empty", "no images"), ("gone.tif", "no such file"), ("*.tif", "no file matches")],
)
def test_nothing_to_segment(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    result = invoke(tmp_path / name, "-o", tmp_path / "out", *TINY)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_missing_input_beside_others_fails_alone(batch, tmp_path):
    folder, _ = batch
    result = invoke(folder / "a.tif", folder / "gone.tif", "-o", tmp_path, *TINY)
    assert result.exit_code == 1
    assert (tmp_path / "a_labels.tif").exists()
    assert "gone.tif: no such file" in result.stderr


def test_a_name_is_said_once(batch, tmp_path):
    folder, _ = batch
    result = invoke(folder / "broken.tif", "-o", tmp_path, *TINY)
    assert result.exit_code == 1
    assert result.stderr.count("broken.tif") == 1


def test_planes_choose_from_stacks_only(batch, tmp_path):
    folder, _ = batch
    result = invoke(
        folder / "a.tif", folder / "stack.tif", "-o", tmp_path, *TINY, "--planes", "1", "--json"
    )
    assert result.exit_code == 0, result.stderr
    assert [entry["planes"] for entry in json.loads(result.stdout)["results"]] == [1, 1]
    assert not tifffile.imread(tmp_path / "stack_labels.tif")[0].any()


def test_constant_image_fails(tmp_path):
    tifffile.imwrite(tmp_path / "const.tif", np.full((60, 80), 9, np.uint8))
    result = invoke(tmp_path / "const.tif", "-o", tmp_path / "out", *TINY, "--json")
    assert result.exit_code == 1
    (entry,) = json.loads(result.stdout)["results"]
    assert (entry["status"], entry["error"]["type"]) == ("failed", "InvalidImageError")
    assert "const.tif" in result.stderr
    assert "equal" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_constant_planes_of_a_stack_hold_nothing(tmp_path):
    stack = np.stack([np.zeros((60, 80), np.uint8), blobs(1)])
    tifffile.imwrite(tmp_path / "scan.tif", stack, photometric="minisblack")
    out = tmp_path / "out"
    result = invoke(tmp_path / "scan.tif", "-o", out, *TINY, "--json")
    assert result.exit_code == 0, result.stderr
    (entry,) = json.loads(result.stdout)["results"]
    assert (entry["planes"], entry["objects"] > 0) == (2, True)
    assert ["1 of 2 planes hold nothing" in text for text in entry["warnings"]] == [True]
    assert not tifffile.imread(out / "scan_labels.tif")[0].any()
    options = ("--planes", "0", "--overwrite")
    only_blank = invoke(tmp_path / "scan.tif", "-o", out, *TINY, *options)
    assert only_blank.exit_code == 1
    assert "nothing to find" in only_blank.stderr


@pytest.fixture
def answers(monkeypatch):
    """Let the model answer the i-th prompt with a rectangle of our choice."""
    from phasesam.core.mask_set import MaskSet
    from phasesam.engines.segmenter import Segmenter

    boxes = []
    left = []

    def predict(self, *args, **kwargs):
        mask = np.zeros(self.shape, bool)
        y0, x0, y1, x1 = left.pop(0)
        mask[y0:y1, x0:x1] = True
        return MaskSet.from_masks(mask[None], scores=[0.9])

    monkeypatch.setattr(Segmenter, "encode", lambda self, **kwargs: left.extend(boxes))
    monkeypatch.setattr(Segmenter, "predict", predict)
    return boxes


def prompted(folder, tmp_path, objects, *options, name="a.tif"):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"objects": objects}))
    return invoke(folder / name, "-o", tmp_path, "-m", "tiny", "--prompts", path, *options)


CLICK = {"points": [[20, 30]]}


def test_prompted_objects_lie_on_larger_ones(batch, tmp_path, answers):
    folder, _ = batch
    answers += [(5, 5, 15, 15), (20, 20, 30, 30), (0, 0, 50, 60)]
    result = prompted(folder, tmp_path, [CLICK] * 3, "--json")
    assert result.exit_code == 0, result.stderr
    labels = tifffile.imread(tmp_path / "a_labels.tif")
    assert np.bincount(labels.ravel())[1:].tolist() == [100, 100, 2800]
    (entry,) = json.loads(result.stdout)["results"]
    assert (entry["warnings"], entry["dropped"]) == ([], {})


def test_prompted_objects_that_do_not_show_are_named(batch, tmp_path, answers):
    folder, _ = batch
    answers += [(5, 5, 15, 15), (20, 20, 30, 30), (5, 5, 15, 15), (0, 0, 0, 0)]
    result = prompted(folder, tmp_path, [CLICK] * 4, "--json")
    assert result.exit_code == 0, result.stderr
    (entry,) = json.loads(result.stdout)["results"]
    assert (entry["objects"], entry["dropped"]) == (2, {"covered": 1})
    assert entry["warnings"] == [
        "1 of 4 objects asked for do not show: smaller ones cover them (number 1)",
        "1 of 4 objects asked for are empty: the model finds nothing there (number 4)",
    ]
    assert result.stderr.count("Warning: 1 of 4") == 2


def test_prompts_in_planes_that_are_not_there(batch, tmp_path):
    folder, _ = batch
    objects = [{**CLICK, "plane": 9}, CLICK]
    result = prompted(folder, tmp_path, objects, name="stack.tif")
    assert result.exit_code == 1
    assert "plane 9" in result.stderr
    objects = [{**CLICK, "plane": 1}]
    result = prompted(folder, tmp_path, objects, "--planes", "0", name="stack.tif")
    assert result.exit_code == 1
    assert "no objects for stack.tif" in result.stderr
    assert not (tmp_path / "stack_labels.tif").exists()


def test_smallest_area_holds_in_the_results(batch, tmp_path, monkeypatch):
    from phasesam.core.mask_set import MaskSet
    from phasesam.engines.candidates import Candidates

    folder, _ = batch
    masks = np.zeros((2, 60, 80), bool)
    masks[0, :20, :11] = True
    masks[1, :20, 1:11] = True
    found = MaskSet.from_masks(masks, scores=[0.9, 0.8])
    monkeypatch.setattr(Candidates, "filter", lambda self, config: found)
    for smallest, areas, dropped in ((30, [200], {"covered": 1}), (20, [20, 200], {})):
        options = ("--min-area", smallest, "--overwrite", "--json")
        result = invoke(folder / "a.tif", "-o", tmp_path, *TINY, *options)
        assert result.exit_code == 0, result.stderr
        assert [int(r["area_px"]) for r in rows(tmp_path / "a_objects.csv")] == areas
        assert json.loads(result.stdout)["results"][0]["dropped"] == dropped


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
