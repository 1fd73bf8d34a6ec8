from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.amg import generate_crop_boxes, is_box_near_crop_edge

from phasesam.engines.crops import crop_boxes, cut_by_crop, window_points


@pytest.mark.parametrize("shape", [(100, 100), (192, 256), (1024, 700), (777, 1531)])
@pytest.mark.parametrize("ratio", [0.0, 0.2, 512 / 1500])
def test_crops_are_segment_anythings(shape, ratio):
    boxes, layers = generate_crop_boxes(shape, 2, ratio)
    expected = [
        (layer, (y0, x0, y1, x1)) for layer, (x0, y0, x1, y1) in zip(layers, boxes, strict=True)
    ]
    assert crop_boxes(shape, 2, ratio) == expected


def test_without_layers_there_is_the_whole_image():
    assert crop_boxes((30, 40), 0, 0.3) == [(0, (0, 0, 30, 40))]


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), st.integers(0, 3), st.floats(0, 0.95))
def test_crops_cover_the_image_and_none_is_empty(shape, n_layers, ratio):
    layout = crop_boxes(shape, n_layers, ratio)
    for layer in range(n_layers + 1):
        seen = np.zeros(shape, bool)
        for _, (y0, x0, y1, x1) in (entry for entry in layout if entry[0] == layer):
            assert 0 <= y0 < y1 <= shape[0]
            assert 0 <= x0 < x1 <= shape[1]
            seen[y0:y1, x0:x1] = True
        assert seen.all()


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_cut_masks_are_those_that_segment_anything_drops(data):
    height, width = 200, 300
    crop = data.draw(st.sampled_from([box for _, box in crop_boxes((height, width), 2, 0.3)]))
    boxes = []
    for _ in range(5):
        y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        y1, x1 = data.draw(st.integers(y0, height - 1)), data.draw(st.integers(x0, width - 1))
        boxes.append((y0, x0, y1, x1))
    # SAM's boxes name the last pixel and count from the corner of their crop.
    inclusive = torch.tensor([(x0 - crop[1], y0 - crop[0], x1 - crop[1], y1 - crop[0])
                              for y0, x0, y1, x1 in boxes])  # fmt: skip
    expected = is_box_near_crop_edge(
        inclusive, [crop[1], crop[0], crop[3], crop[2]], [0, 0, width, height]
    )
    found = cut_by_crop(np.array(boxes) + np.array([0, 0, 1, 1]), crop, (height, width))
    assert found.tolist() == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(20, 400), st.integers(20, 400)),
    st.integers(16, 200),
    st.integers(1, 8),
    st.booleans(),
)
def test_windows_share_the_prompts_out(shape, side, per_side, own):
    grid = np.random.default_rng(0).random((17, 2)) if own else None
    shared = window_points(shape, side, per_side, grid)
    points = np.concatenate([part for _, part in shared])
    wanted = 17 if own else np.prod([max(1, round(n * per_side / side)) for n in shape])
    assert len(points) == wanted == len(np.unique(points, axis=0))
    for (y0, x0, y1, x1), part in shared:
        assert ((part >= (y0, x0)) & (part <= (y1, x1))).all()
        inner = (part >= np.array([y0, x0]) + side / 8) & (part <= np.array([y1, x1]) - side / 8)
        ends = np.array([y0 == 0 or y1 == shape[0], x0 == 0 or x1 == shape[1]])
        assert (inner | ends).all()
