"""How many pixels a request changes at least, and how far shares stay from what is wanted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from phasesam.core.ratio import RatioSolver
from phasesam.core.ratio_regularity import reluctant
from phasesam.core.ratio_request import RatioRequest

SIDE = 24


def some_request(rng, n_classes):
    """Shares that can be had: exact, within a range, unknown, uncertain."""
    true = rng.dirichlet(np.ones(n_classes))
    kinds = rng.choice(["exact", "range", "free", "unsure"], n_classes)
    # So that what is left over can go somewhere.
    kinds[rng.integers(n_classes)] = "free"
    wanted, errors = [], []
    for share, kind in zip(true, kinds, strict=True):
        low, high = share * rng.uniform(0.5, 1), min(1.0, share * rng.uniform(1, 1.5))
        wanted.append({"range": (low, high), "free": None}.get(kind, float(share)))
        errors.append(0.05 if kind == "unsure" else 0.0)
    return wanted, errors


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_it_is_what_fewest_changes_needs(seed, n_classes):
    rng = np.random.default_rng(seed)
    solver = RatioSolver(rng.normal(size=(n_classes, SIDE, SIDE)) * rng.uniform(0.5, 5))
    wanted, errors = some_request(rng, n_classes)
    found = reluctant(solver).solve(wanted, errors)
    # Uncertain shares yield as the most likely map says, whoever changes pixels.
    likely = solver.solve(wanted, errors)
    least = RatioRequest(wanted, errors).least_change(solver.fractions, likely.achieved)
    changed = float((found.labels != solver.own).mean())
    assert changed == pytest.approx(least, abs=n_classes / SIDE**2)


def test_by_hand():
    own = [0.5, 0.3, 0.2]
    assert RatioRequest([0.1, None, 0.6]).least_change(own, own) == pytest.approx(0.4)
    assert RatioRequest([0.5, (0.0, 0.1), None]).least_change(own, own) == pytest.approx(0.2)
    assert RatioRequest([None, None, None]).least_change(own, own) == 0
    unsure = RatioRequest([0.9, None, None], [0.1, None, None])
    assert unsure.least_change(own, [0.6, 0.2, 0.2]) == pytest.approx(0.1)


def test_standard_errors():
    request = RatioRequest([0.5, 0.3, None], [0.1, None, 0.1])
    assert_allclose(request.standard_errors_off([0.25, 0.1, 0.65]), [2.5, 0, 0])
    # What whole pixels do is no disagreement.
    exact = RatioRequest([0.3001, None], [1e-4, None])
    assert_allclose(exact.standard_errors_off([0.3006, 0.6994]), [0, 0])
