"""Which layers can be learnt from, and what is in them."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image, Labels

from phasesam.core.errors import CancelledError
from phasesam.napari_widgets.candidate_preview import CandidatePreview
from phasesam.napari_widgets.layers import OWN
from phasesam.napari_widgets.training_layers import (
    IMAGE_ID,
    LEARNABLE,
    doubt_about,
    images_for,
    is_learnable,
    lies_on,
    misfit_text,
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


def test_scan_tells_whether_anything_was_changed():
    labels = square(1)
    before = scan_labels(labels)
    assert scan_labels(labels.copy()) == before
    labels[7, 7] = 1
    assert scan_labels(labels) != before


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


@pytest.mark.parametrize("names", [("steel 1", "steel 10"), ("Image", "Image [1]")])
@pytest.mark.parametrize("current", [0, 1])
def test_names_that_begin_alike(viewer_model, names, current):
    state = state_of(viewer_model)
    images = [viewer_model.add_image(np.zeros((8, 10)), name=name) for name in names]
    state.image_layer = images[current]
    for image in images:
        painted = viewer_model.add_labels(square(), name=f"{image.name} mask")
        assert images_for(state, state.labels_layer(image))[0] is image
        assert images_for(state, painted)[0] is image


def test_what_phasesam_made_stays_with_its_image(viewer_model):
    state = state_of(viewer_model)
    first, other = (viewer_model.add_image(np.zeros((8, 10)), name=name) for name in "AB")
    objects = state.labels_layer(first)
    own = {"image": "A", LEARNABLE: True}
    by_id = viewer_model.add_labels(
        square(), name="A phases", metadata={OWN: {**own, IMAGE_ID: str(first.unique_id)}}
    )
    by_name = viewer_model.add_labels(square(), name="A phases", metadata={OWN: own})
    assert all(images_for(state, each)[0] is first for each in (objects, by_id, by_name))
    first.name, other.name = "steel", "A "
    assert all(images_for(state, each)[0] is first for each in (objects, by_id))
    assert all(doubt_about(state, each, first) == "" for each in (objects, by_id))
    for image in (first, other):
        assert doubt_about(state, by_name, image) == "were made for the image 'A'"


IMAGE = {"scale": (0.5, 0.5), "units": ("um", "um")}


@pytest.mark.parametrize(
    ("options", "lies"),
    [
        (IMAGE, True),
        ({"scale": (500, 500), "units": ("nm", "nm")}, True),
        ({}, True),  # a mask without any calibration
        ({**IMAGE, "translate": (0.2, 0)}, True),
        ({**IMAGE, "translate": (0.3, 0)}, False),
        ({**IMAGE, "scale": (0.5, -0.5)}, False),
        ({**IMAGE, "scale": (0.5, -0.5), "translate": (0, 4.5)}, False),
        ({**IMAGE, "scale": (1.5, 1.5)}, False),
        ({**IMAGE, "rotate": 5}, False),
        ({"translate": (500, 500)}, False),
    ],
)
def test_labels_that_lie_on_the_image(viewer_model, options, lies):
    image = viewer_model.add_image(np.zeros((8, 10)), name="SEM", **IMAGE)
    labels = viewer_model.add_labels(square(), name="mine", **options)
    assert lies_on(labels, image) == lies
    doubt = doubt_about(state_of(viewer_model), labels, image)
    assert doubt == ("" if lies else "do not lie on the image 'SEM' in the viewer")


def test_stacks_lie_on_each_other():
    image = Image(np.zeros((4, 8, 10, 3), np.uint8), scale=(2, 1, 1), rotate=(0, 0, 30), rgb=True)
    stack = np.zeros((4, 8, 10), np.int32)
    assert lies_on(Labels(stack, scale=(2, 1, 1), rotate=(0, 0, 30)), image)
    assert not lies_on(Labels(stack, scale=(-2, 1, 1), rotate=(0, 0, 30)), image)


def test_the_place_decides_where_no_name_does(viewer_model):
    viewer_model.add_image(np.zeros((8, 10)), name="A")
    viewer_model.add_image(np.zeros((8, 10)), name="B", translate=(0, 10))
    state = state_of(viewer_model)
    for place, name in ((0, "A"), (10, "B")):
        labels = viewer_model.add_labels(square(), name="mine", translate=(0, place))
        assert images_for(state, labels)[0].name == name


def test_what_fits_no_image_is_told_with_its_size(viewer_model):
    state = state_of(viewer_model)
    image = viewer_model.add_image(np.zeros((4, 8, 10)), name="CT")
    labels = viewer_model.add_labels(square(shape=(7, 10)), name="X")
    assert misfit_text(state, labels) == "Labels 'X' is 7 × 10; no image has this size."
    plane = viewer_model.add_labels(square(), name="Y")
    assert misfit_text(state, plane) == (
        "Labels 'Y' is 8 × 10; no image has this size: 'CT' is 4 × 8 × 10."
    )
    assert misfit_text(state, labels, image) == (
        "Labels 'X' is 7 × 10; its image 'CT' is 4 × 8 × 10."
    )
