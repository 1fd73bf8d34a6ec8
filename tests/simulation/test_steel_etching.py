import numpy as np
import pytest

from phasesam.simulation.steel_etching import etched_brightness, pits, scratches
from phasesam.simulation.steel_structure import (
    BAINITE,
    FERRITE,
    MARTENSITE,
    grow_phases,
    tessellate,
)

PIXEL = 0.2


@pytest.fixture(scope="module")
def steel():
    rng = np.random.default_rng(0)
    grains = tessellate(rng, (200, 240), 40.0)
    return grow_phases(rng, grains, 40.0, 0.3, 0.2)


@pytest.fixture(scope="module")
def light(steel):
    return etched_brightness(np.random.default_rng(0), steel, PIXEL, 1.0)


def test_ferrite_is_bright_and_martensite_dark(steel, light):
    assert light.dtype == np.float32
    assert light.min() > 0.0
    assert light.max() <= 1.0
    ferrite, bainite, martensite = (
        float(light[steel.phase == phase].mean()) for phase in (FERRITE, BAINITE, MARTENSITE)
    )
    assert ferrite > bainite + 0.1 > martensite + 0.2


def test_boundaries_are_dark_lines(steel, light):
    change = np.zeros(light.shape, bool)
    both = (steel.phase[:, :-1] == FERRITE) & (steel.phase[:, 1:] == FERRITE)
    change[:, :-1] = both & (steel.labels[:, :-1] != steel.labels[:, 1:])
    assert light[change].mean() < light[steel.phase == FERRITE].mean() - 0.06


def test_plates_have_more_texture_than_ferrite(steel, light):
    def texture(phase):
        steps = np.abs(np.diff(light, axis=0))
        return np.median(
            steps[(steel.phase[1:] == phase) & (steel.labels[1:] == steel.labels[:-1])]
        )

    assert texture(BAINITE) > 2 * texture(FERRITE)


def test_etching_contrast_can_be_turned_off(steel):
    pale = etched_brightness(np.random.default_rng(0), steel, PIXEL, 0.0)
    np.testing.assert_allclose(pale, 0.66, atol=1e-6)


def test_scratches_are_thin_and_straight():
    added = scratches(np.random.default_rng(0), (200, 240), PIXEL, 1)
    marked = np.abs(added) > 0.3 * np.abs(added).max()
    rows, columns = np.nonzero(marked)
    assert 0 < marked.mean() < 0.03
    spread = np.linalg.eigvalsh(np.cov(np.stack([rows, columns])))
    assert spread[1] > 50 * spread[0]
    assert not scratches(np.random.default_rng(0), (50, 60), PIXEL, 0).any()


def test_pits_take_light_in_small_spots():
    taken = pits(np.random.default_rng(0), (200, 240), 0.1, 12)
    assert 0.5 < taken.max() < 1.0
    assert 0 < (taken > 0.3).mean() < 0.02
    assert not pits(np.random.default_rng(0), (50, 60), PIXEL, 0).any()
