"""What one labelled image holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label as connected_components

from phasesam.core.data_bar import detect_data_bar
from phasesam.core.errors import InvalidImageError, TrainingDataError
from phasesam.core.images import is_constant, to_rgb8
from phasesam.core.types import PixelSize
from phasesam.training.dataset import LabelledImage
from phasesam.training.label_values import UNLABELLED, values_and_counts
from phasesam.training.near_duplicates import Thumbnail, thumbnail
from phasesam.training.visible_objects import ImageObjects


@dataclass(frozen=True, eq=False)
class Finding:
    """One image and its labels, looked at once.

    Attributes
    ----------
    image : LabelledImage
        Which.
    shape : (int, int)
        Height and width in pixels.
    pixel_size : PixelSize
        As the image says.
    counts : mapping of int to int
        Pixels of each label, without those that are not labelled.
    thumbnail : Thumbnail or None
        For the search for near-duplicates.
    is_blank : bool
        All pixels of the image are equal.
    has_labelled_bar : bool
        There is a data bar below the image, and it is labelled.
    n_parts : int or None
        Parts that do not touch, of the only object; None when there is not just one.
    objects : ImageObjects or None
        Sizes of objects; None for classes.
    """

    image: LabelledImage
    shape: tuple[int, int]
    pixel_size: PixelSize
    counts: Mapping[int, int]
    thumbnail: Thumbnail | None
    is_blank: bool
    has_labelled_bar: bool
    n_parts: int | None
    objects: ImageObjects | None

    @property
    def n_labelled(self) -> int:
        """Labelled pixels."""
        return sum(self.counts.values())

    @property
    def object_pixels(self) -> list[int]:
        """Pixels of each object."""
        return [count for value, count in self.counts.items() if value != 0]


def inspect(image: LabelledImage, *, with_thumbnail: bool = True) -> Finding:
    """Read an image and its labels and look at them.

    Parameters
    ----------
    image : LabelledImage
        Read once.
    with_thumbnail : bool
        Whether near-duplicates will be looked for.

    Raises
    ------
    TrainingDataError
        If the labels have another size than the image, or either is of the wrong kind.
    FileFormatError
        If a file is damaged.
    """
    values, pixel_size = image.image.load()
    values, labels = values[: image.data_bar], image.label_array()
    try:
        rgb = to_rgb8(values, image.normalisation)
    except InvalidImageError as error:
        raise TrainingDataError(f"{image.image.name}: {error}") from error
    shape = (rgb.shape[0], rgb.shape[1])
    if labels.shape != shape:
        turned = "; are the axes swapped?" if labels.shape == shape[::-1] else ""
        raise TrainingDataError(
            f"expected labels of the size of their image, got {image.image.name} with "
            f"{shape[0]} × {shape[1]} and {image.labels.name} with "
            f"{labels.shape[0]} × {labels.shape[1]} pixels (height × width){turned}"
        )
    counts = values_and_counts(labels)
    counts.pop(UNLABELLED, None)
    one_object = image.mapping.class_values is None and sum(value != 0 for value in counts) == 1
    parts = connected_components(labels > 0)[1] if one_object else None
    bar = detect_data_bar(values)
    return Finding(
        image,
        shape,
        pixel_size,
        counts,
        thumbnail(rgb) if with_thumbnail else None,
        is_constant(values),
        bar is not None and bool(np.any(labels[bar:] != UNLABELLED)),
        parts,
        ImageObjects.of(labels) if image.mapping.class_values is None else None,
    )
