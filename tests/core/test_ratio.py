import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

from phasesam.core import ratio_bias
from phasesam.core.errors import InvalidImageError, InvalidSettingError
from phasesam.core.ratio import RatioSolver, solve
from phasesam.core.ratio_request import EFFECTIVE_SAMPLES, RatioRequest, largest_remainder


def smooth_logits(n_classes, shape, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    z = np.stack([gaussian_filter(rng.normal(size=shape), 4) for _ in range(n_classes)])
    return (z / z.std() * 2 + noise * rng.normal(size=z.shape)).astype(np.float32)


def counts(solution, n_classes):
    return np.bincount(solution.labels.ravel(), minlength=n_classes)


def cost(logits, labels):
    flat = logits.reshape(len(logits), -1).astype(float)
    return float((flat.max(0) - flat[labels.ravel(), np.arange(flat.shape[1])]).mean())


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10**6), st.sampled_from([1, 2, 3]), st.data())
def test_amounts_are_met_to_the_pixel(n_classes, seed, decimals, data):
    rng = np.random.default_rng(seed)
    shape = (data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90)))
    # Few decimals make ties, from none to all pixels.
    z = np.round(rng.normal(size=(n_classes, *shape)) * 3, decimals)
    wanted = rng.dirichlet(np.full(n_classes, 0.5))
    solution = solve(z, wanted)
    n = shape[0] * shape[1]
    assert np.abs(counts(solution, n_classes) - wanted * n).max() < 1 + 1e-6
    assert solution.cost == pytest.approx(cost(z, solution.labels), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3, 5, 8])
@pytest.mark.parametrize("side", [256, 1024])
def test_large_images_too(n_classes, side):
    z = smooth_logits(n_classes, (side, side))
    rng = np.random.default_rng(1)
    solver = RatioSolver(z)
    for concentration in (0.2, 1.0, 20.0):
        wanted = rng.dirichlet(np.full(n_classes, concentration))
        solution = solver.solve(wanted)
        assert np.abs(counts(solution, n_classes) - wanted * side**2).max() < 1 + 1e-6
        # All but pixels at equal distance to two classes have the largest biased logit.
        with np.errstate(invalid="ignore"):
            biased = z + solution.bias[:, None, None]
        assert (biased.argmax(0) != solution.labels).mean() < 1e-5


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(0, 10**6), st.booleans())
@example(5, 686, True)
@example(4, 1066, True)
@example(5, 1319, False)
def test_no_other_labelling_with_these_amounts_costs_less(n_classes, seed, coarse):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_classes, 60))
    z = np.round(z) if coarse else z
    amounts = largest_remainder(rng.dirichlet(np.ones(n_classes)), 60)
    solution = solve(z, amounts / 60)
    places = np.repeat(np.arange(n_classes), amounts)
    rows, columns = linear_sum_assignment(-z[places])
    best = np.zeros(60, int)
    best[columns] = places[rows]
    assert_array_equal(counts(solution, n_classes), amounts)
    assert cost(z, solution.labels) == pytest.approx(cost(z, best), abs=1e-6)


def test_flat_logits_are_divided():
    solution = solve(np.zeros((3, 64, 64)), [0.2, 0.3, 0.5])
    assert_array_equal(counts(solution, 3), [819, 1229, 2048])
    assert solution.cost == 0


def test_equally_likely_pixels_go_to_the_class_around_them():
    z = np.zeros((2, 64, 64), np.float32)
    z[0, :, :16], z[1, :, 48:] = 5, 5
    labels = solve(z, [0.4, 0.6]).labels
    assert (labels[:, :24] == 0).mean() > 0.95
    assert (labels[:, 32:] == 1).all()


@pytest.mark.parametrize("wanted", [[0, 0.4, 0.6], [1, 0, 0], [0, 0, 1]])
def test_nothing_and_everything_of_a_class(wanted):
    solution = solve(smooth_logits(3, (50, 40)), wanted)
    assert_allclose(solution.achieved, wanted)


def test_the_models_own_amounts_change_nothing():
    solver = RatioSolver(smooth_logits(4, (100, 80)))
    solution = solver.solve(solver.fractions)
    assert_array_equal(solution.labels, solver.own)
    assert (solution.cost, solution.changed, solution.contradicted) == (0, 0, 0)


def test_unknown_classes_share_the_rest_as_the_model_sees_them():
    z = smooth_logits(3, (120, 100))
    solution = solve(z, [0.2, None, None])
    assert counts(solution, 3)[0] == 2400
    rest = solution.labels > 0
    assert_array_equal(solution.labels[rest], 1 + z[1:].argmax(0)[rest])


