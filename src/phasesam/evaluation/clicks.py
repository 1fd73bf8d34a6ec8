"""Click on objects as a user would, and record how good the masks get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.boxes import Box
from phasesam.core.errors import CancelledError, InvalidMaskError, InvalidSettingError
from phasesam.core.mask_set import MaskCrop
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.core.windows import WindowLogits, Windows
from phasesam.engines.segmenter import Segmenter
from phasesam.evaluation.click_curves import ClickCurves
from phasesam.evaluation.clicker import Click, next_click, union_box, window

THRESHOLDS = (0.80, 0.85, 0.90)
MAX_CLICKS = 20
COMPLETE_CLICKS = 11
"""Objects that have reached every threshold are clicked at least this often."""

_OBJECTS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class ClickedObject:
    """All clicks on one object so far.

    Attributes
    ----------
    points : (k, 2) float64 array
        ``(y, x)`` in image pixels, the latest last.
    labels : (k,) int64 array
        1 inside, 0 outside.
    state : object
        What the predictor returned for this object last time; None at the first click.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    state: Any = None


ClickPredictor = Callable[[Sequence[ClickedObject]], Sequence[tuple[Any, Any]]]
"""Answers several objects of one image, each with a mask ((h, w) array, non-zero inside, or
`MaskCrop`) and a state that comes back with the next click on the same object."""


