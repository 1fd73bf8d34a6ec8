from dataclasses import replace

import numpy as np
import pytest

from phasesam.core.errors import CancelledError, InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.simulation import Detector, XctConfig, simulate_xct

SMALL = XctConfig(
    shape=(16, 80, 80),
    voxel_size=16.0,
    pore_fraction=0.02,
    pore_diameter=64.0,
    inclusion_fraction=0.002,
    inclusion_diameter=50.0,
    n_angles=100,
)


@pytest.fixture(scope="module")
def stack():
    return simulate_xct(SMALL, seed=5)


def test_form(stack):
    assert stack.image.dtype == np.uint8
    assert stack.image.shape == stack.labels.shape == stack.classes.shape == (16, 80, 80)
    assert stack.pixel_size == PixelSize(16.0, 16.0, "um")
    assert stack.z_size == 16.0
    assert stack.class_names == ("air", "matrix", "pore", "inclusion")


def test_same_seed_same_bytes(stack):
    again = simulate_xct(SMALL, seed=5)
    np.testing.assert_array_equal(again.image, stack.image)
    np.testing.assert_array_equal(again.labels, stack.labels)
    np.testing.assert_array_equal(again.classes, stack.classes)
    assert (simulate_xct(SMALL, seed=6).image != stack.image).mean() > 0.3


def test_truth_agrees_with_itself(stack):
    assert np.unique(stack.labels).tolist() == list(range(stack.n_objects + 1))
    assert stack.n_objects == stack.metadata["n_pores"] + stack.metadata["n_inclusions"]
    assert ((stack.labels > 0) == (stack.classes >= 2)).all()
    inside = np.count_nonzero(stack.classes)
    assert stack.metadata["porosity"] == pytest.approx((stack.classes == 2).sum() / inside)
    assert stack.metadata["porosity"] == pytest.approx(0.02, rel=0.3)


def test_pores_are_dark_and_inclusions_bright(stack):
    air, matrix, pore, inclusion = (
        float(stack.image[stack.classes == value].mean()) for value in range(4)
    )
    assert air < pore < matrix - 40
    assert inclusion > matrix + 60


def test_beam_hardening_cups_the_matrix():
    config = replace(
        SMALL,
        pore_fraction=0.0,
        inclusion_fraction=0.0,
        detector=Detector(photons=1e9, ring_error=0.0, scatter=0.0),
    )
    stack = simulate_xct(config, seed=0)
    y, x = np.mgrid[:80, :80] - 40
    radius = np.hypot(y, x)
    reach = np.sqrt(np.count_nonzero(stack.classes[8]) / np.pi)
    middle = stack.image[8][radius < 0.3 * reach].mean()
    rim = stack.image[8][(radius > 0.8 * reach) & (radius < 0.9 * reach)].mean()
    assert rim > middle + 4


def test_noise_falls_with_the_photons():
    def noise(photons):
        detector = Detector(photons=photons, ring_error=0.0)
        config = replace(SMALL, pore_fraction=0.0, inclusion_fraction=0.0, detector=detector)
        stack = simulate_xct(config, seed=0)
        return np.diff(stack.image[:, 30:50, 30:50].astype(float), axis=0).std()

    assert noise(4_000.0) / noise(64_000.0) == pytest.approx(4.0, rel=0.15)


def test_progress_runs_through_and_cancel_stops():
    seen = []
    simulate_xct(
        replace(SMALL, shape=(2, 40, 40), voxel_size=30.0, n_angles=10),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i, 20) for i in range(1, 21)]
    with pytest.raises(CancelledError):
        simulate_xct(SMALL, should_stop=lambda: len(seen) > 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (4, 64, 80)}, "shape"),
        ({"shape": (0, 64, 64)}, "at least one slice"),
        ({"outline": "star"}, "'star'"),
        ({"fill": 0.99}, "fill must lie in"),
        ({"pore_diameter": 1.0}, "pore_diameter"),
        ({"detector": Detector(photons=-1.0)}, "photons"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InvalidSettingError, match=message):
        XctConfig(**change)
