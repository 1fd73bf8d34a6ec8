"""From any micrograph to the three-channel 8-bit image that the models look at."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.errors import InvalidImageError, InvalidSettingError

NormalisationMode = Literal["auto", "percentile", "range"]

_SAMPLE_VALUES = 1_000_000
_CHUNK_VALUES = 2_000_000
_MID_GREY = 128


@dataclass(frozen=True)
class Normalisation:
    """How intensities are mapped to 0–255.

    Attributes
    ----------
    mode : {"auto", "percentile", "range"}
        ``"percentile"`` maps the `low` and `high` percentiles of the finite
        intensities to 0 and 255, ``"range"`` maps the intensities `low` and `high`
        themselves (use it for a layer's contrast limits). ``"auto"`` leaves 8-bit
        images as they are, which is what SAM was trained on, and treats everything
        else like ``"percentile"``.
    low, high : float
        Percentiles (0–100), or intensities with ``"range"``.

    Raises
    ------
    InvalidSettingError
        If the mode is unknown, or the limits are not finite, out of order, or no
        percentiles.
    """

    mode: NormalisationMode = "auto"
    low: float = 0.5
    high: float = 99.5

    def __post_init__(self) -> None:
        if self.mode not in get_args(NormalisationMode):
            raise InvalidSettingError(
                f"normalisation mode must be one of {get_args(NormalisationMode)}, "
                f"got {self.mode!r}"
            )
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InvalidSettingError(
                f"normalisation needs finite low < high, got {self.low} and {self.high}"
            )
        if self.mode != "range" and not (self.low >= 0 and self.high <= 100):
            raise InvalidSettingError(
                f"percentiles lie between 0 and 100, got {self.low} and {self.high}"
            )

    @property
    def key(self) -> str:
        """Text that is equal exactly for equal settings, for cache keys."""
        return f"{self.mode}:{float(self.low)!r}:{float(self.high)!r}"

    @classmethod
    def from_key(cls, text: str) -> Normalisation:
        """Read what `key` wrote; anything else is an `InvalidSettingError`."""
        mode, *limits = text.split(":")
        try:
            low, high = (float(limit) for limit in limits)
        except ValueError as error:
            raise InvalidSettingError(
                f"expected MODE:LOW:HIGH, such as percentile:2:98 or range:100:2000, got {text!r}"
            ) from error
        return cls(mode, low, high)  # type: ignore[arg-type]


def check_image(image: ArrayLike) -> NDArray[Any]:
    """Return ``image`` as an array if it is one plane that can be segmented.

    Parameters
    ----------
    image : (h, w), (h, w, 3) or (h, w, 4) array-like
        Grey, RGB or RGBA of bool, any integer or any real float dtype.

    Returns
    -------
    array of the same shape and dtype

    Raises
    ------
    InvalidImageError
        If it is empty, of another shape, or not of real numbers. The message names
        the shape and what to do.
    """
    array = np.asarray(image)
    shape = array.shape
    if array.dtype.kind == "c":
        raise InvalidImageError(
            f"expected real intensities, got {array.dtype} of shape {shape}; "
            "take the magnitude or the real part"
        )
    if array.dtype.kind not in "biuf":
        raise InvalidImageError(
            f"expected an array of numbers, got dtype {array.dtype} of shape {shape}"
        )
    if array.size == 0:
        raise InvalidImageError(f"expected an image with pixels, got the empty shape {shape}")
    if array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4)):
        return array
    raise InvalidImageError(
        f"expected one plane of shape (h, w), (h, w, 3) or (h, w, 4), got {shape}; "
        + _advice(shape)
    )


def _advice(shape: tuple[int, ...]) -> str:
    """Say what to do with an array of the wrong shape."""
    if len(shape) < 2:
        return "reshape it to (h, w)"
    if len(shape) == 3 and shape[2] == 1:
        return "drop the last axis with image[..., 0]"
    if len(shape) == 3 and shape[0] in (3, 4):
        return (
            "choose a plane with image[0] if it is a stack, or put the channels last with "
            "numpy.moveaxis(image, 0, -1) if it is a colour image"
        )
    if len(shape) == 3:
        return f"choose one of the {shape[0]} planes, such as image[{shape[0] // 2}]"
    planes = shape[:-3] if shape[-1] in (3, 4) else shape[:-2]
    index = ", ".join(str(size // 2) for size in planes)
    return f"choose one plane of the stack, such as image[{index}]"


def to_rgb8(image: ArrayLike, normalisation: Normalisation | None = None) -> NDArray[np.uint8]:
    """Convert one plane to 8-bit RGB.

    Parameters
    ----------
    image : (h, w), (h, w, 3) or (h, w, 4) array-like
        Grey, RGB or RGBA of bool, any integer or any real float dtype; alpha is left
        out. NaN and infinities do not take part in percentiles; NaN becomes 0. The
        three colours share one mapping, so that hues stay.
    normalisation : Normalisation, optional
        How intensities are mapped; ``Normalisation()`` when left out.

    Returns
    -------
    (h, w, 3) uint8 array
        C-contiguous, never sharing memory with ``image``. A constant image that is
        not 8-bit becomes mid-grey.

    Raises
    ------
    InvalidImageError
        If it is not one plane of real numbers (see `check_image`) or has no finite
        value at all.
    """
    normalisation = Normalisation() if normalisation is None else normalisation
    array = check_image(image)
    if array.ndim == 3:
        array = array[..., :3]
    if array.dtype.kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)
    out = np.empty((*array.shape[:2], 3), dtype=np.uint8)
    if array.dtype == np.uint8 and normalisation.mode == "auto":
        _fill(out, array)
        return out
    low, high = intensity_limits(array, normalisation)
    table = _lookup_table(array.dtype, low, high)
    for rows in _row_chunks(array):
        chunk = array[rows]
        mapped = _map_intensities(chunk, low, high) if table is None else np.take(table, chunk)
        _fill(out[rows], mapped)
    return out


def stretched(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Spread the intensities of an 8-bit image over the whole range.

    What is made of the result does not depend on the brightness and contrast with which the
    image was recorded or displayed.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        Image.

    Returns
    -------
    (h, w, 3) uint8 array
        The 0.5 and 99.5 percentiles are 0 and 255; one scale for all colours.
    """
    return to_rgb8(rgb, Normalisation("percentile"))


def _fill(rgb: NDArray[np.uint8], values: NDArray[np.uint8]) -> None:
    """Copy grey or colour into RGB; band by band is ten times faster than broadcasting."""
    if values.ndim == 3:
        rgb[...] = values
        return
    for band in range(3):
        rgb[..., band] = values


def intensity_limits(
    image: ArrayLike, normalisation: Normalisation | None = None
) -> tuple[float, float]:
    """Find the intensities that a normalisation maps to 0 and 255.

    Parameters
    ----------
    image : (h, w), (h, w, 3) or (h, w, 4) array-like
        One plane. Large planes are sampled on a regular grid of about a million values.
    normalisation : Normalisation, optional
        ``Normalisation()`` when left out.

    Returns
    -------
    (float, float)
        Lower and upper limit; equal only when the whole image is constant.

    Raises
    ------
    InvalidImageError
        If the image has no finite value.
    """
    normalisation = Normalisation() if normalisation is None else normalisation
    array = check_image(image)
    if array.ndim == 3:
        array = array[..., :3]
    if normalisation.mode == "range":
        if array.dtype.kind == "f" and not _has_finite(array):
            raise _no_finite_value(array)
        return float(normalisation.low), float(normalisation.high)
    if array.dtype == np.uint8 and normalisation.mode == "auto":
        return 0.0, 255.0
    if array.dtype.kind == "b":
        return 0.0, 1.0
    low, high = _percentiles(_sample(array), (normalisation.low, normalisation.high))
    if not low < high:
        # Few pixels differ from the rest (or the sample has no finite value at all).
        low, high = _finite_range(array)
    return low, high


def is_constant(image: ArrayLike) -> bool:
    """Tell whether all finite pixels of one plane are equal, so that there is nothing to segment.

    Parameters
    ----------
    image : (h, w), (h, w, 3) or (h, w, 4) array-like
        One plane; alpha is left out.

    Raises
    ------
    InvalidImageError
        If it is not one plane of real numbers, or has no finite value.
    """
    array = check_image(image)
    channels = [array] if array.ndim == 2 else [array[..., c] for c in range(3)]
    for channel in channels:
        low, high = _finite_range(channel)
        if low != high:
            return False
    return True


def content_hash(image: ArrayLike) -> str:
    """Fingerprint an array by dtype, shape and every one of its values.

    Parameters
    ----------
    image : array-like of numbers
        Any shape; its memory layout does not matter.

    Returns
    -------
    str
        32 hexadecimal digits (BLAKE2b, 128 bits).

    Raises
    ------
    InvalidImageError
        If the array holds objects rather than numbers.
    """
    array = np.asarray(image)
    if array.dtype.hasobject:
        raise InvalidImageError(f"expected an array of numbers, got dtype {array.dtype}")
    digest = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    if array.flags.c_contiguous or array.ndim == 0:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    else:
        for rows in _row_chunks(array):
            digest.update(np.ascontiguousarray(array[rows]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _row_chunks(array: NDArray[Any]) -> Iterator[slice]:
    """Cut the first axis so that temporaries stay small whatever the image."""
    row_values = max(1, array.size // max(1, array.shape[0]))
    step = max(1, _CHUNK_VALUES // row_values)
    for start in range(0, array.shape[0], step):
        yield slice(start, min(start + step, array.shape[0]))


def _sample(array: NDArray[Any]) -> NDArray[Any]:
    """Take a regular grid of at most about `_SAMPLE_VALUES` values, flat."""
    height, width = array.shape[:2]
    wanted = _SAMPLE_VALUES // (array.size // (height * width))
    step_y = min(height, math.ceil(math.sqrt(height * width / wanted)))
    rows = math.ceil(height / step_y)
    step_x = math.ceil(rows * width / wanted)
    return array[::step_y, ::step_x].reshape(-1)


def _percentiles(values: NDArray[Any], percents: tuple[float, float]) -> tuple[float, float]:
    """Two percentiles of the finite values; NaN when there are none."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)].astype(np.float64)
        if values.size == 0:
            return math.nan, math.nan
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        return _percentiles_of_small_integers(values, percents)
    # Neighbouring order statistics instead of interpolation: no overflow between extremes.
    low, high = np.percentile(values, percents, method="nearest")
    return float(low), float(high)


def _percentiles_of_small_integers(
    values: NDArray[Any], percents: tuple[float, float]
) -> tuple[float, float]:
    """Read two percentiles off the histogram, which is faster than sorting."""
    bottom = int(np.iinfo(values.dtype).min)
    counts = np.bincount(values.astype(np.intp) - bottom)
    cumulated = np.cumsum(counts)
    ranks = np.rint(np.asarray(percents) / 100 * (values.size - 1)) + 1
    low, high = np.searchsorted(cumulated, ranks) + bottom
    return float(low), float(high)


def _finite_range(array: NDArray[Any]) -> tuple[float, float]:
    """Smallest and largest finite value."""
    low, high = math.inf, -math.inf
    for rows in _row_chunks(array):
        chunk = array[rows]
        if chunk.dtype.kind == "f":
            chunk = chunk[np.isfinite(chunk)]
        if chunk.size:
            low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    if low > high:
        raise _no_finite_value(array)
    return low, high


def _has_finite(array: NDArray[Any]) -> bool:
    return any(bool(np.isfinite(array[rows]).any()) for rows in _row_chunks(array))


def _no_finite_value(array: NDArray[Any]) -> InvalidImageError:
    return InvalidImageError(
        f"expected at least one finite intensity, but all of the image of shape {array.shape} "
        "is NaN or infinite"
    )


def _lookup_table(dtype: np.dtype[Any], low: float, high: float) -> NDArray[np.uint8] | None:
    """Tabulate the mapping for 8- and 16-bit integers; None for wider dtypes."""
    if dtype.kind not in "iu" or dtype.itemsize > 2:
        return None
    bits = 8 * dtype.itemsize
    indices = np.arange(2**bits)
    if dtype.kind == "i":
        # numpy counts negative indices from the end, just as two's complement does.
        indices = np.where(indices < 2 ** (bits - 1), indices, indices - 2**bits)
    return _map_intensities(indices, low, high)


def _map_intensities(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map ``low``–``high`` to 0–255, clip, and turn NaN into 0."""
    if not low < high:
        return np.where(np.isnan(values), 0, _MID_GREY).astype(np.uint8)
    # Two float64 extremes may lie further apart than float64 can say.
    factor = 1.0 if math.isfinite(high - low) else 0.25
    with np.errstate(over="ignore"):
        scaled = values.astype(np.float64)
        if factor != 1.0:
            scaled *= factor
        scaled -= low * factor
        scaled /= high * factor - low * factor
    np.clip(scaled, 0.0, 1.0, out=scaled)
    if values.dtype.kind == "f":
        scaled[np.isnan(scaled)] = 0.0
    scaled *= 255.0
    scaled += 0.5
    return scaled.astype(np.uint8)
