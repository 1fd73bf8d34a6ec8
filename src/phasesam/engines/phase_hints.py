"""What is known of an image before its phases are mapped: amounts, and boxes around some of each.

Importing this file does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phasesam.core.boxes import Box
from phasesam.core.errors import InvalidSettingError
from phasesam.core.ratio_hints import completed
from phasesam.core.ratio_request import RatioRequest, Wanted

if TYPE_CHECKING:
    from phasesam.models.adapter_card import AdapterCard
    from phasesam.models.class_decoder import ClassHints

Errors = float | Sequence[float | None] | None
Limits = NDArray[np.float64]

_LEAST = 1e-9
_KNOWN = (float, tuple)


@dataclass(frozen=True)
class PhaseHints:
    """What the network is told of an image; for adapters that were trained with such.

    Unlike the solver, the network takes amounts as a hint: it says where they may be, and its map
    need not have them.

    Parameters
    ----------
    fractions : sequence of Wanted, optional
        Phase fractions, one per class, as for `phasesam.core.ratio.solve`. Of a range that part
        counts which the others leave; it is told as its middle, or as near to it as lets all
        shares add up to 1, with the standard error of an even distribution. A range that says no
        more than the others do is unknown, as None is. The only unknown one is what the others
        leave.
    uncertainty : float or sequence of float, optional
        Standard errors.
    boxes : mapping of int to Box, optional
        By index of the class, a box around some of it in pixels of the image.

    Raises
    ------
    InvalidSettingError
        If fractions cannot add up to 1, or a box is empty.
    """

    shares: tuple[float | None, ...] = ()
    errors: tuple[float, ...] = ()
    boxes: tuple[tuple[int, Box], ...] = ()

    def __init__(
        self,
        fractions: Sequence[Wanted] | None = None,
        uncertainty: Errors = None,
        boxes: Mapping[int, Box] | None = None,
    ) -> None:
        shares: tuple[float | None, ...] = ()
        errors: tuple[float, ...] = ()
        if fractions is not None:
            shares, errors = _told(RatioRequest(fractions, uncertainty))
        for number, box in (boxes or {}).items():
            if number < 0 or box[2] <= box[0] or box[3] <= box[1]:
                raise InvalidSettingError(f"expected a class and a box with pixels, got {box}")
        object.__setattr__(self, "shares", shares)
        object.__setattr__(self, "errors", errors)
        object.__setattr__(self, "boxes", tuple(sorted((boxes or {}).items())))

    def check(self, card: AdapterCard) -> None:
        """See whether an adapter takes them.

        Raises
        ------
        InvalidSettingError
            If it does not, has other classes, or needs the share of each of them.
        """
        if self.shares and not takes_ratio(card):
            raise InvalidSettingError(
                "this adapter takes no phase fractions: train it with adapter.ratio=located"
            )
        if self.boxes and not card.config.class_boxes:
            raise InvalidSettingError(
                "this adapter takes no boxes of classes: train it with adapter.class_boxes=true"
            )
        count = len(card.classes)
        if self.shares and len(self.shares) != count:
            raise InvalidSettingError(
                f"expected fractions of {count} classes ({', '.join(card.classes)}), got "
                f"{len(self.shares)}"
            )
        unknown = [
            name for name, share in zip(card.classes, self.shares, strict=False) if share is None
        ]
        if unknown and not takes_doubt(card):
            # It would take an unknown share for 0.
            raise InvalidSettingError(
                f"this adapter, trained with adapter.ratio={card.config.ratio}, needs the shares "
                f"of all classes but one at least, got none of {', '.join(unknown)}; one trained "
                "with adapter.ratio=located does not"
            )
        if any(number >= count for number, _ in self.boxes):
            raise InvalidSettingError(f"expected boxes of classes 0–{count - 1}")

    def of_window(
        self, window: Box, turned: tuple[bool, bool], side: int, n_classes: int
    ) -> ClassHints:
        """Say what the network is told of one window.

        Parameters
        ----------
        window : Box
            Its place in the image.
        turned : (bool, bool)
            Whether its rows and columns are in reverse order.
        side : int
            Pixels that its longer side has for the encoder.
        n_classes : int
            Classes of the adapter.
        """
        import torch

        from phasesam.models.class_decoder import ClassHints

        shares = errors = boxes = None
        if self.shares:
            values = [math.nan if share is None else share for share in self.shares]
            shares, errors = torch.tensor([values]), torch.tensor([self.errors])
        if self.boxes:
            found = np.full((1, n_classes, 4), np.nan, np.float32)
            for number, box in self.boxes:
                found[0, number] = _in_window(box, window, turned, side)
            boxes = torch.from_numpy(found)
        return ClassHints(shares, errors, boxes)


def takes_ratio(card: AdapterCard) -> bool:
    """Whether an adapter takes phase fractions as an input."""
    return card.config.ratio != "none" and bool(card.classes)


def takes_doubt(card: AdapterCard) -> bool:
    """Whether an adapter also takes shares that are unknown, and standard errors of the others."""
    return card.config.ratio == "located" and bool(card.classes)


def _told(request: RatioRequest) -> tuple[tuple[float | None, ...], tuple[float, ...]]:
    """Turn what is wanted into a share, or None, and a standard error for each class."""
    wanted = request.fractions
    ends = [v if isinstance(v, tuple) else (0.0, 1.0) if v is None else (v, v) for v in wanted]
    low, high = np.array(ends).T
    told, ranges = (np.array([isinstance(v, kind) for v in wanted]) for kind in (_KNOWN, tuple))
    numbers = low.copy()
    # The widest first: of two ranges that say the same the narrower is told.
    for k in np.argsort(low - high, kind="stable"):
        least, most = _left_by_others(low, high)
        if ranges[k] and not _narrows(low[k], high[k], least[k], most[k]):
            low[k], high[k], told[k] = 0.0, 1.0, False
    least, most = _left_by_others(low, high)
    low, high = np.maximum(low, least), np.minimum(high, most)
    counted = told if np.count_nonzero(~told) > 1 else np.ones_like(told)
    width = np.where(counted, np.maximum(high - low, 0), 0)
    where = 0.5
    if width.sum() > _LEAST:
        # As far above their low ends as makes a sum of 1.
        exact = (1 - low[counted].sum()) / width.sum()
        where = min(max(exact, 0.0), 1.0 if counted.all() else 0.5)
    shares = np.where(told, np.where(ranges, low + where * width, numbers), np.nan)
    errors = np.where(ranges, width / math.sqrt(12), request.uncertainty)
    shares, errors = completed(shares, errors)
    return tuple(None if np.isnan(s) else float(s) for s in shares), tuple(errors.tolist())


def _left_by_others(low: Limits, high: Limits) -> tuple[Limits, Limits]:
    """Least and most that each class can have by the limits of the others."""
    return 1 - (high.sum() - high), 1 - (low.sum() - low)


def _narrows(low: float, high: float, least: float, most: float) -> bool:
    """Whether a range says more than that a share is what the others leave."""
    return low > max(least, 0.0) + _LEAST or high < min(most, 1.0) - _LEAST


def _in_window(
    box: Box, window: Box, turned: tuple[bool, bool], side: int
) -> tuple[float, float, float, float]:
    """Place a box, ``x0, y0, x1, y1`` in the encoder's pixels; NaN if nothing of it is seen."""
    height, width = window[2] - window[0], window[3] - window[1]
    y0, y1 = max(box[0], window[0]) - window[0], min(box[2], window[2]) - window[0]
    x0, x1 = max(box[1], window[1]) - window[1], min(box[3], window[3]) - window[1]
    if y0 >= y1 or x0 >= x1:
        return (math.nan,) * 4
    if turned[0]:
        y0, y1 = height - y1, height - y0
    if turned[1]:
        x0, x1 = width - x1, width - x0
    scale = side / max(height, width)
    # The last pixel is part of the box.
    return x0 * scale, y0 * scale, x1 * scale - 1, y1 * scale - 1
