"""The Prompt dock without a canvas: layers, questions, commits. Clicks: test_prompt_clicks.py."""

import subprocess
import sys

import dask.array as da
import numpy as np
import pytest

from phasesam.core.images import Normalisation
from phasesam.napari_widgets.adopting import AdoptRow
from phasesam.napari_widgets.prompt_layers import HOVER, PRESENT
from phasesam.napari_widgets.prompts import PromptDock
from phasesam.session import SegmentationSession

DISC = 613  # pixels of one disc of `disc_image`


@pytest.fixture
def dock(qtbot, viewer_model, region_segmenter, disc_image):
    viewer_model.add_image(disc_image, name="discs")
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    return dock


def layers_of(dock):
    return dock.controller.layers(dock.state.image_layer)


def session_of(dock):
    return dock.state.session(dock.state.image_layer)


def say(dock, until, y, x, positive=True):
    """Add a point as a click would, and wait for the answer."""
    dock.tools.use("+" if positive else "-")
    plane = dock.state.plane(dock.state.image_layer)
    before = dock.controller.present().prompts.count
    layers_of(dock).points.add(plane.at(np.array([y, x])))
    until(lambda: dock.controller.present().prompts.count > before)
    until(lambda: dock.controller.present().answer is not None)


def preview_area(dock, value=PRESENT):
    preview = layers_of(dock).preview
    return 0 if preview is None else int((preview.data == value).sum())


def asked(dock):
    """The last question that the model was asked."""
    return dock.state.segmenter(dock.state.image_layer).get().asked[-1]


def test_click_shows_a_mask_and_n_adds_it(dock, until):
    say(dock, until, 30, 40)
    assert preview_area(dock) == DISC
    assert dock.score.text() == "score 0.94 · 1 prompt"
    dock.maker.add()
    session = session_of(dock)
    labels = dock.state.labels_layer(dock.state.image_layer)
    assert [record.area for record in session.objects] == [DISC]
    assert session.objects[0].score == pytest.approx(0.94)
    np.testing.assert_array_equal(labels.data, session.labels)
    assert preview_area(dock) == 0
    assert len(layers_of(dock).points.data) == 0
    assert dock.footer.result.text().startswith("1 object · 5.0 % of the image")


def test_second_click_refines_with_the_logits_of_the_first_answer(dock, until):
    say(dock, until, 30, 40)
    assert asked(dock)["multimask_output"]
    assert asked(dock)["logits"] is None
    say(dock, until, 30, 48, positive=False)
    assert not asked(dock)["multimask_output"]
    assert asked(dock)["logits"].logits.shape == (256, 256)
    assert asked(dock)["labels"].tolist() == [1, 0]
    assert preview_area(dock) < DISC
    assert dock.score.text() == "score 0.95 · 2 prompts"


def test_points_are_coloured_by_sign(dock, until):
    say(dock, until, 30, 40)
    say(dock, until, 30, 48, positive=False)
    say(dock, until, 31, 41)
    points = layers_of(dock).points
    assert [str(symbol) for symbol in points.symbol] == ["cross", "hbar", "cross"]
    green, vermilion, again = points.face_color[:, :3]
    assert green[1] > green[0]
    assert vermilion[0] > vermilion[1]
    np.testing.assert_array_equal(again, green)
    np.testing.assert_array_equal(points.border_color, points.face_color)
    assert points.selected_data == set()  # a selected point is drawn in blue


def test_scales_are_chosen_without_asking_again(dock, until):
    say(dock, until, 30, 40)
    count = len(dock.state.segmenter(dock.state.image_layer).get().asked)
    areas = []
    for scale in ("part", "object", "group", "auto"):
        dock._next_scale()
        assert dock.scale.current == scale
        areas.append(preview_area(dock))
    assert areas[0] < areas[1] < areas[2]
    assert areas[3] == areas[1] == DISC
    assert len(dock.state.segmenter(dock.state.image_layer).get().asked) == count


