"""What the user wants a model to learn from, as plain values that a worker can read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import CancelledError, TrainingDataError
from phasesam.core.images import Normalisation
from phasesam.core.types import PixelSize
from phasesam.training.label_values import UNLABELLED, label_integers

if TYPE_CHECKING:
    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.training.dataset import DataOptions, TrainingData
    from phasesam.training.label_values import Task

Plane = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PairToRead:
    """An image and its labels, with the planes that were ticked.

    Attributes
    ----------
    name : str
        Of the image.
    image : (..., h, w) or (..., h, w, 3 or 4) array
        Possibly lazy.
    labels : (..., h, w) integer array
        Possibly lazy.
    planes : tuple of tuple of int
        Which planes to learn from.
    pixel_size : PixelSize
        Of the image.
    class_of_value : mapping of int to int, or None
        Class value of each object, or of each value whose class has another value elsewhere;
        None where values are classes as they are, or where objects are learnt.
    specimen : str
        What it was taken of; the planes of a stack are one specimen.
    normalisation : Normalisation
        How the image is shown to the model, as prompts and maps of the layer see it.
    """

    name: str
    image: Any
    labels: Any
    planes: tuple[Plane, ...]
    pixel_size: PixelSize = field(default_factory=PixelSize)
    class_of_value: Mapping[int, int] | None = None
    specimen: str = ""
    normalisation: Normalisation = field(default_factory=Normalisation)

    def read(self, frozen: bool = False) -> Iterator[tuple[Any, ...]]:
        """Read plane by plane: name, image (still lazy), labels (also, if nothing is changed).

        Specimen, normalisation and pixel size come last, as `from_arrays` wants them. While the
        user paints, labels go on changing unless ``frozen``.
        """
        for plane in self.planes:
            name = f"{self.name}[{','.join(map(str, plane))}]" if plane else self.name
            image = self.image[plane] if plane else self.image
            labels = self.labels[plane] if plane else self.labels
            labels = np.array(labels) if frozen else labels
            if self.class_of_value is not None:
                labels = _as_classes(label_integers(labels, name), self.class_of_value, name)
            specimen = self.specimen or self.name
            yield name, image, labels, specimen, self.normalisation, self.pixel_size


def _as_classes(
    labels: NDArray[Any], class_of_value: Mapping[int, int], name: str
) -> NDArray[np.int32]:
    """Put the value of its class in place of each value above 0."""
    table = {UNLABELLED: UNLABELLED, 0: 0, **class_of_value}
    known = np.array(sorted(table), np.int64)
    index = np.minimum(np.searchsorted(known, labels), len(known) - 1)
    strange = known[index] != labels
    if strange.any():
        values = np.unique(labels[strange])[:5].tolist()
        raise TrainingDataError(
            f"{name}: expected labels whose class is known, got also {values}; were they painted "
            "just now?"
        )
    return np.array([table[int(value)] for value in known], np.int32)[index]


@dataclass(frozen=True, eq=False)
class UnitedLabels:
    """The labels that two layers give one picture, united when they are read.

    Attributes
    ----------
    upper, lower : (h, w) integer array
        Possibly lazy. Where both have a value above 0, that of ``upper`` counts; where none has
        one, 0 goes before -1.
    name : str
        Of the picture, for messages.
    are_objects : bool
        Objects of the lower layer get numbers of their own.
    """

    upper: Any
    lower: Any
    name: str
    are_objects: bool

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read and unite.

        Raises
        ------
        TrainingDataError
            If they are no labels, or of different sizes.
        """
        both = (np.asarray(labels) for labels in (self.upper, self.lower))
        first, second = (label_integers(one, self.name).astype(np.int64) for one in both)
        if first.shape != second.shape:
            raise TrainingDataError(
                f"{self.name}: expected labels of one size, got {first.shape} and {second.shape}"
            )
        if self.are_objects:
            second = np.where(second > 0, second + max(0, int(first.max())), second)
        below = np.where(second > 0, second, np.maximum(first, second))
        united = np.where(first > 0, first, below)
        return united if dtype is None else united.astype(dtype)


@dataclass(frozen=True, eq=False)
class DataRequest:
    """What to learn, and from what.

    Attributes
    ----------
    task : {"promptable", "instance", "semantic"}
        What is learnt.
    name : str
        For the folder of the training.
    options : DataOptions
        How labels are read.
    pairs : tuple of PairToRead
        Layers to learn from; empty if it is a folder.
    path : Path or None
        Folder, table or COCO file to learn from.
    warnings : tuple of str
        What needs attention about the layers.
    """

    task: Task
    name: str
    options: DataOptions
    pairs: tuple[PairToRead, ...] = ()
    path: Path | None = None
    warnings: tuple[str, ...] = ()

    def with_fractions(self, fractions: tuple[float, float, float]) -> DataRequest:
        """Divide the images otherwise."""
        return replace(self, options=replace(self.options, fractions=fractions))

    def read(
        self, should_stop: StopCallback | None = None, *, frozen: bool = False
    ) -> TrainingData:
        """Find the images and labels; for workers.

        Labels of layers are looked at where they are, which costs no memory. If ``frozen``,
        they are copied, so that the user may go on painting.

        Raises
        ------
        TrainingDataError, FileFormatError
            If nothing can be learnt from them.
        CancelledError
            If ``should_stop()`` is true.
        """
        from phasesam.training.dataset import from_arrays, read_training_data

        if self.path is not None:
            return read_training_data(self.path, self.task, self.options)
        # By the name of the picture, which several layers may label.
        images: dict[str, tuple[Any, ...]] = {}
        for pair in self.pairs:
            for name, image, labels, *rest in pair.read(frozen):
                if should_stop is not None and should_stop():
                    raise CancelledError("reading the labels was stopped")
                if name in images:
                    both = UnitedLabels(images[name][2], labels, name, self.task != "semantic")
                    labels = np.asarray(both) if frozen else both
                images[name] = (name, image, labels, *rest)
        data = from_arrays(tuple(images.values()), self.task, self.options)
        return replace(data, warnings=(*self.warnings, *data.warnings))

    def leave_in(
        self,
        folder: Path,
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """Make the data ready for another process; for workers.

        Layers are written to ``data`` in `folder`; a folder stays where it is.

        Returns
        -------
        str
            Path for `read_training_data`.
        dict
            Fields of `DataOptions` for it.
        """
        from phasesam.training.saving import save_training_folder

        options: dict[str, Any] = {
            "fractions": list(self.options.fractions),
            "experiment": self.options.experiment,
        }
        if self.path is not None:
            options["unlabelled"] = self.options.unlabelled
            options["classes"] = _plain_classes(self.options.classes)
            options["components"] = self.options.components
            return os.fspath(self.path.expanduser().absolute()), options
        data = self.read(should_stop, frozen=True)
        target = save_training_folder(
            data, folder / "data", progress=progress, should_stop=should_stop
        )
        # Splits, classes and what is not labelled are in the folder.
        return os.fspath(target), {}


def _plain_classes(classes: Any) -> Any:
    """Class names as JSON can hold them."""
    if isinstance(classes, Mapping):
        return {str(value): str(name) for value, name in classes.items()}
    return None if classes is None else [str(name) for name in classes]
