"""The Prompt dock without a canvas: layers, questions, commits. Clicks: test_prompt_clicks.py."""

import numpy as np
import pytest

from phasesam.napari_widgets.prompts import PromptDock


@pytest.fixture
def dock(qtbot, viewer_model, region_segmenter, disc_image):
    viewer_model.add_image(disc_image, name="discs")
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    return dock


def say(dock, until, y, x, positive=True):
    """Add a point as a click would, and wait for the answer."""
    dock.tools.use("+" if positive else "-")
    layers = dock.controller.layers(dock.state.image_layer)
    plane = dock.state.plane(dock.state.image_layer)
    layers.points.add(plane.at(np.array([y, x])))
    until(lambda: dock.controller.present().answer is not None)


def preview_area(dock):
    preview = dock.controller.layers(dock.state.image_layer).preview
    return 0 if preview is None else int((preview.data == 1).sum())


DISC = 613


def test_click_shows_a_mask_and_n_adds_it(dock, until):
    say(dock, until, 30, 40)
    assert preview_area(dock) == DISC
    assert dock.score.text() == "score 0.94 · 1 prompt"
    dock.maker.add()
    session = dock.state.session(dock.state.image_layer)
    labels = dock.state.labels_layer(dock.state.image_layer)
    assert [record.area for record in session.objects] == [DISC]
    assert session.objects[0].score == pytest.approx(0.94)
    np.testing.assert_array_equal(labels.data, session.labels)
    assert preview_area(dock) == 0
    assert len(dock.controller.layers(dock.state.image_layer).points.data) == 0
    assert dock.footer.result.text().startswith("1 object · 5.0 % of the image")