def test_undo_takes_back_clicks_then_objects(dock, until):
    say(dock, until, 30, 40)
    dock.maker.add()
    say(dock, until, 60, 90)
    say(dock, until, 60, 98, positive=False)
    smaller = preview_area(dock)
    dock.maker.undo()
    assert preview_area(dock) == DISC
    assert len(layers_of(dock).points.data) == 1
    dock.maker.redo()
    assert preview_area(dock) == smaller
    dock.maker.undo()
    dock.maker.undo()
    assert dock.controller.present().is_empty
    assert len(session_of(dock).objects) == 1
    dock.maker.undo()
    assert len(session_of(dock).objects) == 0
    assert not dock.state.labels_layer(dock.state.image_layer).data.any()
    dock.maker.redo()
    assert dock.state.labels_layer(dock.state.image_layer).data.sum() == DISC


def test_cleared_prompts_come_back_with_undo(dock, until):
    say(dock, until, 30, 40)
    dock.maker.clear()
    assert preview_area(dock) == 0
    assert dock.controller.present().is_empty
    dock.maker.undo()
    assert preview_area(dock) == DISC


def test_negative_click_on_an_object_reopens_it(dock, until):
    say(dock, until, 30, 40)
    dock.maker.add()
    say(dock, until, 30, 48, positive=False)
    assert session_of(dock).objects == ()
    assert asked(dock)["mask"].sum() == DISC
    assert asked(dock)["labels"].tolist() == [1, 0]
    dock.maker.add()
    assert 0 < session_of(dock).objects[0].area < DISC


def test_clear_leaves_a_reopened_object_as_it_was(dock, until):
    say(dock, until, 30, 40)
    dock.maker.class_name = "particle"
    dock.maker.add()
    (before,) = session_of(dock).objects
    dock._reopen()
    assert session_of(dock).objects == ()
    assert preview_area(dock) == DISC
    dock.maker.clear()
    assert session_of(dock).objects == (before,)
    assert preview_area(dock) == 0


def test_closing_the_dock_puts_a_reopened_object_back(dock, until):
    say(dock, until, 30, 40)
    dock.maker.add()
    say(dock, until, 60, 90)
    dock.maker.add()
    session = session_of(dock)
    before = session.objects
    labels = dock.state.labels_layer(dock.state.image_layer)
    dock.maker.reopen(1)
    session.set_class(2, "pore")  # so that undo alone would not do
    dock.setParent(None)
    dock._end_if_removed()
    assert [(r.id, r.area, r.score) for r in session.objects] == [
        (r.id, r.area, r.score) for r in before
    ]
    assert session.record(2).class_name == "pore"
    np.testing.assert_array_equal(labels.data, session.labels)


def test_undo_puts_a_reopened_object_back_whatever_was_done_since(dock, until):
    say(dock, until, 30, 40)
    dock.maker.add()
    dock.maker.reopen(1)
    session = session_of(dock)
    mask = np.zeros(session.shape, bool)
    mask[80:90, 10:20] = True
    other = session.commit(mask)
    dock.maker.undo()
    assert [record.id for record in session.objects] == [1, other]
    assert dock.footer.result.text() == "Object 1 is back as it was."


def test_what_replaced_a_reopened_object_is_not_covered_by_it_later(dock, until):
    say(dock, until, 30, 40)
    dock.maker.add()
    dock.maker.reopen(1)
    dock.maker.add()
    session = session_of(dock)
    (replacement,) = session.objects
    session.delete(replacement.id)
    assert session.put_all_back() == 0


def test_box_and_several_boxes(dock, until):
    dock.tools.use("box")
    boxes = layers_of(dock).boxes
    boxes.add_rectangles([[14, 24], [14, 56], [46, 56], [46, 24]])
    until(lambda: dock.controller.present().answer is not None)
    assert preview_area(dock) == DISC
    boxes.add_rectangles([[44, 74], [44, 106], [76, 106], [76, 74]])
    until(lambda: preview_area(dock) == 2 * DISC)
    assert dock.score.text() == "2 objects · 2 prompts"
    dock.maker.add()
    assert [record.area for record in session_of(dock).objects] == [DISC, DISC]
    assert len(boxes.data) == 0
    dock.maker.undo()
    assert session_of(dock).objects == ()


