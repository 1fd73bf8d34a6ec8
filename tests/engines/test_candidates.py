from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.amg import calculate_stability_score
from torchvision.ops import batched_nms

from phasesam.core.errors import InvalidSettingError
from phasesam.core.mask_set import MaskCrop
from phasesam.engines.automatic_config import FilterConfig
from phasesam.engines.candidates import REASONS, Candidates
from phasesam.engines.presets import PRESETS
from phasesam.engines.rendering import BINS, HISTOGRAM_REACH, DeferredMask, raster, render_mask

SHAPE = (60, 80)
EVERYTHING = FilterConfig(pred_iou=0, stability=0, nms=1)


def rectangle(y0, x0, y1, x1, shape=SHAPE):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def histogram(area, softness):
    """Pixels above each edge, for a mask that loses ``softness`` of its area per logit."""
    edges = np.linspace(-HISTOGRAM_REACH, HISTOGRAM_REACH, BINS + 1)
    return area * np.clip(1 - softness * edges, 0, None)


def candidates(masks, scores=None, softness=0.0, searched=None, boxes=None, **fields):
    crops = tuple(m if isinstance(m, MaskCrop) else MaskCrop.from_array(m) for m in masks)
    n = len(crops)
    areas = np.array([crop.area for crop in crops], np.int64)
    softness = np.broadcast_to(softness, n)
    fields.setdefault("shape", SHAPE)
    return Candidates(
        masks=crops,
        boxes=np.array([crop.box for crop in crops], np.int64).reshape(n, 4),
        areas=areas,
        scores=np.asarray(np.linspace(0.99, 0.9, n) if scores is None else scores, np.float32),
        points=np.arange(2 * n, dtype=np.float32).reshape(n, 2),
        above=np.array(
            [histogram(a, s) for a, s in zip(areas, softness, strict=True)], np.float32
        ).reshape(n, BINS + 1),
        searched=np.zeros(n, np.int64) if searched is None else np.asarray(searched),
        searched_boxes=np.array([(0, 0, *fields["shape"])] if boxes is None else boxes),
        **fields,
    )


def kept(found):
    """Which candidates stayed, told by their prompts."""
    return (found.points[:, 0] / 2).astype(int).tolist()


def test_filter_of_nothing():
    found = candidates([])
    masks = found.filter(nms_kind="mask", overlap=0.5, nested="outer", touching_edge=False)
    assert (len(found), len(masks)) == (0, 0)
    assert masks.shape == SHAPE
    assert dict(masks.dropped) == dict.fromkeys(REASONS, 0)
    assert masks.to_labels().shape == SHAPE
    assert found.stability().shape == (0,)


def test_every_reason_is_counted_in_its_order():
    found = candidates(
        [
            rectangle(20, 20, 30, 30),  # stays
            rectangle(20, 20, 30, 30),  # low score
            rectangle(20, 20, 30, 31),  # unstable
            rectangle(40, 20, 42, 22),  # small
            rectangle(5, 5, 58, 78),  # large
            rectangle(0, 50, 10, 60),  # at the edge
            rectangle(20, 20, 30, 31),  # the same box
            rectangle(25, 25, 35, 29),  # shares most of its pixels
            rectangle(15, 10, 35, 45),  # holds the first one
        ],
        scores=[0.95, 0.5, 0.99, 0.97, 0.97, 0.97, 0.94, 0.93, 0.92],
        softness=[0.01, 0.01, 0.2, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01],
    )
    masks = found.filter(
        min_area=10, max_area=1000, touching_edge=False, overlap=0.45, nested="both"
    )
    assert kept(masks) == [0]
    assert dict(masks.dropped) == {
        "pred_iou": 1,
        "stability": 1,
        "area": 2,
        "edge": 1,
        "nms": 1,
        "overlap": 2,
        "nested": 0,
    }
    masks = found.filter(min_area=10, max_area=1000, touching_edge=False, overlap=1, nested="outer")
    assert kept(masks) == [8]
    assert (masks.dropped["overlap"], masks.dropped["nested"]) == (0, 2)
    masks = found.filter(min_area=10, max_area=1000, touching_edge=False, overlap=1, nested="inner")
    assert kept(masks) == [0, 7]
    assert masks.shape == SHAPE
    np.testing.assert_array_equal(masks.mask(0), rectangle(20, 20, 30, 30))
    np.testing.assert_allclose(masks.stability, 0.99 / 1.01, rtol=1e-5)


