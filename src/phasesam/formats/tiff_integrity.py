"""Notice truncated TIFF files before anybody computes with what is left of them.

tifffile reads as many pages as it can find and only logs what is missing.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np
import tifffile

from phasesam.core.errors import FileFormatError

_MOST_TAGS = 4096


def check_complete(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Make sure that all directories and all pixels lie within the file.

    Parameters
    ----------
    tif : TiffFile
        The file.
    series : TiffPageSeries
        The images of it that will be read.

    Raises
    ------
    FileFormatError
        If something lies beyond its end. The message says what.
    """
    with open(tif.filehandle.path, "rb") as file:
        _check_directories(file, tif)
    _check_pixels(series)
    stated = int((tif.imagej_metadata or {}).get("images", 1))
    present = series.size // max(1, series.keyframe.size)
    if stated > present:
        raise FileFormatError(f"the file is truncated: {present} of {stated} planes are there")


def _check_directories(file: BinaryIO, tif: tifffile.TiffFile) -> None:
    """Follow the chain from one page's directory to the next."""
    order = tif.byteorder
    count, link, entry = ("Q", "Q", 20) if tif.is_bigtiff else ("H", "I", 12)
    size = tif.filehandle.size
    seen: set[int] = set()
    offset = tif.pages.first.offset
    while offset and offset not in seen:
        seen.add(offset)
        file.seek(offset)
        head = file.read(struct.calcsize(count))
        n_tags = struct.unpack(order + count, head)[0] if len(head) == struct.calcsize(count) else 0
        end = offset + len(head) + n_tags * entry + struct.calcsize(link)
        if not 0 < n_tags <= _MOST_TAGS or end > size:
            raise FileFormatError(
                f"the file is truncated or damaged: the directory of page {len(seen)} is missing"
            )
        file.seek(end - struct.calcsize(link))
        offset = struct.unpack(order + link, file.read(struct.calcsize(link)))[0]


def _check_pixels(series: tifffile.TiffPageSeries) -> None:
    for page in (series.keyframe, series.pages[-1]):
        if page is None or not page.dataoffsets:
            continue
        end = int(np.add(page.dataoffsets, page.databytecounts, dtype=np.int64).max())
        if series.dataoffset is not None:
            end = max(end, int(series.dataoffset) + int(series.nbytes))
        size = page.parent.filehandle.size
        if end > size:
            raise FileFormatError(f"the file is truncated: it ends at byte {size} of {end}")
