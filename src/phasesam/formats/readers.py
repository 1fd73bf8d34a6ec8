"""Open any micrograph file: by its content, with pixel size, stacks lazily."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import FileFormatError
from phasesam.formats.micrograph_file import MicrographFile
from phasesam.formats.picture_reader import read_npy, read_picture
from phasesam.formats.signatures import describe_content, image_format
from phasesam.formats.slices import check_slices, checked_slice, natural_key, slice_files
from phasesam.formats.tiff_reader import BROKEN, read_tiff
from phasesam.formats.zarr_reader import read_zarr


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Tell from the content whether `read_image` reads a file or Zarr folder."""
    return image_format(path) is not None


def read_image(path: str | os.PathLike[str]) -> MicrographFile:
    """Read a micrograph, a stack or a folder of slices.

    TIFF (with metadata of FEI/Thermo Fisher, Zeiss, TESCAN, JEOL, Hitachi, ImageJ and
    OME), PNG, JPEG, BMP, NPY and Zarr are recognised by their content, not by their name.

    Parameters
    ----------
    path : path-like
        File, or folder with one image per slice.

    Returns
    -------
    MicrographFile
        Single planes are loaded, stacks are dask arrays that read a plane when it is
        needed.

    Raises
    ------
    FileFormatError
        If it does not exist, is of another format, truncated or otherwise damaged. The
        message names the file and the reason.
    """
    path = Path(path)
    kind = image_format(path)
    try:
        if kind is None and path.is_dir():
            return _read_folder(path)
        if kind is None:
            raise FileFormatError(f"{describe_content(path)}, not an image that can be read")
        return _read(path, kind)
    except FileFormatError as error:
        if str(error).startswith(f"{path.name}: "):
            raise
        raise FileFormatError(f"{path.name}: {error}") from error
    except BROKEN as error:
        what = f"cannot be read as {kind}" if kind else "cannot be opened"
        raise FileFormatError(f"{path.name}: {what}: {_reason(error)}") from error


def read_slices(paths: Sequence[str | os.PathLike[str]], name: str = "") -> MicrographFile:
    """Read files with one plane each as a stack, in natural order of their names.

    Parameters
    ----------
    paths : sequence of path-like
        The slices; at least one.
    name : str
        What to call the stack; the name of the folder when left out.

    Returns
    -------
    MicrographFile
        Lazy, with the metadata of the first slice.

    Raises
    ------
    FileFormatError
        If there are none, one cannot be read, or they differ in size.
    """
    files = sorted((Path(path) for path in paths), key=natural_key)
    if not files:
        raise FileFormatError("expected at least one slice, got none")
    first = read_image(files[0])
    try:
        check_slices(files, first)
    except FileFormatError:
        raise
    except BROKEN as error:
        raise FileFormatError(f"{files[0].parent.name}: {_reason(error)}") from error
    return MicrographFile(
        data=_stacked(files, first),
        name=name or files[0].parent.name,
        path=files[0].parent,
        is_rgb=first.is_rgb,
        pixel_size=first.pixel_size,
        z_size=first.z_size,
        data_bar=first.data_bar,
        metadata={**first.metadata, "format": f"{len(files)} slices"},
    )


def _read(path: Path, kind: str) -> MicrographFile:
    name = path.stem
    for ending in (".ome", ".OME"):
        name = name.removesuffix(ending)
    if kind == "TIFF":
        return read_tiff(path, name)
    if kind == "NPY":
        return read_npy(path, name)
    if kind == "Zarr":
        return read_zarr(path, name)
    return read_picture(path, name, kind)


def _read_folder(folder: Path) -> MicrographFile:
    files = slice_files(folder)
    if not files:
        raise FileFormatError("the folder contains no images")
    return read_slices(files, folder.resolve().name)


def _stacked(files: Sequence[Path], first: MicrographFile) -> Any:
    """Dask array with one chunk per file."""
    import dask.array as da
    from dask.base import tokenize

    def load(block_id: tuple[int, ...]) -> NDArray[Any]:
        index = block_id[0]
        plane = first if index == 0 else read_image(files[index])
        return checked_slice(plane, first)[None]

    shape, dtype = first.data.shape, first.data.dtype
    chunks = ((1,) * len(files), *((side,) for side in shape))
    stamps = [(str(path), path.stat().st_mtime_ns) for path in files]
    return da.map_blocks(
        load, chunks=chunks, dtype=dtype, name=f"slices-{tokenize(stamps)}", meta=np.zeros(0, dtype)
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
