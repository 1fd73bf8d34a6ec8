"""Read wanted shares of phases from a CSV file, such as those of a point count."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from phasesam.core.class_names import class_named
from phasesam.core.errors import FileFormatError
from phasesam.formats.tables import read_table_csv

_NAMES = ("phase", "class", "name")
_SHARES = ("fraction", "share", "wanted", "percent", "%")
_ERRORS = ("standard_error", "error", "uncertainty")


def read_shares_csv(
    path: str | os.PathLike[str], classes: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Read share and standard error of each phase that a file names.

    Parameters
    ----------
    path : path-like
        A header line, then one line for each phase: its name in a column ``phase`` (or
        ``class``, ``name``), its share in ``fraction`` (``share``, ``wanted``; 0–1) or
        ``percent`` (``%``), and, if there is one, its standard error in ``standard_error``
        (``error``, ``uncertainty``), in the unit of the share. A number with a % sign is in per
        cent, whatever the column.
    classes : sequence of str
        Names of the phases of the model; case does not count.

    Returns
    -------
    dict
        By name as in `classes`: share and standard error, 0–1.

    Raises
    ------
    FileFormatError
        If it cannot be read, a column is missing, a number is none, or a phase is unknown.
    """
    return _shares(path, list(enumerate(_rows(path), start=2)), classes)


def read_image_shares_csv(
    path: str | os.PathLike[str], classes: Sequence[str]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Read share and standard error of phases in several images.

    Parameters
    ----------
    path : path-like
        As for `read_shares_csv`, with the name of the image in a column ``image``, and one line
        for each phase of each image.
    classes : sequence of str
        Names of the phases of the model; case does not count.

    Returns
    -------
    dict of dict
        By name of the image as it is in the file, then by name of the phase: share and standard
        error, 0–1.

    Raises
    ------
    FileFormatError
        If it cannot be read, a column is missing, a number is none, or a phase is unknown.
    """
    by_image: dict[str, list[_Row]] = {}
    for number, row in enumerate(_rows(path, ["image"]), start=2):
        by_image.setdefault(row["image"], []).append((number, row))
    return {image: _shares(path, rows, classes) for image, rows in by_image.items()}


_Row = tuple[int, dict[str, str]]


def _rows(path: str | os.PathLike[str], required: Sequence[str] = ()) -> list[dict[str, str]]:
    rows = read_table_csv(Path(path), required)
    if not rows:
        raise FileFormatError(f"{path} has no rows of phases")
    return rows


def _shares(
    path: str | os.PathLike[str], rows: Sequence[_Row], classes: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Read the lines about one image."""
    columns = rows[0][1]
    name_column, share_column = _column(columns, _NAMES, path), _column(columns, _SHARES, path)
    error_column = next((name for name in _ERRORS if name in columns), None)
    scale = 0.01 if share_column in ("percent", "%") else 1.0
    found: dict[str, tuple[float, float]] = {}
    for number, row in rows:
        name = class_named(row[name_column], classes)
        if name is None or name in found:
            what = "twice" if name else "which is none of " + ", ".join(classes)
            raise FileFormatError(f"{path}, line {number}: {row[name_column]!r}, {what}")
        where, text = f"{path}, line {number}", row[share_column]
        spread = row[error_column] if error_column else ""
        share, error = _share(text, scale, where), _share(spread or "0", scale, where)
        if error and scale == 1 and text.endswith("%") and not spread.endswith("%"):
            # 25% and 0.02: of which unit?
            raise FileFormatError(
                f"{where}: expected a standard error with a % sign, as the share has one, got "
                f"{spread!r}"
            )
        found[name] = share, error
    return found


def _column(columns: dict[str, str], names: Sequence[str], path: str | os.PathLike[str]) -> str:
    for name in names:
        if name in columns:
            return name
    raise FileFormatError(
        f"{path}: expected a column {' or '.join(names)}, got {', '.join(columns)}"
    )


def _share(text: str, scale: float, where: str) -> float:
    if text.endswith("%"):
        scale = 0.01
    try:
        value = float(text.removesuffix("%")) * scale
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        limit = "0–100" if scale < 1 else "0–1"
        raise FileFormatError(f"{where}: expected a number within {limit}, got {text!r}")
    return value
