from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.ratio_hints import completed, noisy_fractions

parts = st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda x: sum(x) > 0.1)


@settings(max_examples=80, deadline=None)
@given(parts, st.lists(st.floats(0, 0.5), min_size=6, max_size=6), st.integers(0, 2**31))
def test_noisy_fractions_add_up(shares, errors, seed):
    true = np.array(shares) / sum(shares)
    drawn = noisy_fractions(true, np.array(errors[: len(true)]), np.random.default_rng(seed))
    assert drawn.sum() == pytest.approx(1)
    assert drawn.min() >= 0


def test_equal_errors_keep_their_size_and_have_no_bias():
    true, rng = np.array([0.4, 0.35, 0.25]), np.random.default_rng(0)
    drawn = np.array([noisy_fractions(true, np.full(3, 0.05), rng) for _ in range(4000)])
    np.testing.assert_allclose(drawn.mean(0), true, atol=4e-3)
    np.testing.assert_allclose((drawn - true).std(0), 0.05, rtol=0.06)


def test_what_is_exact_stays_exact():
    true, rng = np.array([0.5, 0.3, 0.2]), np.random.default_rng(0)
    np.testing.assert_allclose(noisy_fractions(true, np.zeros(3), rng), true)
    # One uncertain share among exact ones is what these leave.
    np.testing.assert_allclose(noisy_fractions(true, np.array([0, 0.1, 0]), rng), true)
    drawn = noisy_fractions(true, np.array([0, 0.05, 0.05]), rng)
    assert drawn[0] == pytest.approx(0.5)
    assert drawn[1] != pytest.approx(0.3, abs=1e-6)


def test_the_only_unknown_share_is_what_the_others_leave():
    shares, errors = completed(np.array([0.5, np.nan, 0.2]), np.array([0.03, 0.9, 0.04]))
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2])
    np.testing.assert_allclose(errors, [0.03, math.hypot(0.03, 0.04), 0.04])
    shares, errors = completed(np.array([0.5, np.nan, np.nan]), np.array([0.03, 0.9, 0.04]))
    np.testing.assert_array_equal(shares, [0.5, np.nan, np.nan])
    np.testing.assert_allclose(errors, [0.03, 0, 0])
    # Rounded shares may leave less than nothing.
    assert completed(np.array([0.7, 0.301, np.nan]), np.zeros(3))[0][2] == 0
