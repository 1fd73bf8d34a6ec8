"""Where the next click goes, against the rule written out for the whole image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from phasesam.core.mask_set import MaskCrop
from phasesam.evaluation.clicker import Click, next_click


def crop(mask) -> MaskCrop:
    return MaskCrop.from_array(np.asarray(mask, dtype=bool))


def depth(error: np.ndarray) -> np.ndarray:
    """Distance of each error pixel to the nearest other pixel, beyond the image included."""
    padded = np.pad(error, 1)
    out = np.zeros(padded.shape)
    if error.any():
        distances = cdist(np.argwhere(padded), np.argwhere(~padded))
        out[padded] = distances.min(axis=1)
    return out[1:-1, 1:-1]


def click_by_the_book(truth, predicted, valid, clicked):
    missing = depth(truth & ~predicted & valid)
    surplus = depth(predicted & ~truth & valid)
    for click in clicked:
        missing[click.y, click.x] = surplus[click.y, click.x] = 0
    positive = missing.max() > surplus.max()
    chosen = missing if positive else surplus
    if chosen.max() == 0:
        return None
    y, x = np.argwhere(chosen == chosen.max())[0]
    return Click(int(y), int(x), positive=bool(positive))


def test_first_click_is_the_centre_of_the_object():
    truth = np.zeros((20, 30), bool)
    truth[4:11, 10:17] = True
    assert next_click(crop(truth), crop(np.zeros_like(truth))) == Click(7, 13, positive=True)


def test_the_centre_lies_in_the_object_even_if_it_is_a_ring():
    y, x = np.mgrid[:41, :41] - 20
    ring = (np.hypot(y, x) <= 18) & (np.hypot(y, x) >= 10)
    click = next_click(crop(ring), crop(np.zeros_like(ring)))
    assert ring[click.y, click.x]


def test_surplus_is_clicked_away():
    truth = np.zeros((12, 30), bool)
    truth[3:8, 2:7] = True
    predicted = truth.copy()
    predicted[1:10, 15:24] = True
    assert next_click(crop(truth), crop(predicted)) == Click(5, 19, positive=False)


def test_equal_errors_are_clicked_negative():
    truth, predicted = np.zeros((10, 20), bool), np.zeros((10, 20), bool)
    truth[2:7, 2:7] = True
    predicted[2:7, 10:15] = True
    assert next_click(crop(truth), crop(predicted)) == Click(4, 12, positive=False)


def test_first_of_equal_pixels_by_row_then_column():
    truth = np.zeros((6, 9), bool)
    truth[1:3, 1:8] = True
    assert next_click(crop(truth), crop(np.zeros_like(truth))) == Click(1, 1, positive=True)


def test_the_border_of_the_image_is_a_border():
    truth = np.zeros((9, 30), bool)
    truth[:, :5] = True
    # Without it, the deepest pixel would lie in the first column.
    assert next_click(crop(truth), crop(np.zeros_like(truth))) == Click(2, 2, positive=True)


def test_clicked_pixels_are_not_clicked_again():
    truth = np.zeros((7, 7), bool)
    truth[2:5, 2:5] = True
    empty = crop(np.zeros_like(truth))
    first = next_click(crop(truth), empty)
    assert first == Click(3, 3, positive=True)
    assert next_click(crop(truth), empty, [first]) == Click(2, 2, positive=True)


def test_nothing_to_click():
    truth = np.zeros((7, 7), bool)
    truth[3, 3] = True
    assert next_click(crop(truth), crop(truth)) is None
    assert next_click(crop(truth), crop(~truth | truth), valid=truth) is None
    empty = crop(np.zeros_like(truth))
    assert next_click(crop(truth), empty, [Click(3, 3, positive=True)]) is None
    assert next_click(empty, empty) is None


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.floats(0.5, 3), st.integers(0, 3))
def test_equals_the_rule_on_the_whole_image(seed, smoothness, n_clicked):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(4, 26, 2))
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), smoothness) for _ in range(3)]
    truth, predicted = noise[0] > 0, noise[0] + 0.7 * noise[1] > 0
    valid = noise[2] > -1.5 * noise[2].std()
    clicked: list[Click] = []
    for _ in range(n_clicked + 1):
        expected = click_by_the_book(truth, predicted, valid, clicked)
        # The object is cut to where it is known, as labels are.
        found = next_click(crop(truth & valid), crop(predicted), clicked, valid)
        assert found == expected
        if found is None:
            break
        clicked.append(found)


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (12, 1)])
def test_thin_images(shape):
    truth = np.ones(shape, bool)
    click = next_click(crop(truth), crop(np.zeros(shape)))
    assert click == Click(0, 0, positive=True)
