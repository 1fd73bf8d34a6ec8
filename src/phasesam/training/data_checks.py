"""Look at all training data before the training: errors that forbid it, warnings that explain it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label as connected_components

from phasesam.core.data_bar import detect_data_bar
from phasesam.core.errors import CancelledError, InvalidImageError, TrainingDataError
from phasesam.core.images import is_constant, to_rgb8
from phasesam.core.types import PixelSize, ProgressCallback, StopCallback
from phasesam.training.data_tables import TRAIN, VAL
from phasesam.training.dataset import LabelledImage, TrainingData
from phasesam.training.label_values import values_and_counts
from phasesam.training.near_duplicates import NearDuplicate, Thumbnail, compare, thumbnail

_NAMED = 5
_SPECK_PIXELS = 4
_PARTS_OF_A_BINARY_MASK = 3
_SAME_SCALE = 1.1


@dataclass(frozen=True)
class DataSummary:
    """What will be learnt, and what to mind.

    Attributes
    ----------
    n_images : mapping of str to int
        Images per split.
    n_objects : mapping of str to int
        Objects per split; empty for classes.
    class_fractions : mapping of str to tuple of float
        Share of each class in the labelled pixels of each split; empty for objects.
    labelled_fraction : mapping of str to float
        Share of the pixels of each split that are labelled, 0–1.
    object_pixels : float or None
        Median area of an object in the training images, in pixels; None for classes.
    largest_image : (int, int)
        Height and width of the image with the most pixels.
    warnings : tuple of str
        Sentences for the user.
    duplicates : tuple of NearDuplicate
        Images of different splits that show the same place.
    """

    n_images: Mapping[str, int]
    n_objects: Mapping[str, int]
    class_fractions: Mapping[str, tuple[float, ...]]
    labelled_fraction: Mapping[str, float]
    object_pixels: float | None
    largest_image: tuple[int, int]
    warnings: tuple[str, ...] = ()
    duplicates: tuple[NearDuplicate, ...] = ()


@dataclass(frozen=True, eq=False)
class _Finding:
    """What one image and its labels hold."""

    image: LabelledImage
    shape: tuple[int, int]
    pixel_size: PixelSize
    counts: Mapping[int, int]  # pixels of each label, without unlabelled ones
    thumbnail: Thumbnail | None
    is_blank: bool
    has_data_bar: bool
    n_parts: int | None  # of the only object, where there is one only

    @property
    def n_objects(self) -> int:
        return len(self.counts) - (0 in self.counts)

    @property
    def n_labelled(self) -> int:
        return sum(self.counts.values())


@dataclass
class _Sorted:
    """Findings by split."""

    findings: list[_Finding]
    of: dict[str, list[_Finding]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for finding in self.findings:
            self.of.setdefault(finding.image.split, []).append(finding)