def test_existing_mask_of_any_labels_layer_is_a_prompt(dock, until, viewer_model):
    mask = np.zeros((96, 128), np.int32)
    mask[20:40, 30:50] = 7
    viewer_model.add_labels(mask, name="other")
    dock.maker.begin_with_mask(np.array([30.0, 40.0]))
    assert preview_area(dock) == 400
    say(dock, until, 30, 48, positive=False)
    assert asked(dock)["mask"].sum() == 400
    dock.maker.clear()
    dock.maker.begin_with_mask(np.array([80.0, 10.0]))
    assert "No mask here" in dock.footer.result.text()


def test_clicks_while_encoding_are_queued(dock, until, region_segmenter):
    region_segmenter.gate.clear()
    dock.tools.use("+")
    layers_of(dock).points.add([30, 40])
    until(lambda: dock.running)
    layers_of(dock).points.add([60, 90])
    until(lambda: dock.controller.present().prompts.count == 2)
    dock.maker.add()  # pressed before there is an answer
    assert session_of(dock).objects == ()
    region_segmenter.gate.set()
    until(lambda: session_of(dock).objects)
    assert session_of(dock).objects[0].area == 2 * DISC
    assert region_segmenter.encoded == 1


def test_cancel_while_encoding(dock, until, region_segmenter):
    region_segmenter.gate.clear()
    dock.tools.use("+")
    layers_of(dock).points.add([30, 40])
    until(lambda: dock.running)
    dock.footer.cancel.click()
    until(lambda: not dock.running)
    assert "cancelled" in dock.footer.result.text()
    assert region_segmenter.encoded == 0
    region_segmenter.gate.set()
    say(dock, until, 30, 41)
    assert preview_area(dock) == DISC


def test_removed_image_cancels_its_run(dock, until, viewer_model, region_segmenter):
    region_segmenter.gate.clear()
    dock.tools.use("+")
    layers_of(dock).points.add([30, 40])
    until(lambda: dock.running)
    viewer_model.layers.remove("discs")
    until(lambda: not dock.running)
    assert region_segmenter.encoded == 0
    assert dock.state.image_layer is None
    assert "Open an image first" in dock.header.image_combo.currentText()


def test_removed_image_drops_an_answer_on_its_way(dock, until, viewer_model):
    say(dock, until, 30, 40)
    layers_of(dock).points.add([30, 42])
    until(lambda: dock.controller.present().prompts.count == 2)
    viewer_model.layers.remove("discs")
    until(lambda: not dock.controller.waits)
    assert list(viewer_model.layers) == []


def test_removed_prompt_layers_come_back_when_needed(dock, until, viewer_model):
    say(dock, until, 30, 40)
    viewer_model.layers.remove(layers_of(dock).points)
    until(lambda: dock.controller.present().is_empty)
    assert preview_area(dock) == 0
    say(dock, until, 60, 90)
    assert preview_area(dock) == DISC


def test_click_beside_the_image_counts_for_nothing(dock, until, qtbot):
    dock.tools.use("+")
    layers_of(dock).points.add([300, 40])
    until(lambda: len(layers_of(dock).points.data) == 0)
    assert dock.controller.present().is_empty


def test_stack_keeps_one_object_in_the_making_per_plane(
    qtbot, until, viewer_model, region_segmenter, disc_image
):
    stack = np.stack([disc_image, np.zeros_like(disc_image), disc_image[::-1, ::-1]])
    viewer_model.add_image(stack, name="stack", scale=(2, 0.5, 0.5), units=("um",) * 3)
    viewer_model.dims.set_current_step(0, 0)
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    say(dock, until, 30, 40)
    assert preview_area(dock) == DISC
    viewer_model.dims.set_current_step(0, 2)
    until(lambda: preview_area(dock) == 0)
    say(dock, until, 35, 37)
    dock.maker.add()
    assert [record.plane for record in session_of(dock).objects] == [(2,)]
    viewer_model.dims.set_current_step(0, 0)
    until(lambda: preview_area(dock) == DISC)
    dock.maker.add()
    labels = dock.state.labels_layer(dock.state.image_layer)
    assert [int((plane > 0).sum()) for plane in labels.data] == [DISC, 0, DISC]
    assert tuple(labels.scale) == (2, 0.5, 0.5)
    assert session_of(dock).pixel_size.x == pytest.approx(0.5)