def test_limits_as_segment_anything_understands_them():
    """A score must exceed its threshold, a stability score must reach it."""
    found = candidates(
        [rectangle(5, 5, 15, 15), rectangle(25, 25, 35, 36)],
        scores=[0.75, 0.875],
        softness=1 / 3,  # stability (1 - s) / (1 + s) is one half
    )
    assert len(found.filter(EVERYTHING, pred_iou=0.75)) == 1
    assert len(found.filter(EVERYTHING, pred_iou=0.875)) == 0
    assert len(found.filter(EVERYTHING, stability=0.4999)) == 2
    assert len(found.filter(EVERYTHING, stability=0.5001)) == 0
    assert len(found.filter(EVERYTHING, min_area=110)) == 1
    assert len(found.filter(EVERYTHING, max_area=100)) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pred_iou": 0.79}, "pred_iou 0.79 is below 0.8, the iou_floor of the search"),
        ({"stability": 0.69}, "stability 0.69 is below 0.7, the stability_floor of the search"),
        ({"stabilty": 0.9}, "unknown settings"),
        ({"nms": 2}, "nms must be"),
    ],
)
def test_what_the_search_did_not_keep_cannot_be_asked_for(changes, message):
    found = candidates([rectangle(5, 5, 15, 15)], floor=0.8, stability_floor=0.7)
    assert len(found.filter(pred_iou=0.8, stability=0.7)) == 1
    with pytest.raises(InvalidSettingError, match=message):
        found.filter(**changes)


def test_best_first_whatever_the_rules():
    scores = [0.9, 0.99, 0.95]
    boxes = [(0, 0, 60, 80), (0, 0, 40, 50)]
    found = candidates(
        [rectangle(5 * i, 20 * i, 5 * i + 10, 20 * i + 10) for i in range(3)],
        scores,
        softness=[0.001, 0.02, 0.001],
        searched=[1, 0, 0],
        boxes=boxes,
    )
    assert kept(found.filter()) == [1, 2, 0]
    assert kept(found.filter(nms=1)) == [1, 2, 0]
    assert kept(found.filter(rank="product")) == [1, 2, 0]
    assert kept(found.filter(rank="product", stability_offset=8, stability=0.5)) == [2, 0, 1]


def test_between_searched_crops_the_smaller_one_wins():
    """Whatever the scores: it shows the object larger."""
    near, far = rectangle(10, 10, 30, 31), rectangle(10, 10, 30, 30)
    boxes = [(0, 0, 60, 80), (0, 0, 40, 50)]
    found = candidates([far, near], [0.99, 0.9], searched=[0, 1], boxes=boxes)
    assert kept(found.filter()) == [1]
    assert found.filter().dropped["nms"] == 1
    found = candidates([far, near], [0.99, 0.9], searched=[0, 0], boxes=boxes)
    assert kept(found.filter()) == [0]


def test_edge_is_that_of_the_field_of_view():
    """A data bar below the field of view is no image."""
    found = candidates(
        [
            rectangle(40, 20, 50, 30),
            rectangle(39, 40, 49, 50),
            rectangle(10, 70, 20, 80),
            rectangle(10, 0, 20, 10),
            rectangle(0, 30, 8, 38),
        ],
        boxes=[(0, 0, 50, 80)],
    )
    assert kept(found.filter(touching_edge=False)) == [1]
    assert found.filter(touching_edge=False).dropped["edge"] == 4


def test_mask_rule_keeps_neighbours_whose_boxes_overlap():
    upper = np.triu(np.ones((20, 20), bool), 1)
    masks = []
    for part in (upper, upper.T):
        masks.append(np.zeros(SHAPE, bool))
        masks[-1][10:30, 10:30] = part
    found = candidates(masks)
    assert len(found.filter(nms_kind="box")) == 1
    assert len(found.filter(nms_kind="mask")) == 2


rectangles = st.tuples(
    st.integers(0, 30), st.integers(0, 30), st.integers(1, 14), st.integers(1, 14)
).map(lambda r: rectangle(r[0], r[1], r[0] + r[2], r[1] + r[3]))


