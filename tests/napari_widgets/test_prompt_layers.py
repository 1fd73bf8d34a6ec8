"""Layers of prompts, without a dock."""

import numpy as np
import pytest

from phasesam.napari_widgets.planes import ShownPlane
from phasesam.napari_widgets.prompt_layers import PlanePrompts, PromptLayers


@pytest.fixture
def layers(viewer_model, disc_image):
    return PromptLayers(viewer_model, viewer_model.add_image(disc_image, name="discs"), list)


@pytest.fixture
def plane(disc_image):
    return ShownPlane((), disc_image.shape)


POSITIVE = PlanePrompts(np.array([[30.0, 40.0], [60.0, 90.0]]), np.array([1, 1]))


@pytest.mark.parametrize(
    "remove",
    [
        PromptLayers.clear,
        lambda layers, plane: layers.write(PlanePrompts(), plane),
        lambda layers, plane: layers.write(POSITIVE, plane),
    ],
    ids=["clear", "write nothing", "write others"],
)
@pytest.mark.parametrize("positive", [True, False])
def test_removing_points_keeps_the_sign_of_the_next(layers, plane, remove, positive):
    # napari gives the sign of selected points to the next one if they all have the same.
    layers.write(PlanePrompts(POSITIVE.points, np.full(2, int(not positive))), plane)
    layers.set_sign(positive)
    remove(layers, plane)
    assert layers.is_positive is positive
    layers.points.add(np.array([50.0, 50.0]))
    assert layers.points.features["sign"].iloc[-1] == ("positive" if positive else "negative")


def test_a_click_beside_the_image_keeps_the_sign(layers, plane):
    layers.write(POSITIVE, plane)
    layers.points.add(np.array([-20.0, 10.0]))
    layers.set_sign(False)
    layers.settle(plane)
    assert len(layers.points.data) == 2
    assert not layers.is_positive
