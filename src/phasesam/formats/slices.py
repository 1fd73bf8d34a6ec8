"""Folders and lists of files with one slice each, as one lazy stack."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from phasesam.core.errors import FileFormatError
from phasesam.formats.micrograph_file import MicrographFile
from phasesam.formats.picture_reader import picture_shape
from phasesam.formats.signatures import image_format

_OWN_LABELS = "_labels.tif"
_OWN_RESULTS = (_OWN_LABELS, "_overlay.png")


def slice_files(folder: Path) -> list[Path]:
    """List the images in a folder in natural order, without hidden files and own results.

    Parameters
    ----------
    folder : Path
        Where to look; folders in it are left out. Where there is nothing but own results, its
        labels are slices, too.
    """
    files = [
        path
        for path in folder.iterdir()
        if path.is_file()
        and not path.name.startswith((".", "~"))
        and image_format(path) is not None
    ]
    images = [path for path in files if not path.name.lower().endswith(_OWN_RESULTS)]
    labels = [path for path in files if path.name.lower().endswith(_OWN_LABELS)]
    return sorted(images or labels, key=natural_key)


def stem_of(path: Path) -> str:
    """Name of an image without its ending, all of it: ``.ome.tif``."""
    name = path.name or path.resolve().name
    for ending in (".ome.tiff", ".ome.tif"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    # Path.is_dir may be refused permission.
    return name if os.path.isdir(path) else Path(name).stem


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Key that sorts ``slice2`` before ``slice10``."""
    parts = re.split(r"(\d+)", path.name.casefold())
    # Superscripts are digits but no decimals, to \d and to int().
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def check_slices(paths: Sequence[Path], first: MicrographFile) -> None:
    """Make sure that all slices have the shape of the first, from their headers.

    Parameters
    ----------
    paths : sequence of Path
        The slices.
    first : MicrographFile
        The first of them.

    Raises
    ------
    FileFormatError
        If one differs or is itself a stack; the message names it and both shapes.
    """
    if first.is_stack:
        raise FileFormatError(
            f"{paths[0].name} is itself a stack of {first.stack_shape} planes; "
            "a folder of slices needs files with one plane each"
        )
    expected = first.plane_shape
    for path in paths[1:]:
        shape = _header_shape(path)
        if shape is not None and shape != expected:
            raise FileFormatError(
                f"slices must have the same size: {paths[0].name} is "
                f"{expected[0]} × {expected[1]} pixels, {path.name} is {shape[0]} × {shape[1]}"
            )


def _header_shape(path: Path) -> tuple[int, int] | None:
    kind = image_format(path)
    if kind == "TIFF":
        with tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            return page.imagelength, page.imagewidth
    if kind in ("PNG", "JPEG", "BMP"):
        return picture_shape(path, kind)
    return None


def checked_slice(plane: MicrographFile, first: MicrographFile) -> NDArray[Any]:
    """Take the array of a slice, if it fits the first one.

    Raises
    ------
    FileFormatError
        If shape or dtype differ.
    """
    data = plane.data
    if data.shape != first.data.shape or data.dtype != first.data.dtype:
        raise FileFormatError(
            f"{plane.path.name} is {data.shape} {data.dtype}, but {first.path.name} is "
            f"{first.data.shape} {first.data.dtype}"
        )
    return np.asarray(data)
