"""Predicted and true label files: which belong together, and what their values mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import (
    FileFormatError,
    InvalidMaskError,
    InvalidSettingError,
    TrainingDataError,
)
from phasesam.core.images import to_rgb8
from phasesam.formats.readers import is_image_file
from phasesam.formats.slices import natural_key, slice_files, stem_of
from phasesam.training.data_classes import name_classes
from phasesam.training.data_pairs import LABEL_SUFFIXES
from phasesam.training.data_sources import ImageFile, LabelFile, plane_name, stack_shape
from phasesam.training.data_stacks import Pair
from phasesam.training.label_values import UNLABELLED, LabelMapping, label_integers

_NOT_LABELS = ("_overlay.png", "_probabilities.tif")
_NAMED = 5
_BLANK = 215


@dataclass(frozen=True)
class LabelPair:
    """One predicted plane and the true one.

    Attributes
    ----------
    name : str
        Of the image.
    group : str
        The stack it is from, or its own name: the unit of intervals.
    predicted, truth : LabelFile
        Where the labels are.
    image : ImageFile or None
        The picture they belong to, if it was given.
    """

    name: str
    group: str
    predicted: LabelFile
    truth: LabelFile
    image: ImageFile | None = None

    def rgb(self, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Read the picture for a report; evenly grey without one or with one of another size."""
        if self.image is not None:
            rgb = to_rgb8(self.image.load()[0])
            if rgb.shape[:2] == shape:
                return rgb
        return np.full((*shape, 3), _BLANK, np.uint8)


@dataclass(frozen=True)
class ValueChoice:
    """What values in label files mean.

    Attributes
    ----------
    unlabelled : int or None
        Value of the truth that means "not labelled", beside -1.
    no_class : int or None
        Value of predictions that means "no class", beside -1, such as in a data bar.
    by_index : bool
        Whether predictions count the classes from 0, as `phasesam predict` writes them, instead
        of holding the values of the truth.
    """

    unlabelled: int | None = None
    no_class: int | None = 255
    by_index: bool = False


def match_label_files(
    predicted: Path, truth: Path, images: Path | None = None, *, skip_missing: bool = False
) -> tuple[tuple[LabelPair, ...], tuple[str, ...]]:
    """Find which files belong together.

    Parameters
    ----------
    predicted, truth : Path
        Two files, or two folders whose files are matched by their names without ending and
        without a suffix such as ``_labels`` or ``_mask``. Stacks are compared plane by plane.
    images : Path, optional
        The pictures, for reports: a file or folder as well.
    skip_missing : bool
        Leave out what has not been predicted, instead of refusing.

    Returns
    -------
    tuple of LabelPair
        In natural order of the names.
    tuple of str
        What was left out.

    Raises
    ------
    InvalidSettingError
        If something is missing, or there is nothing to compare.
    FileFormatError
        If a file cannot be read.
    """
    for path in (predicted, truth, images):
        if path is not None and not path.exists():
            raise FileFormatError(f"{path}: no such file or folder")
    if _is_one(predicted) != _is_one(truth):
        raise InvalidSettingError(f"expected two files or two folders, got {predicted} and {truth}")
    pictures = {} if images is None else _by_name(images)
    if _is_one(truth):
        only = next(iter(pictures.values()), None) if len(pictures) == 1 else None
        return tuple(_planes(truth.stem, predicted, truth, only)), ()
    found, wanted = _by_name(predicted), _by_name(truth)
    missing = [name for name in wanted if name not in found]
    warnings = []
    if missing:
        text = f"{len(missing)} of {len(wanted)} are not predicted: {_listed(missing)}"
        if not skip_missing or len(missing) == len(wanted):
            raise InvalidSettingError(f"{predicted}: {text}; expected files of the same names")
        warnings.append(f"{text}; left out")
    extra = [name for name in found if name not in wanted]
    if extra:
        warnings.append(f"{len(extra)} predictions without a truth: {_listed(extra)}; left out")
    pairs = [
        pair
        for name in wanted
        if name in found
        for pair in _planes(name, found[name], wanted[name], pictures.get(name))
    ]
    return tuple(pairs), tuple(warnings)


def classes_of(
    pairs: Sequence[LabelPair],
    given: Sequence[str] | Mapping[int, str] | None,
    choice: ValueChoice | None = None,
) -> dict[int, str]:
    """Name the classes by their values, rising.

    Parameters
    ----------
    pairs : sequence of LabelPair
        Their truth is read unless all values are given; without names, the predictions are
        read, too, because they may hold a class that is never true.
    given : sequence of str, mapping of int to str, or None
        Names in the order of the values, or by value.
    choice : ValueChoice, optional
        Which values are no classes.

    Raises
    ------
    TrainingDataError
        If there are too many values for classes, or another number than names.
    """
    choice = choice or ValueChoice()
    sources = [_as_pair(pair, pair.truth) for pair in pairs]
    found = name_classes(sources, given, choice.unlabelled)
    if given is None and not choice.by_index:
        predicted = name_classes([_as_pair(pair, pair.predicted) for pair in pairs], None)
        nothing = {choice.no_class, choice.unlabelled}
        found |= {value: name for value, name in predicted.items() if value not in nothing}
    return dict(sorted(found.items()))


