import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.mask_set import MaskSet
from phasesam.core.nms import box_nms, mask_nms, nesting
from phasesam.core.overlaps import overlap_matrix


def plain_nms(ratio, scores, threshold):
    """Greedy suppression, written as one says it."""
    kept = []
    for index in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(ratio[index, other] <= threshold for other in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_as_torchvision(dtype):
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("torchvision").ops.nms
    rng = np.random.default_rng(0)
    for trial in range(120):
        n, extent = int(rng.integers(0, 200)), int(rng.integers(5, 150))
        # Whole coordinates make IoUs that equal the threshold, and boxes without area.
        corner = rng.integers(0, extent, (n, 2)).astype(dtype)
        boxes = np.concatenate([corner, corner + rng.integers(0, 40, (n, 2))], axis=1)
        boxes = boxes.astype(dtype)
        if trial % 3 == 0:
            boxes += rng.normal(0, 0.5, boxes.shape).astype(dtype)
        scores = (rng.integers(0, 30, n) / 30).astype(dtype)
        threshold = float(rng.choice([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.9, 1]))
        expected = reference(
            torch.from_numpy(boxes[:, [1, 0, 3, 2]].copy()), torch.from_numpy(scores), threshold
        )
        assert box_nms(boxes, scores, threshold).tolist() == expected.tolist()


def test_integers_are_computed_as_float32():
    # 3/5 exceeds 0.6 in float32 only.
    boxes = np.array([[0, 0, 1, 5], [0, 0, 1, 3]])
    assert box_nms(boxes, [1, 0.5], 0.6).tolist() == [0]
    assert box_nms(boxes.astype(np.float64), [1, 0.5], 0.6).tolist() == [0, 1]


def test_chunks_give_the_same_result(monkeypatch):
    rng = np.random.default_rng(1)
    corner = rng.random((300, 2)) * 100
    boxes = np.concatenate([corner, corner + rng.random((300, 2)) * 40], axis=1)
    scores = rng.random(300)
    whole = box_nms(boxes, scores, 0.3)
    monkeypatch.setattr("phasesam.core.nms._PAIRS_AT_ONCE", 7)
    assert np.array_equal(box_nms(boxes, scores, 0.3), whole)


def test_three_thousand_boxes_take_milliseconds():
    rng = np.random.default_rng(2)
    corner = rng.random((3000, 2)) * (1024, 1536)
    boxes = np.concatenate([corner, corner + 5 + rng.random((3000, 2)) * 60], axis=1)
    scores = rng.random(3000)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        box_nms(boxes, scores, 0.7)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05


def test_no_boxes():
    assert box_nms(np.zeros((0, 4)), [], 0.7).tolist() == []
    assert box_nms([], [], 0.7).tolist() == []


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold_out_of_range(threshold):
    with pytest.raises(InvalidSettingError, match="0–1"):
        box_nms(np.zeros((1, 4)), [1], threshold)


def test_boxes_must_fit_scores():
    with pytest.raises(InvalidMaskError, match="n scores"):
        box_nms(np.zeros((2, 4)), [1], 0.5)
    with pytest.raises(InvalidMaskError, match="n scores"):
        box_nms(np.zeros((2, 3)), [1, 1], 0.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["iou", "iomin"]), st.floats(0, 1))
def test_mask_suppression_is_the_plain_greedy_rule(seed, criterion, threshold):
    rng = np.random.default_rng(seed)
    masks = np.zeros((int(rng.integers(0, 12)), 15, 17), dtype=bool)
    for mask in masks:
        y, x, h, w = rng.integers(0, 10, 4)
        mask[y : y + h + 1, x : x + w + 1] = True
    scores = rng.integers(0, 4, len(masks)) / 4
    flat = masks.reshape(len(masks), 255).astype(float)
    shared = flat @ flat.T
    area = flat.sum(axis=1)
    smaller = np.minimum(area[:, None], area[None])
    union = area[:, None] + area[None] - shared
    ratio = shared / (union if criterion == "iou" else smaller)
    found = mask_nms(overlap_matrix(MaskSet.from_masks(masks)), area, scores, threshold, criterion)
    assert found.tolist() == plain_nms(ratio, scores, threshold)


def rings() -> MaskSet:
    """Three squares in one another and one apart."""
    masks = np.zeros((4, 40, 40), dtype=bool)
    masks[0, 2:20, 2:20] = True
    masks[1, 5:15, 5:15] = True
    masks[2, 7:10, 7:10] = True
    masks[3, 25:35, 25:35] = True
    return MaskSet.from_masks(masks)


@pytest.mark.parametrize(
    ("rule", "kept"), [("both", [0, 1, 2, 3]), ("outer", [0, 3]), ("inner", [2, 3])]
)
def test_nesting(rule, kept):
    masks = rings()
    assert nesting(overlap_matrix(masks), masks.areas, rule).tolist() == kept


def test_nesting_allows_some_pixels_outside():
    masks = np.zeros((2, 30, 30), dtype=bool)
    masks[0, :20, :20] = True
    masks[1, 10:20, 11:21] = True  # 9 of its 10 columns lie inside
    shared = overlap_matrix(MaskSet.from_masks(masks))
    areas = masks.sum(axis=(1, 2))
    assert nesting(shared, areas, "outer", inside=0.9).tolist() == [0]
    assert nesting(shared, areas, "outer", inside=0.91).tolist() == [0, 1]


def test_equal_masks_leave_one():
    masks = MaskSet.from_masks(np.ones((3, 5, 5)))
    for rule in ("outer", "inner"):
        assert len(nesting(overlap_matrix(masks), masks.areas, rule)) == 1


def test_wrong_settings_are_refused():
    shared = sparse.csr_matrix(np.eye(2))
    with pytest.raises(InvalidSettingError, match="criterion"):
        mask_nms(shared, [1, 1], [1, 1], 0.5, "dice")  # type: ignore[arg-type]
    with pytest.raises(InvalidSettingError, match="nested"):
        nesting(shared, [1, 1], "none")  # type: ignore[arg-type]
    with pytest.raises(InvalidSettingError, match="inside"):
        nesting(shared, [1, 1], "outer", inside=0)
    with pytest.raises(InvalidMaskError, match="areas"):
        mask_nms(shared, [1], [1, 1], 0.5)
    with pytest.raises(InvalidMaskError, match="scores"):
        mask_nms(shared, [1, 1], [1], 0.5)
