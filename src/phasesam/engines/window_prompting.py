"""Prompts answered through the window of the image in which the object is seen well.

For adapters that were trained on windows. The search goes from the usual window to a larger one
where the object is cut, or to a smaller one where it is tiny; every window is encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from phasesam.core.boxes import Box, contains, cut_by, enclosing
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.core.types import Prompts
from phasesam.core.windows import WindowLogits, Windows
from phasesam.engines.object_prompting import ObjectAnswer, ObjectPrompt

_MOST_LOOKS = 6
Answer = TypeVar("Answer")

Look = Callable[[Box, Prompts, NDArray[np.float32] | None], MaskSet]
"""Answers prompts on one object, both in pixels of the window, through that window."""

LookMany = Callable[[Box, Sequence[ObjectPrompt]], list[ObjectAnswer]]
"""The same for points on several objects."""


def predict_in_windows(
    windows: Windows,
    prompts: Prompts,
    earlier: WindowLogits | None,
    look: Look,
    scale: int | None = None,
) -> MaskSet:
    """Segment one object; or several boxes, each through a window of its own.

    Parameters
    ----------
    windows : Windows
        Of the image.
    prompts : Prompts
        In pixels of the image, within it.
    earlier : WindowLogits or None
        An answer to the same object.
    look : callable
        Asks the model.
    scale : int or None
        Which of the masks is to be seen whole; None for the one with the best score.

    Returns
    -------
    MaskSet
        With `views`.
    """
    if len(prompts.boxes) > 1:
        each = [
            predict_in_windows(windows, replace(prompts, boxes=box[None]), None, look)
            for box in prompts.boxes
        ]
        return _joined([one.subset([int(one.scores.argmax())]) for one in each])
    is_object = len(prompts.boxes) > 0 or prompts.mask is not None
    path = _Path[MaskSet](windows, _said(prompts, windows), earlier, is_object)
    while True:
        view = path.view
        logits = None if earlier is None else earlier.moved(view)
        answer = _placed(look(view, _within(prompts, view), logits), view, windows.shape)
        best = int(answer.scores.argmax())
        chosen = best if scale is None or scale >= len(answer) else scale
        if not path.goes_on(answer.crops[chosen], answer):
            return path.answer


def answer_objects(
    windows: Windows,
    prompts: Sequence[ObjectPrompt],
    earlier: Sequence[WindowLogits | None],
    look: LookMany,
) -> list[tuple[ObjectAnswer, Box]]:
    """Segment several objects, each from its own points.

    Parameters
    ----------
    windows : Windows
        Of the image.
    prompts : sequence of ObjectPrompt
        Points in pixels of the image; their `logits` are not looked at.
    earlier : sequence of (WindowLogits or None)
        Answers to the same objects.
    look : callable
        Asks the model about objects that are seen through the same window.

    Returns
    -------
    list of (ObjectAnswer, (y0, x0, y1, x1))
        Masks in pixels of the image, and the window that each was seen through.
    """
    paths = [
        _Path[tuple[ObjectAnswer, Box]](windows, _box_of(prompt.points), before)
        for prompt, before in zip(prompts, earlier, strict=True)
    ]
    waiting = list(range(len(prompts)))
    while waiting:
        again = []
        for view in dict.fromkeys(paths[i].view for i in waiting):
            group = [i for i in waiting if paths[i].view == view]
            asked = [_seen(prompts[i], earlier[i], view) for i in group]
            for i, answer in zip(group, look(view, asked), strict=True):
                placed = replace(answer, mask=answer.mask.moved(view[0], view[1]))
                if paths[i].goes_on(placed.mask, (placed, view)):
                    again.append(i)
        waiting = again
    return [path.answer for path in paths]


class _Path(Generic[Answer]):
    """The windows through which one object is looked at, one after the other.

    Attributes
    ----------
    view : (y0, x0, y1, x1)
        Window to look through now.
    answer : object
        The best one so far: the latest that shows something whole.
    """

    answer: Answer

    def __init__(
        self,
        windows: Windows,
        said: Box | None,
        earlier: WindowLogits | None,
        is_object: bool = False,
    ) -> None:
        self.windows = windows
        self.said = said
        self.view = windows.whole
        if said is not None:
            self.view = windows.fitting(said, is_object=is_object)
        if earlier is not None:
            self.view = earlier.view if said is None else _holding(windows, said, earlier.view)
        self._seen = {self.view}
        self._widened = False
        self._has_whole = False

    def goes_on(self, found: MaskCrop, answer: Answer) -> bool:
        """Take an answer, and the next window if there may be a better one."""
        is_whole = found.area > 0 and not cut_by(self.view, found.box, self.windows.shape)
        if is_whole or not self._has_whole:
            self.answer = answer
        self._has_whole = self._has_whole or is_whole
        view = self._next(found, is_whole)
        if view is None:
            return False
        self._widened = self._widened or _side(view) > _side(self.view)
        self._seen.add(view)
        self.view = view
        return True

    def _next(self, found: MaskCrop, is_whole: bool) -> Box | None:
        if self._has_whole and not is_whole:
            # A closer look has made it worse.
            return None
        view = self.windows.following(self.view, found.box, self.said)
        if view is None:
            return None
        if is_whole:
            # What was cut by a small window and is small in a large one stays in the large one.
            return None if view in self._seen or self._widened else view
        side = _side(view)
        while view in self._seen and view != self.windows.whole:
            side *= 2
            both = found.box if self.said is None else enclosing(found.box, self.said)
            view = self.windows.around(both, side)
        if len(self._seen) >= _MOST_LOOKS:
            view = self.windows.whole
        return None if view in self._seen else view


def _holding(windows: Windows, said: Box, view: Box) -> Box:
    """Keep the window of an earlier answer, or take a larger one where prompts lie outside."""
    side = _side(view)
    while view != windows.whole and not contains(view, said):
        side *= 2
        view = windows.around(enclosing(said, view), side)
    return view


def _side(view: Box) -> int:
    return max(view[2] - view[0], view[3] - view[1])


def _box_of(points: NDArray[np.float64]) -> Box:
    """Whole pixels around points."""
    low, high = np.floor(points.min(axis=0) + 0.5), np.floor(points.max(axis=0) + 0.5) + 1
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _said(prompts: Prompts, windows: Windows) -> Box | None:
    """Box around everything that was said, within the image; None for nothing."""
    boxes = []
    if len(prompts.points):
        boxes.append(_box_of(prompts.points))
    if len(prompts.boxes):
        y0, x0, y1, x1 = prompts.boxes[0]
        boxes.append((int(y0), int(x0), int(np.ceil(y1)), int(np.ceil(x1))))
    if prompts.mask is not None:
        boxes.append(MaskCrop.from_array(prompts.mask).box)
    if not boxes:
        return None
    array = np.array(boxes)
    low, high = array[:, :2].min(axis=0), array[:, 2:].max(axis=0)
    limit = np.array(windows.shape)
    low, high = np.clip(low, 0, limit - 1), np.clip(high, 1, limit)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _within(prompts: Prompts, view: Box) -> Prompts:
    """Put prompts into pixels of a window."""
    y0, x0, y1, x1 = view
    corner = np.array([y0, x0], dtype=np.float64)
    mask = prompts.mask
    return replace(
        prompts,
        points=prompts.points - corner,
        boxes=prompts.boxes - np.tile(corner, 2),
        mask=None if mask is None else np.ascontiguousarray(mask[y0:y1, x0:x1]),
    )


def _seen(prompt: ObjectPrompt, earlier: WindowLogits | None, view: Box) -> ObjectPrompt:
    return ObjectPrompt(
        prompt.points - np.array(view[:2]),
        prompt.labels,
        None if earlier is None else earlier.moved(view),
    )


def _placed(answer: MaskSet, view: Box, shape: tuple[int, int]) -> MaskSet:
    """Put an answer in pixels of a window into pixels of the image."""
    return replace(
        answer,
        shape=shape,
        crops=tuple(crop.moved(view[0], view[1]) for crop in answer.crops),
        points=answer.points + np.array(view[:2], dtype=np.float32),
        views=np.tile(np.array(view, dtype=np.int64), (len(answer), 1)),
    )


def _joined(parts: Sequence[MaskSet]) -> MaskSet:
    first = parts[0]
    logits = [part.logits for part in parts if part.logits is not None]
    views = [part.views for part in parts if part.views is not None]
    return replace(
        first,
        crops=tuple(crop for part in parts for crop in part.crops),
        scores=np.concatenate([part.scores for part in parts]),
        stability=np.concatenate([part.stability for part in parts]),
        points=np.concatenate([part.points for part in parts]),
        logits=np.concatenate(logits) if len(logits) == len(parts) else None,
        views=np.concatenate(views) if len(views) == len(parts) else None,
    )