def evaluate_clicks(
    predictor: Segmenter | ClickPredictor,
    labels: NDArray[np.integer[Any]],
    max_clicks: int = MAX_CLICKS,
    thresholds: Sequence[float] = THRESHOLDS,
    object_ids: Sequence[int] | None = None,
    *,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> ClickCurves:
    """Segment every object of an image by clicks into the centre of the largest error.

    The first click is the centre of the object by the same rule. An object that is right to the
    pixel is clicked no more; one that has reached all thresholds not beyond 11 clicks.

    Parameters
    ----------
    predictor : Segmenter or callable
        What answers the clicks, on the image that the labels belong to. A segmenter is asked as
        by `segmenter_predictor`.
    labels : (h, w) integer array
        True objects 1, 2, ...; 0 is background, negative means unknown.
    max_clicks : int
        Most clicks per object.
    thresholds : sequence of float
        IoU values whose numbers of clicks are wanted.
    object_ids : sequence of int, optional
        Only these labels; all when left out.
    progress : callable, optional
        ``progress(done, total)`` in objects.
    should_stop : callable, optional
        Asked before each round of clicks.

    Returns
    -------
    ClickCurves
        One row per object; `ClickCurves.joined` puts images together.

    Raises
    ------
    InvalidMaskError
        If the labels are no label image or an object is not in it.
    InvalidSettingError
        If there is not at least one click.
    CancelledError
        If the user asked to stop.
    """
    if max_clicks < 1:
        raise InvalidSettingError(f"expected at least one click, got {max_clicks}")
    labels, valid = _known(labels, predictor)
    ids, crops = _objects(labels, valid, object_ids)
    answer = (
        segmenter_predictor(predictor, should_stop)
        if isinstance(predictor, Segmenter)
        else predictor
    )
    series = [
        _Series(crop, None if valid.all() else valid, max_clicks, tuple(thresholds))
        for crop in crops
    ]
    if progress is not None:
        progress(0, len(series))
    for start in range(0, len(series), _OBJECTS_AT_ONCE):
        part = series[start : start + _OBJECTS_AT_ONCE]
        for _ in range(max_clicks):
            if should_stop is not None and should_stop():
                raise CancelledError("stopped between clicks")
            _click_once(part, answer)
        if progress is not None:
            progress(start + len(part), len(series))
    return ClickCurves(
        iou=np.array([s.curve("iou") for s in series]).reshape(-1, max_clicks),
        dice=np.array([s.curve("dice") for s in series]).reshape(-1, max_clicks),
        object_ids=ids,
        images=np.full(len(ids), "", dtype=np.str_),
        thresholds=tuple(thresholds),
        complete=min(COMPLETE_CLICKS, max_clicks),
        numbers=np.zeros(len(ids), np.int64),
        first_masks=tuple(s.first for s in series),
        last_masks=tuple(s.last for s in series),
    )


def segmenter_predictor(
    segmenter: Segmenter, should_stop: StopCallback | None = None
) -> ClickPredictor:
    """Answer clicks as SAM's interactive use does.

    The first click has three possible masks, of which the one with the highest predicted IoU is
    taken. All later ones ask for a single mask and pass back the logits of the mask before.

    Parameters
    ----------
    segmenter : Segmenter
        Encodes its image, or parts of it, when first clicked.
    should_stop : callable, optional
        Asked before each encoding.
    """
    from phasesam.engines.object_prompting import ObjectAnswer, ObjectPrompt, predict_objects
    from phasesam.engines.window_prompting import answer_objects

    windows = segmenter.windows or Windows(segmenter.rgb.shape[:2], max(segmenter.rgb.shape[:2]))

    def answer(objects: Sequence[ClickedObject]) -> list[tuple[MaskCrop, WindowLogits]]:
        found: dict[int, tuple[MaskCrop, WindowLogits]] = {}
        for first in (True, False):

            def look(
                view: Box, prompts: Sequence[ObjectPrompt], first: bool = first
            ) -> list[ObjectAnswer]:
                embedding = segmenter.look(view, should_stop=should_stop)
                manager = segmenter.manager
                with manager.lease(segmenter.model, segmenter.prompted) as model:
                    return predict_objects(
                        model, manager, embedding, prompts, multimask_output=first
                    )

            chosen = [i for i, o in enumerate(objects) if (len(o.points) == 1) is first]
            answers = answer_objects(
                windows,
                [ObjectPrompt(objects[i].points, objects[i].labels) for i in chosen],
                [objects[i].state for i in chosen],
                look,
            )
            for i, (result, view) in zip(chosen, answers, strict=True):
                found[i] = result.mask, WindowLogits(result.logits, view)
        return [found[i] for i in range(len(objects))]

    return answer


def _known(
    labels: NDArray[np.integer[Any]], predictor: Segmenter | ClickPredictor
) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]:
    """Labels and where they count: not where unknown, nor in the data bar of a segmenter."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InvalidMaskError(
            f"a label image is (h, w) of integers, got {labels.shape} {labels.dtype}"
        )
    valid = labels >= 0
    if isinstance(predictor, Segmenter):
        if labels.shape != predictor.shape:
            raise InvalidMaskError(
                f"expected labels of the image's shape {predictor.shape}, got {labels.shape}"
            )
        if predictor.data_bar is not None:
            valid[predictor.data_bar :] = False
    return labels, valid


def _objects(
    labels: NDArray[np.integer[Any]],
    valid: NDArray[np.bool_],
    object_ids: Sequence[int] | None,
) -> tuple[NDArray[np.int64], list[MaskCrop]]:
    from phasesam.core.mask_set import MaskSet

    counted = np.where(valid, labels, 0)
    present = np.unique(counted)
    present = present[present > 0].astype(np.int64)
    crops = MaskSet.from_labels(counted).crops
    if object_ids is None:
        return present, list(crops)
    wanted = np.asarray(list(object_ids), dtype=np.int64)
    absent = wanted[~np.isin(wanted, present)]
    if len(absent):
        raise InvalidMaskError(f"the labels hold no object {absent.tolist()[:5]}")
    return wanted, [crops[i] for i in np.searchsorted(present, wanted)]


_NOTHING = MaskCrop.from_array(np.zeros((1, 1), np.bool_))


@dataclass(eq=False)
class _Series:
    """The clicks on one object and what came of them."""

    truth: MaskCrop
    valid: NDArray[np.bool_] | None
    max_clicks: int
    thresholds: tuple[float, ...]
    clicks: list[Click] = field(default_factory=list)
    found: MaskCrop = field(default_factory=lambda: _NOTHING)
    first: MaskCrop = field(default_factory=lambda: _NOTHING)
    last: MaskCrop = field(default_factory=lambda: _NOTHING)
    state: Any = None
    scores: dict[str, list[float]] = field(default_factory=lambda: {"iou": [], "dice": []})
    ended: bool = False

    def next_object(self) -> ClickedObject | None:
        """Make the next click; None when there is nothing more to click."""
        done = self.scores["iou"]
        good = bool(done) and all(max(done) >= t for t in self.thresholds)
        if self.ended or (good and len(done) >= COMPLETE_CLICKS):
            self.ended = True
            return None
        click = next_click(self.truth, self.found, self.clicks, self.valid)
        if click is None:
            self.ended = True
            return None
        self.clicks.append(click)
        points = np.array([(c.y, c.x) for c in self.clicks], dtype=np.float64)
        marks = np.array([int(c.positive) for c in self.clicks], dtype=np.int64)
        return ClickedObject(points, marks, self.state)

    def take(self, mask: Any, state: Any) -> None:
        """Keep the answer to the latest click."""
        self.found = mask if isinstance(mask, MaskCrop) else MaskCrop.from_array(mask != 0)
        self.state = state
        if len(self.clicks) == 1:
            self.first = self.found
        if len(self.clicks) <= COMPLETE_CLICKS:
            self.last = self.found
        box = union_box(self.truth, self.found)
        wanted, found = window(self.truth, box), window(self.found, box)
        if self.valid is not None:
            found &= self.valid[box[0] : box[2], box[1] : box[3]]
        shared = int(np.count_nonzero(wanted & found))
        total = self.truth.area + int(np.count_nonzero(found))
        self.scores["iou"].append(shared / (total - shared))
        self.scores["dice"].append(2 * shared / total)

    def curve(self, measure: str) -> list[float]:
        """Return the values after each click; the last one goes on to the end."""
        values = self.scores[measure]
        return values + values[-1:] * (self.max_clicks - len(values))


def _click_once(series: Sequence[_Series], answer: ClickPredictor) -> None:
    """Click once on every object that is not finished."""
    asked = [(one, request) for one in series if (request := one.next_object()) is not None]
    if not asked:
        return
    results = answer([request for _, request in asked])
    if len(results) != len(asked):
        raise InvalidSettingError(
            f"expected an answer for each of {len(asked)} objects, got {len(results)}"
        )
    for (one, _), (mask, state) in zip(asked, results, strict=True):
        one.take(mask, state)
