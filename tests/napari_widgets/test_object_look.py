"""Opacity and contour here and in napari's own controls."""

import numpy as np
import pytest

from phasesam.napari_widgets.prompts import PromptDock
from phasesam.napari_widgets.viewer_state import state_of


@pytest.fixture
def image(viewer_model, disc_image):
    return viewer_model.add_image(disc_image, name="discs")


@pytest.fixture
def dock(qtbot, viewer_model, region_segmenter, image):
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    return dock


def commit(viewer, image, place=5):
    mask = np.zeros(image.data.shape, bool)
    mask[place : place + 5, 5:10] = True
    labels = state_of(viewer).labels_layer(image)
    state_of(viewer).session(image).commit(mask)
    return labels


def test_the_look_chosen_in_napari_stays(dock, viewer_model, image):
    labels = commit(viewer_model, image)
    labels.opacity, labels.contour = 0.3, 4
    assert dock.look.opacity.value() == 30
    assert dock.look.contour.isChecked()
    commit(viewer_model, image, 20)
    assert (labels.opacity, labels.contour) == (0.3, 4)
    dock.look.opacity.setValue(70)
    assert (labels.opacity, labels.contour) == (0.7, 4)


def test_a_new_layer_gets_the_look_chosen_in_the_dock(dock, viewer_model, image):
    dock.look.opacity.setValue(20)
    dock.look.contour.setChecked(True)
    labels = commit(viewer_model, image)
    assert (labels.opacity, labels.contour) == (0.2, 2)


def test_a_new_dock_takes_over_the_look(qtbot, viewer_model, image, region_segmenter):
    labels = commit(viewer_model, image)
    labels.opacity = 0.8
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    assert labels.opacity == 0.8
    assert dock.look.opacity.value() == 80


def test_every_image_keeps_its_own_look(dock, viewer_model, image):
    first = commit(viewer_model, image)
    first.opacity = 0.9
    other = viewer_model.add_image(image.data, name="other")
    dock.state.image_layer = other
    second = commit(viewer_model, other)
    dock.look.opacity.setValue(10)
    dock.state.image_layer = image
    assert (first.opacity, second.opacity) == (0.9, 0.1)
    assert dock.look.opacity.value() == 90
