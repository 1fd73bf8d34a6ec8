import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from phasesam.core.layer_colours import Limits, colours, greyed
from phasesam.core.token_grid import NO_LABEL, spread_points, token_labels, tokens_at


def test_points_are_spread_evenly():
    points = spread_points(1024)
    assert points.min() >= 0
    assert points.max() < 1
    counts = np.histogram2d(*points.T, bins=16, range=[(0, 1), (0, 1)])[0]
    assert counts.min() >= 2
    assert counts.max() <= 6
    assert_array_equal(spread_points(10), points[:10])


@given(rows=st.integers(1, 70), columns=st.integers(1, 70))
@settings(max_examples=30, deadline=None)
def test_points_are_on_tokens(rows, columns):
    y, x = tokens_at(spread_points(500), (rows, columns))
    assert y.min() >= 0
    assert y.max() < rows
    assert x.min() >= 0
    assert x.max() < columns


@pytest.mark.parametrize(("shape", "side"), [((64, 48), 16.0), ((50, 70), 12.5), ((33, 90), 7.3)])
def test_a_token_has_the_class_of_most_of_its_pixels(shape, side):
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, shape)
    labels[: shape[0] // 2, : shape[1] // 2] = 2
    grid = tuple(int(np.ceil(n / side)) for n in shape)
    found = token_labels(labels, grid, side)
    for i in range(grid[0]):
        for j in range(grid[1]):
            edges = [round(k * side) for k in (i, i + 1, j, j + 1)]
            part = labels[edges[0] : edges[1], edges[2] : edges[3]]
            counts = np.bincount(part[part >= 0], minlength=3)
            expected = counts.argmax() if counts.sum() >= 0.5 * part.size else NO_LABEL
            assert found[i, j] == expected


def test_labels_that_are_all_unknown():
    assert (token_labels(np.full((20, 20), -1), (4, 4), 5.0) == NO_LABEL).all()


def test_colours_span_the_middle_of_the_scores():
    scores = np.random.default_rng(0).normal(size=(50, 40, 3)).astype(np.float32)
    limits = Limits.of(scores.reshape(-1, 3))
    picture = colours(scores, limits)
    assert picture.dtype == np.uint8
    assert picture.shape == (50, 40, 3)
    for k in range(3):
        share = np.mean((picture[..., k] > 0) & (picture[..., k] < 255))
        assert 0.94 < share < 0.97


def test_one_wild_token_does_not_darken_the_others():
    scores = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32)
    calm = colours(scores, Limits.of(scores))
    scores[0] = 1e4
    assert np.abs(colours(scores, Limits.of(scores))[1:].astype(int) - calm[1:]).max() <= 4


def test_equal_scores_are_grey_and_missing_ones_stay_in_the_middle():
    flat = np.ones((5, 3), np.float32)
    assert (colours(flat, Limits.of(flat)) == 128).all()
    two = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    assert (colours(two, Limits.of(two))[:, 2] == 128).all()


def test_lightness_follows_the_first_score():
    from skimage.color import rgb2lab

    scores = np.stack([np.linspace(-1, 1, 60)] + [np.zeros(60)] * 2, axis=-1).astype(np.float32)
    picture = colours(scores, Limits.of(scores), "lab")
    lightness = rgb2lab(picture[None] / 255)[0, :, 0]
    assert (np.diff(lightness) >= -0.5).all()
    assert lightness[0] == pytest.approx(25, abs=1)
    assert lightness[-1] == pytest.approx(85, abs=1)


def test_a_background_is_grey():
    picture = np.full((4, 4, 3), 200, np.uint8)
    background = np.eye(4, dtype=bool)
    result = greyed(picture, background)
    assert (result[background] == 40).all()
    assert (result[~background] == 200).all()
