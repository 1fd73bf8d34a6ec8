"""The Objects dock in a real viewer, with real mouse and keyboard events."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QFileDialog

from phasesam.napari_widgets.objects import ObjectsDock
from phasesam.napari_widgets.prompts import PromptDock

pytestmark = pytest.mark.gui

SHAPE = (96, 128)
CENTRES = {1: (20, 20), 2: (20, 60), 3: (70, 40), 4: (60, 100)}
RADIUS = 12


def disc(y, x, radius=RADIUS):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def world(object_id):
    """Centre of an object in the viewer's world: half a micrometre a pixel."""
    y, x = CENTRES[object_id]
    return 0.5 * y, 0.5 * x


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 900)
    image = np.full(SHAPE, 0.1, np.float32)
    for y, x in CENTRES.values():
        image[disc(y, x)] = 0.9
    viewer.add_image(image, name="SEM", scale=(0.5, 0.5), units=("um", "um"))
    return viewer


@pytest.fixture
def dock(viewer, qtbot):
    dock = ObjectsDock(viewer)
    viewer.window.add_dock_widget(dock, name="Objects")
    dock.state.labels_layer(viewer.layers["SEM"])
    for y, x in CENTRES.values():
        session(dock).commit(disc(y, x))
    viewer.layers.selection.active = viewer.layers["SEM"]
    qtbot.wait(100)
    return dock


def session(dock):
    return dock.state.session(dock.viewer.layers["SEM"])


def ids(dock):
    return dock.table.table.ids.tolist()


def click_row(qtbot, dock, row, modifiers=Qt.KeyboardModifier.NoModifier):
    index = dock.table.table.index(row, 0)
    dock.table.scrollTo(index)
    place = dock.table.visualRect(index).center()
    qtbot.mouseClick(dock.table.viewport(), Qt.MouseButton.LeftButton, modifiers, place)


def press(qtbot, dock, key):
    qtbot.mouseClick(dock.actions_bar.buttons[key], Qt.MouseButton.LeftButton)
    qtbot.wait(20)


def test_row_and_picture_are_linked_both_ways(viewer, dock, qtbot, click, drag):
    click_row(qtbot, dock, 2)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], world(3), atol=0.3)
    outline = viewer.layers["SEM selected"]
    np.testing.assert_allclose(
        np.asarray(outline.translate) + 0.5 * (np.array(outline.data.shape) - 1) / 2,
        world(3),
        atol=0.3,
    )
    viewer.reset_view()
    click(viewer, world(4))
    assert dock.table.selected_ids() == [4]
    assert viewer.layers.selection.active is viewer.layers["SEM"]
    viewer.layers.selection.active = viewer.layers["SEM objects"]
    click(viewer, world(2))
    assert dock.table.selected_ids() == [2]
    camera = viewer.scene.camera.center
    drag(viewer, world(1), world(3))
    assert viewer.scene.camera.center != camera, "a drag moves the picture"
    assert dock.table.selected_ids() == [2], "and selects nothing"
    viewer.reset_view()
    click(viewer, (40.0, 5.0))
    assert dock.table.selected_ids() == []
    assert not viewer.layers["SEM selected"].visible


def test_delete_merge_undo_with_mouse_and_keys(viewer, dock, qtbot):
    labels = viewer.layers["SEM objects"]
    click_row(qtbot, dock, 0)
    qtbot.keyClick(dock.table, Qt.Key.Key_Delete)
    assert ids(dock) == [2, 3, 4]
    assert not (labels.data == 1).any()
    click_row(qtbot, dock, 0)
    click_row(qtbot, dock, 2, Qt.KeyboardModifier.ControlModifier)
    press(qtbot, dock, "merge")
    assert ids(dock) == [2, 3]
    np.testing.assert_array_equal(labels.data == 2, disc(*CENTRES[2]) | disc(*CENTRES[4]))
    press(qtbot, dock, "undo")
    press(qtbot, dock, "undo")
    assert ids(dock) == [1, 2, 3, 4]
    press(qtbot, dock, "redo")
    assert ids(dock) == [2, 3, 4]


def test_split_along_a_line_drawn_with_the_mouse(viewer, dock, qtbot, drag, until):
    click_row(qtbot, dock, 2)
    dock.actions_bar.split_menu.actions()[0].trigger()
    assert viewer.layers.selection.active is viewer.layers["SEM split line"]
    y, x = world(3)
    drag(viewer, (y - 10, x), (y + 10, x), steps=12)
    until(lambda: len(ids(dock)) == 5)
    assert "SEM split line" not in viewer.layers
    assert viewer.layers.selection.active is viewer.layers["SEM"]
    parts = dock.table.selected_ids()
    assert len(parts) == 2
    areas = [session(dock).record(part).area for part in parts]
    assert sum(areas) == disc(*CENTRES[3]).sum()
    assert max(areas) / min(areas) < 1.3
    press(qtbot, dock, "undo")
    assert ids(dock) == [1, 2, 3, 4]


