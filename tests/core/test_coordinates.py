"""Coordinates and resizing give the numbers of segment-anything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.coordinates import (
    boxes_from_model,
    boxes_to_model,
    points_from_model,
    points_to_model,
    resize_image_longest_side,
    resize_longest_side,
)
from phasesam.core.errors import InvalidImageError, InvalidPromptError

sides = st.integers(1, 20_000)
shapes = st.tuples(sides, sides)


@pytest.fixture(scope="module")
def reference():
    transforms = pytest.importorskip("segment_anything.utils.transforms")
    return transforms.ResizeLongestSide(1024)


@given(shape=shapes)
@settings(deadline=None)
def test_shape_equals_the_reference(reference, shape):
    expected = reference.get_preprocess_shape(*shape, 1024)
    assert resize_longest_side(*shape) == tuple(max(1, side) for side in expected)


@given(shape=st.tuples(st.integers(8, 4000), st.integers(8, 4000)), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_points_and_boxes_equal_the_reference(reference, shape, seed):
    points = np.random.default_rng(seed).uniform(0, shape, (5, 2))
    expected = reference.apply_coords(points[:, ::-1], shape)
    np.testing.assert_array_equal(points_to_model(points, shape), expected)
    boxes = np.hstack([points, points + 3])
    expected = reference.apply_boxes(boxes[:, [1, 0, 3, 2]], shape)
    np.testing.assert_array_equal(boxes_to_model(boxes, shape), expected)


@pytest.mark.parametrize(
    "shape", [(1024, 1536), (60, 40), (1024, 1024), (37, 1024), (700, 3), (1, 1), (2000, 1999)]
)
def test_resized_image_equals_the_reference(reference, shape):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    resized = resize_image_longest_side(rgb)
    np.testing.assert_array_equal(resized, reference.apply_image(rgb))
    assert resized.flags.c_contiguous


def test_band_by_band_gives_the_same(monkeypatch):
    rgb = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    whole = resize_image_longest_side(rgb, 128)
    monkeypatch.setattr("phasesam.core.coordinates._BANDWISE_PIXELS", 0)
    np.testing.assert_array_equal(resize_image_longest_side(rgb, 128), whole)


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1)])
def test_a_side_of_one_pixel_does_not_vanish(shape):
    rgb = np.full((*shape, 3), 77, np.uint8)
    resized = resize_image_longest_side(rgb)
    assert sorted(resized.shape) == [1, 3, 1024]
    assert (resized == 77).all()


@given(
    shape=shapes,
    size=st.integers(1, 2048),
    points=st.lists(st.tuples(st.floats(-9, 2e4), st.floats(-9, 2e4)), max_size=4),
)
@settings(deadline=None)
def test_points_come_back(shape, size, points):
    there = points_to_model(points, shape, size)
    assert there.shape == (len(points), 2)
    back = points_from_model(there, shape, size)
    np.testing.assert_allclose(back, np.reshape(points, (-1, 2)), rtol=1e-12, atol=1e-12)


@given(shape=shapes, box=st.tuples(*[st.floats(0, 2e4)] * 4))
@settings(deadline=None)
def test_boxes_come_back(shape, box):
    back = boxes_from_model(boxes_to_model([box], shape), shape)
    np.testing.assert_allclose(back, [box], rtol=1e-12, atol=1e-12)


def test_axes_turn():
    assert points_to_model([(10, 20)], (512, 1024)).tolist() == [[20, 10]]
    assert boxes_to_model([(1, 2, 3, 4)], (512, 1024)).tolist() == [[2, 1, 4, 3]]
    assert points_to_model([(10, 20)], (256, 512)).tolist() == [[40, 20]]


def test_wrong_shapes_are_refused():
    with pytest.raises(InvalidPromptError, match=r"\(n, 2\), got \(3,\)"):
        points_to_model([1, 2, 3], (10, 10))
    with pytest.raises(InvalidPromptError, match=r"\(n, 4\), got \(1, 2\)"):
        boxes_to_model([[1, 2]], (10, 10))
    with pytest.raises(InvalidImageError, match="0 x 5"):
        resize_longest_side(0, 5)
    with pytest.raises(InvalidImageError, match="uint8"):
        resize_image_longest_side(np.zeros((4, 4)))
