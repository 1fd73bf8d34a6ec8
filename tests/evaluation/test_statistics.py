"""Bootstrap intervals and paired tests against worked examples, simulation and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from phasesam.core.errors import InvalidSettingError
from phasesam.evaluation.statistics import bootstrap_interval, paired_difference

numbers = st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=12)


def test_one_unit_has_a_mean_and_no_interval():
    interval = bootstrap_interval([0.8])
    assert interval.mean == 0.8
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert not interval.is_known
    assert interval.text() == "0.800 [–]"


def test_many_objects_of_one_image_are_one_unit():
    interval = bootstrap_interval([0.5, 0.7, 0.9], groups=["a", "a", "a"])
    assert (interval.mean, interval.n_units, interval.n_values) == (pytest.approx(0.7), 1, 3)
    assert not interval.is_known


def test_nothing_gives_nothing():
    assert bootstrap_interval([]).text() == "–"
    assert bootstrap_interval([np.nan, np.nan]).n_units == 0
    assert math.isnan(paired_difference([], []).p_value)


def test_equal_values_scatter_not_at_all():
    interval = bootstrap_interval([0.25] * 5)
    assert (interval.mean, interval.low, interval.high) == (0.25, 0.25, 0.25)


def test_missing_values_do_not_count():
    known = bootstrap_interval([0.2, 0.4, 0.6])
    assert bootstrap_interval([0.2, np.nan, 0.4, 0.6]) == known
    grouped = bootstrap_interval([0.2, np.nan, 0.4, 0.6], groups=["a", "x", "b", "c"])
    assert grouped == known


def test_mean_is_over_values_not_over_units():
    interval = bootstrap_interval([1.0, 1.0, 1.0, 0.0], groups=[7, 7, 7, 8])
    assert interval.mean == 0.75
    assert (interval.n_units, interval.n_values) == (2, 4)


def test_two_units_by_hand():
    # Draws of two units give means 0, 0.5 or 1 with shares 1/4, 1/2, 1/4: the quantiles at
    # 2.5 and 97.5 % deviate by 0.5, which is widened by sqrt(2) and t(1 degree) / z.
    widened = 0.5 * math.sqrt(2) * stats.t.ppf(0.975, 1) / stats.norm.ppf(0.975)
    interval = bootstrap_interval([0.0, 1.0])
    assert interval.low == pytest.approx(0.5 - widened)
    assert interval.high == pytest.approx(0.5 + widened)
    assert bootstrap_interval([0.0, 1.0], bounds=(0, 1)).text(1) == "0.5 [0.0, 1.0]"


def test_agrees_with_students_t_for_normal_values():
    values = np.random.default_rng(4).normal(0.7, 0.1, 40)
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    interval = bootstrap_interval(values, n_resamples=20_000)
    assert interval.low == pytest.approx(low, abs=0.003)
    assert interval.high == pytest.approx(high, abs=0.003)


@pytest.mark.parametrize("n", [3, 8])
def test_intervals_hold_the_true_mean_as_often_as_they_say(n):
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        interval = bootstrap_interval(rng.normal(size=n), n_resamples=400)
        held += interval.low <= 0 <= interval.high
    # 95 % of 400, give or take three standard deviations.
    assert 0.91 <= held / 400 <= 0.985


def test_clusters_of_like_objects_are_not_taken_for_many_samples():
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(6), 50)
    values = rng.normal(0, 0.1, 6)[images] + rng.normal(0, 0.01, 300)
    wide, narrow = bootstrap_interval(values, images), bootstrap_interval(values)
    assert wide.mean == pytest.approx(narrow.mean)
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


@settings(deadline=None, max_examples=25)
@given(numbers, st.floats(-2, 2), st.floats(0.1, 3))
def test_intervals_move_and_stretch_with_the_values(values, shift, factor):
    array = np.array(values, np.float64)
    plain = bootstrap_interval(array, n_resamples=50)
    moved = bootstrap_interval(array * factor + shift, n_resamples=50)
    assert moved.low == pytest.approx(plain.low * factor + shift, abs=1e-9)
    assert moved.high == pytest.approx(plain.high * factor + shift, abs=1e-9)
    assert plain.low <= plain.mean + 1e-12
    assert plain.high >= plain.mean - 1e-12


@settings(deadline=None, max_examples=25)
@given(numbers)
def test_a_difference_turns_its_sign_with_the_order(values):
    first, second = np.array(values), np.array(values)[::-1] ** 2
    forth, back = paired_difference(first, second), paired_difference(second, first)
    assert forth.interval.mean == pytest.approx(-back.interval.mean)
    assert forth.p_value == back.p_value


def test_pairing_removes_what_images_have_in_common():
    base = np.array([0.3, 0.5, 0.7, 0.9])
    better = base + np.array([0.05, 0.06, 0.05, 0.06])
    difference = paired_difference(base, better)
    assert difference.interval.mean == pytest.approx(0.055)
    assert difference.is_better
    assert not paired_difference(better, base).is_better
    assert difference.interval.text(3, sign=True).startswith("+0.055 [+0.0")
    # All four signs alike: two of sixteen arrangements are as extreme.
    assert difference.p_value == pytest.approx(2 / 16)


def test_pairs_without_one_partner_are_left_out():
    difference = paired_difference([0.1, np.nan, 0.3], [0.2, 0.9, 0.4])
    assert difference.interval.n_units == 2
    assert difference.interval.mean == pytest.approx(0.1)


def test_exact_sign_flips_agree_with_scipy():
    difference = np.array([0.3, -0.1, 0.25, 0.4, 0.05, -0.02, 0.2])
    expected = stats.permutation_test(
        (difference, np.zeros(7)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert paired_difference(np.zeros(7), difference).p_value == pytest.approx(expected.pvalue)


def test_many_units_are_flipped_at_random():
    rng = np.random.default_rng(0)
    base = rng.normal(size=30)
    assert paired_difference(base, base + 0.5).p_value < 0.001
    assert paired_difference(base, rng.normal(size=30)).p_value > 0.05


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidSettingError, match="3 and 2"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(InvalidSettingError, match="one group per value, got 1 for 2"):
        bootstrap_interval([1, 2], groups=["a"])
    with pytest.raises(InvalidSettingError, match="confidence"):
        bootstrap_interval([1, 2], confidence=95)
