"""Requests and logits that are rare, and must be met all the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog

from phasesam.core import ratio_bias, ratio_volume
from phasesam.core.errors import InvalidImageError, InvalidSettingError
from phasesam.core.ratio import RatioSolver, solve
from phasesam.core.ratio_bias import Pixels, find_bias, tie_of
from phasesam.core.ratio_regularity import reluctant, smooth_logits, solve_without_specks
from phasesam.core.ratio_request import RatioRequest
from phasesam.core.ratio_volume import solve_volume


def off_by(labels, wanted):
    counts = np.bincount(labels.ravel(), minlength=len(wanted))
    return np.abs(counts - np.asarray(wanted) * labels.size).max()


def cheapest(z, low, high):
    """Least cost of any labelling of (K, n) with amounts in these limits, by linear programming."""
    k, n = z.shape
    each = np.tile(np.eye(n), k)
    of_class = np.repeat(np.eye(k), n, axis=1)
    found = linprog(
        (z.max(0) - z).reshape(-1), np.r_[of_class, -of_class], np.r_[high, -low], each, np.ones(n)
    )
    assert found.status == 0
    return found.fun / n


# Pixels thought to be settled gave some classes more than was wanted of them.
@pytest.mark.parametrize("seed", [1_000_271, 1_000_773, 1_001_342, 1_002_355])
def test_rare_classes_of_skewed_requests(seed):
    rng = np.random.default_rng(seed)
    n_classes, n, rounded = int(rng.integers(4, 9)), int(rng.integers(9000, 16000)), rng.random()
    z = rng.normal(size=(n_classes, n)) * rng.choice([0.3, 1, 3, 10])
    solver = RatioSolver(np.round(z, 1) if rounded < 0.5 else z)
    wanted = rng.dirichlet(np.full(n_classes, 0.2))
    for one in (solver, reluctant(solver)):
        assert off_by(one.solve(wanted.tolist()).labels, wanted) < 1 + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([0.05, 0.2, 1.0]))
def test_amounts_of_many_pixels_are_met(seed, rounded, concentration):
    rng = np.random.default_rng(seed)
    n_classes = int(rng.integers(2, 9))
    z = rng.normal(size=(n_classes, int(rng.integers(9000, 20000)))) * rng.choice([0.3, 3])
    wanted = rng.dirichlet(np.full(n_classes, concentration))
    solution = solve(np.round(z, 1) if rounded else z, wanted.tolist())
    assert off_by(solution.labels, wanted) < 1 + 1e-6


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 0, 1]))
def test_numbers_ranges_and_unknowns_cost_least_and_are_met(seed, decimals):
    rng = np.random.default_rng(seed)
    n_classes, n = int(rng.integers(2, 7)), int(rng.integers(2, 60))
    z = rng.normal(size=(n_classes, n))
    z = z if decimals is None else np.round(z, decimals)
    wanted = [
        [float(v), (max(0.0, v - 0.1 * rng.random()), min(1.0, v + 0.1 * rng.random())), None][
            int(rng.integers(3))
        ]
        for v in rng.dirichlet(np.full(n_classes, 1.0))
    ]
    solution = solve(z, wanted)
    counts = np.bincount(solution.labels, minlength=n_classes)
    for count, share in zip(counts, wanted, strict=True):
        low, high = (0, 1) if share is None else share if isinstance(share, tuple) else (share,) * 2
        assert low * n - 1 - 1e-6 < count < high * n + 1 + 1e-6
    amounts = RatioRequest(wanted).amounts(n)
    assert solution.cost == pytest.approx(cheapest(z, amounts.low, amounts.high), abs=1e-5)


def test_ranges_of_tied_pixels_are_met_at_the_nearer_end():
    some = np.arange(5000) < 1000
    z = np.stack([some, ~some]).astype(float)
    assert solve(z, [(0.0, 0.1), None]).achieved[0] == 0.1
    assert solve(z, [(0.3, 0.9), None]).achieved[0] == 0.3
    assert solve(z, [(0.1, 0.9), None]).changed == 0


@pytest.mark.parametrize("scale", [1e-3, 1e3, 1e8, 1e30])
def test_the_unit_of_logits_does_not_matter(scale):
    z = np.random.default_rng(0).normal(size=(3, 80, 90)) * 30
    plain, scaled = solve(z, [0.6, 0.3, 0.1]), solve(z * scale, [0.6, 0.3, 0.1])
    assert (plain.labels != scaled.labels).sum() <= 2
    assert scaled.cost == pytest.approx(plain.cost * scale, rel=1e-4)
    assert solve(z * scale, [None] * 3).changed == 0
    assert_array_equal(solve(z + 1e9, [0.6, 0.3, 0.1]).labels, plain.labels)


def test_differences_beyond_what_numbers_can_tell():
    solution = solve(np.array([[1e300] * 9 + [0], [0] * 9 + [1e300]]), [0.5, 0.5])
    assert_array_equal(solution.labels, [*solution.labels[:9], 1])
    assert np.count_nonzero(solution.labels) == 5


def test_barred_classes_are_taken_only_where_there_is_no_other_way():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3, 40, 40))
    z[0, :20] = -np.inf
    for solver in (RatioSolver(z), reluctant(RatioSolver(z))):
        assert (solver.solve([0.45, 0.3, 0.25]).labels[:20] > 0).all()
        labels = solver.solve([0.6, 0.2, 0.2]).labels
        assert (labels == 0).sum() == 960
        assert (labels[20:] == 0).all()


def test_what_is_no_number_is_refused():
    with pytest.raises(InvalidImageError, match="real numbers, got complex"):
        solve(np.zeros((2, 4, 4), complex), [0.5, 0.5])
    for wrong in ("abc", ["a", "b"], [0.1], object()):
        with pytest.raises(InvalidSettingError, match="standard error"):
            solve(np.zeros((2, 4, 4)), [0.5, 0.5], wrong)
    for right in (np.float32(0.05), np.array(0.05), np.int64(0), np.array([0, 0.05])):
        assert solve(np.zeros((2, 4, 4)), [0.5, 0.5], right).achieved[0] == 0.5


def test_a_margin_needs_the_regions_it_was_solved_with():
    solver = RatioSolver(np.random.default_rng(0).normal(size=(2, 8, 8)))
    regions = np.ones((8, 8), int)
    with pytest.raises(InvalidSettingError, match="expected the regions"):
        solver.margin(solver.solve({1: [0.5, 0.5]}, regions=regions))
    with pytest.raises(InvalidSettingError, match="none"):
        solver.margin(solver.solve([0.5, 0.5]), regions)


def test_rounding_to_per_cent_and_ranges_that_just_meet():
    assert RatioRequest([0.33, 0.33, 0.33]).fractions == pytest.approx((1 / 3,) * 3)
    assert RatioRequest([0.17] * 6).fractions == pytest.approx((1 / 6,) * 6)
    for few in ([0.331, 0.33, 0.33], [0.3, 0.3, 0.38], [0.0] * 250):
        with pytest.raises(InvalidSettingError, match="add up to"):
            RatioRequest(few)
    short = RatioRequest([(0.1, 0.4), 0.397, 0.2])
    assert short.fractions[0] == (0.1, pytest.approx(0.4 / 0.997))
    assert sum((short.fractions[0][1], *short.fractions[1:])) == pytest.approx(1)
    # 4.73, at most 4.77 and 3.67 of 13 pixels.
    amounts = RatioRequest([0.364, (0.258, 0.367), 0.282]).amounts(13)
    assert (amounts.high <= [5, 5, 4]).all()
    assert amounts.low.sum() <= 13 <= amounts.high.sum()


@pytest.mark.parametrize("error", [0.02, 0.05, 0.1])
def test_few_changes_yield_as_much_as_the_image_says(error):
    solver = RatioSolver(np.random.default_rng(1).normal(size=(3, 60, 60)) * 3)
    wanted, other = [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]
    likely, fewest = solver.solve(wanted, error), reluctant(solver).solve(wanted, error)
    assert_allclose(fewest.achieved, likely.achieved, atol=1e-9)
    assert fewest.changed <= likely.changed
    regions = np.repeat([1, 2], 30)[:, None] * np.ones(60, int)
    asked, errors = {1: wanted, 2: other}, {1: error, 2: None}
    for number in asked:
        found = [
            np.bincount(s.solve(asked, errors, regions).labels[regions == number], minlength=3)
            for s in (solver, reluctant(solver))
        ]
        assert_array_equal(*found)


def test_specks_and_uncertain_shares_together():
    solver = RatioSolver(np.random.default_rng(1).normal(size=(3, 60, 60)))
    wanted = [0.6, 0.3, 0.1]
    likely = solver.solve(wanted, 0.05)
    solution = solve_without_specks(solver, wanted, 0.05, smallest=3)
    assert_allclose(solution.achieved, likely.achieved, atol=1e-9)


def test_specks_that_are_left_are_counted():
    noise = RatioSolver(np.random.default_rng(0).normal(size=(3, 64, 64)))
    wanted = [0.34, 0.33, 0.33]
    assert solve_without_specks(noise, wanted, smallest=500).specks > 0
    assert noise.solve(wanted).specks == 0
    halves = RatioSolver(np.stack([np.linspace(-1, 1, 4096).reshape(64, 64)] * 2) * [[[1]], [[-1]]])
    assert solve_without_specks(halves, [0.4, 0.6], smallest=500).specks == 0


def test_smoothing_does_not_spread_what_is_no_number():
    rng = np.random.default_rng(0)
    z, image = rng.normal(size=(2, 40, 40)).astype(np.float32), rng.random((40, 40))
    image[5, 5], z[1, 20, 20] = np.nan, -np.inf
    smooth = smooth_logits(z, image)
    assert np.isneginf(smooth[1, 20, 20])
    smooth[1, 20, 20] = 0
    assert np.isfinite(smooth).all()
    same = smooth_logits(z, image, radius=0)
    assert_array_equal(same, z)
    assert same is not z
    with pytest.raises(InvalidSettingError, match=r"whole.*2\.5"):
        smooth_logits(z, image, radius=2.5)


def test_two_large_classes_do_not_keep_small_ones_waiting():
    rng = np.random.default_rng(199)
    z = rng.normal(size=(5, 4096)) * 10
    z[0] += rng.integers(0, 6, size=4096) * 5
    amounts = RatioRequest(rng.dirichlet(np.full(5, 0.1)).tolist()).amounts(4096)
    none = np.zeros(5, np.int64)
    bias = find_bias(Pixels(z, none), amounts, np.zeros(5))
    most, least = ratio_bias._won(z + bias[:, None], none, tie_of(bias))
    assert (most >= amounts.low).all()
    assert (least <= amounts.high).all()


@pytest.mark.parametrize("shift", [0.0, 1e5])
def test_stacks_of_ties_end(monkeypatch, shift):
    monkeypatch.setattr(ratio_volume, "_SAMPLE", 2048)
    monkeypatch.setattr(ratio_volume, "_MOST_OPEN", 4096)
    reads, labels = [], {}
    flat = [np.full((3, 64, 64), shift)] * 4
    found = solve_volume(
        flat, [0.2, 0.3, 0.5], write=labels.__setitem__, progress=lambda i, n: reads.append(i)
    )
    assert_allclose(found.achieved, [0.2, 0.3, 0.5], atol=1e-4)
    assert len(reads) < 150


@pytest.mark.parametrize("seed", range(12))
def test_stacks_with_rare_classes_and_little_memory(monkeypatch, seed):
    monkeypatch.setattr(ratio_volume, "_SAMPLE", 2048)
    monkeypatch.setattr(ratio_volume, "_MOST_OPEN", 4096)
    rng = np.random.default_rng(seed)
    n_classes = int(rng.integers(3, 6))
    first = np.eye(n_classes, 1)[..., None]
    slices = [
        rng.normal(size=(n_classes, 48, 48)) * rng.choice([0.1, 1, 10]) + i * first
        for i in range(6)
    ]
    wanted = rng.dirichlet(np.full(n_classes, 0.1))
    labels = {}
    found = solve_volume(slices, wanted.tolist(), write=labels.__setitem__)
    assert off_by(np.stack(list(labels.values())), wanted) < 1 + 1e-6
    whole = solve(np.stack(slices, axis=1), wanted.tolist())
    assert found.cost == pytest.approx(whole.cost, abs=5e-3 * max(1, whole.cost))


@pytest.mark.parametrize("side", [3, 5, 9])
def test_few_changes_of_few_pixels(side):
    """Exact shares beside uncertain ones are no whole pixels of a small map."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        z, share = rng.normal(size=(2, side, side)), float(rng.uniform())
        found = reluctant(RatioSolver(z)).solve([share, 1 - share], [0.05, 0.0])
        assert abs(found.achieved[1] - (1 - share)) <= 1 / side**2
