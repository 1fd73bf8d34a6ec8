"""The Objects dock without a canvas. Real mouse events: test_objects_clicks.py."""

from __future__ import annotations

import csv
import json
import time

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog
from scipy import ndimage

from phasesam.core.mask_set import MaskSet
from phasesam.napari_widgets.objects import ObjectsDock

SHAPE = (60, 90)


def disc(y, x, radius, shape=SHAPE):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def masks():
    """Four discs: two that touch, one with a hole, one at the edge."""
    ring = disc(40, 30, 9) & ~disc(40, 30, 3)
    return MaskSet.from_masks(
        [disc(15, 15, 8), disc(15, 30, 8), ring, disc(50, 85, 10)], [0.9, 0.8, 0.7, 0.6]
    )


def open_dock(qtbot, viewer):
    dock = ObjectsDock(viewer)
    qtbot.addWidget(dock)
    dock.resize(420, 800)
    dock.show()
    return dock


@pytest.fixture
def dock(qtbot, viewer_model):
    viewer_model.add_image(np.zeros(SHAPE), name="SEM", scale=(0.5, 0.5), units=("um", "um"))
    dock = open_dock(qtbot, viewer_model)
    dock.state.labels_layer(dock.state.image_layer)
    session(dock).commit_many(masks())
    qtbot.wait(20)
    return dock


def session(dock):
    return dock.state.session(dock.state.image_layer)


def ids(dock):
    return dock.table.table.ids.tolist()


def press(dock, key):
    dock.actions_bar.buttons[key].click()


def choose(dock, qtbot, *rows):
    """Click table rows, with Ctrl from the second on."""
    for number, row in enumerate(rows):
        index = dock.table.table.index(row, 0)
        modifier = Qt.KeyboardModifier.ControlModifier if number else Qt.KeyboardModifier(0)
        place = dock.table.visualRect(index).center()
        qtbot.mouseClick(dock.table.viewport(), Qt.MouseButton.LeftButton, modifier, place)


def labels(dock):
    return dock.viewer.layers["SEM objects"].data


def said(dock):
    return dock.footer.result.text()


def test_table_shows_what_the_session_measures(dock):
    assert ids(dock) == [1, 2, 3, 4]
    columns = dock.table.table.columns
    assert [c.key for c in columns] == [
        "id", "class", "area", "diameter", "aspect", "circularity", "score", "edge",
    ]  # fmt: skip
    measured = session(dock).table()
    np.testing.assert_allclose(dock.table.table.shown("area"), measured["area_um2"])
    assert dock.table.table.shown("edge").tolist() == [False, False, False, True]
    assert columns[2].title == "Area µm²"


def test_summary_and_histogram(dock):
    text = dock.summary.text()
    area = session(dock).labels.astype(bool).mean()
    assert text.startswith("4 objects · D50 ")
    assert "1 at the edge" in text
    assert f"{100 * area:.1f}\u00a0% of the image (95\u00a0%: " in text
    assert dock.histogram.counts.sum() == 4
    assert len(dock.histogram.marks) == 3


def test_one_object_is_one_object(dock, qtbot):
    session(dock).delete([2, 3, 4])
    dock.refresh()
    assert dock.summary.text().startswith("1 object · D50 ")


def test_scores_end_at_one(dock):
    session(dock).commit(disc(30, 60, 4), score=1.02)
    session(dock).commit(disc(10, 75, 4))
    dock.refresh()
    scores = dock.table.table.shown("score")
    assert scores[4] == 1.0
    assert np.isnan(scores[5])


def test_the_summary_is_seen_in_a_low_dock(dock, qtbot):
    dock.resize(296, 560)
    qtbot.wait(20)
    assert dock.summary.visibleRegion().boundingRect() == dock.summary.rect()
    assert dock.summary.height() >= dock.summary.heightForWidth(dock.summary.width())
    assert dock.table.height() > 120, "the table takes what is left"


