import numpy as np
import pytest
from scipy import stats

from phasesam.simulation.random_fields import (
    directed_noise,
    rough_noise,
    shot_noise,
    smooth_noise,
)


@pytest.mark.parametrize("mean", [0.3, 4.0, 11.9, 12.1, 60.0, 5000.0])
def test_shot_noise_has_the_moments_of_a_poisson_distribution(mean):
    counts = shot_noise(np.random.default_rng(3), np.full(60_000, mean)).astype(float)
    assert counts.mean() == pytest.approx(mean, rel=0.02)
    assert counts.var() == pytest.approx(mean, rel=0.04)
    assert stats.skew(counts) == pytest.approx(mean**-0.5, abs=0.06)


@pytest.mark.parametrize("mean", [0.5, 3.0, 11.0, 13.0, 40.0])
def test_shot_noise_is_the_poisson_quantile(mean):
    normal = np.random.default_rng(5).standard_normal(20_000)
    exact = stats.poisson.ppf(stats.norm.cdf(normal), mean)
    drawn = shot_noise(np.random.default_rng(5), np.full(20_000, mean))
    assert np.abs(drawn - exact).max() <= (0 if mean < 12 else 1)
    assert (drawn == exact).mean() > 0.9


def test_one_mean_does_not_disturb_the_other_pixels():
    mean = np.full(200, 30.0)
    other = mean.copy()
    other[50] = 5.0
    differs = shot_noise(np.random.default_rng(1), mean) != shot_noise(
        np.random.default_rng(1), other
    )
    assert np.flatnonzero(differs).tolist() == [50]


def test_negative_means_give_no_counts():
    assert not shot_noise(np.random.default_rng(0), np.array([-3.0, 0.0])).any()


@pytest.mark.parametrize("sigma", [2.0, 5.0])
def test_smooth_noise_is_correlated_over_its_scale(sigma):
    noise = smooth_noise(np.random.default_rng(0), (256, 300), sigma)
    assert noise.shape == (256, 300)
    assert noise.dtype == np.float32
    assert noise.mean() == pytest.approx(0.0, abs=1e-5)
    assert noise.std() == pytest.approx(1.0, abs=1e-4)
    # White noise behind a Gaussian of σ has the autocorrelation exp(-d² / 4σ²).
    lag = int(2 * sigma)
    measured = float((noise[:, :-lag] * noise[:, lag:]).mean())
    assert measured == pytest.approx(np.exp(-1.0), abs=0.1)


def test_rough_noise_is_rougher_with_more_octaves():
    def roughness(octaves):
        noise = rough_noise(np.random.default_rng(0), (128, 128), 12.0, octaves)
        assert noise.std() == pytest.approx(1.0, abs=1e-4)
        return np.abs(np.diff(noise, axis=0)).mean()

    assert roughness(4) > 1.5 * roughness(1)


@pytest.mark.parametrize(("angle", "along_axis"), [(0.0, 1), (np.pi / 2, 0)])
def test_directed_noise_streaks_along_its_angle(angle, along_axis):
    noise = directed_noise(np.random.default_rng(0), (128, 160), angle, 9.0, 2.0)
    steps = [np.abs(np.diff(noise, axis=axis)).mean() for axis in (0, 1)]
    assert steps[1 - along_axis] > 3 * steps[along_axis]
