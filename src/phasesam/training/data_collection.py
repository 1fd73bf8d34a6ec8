"""Pairs of image and labels, whatever kind of place they are in."""

from __future__ import annotations

from pathlib import Path

from phasesam.core.errors import InvalidSettingError, TrainingDataError
from phasesam.formats.signatures import image_format
from phasesam.training.data_coco import pairs_in_coco
from phasesam.training.data_pairs import (
    Choice,
    Collection,
    has_label_folder,
    pair_of_files,
    pairs_in_folder,
    pairs_in_table,
)
from phasesam.training.label_values import Task


def collect(path: Path, choice: Choice, task: Task) -> Collection:
    """Find images and labels, and the names of the classes if they are there.

    Parameters
    ----------
    path : Path
        Folder, table, COCO file, image or stack; see `read_training_data`.
    choice : Choice
        Which of several.
    task : {"promptable", "instance", "semantic"}
        What is learnt.

    Raises
    ------
    TrainingDataError
        If there is nothing of that kind.
    InvalidSettingError
        If something was chosen that such a place does not have.
    FileFormatError
        If a file is damaged.
    """
    if path.is_dir():
        documents = sorted(path.glob("*.json"))
        has_labels = (path / "data.csv").is_file() or choice.labels is not None
        if len(documents) == 1 and not has_labels and not has_label_folder(path):
            return _in_coco(documents[0], choice, task)
        return pairs_in_folder(path, choice)
    if not path.exists():
        raise TrainingDataError(f"{path}: expected a folder, table or image, found nothing")
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        _refuse(path, "a table says itself which labels", choice.labels)
        return pairs_in_table(path, choice)
    if path.suffix.lower() == ".json":
        return _in_coco(path, choice, task)
    if image_format(path) is not None:
        _refuse(path, "only a table holds experiments", choice.experiment)
        return pair_of_files(path, choice)
    raise TrainingDataError(
        f"{path.name}: expected a folder, a CSV table, a COCO file or an image, got something else"
    )


def _in_coco(path: Path, choice: Choice, task: Task) -> Collection:
    _refuse(path, "a COCO file holds its labels itself", choice.labels)
    _refuse(path, "only a table holds experiments", choice.experiment)
    return pairs_in_coco(path, task)


def _refuse(path: Path, why: str, chosen: str | None) -> None:
    if chosen is not None:
        raise InvalidSettingError(f"{path.name}: {why}; {chosen!r} does not apply")