def test_two_images_keep_their_own_prompts_and_objects(
    dock, until, viewer_model, disc_image, region_segmenter
):
    first = dock.state.image_layer
    say(dock, until, 30, 40)
    second = viewer_model.add_image(disc_image.T, name="turned")
    assert dock.state.image_layer is second
    say(dock, until, 40, 30)
    dock.maker.add()
    assert [dock.state.session(layer).objects != () for layer in (first, second)] == [False, True]
    dock.state.image_layer = first
    assert preview_area(dock) == DISC
    dock.maker.add()
    assert len(dock.state.session(first).objects) == 1
    assert {"discs objects", "turned objects"} <= {layer.name for layer in viewer_model.layers}


def test_contrast_limits_reach_the_model(dock, until):
    image = dock.state.image_layer
    image.contrast_limits = (0.2, 0.7)
    dock.settings.mode.setCurrentIndex(3)
    say(dock, until, 30, 40)
    normalisation = dock.state.segmenter(image).get().options["normalisation"]
    assert normalisation == Normalisation("range", 0.2, 0.7)
    image.contrast_limits = (0.1, 0.8)
    until(lambda: dock.state.settings(image).normalisation == Normalisation("range", 0.1, 0.8))


def test_normalisation_preview_shows_what_the_model_sees(dock, until, viewer_model):
    dock.settings.see.setChecked(True)
    until(lambda: "discs as the model sees it" in viewer_model.layers)
    seen = viewer_model.layers["discs as the model sees it"]
    assert seen.data.dtype == np.uint8
    assert seen.data.shape == (96, 128, 3)
    assert dock.state.image_layer.name == "discs"
    dock.settings.see.setChecked(False)
    assert "discs as the model sees it" not in viewer_model.layers


def test_mask_settings_apply_at_once(dock, until):
    say(dock, until, 30, 40)
    dock.settings.smoothing.setValue(3)
    until(lambda: dock.controller.present().answer is not None)
    assert dock.controller.settings.smoothing == 3
    assert preview_area(dock) == pytest.approx(DISC, abs=3)


def test_painting_is_one_undo_step_of_the_session(dock, until):
    say(dock, until, 30, 40)
    dock.maker.add()
    dock.tools.use("brush")
    labels = dock.state.labels_layer(dock.state.image_layer)
    assert labels.mode == "paint"
    labels.paint((80, 20), labels.selected_label)
    session = session_of(dock)
    assert [record.source for record in session.objects] == ["prompt", "painted"]
    labels.undo()  # what Ctrl+Z on the layer calls
    assert len(session.objects) == 1
    np.testing.assert_array_equal(labels.data, session.labels)
    labels.redo()
    assert len(session.objects) == 2
    np.testing.assert_array_equal(labels.data, session.labels)


def test_a_label_that_was_taken_is_painted_under_a_new_number(dock, until):
    say(dock, until, 30, 40)
    dock.maker.add()
    dock.maker.undo()
    labels = dock.state.labels_layer(dock.state.image_layer)
    labels.selected_label = 1
    labels.paint((80, 20), 1)
    (record,) = session_of(dock).objects
    assert labels.data[80, 20] == record.id
    assert labels.selected_label == record.id


def test_opacity_and_contour(dock, until):
    say(dock, until, 30, 40)
    dock.maker.add()
    labels = dock.state.labels_layer(dock.state.image_layer)
    dock.look.opacity.setValue(20)
    dock.look.contour.setChecked(True)
    assert labels.opacity == pytest.approx(0.2)
    assert labels.contour == 2


def test_next_and_previous_object(dock, until):
    for y, x in ((30, 40), (60, 90)):
        say(dock, until, y, x)
        dock.maker.add()
    chosen = []
    dock.state.events.object_selected.connect(chosen.append)
    dock._step_object(1)
    dock._step_object(1)
    dock._step_object(-1)
    assert chosen == [1, 2, 1]
    assert "Object 1: 613 px, score 0.94" in dock.footer.result.text()


