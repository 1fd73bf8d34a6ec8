"""Whole reports of phase maps, objects and clicks hold the figures and the rules."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam.evaluation.cells import ClickConfig, FourCells
from phasesam.evaluation.click_curves import ClickCurves
from phasesam.evaluation.click_tables import click_columns
from phasesam.evaluation.instance_tables import instance_columns
from phasesam.evaluation.instances import score_instance_sets
from phasesam.evaluation.pages import click_report, instance_report, joined, phase_report
from phasesam.evaluation.phase_maps import EMPTY_IMAGES, score_phase_maps
from phasesam.evaluation.phase_tables import phase_columns
from phasesam.formats.tables import save_table_csv

RGB = np.full((12, 16, 3), 90, np.uint8)
TRUTH = np.zeros((12, 16), np.int32)
TRUTH[2:8, 2:8] = 1
WORSE = np.zeros_like(TRUTH)
WORSE[2:8, 2:5] = 1


def cell(table, row: str, column: str) -> str:
    (found,) = [r for r in table.rows if r[0] == row]
    return found[table.columns.index(column)]


def phases():
    return {
        "U-Net": score_phase_maps([WORSE, WORSE], [TRUTH, TRUTH], ["matrix", "pore"], ["a", "b"]),
        "adapted": score_phase_maps([TRUTH, WORSE], [TRUTH, TRUTH], ["matrix", "pore"], ["a", "b"]),
    }


def test_phase_report():
    report = phase_report("Pores", phases(), lambda i: (RGB, TRUTH, [TRUTH, WORSE][i]))
    comparison, classes, fractions, images = report.tables
    assert cell(comparison, "IoU pore, pooled", "U-Net") == "0.500"
    assert cell(comparison, "IoU pore, pooled", "adapted") == "0.750"
    assert cell(comparison, "mIoU, per image", "adapted - U-Net").startswith("+0.1")
    assert cell(classes, "pore", "Dice, pooled") == f"{2 * 54 / (54 + 72):.3f}"
    assert cell(classes, "pore", "specificity without it (n)") == "– (0)"
    assert cell(fractions, "pore", "largest |error|") == f"{18 / 192:.3f}"
    assert cell(images, "a", "IoU pore") == "1.000"
    assert [p.title.split(" (")[0] for p in report.pictures] == ["best: a", "worst: b"]
    assert EMPTY_IMAGES in report.introduction
    assert "2 images." in report.introduction
    assert list(report.legend) == ["pore"]
    assert "–" in report.to_markdown()
    report.to_html()


def test_one_method_is_not_compared():
    last = dict([list(phases().items())[-1]])
    report = phase_report("Pores", last, lambda i: (RGB, TRUTH, TRUTH))
    assert [t.title for t in report.tables] == ["Classes", "Phase fractions", "Images"]


def test_instance_report():
    found = np.zeros_like(TRUTH)
    found[2:8, 2:8], found[9:11, 10:14] = 1, 2
    summaries = {
        "base": score_instance_sets([np.zeros_like(TRUTH)] * 2, [TRUTH, TRUTH], names=["a", "b"]),
        "adapted": score_instance_sets([TRUTH, found], [TRUTH, TRUTH], names=["a", "b"]),
    }
    report = instance_report("Grains", summaries, lambda i: (RGB, TRUTH, [TRUTH, found][i]))
    objects, images = report.tables
    assert cell(objects, "mSA, per image", "base").startswith("0.000")
    assert cell(objects, "mSA, per image", "adapted").startswith("0.750")
    assert cell(objects, "count error, pooled", "adapted") == "+0.500"
    assert cell(objects, "PQ, pooled", "adapted") == f"{2 / 2.5:.3f}"
    # The base finds nothing, which needs no scores; label images have none.
    assert cell(objects, "AP50, pooled", "adapted") == "–"
    assert images.columns[:4] == ("image", "method", "found", "true")
    assert len(report.pictures) == 2


def test_click_report():
    iou = np.array([[0.2, 0.6, 0.85], [0.4, 0.8, 0.95]])
    base, adapted = (
        ClickCurves(v, v, np.array([1, 2]), np.array(["a", "b"]), (0.8, 0.9), 3)
        for v in (iou, np.minimum(iou + 0.2, 1))
    )
    cells = FourCells(base, adapted, ClickConfig(clicks=3, max_clicks=3, thresholds=(0.8, 0.9)))
    report = click_report("Teeth", cells)
    four, needed, curve = report.tables
    assert cell(four, "IoU, base", "1 click").startswith("0.300")
    assert cell(four, "IoU, adapted", "1 click").startswith("0.500")
    assert cell(four, "IoU, base", "3 clicks").startswith("0.900")
    assert cell(four, "IoU, adapted - base", "1 click").startswith("+0.200")
    assert cell(needed, "NoC@80", "base").startswith("2.50")
    assert cell(needed, "NoC@80", "adapted").startswith("2.00")
    assert cell(needed, "NoC@80", "clicks saved").startswith("+0.50")
    assert cell(needed, "FR3@90", "base").startswith("0.500")
    assert [row[0] for row in curve.rows] == ["1", "2", "3"]
    assert "never across" not in four.note
    assert "not across" in four.note
    assert list(report.plots[0].curves) == ["base", "adapted"]


def test_joined_reports_say_the_rules_once():
    one = phase_report("A", phases(), lambda i: (RGB, TRUTH, TRUTH))
    both = joined("Both", one, one)
    assert both.introduction == one.introduction
    assert len(both.tables) == 2 * len(one.tables)
    assert len(both.pictures) == 4


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (phase_columns(phases()), 8),
        (instance_columns({"x": score_instance_sets([TRUTH], [TRUTH], names=["a"])}), 1),
    ],
    ids=["phases", "objects"],
)
def test_tables_for_csv(columns, rows, tmp_path):
    save_table_csv(tmp_path / "scores.csv", columns)
    lines = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + rows


def test_clicks_for_csv():
    curves = ClickCurves(
        np.full((2, 3), 0.5), np.full((2, 3), 0.6), np.array([4, 9]), np.array(["a", "b"]), (), 3
    )
    columns = click_columns(FourCells(curves, curves, ClickConfig(clicks=2, max_clicks=3)))
    assert len(columns["iou"]) == 2 * 2 * 3
    assert columns["object"][:6] == [4, 4, 4, 9, 9, 9]
    assert columns["clicks"][:3] == [1, 2, 3]
