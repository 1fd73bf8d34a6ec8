"""The table of labels to learn from."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox

from phasesam.napari_widgets.plane_ticks import PlaneTicks
from phasesam.napari_widgets.training_pairs import PairTable
from phasesam.napari_widgets.viewer_state import state_of

SHAPE = (8, 10)


def square(shape=SHAPE, value=1):
    labels = np.zeros(shape, np.int32)
    labels[..., 2:5, 3:6] = value
    return labels


@pytest.fixture
def table(qtbot, viewer_model):
    table = PairTable(state_of(viewer_model))
    qtbot.addWidget(table)
    return table


@pytest.fixture
def settled(qtbot, table):
    """Wait until all that is ticked has been looked at."""

    def wait():
        qtbot.wait(10)
        qtbot.waitUntil(lambda: not table.is_scanning and not table._timer.isActive(), timeout=9000)

    return wait


def names(table):
    return [(pair.image.name, pair.labels.name) for pair in table.chosen()]


def test_labels_that_fit_an_image_are_listed_and_ticked(table, viewer_model, settled):
    viewer_model.add_image(np.zeros(SHAPE), name="SEM")
    viewer_model.add_labels(square(), name="mine")
    viewer_model.add_labels(square((3, 3)), name="other size")
    settled()
    assert names(table) == [("SEM", "mine")]
    assert table.topLevelItemCount() == 1
    assert table.isColumnHidden(2), "no stack, no planes"


def test_one_layer_for_each_image_is_ticked_and_none_that_is_hidden(table, viewer_model, settled):
    viewer_model.add_image(np.zeros(SHAPE), name="SEM")
    hidden = viewer_model.add_labels(square(), name="truth", visible=False)
    viewer_model.add_labels(square(), name="below")
    viewer_model.add_labels(square(), name="top")
    settled()
    assert names(table) == [("SEM", "top")]
    table.tick(hidden)
    settled()
    assert names(table) == [("SEM", "top"), ("SEM", "truth")]


def test_empty_labels_are_nothing_until_they_are_painted(table, viewer_model, settled, qtbot):
    viewer_model.add_image(np.zeros(SHAPE), name="SEM")
    labels = viewer_model.add_labels(square(value=0), name="mine")
    settled()
    assert table.chosen() == []
    assert table.topLevelItem(0).text(0) == "mine (empty)"
    with qtbot.waitSignal(table.changed, timeout=9000):
        labels.data_setitem((np.array([2, 2]), np.array([3, 4])), 6)
    settled()
    (pair,) = table.chosen()
    assert pair.scan.values == (6,)
    assert table.topLevelItem(0).text(0) == "mine"


def test_planes_of_a_stack_can_be_left_out(table, viewer_model, settled, qtbot):
    viewer_model.add_image(np.zeros((5, *SHAPE)), name="CT")
    stack = np.zeros((5, *SHAPE), np.int32)
    stack[1], stack[3], stack[4] = square(), square(), square()
    viewer_model.add_labels(stack, name="mine")
    settled()
    ticks = table.itemWidget(table.topLevelItem(0), 2)
    assert isinstance(ticks, PlaneTicks)
    assert ticks.text() == "3 planes"
    with qtbot.waitSignal(table.changed):
        ticks.list.item(1).setCheckState(Qt.CheckState.Unchecked)
    assert ticks.text() == "2 of 3 planes"
    assert table.chosen()[0].planes == ((1,), (4,))
    table.refresh()
    assert table.chosen()[0].planes == ((1,), (4,)), "chosen for good"
    ticks = table.itemWidget(table.topLevelItem(0), 2)
    ticks.none_button.click()
    assert table.chosen() == []
    ticks.all_button.click()
    assert len(table.chosen()[0].planes) == 3


def test_the_image_of_labels_can_be_chosen(table, viewer_model, settled):
    viewer_model.add_image(np.zeros(SHAPE), name="A")
    viewer_model.add_image(np.zeros(SHAPE), name="B")
    viewer_model.add_labels(square(), name="A mask")
    settled()
    combo = table.itemWidget(table.topLevelItem(0), 1)
    assert isinstance(combo, QComboBox)
    assert combo.currentText() == "A"
    combo.setCurrentIndex(1)
    combo.activated.emit(1)
    assert names(table) == [("B", "A mask")]


def test_the_table_follows_the_layer_list(table, viewer_model, settled, qtbot):
    image = viewer_model.add_image(np.zeros(SHAPE), name="SEM")
    labels = viewer_model.add_labels(square(), name="mine")
    settled()
    labels.name = "renamed"
    qtbot.waitUntil(lambda: table.topLevelItem(0).text(0) == "renamed", timeout=9000)
    viewer_model.layers.remove(image)
    qtbot.waitUntil(lambda: table.topLevelItemCount() == 0, timeout=9000)
    assert table.chosen() == []
    assert not table.has_rows


def test_a_layer_that_was_unticked_stays_so(table, viewer_model, settled):
    viewer_model.add_image(np.zeros(SHAPE), name="SEM")
    labels = viewer_model.add_labels(square(), name="mine")
    settled()
    table.tick(labels, False)
    viewer_model.add_labels(square(), name="new")
    settled()
    assert names(table) == [("SEM", "new")]
