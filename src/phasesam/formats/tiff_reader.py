"""TIFF files: single planes as arrays, stacks lazily plane by plane."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from phasesam.core.errors import FileFormatError
from phasesam.formats.micrograph_file import MicrographFile, calibrated
from phasesam.formats.tiff_calibration import calibration, plain_calibration
from phasesam.formats.tiff_integrity import check_complete
from phasesam.formats.vendor_metadata import embedded_metadata, sidecar_metadata

if TYPE_CHECKING:
    import dask.array as da

_MINISWHITE, _PALETTE = 0, 3

BROKEN = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    ArithmeticError,
    MemoryError,
    SyntaxError,
    struct.error,
    zlib.error,
)
"""What the libraries raise on damaged files."""


def read_tiff(path: Path, name: str) -> MicrographFile:
    """Read a TIFF file.

    Of several images of different size in one file, such as a micrograph and its
    thumbnail, the largest is taken. Errors are those of tifffile; `read_image` turns
    them into one kind.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What to call it.
    """
    with tifffile.TiffFile(path) as tif:
        series = max(tif.series, key=lambda s: (s.keyframe.size, s.size))
        check_complete(tif, series)
        axes = series.axes
        single = len(series.pages) == 1 and set(axes) <= set("YXS") and series.size > 0
        data: Any = series.asarray() if single else _lazy(path, series)
        data, is_rgb = _order_axes(data, axes)
        data, is_rgb = _apply_photometry(data, is_rgb, series.keyframe, tif.is_imagej)
        return _with_metadata(tif, path, name, data, is_rgb)


def read_tiff_plane(path: str, offset: int) -> NDArray[Any]:
    """Read the page whose directory lies at ``offset`` bytes, without searching for it."""
    with tifffile.TiffFile(path) as tif:
        tif.filehandle.seek(offset)
        return tifffile.TiffPage(tif, 0).asarray()


def _lazy(path: Path, series: tifffile.TiffPageSeries) -> da.Array:
    """Stack as a dask array with one chunk per page."""
    import dask.array as da

    shape, page_shape = series.shape, series.keyframe.shape
    if series.dataoffset is not None and series.keyframe.is_memmappable and not series.is_multifile:
        stored = series.dtype.newbyteorder(series.keyframe.parent.byteorder)
        mapped = np.memmap(path, stored, "r", series.dataoffset, shape)
        inner = page_shape if shape[-len(page_shape) :] == page_shape else shape[-2:]
        chunks = (*(1 for _ in shape[: -len(inner)]), *inner)
        native = mapped.dtype.newbyteorder("=")
        return da.from_array(mapped, chunks=chunks, name=_token(path)).astype(native)
    sources = [
        None if page is None else (str(page.parent.filehandle.path), page.offset)
        for page in series.pages
    ]
    pages = lazy_planes(sources, page_shape, series.dtype.newbyteorder("="), _token(path))
    return pages.reshape(shape)


def lazy_planes(
    sources: Sequence[tuple[str, int] | None],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    token: str,
) -> da.Array:
    """Make a dask array of pages, (n, ...), that are read when they are needed.

    Parameters
    ----------
    sources : sequence of (str, int) or None
        File and offset of each page; zeros where there is none.
    shape : tuple of int
        Shape of a page.
    dtype : dtype
        Of the result.
    token : str
        Name of the array in dask's graph.
    """
    import dask.array as da

    def load(block_id: tuple[int, ...]) -> NDArray[Any]:
        source = sources[block_id[0]]
        if source is None:
            return np.zeros((1, *shape), dtype)
        try:
            plane = read_tiff_plane(*source)
        except BROKEN as error:
            name = Path(source[0]).name
            raise FileFormatError(f"{name}: plane {block_id[0]} cannot be read: {error}") from error
        return plane.astype(dtype, copy=False).reshape(1, *shape)

    chunks = ((1,) * len(sources), *((side,) for side in shape))
    return da.map_blocks(load, chunks=chunks, dtype=dtype, name=token, meta=np.zeros((0,), dtype))


def _token(path: Path) -> str:
    """Name for dask's graph that changes when the file does."""
    from dask.base import tokenize

    status = path.stat()
    return f"tiff-{tokenize(str(path.resolve()), status.st_mtime_ns, status.st_size)}"


def _order_axes(data: Any, axes: str) -> tuple[Any, bool]:
    """Bring axes into the order (..., y, x, colour)."""
    colour = axes.find("S")
    is_rgb = colour >= 0 and data.shape[colour] in (3, 4)
    last = [axes.index("Y"), axes.index("X"), *([colour] if is_rgb else [])]
    first = [i for i in range(len(axes)) if i not in last]
    return data.transpose(*first, *last), is_rgb


def _apply_photometry(
    data: Any, is_rgb: bool, page: tifffile.TiffPage, is_imagej: bool
) -> tuple[Any, bool]:
    """Show palettes and inverted greys as they are meant; ImageJ's are only for display."""
    if is_imagej or is_rgb:
        return data, is_rgb
    if page.photometric == _MINISWHITE and data.dtype.kind in "ub":
        return (~data, False)
    if page.photometric == _PALETTE and page.colormap is not None and data.dtype == np.uint8:
        colours = np.asarray(page.colormap).T
        palette = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
        if (palette == palette[:, :1]).all():
            return _look_up(data, palette[:, 0]), False
        return _look_up(data, palette), True
    return data, is_rgb


def _look_up(data: Any, table: NDArray[np.uint8]) -> Any:
    if isinstance(data, np.ndarray):
        return table[data]
    if table.ndim == 1:
        return data.map_blocks(lambda block: table[block], dtype=table.dtype)
    chunks = (*data.chunks, (table.shape[1],))
    return data.map_blocks(
        lambda block: table[block], dtype=table.dtype, chunks=chunks, new_axis=data.ndim
    )


def _with_metadata(
    tif: tifffile.TiffFile, path: Path, name: str, data: Any, is_rgb: bool
) -> MicrographFile:
    """Add what the file and its companions say about sizes."""
    metadata: dict[str, Any] = {"format": "TIFF"}
    size, z_size, data_bar = None, None, None
    vendor, general = embedded_metadata(tif), calibration(tif)
    if vendor is None and general is None:
        vendor = sidecar_metadata(path)
    if vendor is not None:
        height, width = (data.shape[:-1] if is_rgb else data.shape)[-2:]
        size, data_bar = vendor.fit_to(int(height), int(width))
        metadata.update(vendor=vendor.vendor, fields=vendor.fields)
        metadata["pixel_size_source"] = vendor.vendor
    if size is None:
        general = general or plain_calibration(tif)
        metadata.pop("pixel_size_source", None)
    if general is not None:
        z_size = general.z_size_um
        if size is None:
            size = general.pixel_size_um
            metadata["pixel_size_source"] = general.source
    return MicrographFile(
        data=data,
        name=name,
        path=path,
        is_rgb=is_rgb,
        pixel_size=calibrated(size),
        z_size=z_size,
        data_bar=data_bar,
        metadata=metadata,
    )