def stray_values(pairs: Sequence[LabelPair], choice: ValueChoice) -> list[int]:
    """Values that predictions hold, and no truth; indices of classes are often taken for values."""
    if choice.by_index:
        return []
    try:
        predicted, truth = (
            set(name_classes([_as_pair(pair, getattr(pair, kind)) for pair in pairs], None))
            for kind in ("predicted", "truth")
        )
    except TrainingDataError:
        return []  # too many for classes, as the comparison will say
    # What means "unlabelled" in the truth is a class of no truth.
    return sorted(predicted - (truth - {choice.unlabelled}) - {choice.no_class})


def _as_pair(pair: LabelPair, labels: LabelFile) -> Pair:
    return Pair(pair.name, ImageFile(labels.path, labels.plane), labels)


def read_phases(
    pair: LabelPair, values: Sequence[int], choice: ValueChoice
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Read predicted and true classes of each pixel.

    Parameters
    ----------
    pair : LabelPair
        The files.
    values : sequence of int
        Value of each class, rising.
    choice : ValueChoice
        What else values mean.

    Returns
    -------
    (h, w) int32 array, (h, w) int32 array
        Prediction and truth: classes from 0, or -1.

    Raises
    ------
    TrainingDataError
        If there are other values.
    """
    kept = tuple(range(len(values))) if choice.by_index else tuple(values)
    predicted = label_integers(pair.predicted.read(), pair.predicted.name).astype(np.int64)
    nothing = [v for v in (choice.no_class, choice.unlabelled) if v is not None and v not in kept]
    predicted[np.isin(predicted, nothing)] = UNLABELLED
    found = LabelMapping(None, kept).apply(predicted, pair.predicted.name)
    wanted = LabelMapping(choice.unlabelled, tuple(values)).apply(
        pair.truth.read(), pair.truth.name
    )
    return found, wanted


def read_objects(
    pair: LabelPair, unlabelled: int | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Read predicted and true objects: 0 is background, -1 in the truth unlabelled.

    Raises
    ------
    TrainingDataError
        If the files hold no labels.
    InvalidMaskError
        If a predicted object has a negative number.
    """
    found = label_integers(pair.predicted.read(), pair.predicted.name).astype(np.int32)
    if found.min() < 0:
        raise InvalidMaskError(
            f"{pair.predicted.name}: expected objects from 1 and 0 for none, got {found.min()}"
        )
    wanted = LabelMapping(unlabelled).apply(pair.truth.read(), pair.truth.name)
    return found, wanted


def is_unlabelled(truth: NDArray[Any]) -> bool:
    """Whether nothing at all is known of a plane."""
    return bool((truth == UNLABELLED).all())


def _is_one(path: Path) -> bool:
    """Tell a file, or a folder that is an image such as Zarr, from a folder of files."""
    return path.is_file() or is_image_file(path)


def _planes(name: str, predicted: Path, truth: Path, image: Path | None) -> list[LabelPair]:
    shape, other = stack_shape(truth), stack_shape(predicted)
    if shape != other:
        raise InvalidSettingError(
            f"expected as many planes of {predicted.name} as of {truth.name}, got "
            f"{other or 'one plane'} and {shape or 'one plane'}"
        )
    shown = image is not None and stack_shape(image) == shape
    return [
        LabelPair(
            plane_name(name, plane),
            name,
            LabelFile(predicted, plane),
            LabelFile(truth, plane),
            ImageFile(image, plane) if image is not None and shown else None,
        )
        for plane in (np.ndindex(shape) if shape else [()])
    ]


def _by_name(folder: Path) -> dict[str, Path]:
    """Label files by the name of their image; one with a suffix goes before one without."""
    if _is_one(folder):
        return {_image_name(folder)[0]: folder}
    found: dict[str, list[tuple[bool, Path]]] = {}
    for path in sorted(folder.iterdir(), key=natural_key):
        hidden = path.name.startswith((".", "~")) or path.name.endswith(_NOT_LABELS)
        if hidden or not (is_image_file(path) or (path.is_dir() and slice_files(path))):
            continue
        name, has_suffix = _image_name(path)
        found.setdefault(name, []).append((has_suffix, path))
    chosen = {}
    for name, files in found.items():
        best = [path for has_suffix, path in files if has_suffix] or [path for _, path in files]
        if len(best) > 1:
            raise InvalidSettingError(
                f"{folder}: expected one file for {name}, got {_listed([p.name for p in best])}"
            )
        chosen[name] = best[0]
    if not chosen:
        raise InvalidSettingError(f"{folder}: expected label files, found none that can be read")
    return chosen


def _image_name(path: Path) -> tuple[str, bool]:
    """Name of the image that a label file belongs to, and whether a suffix was taken off."""
    stem = stem_of(path)
    for suffix in LABEL_SUFFIXES:
        if stem.lower().endswith(suffix) and len(stem) > len(suffix):
            return stem[: -len(suffix)], True
    return stem, False


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