def test_a_line_beside_the_object_is_explained(viewer, dock, qtbot, drag, until):
    click_row(qtbot, dock, 2)
    dock.actions_bar.split_menu.actions()[0].trigger()
    y, x = world(3)
    drag(viewer, (y - 8, x - 12), (y + 8, x - 12), steps=12)
    until(lambda: "SEM split line" not in viewer.layers)
    assert "does not cut" in dock.footer.result.text()
    assert ids(dock) == [1, 2, 3, 4]


def test_brush_and_eraser_change_the_table(viewer, dock, qtbot, drag, until):
    viewer.reset_view()
    labels = viewer.layers["SEM objects"]
    viewer.layers.selection.active = labels
    labels.selected_label = session(dock).next_id
    labels.mode = "paint"
    labels.brush_size = 5
    drag(viewer, (44.0, 5.0), (44.0, 15.0))
    until(lambda: len(ids(dock)) == 5)
    before = session(dock).record(1).area
    labels.mode = "erase"
    drag(viewer, (10.0, 6.0), (10.0, 14.0))
    until(lambda: session(dock).record(1).area < before)
    press(qtbot, dock, "undo")
    press(qtbot, dock, "undo")
    assert ids(dock) == [1, 2, 3, 4]
    assert session(dock).record(1).area == before
    assert not (labels.data == 5).any()


def test_sort_filter_and_export(viewer, dock, qtbot, until, tmp_path, monkeypatch):
    header = dock.table.horizontalHeader()
    column = [c.key for c in dock.table.table.columns].index("id")
    place = header.sectionViewportPosition(column) + header.sectionSize(column) // 2
    for expected in ([4, 3, 2, 1], [1, 2, 3, 4]):
        qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(place, 8))
        qtbot.wait(20)
        assert ids(dock) == expected
    qtbot.mouseClick(dock.filter_box, Qt.MouseButton.LeftButton)
    qtbot.keyClicks(dock.filter_box, "id > 2")
    assert sorted(ids(dock)) == [3, 4]
    path = tmp_path / "table.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", staticmethod(lambda *_: (str(path), "")))
    dock.actions_bar.export_menu.actions()[0].trigger()
    until(lambda: not dock.running)
    assert dock.footer.result.text() == f"Saved {path}."
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["id"]) for row in rows) == [3, 4]


def test_reopen_in_the_prompt_dock(viewer, dock, qtbot, region_segmenter):
    prompt = PromptDock(viewer)
    viewer.window.add_dock_widget(prompt, name="Prompt", tabify=True)
    click_row(qtbot, dock, 1)
    press(qtbot, dock, "reopen")
    assert ids(dock) == [1, 3, 4]
    assert prompt.controller.present().reopened.id == 2
    assert "Prompt dock" in dock.footer.result.text()


def test_stack_slider_jumps_to_the_object(make_napari_viewer, qtbot, click):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 900)
    viewer.add_image(
        np.zeros((5, *SHAPE), np.float32), name="XCT", scale=(2, 0.5, 0.5), units=("um",) * 3
    )
    dock = ObjectsDock(viewer)
    viewer.window.add_dock_widget(dock, name="Objects")
    image = viewer.layers["XCT"]
    dock.state.labels_layer(image)
    own = dock.state.session(image)
    own.commit(disc(*CENTRES[1]), plane=(1,))
    own.commit(disc(*CENTRES[4]), plane=(3,))
    qtbot.wait(50)
    click_row(qtbot, dock, 1)
    assert viewer.dims.point[0] == 6
    click_row(qtbot, dock, 0)
    assert viewer.dims.point[0] == 2
    viewer.dims.set_point(0, 6)
    viewer.reset_view()
    viewer.layers.selection.active = image
    click(viewer, (6.0, *world(4)))
    assert dock.table.selected_ids() == [2]


def test_closing_the_dock_leaves_nothing_behind(viewer, dock, qtbot, click):
    callbacks = len(viewer.mouse_drag_callbacks)
    click_row(qtbot, dock, 0)
    viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    qtbot.wait(50)
    assert len(viewer.mouse_drag_callbacks) == callbacks - 1
    click(viewer, world(2))
