"""Parallel-beam tomography of a stack of slices: projection, counting, reconstruction.

Pixels have the edge length 1; attenuation is per pixel. The detector has as many elements as
the slice has columns, and the rotation axis passes through pixel ``n // 2``, as in
`skimage.transform.radon`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, sparse

from phasesam.core.errors import CancelledError, InvalidImageError
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.simulation.random_fields import FloatArray, shot_noise


@dataclass(frozen=True)
class Spectrum:
    """A coarse X-ray spectrum and what two materials do to it.

    Attributes
    ----------
    weights : (k,) float array
        Share of the detected quanta in each energy band.
    matrix, inclusion : (k,) float array
        Linear attenuation of the two materials in 1/mm in each band.
    """

    weights: NDArray[np.float64]
    matrix: NDArray[np.float64]
    inclusion: NDArray[np.float64]


def titanium_with_steel() -> Spectrum:
    """Titanium part with steel inclusions in the beam of a filtered 100 kV tube.

    Mass attenuation of titanium and iron at 30, 40, 50, 60 and 80 keV from the NIST tables
    (Hubbell and Seltzer, NISTIR 5632), times 4.51 and 7.87 g/cm³.
    """
    titanium = np.array([4.972, 2.214, 1.213, 0.7661, 0.4052]) * 4.51 / 10.0
    iron = np.array([8.176, 3.629, 1.958, 1.205, 0.5952]) * 7.87 / 10.0
    return Spectrum(np.array([0.12, 0.25, 0.27, 0.21, 0.15]), titanium, iron)


@dataclass(frozen=True)
class Detector:
    """Errors of an X-ray detector.

    Attributes
    ----------
    photons : float
        Quanta per element and projection in the open beam.
    ring_error : float
        Relative standard deviation of the elements' gain after flat-field correction.
    scatter : float
        Scattered radiation as a share of the open beam.
    blur : float
        Standard deviation of the point-spread function in elements.
    """

    photons: float = 20_000.0
    ring_error: float = 0.004
    scatter: float = 0.03
    blur: float = 0.4


def project(
    slices: FloatArray,
    angles: NDArray[np.float64],
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> FloatArray:
    """Integrate slices along parallel rays.

    Parameters
    ----------
    slices : (z, n, n) float32 array
        What is integrated; zero outside the inscribed circle.
    angles : (a,) float array
        Directions in degrees, counted as in `skimage.transform.radon`.
    progress, should_stop : callable, optional
        Called and asked once for each angle.

    Returns
    -------
    (a, n, z) float32 array
        Line integrals per angle, detector element and slice.

    Raises
    ------
    InvalidImageError
        If the slices are not square.
    CancelledError
        If `should_stop` says so.
    """
    if slices.ndim != 3 or slices.shape[1] != slices.shape[2]:
        raise InvalidImageError(f"slices must have shape (z, n, n), got {slices.shape}")
    depth, n = slices.shape[:2]
    columns = np.ascontiguousarray(slices.reshape(depth, n * n).T, dtype=np.float32)
    sinogram = np.empty((len(angles), n, depth), dtype=np.float32)
    for index, angle in _steps(angles, progress, should_stop):
        sinogram[index] = _ray_matrix(n, np.deg2rad(angle)) @ columns
    return sinogram


def _steps(
    angles: NDArray[np.float64],
    progress: ProgressCallback | None,
    should_stop: StopCallback | None,
) -> Iterator[tuple[int, float]]:
    for index, angle in enumerate(angles):
        if should_stop is not None and should_stop():
            raise CancelledError("stopped during tomography")
        yield index, float(angle)
        if progress is not None:
            progress(index + 1, len(angles))


def _ray_matrix(n: int, angle: float) -> sparse.csr_matrix:
    """Bilinear weights of an (n, n) slice in each of n parallel rays, (n, n * n)."""
    middle = n // 2
    across = np.arange(n, dtype=np.float64)[:, None] - middle
    along = np.arange(n, dtype=np.float64)[None, :] - middle
    inside = across**2 + along**2 <= middle**2
    cos, sin = np.cos(angle), np.sin(angle)
    x = (cos * across + sin * along + middle)[inside]
    y = (-sin * across + cos * along + middle)[inside]
    x0 = np.clip(np.floor(x).astype(np.int32), 0, n - 2)
    y0 = np.clip(np.floor(y).astype(np.int32), 0, n - 2)
    fx, fy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    corner = y0 * n + x0
    pixels = np.stack([corner, corner + 1, corner + n, corner + n + 1], axis=1)
    weights = np.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], axis=1)
    # The samples lie ray after ray, which is how the rows of a CSR matrix are stored.
    starts = np.concatenate([[0], 4 * np.cumsum(np.count_nonzero(inside, axis=1))])
    return sparse.csr_matrix((weights.ravel(), pixels.ravel(), starts), shape=(n, n * n))


def measure_attenuation(
    rng: np.random.Generator,
    matrix_path: FloatArray,
    inclusion_path: FloatArray,
    spectrum: Spectrum,
    detector: Detector,
) -> FloatArray:
    """Send a polychromatic beam through known path lengths and count quanta.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    matrix_path, inclusion_path : (a, n, z) float32 array
        Path through each material in mm.
    spectrum : Spectrum
        Energy bands and attenuation.
    detector : Detector
        Dose and errors.

    Returns
    -------
    (a, n, z) float32 array
        ``-ln(I / I0)`` as the scanner computes it.
    """
    share = np.zeros_like(matrix_path)
    for weight, in_matrix, in_inclusion in zip(
        spectrum.weights, spectrum.matrix, spectrum.inclusion, strict=True
    ):
        absorbed = np.float32(in_matrix) * matrix_path + np.float32(in_inclusion) * inclusion_path
        share += np.float32(weight) * np.exp(-absorbed)
    if detector.blur > 0:
        share = ndimage.gaussian_filter1d(share, detector.blur, axis=1)
    share = share + np.float32(detector.scatter)
    gain = _gain_errors(rng, share.shape[1:], detector.ring_error)
    counts = shot_noise(rng, share * detector.photons)
    open_beam = detector.photons * (1.0 + detector.scatter)
    measured = np.maximum(counts, 1.0) * gain[None] / np.float32(open_beam)
    return -np.log(measured).astype(np.float32)


def _gain_errors(rng: np.random.Generator, shape: tuple[int, int], error: float) -> FloatArray:
    """Gain of each detector element, (n, z): partly the same in neighbouring slices."""
    shared = np.repeat(rng.standard_normal((shape[0], 1)), shape[1], axis=1)
    rough = ndimage.gaussian_filter1d(rng.standard_normal(shape), 3.0, axis=1, mode="wrap") * 3.0
    own = rng.standard_normal(shape)
    gain = 1.0 + error * (0.45 * shared + 0.6 * rough + 0.6 * own)
    for column in rng.integers(0, shape[0], max(1, shape[0] // 64)):
        gain[column] += 4.0 * error * rng.standard_normal()
    return gain.astype(np.float32)


def reconstruct(
    sinogram: FloatArray,
    angles: NDArray[np.float64],
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> FloatArray:
    """Reconstruct slices by filtered back-projection with a Hann-windowed ramp.

    Parameters
    ----------
    sinogram : (a, n, z) float32 array
        Line integrals.
    angles : (a,) float array
        Directions in degrees, evenly over 180°.
    progress, should_stop : callable, optional
        Called and asked once for each angle.

    Returns
    -------
    (z, n, n) float32 array
        Attenuation per pixel; 0 outside the inscribed circle.

    Raises
    ------
    CancelledError
        If `should_stop` says so.
    """
    n, depth = sinogram.shape[1:]
    filtered = fft.irfft(
        fft.rfft(sinogram, n=2 * fft.next_fast_len(n), axis=1) * _ramp(n)[None, :, None], axis=1
    )[:, :n].astype(np.float32)
    middle = n // 2
    y, x = np.mgrid[:n, :n].astype(np.float32) - np.float32(middle)
    inside = x**2 + y**2 <= middle**2
    x, y = x[inside], y[inside]
    total = np.zeros((len(x), depth), dtype=np.float32)
    for index, angle in _steps(angles, progress, should_stop):
        total += _spread_matrix(x, y, n, np.deg2rad(angle)) @ filtered[index]
    slices = np.zeros((depth, n, n), dtype=np.float32)
    slices[:, inside] = total.T * np.float32(np.pi / (2 * len(angles)))
    return slices


def _spread_matrix(x: FloatArray, y: FloatArray, n: int, angle: float) -> sparse.csr_matrix:
    """Weights of the two detector elements beside the ray through each pixel, (pixels, n)."""
    place = np.clip(
        x * np.float32(np.cos(angle)) - y * np.float32(np.sin(angle)) + n // 2, 0, n - 1
    )
    low = np.minimum(place.astype(np.int32), n - 2)
    weight = place - low
    columns = np.stack([low, low + 1], axis=1).ravel()
    values = np.stack([1 - weight, weight], axis=1).ravel()
    starts = np.arange(0, 2 * len(x) + 1, 2)
    return sparse.csr_matrix((values, columns, starts), shape=(len(x), n))


def _ramp(n: int) -> FloatArray:
    """Frequency response of the ramp filter, made in space so that its mean is right.

    Kak and Slaney, *Principles of Computerized Tomographic Imaging* (1988), equation 61 of
    chapter 3.
    """
    length = 2 * fft.next_fast_len(n)
    offset = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.zeros(length)
    kernel[0] = 0.25
    odd = offset % 2 == 1
    kernel[odd] = -1.0 / (np.pi * offset[odd]) ** 2
    response = 2.0 * np.real(fft.rfft(kernel))
    window = 0.5 + 0.5 * np.cos(2.0 * np.pi * fft.rfftfreq(length))
    return (response * window).astype(np.float32)
