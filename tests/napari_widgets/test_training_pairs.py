"""The table of labels to learn from."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox

from phasesam.napari_widgets import training_layers, training_pairs
from phasesam.napari_widgets.layers import OWN
from phasesam.napari_widgets.plane_ticks import PlaneTicks
from phasesam.napari_widgets.training_layers import LEARNABLE, scan_labels
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


@pytest.fixture
def two(viewer_model, settled):
    """Images A and B, with labels each."""
    images = [viewer_model.add_image(np.zeros(SHAPE), name=name) for name in "AB"]
    for image in images:
        viewer_model.add_labels(square(), name=f"{image.name} labels")
    settled()
    return images


def test_labels_stay_with_an_image_that_is_renamed(table, viewer_model, settled, two):
    first, second = two
    made = viewer_model.add_labels(
        square(), name="A phases", metadata={OWN: {"image": "A", LEARNABLE: True}}
    )
    settled()
    table.tick(made)
    for name in ("A", "other"):
        first.name, second.name = "steel", name
        settled()
        pairs = {pair.labels.name: pair.image for pair in table.chosen()}
        assert pairs == {"A phases": first, "A labels": first, "B labels": second}


def test_labels_made_for_an_image_that_is_not_there_are_not_ticked(table, viewer_model, settled):
    viewer_model.add_image(np.zeros(SHAPE), name="B")
    viewer_model.add_labels(
        square(), name="A phases", metadata={OWN: {"image": "A", LEARNABLE: True}}
    )
    settled()
    assert table.chosen() == []
    assert "were made for the image 'A'" in table.topLevelItem(0).toolTip(0)


def test_labels_of_another_size_are_no_longer_listed(table, viewer_model, settled, two):
    viewer_model.layers["A labels"].data = square((7, 10))
    assert names(table) == [("B", "B labels")], "at once"
    settled()
    assert names(table) == [("B", "B labels")]
    assert table.topLevelItemCount() == 1
    assert table.misfits == ("Labels 'A labels' is 7 × 10; its image 'A' is 8 × 10.",)
    viewer_model.layers["A labels"].data = square()
    settled()
    assert names(table) == [("B", "B labels"), ("A", "A labels")], "still ticked"
    assert table.misfits == ()


def test_labels_do_not_move_to_an_image_that_merely_has_their_size(
    table, viewer_model, settled, two
):
    two[0].data = np.zeros((7, 10))
    assert names(table) == [("B", "B labels")], "at once"
    settled()
    assert names(table) == [("B", "B labels")]
    assert table.topLevelItemCount() == 1
    viewer_model.layers.remove(two[0])
    settled()
    assert table.topLevelItemCount() == 2
    assert names(table) == [("B", "B labels")], "listed, but not ticked"


def test_planes_of_a_shorter_stack_are_looked_at_anew(table, viewer_model, settled):
    image = viewer_model.add_image(np.zeros((5, *SHAPE)), name="CT")
    labels = viewer_model.add_labels(square((5, *SHAPE)), name="mine")
    settled()
    labels.data, image.data = square((3, *SHAPE)), np.zeros((3, *SHAPE))
    assert table.chosen() == []
    settled()
    assert table.chosen()[0].planes == ((0,), (1,), (2,))


def test_nothing_is_chosen_as_soon_as_the_images_are_gone(table, viewer_model, settled, two):
    for image in two:
        viewer_model.layers.remove(image)
    assert table.chosen() == []


def test_labels_go_to_their_image_when_it_comes(table, viewer_model, settled):
    for name in "BA":
        viewer_model.add_labels(square(), name=f"{name} labels")
    for name in "AB":
        viewer_model.add_image(np.zeros(SHAPE), name=name)
        settled()
    assert sorted(names(table)) == [("A", "A labels"), ("B", "B labels")]


def test_labels_elsewhere_are_listed_but_not_ticked(table, viewer_model, settled):
    viewer_model.add_image(np.zeros(SHAPE), name="SEM")
    labels = viewer_model.add_labels(square(), name="mine", scale=(1, -1))
    settled()
    assert table.chosen() == []
    item = table.topLevelItem(0)
    assert item.text(0) == "mine (not of this image?)"
    assert "do not lie on the image 'SEM'" in item.toolTip(0)
    table.tick(labels)
    settled()
    assert names(table) == [("SEM", "mine")]
    labels.scale = (1, 1)
    table.refresh()
    assert table.topLevelItem(0).text(0) == "mine"


@pytest.fixture
def scans(monkeypatch):
    """Count how often labels are looked at."""
    monkeypatch.setattr(training_pairs, "_SETTLE_MS", 20)
    done = []

    def scan(data, stop):
        done.append(data.shape)
        return scan_labels(data, stop)

    monkeypatch.setattr(training_pairs, "scan_labels", scan)
    return done


def test_planes_that_another_dock_writes_are_seen(table, viewer_model, settled, scans):
    viewer_model.add_image(np.zeros((3, *SHAPE)), name="CT")
    labels = viewer_model.add_labels(np.zeros((3, *SHAPE), np.uint8), name="map")
    settled()
    for plane in range(3):
        labels.data[plane] = square()
        labels.refresh(extent=False, thumbnail=False)
    settled()
    assert table.chosen()[0].planes == ((0,), (1,), (2,))
    assert table.itemWidget(table.topLevelItem(0), 2).text() == "3 planes"


def test_what_is_written_to_hidden_labels_is_seen_when_they_are_shown(
    table, viewer_model, settled, scans
):
    viewer_model.add_image(np.zeros((3, *SHAPE)), name="CT")
    labels = viewer_model.add_labels(square((3, *SHAPE)), name="map")
    settled()
    labels.visible = False
    settled()
    labels.data[1] = 0
    labels.refresh()
    viewer_model.dims.set_point(0, 2)
    labels.visible = True
    settled()
    assert table.chosen()[0].planes == ((0,), (2,))


def test_another_plane_is_not_looked_at_nor_told(table, viewer_model, settled, scans, qtbot):
    viewer_model.add_image(np.zeros((3, *SHAPE)), name="CT")
    labels = viewer_model.add_labels(square((3, *SHAPE)), name="map")
    settled()
    count = len(scans)
    with qtbot.assertNotEmitted(table.changed, wait=100):
        for plane in (0, 2, 1):
            viewer_model.dims.set_point(0, plane)
    assert len(scans) == count
    with qtbot.assertNotEmitted(table.changed, wait=100):
        labels.refresh()
    assert len(scans) == count + 1, "looked at, but nothing is new"


def test_many_layers_are_placed_once_each(viewer_model, qtbot, monkeypatch):
    asked = []
    real = training_layers._placement
    monkeypatch.setattr(
        training_layers, "_placement", lambda layer: (asked.append(layer), real(layer))[1]
    )
    for number in range(12):
        viewer_model.add_image(np.zeros((8, 8)), name=f"SEM {number}")
        viewer_model.add_labels(np.ones((8, 8), int), name=f"mask {number}")
    table = PairTable(state_of(viewer_model))
    qtbot.addWidget(table)
    asked.clear()
    table.refresh()
    assert table.topLevelItemCount() == 12
    # Not for each pair of a mask and an image: once for each, and a few times for its own image.
    assert len(asked) < 12 * 12
