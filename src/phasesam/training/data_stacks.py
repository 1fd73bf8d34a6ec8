"""Pairs of files, and the labelled planes of stacks among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phasesam.core.errors import TrainingDataError
from phasesam.core.images import Normalisation
from phasesam.training.data_sources import (
    ImageFile,
    ImageSource,
    LabelFile,
    LabelSource,
    plane_name,
    stack_shape,
)
from phasesam.training.label_values import UNLABELLED, label_integers


@dataclass(frozen=True)
class Pair:
    """An image and its labels before splits and classes are known.

    Attributes
    ----------
    name : str
        Unique among all.
    image, labels : ImageSource, LabelSource
        Where to read them.
    specimen : str
        Its own name when nothing is known.
    split : str
        Empty when it is still to be assigned.
    normalisation : Normalisation or None
        How its intensities become 8 bits; None for that of all the others.
    """

    name: str
    image: ImageSource
    labels: LabelSource
    specimen: str = ""
    split: str = ""
    normalisation: Normalisation | None = None


@dataclass(frozen=True)
class FilePair:
    """An image file and its label file, which may be stacks.

    Attributes
    ----------
    name : str
        Unique among all.
    image, labels : Path
        The files, or folders of slices.
    specimen, split : str
        Empty when they are not known.
    normalisation : Normalisation or None
        As for `Pair`.
    """

    name: str
    image: Path
    labels: Path
    specimen: str = ""
    split: str = ""
    normalisation: Normalisation | None = None


def expand_stacks(
    pairs: Sequence[FilePair], unlabelled: int | None
) -> tuple[tuple[Pair, ...], list[str]]:
    """Turn files into planes; of stacks, those that hold labels.

    Parameters
    ----------
    pairs : sequence of FilePair
        Image and label files.
    unlabelled : int or None
        Value that means "not labelled". A plane of nothing but this, -1 or 0 is left out.

    Returns
    -------
    tuple of Pair
        In the order of the files and planes; the planes of a stack are one specimen.
    list of str
        Warnings: how many planes of each stack are used.

    Raises
    ------
    TrainingDataError
        If an image and its labels differ in their numbers of planes.
    """
    out: list[Pair] = []
    warnings: list[str] = []
    for pair in pairs:
        planes = list(_labelled_planes(pair.image, pair.labels, unlabelled))
        total = int(np.prod(stack_shape(pair.labels)))
        if total > 1 and len(planes) < total:
            warnings.append(
                f"{pair.labels.name}: {len(planes)} of {total} planes are labelled and are used"
            )
        for plane in planes:
            image, labels = ImageFile(pair.image, plane), LabelFile(pair.labels, plane)
            name, specimen = plane_name(pair.name, plane), pair.specimen or pair.name
            out.append(Pair(name, image, labels, specimen, pair.split, pair.normalisation))
    return tuple(out), warnings


def _labelled_planes(
    image: Path, labels: Path, unlabelled: int | None
) -> Iterator[tuple[int, ...]]:
    """Find the planes that hold labels; an image that is no stack is one."""
    image_planes, label_planes = stack_shape(image), stack_shape(labels)
    if image_planes != label_planes:
        raise TrainingDataError(
            f"expected as many planes of labels as of the image, got {image.name} with "
            f"{image_planes or 'one plane'} and {labels.name} with {label_planes or 'one plane'}"
        )
    if not image_planes:
        yield ()
        return
    for plane in np.ndindex(image_planes):
        source = LabelFile(labels, plane)
        values = label_integers(source.read(), source.name)
        empty = values == 0
        nothing = values == UNLABELLED
        if unlabelled is not None:
            nothing |= values == unlabelled
        if not empty.all() and not nothing.all():
            yield plane
