import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter
from skimage.measure import label

from phasesam.core.errors import InvalidImageError, InvalidSettingError
from phasesam.core.ratio import RatioSolver
from phasesam.core.ratio_regularity import reluctant, smooth_logits, solve_without_specks


def noisy_halves(noise=1.5):
    """A dark and a bright half, and noisy logits of them."""
    image = np.zeros((64, 64))
    image[:, 32:] = 200
    rng = np.random.default_rng(0)
    z = np.stack([100 - image, image - 100]) / 100 + noise * rng.normal(size=(2, 64, 64))
    return image + rng.normal(0, 3, image.shape), z.astype(np.float32)


def smallest_region(labels):
    return np.bincount(label(labels.astype(int) + 1, connectivity=1).ravel())[1:].min()


def test_noise_goes_and_edges_stay():
    image, z = noisy_halves()
    smooth = smooth_logits(z, image)
    truth = np.arange(64) >= 32
    assert (z.argmax(0) == truth).mean() < 0.9
    assert (smooth.argmax(0) == truth).mean() > 0.99
    # An edge of the image that a plain mean would blur.
    step = smooth[1, :, 33].mean() - smooth[1, :, 30].mean()
    assert step > 0.9 * (z[1, :, 33:].mean() - z[1, :, :31].mean())


def test_no_radius_changes_nothing():
    image, z = noisy_halves()
    assert_array_equal(smooth_logits(z, image, radius=0), z)


def test_the_filter_is_the_published_one():
    image, z = noisy_halves()
    guide = (image - np.percentile(image, 1)) / np.subtract(*np.percentile(image, (99, 1)))
    y, x = 20, 33
    window = np.s_[y - 2 : y + 3, x - 2 : x + 3]
    expected = 0.0
    for cy in range(y - 2, y + 3):
        for cx in range(x - 2, x + 3):
            window = np.s_[cy - 2 : cy + 3, cx - 2 : cx + 3]
            g, p = guide[window], z[0][window].astype(float)
            a = ((g * p).mean() - g.mean() * p.mean()) / (g.var() + 0.05**2)
            expected += (a * guide[y, x] + p.mean() - a * g.mean()) / 25
    assert smooth_logits(z, image, radius=2, edge=0.05)[0, y, x] == pytest.approx(
        expected, rel=1e-4
    )


def test_specks_go_and_the_ratio_stays():
    rng = np.random.default_rng(0)
    z = np.stack([gaussian_filter(rng.normal(size=(96, 96)), 5) * 40 for _ in range(3)])
    z += rng.normal(0, 1.0, z.shape)
    solver = RatioSolver(z)
    wanted = [0.25, 0.3, 0.45]
    assert smallest_region(solver.solve(wanted).labels) == 1
    solution = solve_without_specks(solver, wanted, smallest=12)
    assert smallest_region(solution.labels) >= 12
    assert_allclose(solution.achieved, wanted, atol=1 / 96**2)
    assert solution.cost >= solver.solve(wanted).cost
    assert solution.cost < 50


def test_no_smallest_size_is_the_plain_solution():
    _, z = noisy_halves()
    solver = RatioSolver(z)
    plain = solver.solve([0.4, 0.6])
    assert_array_equal(solve_without_specks(solver, [0.4, 0.6], smallest=1).labels, plain.labels)


def test_specks_within_regions():
    _, z = noisy_halves()
    regions = np.repeat([[0], [1]], 32, axis=0) * np.ones(64, int)
    wanted = {0: [0.3, 0.7], 1: [0.6, 0.4]}
    solution = solve_without_specks(RatioSolver(z), wanted, regions=regions, smallest=5)
    for number, shares in wanted.items():
        found = np.bincount(solution.labels[regions == number], minlength=2) / 2048
        assert_allclose(found, shares, atol=1 / 2048)


def test_the_margin_tells_who_changes_hands_first():
    rng = np.random.default_rng(0)
    solver = RatioSolver(rng.normal(size=(3, 50, 50)))
    solution = solver.solve([0.2, 0.3, 0.5])
    margin = solver.margin(solution)
    assert margin.min() > -1e-6
    moved = solver.solve([0.19, 0.305, 0.505]).labels != solution.labels
    assert margin[moved].max() < np.quantile(margin, 0.1)


def test_the_margin_with_regions():
    _, z = noisy_halves()
    solver = RatioSolver(z)
    regions = np.repeat([[0], [1]], 32, axis=0) * np.ones(64, int)
    solution = solver.solve({1: [0.3, 0.7]}, regions=regions)
    margin = solver.margin(solution, regions)
    assert margin.min() > -1e-5
    assert_allclose(margin[:32], np.abs(z[0] - z[1])[:32], rtol=1e-5)


def test_bad_settings_are_refused():
    image, z = noisy_halves()
    with pytest.raises(InvalidImageError, match="shape"):
        smooth_logits(z, image[:-1])
    with pytest.raises(InvalidSettingError, match="radius"):
        smooth_logits(z, image, radius=-1)
    with pytest.raises(InvalidSettingError, match="edge"):
        smooth_logits(z, image, edge=0)
    with pytest.raises(InvalidSettingError, match="0 pixels or more"):
        solve_without_specks(RatioSolver(z), [0.5, 0.5], smallest=-1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), classes=st.integers(2, 6), contrast=st.sampled_from((0, 0.1, 9)),
    weights=st.lists(st.integers(0, 9), min_size=6, max_size=6).filter(lambda w: sum(w[:2]) > 0),
)  # fmt: skip
def test_no_pixel_changes_that_need_not(seed, classes, contrast, weights):
    rng = np.random.default_rng(seed)
    solver = RatioSolver(contrast * rng.normal(size=(classes, 12, 17)).astype(np.float32))
    before = solver.logits.copy()
    wanted = np.array(weights[:classes]) / sum(weights[:classes])
    found = solver.judged(reluctant(solver).solve(wanted.tolist()))
    counts = np.bincount(found.labels.ravel(), minlength=classes)
    assert np.abs(counts - wanted * counts.sum()).max() <= 1
    seen = np.bincount(solver.own.ravel(), minlength=classes)
    assert (found.labels != solver.own).sum() == np.maximum(counts - seen, 0).sum()
    assert_array_equal(solver.logits, before)
    # Never cheaper than the most likely map with these amounts.
    assert found.cost >= solver.solve(wanted.tolist()).cost - 1e-6


def test_a_phase_whose_amount_is_right_stays():
    """A ladder of grey values: dark, middle, bright, each like its neighbour."""
    grey = np.linspace(0, 1, 900).reshape(30, 30).astype(np.float32)
    z = -40 * (grey - np.array([0.15, 0.5, 0.85], np.float32)[:, None, None]) ** 2
    solver = RatioSolver(z)
    dark, middle, bright = solver.fractions
    wanted = [dark - 0.2, middle, bright + 0.2]
    likely, few = solver.solve(wanted), reluctant(solver).solve(wanted)
    for solution in (likely, few):
        assert_allclose(solution.achieved, wanted, atol=2e-3)
    is_middle = solver.own == 1
    assert (few.labels[is_middle] == 1).all()
    assert (likely.labels[is_middle] == 1).mean() < 0.5
    assert (likely.labels != solver.own).mean() == pytest.approx(0.4, abs=0.01)
    # Of the dark pixels the brightest are given away.
    given_away = (solver.own == 0) & (few.labels == 2)
    assert grey[given_away].min() > grey[few.labels == 0].max()
