"""Scores of phase maps against counting by hand and the metrics of single masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from phasesam.core import metrics
from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.evaluation.phase_maps import score_phase_map, score_phase_maps

TRUTH = np.array(
    [
        [0, 0, 0, 0],
        [0, 1, 1, 0],
        [0, 1, 1, -1],
        [0, 0, 2, -1],
    ]
)
PREDICTED = np.array(
    [
        [0, 0, 0, 0],
        [0, 1, 0, 0],
        [1, 1, 1, 2],
        [0, 0, 0, 2],
    ]
)


def test_by_hand():
    scores = score_phase_map(PREDICTED, TRUTH, 3)
    np.testing.assert_array_equal(scores.confusion, [[8, 1, 0, 0], [1, 3, 0, 0], [1, 0, 0, 0]])
    assert scores.n_pixels == 14
    np.testing.assert_allclose(scores.iou, [8 / 11, 3 / 5, 0])
    np.testing.assert_allclose(scores.dice, [16 / 19, 6 / 8, 0])
    assert scores.mean_iou == pytest.approx((8 / 11 + 3 / 5) / 3)
    assert scores.mean_dice == pytest.approx((16 / 19 + 6 / 8) / 3)
    assert scores.accuracy == pytest.approx(11 / 14)
    np.testing.assert_allclose(scores.true_fractions, [9 / 14, 4 / 14, 1 / 14])
    np.testing.assert_allclose(scores.fraction_errors, [1 / 14, 0, -1 / 14])
    np.testing.assert_allclose(scores.specificity, [3 / 5, 9 / 10, 1])


def test_what_is_absent_from_both_does_not_count():
    truth = np.where(TRUTH == 2, 0, TRUTH)
    absent = score_phase_map(np.where(truth < 0, 0, truth), truth, 3)
    np.testing.assert_array_equal(absent.iou, [1, 1, np.nan])
    np.testing.assert_array_equal(absent.boundary_iou, [1, 1, np.nan])
    assert absent.mean_iou == 1
    np.testing.assert_array_equal(absent.fraction_errors, [0, 0, 0])


def test_what_only_the_prediction_holds_is_a_failure():
    truth = np.zeros((4, 4), int)
    predicted = truth.copy()
    predicted[0, 0] = 1
    scores = score_phase_map(predicted, truth, 2)
    np.testing.assert_allclose(scores.iou, [15 / 16, 0])
    np.testing.assert_array_equal(scores.present, [True, False])
    # The mean is over classes of the truth; the superfluous pixel costs the background.
    assert scores.mean_iou == pytest.approx(15 / 16)
    np.testing.assert_allclose(scores.specificity, [np.nan, 15 / 16])


def test_no_class_is_wrong_for_the_true_one_only():
    predicted = PREDICTED.copy()
    predicted[0] = -1
    scores = score_phase_map(predicted, TRUTH, 3)
    np.testing.assert_array_equal(scores.confusion[:, 3], [4, 0, 0])
    np.testing.assert_allclose(scores.iou, [4 / 11, 3 / 5, 0])
    np.testing.assert_allclose(scores.fraction_errors, [-3 / 14, 0, -1 / 14])


masks = arrays.arrays(np.int8, (9, 13), elements=st.integers(0, 2))


@settings(deadline=None, max_examples=30)
@given(masks, masks)
def test_equals_the_metrics_of_each_class_alone(predicted, truth):
    scores = score_phase_map(predicted, truth, 3)
    for c in range(3):
        found, wanted = predicted == c, truth == c
        if not (found | wanted).any():
            assert math.isnan(scores.iou[c])
            continue
        assert scores.iou[c] == pytest.approx(metrics.iou(found, wanted))
        assert scores.dice[c] == pytest.approx(metrics.dice(found, wanted))
        assert scores.boundary_iou[c] == pytest.approx(metrics.boundary_iou(found, wanted))


@settings(deadline=None, max_examples=30)
@given(masks, masks, masks)
def test_unlabelled_pixels_never_matter(predicted, truth, other):
    truth = np.where(other == 2, -1, truth)
    if (truth == -1).all():
        return
    changed = np.where(truth == -1, other, predicted)
    first, second = (score_phase_map(p, truth, 3) for p in (predicted, changed))
    np.testing.assert_array_equal(first.confusion, second.confusion)
    np.testing.assert_array_equal(first.boundary_iou, second.boundary_iou)


def test_the_rim_of_an_unlabelled_area_is_no_outline():
    truth = np.zeros((60, 60), int)
    truth[:, 30:] = 1
    predicted = truth.copy()
    predicted[:, 29] = 1
    truth[20:40, 40:55] = -1
    plain = score_phase_map(predicted, np.where(truth < 0, 1, truth), 2)
    assert score_phase_map(predicted, truth, 2).boundary_iou[1] == plain.boundary_iou[1]


def test_pooled_figures_add_up_pixels_first():
    truth = [np.array([[0, 1, 1, 1]]), np.array([[0, 0, 0, 0]])]
    predicted = [np.array([[0, 1, 1, 0]]), np.array([[0, 0, 0, 1]])]
    summary = score_phase_maps(predicted, truth, ["matrix", "pore"])
    np.testing.assert_allclose(summary.pooled_iou, [4 / 6, 2 / 4])
    np.testing.assert_allclose(summary.pooled_dice, [8 / 10, 4 / 6])
    assert summary.pooled_mean_iou == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert summary.pooled_mean_dice == pytest.approx((8 / 10 + 4 / 6) / 2)
    assert summary.names == ("1", "2")

    positive, specific = summary.iou_on_positive_images(), summary.specificity_on_empty_images()
    assert (positive[1].mean, positive[1].n_units) == (pytest.approx(2 / 3), 1)
    assert (specific[1].mean, specific[1].n_units) == (pytest.approx(3 / 4), 1)
    # The matrix is in every image.
    assert specific[0].n_units == 0
    assert summary.per_class(lambda s: s.iou)[1].mean == pytest.approx((2 / 3 + 0) / 2)
    assert summary.mean(lambda s: s.mean_iou).mean == pytest.approx(
        ((1 / 2 + 2 / 3) / 2 + 3 / 4) / 2
    )


def test_phase_fraction_errors():
    truth = [np.array([[0, 1, 1, 1]]), np.array([[0, 0, 0, 0]])]
    predicted = [np.array([[0, 1, 1, 0]]), np.array([[0, 0, 0, 1]])]
    summary = score_phase_maps(predicted, truth, 2)
    assert summary.fraction_bias()[1].mean == 0
    assert summary.fraction_error()[1].mean == 0.25
    np.testing.assert_array_equal(summary.worst_fraction_error(), [0.25, 0.25])


def test_an_empty_image_does_not_make_a_rare_class_look_good():
    """Nine images without the class and one where it is missed: 0, not 0.9."""
    blank, crack = np.zeros((5, 5), int), np.eye(5, dtype=int)
    summary = score_phase_maps([blank] * 10, [blank] * 9 + [crack], 2)
    assert summary.per_class(lambda s: s.iou)[1].mean == 0
    assert summary.pooled_iou[1] == 0


def test_images_of_a_specimen_are_one_unit():
    maps = [np.zeros((3, 3), int)] * 3
    summary = score_phase_maps(maps, maps, 1, groups=["a", "a", "b"])
    assert summary.mean(lambda s: s.accuracy).n_units == 2


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidMaskError, match="one shape"):
        score_phase_map(TRUTH[:2], TRUTH, 3)
    with pytest.raises(InvalidMaskError, match="true classes from 0 to 1 or -1, got -1 to 2"):
        score_phase_map(np.zeros_like(TRUTH), TRUTH, 2)
    with pytest.raises(InvalidMaskError, match="predicted classes from 0 to 1"):
        score_phase_map(PREDICTED, TRUTH, 2)
    with pytest.raises(InvalidMaskError, match="labelled pixels"):
        score_phase_map(PREDICTED, np.full((4, 4), -1), 3)
    with pytest.raises(InvalidMaskError, match="integers"):
        score_phase_map(PREDICTED.astype(float), TRUTH, 3)
    with pytest.raises(InvalidMaskError, match=r"^b: "):
        score_phase_maps([TRUTH, PREDICTED], [TRUTH, TRUTH[:1]], 3, names=["a", "b"])
    with pytest.raises(InvalidSettingError, match="got 1 and 2"):
        score_phase_maps([TRUTH], [TRUTH, TRUTH], 3)
    with pytest.raises(InvalidSettingError, match="at least one image"):
        score_phase_maps([], [], 3)


def test_a_class_without_an_outline_to_judge_does_not_void_the_mean():
    truth = np.full((20, 20), -1)
    truth[2:8], truth[12:18] = 0, 1
    truth[9, 9] = 2  # labelled, but nothing beside it
    score = score_phase_map(truth.clip(0), truth, 3)
    assert np.isfinite(score.mean_boundary_iou)
    judged = score.boundary_iou[~np.isnan(score.boundary_iou)]
    assert score.mean_boundary_iou == pytest.approx(judged.mean())