def test_hover_shows_what_a_click_would_select(dock, until):
    say(dock, until, 30, 40)
    dock.maker.clear()
    dock.maker.undo()
    dock.maker.clear()

    class Event:
        is_dragging = False
        position = (60.0, 90.0)

    dock.hover._on_move(None, Event)
    until(lambda: preview_area(dock, HOVER) == DISC)
    Event.position = (500.0, 90.0)
    dock.hover._on_move(None, Event)
    until(lambda: preview_area(dock, HOVER) == 0)
    dock.preview_check.setChecked(False)
    Event.position = (60.0, 90.0)
    dock.hover._on_move(None, Event)
    assert not dock.hover._timer.isActive()


def test_unsupported_view_says_what_to_do(dock, viewer_model):
    viewer_model.dims.ndisplay = 3
    dock.tools.use("+")
    assert "2-D view" in dock.footer.result.text()
    assert dock.tools.current == ""


def test_tool_buttons_follow_what_the_user_does_in_napari(dock, viewer_model):
    dock.tools.use("+")
    layers_of(dock).points.mode = "select"
    assert dock.tools.current == ""
    dock.tools.use("box")
    viewer_model.layers.selection.active = dock.state.image_layer
    assert dock.tools.current == ""


def test_renamed_image_shows_in_the_header(dock):
    dock.state.image_layer.name = "powder"
    assert dock.header.image_combo.currentText() == "powder"


def test_labels_set_by_another_tool_are_taken_over(dock):
    image = dock.state.image_layer
    labels = dock.state.labels_layer(image)
    new = np.zeros((96, 128), np.int32)
    new[10:20, 10:20] = 1
    labels.data = new
    assert [record.area for record in session_of(dock).objects] == [100]
    dock.maker.undo()
    assert not labels.data.any()


def test_existing_labels_can_be_adopted(dock, viewer_model):
    image = dock.state.image_layer
    mask = np.zeros((96, 128), np.uint16)
    mask[20:40, 30:50] = 7
    own = dock.state.adopt_labels(image, viewer_model.add_labels(mask, name="saved"))
    assert own.name == "discs objects"
    assert [record.area for record in session_of(dock).objects] == [400]


def test_taking_over_says_what_it_replaces(dock, until, viewer_model):
    say(dock, until, 30, 40)
    dock.maker.add()
    before = session_of(dock).objects
    mask = np.zeros((96, 128), np.int32)
    mask[20:40, 30:50] = 7
    mask[70:80, 30:50] = 8
    viewer_model.add_labels(mask, name="saved")
    dock.findChild(AdoptRow).button.click()
    assert dock.footer.result.text() == (
        "2 objects taken over from saved. 1 object that was here was replaced; Undo brings it back."
    )
    assert session_of(dock).undo_name == "Take over saved"
    dock.maker.undo()
    assert session_of(dock).objects == before


def test_labels_of_a_stack_are_taken_over_in_one_step(qtbot, viewer_model, region_segmenter):
    viewer_model.add_image(np.zeros((3, 20, 30)), name="stack")
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    labels = np.zeros((3, 20, 30), np.int32)
    labels[:, 2:6, 2:6] = 1
    viewer_model.add_labels(labels, name="saved")
    dock.findChild(AdoptRow).button.click()
    session = session_of(dock)
    assert sorted(record.plane for record in session.objects) == [(0,), (1,), (2,)]
    assert dock.footer.result.text() == "3 objects taken over from saved."
    dock.maker.undo()
    assert dock.footer.result.text() == "Undid: Take over saved (3 planes)."
    assert not session.can_undo
    assert session.objects == ()


def test_a_stroke_over_planes_is_one_step(qtbot, viewer_model, region_segmenter):
    image = viewer_model.add_image(np.zeros((4, 20, 30)), name="stack")
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    labels = dock.state.labels_layer(image)
    viewer_model.dims.set_current_step(0, 1)
    labels.n_edit_dimensions = 3
    labels.brush_size = 3
    labels.selected_label = 7
    labels.paint((1, 10, 10), 7)
    session = session_of(dock)
    assert sorted(record.plane for record in session.objects) == [(0,), (1,), (2,)]
    np.testing.assert_array_equal(labels.data, session.labels)
    # The next stroke in view goes on with the object in view.
    assert session.record(labels.selected_label).plane == (1,)
    assert session.undo_name == "Paint (3 planes)"
    labels.undo()
    assert not session.can_undo
    assert not labels.data.any()