def test_a_range_that_holds_changes_nothing_and_another_is_met_at_its_end():
    solver = RatioSolver(smooth_logits(3, (120, 100)))
    own = solver.fractions
    assert solver.solve([(own[0] - 0.05, own[0] + 0.05), None, None]).changed == 0
    assert solver.solve([(own[0] + 0.05, 1.0), None, None]).achieved[0] == pytest.approx(
        own[0] + 0.05, abs=1e-4
    )
    assert solver.solve([(0.0, own[0] - 0.05), None, None]).achieved[0] == pytest.approx(
        own[0] - 0.05, abs=1e-4
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6))
def test_ranges_are_met_at_the_least_cost(n_classes, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_classes, 40, 30)).astype(np.float32)
    middle = rng.dirichlet(np.ones(n_classes))
    wanted = [(max(0, m - 0.05), min(1, m + 0.05)) for m in middle]
    solution = solve(z, wanted)
    for share, (low, high) in zip(solution.achieved, wanted, strict=True):
        assert low - 1 / 1200 <= share <= high + 1 / 1200
    # The amounts themselves, asked for exactly, are no better, and nor are those nearby.
    assert solution.cost <= solve(z, middle).cost + 1e-9
    # A class that is pushed lies at the end that it is pushed to.
    gauge = [
        b for b, s, (low, high) in zip(solution.bias, solution.achieved, wanted, strict=True)
        if low + 2 / 1200 < s < high - 2 / 1200
    ]  # fmt: skip
    assert_allclose(gauge, 0, atol=1e-9)


def test_trust_lies_between_the_request_and_the_image():
    solver = RatioSolver(smooth_logits(3, (200, 200)))
    own = solver.fractions
    wanted = np.roll(own, 1) * 0.5 + 1 / 6
    distances = [
        np.abs(solver.solve(wanted, error).achieved - wanted).max()
        for error in (1e-4, 0.02, 0.05, 0.1, 0.3, 3.0)
    ]
    assert distances[0] < 1e-3
    assert distances == sorted(distances)
    assert_allclose(solver.solve(wanted, 30.0).achieved, own, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(0.01, 0.3), st.sampled_from([30, 300]))
def test_trust_balances_what_pixels_cost_and_what_the_request_is_worth(
    n_classes, seed, error, side
):
    z = smooth_logits(n_classes, (side, side), seed)
    wanted = np.random.default_rng(seed).dirichlet(np.ones(n_classes))
    solution = solve(z, wanted, error)
    # At the minimum of cost + (difference / error)^2 / (2 N) the biases are its slope.
    expected = wanted - EFFECTIVE_SAMPLES * error**2 * solution.bias
    assert_allclose(solution.achieved, expected, atol=2.5 / side**2)


def test_certain_and_uncertain_classes_together():
    solution = solve(smooth_logits(3, (200, 200)), [0.3, 0.5, 0.2], [0, 0.1, 0.1])
    assert solution.achieved[0] == 0.3
    assert solution.achieved.sum() == pytest.approx(1)


@pytest.mark.parametrize("errors", [[0, 0.02, 0], [0.05, 0, 0], [0.02, 0, 0.1]])
def test_certain_and_uncertain_classes_of_a_large_image(monkeypatch, errors):
    rounds = []
    balanced = ratio_bias._balanced
    monkeypatch.setattr(ratio_bias, "_balanced", lambda *a: rounds.append(1) or balanced(*a))
    z = smooth_logits(3, (600, 800))
    wanted = np.array([0.28, 0.27, 0.45])
    solution = solve(z, wanted, errors)
    expected = wanted - EFFECTIVE_SAMPLES * np.square(errors) * solution.bias
    certain = np.array(errors) == 0
    assert_allclose(solution.achieved[certain], wanted[certain], atol=1e-5)
    assert_allclose(solution.achieved[~certain], expected[~certain], atol=1e-4)
    assert len(rounds) < 150


def test_regions_have_ratios_of_their_own():
    z = smooth_logits(3, (100, 100))
    regions = np.zeros((100, 100), int)
    regions[:40], regions[60:, :50] = 3, 7
    wanted = {3: [0.1, 0.2, 0.7], 7: [None, 0.9, None]}
    solution = solve(z, wanted, regions=regions)
    assert_allclose(np.bincount(solution.labels[:40].ravel(), minlength=3) / 4000, wanted[3])
    assert (solution.labels[regions == 7] == 1).mean() == 0.9
    assert_array_equal(solution.labels[regions == 0], z.argmax(0)[regions == 0])
    assert solution.bias.shape == (2, 3)
    assert solution.regions == (3, 7)


