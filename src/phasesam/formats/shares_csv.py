"""Read wanted shares of phases from a CSV file, such as those of a point count."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

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
        (``error``, ``uncertainty``), in the unit of the share.
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
    rows = read_table_csv(Path(path))
    if not rows:
        raise FileFormatError(f"{path} has no rows of phases")
    name_column, share_column = _column(rows[0], _NAMES, path), _column(rows[0], _SHARES, path)
    error_column = next((name for name in _ERRORS if name in rows[0]), None)
    scale = 0.01 if share_column in ("percent", "%") else 1.0
    known = {name.casefold(): name for name in classes}
    found: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows, start=2):
        name = known.get(row[name_column].casefold())
        if name is None or name in found:
            what = "twice" if name else "which is none of " + ", ".join(classes)
            raise FileFormatError(f"{path}, line {number}: {row[name_column]!r}, {what}")
        share = _share(row[share_column], scale, f"{path}, line {number}")
        spread = row[error_column] if error_column else ""
        found[name] = (
            share,
            _share(spread, scale, f"{path}, line {number}") if spread else 0.0,
        )
    return found


def _column(columns: dict[str, str], names: Sequence[str], path: str | os.PathLike[str]) -> str:
    for name in names:
        if name in columns:
            return name
    raise FileFormatError(
        f"{path}: expected a column {' or '.join(names)}, got {', '.join(columns)}"
    )


def _share(text: str, scale: float, where: str) -> float:
    try:
        value = float(text.rstrip("%")) * scale
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        limit = "0–100" if scale < 1 else "0–1"
        raise FileFormatError(f"{where}: expected a number within {limit}, got {text!r}")
    return value