def test_without_pixel_size_the_unit_is_pixels(qtbot, viewer_model):
    viewer_model.add_image(np.zeros(SHAPE), name="SEM")
    dock = open_dock(qtbot, viewer_model)
    session(dock).commit_many(masks())
    dock.refresh()
    assert dock.table.table.columns[2].title == "Area px"
    np.testing.assert_array_equal(dock.table.table.shown("area"), session(dock).table()["area_px"])


def test_selecting_a_row_outlines_the_object_and_moves_the_camera(dock, qtbot):
    choose(dock, qtbot, 0)
    layer = dock.viewer.layers["SEM selected"]
    corner = np.rint(np.asarray(layer.translate) / 0.5).astype(int)
    outlined = np.zeros(SHAPE, bool)
    height, width = layer.data.shape
    outlined[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = layer.data > 0
    np.testing.assert_array_equal(ndimage.binary_fill_holes(outlined), session(dock).labels == 1)
    assert outlined.sum() < 0.7 * (session(dock).labels == 1).sum()
    np.testing.assert_allclose(dock.viewer.scene.camera.center[-2:], (7.5, 7.5), atol=0.3)
    assert dock.state.selected_object == 1


def test_selection_elsewhere_selects_the_row(dock):
    dock.state.select_object(3)
    assert dock.table.selected_ids() == [3]
    assert "SEM selected" in dock.viewer.layers


def test_delete_from_the_keyboard_goes_on_to_the_next_row(dock, qtbot):
    choose(dock, qtbot, 1)
    qtbot.keyClick(dock.table, Qt.Key.Key_Delete)
    assert ids(dock) == [1, 3, 4]
    assert not (labels(dock) == 2).any()
    assert dock.table.selected_ids() == [3]
    assert said(dock) == "Deleted 1 object."
    qtbot.keyClick(dock.table, Qt.Key.Key_Delete)
    assert ids(dock) == [1, 4]


def test_delete_several(dock, qtbot):
    choose(dock, qtbot, 0, 2, 3)
    press(dock, "delete")
    assert ids(dock) == [2]
    assert said(dock) == "Deleted 3 objects."
    press(dock, "undo")
    qtbot.wait(20)
    assert ids(dock) == [1, 2, 3, 4]


def test_merge_and_split_at_the_neck(dock, qtbot):
    choose(dock, qtbot, 0, 1)
    press(dock, "merge")
    assert ids(dock) == [1, 3, 4]
    assert dock.table.selected_ids() == [1]
    assert (labels(dock) == 1).sum() == session(dock).record(1).area
    dock.actions_bar.split_menu.actions()[1].trigger()
    assert len(ids(dock)) == 4
    assert len(dock.table.selected_ids()) == 2
    assert said(dock) == "Split into 2 objects."


def test_an_edit_that_cannot_be_done_is_explained(dock, qtbot):
    choose(dock, qtbot, 0)
    dock.actions_bar.split_menu.actions()[1].trigger()
    assert "no neck" in said(dock)
    assert ids(dock) == [1, 2, 3, 4]


def test_fill_and_smooth(dock, qtbot):
    choose(dock, qtbot, 2)
    before = session(dock).record(3).area
    press(dock, "fill")
    assert session(dock).record(3).area == disc(40, 30, 9).sum() > before
    assert said(dock) == "Filled the holes of 1 object."
    square = session(dock).commit(np.pad(np.ones((20, 20), bool), ((2, 38), (50, 20))))
    dock.refresh()
    choose(dock, qtbot, ids(dock).index(square))
    press(dock, "smooth")
    assert said(dock) == "Smoothed 1 object."
    assert session(dock).record(square).area < 400


@pytest.mark.parametrize(("key", "verb"), [("fill", "fill"), ("smooth", "smooth")])
def test_an_edit_that_changes_nothing_says_so_and_is_no_step(dock, qtbot, key, verb):
    square = np.zeros(SHAPE, bool)
    square[2:4, 60:62] = True
    smallest = session(dock).commit(square)
    dock.refresh()
    choose(dock, qtbot, ids(dock).index(smallest))
    press(dock, key)
    press(dock, key)
    assert said(dock).startswith(f"Nothing to {verb}")
    assert session(dock).undo_name == "Add object"


def test_only_objects_with_holes_are_counted_as_filled(dock, qtbot):
    choose(dock, qtbot, 0, 1, 2)
    press(dock, "fill")
    assert said(dock) == "Filled the holes of 1 object."


def test_undo_and_redo_walk_through_everything(dock, qtbot):
    states = [labels(dock).copy()]
    for step in (
        lambda: (choose(dock, qtbot, 0, 1), press(dock, "merge")),
        lambda: (choose(dock, qtbot, 1), press(dock, "fill")),
        lambda: (choose(dock, qtbot, 2), press(dock, "delete")),
    ):
        step()
        qtbot.wait(10)
        states.append(labels(dock).copy())
    for state in states[-2::-1]:
        press(dock, "undo")
        np.testing.assert_array_equal(labels(dock), state)
    for state in states[1:]:
        press(dock, "redo")
        np.testing.assert_array_equal(labels(dock), state)
    assert not dock.actions_bar.redo.isEnabled()
    assert "Delete" in dock.actions_bar.undo.toolTip()


def test_buttons_need_the_right_number_of_objects(dock, qtbot):
    def enabled():
        return {key for key, button in dock.actions_bar.buttons.items() if button.isEnabled()}

    assert enabled() == {"undo", "export"}
    choose(dock, qtbot, 0)
    assert enabled() == {"undo", "export", "delete", "split", "fill", "smooth", "reopen"}
    choose(dock, qtbot, 0, 1)
    assert enabled() == {"undo", "export", "delete", "merge", "fill", "smooth"}


def test_class_is_edited_in_the_table_for_all_selected(dock, qtbot):
    choose(dock, qtbot, 0, 1)
    model = dock.table.table
    model.setData(model.index(0, 1), "pore")
    qtbot.wait(20)
    assert [r.class_name for r in session(dock).objects] == ["pore", "pore", "", ""]
    assert model.shown("class").tolist() == ["pore", "pore", "", ""]


def test_filter_box(dock, qtbot):
    dock.filter_box.setText("edge")
    assert ids(dock) == [4]
    assert dock.count.text() == "1 of 4"
    dock.filter_box.setText("area > ")
    assert ids(dock) == [4], "half-typed text changes nothing"
    assert "area > 500" in dock.count.toolTip()
    dock.filter_box.setText("score >= 0.8")
    assert ids(dock) == [1, 2]
    assert dock.histogram.counts.sum() == 2, "sizes are those of the rows shown"
    assert dock.summary.text().startswith("2 of 4 objects · D50 ")
    dock.state.select_object(4)
    assert "hidden by the filter" in said(dock)
    dock.filter_box.clear()
    assert dock.count.text() == "4"


def test_image_closed_while_a_filter_is_set(dock, qtbot):
    dock.filter_box.setText("area > 20 and not edge")
    dock.viewer.layers.clear()
    qtbot.wait(20)
    assert ids(dock) == []


def test_painting_in_the_layer_changes_the_table(dock, qtbot):
    layer = dock.viewer.layers["SEM objects"]
    layer.selected_label = session(dock).next_id
    layer.mode = "paint"
    layer.paint((30, 60), 5)
    qtbot.wait(30)
    assert len(ids(dock)) == 5


def test_no_image(qtbot, viewer_model):
    dock = open_dock(qtbot, viewer_model)
    assert dock.summary.text() == "Open an image first."
    assert not any(button.isEnabled() for button in dock.actions_bar.buttons.values())
    press(dock, "delete")


def test_switching_and_removing_images(dock, qtbot):
    second = dock.viewer.add_image(np.zeros((20, 20)), name="second")
    dock.viewer.layers.selection.active = second
    assert ids(dock) == []
    session(dock).commit(disc(10, 10, 4, (20, 20)))
    qtbot.wait(20)
    assert ids(dock) == [1]
    choose(dock, qtbot, 0)
    dock.viewer.layers.remove("second")
    qtbot.wait(20)
    assert ids(dock) == [1, 2, 3, 4]
    assert "second selected" not in dock.viewer.layers


def test_a_closed_dock_listens_no_more(qtbot, viewer_model):
    image = viewer_model.add_image(np.zeros(SHAPE), name="SEM")
    before = list(viewer_model.mouse_drag_callbacks)
    dock = ObjectsDock(viewer_model)
    own = session(dock)
    own.commit_many(masks())
    assert len(viewer_model.mouse_drag_callbacks) == len(before) + 1
    dock.deleteLater()
    del dock
    qtbot.wait(50)
    own.delete([1])
    viewer_model.dims.set_point(0, 0)
    viewer_model.layers.remove(image)
    assert viewer_model.mouse_drag_callbacks == before


def test_stack(qtbot, viewer_model, until):
    viewer_model.add_image(np.zeros((6, *SHAPE)), name="XCT", scale=(3, 1, 1))
    dock = open_dock(qtbot, viewer_model)
    session(dock).commit_many(masks(), plane=(1,))
    session(dock).commit_many(masks(), plane=(4,))
    qtbot.wait(20)
    assert dock.table.table.columns[1].title == "Plane"
    assert ids(dock) == list(range(1, 9))
    assert "of 2 planes" in dock.summary.text()
    choose(dock, qtbot, 5)
    assert viewer_model.dims.point[0] == 12, "the slider jumps to the object's plane"
    np.testing.assert_allclose(viewer_model.layers["XCT selected"].translate[0], 12)
    dock.this_plane.setChecked(True)
    assert ids(dock) == [5, 6, 7, 8]
    assert "of the plane" in dock.summary.text()
    viewer_model.dims.set_point(0, 3)
    qtbot.wait(20)
    assert ids(dock) == [1, 2, 3, 4]
    choose(dock, qtbot, 0, 1)
    press(dock, "merge")
    assert ids(dock) == [1, 3, 4]


def test_layers_in_other_units_than_the_viewer(qtbot, viewer_model):
    """A nanometre layer beside makes nanometres the unit of the world."""
    viewer_model.add_image(np.zeros((3, *SHAPE)), name="XCT", scale=(2, 1, 1), units=("um",) * 3)
    viewer_model.add_image(np.zeros((4, 4)), scale=(1, 1), units=("nm", "nm"), name="small")
    dock = open_dock(qtbot, viewer_model)
    dock.state.image_layer = viewer_model.layers["XCT"]
    session(dock).commit(disc(15, 15, 8), plane=(2,))
    qtbot.wait(20)
    choose(dock, qtbot, 0)
    assert dock.state.plane(dock.state.image_layer).index == (2,)
    np.testing.assert_allclose(viewer_model.scene.camera.center[-2:], (15_000, 15_000))


@pytest.fixture
def save_as(monkeypatch, tmp_path):
    """Answer the file dialog with a name in a temporary folder."""

    def _save_as(name):
        path = tmp_path / name
        monkeypatch.setattr(
            QFileDialog, "getSaveFileName", staticmethod(lambda *_: (str(path), ""))
        )
        return path

    return _save_as


def export(dock, kind, until):
    entries = {"csv": 0, "coco": 1, "tiff": 2}
    dock.actions_bar.export_menu.actions()[entries[kind]].trigger()
    until(lambda: not dock.running)


def test_export_table(dock, until, save_as):
    path = save_as("objects.csv")
    dock.filter_box.setText("not edge")
    dock.table.sortByColumn(6, Qt.SortOrder.AscendingOrder)
    export(dock, "csv", until)
    assert said(dock) == f"Saved {path}."
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert [int(row["id"]) for row in rows] == [3, 2, 1], "as shown: filtered and sorted"


def test_export_label_image(dock, until, save_as):
    import tifffile

    path = save_as("labels.tif")
    export(dock, "tiff", until)
    np.testing.assert_array_equal(tifffile.imread(path), session(dock).labels)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_export_coco(dock, until, save_as):
    from pycocotools import mask as coco_mask

    path = save_as("masks.json")
    session(dock).set_class([1, 2], "pore")
    dock.refresh()
    export(dock, "coco", until)
    content = json.loads(path.read_text())
    assert len(content["annotations"]) == 4
    decoded = coco_mask.decode(content["annotations"][0]["segmentation"])
    np.testing.assert_array_equal(decoded.astype(bool), session(dock).labels == 1)
    assert "pore" in {category["name"] for category in content["categories"]}


def test_export_stack(qtbot, viewer_model, until, save_as):
    import tifffile

    viewer_model.add_image(
        np.zeros((4, *SHAPE)), name="XCT", scale=(3, 0.5, 0.5), units=("um",) * 3
    )
    dock = open_dock(qtbot, viewer_model)
    session(dock).commit_many(masks(), plane=(3,))
    session(dock).commit_many(masks(), plane=(0,))
    dock.refresh()
    path = save_as("stack.tif")
    export(dock, "tiff", until)
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.asarray(), session(dock).labels)
        assert file.imagej_metadata["spacing"] == 3
    path = save_as("stack.json")
    export(dock, "coco", until)
    content = json.loads(path.read_text())
    assert [image["file_name"] for image in content["images"]] == ["XCT[0]", "XCT[3]"]
    assert [a["image_id"] for a in content["annotations"]] == [1] * 4 + [2] * 4


