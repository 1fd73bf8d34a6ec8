"""Random numbers with a meaning: counted quanta, rough surfaces, directed textures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

FloatArray = NDArray[np.float32]


def shot_noise(rng: np.random.Generator, mean: NDArray[Any]) -> FloatArray:
    """Draw Poisson counts for every pixel by inverting the distribution.

    One random number is spent on each pixel, whatever its mean. Rejection sampling
    would spend more of them here and there, so that a difference in the last digit of
    one mean, as between two processors, would change all the pixels after it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    mean : float array of any shape
        Expected counts; negative values count as 0.

    Returns
    -------
    float32 array, shaped like `mean`
        Whole numbers.

    Notes
    -----
    Above a mean of 12 the quantile is taken from the Cornish–Fisher expansion with
    skewness and kurtosis, which is within one count of the exact one.
    """
    mean = np.maximum(np.asarray(mean, dtype=np.float64), 0.0)
    normal = rng.standard_normal(mean.shape)
    root = np.sqrt(np.maximum(mean, 1.0))
    counts = mean + root * normal + (normal**2 - 1.0) / 6.0 + (normal - normal**3) / (72.0 * root)
    counts = np.rint(counts - 1e-9)
    low = mean < 12.0
    if low.any():
        counts[low] = _poisson_quantile(special.ndtr(normal[low]), mean[low])
    return np.maximum(counts, 0.0).astype(np.float32)


def _poisson_quantile(
    probability: NDArray[np.float64], mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Smallest count whose cumulative probability reaches `probability`, for small means."""
    counts = np.zeros_like(mean)
    term = np.exp(-mean)
    cumulative = term.copy()
    for k in range(1, 60):
        below = cumulative < probability
        if not below.any():
            break
        counts[below] = k
        term = term * mean / k
        cumulative = cumulative + term
    return counts


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], scale: float | tuple[float, ...]
) -> FloatArray:
    """Make a Gaussian random field of zero mean and unit variance.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        Shape of the field.
    scale : float or tuple of float
        Standard deviation of the Gaussian kernel in pixels, for all axes or each.

    Returns
    -------
    float32 array of `shape`; periodic at its borders.
    """
    scales = (scale,) * len(shape) if isinstance(scale, int | float) else scale
    spectrum = fft.rfftn(rng.standard_normal(shape).astype(np.float32))
    exponent = np.zeros(spectrum.shape, dtype=np.float32)
    for axis, (length, sigma) in enumerate(zip(shape, scales, strict=True)):
        is_last = axis == len(shape) - 1
        frequency = fft.rfftfreq(length) if is_last else fft.fftfreq(length)
        term = 2.0 * (np.pi * frequency * sigma) ** 2
        extent = [1] * len(shape)
        extent[axis] = -1
        exponent = exponent + term.astype(np.float32).reshape(extent)
    return _standardised(fft.irfftn(spectrum * np.exp(-exponent), s=shape))


def rough_noise(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    largest: float,
    octaves: int = 4,
    persistence: float = 0.5,
) -> FloatArray:
    """Add up smooth fields of ever finer grain and smaller amplitude.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        Shape of the field.
    largest : float
        Kernel size of the coarsest field in pixels.
    octaves : int
        Number of fields; each is half as coarse as the one before.
    persistence : float
        Amplitude of each field relative to the one before.

    Returns
    -------
    float32 array of `shape` with zero mean and unit variance.
    """
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        total += smooth_noise(rng, shape, largest / 2**octave) * persistence**octave
    return _standardised(total)


def directed_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    angle: float,
    length: float,
    width: float,
) -> FloatArray:
    """Make a field of streaks along one direction.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : (int, int)
        Height and width.
    angle : float
        Direction of the streaks in radians, from the x axis towards the y axis.
    length, width : float
        Kernel size along and across the streaks in pixels.

    Returns
    -------
    (h, w) float32 array with zero mean and unit variance.
    """
    spectrum = fft.rfft2(rng.standard_normal(shape).astype(np.float32))
    fy = fft.fftfreq(shape[0])[:, None]
    fx = fft.rfftfreq(shape[1])[None, :]
    along = np.cos(angle) * fx + np.sin(angle) * fy
    across = -np.sin(angle) * fx + np.cos(angle) * fy
    exponent = 2.0 * np.pi**2 * ((along * length) ** 2 + (across * width) ** 2)
    # A band around one wavelength across the streaks gives plates of similar thickness.
    band = (across * width) ** 2
    return _standardised(fft.irfft2(spectrum * (np.exp(-exponent) * band), s=shape))


def _standardised(values: NDArray[Any]) -> FloatArray:
    values = values - values.mean()
    spread = float(values.std())
    return (values / spread if spread > 0 else values).astype(np.float32)
