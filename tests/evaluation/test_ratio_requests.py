from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.errors import InvalidSettingError, TrainingDataError
from phasesam.evaluation.phase_maps import score_phase_map
from phasesam.evaluation.ratio_requests import (
    WRONG,
    off_by,
    oracle_dice,
    refuse_unlabelled,
    shifted,
    swapped,
    zeroed,
)
from phasesam.training.dataset import from_arrays

fractions = st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda x: sum(x) > 0.1)


@settings(max_examples=80, deadline=None)
@given(fractions, st.floats(0.001, 0.5), st.integers(0, 2**31))
def test_all_requests_add_up(parts, error, seed):
    true = np.array(parts) / sum(parts)
    asked = [change(true) for change in WRONG.values()]
    asked.append(off_by(true, error, np.random.default_rng(seed)))
    for wanted in asked:
        assert wanted.sum() == pytest.approx(1)
        assert wanted.min() >= 0
    assert asked[0] is not true


def test_wrong_requests_are_those_they_are_called():
    true = np.array([0.1, 0.7, 0.2])
    np.testing.assert_allclose(swapped(true), [0.1, 0.2, 0.7])
    np.testing.assert_allclose(shifted(true), [0.1, 0.5, 0.4])
    np.testing.assert_allclose(zeroed(true), [0, 7 / 9, 2 / 9])
    np.testing.assert_allclose(zeroed(np.array([0, 1.0])), [0, 1])
    np.testing.assert_allclose(shifted(np.array([1.0, 0])), [0.8, 0.2])


def test_requests_are_off_by_their_error():
    true, rng = np.array([0.4, 0.35, 0.25]), np.random.default_rng(0)
    drawn = np.array([off_by(true, 0.05, rng) for _ in range(4000)])
    np.testing.assert_allclose(drawn.mean(0), true, atol=4e-3)
    spread = math.sqrt(np.square(drawn - true).mean())
    assert spread == pytest.approx(0.05, rel=0.05)


def test_the_oracle_is_the_best_of_all_maps():
    """Every labelling of six pixels, in three classes."""
    truth = np.array([[0, 0, 0, 1, 1, 2]])
    best: dict[tuple[int, ...], float] = {}
    for labels in itertools.product(range(3), repeat=6):
        found = np.array([labels])
        amounts = tuple(np.bincount(labels, minlength=3).tolist())
        best[amounts] = max(best.get(amounts, 0), score_phase_map(found, truth, 3).mean_dice)
    true = np.bincount(truth[0], minlength=3) / 6
    for amounts, dice in best.items():
        assert oracle_dice(true, np.array(amounts) / 6) == pytest.approx(dice)


def test_absent_classes_do_not_count():
    assert oracle_dice(np.array([1.0, 0]), np.array([0.5, 0.5])) == pytest.approx(2 / 3)
    with pytest.raises(InvalidSettingError, match=r"\(2,\) fractions"):
        oracle_dice(np.array([1.0, 0]), np.array([1.0]))


def test_images_without_a_true_ratio_are_named():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    labels = np.zeros((8, 8), np.int32)
    labels[4:] = 1
    blank = np.full((8, 8), -1, np.int32)
    items = [(name, image, of, None) for name, of in (("a", labels), ("b", blank), ("c", labels))]
    data = from_arrays(items, "semantic", classes={0: "matrix", 1: "pore"})
    refuse_unlabelled([i for i in data.images if i.name != "b"], data.classes)
    with pytest.raises(TrainingDataError, match=r"^b: expected labelled pixels.* matrix, pore"):
        refuse_unlabelled(data.images, data.classes)
