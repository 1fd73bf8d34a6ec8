from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.amg import batched_mask_to_box, calculate_stability_score
from torch.nn import functional as F

from phasesam.core.coordinates import resize_longest_side
from phasesam.engines.rendering import (
    BINS,
    BINS_PER_LOGIT,
    HISTOGRAM_REACH,
    DeferredMask,
    _counts_above,
    raster,
    render_mask,
)

SHAPES = [
    (300, 400),
    (400, 300),
    (90, 700),
    (700, 90),
    (1, 40),
    (40, 1),
    (1, 1),
    (3, 2000),
    (256, 256),
    (1024, 1024),
    (1500, 1100),
]
LARGE = (700, 900)


def enlarge(logits: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """SAM's two steps, by torch: to 1024, cut the padding off, to the image."""
    height, width = resize_longest_side(*shape)
    plane = torch.from_numpy(np.ascontiguousarray(logits))[None, None]
    plane = F.interpolate(plane, (1024, 1024), mode="bilinear", align_corners=False)
    plane = plane[..., :height, :width]
    return F.interpolate(plane, shape, mode="bilinear", align_corners=False)[0, 0].numpy()


@pytest.mark.parametrize("shape", SHAPES)
def test_renders_as_segment_anything_does(smooth_logits, shape):
    logits = smooth_logits(1)
    found = raster(shape).render(logits)
    assert found.shape == shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, enlarge(logits, shape), atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize("shape", [(300, 400), (90, 700), (1100, 1500)])
@pytest.mark.parametrize("step", [1, 3])
def test_renders_part_of_an_image(smooth_logits, shape, step):
    logits, target = smooth_logits(2), raster(shape)
    whole = target.render(logits)
    window = (slice(shape[0] // 3, shape[0] // 2), slice(shape[1] // 5, shape[1]))
    np.testing.assert_allclose(
        target.render(logits, window, step), whole[window][::step, ::step], atol=1e-4
    )


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    corner=st.tuples(st.integers(0, 255), st.integers(0, 255)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    above=st.sampled_from([-8.0, 0.0, 3.0]),
)
def test_nothing_lies_outside_the_window(shape, corner, size, above):
    logits = np.full((256, 256), -9.0, np.float32)
    y, x = corner
    logits[y : y + size[0], x : x + size[1]] = 5
    target = raster(shape)
    whole = target.render(logits) > above
    window = target.window(logits, above)
    assert window is not None
    inside = np.zeros(shape, bool)
    inside[window] = True
    assert not (whole & ~inside).any()
    if inside.any():
        np.testing.assert_array_equal(target.render(logits, window) > above, whole[window])


def test_window_of_nothing():
    target = raster((30, 40))
    assert target.window(np.full((256, 256), -1.0, np.float32), 0.0) is None
    padding = np.full((256, 256), -1.0, np.float32)
    padding[200:] = 1  # the image fills 3/4 of the rows
    window = target.window(padding, 0.0)
    assert window is not None
    assert window[0] == slice(0, 0)
    assert render_mask(target, padding) is None


@pytest.mark.parametrize("shape", [(192, 256), (256, 190), (33, 300), (300, 33), (350, 370)])
@pytest.mark.parametrize("seed", range(3))
def test_mask_box_and_stability_equal_segment_anything(smooth_logits, shape, seed):
    logits = smooth_logits(seed, shift=-4.0)
    full = torch.from_numpy(enlarge(logits, shape))
    found = render_mask(raster(shape), logits)
    assert found is not None
    expected = (full > 0).numpy()
    plane = np.zeros(shape, bool)
    plane[found.mask.slices] = found.mask.array()
    # A pixel or two may lie within rounding of the threshold.
    assert np.count_nonzero(plane ^ expected) <= 2
    assert found.area == np.count_nonzero(plane)
    x0, y0, x1, y1 = batched_mask_to_box(full > 0).tolist()
    assert found.box == (y0, x0, y1 + 1, x1 + 1)
    for offset in (0.5, 1.0, 2.0):
        low, high = (BINS // 2 + int(sign * offset * BINS_PER_LOGIT) for sign in (-1, 1))
        expected_score = float(calculate_stability_score(full[None], 0.0, offset)[0])
        # Between 131 072 and 262 144 pixels the histogram is sampled, the mask is not.
        tolerance = 1e-3 if shape[0] * shape[1] <= 131_072 else 1e-2
        assert found.above[high] / found.above[low] == pytest.approx(expected_score, abs=tolerance)


def test_negative_logits_are_no_mask():
    assert render_mask(raster((50, 60)), np.full((256, 256), -3.0, np.float32)) is None


@pytest.mark.parametrize("waves", [1.5, 4.0, 12.0])
def test_large_masks_are_measured_on_a_sample(smooth_logits, waves):
    logits = smooth_logits(4, waves=waves)
    full = enlarge(logits, LARGE)
    found = render_mask(raster(LARGE), logits)
    assert found is not None
    assert isinstance(found.mask, DeferredMask)
    expected = np.count_nonzero(full > 0)
    assert found.area == pytest.approx(expected, rel=5e-3)
    counts = [np.count_nonzero(full > edge) for edge in (-1, 1)]
    middle = BINS // 2
    stability = found.above[middle + BINS_PER_LOGIT] / found.above[middle - BINS_PER_LOGIT]
    assert stability == pytest.approx(counts[1] / counts[0], abs=5e-3)
    x0, y0, x1, y1 = batched_mask_to_box(torch.from_numpy(full > 0)).tolist()
    np.testing.assert_allclose(found.box, (y0, x0, y1 + 1, x1 + 1), atol=4)


@pytest.mark.parametrize("origin", [(0, 0), (3, 5)])
def test_deferred_masks_become_exact_when_asked(smooth_logits, origin):
    logits = smooth_logits(5)
    found = render_mask(raster(LARGE), logits)
    assert found is not None
    mask = found.moved(*origin).mask
    assert isinstance(mask, DeferredMask)
    exact = mask.render()
    plane = np.zeros((LARGE[0] + 10, LARGE[1] + 10), bool)
    plane[exact.slices] = exact.array()
    plane = plane[origin[0] :, origin[1] :][: LARGE[0], : LARGE[1]]
    expected = enlarge(logits, LARGE) > 0
    # Stored in half precision: a few pixels on the rim differ.
    assert np.count_nonzero(plane ^ expected) < 2e-4 * expected.size
    assert exact.area == np.count_nonzero(plane)


@settings(max_examples=15, deadline=None)
@given(
    step=st.integers(1, 5),
    dy=st.integers(0, 9),
    dx=st.integers(0, 9),
    shape=st.tuples(st.integers(10, 80), st.integers(10, 80)),
)
def test_sampled_is_every_nth_pixel_of_the_image(smooth_logits, step, dy, dx, shape):
    target = raster(shape)
    mask = replace(DeferredMask.from_logits(target, smooth_logits(6)), origin=(dy, dx))
    exact, sampled = mask.render(), mask.sampled(step)
    plane = np.zeros((shape[0] + dy, shape[1] + dx), bool)
    plane[exact.slices] = exact.array()
    expected = plane[::step, ::step]
    found = np.zeros_like(expected)
    found[sampled.slices] = sampled.array()
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    coarse=st.integers(1, 16),
    shape=st.tuples(st.integers(1, 400), st.integers(1, 400)),
)
def test_deferred_mask_keeps_all_that_decides(seed, coarse, shape):
    # From noise in single logits, the hardest, to patches.
    noise = np.random.default_rng(seed).normal(size=(256 // coarse + 1,) * 2)
    logits = np.kron(noise, np.ones((coarse, coarse)))[:256, :256]
    logits = logits.astype(np.float16).astype(np.float32)
    target = raster(shape)
    expected = target.render(logits) > 0
    crop = DeferredMask.from_logits(target, logits).render()
    found = np.zeros(shape, np.bool_)
    if expected.any():
        found[crop.slices] = crop.array()
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(-12, 12, width=32),
            st.integers(-10 * BINS_PER_LOGIT, 10 * BINS_PER_LOGIT).map(
                lambda i: i / BINS_PER_LOGIT
            ),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_histogram_counts_what_is_above_each_edge(values):
    array = np.array(values, np.float32)
    edges = np.linspace(-HISTOGRAM_REACH, HISTOGRAM_REACH, BINS + 1)
    expected = [(array > edge).sum() for edge in edges]
    np.testing.assert_array_equal(_counts_above(array[None]), expected)


def test_padding_is_not_stored(smooth_logits):
    found = render_mask(raster((400, 1200)), smooth_logits(7))
    assert found is not None
    assert isinstance(found.mask, DeferredMask)
    # 400 of 1200 rows are image, and interpolation reaches one row further; one bit each.
    assert 85 * 32 <= len(found.mask.signs) == len(found.mask.near) <= 87 * 32
    assert len(found.mask.values) < 87 * 256


def test_rasters_are_made_once():
    assert raster((77, 88)) is raster((77, 88))