def test_volumes_half_precision_and_logarithms_of_zero():
    z = smooth_logits(2, (12, 30, 30)).astype(np.float16)
    with np.errstate(divide="ignore"):
        certain = np.log(np.stack([z[0] > z[1], z[0] <= z[1]]).astype(float))
    for logits in (z, certain):
        solution = solve(logits, [0.25, 0.75])
        assert counts(solution, 2)[0] == 2700
        assert solution.labels.shape == (12, 30, 30)
        assert np.isfinite(solution.cost)


def test_contradiction_counts_what_the_model_is_sure_about():
    z = np.zeros((2, 10, 10), np.float32)
    z[0, :5] = 0.5
    z[0, 5:] = 5
    solution = solve(z, [0.2, 0.8])
    assert solution.changed == pytest.approx(0.8)
    assert solution.contradicted == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ([0.5, 0.6, 0.2], "add up to at least 1.3"),
        ([0.1, 0.1, 0.1], "add up to at most 0.3"),
        ([(0.5, 0.6), 0.6, None], "at least 1.1"),
        ([(0.0, 0.2), (0.0, 0.3), 0.1], "at most 0.6"),
        ([0.5, -0.1, 0.6], "class 1: expected a share within 0–1"),
        ([0.5, (0.4, 0.1), 0.1], "class 1: expected"),
        ([0.5, "much", 0.1], "class 1: expected"),
        ([0.5, 0.5], "expected shares of 3 classes, got 2"),
        ([1.0], "2 classes or more"),
    ],
)
def test_requests_that_cannot_be_met_are_explained(fractions, message):
    with pytest.raises(InvalidSettingError, match=message):
        solve(np.zeros((3, 8, 8)), fractions)


@pytest.mark.parametrize("uncertainty", [-0.1, [0.1, 0.1], float("nan")])
def test_uncertainties_are_checked(uncertainty):
    with pytest.raises(InvalidSettingError, match="standard error"):
        solve(np.zeros((3, 8, 8)), [0.2, 0.3, 0.5], uncertainty)


def test_logits_are_checked():
    bad = np.zeros((3, 8, 8))
    bad[1, 2, 2] = np.nan
    for logits in (bad, np.full((2, 3, 3), np.inf), np.full((2, 3, 3), -np.inf)):
        with pytest.raises(InvalidImageError, match="finite"):
            solve(logits, [0.5] * len(logits))
    for logits in (np.zeros((1, 8, 8)), np.zeros(5), np.zeros((2, 0, 4))):
        with pytest.raises(InvalidImageError, match="logits"):
            solve(logits, [0.5, 0.5])


def test_regions_are_checked():
    z = np.zeros((2, 8, 8))
    with pytest.raises(InvalidSettingError, match="need regions"):
        solve(z, {1: [0.5, 0.5]})
    with pytest.raises(InvalidSettingError, match="by region"):
        solve(z, [0.5, 0.5], regions=np.zeros((8, 8), int))
    with pytest.raises(InvalidSettingError, match="no region 2"):
        solve(z, {2: [0.5, 0.5]}, regions=np.zeros((8, 8), int))
    with pytest.raises(InvalidSettingError, match="shape"):
        solve(z, {0: [0.5, 0.5]}, regions=np.zeros((8, 9), int))


def test_rounding_to_per_cent_is_forgiven():
    assert RatioRequest([0.333, 0.333, 0.333]).fractions == pytest.approx((1 / 3,) * 3)
    assert RatioRequest([0.333, 0.333, None]).fractions == (0.333, 0.333, None)


@given(st.integers(2, 8), st.integers(0, 10**6), st.integers(1, 10**6))
def test_rounded_amounts_add_up(n_classes, seed, n):
    shares = np.random.default_rng(seed).dirichlet(np.ones(n_classes))
    rounded = largest_remainder(shares, n)
    assert rounded.sum() == n
    assert np.abs(rounded - shares * n).max() < 1 + 1e-6


@pytest.mark.parametrize("side", [40, 128])
def test_one_class_may_have_everything(side):
    logits = np.random.default_rng(0).normal(size=(3, side, side))
    solution = solve(logits, [0.0, 1.0, 0.0])
    assert (solution.labels == 1).all()
    assert solution.achieved.tolist() == [0.0, 1.0, 0.0]
