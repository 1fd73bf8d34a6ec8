"""Labelled images to learn from: read lazily, divided by specimen before anything is cut."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from phasesam.core.data_bar import detect_data_bar
from phasesam.core.errors import TrainingDataError
from phasesam.core.images import Normalisation, to_rgb8
from phasesam.core.types import PixelSize
from phasesam.training.data_classes import name_classes
from phasesam.training.data_collection import collect
from phasesam.training.data_pairs import Choice, Collection
from phasesam.training.data_sources import (
    ArrayImage,
    ArrayLabels,
    ImageSource,
    LabelSource,
    array_hash,
    unlabelled_bar,
)
from phasesam.training.data_stacks import Pair
from phasesam.training.label_values import (
    UNLABELLED,
    LabelMapping,
    Task,
    check_task,
)
from phasesam.training.splits import assign_splits, divide_lone_specimen

__all__ = [
    "UNLABELLED",
    "DataOptions",
    "LabelledImage",
    "TrainingData",
    "from_arrays",
    "read_training_data",
]


@dataclass(frozen=True)
class DataOptions:
    """How training data are read.

    Attributes
    ----------
    labels : str or None
        Folder of the labels, or label file of a single image; found by its name when
        left out.
    classes : sequence of str, mapping of int to str, or None
        Names of the classes in the order of their values, or by value; only for
        semantic labels. From ``classes.csv`` or ``class VALUE`` when left out.
    unlabelled : int or None
        Value that means "not labelled"; -1 always does.
    fractions : (float, float, float)
        Shares of training, validation and test where the data do not say it.
    seed : int
        Of the random assignment.
    normalisation : Normalisation
        How intensities become 8 bits.
    experiment : str or None
        Which rows of a table with a column ``experiment`` to take.
    components : bool
        Whether parts of a label that do not touch are objects of their own.
    """

    labels: str | None = None
    classes: Sequence[str] | Mapping[int, str] | None = None
    unlabelled: int | None = None
    fractions: tuple[float, float, float] = (0.7, 0.2, 0.1)
    seed: int = 0
    normalisation: Normalisation = field(default_factory=Normalisation)
    experiment: str | None = None
    components: bool = False

    def __post_init__(self) -> None:
        # What `dataclasses.asdict` and a JSON file make of the options is taken too.
        object.__setattr__(self, "fractions", tuple(self.fractions))
        if isinstance(self.normalisation, Mapping):
            object.__setattr__(self, "normalisation", Normalisation(**self.normalisation))


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One image and its labels; read when asked for, so that thousands cost nothing.

    Attributes
    ----------
    name : str
        Unique among the training data.
    split : str
        ``"train"``, ``"val"``, ``"test"``, or the name of a further test set.
    specimen : str
        What it was taken of; its own name when nothing is known.
    image, labels : ImageSource, LabelSource
        Where to read them.
    mapping : LabelMapping
        How values become labels.
    normalisation : Normalisation
        How intensities become 8 bits.
    """

    name: str
    split: str
    specimen: str
    image: ImageSource
    labels: LabelSource
    mapping: LabelMapping = field(default_factory=LabelMapping)
    normalisation: Normalisation = field(default_factory=Normalisation)
    _bars: list[int | None] = field(default_factory=list, init=False, repr=False)

    @property
    def data_bar(self) -> int | None:
        """First row of an SEM data bar without labels; None if there is none.

        It is neither learnt nor judged, nor does it change the contrast: whoever uses the
        adapter cuts it off, too.
        """
        return self._bar_of(None)

    def _bar_of(self, pixels: NDArray[Any] | None) -> int | None:
        """Look for the bar once, in pixels that have been read already, if so."""
        if not self._bars:
            image = self.image.load()[0] if pixels is None else pixels
            self._bars.append(unlabelled_bar(image, self.labels, self.mapping.unlabelled))
        return self._bars[0]

    def rgb(self) -> NDArray[np.uint8]:
        """Read the image, without a data bar that nobody has labelled.

        Returns
        -------
        (h, w, 3) uint8 array
            C-contiguous.

        Raises
        ------
        FileFormatError, InvalidImageError
            If it cannot be read or is no image.
        """
        pixels = self.image.load()[0]
        return to_rgb8(pixels[: self._bar_of(pixels)], self.normalisation)

    def label_array(self) -> NDArray[np.int32]:
        """Read the labels of what `rgb` shows.

        Returns
        -------
        (h, w) int32 array
            0 background and 1.. objects, or class indices; `UNLABELLED` where nothing is
            known.

        Raises
        ------
        FileFormatError, TrainingDataError
            If they cannot be read or are no labels.
        """
        return self.mapping.apply(self.labels.read(), self.labels.name)[: self.data_bar]

    @property
    def key(self) -> str:
        """Hash of the image, as the model sees it, and the labels."""
        return self._keys[1]

    @property
    def picture_key(self) -> str:
        """Hash of the image alone, with the usual normalisation: known again with any other.

        A data bar does not count, because trainings from layers store images without it.
        """
        return self._keys[0]

    @property
    def whole_picture_key(self) -> str:
        """As `picture_key`, with the data bar, as older adapters remember it."""
        return self._keys[2]

    @functools.cached_property
    def _keys(self) -> tuple[str, str, str]:
        pixels = self.image.load()[0]
        bar = detect_data_bar(pixels)
        picture = array_hash(to_rgb8(pixels[:bar]))
        whole = picture if bar is None else array_hash(to_rgb8(pixels))
        return picture, array_hash(self.rgb(), self.label_array()), whole


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Everything to learn from and to measure with.

    Attributes
    ----------
    images : tuple of LabelledImage
        All splits.
    task : {"promptable", "instance", "semantic"}
        What is learnt.
    classes : tuple of str
        Names of the classes; empty for objects.
    class_values : tuple of int
        Value of each class in the files, rising; empty for objects.
    pixel_size : PixelSize
        Of the first image.
    normalisation : Normalisation
        How intensities become 8 bits.
    origin : str
        Where the data came from.
    warnings : tuple of str
        What was left out or needs attention.
    """

    images: tuple[LabelledImage, ...]
    task: Task
    classes: tuple[str, ...] = ()
    class_values: tuple[int, ...] = ()
    pixel_size: PixelSize = field(default_factory=PixelSize)
    normalisation: Normalisation = field(default_factory=Normalisation)
    origin: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that hold images: train, val, test, then further test sets."""
        present = dict.fromkeys(image.split for image in self.images)
        usual = [name for name in ("train", "val", "test") if name in present]
        return (*usual, *(name for name in present if name not in usual))

    def of(self, split: str) -> tuple[LabelledImage, ...]:
        """Images of one split."""
        return tuple(image for image in self.images if image.split == split)

    @functools.cached_property
    def key(self) -> str:
        """Hash of all images, labels and splits; all of them are read once."""
        digest = xxhash.xxh3_128(f"{self.task}{self.classes}{self.class_values}".encode())
        for image in self.images:
            digest.update(f"\n{image.name}\t{image.split}\t{image.specimen}\t{image.key}".encode())
        return digest.hexdigest()