@pytest.mark.parametrize("kind", ["csv", "coco", "tiff"])
def test_export_into_a_folder_that_is_not_there(dock, until, save_as, kind):
    save_as("missing/file.out")
    export(dock, kind, until)
    assert "file.out" in said(dock)
    assert "Saved" not in said(dock)
    assert ids(dock) == [1, 2, 3, 4], "nothing is lost"


def test_export_cancelled(dock, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getSaveFileName", staticmethod(lambda *_: ("", "")))
    dock.actions_bar.export_menu.actions()[0].trigger()
    assert not dock.running


def test_reopening_needs_the_prompt_dock(dock, qtbot):
    choose(dock, qtbot, 0)
    press(dock, "reopen")
    assert "Prompt dock" in said(dock)
    assert ids(dock) == [1, 2, 3, 4]


def test_thousands_of_objects_stay_smooth(qtbot, viewer_model):
    shape = (1000, 1250)
    viewer_model.add_image(np.zeros(shape, np.uint8), name="SEM")
    dock = open_dock(qtbot, viewer_model)
    grid = np.zeros(shape, np.int32)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    cells = (rows // 16) * (shape[1] // 16 + 1) + columns // 16 + 1
    inside = (rows % 16 < 12) & (columns % 16 < 12)
    grid[inside] = cells[inside]
    session(dock).apply_labels(grid)
    dock.refresh()
    qtbot.waitUntil(lambda: not dock.measurer.measuring, timeout=20_000)
    assert dock.table.table.total >= 4900
    seconds = {}
    for name, action in {
        "refresh": dock.refresh,
        "select": lambda: dock.select([2500]),
        "select many": lambda: dock.select(range(1, 5000, 3)),
        "delete": lambda: session(dock).delete([7]),
        "refresh after": dock.refresh,
    }.items():
        start = time.perf_counter()
        action()
        seconds[name] = time.perf_counter() - start
    assert seconds["refresh"] < 0.1, seconds
    assert max(seconds.values()) < 0.4, seconds
