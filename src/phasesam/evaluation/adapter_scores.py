"""What an adapter gains: base and adapted model, and baselines, on the same test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import CancelledError, InvalidSettingError
from phasesam.core.mask_set import MaskSet
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.engines.presets import get_preset
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import NO_CLASS, segment_classes
from phasesam.evaluation.instances import InstanceSummary, score_image
from phasesam.evaluation.phase_maps import PhaseMapScores, PhaseMapSummary, score_phase_map
from phasesam.models.adapter_card import AdapterCard
from phasesam.models.adapter_loading import Adapter
from phasesam.training.dataset import LabelledImage, TrainingData
from phasesam.training.label_values import UNLABELLED

_LEARNT = ("train", "val")

PhaseMapper = Callable[[LabelledImage], NDArray[np.integer[Any]]]
"""From an image to the class of each pixel, (h, w); -1 for none."""

ObjectFinder = Callable[[LabelledImage], MaskSet]
"""From an image to its objects with their scores."""


@dataclass(frozen=True)
class Watch:
    """How somebody follows and stops long work.

    Attributes
    ----------
    progress : callable or None
        ``progress(done, total)`` in images, each counted once per method.
    should_stop : callable or None
        Asked between images.
    """

    progress: ProgressCallback | None = None
    should_stop: StopCallback | None = None

    def step(self, done: int, total: int) -> None:
        """Tell how far it is.

        Raises
        ------
        CancelledError
            If somebody asked to stop.
        """
        if self.should_stop is not None and self.should_stop():
            raise CancelledError("stopped between images")
        if self.progress is not None:
            self.progress(done, total)


@dataclass(frozen=True, eq=False)
class Answers:
    """What the methods said about the images.

    Attributes
    ----------
    summaries : mapping of str to PhaseMapSummary or InstanceSummary
        Scores by method.
    last : tuple of arrays or MaskSets
        What the last method found in each image, for pictures.
    """

    summaries: Mapping[str, Any]
    last: tuple[Any, ...]


def compare_phase_maps(
    images: Sequence[LabelledImage],
    methods: Mapping[str, PhaseMapper],
    classes: Sequence[str],
    watch: Watch | None = None,
) -> Answers:
    """Map images with several methods and score them.

    Parameters
    ----------
    images : sequence of LabelledImage
        Of one split, with classes.
    methods : mapping of str to PhaseMapper
        The last one is that of interest.
    classes : sequence of str
        Names of the classes.
    watch : Watch, optional
        Who follows it.

    Raises
    ------
    InvalidSettingError
        If there is no image.
    CancelledError
        If somebody asked to stop.
    """
    names, groups = _names(images)

    def score(predicted: Any, truth: NDArray[np.int32]) -> PhaseMapScores:
        return score_phase_map(predicted, truth, len(classes))

    found, last = _compared(images, methods, score, watch or Watch())
    summaries = {
        name: PhaseMapSummary(tuple(scores), tuple(classes), names, groups)
        for name, scores in found.items()
    }
    return Answers(summaries, last)


def compare_objects(
    images: Sequence[LabelledImage],
    methods: Mapping[str, ObjectFinder],
    watch: Watch | None = None,
) -> Answers:
    """Find objects with several methods and score them; as `compare_phase_maps`."""
    names, groups = _names(images)
    found, last = _compared(images, methods, score_image, watch or Watch())
    summaries = {name: InstanceSummary(tuple(s), names, groups) for name, s in found.items()}
    return Answers(summaries, last)


def _compared(
    images: Sequence[LabelledImage],
    methods: Mapping[str, Callable[[LabelledImage], Any]],
    score: Callable[[Any, NDArray[np.int32]], Any],
    watch: Watch,
) -> tuple[dict[str, list[Any]], tuple[Any, ...]]:
    """Ask every method about every image: scores by method, and what the last one said."""
    found: dict[str, list[Any]] = {name: [] for name in methods}
    last: list[Any] = []
    total = len(methods) * len(images)
    for image in images:
        truth = image.label_array()
        for name, method in methods.items():
            watch.step(sum(map(len, found.values())), total)
            predicted = method(image)
            found[name].append(score(predicted, truth))
        last.append(predicted)
    watch.step(total, total)
    return found, tuple(last)


def adapter_mapper(
    model: str, adapter: Adapter, classes: Sequence[str], known: Sequence[str]
) -> PhaseMapper:
    """Map images with an adapter that has classes.

    Parameters
    ----------
    model : str
        Name of its base in the registry.
    adapter : Adapter
        The adapter.
    classes : sequence of str
        Names of the classes of the truth.
    known : sequence of str
        Names of the classes of the adapter.

    Raises
    ------
    InvalidSettingError
        If the adapter has other classes.
    """
    if set(known) != set(classes):
        raise InvalidSettingError(
            f"the adapter has the classes {', '.join(known)}, the data {', '.join(classes)}; "
            "name those of the data as those of the adapter"
        )
    order = np.full(256, UNLABELLED, np.int32)
    order[: len(known)] = [list(classes).index(name) for name in known]
    order[NO_CLASS] = UNLABELLED

    def mapper(image: LabelledImage) -> NDArray[np.int32]:
        segmenter = Segmenter(image.rgb(), model, adapter=adapter, exclude_data_bar=False)
        return order[segment_classes(segmenter, keep_probabilities=False).labels]

    return mapper


def model_finder(
    model: str,
    adapter: Adapter = None,
    preset: str = "particles",
    window: int | None = None,
) -> ObjectFinder:
    """Find objects by automatic masks, with or without an adapter.

    Parameters
    ----------
    model : str
        Name in the registry.
    adapter : Adapter, optional
        None for the model as published.
    preset : str
        Settings of search and filter.
    window : int, optional
        Side in pixels of the parts of an image that are searched. When left out, what the adapter
        was trained on; the whole image, shrunk, for a model as published.
    """
    settings = get_preset(preset)
    search = settings.automatic if window is None else settings.automatic.changed(window=window)

    def finder(image: LabelledImage) -> MaskSet:
        segmenter = Segmenter(image.rgb(), model, adapter=adapter, exclude_data_bar=False)
        candidates = segmenter.automatic(search)
        return candidates.filter(settings.filter_for(segmenter.shape))

    return finder


def choose_images(
    data: TrainingData, card: AdapterCard, split: str | None = None
) -> tuple[tuple[LabelledImage, ...], tuple[str, ...]]:
    """Choose images to test an adapter on: none that it has learnt from.

    Parameters
    ----------
    data : TrainingData
        The data it was trained on, or others.
    card : AdapterCard
        Remembers which images were in which split.
    split : str, optional
        Only this split of `data`. When left out, images that the card counts among a test
        split, and those that it does not know.

    Returns
    -------
    tuple of LabelledImage
        The images.
    tuple of str
        Warnings, such as that some were learnt from.

    Raises
    ------
    InvalidSettingError
        If nothing is left.
    """
    known: Mapping[str, Sequence[str]] = card.details.get("splits", {})
    splits = _remembered(data, card)
    if split is not None:
        images = data.of(split)
    elif splits:
        others = tuple(set(known) - set(_LEARNT))
        tested = ("test",) if known.get("test") else (*others, "new")
        images = tuple(i for i in data.images if splits.get(i.name, tested[0]) in tested)
    else:
        images = data.images
    images, blank = with_labels(images)
    if not images:
        raise InvalidSettingError(
            f"there is no image to test on: the data have the splits {', '.join(data.splits)}, "
            "and the adapter has learnt from what is not in a test split; choose a split"
        )
    seen = [image.name for image in images if splits.get(image.name) in _LEARNT]
    warnings = blank
    if seen:
        warnings += (
            f"{len(seen)} of {len(images)} images were used in training ({', '.join(seen[:3])}): "
            "the figures are better than on new images",
        )
    return images, warnings + _known_specimens(images, card, seen)


def _known_specimens(
    images: Sequence[LabelledImage], card: AdapterCard, seen: Sequence[str]
) -> tuple[str, ...]:
    """Warn of images that are new, of specimens that are not."""
    specimens: Mapping[str, Sequence[str]] = card.details.get("specimens", {})
    learnt = {name for split in _LEARNT for name in specimens.get(split, ())}
    learnt |= set(card.details.get("learnt_before", {}).get("specimens", ()))
    # What has no specimen is its own, and may be called like any other file.
    alike = [
        i for i in images if i.specimen != i.name and i.specimen in learnt and i.name not in seen
    ]
    if not alike:
        return ()
    names = ", ".join(sorted({image.specimen for image in alike})[:3])
    return (
        f"{len(alike)} of {len(images)} images are of specimens that were learnt from ({names}): "
        "the figures may be better than on new specimens",
    )


def with_labels(
    images: Sequence[LabelledImage],
) -> tuple[tuple[LabelledImage, ...], tuple[str, ...]]:
    """Leave out images in which nothing is labelled, with a sentence that says so."""
    kept = tuple(i for i in images if (i.label_array() != UNLABELLED).any())
    if len(kept) == len(images):
        return kept, ()
    names = [i.name for i in images if i not in kept]
    return kept, (f"no pixel is labelled in {', '.join(names[:3])}: {len(names)} left out",)


def as_trained(data: TrainingData, card: AdapterCard) -> TrainingData:
    """Divide images as they were when an adapter was trained; others become tests.

    Parameters
    ----------
    data : TrainingData
        The data it was trained on. Others, without any image that it has learnt from, stay as
        they are.
    card : AdapterCard
        Remembers which images were in which split.
    """
    splits = _remembered(data, card)
    if "train" not in splits.values():
        return data

    def split(image: LabelledImage) -> str:
        own = "test" if image.split in _LEARNT else image.split
        return splits.get(image.name, own)

    return replace(data, images=tuple(replace(i, split=split(i)) for i in data.images))


def baseline_data(data: TrainingData, card: AdapterCard) -> TrainingData:
    """Choose what a baseline learns from: what the adapter has learnt from, and nothing else.

    Parameters
    ----------
    data : TrainingData
        As for `as_trained`.
    card : AdapterCard
        Of the adapter.

    Raises
    ------
    InvalidSettingError
        If the data hold nothing that the adapter has learnt from.
    """
    divided = as_trained(data, card)
    if divided is data:
        raise InvalidSettingError(
            "a baseline learns from the images that the adapter has learnt from, and the data "
            "hold none of them; add them, or leave the baseline out"
        )
    return divided


def _remembered(data: TrainingData, card: AdapterCard) -> dict[str, str]:
    """Split by name of the images that an adapter knows, by what they show where it remembers."""
    known: Mapping[str, Sequence[str]] = card.details.get("splits", {})
    split_of = {name: split for split, names in known.items() for name in names}
    keys: Mapping[str, str] = card.details.get("picture_keys", {})
    if not keys:
        return {i.name: split_of[i.name] for i in data.images if i.name in split_of}
    by_picture: dict[str, str] = {}
    for name, key in keys.items():
        # The same picture twice: it was learnt from if one of them was.
        if name in split_of and by_picture.get(key) not in _LEARNT:
            by_picture[key] = split_of[name]
    # What an adapter that it went on from has learnt from is no test for it, either.
    before: Mapping[str, Sequence[str]] = card.details.get("learnt_before", {})
    for key in before.get("pictures", ()):
        if by_picture.get(key) not in _LEARNT:
            by_picture[key] = "train"
    found = {}
    for image in data.images:
        for key in (image.picture_key, image.whole_picture_key):
            if key in by_picture:
                found[image.name] = by_picture[key]
    return found


def _names(images: Sequence[LabelledImage]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not images:
        raise InvalidSettingError("expected at least one image to test on, got none")
    return tuple(i.name for i in images), tuple(i.specimen for i in images)
