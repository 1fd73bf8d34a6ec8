"""The object that is being prompted, before it is added: prompts, answers, and what led there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from phasesam.core.boxes import cut_by
from phasesam.core.curation import fill_holes, smooth
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.core.similar_region import inner_points
from phasesam.core.windows import WindowLogits
from phasesam.napari_widgets.prompt_layers import PlanePrompts

if TYPE_CHECKING:
    from phasesam.core.types import Scale
    from phasesam.session import ObjectRecord

SCALES = ("auto", "part", "object", "group")


@dataclass(frozen=True)
class MaskSettings:
    """How a mask is made of the model's answer.

    Attributes
    ----------
    scale : {"auto", "part", "object", "group"}
        Which of SAM's three nested masks; ``"auto"`` takes the best for a single click
        and the model's single refined answer for more prompts.
    threshold : float
        Logit above which a pixel belongs to the mask; 0 is even odds.
    smoothing : float
        Radius in pixels by which outlines are rounded; 0 for not at all.
    hole_area : int
        Holes up to this many pixels are filled.
    """

    scale: str = "auto"
    threshold: float = 0.0
    smoothing: float = 0.0
    hole_area: int = 0


@dataclass(frozen=True)
class Question:
    """What the model is asked about one object (or several boxes, one object each)."""

    prompts: PlanePrompts
    mask: NDArray[np.bool_] | None
    logits: WindowLogits | None
    settings: MaskSettings

    @property
    def scales(self) -> bool | Scale:
        """Whether the model should give its three scales rather than one, or which is meant."""
        if len(self.prompts.boxes) > 1:
            return False
        if self.settings.scale != "auto":
            return cast("Scale", self.settings.scale)
        return len(self.prompts.points) == 1 and len(self.prompts.boxes) == 0 and self.mask is None

    def chosen(self, masks: MaskSet) -> int:
        """Tell which mask of the answer is meant, by index."""
        return chosen_index(masks, self.settings.scale)

    def put_to(self, predict: Callable[..., MaskSet]) -> Answer:
        """Ask; for workers only."""
        start = time.perf_counter()
        said = self.prompts
        several = len(said.boxes) > 1
        use_points = len(said.points) > 0 and not several
        masks = predict(
            points=said.points if use_points else None,
            labels=said.labels if use_points else None,
            boxes=said.boxes if len(said.boxes) else None,
            mask=self.mask if self.logits is None and not several else None,
            logits=None if several else self.logits,
            multimask_output=self.scales,
            threshold=self.settings.threshold,
        )
        masks = self._clean(masks)
        return Answer(masks, time.perf_counter() - start)

    def _clean(self, masks: MaskSet) -> MaskSet:
        settings = self.settings
        if not settings.smoothing and not settings.hole_area:
            return masks
        crops = []
        for crop in masks.crops:
            if crop.area and settings.hole_area:
                crop = fill_holes(crop, settings.hole_area)
            if crop.area and settings.smoothing:
                crop = smooth(crop, settings.smoothing, masks.shape)
            crops.append(crop)
        return MaskSet.from_crops(
            masks.shape,
            crops,
            masks.scores,
            stability=masks.stability,
            points=masks.points,
            logits=masks.logits,
            views=masks.views,
        )


@dataclass(frozen=True)
class Answer:
    """Masks for one question and how long they took in seconds."""

    masks: MaskSet
    seconds: float

    def is_cut(self, index: int) -> bool:
        """Whether a mask ends where the part of the image ends that was looked at."""
        if self.masks.views is None:
            return False
        y0, x0, y1, x1 = self.masks.views[index].tolist()
        return cut_by((y0, x0, y1, x1), self.masks.crops[index].box, self.masks.shape)


@dataclass
class PresentObject:
    """One object in the making, on one plane of one image.

    Attributes
    ----------
    prompts : PlanePrompts
        What was said so far.
    answer : Answer or None
        What the model made of it; None while it is being asked.
    mask : (h, w) bool array or None
        The mask that prompting began with, if it did.
    reopened : ObjectRecord or None
        The committed object that was taken out for this.
    trail, future : list
        Earlier states, and states taken back, as (prompts, answer).
    """

    prompts: PlanePrompts = field(default_factory=PlanePrompts)
    answer: Answer | None = None
    mask: NDArray[np.bool_] | None = None
    reopened: ObjectRecord | None = None
    trail: list[tuple[PlanePrompts, Answer | None]] = field(default_factory=list)
    future: list[tuple[PlanePrompts, Answer | None]] = field(default_factory=list)
    _refines: Answer | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said."""
        return self.prompts.count == 0 and self.mask is None

    def say(self, prompts: PlanePrompts) -> None:
        """Take over what the layers say now; the answer is open then."""
        if prompts.extends(self.prompts) and self.answer is not None and len(prompts.boxes) < 2:
            self._refines = self.answer
        else:
            self._refines = None
        self.trail.append((self.prompts, self.answer))
        self.future.clear()
        self.prompts = prompts
        self.answer = None

    def step_back(self) -> bool:
        """Return to the state before the last prompt; False if there is none."""
        return self._step(self.trail, self.future)

    def step_forward(self) -> bool:
        """Take a step back back; False if there is none."""
        return self._step(self.future, self.trail)

    def forget_answer(self) -> None:
        """Drop what another model (or another look at the image) said.

        An object that was re-opened and not yet touched keeps its own mask.
        """
        if self.mask is None or self.trail:
            self.answer = None
            self._refines = None

    def _step(self, source: list[Any], target: list[Any]) -> bool:
        if not source:
            return False
        target.append((self.prompts, self.answer))
        self.prompts, self.answer = source.pop()
        self._refines = None
        return True

    def question(self, settings: MaskSettings) -> Question:
        """Put what was said into a question; an answer that is refined goes with it."""
        logits = None
        if self._refines is not None:
            masks = self._refines.masks
            logits = masks.to_refine(chosen_index(masks, settings.scale))
        return Question(self.prompts, self.mask, logits, settings)

    def chosen(self, scale: str) -> list[int]:
        """Tell which masks are shown and would be added, by index."""
        if self.answer is None or not len(self.answer.masks):
            return []
        if len(self.prompts.boxes) > 1:
            return list(range(len(self.answer.masks)))
        return [chosen_index(self.answer.masks, scale)]


def chosen_index(masks: MaskSet, scale: str) -> int:
    """Which of the masks a scale means: part, object, group in SAM's order, or the best."""
    if len(masks) == 3 and scale != "auto":
        return SCALES.index(scale) - 1
    return int(np.argmax(np.nan_to_num(masks.scores, nan=-1.0)))


def deepest_point(crop: MaskCrop) -> NDArray[np.float64]:
    """Find the pixel of a mask that is farthest from its outline, (2,) ``(y, x)``."""
    found = inner_points(crop.array(), 1)
    place = found[0] if len(found) else np.zeros(2)
    return place + np.array([crop.y0, crop.x0])
