"""Tell what a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import os
from pathlib import Path

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"\x93NUMPY", "NPY"),
)
_OTHER_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"%PDF", "a PDF document"),
    (b"GIF8", "a GIF animation"),
    (b"RIFF", "a RIFF file"),
    (b"<?xml", "an XML text"),
    (b"<", "a web page or XML text"),
)
_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")


def image_format(path: str | os.PathLike[str]) -> str | None:
    """Name the format of a file that `read_image` reads.

    Parameters
    ----------
    path : path-like
        File or folder.

    Returns
    -------
    {"TIFF", "PNG", "JPEG", "BMP", "NPY", "Zarr"} or None
        None for everything else, also for folders of slices and files that cannot be
        opened.
    """
    path = Path(path)
    if path.is_dir():
        return "Zarr" if any((path / name).is_file() for name in _ZARR_FILES) else None
    try:
        head = _head(path)
    except OSError:
        return None
    return next((name for start, name in _SIGNATURES if head.startswith(start)), None)


def describe_content(path: Path) -> str:
    """Say what a file that is no image contains, for error messages.

    Raises
    ------
    OSError
        If it cannot be opened.
    """
    head = _head(path)
    if not head:
        return "the file is empty"
    for start, name in _OTHER_SIGNATURES:
        if head.startswith(start):
            return f"it is {name}"
    return f"it begins with {head[:8]!r}"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)
