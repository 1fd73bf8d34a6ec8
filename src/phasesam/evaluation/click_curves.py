"""What clicks on objects bring: quality after each click, and clicks needed for a quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.mask_set import MaskCrop
from phasesam.evaluation.statistics import Interval, bootstrap_interval

Measure = Literal["iou", "dice"]

MEASURES: tuple[tuple[str, Measure], ...] = (("IoU", "iou"), ("Dice", "dice"))
"""Both measures with their names in tables."""


@dataclass(frozen=True, eq=False)
class ClickCurves:
    """Quality of each object after each click.

    Attributes
    ----------
    iou, dice : (n, c) float64 array
        After 1, 2, ... c clicks. Where clicking had ended the last value goes on: nothing was
        wrong any more, or (beyond `complete` clicks) every threshold was reached.
    object_ids : (n,) int64 array
        Labels of the objects.
    images : (n,) array of str
        The image each object is in, or its specimen: the unit of intervals.
    thresholds : tuple of float
        IoU values for which numbers of clicks are exact.
    complete : int
        Up to here every object that had an error left was clicked.
    numbers : (n,) int64 array
        Number of the image that each object is in, from 0.
    names : tuple of str
        Names of the images by their numbers; empty where they are not known.
    first_masks, last_masks : tuple of MaskCrop
        What was found after one and after `complete` clicks, for pictures; may be empty.
    """

    iou: NDArray[np.float64]
    dice: NDArray[np.float64]
    object_ids: NDArray[np.int64]
    images: NDArray[np.str_]
    thresholds: tuple[float, ...]
    complete: int
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    names: tuple[str, ...] = ()
    first_masks: tuple[MaskCrop, ...] = ()
    last_masks: tuple[MaskCrop, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.object_ids)
        if self.iou.ndim != 2 or self.iou.shape != self.dice.shape or len(self.iou) != n:
            raise InvalidSettingError(
                f"expected curves (n, clicks) of {n} objects, got IoU {self.iou.shape} and Dice "
                f"{self.dice.shape}"
            )

    def __len__(self) -> int:
        return len(self.object_ids)

    def __repr__(self) -> str:
        return f"ClickCurves({len(self)} objects, {self.max_clicks} clicks)"

    @property
    def max_clicks(self) -> int:
        """Largest number of clicks."""
        return int(self.iou.shape[1])

    def image_of(self, index: int) -> str:
        """Name of the image that an object is in."""
        return self.names[self.numbers[index]] if self.names else str(self.images[index])

    @property
    def units(self) -> str:
        """How many images there are, and of how many specimens: ``10 images of 1 specimen``."""
        images = len(np.unique(self.numbers)) if len(self.numbers) else 0
        specimens = len(np.unique(self.images))
        text = f"{images} image{'' if images == 1 else 's'}"
        plural = "" if specimens == 1 else "s"
        return text if images == specimens else f"{text} of {specimens} specimen{plural}"

    @classmethod
    def joined(
        cls, curves: Sequence[ClickCurves], images: Sequence[str], names: Sequence[str] = ()
    ) -> ClickCurves:
        """Put the objects of several images together.

        Parameters
        ----------
        curves : sequence of ClickCurves
            One per image.
        images : sequence of str
            Name of each image, or of its specimen: the unit of intervals.
        names : sequence of str, optional
            Name of each image; `images` when left out.

        Raises
        ------
        InvalidSettingError
            If there are none, or they were clicked by different rules.
        """
        rules = {(c.max_clicks, c.thresholds, c.complete) for c in curves}
        if len(rules) != 1:
            raise InvalidSettingError(
                f"expected curves of one rule (clicks, thresholds, complete), got {sorted(rules)}"
            )
        units = [[name] * len(c) for c, name in zip(curves, images, strict=True)]
        counts = [len(c) for c in curves]
        return cls(
            iou=np.concatenate([c.iou for c in curves]),
            dice=np.concatenate([c.dice for c in curves]),
            object_ids=np.concatenate([c.object_ids for c in curves]),
            images=np.concatenate([np.array(part, dtype=np.str_) for part in units]),
            thresholds=curves[0].thresholds,
            complete=curves[0].complete,
            numbers=np.repeat(np.arange(len(curves)), counts),
            names=tuple(names or images),
            first_masks=tuple(mask for c in curves for mask in c.first_masks),
            last_masks=tuple(mask for c in curves for mask in c.last_masks),
        )

    def after(self, clicks: int, measure: Measure = "iou") -> Interval:
        """Mean over objects after so many clicks; its interval draws whole images."""
        self._check_clicks(clicks)
        return self._mean(getattr(self, measure)[:, clicks - 1], (0, 1))

    def number_of_clicks(self, threshold: float, limit: int | None = None) -> NDArray[np.float64]:
        """First number of clicks with at least this IoU, per object.

        Parameters
        ----------
        threshold : float
            IoU, 0–1.
        limit : int, optional
            Most clicks, and the number where they do not suffice; `max_clicks` when left out.
            Figures of different limits cannot be compared.
        """
        reached = self._reached(threshold, limit)
        first = reached.argmax(axis=1) + 1.0
        first[~reached.any(axis=1)] = reached.shape[1]
        return first

    def noc(self, threshold: float, limit: int | None = None) -> Interval:
        """Mean number of clicks (NoC) to reach an IoU."""
        values = self.number_of_clicks(threshold, limit)
        return self._mean(values, (1, limit or self.max_clicks))

    def failure_rate(self, threshold: float, limit: int | None = None) -> Interval:
        """Share of objects that do not reach an IoU within the clicks (FR)."""
        reached = np.asarray(self._reached(threshold, limit).any(axis=1))
        return self._mean(~reached, (0, 1))

    def area_under_curve(self, measure: Measure = "iou") -> Interval:
        """Mean height of the curve over the clicks that all objects got (trapezoids)."""
        heights = getattr(self, measure)[:, : self.complete]
        if heights.shape[1] > 1:
            weights = np.ones(heights.shape[1])
            weights[[0, -1]] = 0.5
            values = heights @ weights / weights.sum()
        else:
            values = heights[:, 0]
        return self._mean(values, (0, 1))

    def mean_curve(self, measure: Measure = "iou") -> NDArray[np.float64]:
        """Mean over objects after each click, (c,)."""
        values: NDArray[np.float64] = getattr(self, measure)
        return values.mean(axis=0) if len(values) else np.full(self.max_clicks, np.nan)

    def _mean(self, values: NDArray[Any], bounds: tuple[float, float]) -> Interval:
        return bootstrap_interval(values, self.images, bounds=bounds)

    def _reached(self, threshold: float, limit: int | None) -> NDArray[np.bool_]:
        clicks = self.max_clicks if limit is None else limit
        self._check_clicks(clicks)
        if self.complete < clicks and threshold > max(self.thresholds, default=0):
            raise InvalidSettingError(
                f"clicking ended when all of {self.thresholds} were reached, so that an IoU of "
                f"{threshold} cannot be told; name it among the thresholds"
            )
        return self.iou[:, :clicks] >= threshold

    def _check_clicks(self, clicks: int) -> None:
        if not 1 <= clicks <= self.max_clicks:
            raise InvalidSettingError(f"expected 1 to {self.max_clicks} clicks, got {clicks}")
