"""Images and labels that a COCO file describes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from phasesam.core.errors import TrainingDataError
from phasesam.formats.coco import CocoImage, load_coco
from phasesam.formats.signatures import image_format
from phasesam.training.data_pairs import Collection
from phasesam.training.data_sources import ImageFile, MaskLabels
from phasesam.training.data_stacks import Pair
from phasesam.training.label_values import UNLABELLED, Task

BACKGROUND = "background"


def pairs_in_coco(path: Path, task: Task) -> Collection:
    """Read a COCO file whose images lie beside it, or in ``images`` beside it.

    Every annotation is an object. For semantic labels its category is its class, and
    what no annotation covers is the class ``background``. Crowds are unlabelled.

    Parameters
    ----------
    path : Path
        COCO file.
    task : {"promptable", "instance", "semantic"}
        Whether annotations are objects or parts of a class.

    Raises
    ------
    TrainingDataError
        If an image is missing.
    FileFormatError
        If it is no COCO file.
    """
    images = load_coco(path)
    document = json.loads(path.read_bytes())
    categories = sorted(document.get("categories", ()), key=lambda entry: int(entry["id"]))
    classes = {0: BACKGROUND}
    for entry in categories:
        if str(entry["name"]) not in classes.values():
            classes[len(classes)] = str(entry["name"])
    crowds = _crowds(document)
    pairs, empty, missing = [], [], []
    known: Counter[str] = Counter()
    for entry, image in zip(document["images"], images, strict=True):
        if len(image.masks) == 0:
            empty.append(image.file_name)
            continue
        file = _image_file(path.parent, image.file_name)
        if file is None:
            missing.append(image.file_name)
            continue
        values = _values(image, crowds.get(int(entry["id"]), []), classes, task)
        labels = MaskLabels(f"{path.name}: {image.file_name}", image.masks, values)
        name = Path(_slashed(image.file_name)).stem
        known[name] += 1
        name = name if known[name] == 1 else f"{name} ({known[name]})"
        pairs.append(Pair(name, ImageFile(file), labels))
    if missing:
        raise TrainingDataError(
            f"{path.name}: expected its images in {path.parent} or in a folder images beside "
            f"it, did not find {', '.join(missing[:5])}"
        )
    warnings = []
    if empty:
        warnings.append(
            f"{path.name}: {len(empty)} images without annotations are left out: "
            + ", ".join(empty[:5])
        )
    return Collection(tuple(pairs), classes if task == "semantic" else {}, tuple(warnings))


def _crowds(document: dict[str, Any]) -> dict[int, list[bool]]:
    """Whether each annotation of an image marks a crowd, in the order of the file."""
    crowds: dict[int, list[bool]] = {}
    for entry in document["annotations"]:
        crowds.setdefault(int(entry["image_id"]), []).append(bool(entry.get("iscrowd", 0)))
    return crowds


def _values(
    image: CocoImage, crowds: list[bool], classes: dict[int, str], task: Task
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Value of each mask in the label image."""
    if task == "semantic":
        value_of = {name: value for value, name in classes.items()}
        strange = sorted({str(name) for name in image.categories if name not in value_of})
        if strange:
            raise TrainingDataError(
                f"{image.file_name}: expected categories of {', '.join(value_of)}, got an "
                f"annotation of {', '.join(strange)}"
            )
        values = np.array([value_of[name] for name in image.categories], np.int64)
    else:
        values = np.arange(1, len(image.masks) + 1, dtype=np.int64)
    values[np.array(crowds, bool)] = UNLABELLED
    return values


def _slashed(name: str) -> str:
    """Write a path of Windows as everywhere else."""
    return PureWindowsPath(name).as_posix()


def _image_file(folder: Path, name: str) -> Path | None:
    name = _slashed(name)
    plain = Path(name).name
    candidates = [folder / plain, folder / "images" / plain]
    if ".." not in Path(name).parts:
        candidates = [folder / name, folder / "images" / name, *candidates]
    return next((p for p in candidates if p.is_file() and image_format(p) is not None), None)
