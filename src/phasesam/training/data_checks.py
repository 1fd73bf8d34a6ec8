"""Look at all training data beforehand: errors that forbid training, warnings that explain it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from phasesam.core.errors import CancelledError, TrainingDataError
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.training.data_findings import Finding, inspect
from phasesam.training.data_tables import TEST, TRAIN, VAL
from phasesam.training.dataset import LabelledImage, TrainingData
from phasesam.training.near_duplicates import (
    MOST_IMAGES,
    MOST_PAIRS,
    NearDuplicate,
    compare,
    compares_fields,
)
from phasesam.training.visible_objects import ImageObjects

_NAMED = 5
_NOT_MAPPED = 255
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
    labelled_fractions : mapping of str to float
        Share of the pixels of each split that are labelled, 0–1.
    object_pixels : float or None
        Median area of the objects to learn from, in pixels; None for classes.
    largest_image : (int, int)
        Height and width of the image with the most pixels.
    duplicates : tuple of NearDuplicate
        Images of different splits that show the same place.
    warnings : tuple of str
        Sentences for the user.
    objects : tuple of ImageObjects
        Of each training image; none for classes.
    """

    n_images: Mapping[str, int]
    n_objects: Mapping[str, int]
    class_fractions: Mapping[str, tuple[float, ...]]
    labelled_fractions: Mapping[str, float]
    object_pixels: float | None
    largest_image: tuple[int, int]
    duplicates: tuple[NearDuplicate, ...] = ()
    warnings: tuple[str, ...] = ()
    objects: tuple[ImageObjects, ...] = ()


