from dataclasses import replace

import numpy as np
import pytest

from phasesam.core.errors import InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.simulation import SteelConfig, simulate_steel
from phasesam.simulation.steel import photograph

SMALL = SteelConfig(shape=(150, 200), pixel_size=0.2, grain_size=7.0)


@pytest.fixture(scope="module")
def section():
    return simulate_steel(SMALL, seed=3)


def test_form(section):
    assert section.image.dtype == np.uint8
    assert section.image.shape == section.labels.shape == section.classes.shape == (150, 200)
    assert section.pixel_size == PixelSize(0.2, 0.2, "um")
    assert section.class_names == ("unlabelled", "ferrite", "bainite", "martensite")
    assert np.unique(section.labels[section.labels > 0]).tolist() == list(
        range(1, section.n_objects + 1)
    )


def test_same_seed_same_bytes(section):
    again = simulate_steel(SMALL, seed=3)
    np.testing.assert_array_equal(again.image, section.image)
    np.testing.assert_array_equal(again.labels, section.labels)
    np.testing.assert_array_equal(again.classes, section.classes)
    other = simulate_steel(SMALL, seed=4)
    assert (other.image != section.image).mean() > 0.5


@pytest.mark.parametrize(("bainite", "martensite"), [(0.25, 0.15), (0.5, 0.05)])
def test_fractions_are_met_to_the_pixel(bainite, martensite):
    section = simulate_steel(replace(SMALL, bainite=bainite, martensite=martensite), seed=0)
    fractions = section.class_fractions()
    assert fractions["unlabelled"] == 0.0
    assert fractions["bainite"] == pytest.approx(bainite, abs=0.5 / section.image.size)
    assert fractions["martensite"] == pytest.approx(martensite, abs=0.5 / section.image.size)
    assert section.metadata["phase_fractions"] == fractions


def test_light_falls_towards_the_corners():
    config = replace(SMALL, illumination=0.5, dose=1e8, read_noise=0.0)
    light = np.full(config.shape, 0.8, np.float32)
    image = photograph(np.random.default_rng(0), light, config).astype(float)
    brightest = np.unravel_index(image.argmax(), image.shape)
    assert 0.25 < brightest[0] / 150 < 0.75
    assert 0.25 < brightest[1] / 200 < 0.75
    corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.max() < 0.85 * image.max()


def test_camera_noise_is_counted_quanta_plus_reading():
    config = replace(SMALL, illumination=0.0, defocus=0.0, dose=1000.0, read_noise=20.0)
    light = np.full((300, 300), 0.5, np.float32)
    config = replace(config, shape=(300, 300))
    image = photograph(np.random.default_rng(0), light, config).astype(float)
    rough = np.diff(image, axis=0) / np.sqrt(2)
    expected = (255 / 1000) ** 2 * (500 + 400) + 1 / 12
    assert rough.var() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (150,)}, "shape"),
        ({"bainite": 0.7, "martensite": 0.4}, "0.7 and 0.4"),
        ({"bainite": -0.1}, "at least 0"),
        ({"grain_size": 0.3}, "grain_size"),
        ({"dose": 0.0}, "dose must lie in"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InvalidSettingError, match=message):
        SteelConfig(**change)