def read_training_data(
    path: str | os.PathLike[str], task: str, options: DataOptions | None = None, **changes: Any
) -> TrainingData:
    """Find images and labels in a folder, table, COCO file or image file.

    Parameters
    ----------
    path : path-like
        Folder with ``images`` and ``labels`` (and perhaps ``splits.csv``, ``classes.csv``)
        or ``data.csv``; a CSV file with the columns image, label and perhaps split,
        specimen, name, experiment; a COCO file; or an image or stack with labels beside.
    task : {"promptable", "instance", "semantic"}
        What is learnt.
    options : DataOptions, optional
        How to read.
    **changes
        Fields of `DataOptions` to change.

    Returns
    -------
    TrainingData
        Images are read later; semantic labels are read once to know their values.

    Raises
    ------
    TrainingDataError
        If nothing can be learnt from what is there. The message says what was expected.
    InvalidSettingError
        If objects are to have classes, or classes parts, or an option does not apply.
    FileFormatError
        If a file is damaged.
    """
    options = replace(options or DataOptions(), **changes)
    path = Path(path)
    choice = Choice(options.labels, options.experiment, options.unlabelled)
    known = check_task(task, options.classes, options.components)
    return _assembled(collect(path, choice, known), known, options, str(path))


def from_arrays(
    images: Sequence[tuple[Any, ...]],
    task: str,
    options: DataOptions | None = None,
    *,
    pixel_size: PixelSize | None = None,
    **changes: Any,
) -> TrainingData:
    """Take images and labels that are in memory, such as ticked planes of layers.

    Parameters
    ----------
    images : sequence of tuple of str, array, array, str or None
        Name, image (h, w) or (h, w, 3 or 4), labels (h, w) with -1 where nothing is
        labelled, specimen; perhaps also `Normalisation` and `PixelSize`. Lazy arrays stay lazy.
    task : {"promptable", "instance", "semantic"}
        What is learnt.
    options : DataOptions, optional
        How to read.
    pixel_size : PixelSize, optional
        Size of the pixels of images that do not bring their own.
    **changes
        Fields of `DataOptions` to change.

    Returns
    -------
    TrainingData

    Raises
    ------
    TrainingDataError, InvalidSettingError
        If nothing can be learnt from them, or options mean nothing to the task.
    """
    options = replace(options or DataOptions(), **changes)
    known = check_task(task, options.classes, options.components)
    size = pixel_size or PixelSize()
    pairs = tuple(
        Pair(
            name,
            ArrayImage(name, image, (*further, None, None)[1] or size),
            ArrayLabels(f"labels of {name}", labels),
            specimen or name,
            normalisation=further[0] if further else None,
        )
        for name, image, labels, specimen, *further in images
    )
    return _assembled(Collection(pairs), known, options, "arrays")


