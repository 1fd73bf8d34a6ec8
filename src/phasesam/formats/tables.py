"""Tables as CSV files."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from phasesam.core.errors import InvalidSettingError
from phasesam.formats.atomic import atomic_file


def save_table_csv(path: str | os.PathLike[str], columns: Mapping[str, ArrayLike]) -> None:
    """Write a table with one header line.

    Parameters
    ----------
    path : path-like
        File to write; replaced in one piece.
    columns : mapping of str to (n,) array-like
        Columns by name; names end in their unit, such as ``area_um2``. Numbers are
        written with nine digits, NaN as an empty cell, truth as 1 and 0.

    Raises
    ------
    InvalidSettingError
        If the columns differ in length.
    SaveError
        If it cannot be written; an older file is then intact.
    """
    cells = {
        name: [_cell(v) for v in np.asarray(column).tolist()] for name, column in columns.items()
    }
    lengths = {name: len(column) for name, column in cells.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidSettingError(f"columns must have the same length, got {lengths}")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(cells)
    writer.writerows(zip(*cells.values(), strict=True))
    with atomic_file(path) as file:
        file.write(text.getvalue().encode("utf-8"))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return "" if math.isnan(value) else format(value, ".9g")
    return str(value)
