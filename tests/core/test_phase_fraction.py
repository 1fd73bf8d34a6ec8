import numpy as np
import pytest

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.phase_fraction import BootstrapConfig, phase_fraction


def discs(seed: int, n: float = 60, radius: int = 16, side: int = 400) -> np.ndarray:
    """Random overlapping discs (Boolean model) in a square image."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side), dtype=bool)
    yy, xx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    stamp = yy**2 + xx**2 <= radius**2
    outer = side + 2 * radius
    padded = np.zeros((side + 4 * radius + 1,) * 2, dtype=bool)
    for y, x in (rng.random((rng.poisson(n * (outer / side) ** 2), 2)) * outer).astype(int):
        padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1] |= stamp
    image[:] = padded[2 * radius :, 2 * radius :][:side, :side]
    return image


def test_the_fraction_is_that_of_the_pixels():
    labels = np.zeros((60, 90), dtype=int)
    labels[:20] = 7
    found = phase_fraction(labels)
    assert found.fraction == pytest.approx(1 / 3)
    assert found.low <= found.fraction <= found.high
    assert found.confidence == 0.95


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    image = discs(0)
    stamp = sum(x * x + y * y <= 256 for x in range(-16, 17) for y in range(-16, 17))
    truth = 1 - np.exp(-60 * stamp / image.size)
    found = [
        phase_fraction(discs(seed), config=BootstrapConfig(resamples=500)) for seed in range(120)
    ]
    covered = np.mean([f.low <= truth <= f.high for f in found])
    assert 0.86 <= covered <= 1.0
    # The error that is stated is the error that is made.
    stated = np.mean([f.standard_error for f in found])
    made = np.std([f.fraction for f in found])
    assert stated == pytest.approx(made, rel=0.3)


def test_a_uniform_pattern_has_a_narrow_interval():
    checkers = np.indices((128, 128)).sum(axis=0) % 2
    found = phase_fraction(checkers)
    assert found.fraction == 0.5
    assert found.high - found.low < 1e-9


@pytest.mark.parametrize(("confidence", "bound"), [(0.95, 0.1707), (0.99, 0.2501)])
def test_no_phase_at_all_does_not_mean_that_there_is_none(confidence, bound):
    config = BootstrapConfig(confidence=confidence)
    nothing = phase_fraction(np.zeros((400, 400)), config=config)
    everything = phase_fraction(np.ones((400, 400)), config=config)
    assert (nothing.fraction, nothing.low) == (0, 0)
    assert nothing.high == pytest.approx(bound, abs=1e-4)
    assert (everything.fraction, everything.high) == (1, 1)
    assert everything.low == pytest.approx(1 - bound, abs=1e-4)
    assert np.isnan([nothing.standard_error, everything.standard_error]).all()
    # This many fields without the phase are seen as rarely as the confidence says.
    assert (1 - nothing.high) ** nothing.n_fields == pytest.approx(1 - confidence)


def test_the_interval_holds_a_rare_phase_although_the_image_shows_none():
    stamp = sum(x * x + y * y <= 256 for x in range(-16, 17) for y in range(-16, 17))
    truth = 1 - np.exp(-1 * stamp / 400**2)
    shown = [image for seed in range(20) if not (image := discs(seed, n=1)).any()]
    assert shown
    assert all(phase_fraction(image).high >= truth for image in shown)


def test_unknown_pixels_do_not_count():
    image = np.zeros((100, 100), dtype=np.float32)
    image[:20] = 1
    image[60:] = np.nan
    found = phase_fraction(image)
    assert found.fraction == pytest.approx(1 / 3)
    assert found == phase_fraction(image == 1, ~np.isnan(image))
    assert phase_fraction(image, image != 1).fraction == 0
    with pytest.raises(InvalidMaskError, match="at least one"):
        phase_fraction(np.full((3, 3), np.nan))


def test_the_same_input_gives_the_same_interval():
    image = discs(1)
    assert phase_fraction(image) == phase_fraction(image)
    other = phase_fraction(image, config=BootstrapConfig(seed=1))
    assert other.fraction == phase_fraction(image).fraction
    assert other.low != phase_fraction(image).low


def test_only_the_region_counts():
    image = np.zeros((100, 100), dtype=bool)
    image[80:] = True  # a data bar
    region = np.ones((100, 100), dtype=bool)
    region[80:] = False
    assert phase_fraction(image, region).fraction == 0
    assert phase_fraction(image).fraction == pytest.approx(0.2)


def test_planes_of_a_stack_are_not_independent():
    plane = discs(2, side=200)
    stack = np.repeat(plane[None], 30, axis=0)
    assert phase_fraction(stack).n_fields == phase_fraction(plane).n_fields
    assert phase_fraction(stack).standard_error == pytest.approx(
        phase_fraction(plane).standard_error
    )


def test_a_wide_image_has_about_as_many_fields():
    assert phase_fraction(np.ones((1024, 1536))).n_fields == 15
    assert phase_fraction(np.ones((10, 1000))).n_fields in range(14, 60)


def test_a_single_pixel_has_no_interval():
    found = phase_fraction(np.ones((1, 1)))
    assert found.fraction == 1
    assert np.isnan(found.low)
    assert found.n_fields == 1


def test_senseless_input_is_refused():
    with pytest.raises(InvalidMaskError, match="shape"):
        phase_fraction(np.zeros(3))
    with pytest.raises(InvalidMaskError, match="shape"):
        phase_fraction(np.zeros((0, 3)))
    with pytest.raises(InvalidMaskError, match="region of shape"):
        phase_fraction(np.zeros((3, 3)), np.ones((3, 4), bool))
    with pytest.raises(InvalidMaskError, match="at least one"):
        phase_fraction(np.zeros((3, 3)), np.zeros((3, 3), bool))
    with pytest.raises(InvalidSettingError, match="confidence"):
        BootstrapConfig(confidence=1)
    with pytest.raises(InvalidSettingError, match="at least 1"):
        BootstrapConfig(fields=0)
