"""Tools of the Prompt dock and what they say, without a canvas."""

import numpy as np
import pytest

from phasesam.core.errors import DeviceMemoryError
from phasesam.napari_widgets.automatic import AutomaticMasksDock
from phasesam.napari_widgets.header import Status
from phasesam.napari_widgets.prompts import PromptDock


@pytest.fixture
def dock(qtbot, viewer_model, region_segmenter, disc_image):
    viewer_model.add_image(disc_image, name="discs")
    return opened(qtbot, viewer_model)


def opened(qtbot, viewer):
    dock = PromptDock(viewer)
    qtbot.addWidget(dock)
    dock.show()
    return dock


def session_of(dock):
    return dock.state.session(dock.state.image_layer)


def labels_of(dock):
    return dock.state.labels_layer(dock.state.image_layer)


def click(dock, until, y=30, x=40, tool="+"):
    dock.tools.use(tool)
    plane = dock.state.plane(dock.state.image_layer)
    dock.controller.layers(dock.state.image_layer).points.add(plane.at(np.array([y, x])))
    until(lambda: dock.controller.present().answer is not None)


def said(dock):
    return dock.footer.result.text()


# ---------------------------------------------------------------------- brush


def test_the_brush_begins_a_new_object_after_n(dock, until):
    click(dock, until)
    dock.maker.add()
    assert dock.state.selected_object == 1
    dock.tools.use("brush")
    labels = labels_of(dock)
    assert said(dock) == "Painting a new object."
    labels.paint((80, 20), labels.selected_label)
    assert [record.source for record in session_of(dock).objects] == ["prompt", "painted"]


def test_the_brush_goes_on_with_an_object_that_was_selected(dock, until):
    click(dock, until)
    dock.maker.add()
    dock._step_object(1)
    dock.tools.use("brush")
    assert labels_of(dock).selected_label == 1
    assert "object 1" in said(dock)
    click(dock, until, 60, 90)
    dock.tools.use("brush")
    dock.maker.add()
    assert labels_of(dock).selected_label == session_of(dock).next_id


def test_n_can_be_clicked_under_the_brush(dock, until):
    assert not dock.add_button.isEnabled()
    click(dock, until)
    dock.maker.add()
    dock._step_object(1)
    dock.tools.use("brush")
    assert dock.add_button.isEnabled()
    dock.add_button.click()
    assert labels_of(dock).selected_label == 2
    dock.tools.use("+")
    assert not dock.add_button.isEnabled()


# ---------------------------------------------------------------------- ready for clicks


@pytest.mark.parametrize(("tool", "then"), [("mask", "+"), ("brush", "+"), ("-", "-"), ("", "+")])
def test_a_reopened_object_can_be_clicked_at_once(dock, until, viewer_model, tool, then):
    click(dock, until)
    dock.maker.add()
    if tool:
        dock.tools.use(tool)
    else:
        viewer_model.layers.selection.active = viewer_model.layers["discs"]
    dock._reopen()
    assert dock.controller.present().reopened.id == 1
    assert dock.tools.current == then


# ---------------------------------------------------------------------- failures


def test_a_failed_request_does_not_seem_to_wait(dock, until, monkeypatch, region_segmenter):
    def fail(self, **_):
        raise DeviceMemoryError("not enough memory")

    with monkeypatch.context() as patch:
        patch.setattr(region_segmenter, "predict", fail)
        dock.tools.use("+")
        dock.controller.layers(dock.state.image_layer).points.add(np.array([30, 40]))
        until(lambda: said(dock) == "not enough memory")
    assert dock.score.text() == "no mask · 1 prompt"
    assert not dock.add_button.isEnabled()
    click(dock, until, 31, 41)
    assert dock.score.text().startswith("score")
    assert dock.add_button.isEnabled()


# ---------------------------------------------------------------------- views


@pytest.mark.parametrize("kind", [PromptDock, AutomaticMasksDock])
def test_the_message_about_a_volume_goes_with_the_view(
    qtbot, viewer_model, region_segmenter, disc_image, kind
):
    viewer_model.add_image(np.stack([disc_image] * 3), name="stack")
    dock = kind(viewer_model)
    qtbot.addWidget(dock)
    viewer_model.dims.ndisplay = 3
    dock.controller.plane() if kind is PromptDock else dock.find_masks()
    assert "volume" in said(dock)
    assert dock.header.dot.status is Status.ERROR
    viewer_model.dims.ndisplay = 2
    assert "volume" not in said(dock)
    assert dock.header.dot.status is Status.IDLE


def test_other_errors_stay_when_the_view_changes(dock, viewer_model):
    dock.show_error("The disk is full.")
    viewer_model.dims.ndisplay = 3
    viewer_model.dims.ndisplay = 2
    assert said(dock) == "The disk is full."


def test_keys_in_a_volume_explain_themselves(
    qtbot, viewer_model, region_segmenter, disc_image, until
):
    viewer_model.add_image(np.stack([disc_image] * 3), name="stack")
    dock = opened(qtbot, viewer_model)
    click(dock, until)
    dock.maker.add()
    click(dock, until, 60, 90)
    viewer_model.dims.ndisplay = 3
    for action in (dock.maker.add, dock.maker.undo, dock.maker.redo):
        dock.show_result("")
        action()
        assert "volume" in said(dock)
    assert len(session_of(dock).objects) == 1
    viewer_model.dims.ndisplay = 2
    dock.maker.undo()
    assert dock.controller.present().is_empty
    viewer_model.dims.ndisplay = 3
    dock.maker.undo()
    assert len(session_of(dock).objects) == 0, "nothing is out of sight any more"


def test_layers_of_both_docks_have_names_of_their_own(dock, until, viewer_model):
    from phasesam.napari_widgets.candidate_preview import CandidatePreview

    click(dock, until)
    image = dock.state.image_layer
    CandidatePreview(viewer_model, image, (), image.data.shape).show()
    names = {layer.name for layer in viewer_model.layers}
    assert {"discs prompt preview", "discs found masks"} <= names
