"""``phasesam evaluate`` gives the figures that one gets by counting."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from phasesam.cli.app import app

TRUTH = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 9], [0, 0, 2, 9]], np.uint8)
PREDICTED = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 2], [0, 0, 0, 2]], np.uint8)


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", "masks", *map(str, arguments)])


@pytest.fixture
def folders(tmp_path):
    for folder, arrays in (
        ("found", {"a_labels": PREDICTED, "b": np.zeros((4, 4), np.uint8)}),
        ("true", {"a": TRUTH, "b": np.zeros((4, 4), np.uint8)}),
        ("images", {"a": PREDICTED * 50, "b": PREDICTED * 50}),
    ):
        (tmp_path / folder).mkdir()
        for name, array in arrays.items():
            Image.fromarray(array).save(tmp_path / folder / f"{name}.png")
    return tmp_path


def semantic(folders, *more):
    return run(folders / "found", folders / "true", "--task", "semantic", "--unlabelled", 9, *more)


def test_phases_by_hand(folders):
    result = semantic(folders, "--classes", "matrix,pore,inclusion", "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["images"] == ["a", "b"]
    classes = figures["classes"]
    # Image a: 8 right, 1 surplus and 1 + 1 missing of the matrix; b adds 16 right.
    assert classes["matrix"]["iou_pooled"] == pytest.approx(24 / 27, abs=1e-6)
    assert classes["pore"]["iou_pooled"] == pytest.approx(3 / 5, abs=1e-6)
    assert classes["pore"]["dice_pooled"] == pytest.approx(6 / 8, abs=1e-6)
    assert classes["inclusion"]["iou_pooled"] == 0
    assert figures["miou_pooled"] == pytest.approx((24 / 27 + 3 / 5) / 3, abs=1e-6)
    assert figures["miou"]["mean"] == pytest.approx(((8 / 11 + 3 / 5) / 3 + 1) / 2, abs=1e-6)
    assert figures["miou"]["n"] == 2
    assert classes["pore"]["iou_on_positive_images"]["n"] == 1
    assert classes["pore"]["iou_on_positive_images"]["low"] is None
    assert classes["pore"]["specificity_on_empty_images"]["mean"] == 1
    assert classes["matrix"]["largest_fraction_error"] == pytest.approx(1 / 14, abs=1e-6)


def test_the_report_holds_the_same_figures(folders):
    out = folders / "report"
    result = semantic(folders, "-o", out, "--images", folders / "images", "--title", "Pores")
    assert result.exit_code == 0, result.output
    assert "0.600" in result.stdout
    assert "report.html" in result.stdout
    text = (out / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# Pores\n")
    assert "| class 1 | 0.600 | 0.750 | 0.600 [–] (1) | 1.000 [–] (1) |" in text
    assert "0 where only the prediction does" in text
    assert "data:image/png;base64," in (out / "report.html").read_text(encoding="utf-8")
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert (rows[1]["image"], rows[1]["class"], rows[1]["iou"]) == ("a", "class 1", "0.6")
    assert rows[4]["iou"] == ""


def test_objects_by_hand(folders):
    truth = np.zeros((12, 40), np.uint16)
    for number, x in enumerate((1, 11, 21), 1):
        truth[1:5, x : x + 4] = number
    found = truth.copy()
    found[found == 3], found[7:11, 31:35] = 0, 700
    for folder, labels in (("found", found), ("true", truth)):
        Image.fromarray(labels).save(folders / folder / "c.png")
        for name in ("a", "a_labels", "b"):
            (folders / folder / f"{name}.png").unlink(missing_ok=True)
    result = run(folders / "found", folders / "true", "-t", "instance", "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["sa50"]["mean"] == 0.5
    assert figures["msa"]["mean"] == 0.5
    assert figures["pq_pooled"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures["count_error_pooled"] == 0
    assert figures["ap50_pooled"] is None


def test_two_files_in_a_table(folders):
    result = run(
        folders / "found" / "a_labels.png", folders / "true" / "a.png",
        "--task", "semantic", "--unlabelled", 9, "--classes", "0=m,1=p,2=i",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "0.600 [–] (1)" in result.stdout
    assert "bootstrap" not in result.stdout


def test_an_existing_report_stays(folders):
    out = folders / "report"
    assert semantic(folders, "-o", out, "--quiet").exit_code == 0
    before = (out / "report.md").read_bytes()
    result = semantic(folders, "-o", out, "--title", "Other")
    assert result.exit_code == 4
    assert "--overwrite" in result.stderr
    assert (out / "report.md").read_bytes() == before
    result = semantic(folders, "-o", out, "--title", "Other", "--overwrite", "--quiet")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (out / "report.md").read_bytes() != before


def test_missing_predictions(folders):
    (folders / "found" / "b.png").unlink()
    result = semantic(folders)
    assert result.exit_code == 2
    assert "not predicted: b" in result.stderr
    result = semantic(folders, "--skip-missing", "--json")
    assert result.exit_code == 0
    assert "Warning" in result.stderr
    assert json.loads(result.stdout)["images"] == ["a"]


def test_images_without_any_label_are_left_out(folders):
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(folders / "true" / "b.png")
    result = semantic(folders, "--json")
    assert json.loads(result.stdout)["images"] == ["a"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--classes", "a,,b"], "different names"),
        (["--classes", "0=a,b"], "VALUE=NAME"),
        (["--classes", "a,b"], "expected 2 classes"),
        (["--classes", "0=m,1=p"], "class values"),
    ],
)
def test_options_that_make_no_sense(folders, options, text):
    result = semantic(folders, *options)
    assert result.exit_code == 2
    assert text in result.stderr


def test_sizes_that_differ_name_the_image(folders):
    Image.fromarray(TRUTH[:3]).save(folders / "true" / "a.png")
    result = semantic(folders)
    assert result.exit_code == 2
    assert "a: expected phase maps of one shape" in result.stderr


def test_classes_are_not_for_objects(folders):
    result = run(folders / "found", folders / "true", "-t", "instance", "--classes", "a,b")
    assert result.exit_code == 2
    assert "semantic" in result.stderr


def test_a_truth_without_any_label(folders):
    for name in "ab":
        Image.fromarray(np.full((4, 4), 9, np.uint8)).save(folders / "true" / f"{name}.png")
    result = semantic(folders, "--classes", "matrix,pore,inclusion")
    assert result.exit_code == 2, result.output
    assert "expected labelled pixels in the truth, got none in 2 images" in result.stderr
