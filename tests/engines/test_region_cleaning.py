"""Small holes and islands in chosen masks, against segment-anything's post-processing."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam.core.mask_set import MaskCrop
from phasesam.engines.region_cleaning import clean_masks


def discs(*circles: tuple[int, int, int], shape: tuple[int, int] = (80, 100)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.logical_or.reduce([(y - a) ** 2 + (x - b) ** 2 <= r * r for a, b, r in circles])


def test_holes_and_islands_go_and_the_corners_of_the_box_are_no_holes():
    body = discs((30, 30, 20))
    mask = body.copy()
    mask[28:31, 28:31] = False
    mask[70:72, 90:92] = True
    cleaned, kept = clean_masks([MaskCrop.from_array(mask)], 20, 0.7)
    whole = np.zeros_like(mask)
    whole[cleaned[0].slices] = cleaned[0].array()
    np.testing.assert_array_equal(whole, body)
    assert kept.tolist() == [0]


@pytest.mark.parametrize(("area", "open_"), [(9, True), (10, False)])
def test_regions_of_exactly_the_area_stay(area, open_):
    mask = discs((30, 30, 20))
    mask[28:31, 28:31] = False
    cleaned, _ = clean_masks([MaskCrop.from_array(mask)], area, 0.7)
    assert (cleaned[0].area == mask.sum()) == open_


def test_of_two_duplicates_the_unchanged_one_stays():
    clean = discs((30, 30, 20))
    dirty = clean.copy()
    dirty[30, 30] = False
    _, kept = clean_masks([MaskCrop.from_array(dirty), MaskCrop.from_array(clean)], 5, 0.7)
    assert kept.tolist() == [1]


def test_agrees_with_segment_anything():
    amg = pytest.importorskip("segment_anything.utils.amg")
    pytest.importorskip("cv2")
    random = np.random.default_rng(3)
    mask = discs((35, 40, 28)) ^ (random.random((80, 100)) > 0.97)
    expected, _ = amg.remove_small_regions(mask, 12, "holes")
    expected, _ = amg.remove_small_regions(expected, 12, "islands")
    cleaned, _ = clean_masks([MaskCrop.from_array(mask)], 12, 0.7)
    found = np.zeros_like(mask)
    found[cleaned[0].slices] = cleaned[0].array()
    assert np.count_nonzero(found & expected) / np.count_nonzero(found | expected) > 0.99
