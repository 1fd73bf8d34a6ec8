"""What the numbers in a label image mean while training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError, TrainingDataError

UNLABELLED = -1
"""Label of pixels about which nothing is said; they are left out everywhere."""

MOST_CLASSES = 64
"""More values than these in a label image are objects, not classes."""

Task = Literal["promptable", "instance", "semantic"]
"""What is learnt: objects from prompts, objects without prompts, or classes of pixels."""


def check_task(task: str, classes: object = None, components: bool = False) -> Task:
    """Return the task if it is one, and if options for labels mean something to it.

    Raises
    ------
    InvalidSettingError
        If it is none of the three, if objects are to have classes, or classes parts.
    """
    known = next((known for known in get_args(Task) if task == known), None)
    if known is None:
        raise InvalidSettingError(f"expected one of the tasks {get_args(Task)}, got {task!r}")
    if known != "semantic" and classes:
        raise InvalidSettingError(
            f"names of classes are for the task semantic, got {classes!r} with {task}: "
            "objects have no classes"
        )
    if known == "semantic" and components:
        raise InvalidSettingError(
            "parts of labels as objects of their own (components) are for the tasks promptable "
            "and instance, got semantic: classes have no objects"
        )
    return known


@dataclass(frozen=True)
class LabelMapping:
    """How the values of a file become labels.

    Attributes
    ----------
    unlabelled : int or None
        Value that means "not labelled", beside -1, which always does.
    class_values : tuple of int or None
        Value of each class, rising; labels become indices into it. None for objects,
        whose values stay.
    components : bool
        Whether parts that do not touch are objects of their own; only for objects.
    """

    unlabelled: int | None = None
    class_values: tuple[int, ...] | None = None
    components: bool = False

    def apply(self, values: NDArray[Any], name: str = "labels") -> NDArray[np.int32]:
        """Turn the values of one label image into labels.

        Parameters
        ----------
        values : (h, w) array
            As read. Floats are accepted when they are whole numbers, colours when they
            are grey.
        name : str
            What to call it in messages.

        Returns
        -------
        (h, w) int32 array
            0 background and 1.. objects, or class indices; `UNLABELLED` elsewhere.

        Raises
        ------
        TrainingDataError
            If the values are no labels, or none of the classes.
        """
        array = label_integers(values, name)
        unknown = array < 0 if array.dtype.kind == "i" else np.zeros(array.shape, bool)
        if self.unlabelled is not None:
            unknown |= array == self.unlabelled
        if self.class_values is None:
            labels = array.astype(np.int32)
            if self.components:
                labels = _components(labels, unknown)
        else:
            labels = self._classes(array, unknown, name)
        labels[unknown] = UNLABELLED
        return labels

    def _classes(
        self, array: NDArray[Any], unknown: NDArray[np.bool_], name: str
    ) -> NDArray[np.int32]:
        known = np.asarray(self.class_values, np.int64)
        if len(known) == 0:
            raise TrainingDataError(f"{name}: expected classes, got none")
        if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
            table = np.searchsorted(known, np.arange(2 ** (8 * array.dtype.itemsize)))
            labels = np.take(np.minimum(table, len(known) - 1).astype(np.int32), array)
        else:
            indices = np.searchsorted(known, array)
            labels = np.minimum(indices, len(known) - 1).astype(np.int32)
        strange = (known[labels] != array) & ~unknown
        if strange.any():
            found = np.unique(array[strange])[:5].tolist()
            raise TrainingDataError(
                f"{name}: expected the class values {known.tolist()}, got also {found}"
            )
        return labels


def label_integers(values: NDArray[Any], name: str = "labels") -> NDArray[Any]:
    """Return label values as (h, w) integers if that is what they are.

    Raises
    ------
    TrainingDataError
        If they are colours, fractions, not finite, below -1 or above 2147483647. The
        message says what to do.
    """
    array = np.asarray(values)
    if array.ndim == 3 and array.shape[2] in (3, 4):
        colours = array[..., :3]
        if not (colours == colours[..., :1]).all():
            raise TrainingDataError(
                f"{name}: expected one number per pixel, got colours of shape {array.shape}; "
                "save the labels as a grey image in which each class or object has its own value"
            )
        array = array[..., 0]
    if array.ndim != 2 or array.size == 0:
        raise TrainingDataError(f"{name}: expected labels of shape (h, w), got {array.shape}")
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise TrainingDataError(f"{name}: expected integer labels, got {array.dtype}")
    if array.dtype.kind == "f":
        array = _whole_numbers(array, name)
    low, high = int(array.min()), int(array.max())
    if low < UNLABELLED or high > np.iinfo(np.int32).max:
        raise TrainingDataError(
            f"{name}: expected labels from 0 to 2147483647, and -1 where nothing is labelled, "
            f"got {low} to {high}"
        )
    return array


def _whole_numbers(array: NDArray[Any], name: str) -> NDArray[np.int64]:
    if not np.isfinite(array).all():
        raise TrainingDataError(
            f"{name}: expected whole numbers, got NaN or infinity; use -1 where nothing is labelled"
        )
    if not (array == np.rint(array)).all():
        odd = float(array[array != np.rint(array)][0])
        raise TrainingDataError(
            f"{name}: expected whole numbers as labels, got {odd:.6g} ({array.dtype}); "
            "is this an image, a probability map or a mask that was scaled with interpolation?"
        )
    if float(np.abs(array).max()) > 2.0**62:
        raise TrainingDataError(f"{name}: expected labels up to 2147483647, got {array.max():.6g}")
    return array.astype(np.int64)


def values_and_counts(array: NDArray[Any]) -> dict[int, int]:
    """Count the pixels of each value of an integer array."""
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        counts = np.bincount(array.reshape(-1))
        values = np.flatnonzero(counts)
        return dict(zip(values.tolist(), counts[values].tolist(), strict=True))
    values, counts = np.unique(array, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _components(labels: NDArray[np.int32], unknown: NDArray[np.bool_]) -> NDArray[np.int32]:
    from skimage.measure import label

    labels = np.where(unknown, 0, labels)
    return label(labels, background=0, connectivity=2).astype(np.int32)