@settings(max_examples=40, deadline=None)
@given(st.lists(rectangles, max_size=12), st.randoms(use_true_random=False))
def test_box_rule_is_torchvisions(masks, random):
    scores = np.array([random.uniform(0.9, 1) for _ in masks], np.float32)
    found = candidates(masks, scores)
    boxes = torch.from_numpy(found.boxes - np.array([0, 0, 1, 1])).float()
    expected = batched_nms(boxes, torch.from_numpy(scores), torch.zeros(len(boxes)), 0.7)
    assert kept(found.filter(EVERYTHING, nms=0.7)) == expected.tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(rectangles, max_size=10),
    st.randoms(use_true_random=False),
    st.sampled_from([0.2, 0.5, 0.8]),
    st.sampled_from([0.3, 0.6, 1.0]),
)
def test_pixel_rules_against_brute_force(masks, random, nms, overlap):
    """Masks are small here, so that none is sampled."""
    scores = np.array([random.uniform(0.9, 1) for _ in masks], np.float32)
    order = np.argsort(-scores, kind="stable").tolist()
    for limit, smaller in ((nms, False), (overlap, True)):
        left: list[int] = []
        for i in order:

            def ratio(j, i=i, smaller=smaller):
                shared = np.count_nonzero(masks[i] & masks[j])
                sizes = np.count_nonzero(masks[i]), np.count_nonzero(masks[j])
                return shared / (min(sizes) if smaller else sum(sizes) - shared)

            if limit >= 1 or all(ratio(j) <= limit for j in left):
                left.append(i)
        order = left
    found = candidates(masks, scores)
    masks_left = found.filter(EVERYTHING, nms=nms, nms_kind="mask", overlap=overlap)
    assert kept(masks_left) == order


def test_large_masks_are_compared_on_a_coarse_grid():
    shape = (900, 900)
    masks = [
        rectangle(1, 1, 401, 401, shape),
        rectangle(203, 1, 601, 401, shape),  # half of each
        rectangle(3, 5, 397, 399, shape),  # the first one, nearly
        rectangle(610, 7, 700, 851, shape),
        rectangle(641, 13, 680, 171, shape),  # within the one before
    ]
    found = candidates(masks, shape=shape)
    shared, areas = found.intersections(np.arange(5))
    exact = [[np.count_nonzero(a & b) for b in masks] for a in masks]
    np.testing.assert_allclose(shared.toarray(), exact, rtol=0.1)
    np.testing.assert_allclose(areas, found.areas, rtol=0.1)
    assert kept(found.filter(nms_kind="mask")) == [0, 1, 3, 4]
    assert kept(found.filter(nms_kind="mask", nested="outer")) == [0, 1, 3]
    assert kept(found.filter(nms_kind="mask", nested="inner")) == [0, 1, 4]
    assert kept(found.filter(nms_kind="mask", overlap=0.4)) == [0, 3]


def test_copies_between_the_points_of_the_coarse_grid_are_noticed():
    shape = (900, 900)
    large = [rectangle(100 * i, 0, 100 * i + 90, 880, shape) for i in range(8)]
    small = [rectangle(841, 21, 843, 24, shape), rectangle(870, 870, 871, 871, shape)]
    found = candidates([*large, *small, *small], shape=shape)
    assert kept(found.filter(nms_kind="mask")) == list(range(10))


def test_large_masks_do_not_change_how_small_ones_are_compared():
    small = [rectangle(y, x, y + 9, x + 9) for y in (2, 7, 40) for x in (2, 6, 50)]
    alone = candidates(small).filter(nms_kind="mask", nms=0.3)
    among = candidates([*small, np.ones(SHAPE, bool)], np.linspace(0.99, 0.9, 10))
    filtered = among.filter(nms_kind="mask", nms=0.3, max_area=100)
    assert filtered.areas.tolist() == alone.areas.tolist()
    np.testing.assert_array_equal(filtered.boxes, alone.boxes)


