"""Tables as CSV files."""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from phasesam.core.errors import FileFormatError, InvalidSettingError
from phasesam.formats.atomic import atomic_file

_DELIMITERS = ",;\t"
_SAID = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


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


def read_table_csv(path: Path, required: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read a table with one header line.

    Parameters
    ----------
    path : Path
        Separated by commas, semicolons or tabs, as a first line ``sep=;`` may say; UTF-8, or
        UTF-16 with its mark, as spreadsheets write it.
    required : sequence of str
        Columns that must be there.

    Returns
    -------
    list of dict
        Cells by column, stripped; names of columns in lower case. Empty lines are left out.

    Raises
    ------
    FileFormatError
        If it cannot be read or a column is missing.
    """
    lines = _text(path).splitlines()
    said = _SAID.fullmatch(lines[0].strip(" ")) if lines else None
    lines = lines[1:] if said else lines
    delimiter = said[1] if said else max(_DELIMITERS, key=(lines[0] if lines else "").count)
    table = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    table = [row for row in table if any(row)]
    names = [name.lower() for name in table[0]] if table else []
    missing = [name for name in required if name not in names]
    if missing:
        raise FileFormatError(
            f"{path.name}: expected a header with the columns {', '.join(required)}, "
            f"got {', '.join(names) or 'an empty file'}"
        )
    for number, row in enumerate(table[1:], start=2):
        if len(row) > len(names):
            raise FileFormatError(
                f"{path.name}: expected {len(names)} cells per row, got {len(row)} in row {number}"
            )
    padded = (row + [""] * (len(names) - len(row)) for row in table[1:])
    return [dict(zip(names, row, strict=True)) for row in padded]


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileFormatError(f"{path.name}: cannot be opened: {error.strerror}") from error
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    with suppress(UnicodeDecodeError):
        text = content.decode("utf-16" if marked else "utf-8-sig")
        if "\0" not in text:
            return text
    # No guessing at other encodings: wrong letters would become names of classes.
    raise FileFormatError(
        f"{path.name}: expected a CSV text in UTF-8; in a spreadsheet, save it as CSV UTF-8"
    )
