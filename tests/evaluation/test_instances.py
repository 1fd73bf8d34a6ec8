"""Scores of objects over several images, from worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.mask_set import MaskSet
from phasesam.core.metrics import score_instances
from phasesam.evaluation.instances import score_instance_sets


def squares(*places, side=4, shape=(12, 40)) -> np.ndarray:
    labels = np.zeros(shape, np.int32)
    for number, (y, x) in enumerate(places, 1):
        labels[y : y + side, x : x + side] = number
    return labels


TRUTH = squares((1, 1), (1, 11), (1, 21))
TWO_RIGHT = squares((1, 1), (1, 11), (7, 31))
EMPTY = np.zeros_like(TRUTH)


def test_per_image_figures_are_those_of_the_image():
    summary = score_instance_sets([TWO_RIGHT, TRUTH], [TRUTH, TRUTH])
    alone = score_instances(TWO_RIGHT, TRUTH)
    assert summary.images[0].scores.panoptic_quality == alone.panoptic_quality
    np.testing.assert_allclose(summary.values(lambda s: s.sa50), [2 / 4, 1])
    np.testing.assert_allclose(summary.values(lambda s: s.msa), [2 / 4, 1])
    assert summary.mean(lambda s: s.msa).mean == 0.75
    assert summary.mean(lambda s: s.msa).n_units == 2
    assert summary.names == ("1", "2")


def test_pooled_quality_counts_objects_of_all_images_together():
    summary = score_instance_sets([TWO_RIGHT, TRUTH, EMPTY], [TRUTH, TRUTH, TRUTH])
    # Five right with IoU 1, one false, four missed.
    assert summary.panoptic_quality() == pytest.approx(5 / (5 + 0.5 * 5))
    assert summary.count_error() == pytest.approx((6 - 9) / 9)


def test_average_precision_ranks_objects_of_all_images_together():
    first = MaskSet.from_masks([TWO_RIGHT == 1, TWO_RIGHT == 3], scores=[0.9, 0.5])
    second = MaskSet.from_masks([TRUTH == 1, TRUTH == 2], scores=[0.8, 0.4])
    summary = score_instance_sets([first, second], [TRUTH, TRUTH])
    # Right, right, wrong, right of six: precision 1 up to recall 2/6, then 3/4 up to 3/6.
    recalls = np.linspace(0, 1, 101)
    expected = np.where(recalls <= 2 / 6, 1, np.where(recalls <= 3 / 6, 3 / 4, 0)).mean()
    assert summary.average_precision() == pytest.approx(expected)
    # The false one ranks behind in its own image.
    assert summary.images[0].scores.ap50 == pytest.approx(np.mean(recalls <= 1 / 3))


def test_label_images_have_average_precision_only_with_scores():
    assert math.isnan(score_instance_sets([TRUTH], [TRUTH]).average_precision())
    given = score_instance_sets([TRUTH], [TRUTH], confidences=[[0.3, 0.2, 0.1]])
    assert given.average_precision() == 1
    # Nothing found needs no scores.
    mixed = score_instance_sets([MaskSet(shape=TRUTH.shape)], [TRUTH])
    assert mixed.average_precision() == 0


def test_sizes_of_all_objects():
    large = squares((1, 1), (1, 21), side=8)
    summary = score_instance_sets([large, TRUTH], [TRUTH, TRUTH])
    unit = math.sqrt(4 / math.pi)
    predicted, true = summary.diameters()
    np.testing.assert_allclose(true, [4 * unit] * 3)
    np.testing.assert_allclose(predicted, [4 * unit, 4 * unit, 8 * unit])
    assert summary.d50_error() == pytest.approx(0)
    alone = score_instance_sets([large], [TRUTH])
    assert alone.d50_error() == pytest.approx(1)


def test_an_image_without_objects():
    right, wrong = score_instance_sets([EMPTY], [EMPTY]), score_instance_sets([TRUTH], [EMPTY])
    assert right.mean(lambda s: s.msa).mean == 1
    assert wrong.mean(lambda s: s.msa).mean == 0
    assert right.panoptic_quality() == 1
    assert wrong.panoptic_quality() == 0
    assert math.isnan(right.count_error())
    assert right.mean(lambda s: s.count_error).n_units == 0


def test_unlabelled_areas_of_the_truth_do_not_count():
    truth = TRUTH.copy()
    truth[6:, :] = -1
    summary = score_instance_sets([TWO_RIGHT], [truth])
    # The false object lies where nothing is known.
    assert summary.images[0].scores.sa50 == pytest.approx(2 / 3)
    assert summary.count_error() == pytest.approx((2 - 3) / 3)
    np.testing.assert_allclose(summary.diameters()[0], [4 * math.sqrt(4 / math.pi)] * 3)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidMaskError, match=r"^powder: .*shape"):
        score_instance_sets([TRUTH[:5]], [TRUTH], names=["powder"])
    with pytest.raises(InvalidSettingError, match="got 2, 1"):
        score_instance_sets([TRUTH, TRUTH], [TRUTH])
    with pytest.raises(InvalidSettingError, match="at least one image"):
        score_instance_sets([], [])
