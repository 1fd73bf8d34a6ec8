import numpy as np
import pytest
from skimage.transform import iradon, radon

from phasesam.core.errors import CancelledError, InvalidImageError
from phasesam.simulation.tomography import (
    Detector,
    Spectrum,
    measure_attenuation,
    project,
    reconstruct,
    titanium_with_steel,
)

ANGLES = np.linspace(0.0, 180.0, 60, endpoint=False)
IDEAL = Detector(photons=1e12, ring_error=0.0, scatter=0.0, blur=0.0)


def discs(n=64):
    y, x = np.mgrid[:n, :n] - n // 2
    one = np.clip(18.5 - np.hypot(y - 4, x + 3), 0, 1)
    two = np.clip(9.5 - np.hypot(y, x - 12), 0, 1)
    return np.stack([one, two + 0.5 * one]).astype(np.float32)


def test_projection_equals_skimage_radon():
    slices = discs()
    ours = project(slices, ANGLES)
    assert ours.shape == (60, 64, 2)
    for index in range(2):
        reference = radon(slices[index], ANGLES, circle=True)
        np.testing.assert_allclose(ours[:, :, index].T, reference, atol=2e-3)


def test_reconstruction_equals_skimage_iradon():
    slices = discs()
    sinogram = project(slices, ANGLES)
    ours = reconstruct(sinogram, ANGLES)
    y, x = np.mgrid[:64, :64] - 32
    inside = np.hypot(y, x) < 30
    for index in range(2):
        reference = iradon(sinogram[:, :, index].T, ANGLES, filter_name="hann", circle=True)
        np.testing.assert_allclose(ours[index][inside], reference[inside], atol=2e-3)


def test_reconstruction_returns_the_slices():
    slices = discs(96)
    angles = np.linspace(0.0, 180.0, 180, endpoint=False)
    back = reconstruct(project(slices, angles), angles)
    y, x = np.mgrid[:96, :96] - 48
    core = np.hypot(y - 4, x + 3) < 12
    assert back[0][core].mean() == pytest.approx(1.0, abs=0.02)
    assert back[0][core].std() < 0.02


def test_mass_is_the_same_in_every_projection():
    slices = discs()
    np.testing.assert_allclose(
        project(slices, ANGLES).sum(axis=1), np.tile(slices.sum(axis=(1, 2)), (60, 1)), rtol=2e-3
    )


def test_a_monochromatic_beam_follows_beer_lambert():
    spectrum = Spectrum(np.array([1.0]), np.array([2.0]), np.array([9.0]))
    matrix = np.full((2, 16, 3), 0.4, np.float32)
    inclusion = np.full((2, 16, 3), 0.05, np.float32)
    measured = measure_attenuation(np.random.default_rng(0), matrix, inclusion, spectrum, IDEAL)
    np.testing.assert_allclose(measured, 2.0 * 0.4 + 9.0 * 0.05, rtol=1e-4)


def test_a_polychromatic_beam_hardens():
    lengths = np.array([0.2, 0.8, 2.0], np.float32)
    path = np.broadcast_to(lengths[:, None, None], (3, 8, 1)).copy()
    nothing = np.zeros_like(path)
    measured = measure_attenuation(
        np.random.default_rng(0), path, nothing, titanium_with_steel(), IDEAL
    )
    per_length = measured.mean(axis=(1, 2)) / lengths
    assert (np.diff(per_length) < 0).all()
    assert per_length[2] < 0.8 * per_length[0]


@pytest.mark.parametrize("photons", [500.0, 50_000.0])
def test_noise_follows_the_photons(photons):
    detector = Detector(photons=photons, ring_error=0.0, scatter=0.0, blur=0.0)
    spectrum = Spectrum(np.array([1.0]), np.array([1.0]), np.array([1.0]))
    path = np.full((60, 40, 20), 1.0, np.float32)
    measured = measure_attenuation(
        np.random.default_rng(0), path, np.zeros_like(path), spectrum, detector
    )
    # Error of a logarithm: var(-ln N) is about 1 / N.
    assert measured.var() == pytest.approx(np.e / photons, rel=0.06)


def test_gain_errors_make_rings_that_persist_over_angles():
    detector = Detector(photons=1e10, ring_error=0.01, scatter=0.0, blur=0.0)
    spectrum = Spectrum(np.array([1.0]), np.array([1.0]), np.array([1.0]))
    path = np.zeros((20, 64, 5), np.float32)
    measured = measure_attenuation(np.random.default_rng(0), path, path, spectrum, detector)
    assert measured.std(axis=0).max() < 1e-4
    assert 0.003 < measured.mean(axis=0).std() < 0.05


def test_progress_and_stop():
    seen = []
    project(discs(32), ANGLES[:5], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 5) for i in range(1, 6)]
    with pytest.raises(CancelledError):
        reconstruct(np.zeros((5, 32, 1), np.float32), ANGLES[:5], should_stop=lambda: True)


def test_slices_must_be_square():
    with pytest.raises(InvalidImageError, match=r"\(2, 8, 9\)"):
        project(np.zeros((2, 8, 9), np.float32), ANGLES)
