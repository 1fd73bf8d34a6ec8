"""Tables beside training images: which image belongs to which labels, split and specimen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from phasesam.core.errors import FileFormatError, TrainingDataError
from phasesam.formats.tables import read_table_csv

TRAIN, VAL, TEST = "train", "val", "test"

_SYNONYMS = {
    "training": TRAIN,
    "validation": VAL,
    "valid": VAL,
    "validate": VAL,
    "dev": VAL,
    "testing": TEST,
}

Row = dict[str, str]


def read_table(path: Path, required: Sequence[str]) -> list[Row]:
    """Read a CSV file with a header line.

    Parameters
    ----------
    path : Path
        See `read_table_csv`.
    required : sequence of str
        Columns that must be there.

    Returns
    -------
    list of dict
        Cells by column, stripped; names of columns in lower case. Empty lines are left out.

    Raises
    ------
    TrainingDataError
        If it cannot be read or a column is missing.
    """
    try:
        return read_table_csv(path, required)
    except FileFormatError as error:
        raise TrainingDataError(str(error)) from error


def rows_of_experiment(rows: list[Row], experiment: str | None, name: str) -> list[Row]:
    """Keep the rows of one experiment.

    Parameters
    ----------
    rows : list of dict
        Rows of a table, with or without the column ``experiment``.
    experiment : str or None
        Which one; None when there is one only.
    name : str
        Name of the table for messages.

    Raises
    ------
    TrainingDataError
        If there are several and none was chosen, or no such one.
    """
    known = list(dict.fromkeys(row["experiment"] for row in rows if row.get("experiment")))
    if experiment is None:
        if len(known) > 1:
            raise TrainingDataError(
                f"{name} holds the experiments {', '.join(known)}: choose one with experiment"
            )
        return rows
    if experiment not in known:
        raise TrainingDataError(
            f"expected an experiment of {name}, got {experiment!r}; "
            + (f"there are {', '.join(known)}" if known else "it has no column experiment")
        )
    return [row for row in rows if row["experiment"] == experiment]


def split_name(text: str) -> str:
    """Bring the name of a split to ``train``, ``val`` or ``test``; others stay, in lower case."""
    name = text.strip().lower()
    return _SYNONYMS.get(name, name)


def path_in(folder: Path, cell: str, table: str) -> Path:
    """Find the file that a cell names, relative to the folder of the table.

    Raises
    ------
    TrainingDataError
        If it is empty, leads out of the folder without being absolute, or does not exist.
    """
    if not cell:
        raise TrainingDataError(f"{table}: expected a file name, got an empty cell")
    path = Path(cell)
    if "\\" in cell and not (folder / path).exists():
        path = Path(PureWindowsPath(cell).as_posix())
    if not path.is_absolute():
        depth = 0
        for part in path.parts:
            depth += -1 if part == ".." else 1
            if depth < 0:
                raise TrainingDataError(
                    f"{table}: expected a path within {folder} or an absolute one, got {cell}"
                )
        path = folder / path
    if not path.exists():
        raise TrainingDataError(f"{table}: {cell} does not exist in {folder}")
    return path


def read_class_names(path: Path) -> dict[int, str]:
    """Read a table with the columns ``value`` and ``name``.

    Raises
    ------
    TrainingDataError
        If it cannot be read, a value is no whole number or comes twice.
    """
    names: dict[int, str] = {}
    for row in read_table(path, ("value", "name")):
        try:
            value = int(row["value"])
        except ValueError as error:
            raise TrainingDataError(
                f"{path.name}: expected whole numbers as values, got {row['value']!r}"
            ) from error
        if value in names:
            raise TrainingDataError(f"{path.name}: value {value} comes twice")
        names[value] = row["name"] or f"class {value}"
    if not names:
        raise TrainingDataError(f"{path.name}: expected at least one class, got none")
    return names