def test_stability_equals_segment_anything_at_multiples_of_a_sixteenth(smooth_logits):
    target = raster((120, 160))
    planes = [smooth_logits(seed, scale=2.0) for seed in range(4)]
    rendered = [render_mask(target, plane) for plane in planes]
    assert None not in rendered
    found = candidates([mask.mask for mask in rendered if mask], shape=(120, 160))
    found.above[:] = [mask.above for mask in rendered if mask]
    full = torch.from_numpy(np.stack([target.render(plane) for plane in planes]))
    for offset in (0.0, 0.0625, 0.5, 1.0, 3.0):
        expected = calculate_stability_score(full, 0.0, offset)
        np.testing.assert_allclose(found.stability(offset), expected, atol=1e-6)
    between = found.stability(0.53125)
    assert (between <= found.stability(0.5)).all()
    assert (between >= found.stability(0.5625)).all()
    # Beyond the histogram's reach of 8 nothing is known.
    with pytest.raises(
        InvalidSettingError, match=r"stability_offset must be from 0 to 8, got 8\.5"
    ):
        found.stability(8.5)
    assert found.stability(8.0).shape == (4,)


def test_offset_of_the_stability_is_a_setting_of_the_filter():
    found = candidates([rectangle(5, 5, 15, 15)], softness=0.05)
    assert len(found.filter(stability=0.9)) == 1
    assert len(found.filter(stability=0.9, stability_offset=2.0)) == 0


def test_many_offsets_do_not_fill_the_memory():
    found = candidates([rectangle(5, 5, 15, 15)], softness=0.05)
    for offset in np.linspace(0, 8, 300):
        found.stability(float(offset))
    assert len(found._offsets) < 100


def test_large_masks_are_rendered_when_they_are_wanted(smooth_logits):
    shape = (700, 900)
    rendered = render_mask(raster(shape), smooth_logits(1))
    assert rendered is not None
    assert isinstance(rendered.mask, DeferredMask)
    found = Candidates(
        shape=shape,
        masks=(rendered.mask, MaskCrop.from_array(rectangle(0, 0, 30, 30, shape))),
        boxes=np.array([rendered.box, (0, 0, 30, 30)]),
        areas=np.array([rendered.area, 900]),
        scores=np.array([0.9, 0.95], np.float32),
        points=np.zeros((2, 2), np.float32),
        above=np.ones((2, BINS + 1), np.float32),
        searched=np.zeros(2, np.int64),
        searched_boxes=np.array([(0, 0, *shape)]),
    )
    assert len(found.filter(max_area=1000)) == 1
    assert found._rendered == {}
    masks = found.filter()
    assert masks.areas.tolist() == [900, rendered.mask.render().area]
    assert found.crop(0) is found.crop(0)
    assert len(found.filter(nms_kind="mask", overlap=0.9, nested="outer")) == 2 - (
        np.count_nonzero(rendered.mask.render().array()[:30, :30]) > 0.9 * 900
    )


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_presets_drop_what_they_are_meant_to(preset):
    masks = [
        rectangle(10, 10, 20, 20),
        rectangle(12, 12, 18, 18),  # nested
        rectangle(10, 40, 11, 42),  # tiny
        rectangle(1, 1, 55, 75),  # most of the image
    ]
    found = candidates(masks, [0.95, 0.94, 0.93, 0.92], softness=0.001)
    left = kept(found.filter(preset.filter_for(SHAPE)))
    # Of the small one in the large one, the better stays where masks may not share pixels.
    expected = {
        "default": [0, 1, 2, 3],
        "particles": [0],
        "grains": [0],
        "pores": [0],
    }
    assert left == expected[preset.name]


def test_coverage_and_labels():
    found = candidates([rectangle(0, 0, 30, 40), rectangle(10, 10, 20, 20)])
    masks = found.filter(EVERYTHING)
    assert masks.coverage == 0.25
    assert np.unique(masks.to_labels()).tolist() == [0, 1, 2]
    # Small masks are painted over large ones.
    assert masks.to_labels()[15, 15] == 2


def test_threshold_changes_are_instant():
    """A thousand candidates; generous, since the machine may be busy."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 880, (1000, 2))
    sides = rng.integers(10, 120, (1000, 2))
    shape = (1024, 1024)
    crops = [
        MaskCrop.from_array(np.ones(tuple(side), bool), *map(int, corner))
        for corner, side in zip(corners, sides, strict=True)
    ]
    found = candidates(crops, rng.uniform(0.8, 1, 1000), shape=shape)
    settings_ = PRESETS["particles"].filter_for(shape)
    found.filter(settings_)
    start = time.process_time()
    for pred_iou in (0.85, 0.9, 0.95):
        found.filter(settings_, pred_iou=pred_iou)
    assert (time.process_time() - start) / 3 < 0.05