def check(
    data: TrainingData,
    *,
    find_duplicates: bool = True,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> DataSummary:
    """Read every image and its labels once and say what is in them.

    Parameters
    ----------
    data : TrainingData
        What will be learnt from.
    find_duplicates : bool
        Whether to look for images of different splits that show the same place.
    progress : callable, optional
        Called as ``progress(done, total)`` after each image.
    should_stop : callable, optional
        Asked before each image.

    Returns
    -------
    DataSummary
        Numbers per split, and warnings.

    Raises
    ------
    TrainingDataError
        If an image and its labels differ in size, labels are of the wrong kind, or the
        training images hold nothing to learn from.
    FileFormatError
        If a file is damaged.
    CancelledError
        If `should_stop` said so.
    """
    findings = []
    for done, image in enumerate(data.images, start=1):
        if should_stop is not None and should_stop():
            raise CancelledError("checking the training data was stopped")
        findings.append(inspect(image, with_thumbnail=find_duplicates))
        if progress is not None:
            progress(done, len(data.images))
    by_split = {name: [f for f in findings if f.image.split == name] for name in data.splits}
    _check_training(data, by_split.get(TRAIN, []))
    duplicates = _duplicates(findings) if find_duplicates else ()
    warnings = [
        *data.warnings,
        *_about_splits(data, by_split),
        *_about_labels(data, findings, by_split),
        *_about_images(findings),
        *_about_duplicates(duplicates),
        *(_about_fields(data) if find_duplicates else ()),
    ]
    is_semantic = data.task == "semantic"
    areas = [area for f in by_split[TRAIN] for area in f.object_pixels]
    return DataSummary(
        {name: len(group) for name, group in by_split.items()},
        {} if is_semantic else {name: _n_objects(group) for name, group in by_split.items()},
        {n: class_fractions(g, len(data.classes)) for n, g in by_split.items()}
        if is_semantic
        else {},
        {name: _labelled_fraction(group) for name, group in by_split.items()},
        None if is_semantic else float(np.median(areas)),
        max((f.shape for f in findings), key=lambda shape: shape[0] * shape[1]),
        duplicates,
        tuple(warnings),
        tuple(f.objects for f in by_split[TRAIN] if f.objects is not None),
    )


def class_fractions(findings: Sequence[Finding], n_classes: int) -> tuple[float, ...]:
    """Share of each class in the labelled pixels; zeros where nothing is labelled."""
    counts = [sum(f.counts.get(index, 0) for f in findings) for index in range(n_classes)]
    total = max(1, sum(counts))
    return tuple(count / total for count in counts)


def _n_objects(findings: Sequence[Finding]) -> int:
    return sum(len(f.object_pixels) for f in findings)


def _labelled_fraction(findings: Sequence[Finding]) -> float:
    pixels = sum(f.shape[0] * f.shape[1] for f in findings)
    return sum(f.n_labelled for f in findings) / pixels


def _check_training(data: TrainingData, findings: Sequence[Finding]) -> None:
    """Refuse what nothing can be learnt from."""
    require_training_images(data)
    if data.task != "semantic":
        if _n_objects(findings) == 0:
            raise TrainingDataError(
                f"expected objects in the labels of the {len(findings)} training images, got "
                f"{'only background (0)' if any(f.counts for f in findings) else 'no labels'}"
            )
        return
    if not any(f.counts for f in findings):
        raise TrainingDataError(
            f"expected labelled pixels in the {len(findings)} training images, got none"
        )
    present = [i for i, share in enumerate(class_fractions(findings, len(data.classes))) if share]
    if len(present) < 2:
        raise TrainingDataError(
            "expected at least two classes in the labels of the training images, got only "
            f"{data.classes[present[0]]} (value {data.class_values[present[0]]})"
        )


def require_training_images(data: TrainingData) -> None:
    """Raise a `TrainingDataError` if no image is in the split for training."""
    if not data.of(TRAIN):
        counted = ", ".join(f"{len(data.of(name))} in {name}" for name in data.splits)
        raise TrainingDataError(
            f"expected at least one image in the split train, got {counted or 'none at all'}"
        )


def judgeable(data: TrainingData) -> tuple[LabelledImage, ...]:
    """Find the validation images with something to judge by: an object, or labelled pixels."""
    least = _least(data)
    return tuple(image for image in data.of(VAL) if (image.label_array() >= least).any())


def _least(data: TrainingData) -> int:
    """Lowest label that can be judged: a class, or the first object."""
    return 0 if data.task == "semantic" else 1


def _duplicates(findings: Sequence[Finding]) -> tuple[NearDuplicate, ...]:
    thumbnails = [f.thumbnail for f in findings if f.thumbnail is not None]
    return compare([f.image for f in findings], thumbnails)


def _about_splits(data: TrainingData, by_split: Mapping[str, Sequence[Finding]]) -> Iterator[str]:
    if VAL not in by_split:
        yield (
            f"there is no validation image beside the {_images(len(by_split[TRAIN]))} to learn "
            "from: the validation looks at training images as they are, and its score says "
            "nothing about other images"
        )
    elif not any(value >= _least(data) for f in by_split[VAL] for value in f.counts):
        yield (
            "the validation images hold nothing to judge by: the validation looks at training "
            "images instead, and its score says nothing about other images"
        )
    if not [name for name in by_split if name not in (TRAIN, VAL)]:
        yield (
            "there is no test image: the final score is the one of the validation, by which the "
            f"training was stopped, and tends to be too good; more images or a split {TEST} help"
        )
    splits: dict[str, set[str]] = {}
    for image in data.images:
        splits.setdefault(image.specimen, set()).add(image.split)
    shared = [name for name, found in splits.items() if len(found) > 1]
    if shared and len(splits) > 1:
        yield f"images of one specimen are in several splits: {_listed(shared)}"


def _about_labels(
    data: TrainingData, findings: Sequence[Finding], by_split: Mapping[str, Sequence[Finding]]
) -> Iterator[str]:
    *others, last = data.class_values or (0,)
    if last == _NOT_MAPPED and others == list(range(len(others))) and len(others) > 1:
        yield (
            f"the value {last} is learnt as a class; in maps of PhaseSAM it is what was not "
            f"mapped, and --unlabelled {last} leaves it out"
        )
    unlabelled = [f.image.labels.name for f in findings if not f.counts]
    if unlabelled:
        yield f"no pixel is labelled in {_listed(unlabelled)}"
    if data.task == "semantic":
        yield from _about_classes(data, by_split)
        return
    empty = [f.image.labels.name for f in findings if f.counts and not f.object_pixels]
    if empty:
        yield f"the labels hold no object in {_listed(empty)}; is the mask empty by mistake?"
    binary = [f for f in findings if f.n_parts and f.n_parts > _PARTS_OF_A_BINARY_MASK]
    if binary:
        yield (
            f"all of the labels is one object of many parts in "
            f"{_listed([f.image.labels.name for f in binary])}; if each part is an object, "
            "number them, or read the data with components"
        )
    specks = [f for f in findings if any(area < _SPECK_PIXELS for area in f.object_pixels)]
    if specks:
        n = sum(area < _SPECK_PIXELS for f in specks for area in f.object_pixels)
        yield (
            f"{n} objects have fewer than {_SPECK_PIXELS} pixels, in "
            f"{_listed([f.image.labels.name for f in specks])}; are they stray pixels?"
        )


def _about_classes(data: TrainingData, by_split: Mapping[str, Sequence[Finding]]) -> Iterator[str]:
    for split, what in (
        (TRAIN, "cannot be learnt: no pixel of a training image is labelled so"),
        (VAL, "is not in the validation images: its score is not known during the training"),
    ):
        shares = class_fractions(by_split.get(split, ()), len(data.classes))
        if split not in by_split:
            continue
        for name, value, share in zip(data.classes, data.class_values, shares, strict=True):
            if share == 0:
                yield f"class {name} (value {value}) {what}"


def _about_images(findings: Sequence[Finding]) -> Iterator[str]:
    blank = [f.image.image.name for f in findings if f.is_blank]
    if blank:
        yield f"all pixels of the image are equal in {_listed(blank)}"
    bars = [f.image.image.name for f in findings if f.has_labelled_bar]
    if bars:
        yield (
            f"there seems to be a data bar in {_listed(bars)}; it is learnt as what its labels "
            "say: cut it off or leave it unlabelled"
        )
    known = [f for f in findings if f.pixel_size.is_physical]
    units = {f.pixel_size.unit for f in known}
    if len(known) > 1 and len(units) == 1:
        sizes = [f.pixel_size.x for f in known]
        if max(sizes) > _SAME_SCALE * min(sizes):
            yield (
                f"pixel sizes differ from {min(sizes):.4g} to {max(sizes):.4g} {units.pop()}: what "
                "is learnt at one magnification need not hold at another"
            )


def _about_duplicates(duplicates: Sequence[NearDuplicate]) -> Iterator[str]:
    for kind, what in (("same", "show the same"), ("overlap", "overlap")):
        pairs = [pair for pair in duplicates if pair.kind == kind]
        if pairs:
            named = [f"{p.first} ({p.splits[0]}) and {p.second} ({p.splits[1]})" for p in pairs]
            yield (
                f"images of different splits {what}: {_listed(named, '; ')}; give them the same "
                "specimen, or scores are too good"
            )


def _about_fields(data: TrainingData) -> Iterator[str]:
    if compares_fields([image.split for image in data.images]):
        return
    are_named = any(image.specimen != image.name for image in data.images)
    yield (
        f"overlapping fields were not looked for: there are more than {MOST_PAIRS:,} pairs of "
        f"images of different splits, or more than {MOST_IMAGES:,} images"
        + ("" if are_named else "; name specimens if fields may overlap")
    )


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    """Name the first few."""
    more = len(names) - _NAMED
    return separator.join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
