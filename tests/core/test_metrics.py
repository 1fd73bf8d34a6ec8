from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phasesam.core.errors import InvalidMaskError
from phasesam.core.mask_set import MaskSet
from phasesam.core.metrics import (
    COCO_THRESHOLDS,
    InstanceOverlap,
    average_precision,
    boundary_iou,
    dice,
    iou,
    score_instances,
    segmentation_accuracy,
)
from phasesam.core.rle import encode_rle

tiny = arrays(np.int32, (5, 6), elements=st.integers(0, 4))


def squares(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    labels = np.zeros(shape, dtype=np.int32)
    for label, (y0, x0, y1, x1) in enumerate(boxes, start=1):
        labels[y0:y1, x0:x1] = label
    return labels


def most_pairs(good: np.ndarray) -> int:
    """Largest one-to-one matching, by trying all of them."""
    if good.shape[0] > good.shape[1]:
        good = good.T
    choices = permutations(range(good.shape[1]), good.shape[0])
    return max(sum(good[i, j] for i, j in enumerate(choice)) for choice in choices)


@settings(max_examples=40, deadline=None)
@given(arrays(np.bool_, (6, 7)), arrays(np.bool_, (6, 7)))
def test_dice_and_iou(a, b):
    both, any_ = (a & b).sum(), (a | b).sum()
    assert iou(a, b) == pytest.approx(both / any_ if any_ else 1)
    assert dice(a, b) == pytest.approx(2 * iou(a, b) / (1 + iou(a, b)))
    assert iou(a, a) == dice(a, a) == boundary_iou(a, a) == 1


def test_masks_of_different_shape_are_refused():
    with pytest.raises(InvalidMaskError, match="one shape"):
        iou(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(InvalidMaskError, match="one image shape"):
        InstanceOverlap.between(np.zeros((2, 2), int), np.zeros((2, 3), int))


def test_boundary_iou_of_squares():
    # The diagonal is 50, so that the band is one pixel wide.
    a, b = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    a[5:15, 5:15] = True
    b[5:15, 6:16] = True
    bands = 9 + 9, 36 + 36  # the two horizontal sides overlap in nine columns
    assert boundary_iou(a, b) == pytest.approx(bands[0] / (bands[1] - bands[0]))
    # The side of the image is outline too, as in the reference implementation.
    full = np.ones((30, 40), bool)
    rim = np.zeros((30, 40), bool)
    rim[[0, -1]] = True
    rim[:, [0, -1]] = True
    assert boundary_iou(full, rim) == 1


@settings(max_examples=40, deadline=None)
@given(arrays(np.bool_, (25, 25)), arrays(np.bool_, (25, 25)), st.floats(0.01, 0.2))
def test_boundary_iou_by_repeated_erosion(a, b, width):
    from scipy.ndimage import binary_erosion

    steps = max(1, round(width * np.hypot(25, 25)))
    bands = [m & ~binary_erosion(m, np.ones((3, 3)), iterations=steps) for m in (a, b)]
    assert boundary_iou(a, b, width) == pytest.approx(iou(*bands))


def test_hand_made_case():
    true = squares((0, 0, 10, 10), (0, 20, 10, 30), (20, 0, 30, 10))
    # Exact, shifted by two of ten columns (IoU 80/120), and one where nothing is.
    predicted = squares((0, 0, 10, 10), (0, 22, 10, 32), (25, 40, 35, 50))
    found = segmentation_accuracy(predicted, true)
    assert found[:4].tolist() == pytest.approx([2 / 4] * 4)  # up to 0.65
    assert found[4:].tolist() == pytest.approx([1 / 5] * 6)
    overlap = InstanceOverlap.between(predicted, true)
    assert overlap.counts(0.5) == (2, 1, 1)
    quality, segmentation, recognition = overlap.panoptic_quality()
    assert segmentation == pytest.approx((1 + 2 / 3) / 2)
    assert recognition == pytest.approx(2 / 3)
    assert quality == pytest.approx(segmentation * recognition)


def test_a_threshold_that_is_met_exactly_counts():
    true, predicted = squares((0, 0, 10, 10)), squares((0, 0, 5, 10))
    assert segmentation_accuracy(predicted, true, [0.5, 0.51]).tolist() == [1, 0]
    shifted = squares((0, 0, 9, 10))
    assert segmentation_accuracy(shifted, true, COCO_THRESHOLDS)[8] == 1  # 0.9


@settings(max_examples=60, deadline=None)
@given(tiny, tiny, st.sampled_from([0.1, 0.25, 0.5, 0.6, 0.75]))
def test_matches_are_as_many_as_possible(predicted, true, threshold):
    overlap = InstanceOverlap.between(predicted, true)
    a, b = MaskSet.from_labels(predicted).masks, MaskSet.from_labels(true).masks
    ratio = np.array([[iou(p, t) for t in b] for p in a]).reshape(len(a), len(b))
    assert overlap.iou.toarray() == pytest.approx(ratio)
    good = ratio >= threshold - 1e-9
    rows, columns = overlap.match(threshold)
    assert good[rows, columns].all()
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows)
    assert len(rows) == (most_pairs(good) if good.size else 0)
    hits = len(rows)
    assert overlap.counts(threshold) == (hits, len(a) - hits, len(b) - hits)


def test_overlapping_masks_are_matched_one_to_one():
    base = squares((0, 0, 10, 10)) > 0
    larger = squares((0, 0, 10, 11)) > 0
    overlap = InstanceOverlap.between(MaskSet.from_masks([base, larger]), base.astype(int))
    assert overlap.counts(0.5) == (1, 1, 0)
    assert overlap.match(0.5)[0].tolist() == [0]


def test_nothing_there_and_nothing_found():
    empty = np.zeros((10, 10), dtype=int)
    assert segmentation_accuracy(empty, empty).tolist() == [1] * 10
    assert InstanceOverlap.between(empty, empty).panoptic_quality() == (1, 1, 1)
    one = squares((0, 0, 3, 3), shape=(10, 10))
    assert segmentation_accuracy(one, empty).tolist() == [0] * 10
    assert segmentation_accuracy(empty, one).tolist() == [0] * 10
    assert InstanceOverlap.between(empty, one).panoptic_quality() == (0, 0, 0)


def test_ignored_places_neither_help_nor_harm():
    true = squares((0, 0, 10, 10), (20, 20, 30, 30))
    predicted = squares((0, 0, 10, 10), (21, 20, 31, 30), (20, 45, 30, 55))
    ignore = np.zeros(true.shape, bool)
    ignore[15:, 18:] = True
    assert InstanceOverlap.between(predicted, true).counts(0.5) == (2, 1, 0)
    overlap = InstanceOverlap.between(predicted, true, ignore)
    assert overlap.counts(0.5) == (1, 0, 0)
    # A match counts even where most of the prediction lies on ignored pixels.
    ignore[:] = False
    ignore[0:10, 0:2] = True
    ignore[0:10, 8:14] = True
    wide = squares((0, 0, 10, 14))
    assert InstanceOverlap.between(wide, true, ignore).counts(0.5)[0] == 1
    assert score_instances(predicted, true, ignore=ignore).n_true == 2


def test_average_precision_is_that_of_pycocotools():
    pytest.importorskip("pycocotools")
    rng = np.random.default_rng(0)
    images = []
    for _ in range(3):
        true = squares(*((y, x, y + 8, x + 8) for y in (2, 14, 26) for x in (3, 15, 27, 39)))
        masks = []
        for label in range(1, 13):
            for _ in range(int(rng.integers(0, 3))):
                masks.append(np.roll(true == label, rng.integers(-3, 4, 2), axis=(0, 1)))
        images.append((MaskSet.from_masks(masks, scores=rng.permutation(len(masks)) / 40), true))
    for threshold in (0.3, 0.5, 0.75):
        overlaps = [InstanceOverlap.between(masks, true) for masks, true in images]
        found = average_precision(overlaps, [masks.scores for masks, _ in images], threshold)
        assert found == pytest.approx(coco_average_precision(images, threshold))


def coco_average_precision(images, threshold):
    """Let pycocotools evaluate the same masks."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = [], []
    for image, (masks, true) in enumerate(images, start=1):
        for crop in MaskSet.from_labels(true).crops:
            entry = {"id": len(truth) + 1, "image_id": image, "category_id": 1, "iscrowd": 0}
            rle = encode_rle(crop, true.shape)
            truth.append({**entry, "area": crop.area, "segmentation": rle, "bbox": [0, 0, 1, 1]})
        for crop, score in zip(masks.crops, masks.scores, strict=True):
            entry = {"image_id": image, "category_id": 1, "score": float(score)}
            found.append({**entry, "segmentation": encode_rle(crop, true.shape)})
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "images": [{"id": i + 1, "height": 40, "width": 60} for i in range(len(images))],
            "annotations": truth,
            "categories": [{"id": 1, "name": "object"}],
        }
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(found), "segm")
        evaluation.params.iouThrs = np.array([threshold])
        evaluation.evaluate()
        evaluation.accumulate()
    return float(evaluation.eval["precision"][0, :, 0, 0, 2].mean())


def test_average_precision_of_easy_cases():
    true = squares((0, 0, 10, 10), (0, 20, 10, 30))
    overlap = InstanceOverlap.between(true, true)
    assert average_precision([overlap], [[0.9, 0.8]]) == 1
    half = InstanceOverlap.between(squares((0, 0, 10, 10)), true)
    assert average_precision([half], [[0.9]]) == pytest.approx(51 / 101)
    assert average_precision([InstanceOverlap.between(true * 0, true)], [[]]) == 0
    assert np.isnan(average_precision([InstanceOverlap.between(true, true * 0)], [[1, 1]]))
    with pytest.raises(InvalidMaskError, match="2 scores"):
        average_precision([overlap], [[1]])


def test_all_figures_together():
    true = squares((0, 0, 10, 10), (0, 20, 10, 30), (20, 0, 30, 10))
    predicted = MaskSet.from_masks(MaskSet.from_labels(true).masks[:2], scores=[0.9, 0.8])
    found = score_instances(predicted, true)
    assert (found.sa50, found.sa75, found.msa) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found.ap50 == pytest.approx(67 / 101)
    assert (found.n_predicted, found.n_true) == (2, 3)
    assert found.count_error == pytest.approx(-1 / 3)
    assert found.d50_error == pytest.approx(0)
    assert found.panoptic_quality == pytest.approx(2 / 2.5)
    doubled = np.kron(true, np.ones((1, 1), int))
    assert np.isnan(score_instances(doubled, true).ap50)


def test_d50_error_compares_median_diameters():
    true = squares((0, 0, 10, 10), (20, 20, 30, 30))
    smaller = squares((0, 0, 5, 10), (20, 20, 25, 30))
    assert score_instances(smaller, true).d50_error == pytest.approx(np.sqrt(0.5) - 1)