def test_loaded_session_replaces_the_present_one(dock, until):
    image = dock.state.image_layer
    say(dock, until, 30, 40)
    dock.maker.add()
    other = SegmentationSession((96, 128))
    other.commit(np.eye(96, 128, dtype=bool))
    dock.state.set_session(image, other)
    assert dock.state.labels_layer(image).data.sum() == 96
    assert len([layer for layer in dock.viewer.layers if layer.name == "discs objects"]) == 1


def test_first_dock_opens_without_torch():
    code = """
import sys
from qtpy.QtWidgets import QApplication
app = QApplication([])
import dask.array as da
import numpy as np
from napari.components import ViewerModel
from phasesam.napari_widgets.prompts import PromptDock
from phasesam.napari_widgets.models import ModelsDock
viewer = ViewerModel()
viewer.add_image(np.zeros((20, 20)))
docks = [PromptDock(viewer), ModelsDock(viewer)]
for _ in range(20):
    app.processEvents()
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_saved_labels_are_taken_over_by_a_button(dock, viewer_model):
    row = dock.findChild(AdoptRow)
    assert not row.button.isEnabled()
    viewer_model.add_labels(np.zeros((5, 5), np.int32), name="of another image")
    mask = np.zeros((96, 128), np.int32)
    mask[20:40, 30:50] = 7
    saved = viewer_model.add_labels(mask, name="saved")
    assert [row.combo.itemText(i) for i in range(row.combo.count())] == ["saved"]
    row.button.click()
    assert [record.area for record in session_of(dock).objects] == [400]
    assert not saved.visible
    dock.maker.undo()
    assert session_of(dock).objects == ()


def rgb(image):
    return np.repeat((image * 255).astype(np.uint8)[..., None], 3, axis=2) / 255.0


KINDS = {
    "RGB": lambda image: (rgb(image), {"rgb": True}),
    "multiscale": lambda image: ([image, image[::2, ::2]], {"multiscale": True}),
    "4-D dask": lambda image: (
        da.stack([da.stack([da.from_array(image * t * z) for z in range(2)]) for t in range(2)]),
        {"scale": (1, 2, 0.5, 0.5), "contrast_limits": (0, 1)},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transposed", [False, True])
def test_every_kind_of_image(
    qtbot, until, viewer_model, region_segmenter, disc_image, kind, transposed
):
    data, options = KINDS[kind](disc_image)
    image = viewer_model.add_image(data, name="image", **options)
    ndim = viewer_model.dims.ndim
    for axis in range(ndim - 2):
        viewer_model.dims.set_current_step(axis, 1)
    if transposed:
        viewer_model.dims.order = (*range(ndim - 2), ndim - 1, ndim - 2)
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    say(dock, until, 30, 40)
    assert preview_area(dock) == DISC
    dock.maker.add()
    labels = dock.state.labels_layer(image)
    assert labels.data[(1,) * (ndim - 2)][30, 40] == 1
    assert (labels.data > 0).sum() == DISC
    np.testing.assert_allclose(labels.scale, image.scale)


def test_lazy_stack_reads_the_shown_plane_only(qtbot, until, viewer_model, region_segmenter):
    read = []

    def plane(block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return np.ones((1, 96, 128), np.float32)

    data = da.map_blocks(
        plane, chunks=((1,) * 9, (96,), (128,)), dtype=np.float32, meta=np.zeros((0, 0, 0), "f4")
    )
    viewer_model.add_image(data, contrast_limits=(0, 1))
    viewer_model.dims.set_current_step(0, 7)
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    session = session_of(dock)
    until(lambda: session.autosave_path is not None)
    read.clear()
    say(dock, until, 30, 40)
    assert read == [7]
