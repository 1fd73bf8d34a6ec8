"""Drag and drop: micrographs and stacks become Image layers in micrometres."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from phasesam.core.errors import FileFormatError, PhaseSAMError
from phasesam.formats.micrograph_file import MicrographFile
from phasesam.formats.readers import is_image_file, read_image, read_slices
from phasesam.formats.slices import slice_files

LayerData = tuple[Any, dict[str, Any], str]

_AXES = ("t", "z", "y", "x")
_LIMITS = (0.1, 99.9)
_SAMPLES = 512
# How PhaseSAM names the label images it writes.
_LABELS = "_labels"
# Files that must be images: if one is none, it is better to say so than to say nothing.
_ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".npy")


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Offer a reader for files and folders that hold images, whatever their names say.

    Files that are called images and are none, and empty folders, are taken too: the reader
    then tells why they cannot be read.

    Parameters
    ----------
    path : str or list of str
        A file, a folder of slices or a Zarr folder; a list if the user wants a stack.

    Returns
    -------
    callable or None
        None leaves the path to other readers.
    """
    paths = path if isinstance(path, list) else [path]
    return read if paths and all(_is_readable(Path(one)) for one in paths) else None


def read(path: str | list[str]) -> list[LayerData]:
    """Read a file, a folder, or several files as one stack.

    Returns
    -------
    list of (array, dict, str)
        One Image layer with scale, units and axis labels; stacks stay lazy. A file called
        ``..._labels`` or ``labels`` that holds integers becomes a Labels layer.

    Raises
    ------
    FileFormatError
        If a file is damaged or no image, its numbers cannot be shown, or the slices do not
        fit together.
    """
    if isinstance(path, list):
        return [as_layer(read_slices(path) if len(path) > 1 else read_image(path[0]))]
    return [as_layer(read_image(path))]


def as_layer(image: MicrographFile) -> LayerData:
    """Turn what was read into napari's layer data.

    Raises
    ------
    FileFormatError
        If the pixels are complex numbers.
    """
    if image.data.dtype.kind == "c":
        raise FileFormatError(
            f"{image.path.name}: expected real numbers, got complex ones ({image.data.dtype}). "
            "Save their magnitude or phase instead."
        )
    size, ndim = image.pixel_size, len(image.stack_shape) + 2
    options: dict[str, Any] = {
        "name": image.name,
        "rgb": image.is_rgb,
        "metadata": {"micrograph": {"path": str(image.path), **image.metadata}},
    }
    if ndim <= len(_AXES):
        options["axis_labels"] = _AXES[-ndim:]
    if size.is_physical:
        # Without a distance of the planes, cubes are the best guess for a 3-D view.
        z = image.z_size if image.z_size is not None else (size.y + size.x) / 2
        leading = [1.0] * (ndim - 3) + ([z] if ndim > 2 else [])
        units = ["pixel"] * (ndim - 3) + ([size.unit] if ndim > 2 else [])
        options["scale"] = (*leading, size.y, size.x)
        options["units"] = (*units, size.unit, size.unit)
    limits = _contrast_limits(image)
    if limits is not None:
        options["contrast_limits"] = limits
    if (
        f"_{image.name}".lower().endswith(_LABELS)
        and image.data.dtype.kind in "iu"
        and not image.is_rgb
    ):
        del options["rgb"]
        options.pop("contrast_limits", None)
        return image.data, options, "labels"
    return image.data, options, "image"


def _is_readable(path: Path) -> bool:
    try:
        if path.is_dir():
            return is_image_file(path) or bool(slice_files(path)) or not any(path.iterdir())
        return is_image_file(path) or (path.is_file() and path.suffix.lower() in _ENDINGS)
    except (PhaseSAMError, OSError):
        return False


def _contrast_limits(image: MicrographFile) -> tuple[float, float] | None:
    """Limits from one plane, so that neither hot pixels nor the data bar decide."""
    if image.is_rgb or image.data.dtype.kind not in "iuf":
        return None
    plane = image.plane(tuple(n // 2 for n in image.stack_shape))
    step = [max(1, n // _SAMPLES) for n in plane.shape]
    values = plane[: image.data_bar : step[0], :: step[1]].astype(np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return None
    low, high = (float(v) for v in np.percentile(values, _LIMITS))
    return (low, high) if high > low else None