def _assembled(
    collection: Collection, task: Task, options: DataOptions, origin: str
) -> TrainingData:
    """Give every pair its split and its classes."""
    if not collection.pairs:
        raise TrainingDataError(f"{origin}: expected at least one image with labels, got none")
    pairs, warnings = _with_splits(collection.pairs, options)
    names: dict[int, str] = {}
    if task == "semantic":
        given = options.classes if options.classes is not None else collection.classes
        names = name_classes(pairs, given or None, options.unlabelled)
    values = tuple(sorted(names))
    mapping = LabelMapping(
        options.unlabelled, values if task == "semantic" else None, options.components
    )
    images = tuple(
        LabelledImage(
            pair.name,
            pair.split,
            pair.specimen,
            pair.image,
            pair.labels,
            mapping,
            pair.normalisation or options.normalisation,
        )
        for pair in pairs
    )
    return TrainingData(
        images,
        task,
        tuple(names[value] for value in values),
        values,
        images[0].image.load()[1],
        options.normalisation,
        origin,
        (*collection.warnings, *warnings),
    )


def _with_splits(pairs: Sequence[Pair], options: DataOptions) -> tuple[list[Pair], list[str]]:
    """Assign what has no split yet; images of a specimen follow those that have one."""
    pairs = [replace(pair, specimen=pair.specimen or pair.name) for pair in pairs]
    names = [pair.name for pair in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TrainingDataError(f"expected different names of images, got {twice} twice")
    given = {pair.specimen: pair.split for pair in pairs if pair.split}
    pairs = [replace(pair, split=pair.split or given.get(pair.specimen, "")) for pair in pairs]
    rest = [i for i, pair in enumerate(pairs) if not pair.split]
    if not rest:
        return pairs, []
    specimens = [pairs[i].specimen for i in rest]
    if not given and len(set(specimens)) == 1 and len(rest) > 1:
        splits = divide_lone_specimen(len(rest), options.fractions)
        warnings = [
            f"all {len(rest)} images are of one specimen, {specimens[0]}: its last ones validate, "
            "so that the validation score is better than on other specimens"
        ]
    else:
        splits, warnings = assign_splits(specimens, options.fractions, options.seed), []
    for i, split in zip(rest, splits, strict=True):
        pairs[i] = replace(pairs[i], split=split)
    return pairs, warnings
