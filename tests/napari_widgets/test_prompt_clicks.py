"""The Prompt dock in a real viewer, with real mouse and keyboard events."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from phasesam.napari_widgets.prompt_layers import HOVER, PRESENT
from phasesam.napari_widgets.prompts import PromptDock
from phasesam.napari_widgets.viewer_state import state_of

pytestmark = pytest.mark.gui

DISC = 613
CTRL = Qt.KeyboardModifier.ControlModifier
SHIFT = Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def viewer(make_napari_viewer, region_segmenter, disc_image, qtbot):
    viewer = make_napari_viewer()
    viewer.window.resize(1000, 700)
    viewer.add_image(disc_image, name="discs", scale=(0.5, 0.5), units=("um", "um"))
    return viewer


@pytest.fixture
def dock(viewer):
    _, dock = viewer.window.add_plugin_dock_widget("napari-phasesam", "Prompt")
    dock.show()
    return dock


def layers_of(dock):
    return dock.controller.layers(dock.state.image_layer)


def session_of(dock):
    return dock.state.session(dock.state.image_layer)


def area(dock, value=PRESENT):
    preview = layers_of(dock).preview
    return 0 if preview is None else int((preview.data == value).sum())


def world(y, x):
    """Position in micrometres of a pixel of the disc image."""
    return 0.5 * y, 0.5 * x


def test_dock_from_the_menu_starts_with_the_point_tool(dock, viewer):
    assert isinstance(dock, PromptDock)
    assert dock.tools.current == "+"
    assert viewer.layers.selection.active is layers_of(dock).points
    assert layers_of(dock).points.mode == "add"


def test_click_refine_add_undo_redo_reopen(dock, viewer, click, key, until):
    click(viewer, world(30, 40))
    until(lambda: area(dock) == DISC)
    dock.tools.row.buttons["-"].click()
    click(viewer, world(30, 48))
    until(lambda: 0 < area(dock) < DISC)
    key(viewer, Qt.Key.Key_N)
    assert len(session_of(dock).objects) == 1
    labels = viewer.layers["discs objects"]
    assert tuple(labels.scale) == (0.5, 0.5)
    assert labels.units == viewer.layers["discs"].units
    painted = int(labels.data.sum())
    assert 0 < painted < DISC
    key(viewer, Qt.Key.Key_Z, CTRL)
    assert labels.data.sum() == 0
    key(viewer, Qt.Key.Key_Z, CTRL | SHIFT)
    assert labels.data.sum() == painted
    click(viewer, world(30, 32))  # still the negative tool: on an object it re-opens it
    until(lambda: dock.controller.present().prompts.count == 2)
    assert labels.data.sum() == 0
    key(viewer, Qt.Key.Key_K)
    assert labels.data.sum() == painted


def test_points_land_where_the_mouse_is(dock, viewer, click, until):
    click(viewer, world(60, 90))
    until(lambda: len(layers_of(dock).points.data) == 1)
    np.testing.assert_allclose(layers_of(dock).points.data[0], (60, 90), atol=0.6)


def test_draw_a_box(dock, viewer, drag, until):
    dock.tools.row.buttons["box"].click()
    drag(viewer, world(44, 74), world(78, 106))
    until(lambda: area(dock) == DISC)
    dock.add_button.click()
    assert [record.area for record in session_of(dock).objects] == [DISC]
    assert len(layers_of(dock).boxes.data) == 0


def test_existing_mask_by_click(dock, viewer, click, until):
    mask = np.zeros((96, 128), np.int32)
    mask[20:40, 30:50] = 3
    viewer.add_labels(mask, name="other", scale=(0.5, 0.5), units=("um", "um"))
    dock.tools.row.buttons["mask"].click()
    click(viewer, world(30, 40))
    until(lambda: area(dock) == 400)
    assert dock.tools.current == "+", "the next click refines"
    click(viewer, world(30, 60))
    until(lambda: dock.controller.present().prompts.count == 2)


def test_a_click_beside_all_masks_keeps_the_tool(dock, viewer, click, until):
    dock.tools.row.buttons["mask"].click()
    click(viewer, world(80, 20))
    until(lambda: "No mask here" in dock.footer.result.text())
    assert dock.tools.current == "mask"


def test_paint_erase_and_undo_by_key(dock, viewer, drag, key, until):
    dock.tools.row.buttons["brush"].click()
    labels = viewer.layers["discs objects"]
    labels.brush_size = 4
    drag(viewer, world(80, 20), world(80, 60))
    (record,) = session_of(dock).objects
    painted = int((labels.data > 0).sum())
    assert painted > 60
    assert record.source == "painted"
    dock.tools.row.buttons["erase"].click()
    drag(viewer, world(80, 50), world(80, 60))
    assert (labels.data > 0).sum() < painted
    key(viewer, Qt.Key.Key_Z, CTRL)
    assert (labels.data > 0).sum() == painted
    key(viewer, Qt.Key.Key_Z, CTRL)
    assert session_of(dock).objects == ()
    assert not labels.data.any()
    key(viewer, Qt.Key.Key_Z, CTRL | SHIFT)
    assert (labels.data > 0).sum() == painted


def test_fill_bucket_of_napari_is_undone_too(dock, viewer, click, key, until):
    click(viewer, world(30, 40))
    until(lambda: area(dock) == DISC)
    key(viewer, Qt.Key.Key_N)
    labels = viewer.layers["discs objects"]
    viewer.layers.selection.active = labels
    labels.mode = "fill"
    labels.selected_label = 9
    click(viewer, world(30, 40))
    assert [record.id for record in session_of(dock).objects] == [9]
    key(viewer, Qt.Key.Key_Z, CTRL)
    assert [record.id for record in session_of(dock).objects] == [1]
    assert labels.data.max() == 1


def test_opacity_slider_and_contour(dock, viewer, click, key, until, qtbot):
    click(viewer, world(30, 40))
    until(lambda: area(dock) == DISC)
    key(viewer, Qt.Key.Key_N)
    labels = viewer.layers["discs objects"]
    before = labels.opacity
    dock.look.opacity._slider.setFocus()
    for _ in range(3):
        qtbot.keyClick(dock.look.opacity._slider, Qt.Key.Key_Right)
    assert labels.opacity > before
    qtbot.mouseClick(
        dock.look.contour, Qt.MouseButton.LeftButton, pos=dock.look.contour.rect().center()
    )
    dock.look.contour.setChecked(True)
    assert labels.contour == 2


def test_hover_previews_and_a_click_ends_them(dock, viewer, click, hover, key, until):
    hover(viewer, world(60, 90))
    until(lambda: area(dock, HOVER) == DISC)  # encodes once the mouse rests
    hover(viewer, world(30, 40))
    until(lambda: layers_of(dock).preview.data[30, 40] == HOVER)
    click(viewer, world(30, 40))
    until(lambda: area(dock) == DISC)
    assert area(dock, HOVER) == 0
    hover(viewer, world(60, 90))
    assert area(dock, HOVER) == 0
    key(viewer, Qt.Key.Key_W)
    assert not dock.preview_check.isChecked()


def test_keys_work_while_the_dock_has_the_focus(dock, viewer, click, qtbot, until):
    viewer.window._qt_window.show()
    click(viewer, world(30, 40))
    until(lambda: area(dock) == DISC)
    dock.activateWindow()
    dock.add_button.setFocus()
    qtbot.keyClick(dock.add_button, Qt.Key.Key_N)
    until(lambda: len(session_of(dock).objects) == 1)
    dock.class_combo.lineEdit().setFocus()
    qtbot.keyClicks(dock.class_combo.lineEdit(), "nuk")  # letters, not shortcuts
    assert dock.maker.class_name == "nuk"
    assert len(session_of(dock).objects) == 1


def test_two_viewers_do_not_mix(make_napari_viewer, region_segmenter, disc_image, click, until):
    docks = []
    for name in ("first", "second"):
        viewer = make_napari_viewer()
        viewer.add_image(disc_image, name=name)
        docks.append(viewer.window.add_plugin_dock_widget("napari-phasesam", "Prompt")[1])
    first, second = docks
    assert first.state is not second.state
    click(second.viewer, (30, 40))
    until(lambda: area(second) == DISC)
    second.maker.add()
    assert session_of(first).objects == ()
    assert "first objects" not in first.viewer.layers
    assert "second objects" in second.viewer.layers


def test_layer_removed_while_encoding(dock, viewer, click, until, region_segmenter):
    region_segmenter.gate.clear()
    click(viewer, world(30, 40))
    until(lambda: dock.running)
    del viewer.layers["discs"]
    until(lambda: not dock.running)
    assert len(viewer.layers) == 0
    assert region_segmenter.encoded == 0


def test_viewer_closed_while_encoding(viewer, dock, click, until, region_segmenter):
    region_segmenter.gate.clear()
    click(viewer, world(30, 40))
    until(lambda: dock.running)
    task = dock._task
    viewer.close()
    until(lambda: not task.running)
    assert region_segmenter.encoded == 0


def test_cancel_button_while_encoding(dock, viewer, click, until, region_segmenter):
    region_segmenter.gate.clear()
    click(viewer, world(30, 40))
    until(lambda: dock.running)
    dock.footer.cancel.click()
    until(lambda: not dock.running)
    assert "cancelled" in dock.footer.result.text()


def test_closing_the_dock_takes_its_layers_and_keys_away(dock, viewer, click, key, until):
    click(viewer, world(30, 40))
    until(lambda: area(dock) == DISC)
    key(viewer, Qt.Key.Key_N)
    click(viewer, world(60, 90))
    until(lambda: area(dock) == DISC)
    dock.parentWidget().destroyOnClose()
    until(lambda: [layer.name for layer in viewer.layers] == ["discs", "discs objects"])
    assert not [bound for bound in viewer.keymap if str(bound) == "N"]
    callbacks = [*viewer.mouse_drag_callbacks, *viewer.mouse_move_callbacks]
    assert not [callback for callback in callbacks if "phasesam" in callback.__module__]
    viewer.dims.ndisplay = 3
    viewer.dims.ndisplay = 2
    assert len(state_of(viewer).session(viewer.layers["discs"]).objects) == 1


def test_the_bundled_model_answers_clicks(make_napari_viewer, disc_image, click, key, until):
    viewer = make_napari_viewer()
    noise = np.random.default_rng(0).normal(0, 0.03, disc_image.shape)
    viewer.add_image(disc_image + noise, name="discs", scale=(0.5, 0.5), units=("um", "um"))
    _, dock = viewer.window.add_plugin_dock_widget("napari-phasesam", "Prompt")
    click(viewer, world(30, 40))
    until(lambda: area(dock) > 0, timeout=120_000)
    key(viewer, Qt.Key.Key_N)
    truth = np.hypot(*(np.mgrid[:96, :128] - np.array([30, 40])[:, None, None])) <= 14
    found = viewer.layers["discs objects"].data > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.85
    assert dock.footer.result.text().startswith("1 object · 5")
    assert session_of(dock).objects[0].score > 0.8


@pytest.mark.parametrize("ends", [Qt.Key.Key_N, Qt.Key.Key_K])
def test_the_negative_tool_stays_negative_after_n_and_k(dock, viewer, click, key, until, ends):
    click(viewer, world(30, 40))
    until(lambda: area(dock) == DISC)
    dock.tools.row.buttons["-"].click()
    key(viewer, ends)
    until(lambda: area(dock) == 0)
    assert dock.tools.current == "-"
    click(viewer, world(60, 60))
    until(lambda: len(layers_of(dock).points.data) == 1)
    assert list(layers_of(dock).points.features["sign"]) == ["negative"]
