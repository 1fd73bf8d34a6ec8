"""Which part of an image is looked at for an object. Knows no torch.

A model sees 1024 x 1024 pixels and answers with 256 x 256 logits, so that of a large image small
objects are lost. An adapter that was trained on windows of some size is shown windows of that
size: the one about the object, a larger one where the object does not fit, a smaller one where
it is tiny. Windows lie on a grid of half their side, so that neighbours share their embeddings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from phasesam.core.boxes import Box, contains, cut_by, enclosing
from phasesam.core.errors import InvalidPromptError, InvalidSettingError

SMALLEST_SIDE = 64
_TINY = 16
"""An object smaller than a 16th of a window, 16 of its 256 logits, is lost in it. What is not lost
is seen best at the magnification of the training: teeth of a tenth of the window had a first Dice
of .81 in it and of .74 in windows half as large."""
_ROOM = 2
_OUTSIDE = -8.0
"""Logit where an earlier answer did not look: surely not the object."""


@dataclass(frozen=True, eq=False)
class WindowLogits:
    """Logits of an earlier answer that is to be refined, and what they show.

    Attributes
    ----------
    logits : (256, 256) float32 array
        What the model said.
    view : (y0, x0, y1, x1)
        Window that they show.
    """

    logits: NDArray[np.float32]
    view: Box

    @classmethod
    def of(cls, logits: ArrayLike | WindowLogits | None, whole: Box) -> WindowLogits | None:
        """Take bare logits for those of the whole image; None for none.

        Raises
        ------
        InvalidPromptError
            If they show what is not in the image.
        """
        if logits is None:
            return None
        if not isinstance(logits, WindowLogits):
            return cls(np.asarray(logits, dtype=np.float32), whole)
        y0, x0, y1, x1 = logits.view
        if not (y0 < y1 and x0 < x1 and contains(whole, logits.view)):
            raise InvalidPromptError(
                f"expected logits of a part of the image of {whole[2]} x {whole[3]} pixels, got "
                f"some of {logits.view}"
            )
        return logits

    def moved(self, view: Box) -> NDArray[np.float32]:
        """Return the logits as they would lie in another window."""
        if view == self.view:
            return self.logits
        side = self.logits.shape[-1]
        old, new = (max(v[2] - v[0], v[3] - v[1]) / side for v in (self.view, view))
        place = (np.arange(side) + 0.5) * new
        rows, columns = ((place + view[i] - self.view[i]) / old - 0.5 for i in (0, 1))
        # The outer half of the outermost pixels belongs to what was looked at.
        rows, columns = (
            np.where((at >= -0.5) & (at <= side - 0.5), np.clip(at, 0, side - 1), at)
            for at in (rows, columns)
        )
        grid = np.stack(np.meshgrid(rows, columns, indexing="ij"))
        moved = map_coordinates(self.logits, grid, order=1, mode="constant", cval=_OUTSIDE)
        return np.asarray(moved, dtype=np.float32)


@dataclass(frozen=True)
class Windows:
    """Square windows of an image, each level with half the side of the one above.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the image in pixels.
    side : int
        Side in pixels of the usual windows.

    Raises
    ------
    InvalidSettingError
        If the side is not positive.
    """

    shape: tuple[int, int]
    side: int

    def __post_init__(self) -> None:
        if self.side < 1:
            raise InvalidSettingError(f"expected a window of at least 1 pixel, got {self.side}")

    @property
    def whole(self) -> Box:
        """The whole image."""
        return 0, 0, self.shape[0], self.shape[1]

    @property
    def finest(self) -> int:
        """Side of the smallest windows; where the usual one is the whole image there are none."""
        if self.side >= max(self.shape):
            return self.side
        return max(min(SMALLEST_SIDE, self.side), self.side // 2)

    def around(self, box: Iterable[float], side: int) -> Box:
        """Window of the grid whose centre is next to that of a box.

        Parameters
        ----------
        box : (y0, x0, y1, x1)
            In pixels; may be a point.
        side : int
            Of the window; the whole image from its longer side on.

        Returns
        -------
        (y0, x0, y1, x1)
            Half open; holds the centre of the box.
        """
        if side >= max(self.shape):
            return self.whole
        low_y, low_x, high_y, high_x = box
        y0, y1 = _span((low_y + high_y) / 2, side, self.shape[0])
        x0, x1 = _span((low_x + high_x) / 2, side, self.shape[1])
        return y0, x0, y1, x1

    def fitting(self, box: Iterable[float], *, is_object: bool = True) -> Box:
        """Smallest window in which a box has room, of the usual side or larger.

        Parameters
        ----------
        box : (y0, x0, y1, x1)
            In pixels. The window has twice its extent, so that its surroundings are seen too.
        is_object : bool
            Whether the box goes around an object, and not only around points in it: then the
            window may have half the usual side where the object would be tiny otherwise.
        """
        box = tuple(box)
        extent = max(box[2] - box[0], box[3] - box[1])
        side = self.side
        if is_object and extent * _TINY <= side:
            side = self.finest
        while side < max(self.shape) and (
            side < _ROOM * extent or not contains(self.around(box, side), box)
        ):
            side *= 2
        return self.around(box, side)

    def following(self, view: Box, found: Box, said: Box | None) -> Box | None:
        """Where to look next.

        Parameters
        ----------
        view : (y0, x0, y1, x1)
            Window that was looked at.
        found : (y0, x0, y1, x1)
            Box around what was found in it.
        said : (y0, x0, y1, x1) or None
            Box around the prompts, which stay in the window.

        Returns
        -------
        (y0, x0, y1, x1) or None
            A larger window, or one beside, for what is cut; a smaller one for what is tiny.
            None where the object was seen well.
        """
        if found[2] <= found[0]:
            return None
        both = found if said is None else enclosing(found, said)
        if view == self.whole:
            closer = self.fitting(both)
            return closer if closer != view and contains(closer, both) else None
        side = max(view[2] - view[0], view[3] - view[1])
        if cut_by(view, found, self.shape):
            beside = self.around(both, side)
            if beside != view and contains(beside, both):
                return beside
            return self.around(both, 2 * side)
        extent = max(both[2] - both[0], both[3] - both[1])
        if extent * _TINY <= side and side > self.finest:
            closer = self.around(both, max(self.finest, side // 2))
            return closer if contains(closer, both) else None
        return None

    def cover(self) -> list[Box]:
        """Usual windows that together show everything, and objects of half their side whole."""
        if self.side >= max(self.shape):
            return [self.whole]
        step = max(1, self.side // 2)
        spans = [
            sorted({_span(start + self.side / 2, self.side, length)
                    for start in range(0, length, step)})
            for length in self.shape
        ]  # fmt: skip
        return [(y0, x0, y1, x1) for y0, y1 in spans[0] for x0, x1 in spans[1]]


def nearest_window(points: NDArray[np.float64], boxes: list[Box]) -> NDArray[np.int64]:
    """Tell in the middle of which window each point lies best.

    Parameters
    ----------
    points : (n, 2) float array
        ``(y, x)`` in pixels.
    boxes : list of (y0, x0, y1, x1)
        `Windows.cover` of an image.

    Returns
    -------
    (n,) int array
        Index of the window whose centre is nearest.
    """
    array = np.array(boxes, dtype=np.float64)
    # Windows are the product of spans of rows and columns, so each axis can be told alone.
    owner = np.zeros(len(points), dtype=np.int64)
    known = {box: index for index, box in enumerate(boxes)}
    spans = []
    for axis in (0, 1):
        pairs = np.unique(array[:, [axis, axis + 2]], axis=0)
        middles = pairs.mean(axis=1)
        nearest = np.searchsorted((middles[1:] + middles[:-1]) / 2, points[:, axis])
        spans.append(pairs[nearest].astype(np.int64))
    for index, ((y0, y1), (x0, x1)) in enumerate(zip(*(s.tolist() for s in spans), strict=True)):
        owner[index] = known[y0, x0, y1, x1]
    return owner


def _span(centre: float, side: int, length: int) -> tuple[int, int]:
    """One axis of the window whose middle is next to a place."""
    if side >= length:
        return 0, length
    step = max(1, side // 2)
    start = round((centre - side / 2) / step) * step
    # The last window ends with the image, so that it is as large as the others.
    start = min(max(0, start), length - side)
    return start, start + side
