from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from phasesam.core.errors import InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.simulation import ParticleConfig, SemScan, simulate_particles

SMALL = ParticleConfig(shape=(120, 160), pixel_size=0.9)


@pytest.fixture(scope="module")
def powder():
    return simulate_particles(SMALL, seed=1)


def test_form(powder):
    assert powder.image.dtype == np.uint8
    assert powder.image.shape == powder.labels.shape == powder.classes.shape == (120, 160)
    assert powder.labels.dtype == np.int32
    assert powder.pixel_size == PixelSize(0.9, 0.9, "um")
    assert powder.class_names == ("background", "particle", "satellite", "agglomerate")


def test_same_seed_same_bytes(powder):
    again = simulate_particles(SMALL, seed=1)
    np.testing.assert_array_equal(again.image, powder.image)
    np.testing.assert_array_equal(again.labels, powder.labels)
    np.testing.assert_array_equal(again.classes, powder.classes)
    other = simulate_particles(SMALL, seed=2)
    assert (other.image != powder.image).mean() > 0.5
    assert (other.labels != powder.labels).mean() > 0.2


def test_labels_are_contiguous_and_agree_with_the_classes(powder):
    assert np.unique(powder.labels).tolist() == list(range(powder.n_objects + 1))
    assert powder.metadata["n_particles"] == powder.n_objects
    assert ((powder.labels > 0) == (powder.classes > 0)).all()
    areas = np.bincount(powder.labels.ravel())[1:]
    assert areas.min() >= 8


def test_particles_are_bright_on_dark_tape(powder):
    on_tape = ndimage.binary_erosion(powder.labels == 0, iterations=2)
    assert powder.image[on_tape].mean() < 40
    means = ndimage.mean(powder.image, powder.labels, np.arange(1, powder.n_objects + 1))
    assert np.median(means) > 3 * powder.image[on_tape].mean()


def test_the_truth_follows_the_edges_of_the_image():
    quiet = replace(SMALL, charging=0.0, scan=SemScan(dose=1e6, line_jitter=0.0, line_noise=0.0))
    powder = simulate_particles(quiet, seed=1)
    bright = ndimage.gaussian_filter(powder.image.astype(float), 0.5) > 32
    truth = powder.labels > 0
    assert (bright & truth).sum() / (bright | truth).sum() > 0.93


@pytest.mark.parametrize("coverage", [0.2, 0.6])
def test_coverage_is_what_was_asked_for(coverage):
    config = replace(SMALL, shape=(240, 320), coverage=coverage)
    seen = [simulate_particles(config, seed).metadata["covered_fraction"] for seed in range(2)]
    # Some particles hide others and some find no room, so less is seen than was dropped.
    assert 0.6 * coverage < np.mean(seen) < 1.1 * coverage


def test_sizes_follow_the_asked_distribution():
    config = ParticleConfig(
        shape=(320, 320), pixel_size=1.0, coverage=0.35, median_diameter=14.0, diameter_spread=0.25
    )
    labels = simulate_particles(config, seed=0).labels
    inner = np.setdiff1d(labels, np.concatenate([labels[[0, -1]], labels[:, [0, -1]].T]).ravel())
    diameters = np.sqrt(4 / np.pi * np.bincount(labels.ravel())[inner[inner > 0]])
    assert np.median(diameters) == pytest.approx(14.0, rel=0.15)
    assert np.log(diameters).std() == pytest.approx(0.25, abs=0.12)


def test_noise_grows_as_the_dose_falls():
    def noise(dose):
        config = replace(SMALL, scan=replace(SMALL.scan, dose=dose))
        quiet = replace(SMALL, scan=replace(SMALL.scan, dose=1e7))
        difference = simulate_particles(config, 1).image.astype(float) - simulate_particles(
            quiet, 1
        ).image.astype(float)
        unclipped = simulate_particles(quiet, 1).image
        return difference[(unclipped > 60) & (unclipped < 160)].std()

    assert noise(50.0) / noise(200.0) == pytest.approx(2.0, rel=0.12)


def test_an_empty_field_is_only_tape():
    empty = simulate_particles(replace(SMALL, coverage=0.0), seed=0)
    assert empty.n_objects == 0
    assert not empty.classes.any()
    assert empty.image.std() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (8, 100)}, "shape"),
        ({"median_diameter": 1.0}, "smallest < median < largest"),
        ({"coverage": 1.7}, "coverage must lie in 0.0–1.5, got 1.7"),
        ({"charging": -0.1}, "charging"),
        ({"pixel_size": float("nan")}, "pixel_size"),
        ({"scan": SemScan(dose=0.0)}, "dose"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InvalidSettingError, match=message):
        ParticleConfig(**change)
