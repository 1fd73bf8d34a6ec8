from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.engines.automatic_config import FilterConfig
from phasesam.engines.candidates import Candidates
from phasesam.napari_widgets.candidate_filter import (
    FoundCandidates,
    Kept,
    apply_filter,
    colour_numbers,
    counts_text,
    dropped_text,
    largest_overlaps,
    paint,
    result_text,
    uncovered,
)


def found_of(masks, scores, valid=None, floor=0.0):
    crops = tuple(MaskCrop.from_array(mask) for mask in masks)
    n, shape = len(crops), masks[0].shape
    return FoundCandidates(
        Candidates(
            shape=shape,
            masks=crops,
            boxes=np.array([c.box for c in crops]),
            areas=np.array([c.area for c in crops]),
            scores=np.asarray(scores, np.float32),
            points=np.zeros((n, 2), np.float32),
            above=np.repeat([[float(c.area)] for c in crops], 257, axis=1).astype(np.float32),
            searched=np.zeros(n, np.int64),
            searched_boxes=np.array([[0, 0, *shape]]),
            floor=floor,
        ),
        plane=(),
        valid=valid,
        seconds=2.0,
    )


@pytest.fixture
def three():
    """A large mask, a small one inside it, and one apart."""
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:12, 2:12] = True
    masks[1, 4:7, 4:7] = True
    masks[2, 14:18, 20:28] = True
    return masks


def brute_force(boxes, scores):
    best = np.zeros(len(boxes))
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    for rank, i in enumerate(order):
        for j in order[:rank]:
            low = np.maximum(boxes[i][:2], boxes[j][:2])
            high = np.minimum(boxes[i][2:], boxes[j][2:])
            shared = np.prod(np.maximum(high - low, 0))
            union = np.prod(boxes[i][2:] - boxes[i][:2]) + np.prod(boxes[j][2:] - boxes[j][:2])
            best[i] = max(best[i], shared / (union - shared))
    return best


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(0, 1000))
def test_largest_overlaps_agree_with_brute_force(n, seed):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 20, (n, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 15, (n, 2))], axis=1)
    scores = rng.integers(0, 5, n) / 5
    np.testing.assert_allclose(
        largest_overlaps(boxes, scores), brute_force(boxes, scores), atol=1e-5
    )


def test_largest_overlaps_in_pieces_are_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 50, (200, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 25, (200, 2))], axis=1)
    scores = rng.random(200)
    whole = largest_overlaps(boxes, scores)
    monkeypatch.setattr("phasesam.napari_widgets.candidate_filter._PAIRS_AT_ONCE", 500)
    np.testing.assert_array_equal(largest_overlaps(boxes, scores), whole)


def test_only_the_best_are_compared(monkeypatch):
    boxes = np.tile([[0, 0, 10, 10]], (5, 1))
    monkeypatch.setattr("phasesam.napari_widgets.candidate_filter._COMPARED", 3)
    overlaps = largest_overlaps(boxes, [0.1, 0.9, 0.8, 0.7, 0.2])
    np.testing.assert_array_equal(overlaps, [np.nan, 0, 1, 1, np.nan])


def test_no_boxes():
    assert largest_overlaps(np.zeros((0, 4)), np.zeros(0)).shape == (0,)


def test_small_masks_are_painted_on_large_ones(three):
    out = np.full((20, 30), 99, np.uint8)
    masks = MaskSet.from_masks(three)
    paint(masks, out)
    np.testing.assert_array_equal(out > 0, masks.to_labels() > 0)
    assert len(np.unique(out[out > 0])) == 3
    assert len(np.unique(out[4:7, 4:7])) == 1


def test_a_mask_keeps_its_colour_when_others_go(three):
    both, alone = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    paint(MaskSet.from_masks(three), both)
    paint(MaskSet.from_masks(three[2:]), alone)
    assert alone[15, 25] == both[15, 25] > 0


def test_colours_are_spread():
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 500, (1000, 2))
    boxes = np.concatenate([corner, corner + 10], axis=1)
    colours = colour_numbers(boxes, np.full(1000, 80))
    assert colours.min() >= 1
    assert len(np.unique(colours)) > 200


def test_filter_paints_and_measures_coverage(three):
    painted = np.zeros((20, 30), np.uint8)
    kept = apply_filter(found_of(three, [0.95, 0.9, 0.5]), FilterConfig(nms=1), painted)
    assert len(kept.masks) == 2
    assert kept.coverage == pytest.approx(100 / 600)
    assert not painted[14:18, 20:28].any()


def test_coverage_counts_where_objects_were_looked_for(three):
    valid = np.zeros((20, 30), bool)
    valid[:10] = True
    painted, gaps = np.zeros((2, 20, 30), np.uint8)
    found = found_of(three, [0.95, 0.9, 0.95], valid)
    kept = apply_filter(found, FilterConfig(nms=1), painted)
    assert kept.coverage == pytest.approx(80 / 300)
    uncovered(found, painted, gaps)
    np.testing.assert_array_equal(gaps == 1, valid & (painted == 0))


def test_threshold_below_the_floor_means_all_that_was_kept(three):
    painted = np.zeros((20, 30), np.uint8)
    found = found_of(three, [0.95, 0.9, 0.75], floor=0.7)
    kept = apply_filter(found, FilterConfig(pred_iou=0.1, nms=1), painted)
    assert len(kept.masks) == 3


def test_sentences(three):
    kept = Kept(
        MaskSet.from_masks(three, dropped={"pred_iou": 51, "stability": 30, "area": 15, "nms": 0}),
        coverage=0.614,
    )
    assert counts_text(kept, 1184) == "kept 3 of 1\u202f184 · coverage 61 %"
    assert result_text(kept, 14.2) == (
        "3 masks in 14 s; 96 dropped: 51 score, 30 stability, 15 area"
    )
    assert dropped_text({"nms": 2, "overlap": 3, "edge": 1}) == (
        "6 dropped: 5 overlap, 1 at the edge"
    )
    assert dropped_text({}) == "none dropped"
