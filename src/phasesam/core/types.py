"""Small frozen values that all layers exchange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidPromptError

ProgressCallback = Callable[[int, int], None]
"""Called as ``progress(done, total)`` from the thread that does the work."""

StopCallback = Callable[[], bool]
"""Asked between steps; the work ends with `CancelledError` when it returns True."""


Scale = Literal["part", "object", "group"]
SCALES: tuple[Scale, ...] = ("part", "object", "group")
"""SAM's three masks for one click, in its order."""


@dataclass(frozen=True)
class PixelSize:
    """Edge lengths of one pixel.

    Attributes
    ----------
    y, x : float
        Length along the axis, in `unit`.
    unit : str
        Physical unit; ``"um"`` when known, ``"pixel"`` when not.
    """

    y: float = 1.0
    x: float = 1.0
    unit: str = "pixel"

    @property
    def is_physical(self) -> bool:
        """Whether the pixel has a length rather than just being a pixel."""
        return self.unit != "pixel"

    @property
    def area(self) -> float:
        """Area of one pixel in ``unit**2``."""
        return self.y * self.x


def _empty(columns: int) -> NDArray[np.float64]:
    return np.zeros((0, columns), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Prompts:
    """What the user says about one object, in napari's (y, x) order and image pixels.

    Attributes
    ----------
    points : (n, 2) float64 array
        Clicked positions; ``(0, 0)`` is the centre of the first pixel.
    labels : (n,) int64 array
        1 for "belongs to the object", 0 for "does not".
    boxes : (m, 4) float64 array
        ``(y0, x0, y1, x1)`` of each box.
    mask : (h, w) bool array or None
        An existing mask to start from.
    """

    points: NDArray[np.float64] = field(default_factory=lambda: _empty(2))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    boxes: NDArray[np.float64] = field(default_factory=lambda: _empty(4))
    mask: NDArray[np.bool_] | None = None

    @classmethod
    def build(
        cls,
        points: object = None,
        labels: object = None,
        boxes: object = None,
        mask: object = None,
    ) -> Prompts:
        """Check and convert what a user passes.

        Parameters
        ----------
        points : (n, 2) array-like, optional
            Positions ``(y, x)`` in pixels.
        labels : (n,) array-like, optional
            1 or 0 per point; all ones when left out.
        boxes : (m, 4) array-like, optional
            ``(y0, x0, y1, x1)`` in pixels; a single box may be given flat.
        mask : (h, w) array-like, optional
            Non-zero where the object is.

        Raises
        ------
        InvalidPromptError
            If shapes do not fit, numbers are not finite, a label is neither 0 nor 1,
            or a box is empty.
        """
        point_array = _numbers(points, 2, "points")
        given = np.ones(len(point_array)) if labels is None else np.asarray(labels).reshape(-1)
        if len(given) != len(point_array):
            raise InvalidPromptError(
                f"expected one label per point, got {len(given)} labels "
                f"for {len(point_array)} points"
            )
        if not np.isin(given, (0, 1)).all():
            raise InvalidPromptError(
                f"labels must be 1 (inside) or 0 (outside), got {np.unique(given).tolist()}"
            )
        label_array = given.astype(np.int64)
        box_array = _numbers(boxes, 4, "boxes")
        flipped = (box_array[:, 2] <= box_array[:, 0]) | (box_array[:, 3] <= box_array[:, 1])
        if flipped.any():
            raise InvalidPromptError(
                "boxes are (y0, x0, y1, x1) with y1 > y0 and x1 > x0, "
                f"got {box_array[flipped][0].tolist()}"
            )
        mask_array = None
        if mask is not None:
            mask_array = np.asarray(mask) != 0
            if mask_array.ndim != 2:
                raise InvalidPromptError(f"a mask prompt has shape (h, w), got {mask_array.shape}")
        return cls(point_array, label_array, box_array, mask_array)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all was said."""
        return len(self.points) == 0 and len(self.boxes) == 0 and self.mask is None


def _numbers(values: object, columns: int, name: str) -> NDArray[np.float64]:
    if values is None:
        return _empty(columns)
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidPromptError(f"{name} must be numbers of shape (n, {columns})") from error
    if array.size == 0:
        return _empty(columns)
    if array.ndim == 1 and array.size == columns:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != columns:
        raise InvalidPromptError(f"{name} must have shape (n, {columns}), got {array.shape}")
    if not np.isfinite(array).all():
        raise InvalidPromptError(f"{name} must be finite numbers, got NaN or infinity")
    return array
