"""Which layers can be learnt from, and what is in them."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from phasesam.core.errors import CancelledError
from phasesam.napari_widgets.candidate_preview import CandidatePreview
from phasesam.napari_widgets.layers import OWN
from phasesam.napari_widgets.training_layers import (
    LEARNABLE,
    images_for,
    is_learnable,
    object_classes,
    scan_labels,
)
from phasesam.napari_widgets.viewer_state import state_of


def square(value=1, shape=(8, 10)):
    labels = np.zeros(shape, np.int32)
    labels[2:5, 3:6] = value
    return labels


def test_scan_finds_planes_and_values():
    stack = np.zeros((4, 8, 10), np.int32)
    stack[1], stack[3] = square(7), square(2)
    scan = scan_labels(da.from_array(stack, chunks=(1, 8, 10)))
    assert scan.planes == ((1,), (3,))
    assert scan.values == (2, 7)
    assert scan_labels(np.zeros((3, 3), np.int32)).planes == ()


def test_scan_of_a_plane_full_of_labels():
    scan = scan_labels(np.full((4, 4), 3))
    assert (scan.planes, scan.values) == (((),), (3,))


def test_scan_counts_values_of_any_size():
    labels = square(1)
    labels[0, 0], labels[0, 1] = -1, 2_000_000
    assert scan_labels(labels).values == (1, 2_000_000)
    assert scan_labels(np.full((3, 3), -1)).planes == (), "-1 is not labelled"


def test_scan_of_many_objects_stays_small():
    scan = scan_labels(np.arange(10_000).reshape(100, 100))
    assert 65 <= len(scan.values) < 200


def test_scan_can_be_stopped():
    with pytest.raises(CancelledError):
        scan_labels(np.ones((3, 4, 4), np.int32), lambda: True)


def test_previews_are_not_learnt_from(viewer_model):
    image = viewer_model.add_image(np.zeros((8, 10)), name="SEM")
    state = state_of(viewer_model)
    preview = CandidatePreview(viewer_model, image, (), (8, 10))
    preview.show()
    painted = viewer_model.add_labels(square())
    phases = viewer_model.add_labels(square(), metadata={OWN: {LEARNABLE: True}})
    assert not is_learnable(preview.layer)
    assert is_learnable(painted)
    assert is_learnable(phases)
    assert is_learnable(state.labels_layer(image))
    assert not is_learnable(image)


def test_images_of_the_same_shape_the_likeliest_first(viewer_model):
    for name in ("A", "B"):
        viewer_model.add_image(np.zeros((8, 10)), name=name)
    viewer_model.add_image(np.zeros((8, 11)), name="C")
    viewer_model.add_image(np.zeros((8, 10, 3), np.uint8), name="RGB", rgb=True)
    state = state_of(viewer_model)
    labels = viewer_model.add_labels(square(), name="A masks")
    assert images_for(state, labels)[0].name == "A"
    assert {image.name for image in images_for(state, labels)} == {"A", "B", "RGB"}
    labels.name = "B masks"
    assert images_for(state, labels)[0].name == "B"


def test_classes_of_objects(viewer_model):
    image = viewer_model.add_image(np.zeros((8, 10)), name="SEM")
    state = state_of(viewer_model)
    layer = state.labels_layer(image)
    number = state.session(image).commit(square().astype(bool), class_name="pore")
    assert object_classes(layer) == {number: "pore"}
    assert object_classes(viewer_model.add_labels(square())) is None
