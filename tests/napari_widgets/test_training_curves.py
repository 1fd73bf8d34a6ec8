"""Painted curves, the picture of a validation image, and figures in words."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtGui import QColor

from phasesam.napari_widgets.training_curves import CurvePlot
from phasesam.napari_widgets.training_figures import Figure, best_row, figures, score_title
from phasesam.napari_widgets.training_preview import (
    PREDICTION,
    TRUTH,
    PreviewView,
    outlines,
    preview_picture,
)
from phasesam.training.run_folder import Preview

RED = QColor("#ff0000")


@pytest.fixture
def plot(qtbot):
    plot = CurvePlot("Loss", RED, RED)
    qtbot.addWidget(plot)
    plot.resize(200, 120)
    plot.show()
    return plot


def drawn(widget, colour):
    """Columns and rows of a colour below the title."""
    image = widget.grab().toImage()
    points = [
        (x, y)
        for y in range(24, image.height())
        for x in range(image.width())
        if image.pixelColor(x, y) == colour
    ]
    return np.array(points)


def test_an_empty_plot_can_be_drawn(plot):
    plot.set_points([], 0)
    assert len(drawn(plot, RED)) == 0
    assert plot.accessibleDescription() == "0 epochs, newest none yet"


def test_a_falling_curve_falls_and_leaves_room_for_what_is_to_come(plot):
    plot.set_points([(1, 3.0), (2, 2.0), (3, 0.5)], 6)
    points = drawn(plot, RED)
    left, right = points[:, 0].min(), points[:, 0].max()
    assert points[points[:, 0] == left, 1].mean() < points[points[:, 0] == right, 1].mean() - 30
    assert right == pytest.approx(plot.width() / 2, abs=8)
    plot.set_points([(1, 3.0), (2, 2.0), (3, 0.5)], 3)
    assert drawn(plot, RED)[:, 0].max() > plot.width() - 14


@pytest.mark.parametrize("values", [[0.0], [2.0], [0.5, 0.5], [-1.0, 1.0]])
def test_any_values_can_be_drawn(plot, values):
    plot.set_points([(i + 1, v) for i, v in enumerate(values)], 5, marked=1, base=values[0])
    assert len(drawn(plot, RED)) > 4


def test_the_point_under_the_mouse_is_told(plot, qtbot, until, monkeypatch):
    told = []
    monkeypatch.setattr(
        "phasesam.napari_widgets.training_curves.QToolTip.showText", lambda *a: told.append(a[1])
    )
    plot.set_points([(1, 3.0), (2, 0.125)], 2)
    qtbot.mouseMove(plot, plot._at(2, 0.125).toPoint())
    # The display tells it when it comes to that.
    until(lambda: told)
    assert told[-1] == "epoch 2: loss 0.125"


def test_outlines_lie_between_labels_but_not_beside_what_is_not_labelled():
    labels = np.full((6, 8), -1, np.int32)
    labels[:, 2:5], labels[:, 5:] = 0, 1
    thin = outlines(labels, 1)
    assert thin.any(axis=0).tolist() == [False] * 4 + [True] * 2 + [False] * 2
    assert outlines(labels, 2).any(axis=0).tolist() == [False] * 3 + [True] * 4 + [False]
    assert not outlines(np.zeros((5, 5), np.int32), 2).any()


def test_outlines_do_not_come_in_at_the_other_side():
    labels = np.zeros((5, 9), np.int32)
    labels[:, 0] = 1
    assert outlines(labels, 2).any(axis=0).tolist() == [True] * 3 + [False] * 6


def test_picture_shows_truth_and_prediction():
    truth, prediction = np.zeros((2, 30, 40), np.int32)
    truth[5:15, 5:15], prediction[8:18, 20:34] = 1, 1
    rgb = np.full((30, 40, 3), 100, np.uint8)
    picture = preview_picture(Preview(rgb, truth, prediction), longest=400)
    assert picture.shape == (300, 400, 3)
    colours = {
        tuple(int(part) for part in row) for row in np.unique(picture.reshape(-1, 3), axis=0)
    }
    assert {c.getRgb()[:3] for c in (TRUTH, PREDICTION)} < colours
    yellow = np.argwhere((picture == TRUTH.getRgb()[:3]).all(axis=2))
    assert yellow.min(axis=0) == pytest.approx([50, 50], abs=2)
    assert yellow.max(axis=0) == pytest.approx([150, 150], abs=2)


def test_the_view_is_as_high_as_its_picture_needs(qtbot):
    view = PreviewView()
    qtbot.addWidget(view)
    assert view.heightForWidth(200) == 0
    view.set_picture(np.zeros((50, 100, 3), np.uint8))
    assert 100 < view.heightForWidth(200) < 140
    view.set_picture(np.zeros((500, 10, 3), np.uint8))
    assert view.heightForWidth(200) < 400
    view.resize(200, 300)
    assert not view.grab().isNull()
    view.set_picture(None)
    assert not view.has_picture


ROWS = (
    {"epoch": 0.0, "dice_1": 0.2, "val_score": 0.3},
    {"epoch": 1.0, "dice_1": 0.5, "dice_3": 0.6, "dice_5": 0.7, "val_score": 0.6},
    {"epoch": 2.0, "dice_1": 0.6, "dice_3": 0.7, "dice_5": 0.8, "val_score": 0.7},
    {"epoch": 3.0, "dice_1": 0.9, "dice_3": 0.9, "dice_5": 0.9, "val_score": 0.7},
)


def test_figures_are_those_of_the_epoch_that_is_kept():
    assert best_row(ROWS)["epoch"] == 2, "the first of equals, as in training"
    assert figures(ROWS, "promptable") == [
        Figure("Dice after 1 click", 0.6, 0.2),
        Figure("Dice after 3 clicks", 0.7),
        Figure("Dice after 5 clicks", 0.8),
    ]
    rows = [{"epoch": 1.0, "iou_0": 0.5, "iou_2": 0.25, "val_score": 0.4}]
    assert figures(rows, "semantic", ("a", "b", "c")) == [
        Figure("IoU of a", 0.5),
        Figure("IoU of c", 0.25),
    ]
    assert figures([], "promptable") == []
    assert best_row([{"epoch": 1.0}, {"epoch": 2.0}])["epoch"] == 2, "without scores the newest"
    assert score_title("semantic") == "mean IoU of the classes"
