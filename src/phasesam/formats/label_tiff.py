"""Label images as TIFF files that ImageJ, napari and others open with their scale."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tifffile
from numpy.typing import ArrayLike, NDArray

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.formats.atomic import atomic_file
from phasesam.formats.lengths import micrometres_per

_AXES = ("YX", "ZYX", "TZYX", "TZCYX")
_LARGEST_IMAGEJ = 2**31


def save_labels_tiff(
    path: str | os.PathLike[str],
    labels: ArrayLike,
    pixel_size: PixelSize | None = None,
    z_size: float | None = None,
) -> None:
    """Write a label image or stack.

    Up to 65 535 labels become an ImageJ TIFF of 16 bits, more an OME-TIFF of 32 bits,
    both losslessly compressed and with the pixel size in the resolution tags too. Labels
    that come in 8 bits, as classes do, stay so.

    Parameters
    ----------
    path : path-like
        File to write; replaced in one piece.
    labels : (..., h, w) integer or bool array-like
        0 is background. At most three axes before the plane.
    pixel_size : PixelSize, optional
        Written when it is physical.
    z_size : float, optional
        Distance of the planes, in the unit of the pixel size.

    Raises
    ------
    InvalidMaskError
        If the array is no label image.
    InvalidSettingError
        If the unit of the pixel size is unknown or a length is not positive.
    SaveError
        If it cannot be written; an older file is then intact.
    """
    array, pixel_size = _checked(labels), pixel_size or PixelSize()
    sizes = _micrometres(pixel_size, z_size)
    axes = _AXES[array.ndim - 2]
    fits = array.dtype.itemsize <= 2 and array.nbytes < _LARGEST_IMAGEJ
    with atomic_file(path) as file:
        if fits:
            _write_imagej(file, array, axes, sizes)
        else:
            _write_ome(file, array, axes, sizes)


def _checked(labels: ArrayLike) -> NDArray[Any]:
    """Bring labels to the smallest of uint16 and int32 that holds them; uint8 stays uint8."""
    array = np.asarray(labels)
    if array.dtype.kind not in "biu" or not 2 <= array.ndim <= 5 or array.size == 0:
        raise InvalidMaskError(
            "expected integer labels of shape (h, w) with at most three axes before, "
            f"got {array.shape} {array.dtype}"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > np.iinfo(np.int32).max:
        raise InvalidMaskError(f"expected labels from 0 to 2147483647, got {low} to {high}")
    if array.dtype == np.uint8:
        return array
    return array.astype(np.uint16 if high <= np.iinfo(np.uint16).max else np.int32, copy=False)


def _micrometres(size: PixelSize, z_size: float | None) -> tuple[float, float, float | None] | None:
    """Lengths along y, x and z in µm; None for plain pixels."""
    if not size.is_physical:
        return None
    factor = micrometres_per(size.unit)
    lengths = [size.y, size.x, *([] if z_size is None else [z_size])]
    if factor is None or not all(0 < length < np.inf for length in lengths):
        raise InvalidSettingError(f"expected positive lengths in a known unit, got {size}")
    return size.y * factor, size.x * factor, None if z_size is None else z_size * factor


def _write_imagej(
    file: Any, array: NDArray[Any], axes: str, sizes: tuple[float, float, float | None] | None
) -> None:
    metadata: dict[str, Any] = {"axes": axes, "mode": "grayscale"}
    options: dict[str, Any] = {}
    if sizes is not None:
        metadata["unit"] = "um"
        options["resolution"] = (1 / sizes[1], 1 / sizes[0])
        if sizes[2] is not None:
            metadata["spacing"] = sizes[2]
    tifffile.imwrite(file, array, imagej=True, metadata=metadata, compression="zlib", **options)


def _write_ome(
    file: Any, array: NDArray[Any], axes: str, sizes: tuple[float, float, float | None] | None
) -> None:
    metadata: dict[str, Any] = {"axes": axes}
    options: dict[str, Any] = {}
    if sizes is not None:
        for axis, length in zip("YXZ", sizes, strict=True):
            if length is not None:
                metadata[f"PhysicalSize{axis}"] = length
                metadata[f"PhysicalSize{axis}Unit"] = "µm"
        options["resolution"] = (1e4 / sizes[1], 1e4 / sizes[0])
        options["resolutionunit"] = "CENTIMETER"
    tifffile.imwrite(
        file,
        array,
        ome=True,
        metadata=metadata,
        compression="zlib",
        photometric="minisblack",
        bigtiff=array.nbytes >= _LARGEST_IMAGEJ,
        **options,
    )
