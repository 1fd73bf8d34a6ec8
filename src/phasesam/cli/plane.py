"""Segment one image plane after a recipe, automatically or by prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.cli.prompts_file import ObjectPrompt
from phasesam.cli.recipe import Recipe
from phasesam.core.errors import CancelledError
from phasesam.core.images import is_constant
from phasesam.core.mask_set import MaskSet
from phasesam.core.measurements import ObjectTable, measure
from phasesam.core.types import SCALES, PixelSize, StopCallback

if TYPE_CHECKING:
    from phasesam.engines.segmenter import Segmenter

StepCallback = Callable[[str, int, int], None]
"""Called as ``step(name, done, total)``."""


@dataclass(frozen=True)
class Watch:
    """Who watches the work: `step` hears of progress, `should_stop` may end it."""

    step: StepCallback = lambda name, done, total: None
    should_stop: StopCallback = lambda: False

    def with_prefix(self, prefix: str) -> Watch:
        """Return a watch whose steps have longer names."""
        return Watch(lambda name, *numbers: self.step(prefix + name, *numbers), self.should_stop)


@dataclass(frozen=True)
class PlaneResult:
    """The objects of one plane.

    Attributes
    ----------
    masks : MaskSet
        Mask i has label i + 1, if any of it shows.
    classes : tuple of str
        Class of each mask.
    labels : (h, w) int32 array
        The masks painted into one image, smaller ones on larger ones.
    data_bar : int or None
        First row of the data bar that was left out.
    """

    masks: MaskSet
    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    data_bar: int | None

    @property
    def segmented_pixels(self) -> int:
        """Pixels of the plane without its data bar."""
        height, width = self.labels.shape
        return (height if self.data_bar is None else self.data_bar) * width

    @property
    def hidden(self) -> list[int]:
        """Indices of masks that have pixels but no label, because others cover them."""
        shown = np.bincount(self.labels.ravel(), minlength=len(self.masks) + 1)[1:] > 0
        hidden: list[int] = np.flatnonzero(~shown & (self.masks.areas > 0)).tolist()
        return hidden

    @property
    def empty(self) -> list[int]:
        """Indices of masks without a pixel."""
        empty: list[int] = np.flatnonzero(self.masks.areas == 0).tolist()
        return empty

    def table(self, pixel_size: PixelSize) -> ObjectTable:
        """Measure the objects; adds the column ``stability``."""
        height, width = self.labels.shape
        table = measure(
            self.labels,
            pixel_size,
            scores=dict(enumerate(self.masks.scores.tolist(), 1)),
            classes=dict(enumerate(self.classes, 1)),
            field_of_view=(0, 0, self.data_bar or height, width),
        )
        return table.with_columns({"stability": self.masks.stability[table["id"] - 1]})


def segment_plane(
    image: NDArray[Any],
    recipe: Recipe,
    prompts: Sequence[ObjectPrompt] | None = None,
    watch: Watch | None = None,
    data_bar: int | None = None,
) -> PlaneResult:
    """Segment one image.

    Parameters
    ----------
    image : (h, w), (h, w, 3) or (h, w, 4) array
        Any micrograph.
    recipe : Recipe
        What to do.
    prompts : sequence of ObjectPrompt, optional
        Objects to segment; automatic masks when None.
    watch : Watch, optional
        Who is told of progress, and may stop the work.
    data_bar : int, optional
        First row of the data bar, where the file says so; looked for when None.

    Raises
    ------
    InvalidImageError, InvalidPromptError
        If the image cannot be segmented or a prompt lies outside.
    CancelledError
        If the user asked to stop.
    """
    from phasesam.engines.segmenter import Segmenter

    watch = watch or Watch()
    known_bar = data_bar if recipe.exclude_data_bar else None
    segmenter = Segmenter(
        image[:known_bar],
        recipe.model,
        normalisation=recipe.normalisation,
        exclude_data_bar=recipe.exclude_data_bar and known_bar is None,
        adapter=recipe.adapter,
    )
    if prompts is not None:
        masks = _prompted(segmenter, prompts, watch)
        classes = tuple(item.class_name for item in prompts)
        min_area = 0.0
    else:
        watch.step("encoding", 0, 1)
        candidates = segmenter.automatic(
            recipe.search,
            progress=lambda done, total: watch.step("searching", done, total),
            should_stop=watch.should_stop,
        )
        thresholds = recipe.filter_for(segmenter.rgb.shape[:2])
        masks = candidates.filter(thresholds)
        classes = ("",) * len(masks)
        min_area = thresholds.min_area
    masks = replace(masks, shape=(image.shape[0], image.shape[1]))
    bar = segmenter.data_bar if known_bar is None else known_bar
    return PlaneResult(masks, classes, masks.to_labels(min_area=min_area), bar)


def holds_nothing(image: NDArray[Any]) -> bool:
    """Whether nothing can be found in a plane of a stack: no pixel is finite, or all are equal."""
    return not np.isfinite(image).any() or is_constant(image)


def blank_plane(image: NDArray[Any], data_bar: int | None) -> PlaneResult:
    """Return the result for a plane without any object; parameters as for `segment_plane`."""
    masks = MaskSet((image.shape[0], image.shape[1]))
    return PlaneResult(masks, (), masks.to_labels(), data_bar)


def _prompted(segmenter: Segmenter, prompts: Sequence[ObjectPrompt], watch: Watch) -> MaskSet:
    """Segment the objects one after the other, each to one mask."""
    if not prompts:
        return MaskSet(shape=segmenter.shape)
    watch.step("encoding", 0, 1)
    segmenter.prepare(should_stop=watch.should_stop)
    crops, scores = [], []
    for number, item in enumerate(prompts):
        if watch.should_stop():
            raise CancelledError(f"stopped before object {number + 1} of {len(prompts)}")
        watch.step("objects", number, len(prompts))
        said = item.prompts
        # One click can mean a part, an object or a group; more prompts say which.
        ambiguous = item.scale or len(said.points) + len(said.boxes) == 1
        answer = segmenter.predict(said.points, said.labels, said.boxes, multimask_output=ambiguous)
        # SAM-HQ gives one mask, whatever was meant.
        by_scale = item.scale and len(answer) == len(SCALES)
        best = SCALES.index(item.scale) if by_scale else int(answer.scores.argmax())
        crops.append(answer.crops[best])
        scores.append(float(answer.scores[best]))
    return MaskSet.from_crops(segmenter.shape, crops, scores)
