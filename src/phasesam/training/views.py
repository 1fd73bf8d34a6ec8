"""Cut a view for the model out of a labelled image: crop, turn, scale, change intensities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phasesam.core.boxes import Box
from phasesam.core.coordinates import MODEL_SIDE, resize_image_longest_side, resize_longest_side
from phasesam.core.errors import InvalidSettingError, TrainingDataError
from phasesam.core.tiles import tiles
from phasesam.training.augmentation import (
    AugmentationConfig,
    change_intensities,
    draw_distortion,
    log_uniform,
    warp_mesh,
)
from phasesam.training.label_values import UNLABELLED

_SEARCHED_PIXELS = 1_000_000
_COMPARED_PIXELS = 4_000_000
_COUNTABLE_LABEL = 4_000_000
_ELASTIC_MARGIN = 3.0


@dataclass(frozen=True)
class ViewConfig:
    """Which part of an image a view shows, and what is changed in it.

    Attributes
    ----------
    window : int or None
        Side in image pixels of the square that the model sees; None for the whole image.
    augmentation : AugmentationConfig
        What is changed at random.
    balance : float
        Share of views that are placed about a pixel of a label drawn with probability
        ∝ 1/√(its frequency), so that rare classes and small objects are seen often.

    Raises
    ------
    InvalidSettingError
        If a number is out of its range.
    """

    window: int | None = None
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    balance: float = 0.5

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise InvalidSettingError(f"expected a window of at least 1 pixel, got {self.window}")
        if not 0 <= self.balance <= 1:
            raise InvalidSettingError(f"balance must lie between 0 and 1, got {self.balance}")


@dataclass(frozen=True, eq=False)
class View:
    """What the model is shown, and what it should say.

    Attributes
    ----------
    rgb : (h, w, 3) uint8 array
        C-contiguous; the longer side has 1024 pixels unless another length was asked for.
    labels : (h, w) int32 array
        C-contiguous; `UNLABELLED` where nothing is known.
    """

    rgb: NDArray[np.uint8]
    labels: NDArray[np.int32]


def make_view(
    rgb: NDArray[np.uint8],
    labels: NDArray[np.int32],
    config: ViewConfig,
    rng: np.random.Generator,
    *,
    augment: bool = True,
    side: int = MODEL_SIDE,
) -> View:
    """Draw one view.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        Image.
    labels : (h, w) integer array
        Its labels; `UNLABELLED` where nothing is known.
    config : ViewConfig
        How to draw.
    rng : numpy.random.Generator
        The only source of chance: equal states give equal views.
    augment : bool
        Without it, views differ by the place of the window only.
    side : int
        Longer side of the view in pixels; SAM wants 1024.

    Returns
    -------
    View
        Beyond the border of the image there is mirrored image without labels. Unless
        the image has none, at least one labelled pixel lies within the cut.

    Raises
    ------
    TrainingDataError
        If the arrays are no image and labels of one size.
    """
    labels = _checked(rgb, labels)
    changes = config.augmentation if augment else AugmentationConfig.none()
    box = _draw_box(labels, config, log_uniform(rng, changes.scale), rng)
    turns = int(rng.integers(4)) if changes.right_angles else 0
    flips = (rng.random(2) < 0.5).tolist() if changes.flips else [False, False]
    angle, shifts = draw_distortion(changes, rng)
    warped = changes.any_angle or changes.elastic > 0
    cut = _widened(box, angle, changes.elastic) if warped else box
    image, marks = _cut(rgb, labels, cut)
    shape = resize_longest_side(*_size(box), side)
    # Noise and blur belong to the pixels of the image, but cost less on those of the view.
    enlarges = max(_size(box)) <= side
    if enlarges:
        image = change_intensities(np.ascontiguousarray(image), changes, rng)
    if warped:
        scale = side / max(_size(box))
        wide = (max(1, round(marks.shape[0] * scale)), max(1, round(marks.shape[1] * scale)))
        mesh = warp_mesh(wide, shape, angle, shifts)
        image = _meshed(_resized(image, wide), shape, mesh, Image.Resampling.BILINEAR)
        marks = _meshed(nearest(marks, wide), shape, mesh, Image.Resampling.NEAREST)
    else:
        image, marks = _resized(image, shape), nearest(marks, shape)
    if not enlarges:
        image = change_intensities(image, changes, rng)
    image, marks = _turned(image, turns, flips), _turned(marks, turns, flips)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    return View(np.ascontiguousarray(image), np.ascontiguousarray(marks))


def plain_view(rgb: NDArray[np.uint8], labels: NDArray[np.int32]) -> View:
    """Show the whole image as it is.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        Image.
    labels : (h, w) integer array
        Its labels.

    Returns
    -------
    View
        The image scaled exactly as when segmenting; labels by the nearest pixel.

    Raises
    ------
    TrainingDataError
        If the arrays are no image and labels of one size.
    """
    labels = _checked(rgb, labels)
    resized = resize_image_longest_side(rgb)
    return View(resized, nearest(labels, (resized.shape[0], resized.shape[1])))


def windows(shape: tuple[int, int], window: int, overlap: int = 0) -> list[Box]:
    """Cover an image with windows, ``(y0, x0, y1, x1)``.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image.
    window : int
        Side in pixels; windows of smaller images end at the border.
    overlap : int
        Least number of pixels that neighbours share.

    Raises
    ------
    InvalidImageError, InvalidSettingError
        See `phasesam.core.tiles.tiles`.
    """
    return tiles(shape, window, overlap)


def nearest(labels: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Scale labels, (h, w), to ``shape`` by the nearest pixel; never a mixture of two."""
    if labels.shape == shape:
        return np.ascontiguousarray(labels)
    rows, columns = (_nearest_indices(labels.shape[axis], shape[axis]) for axis in (0, 1))
    return np.take(np.take(labels, rows, axis=0), columns, axis=1)


def _nearest_indices(source: int, target: int) -> NDArray[np.intp]:
    """Pixel in which the centre of each new pixel lies."""
    return ((2 * np.arange(target, dtype=np.int64) + 1) * source // (2 * target)).astype(np.intp)


def _checked(rgb: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.int32]:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise TrainingDataError(f"expected a (h, w, 3) uint8 image, got {rgb.shape} {rgb.dtype}")
    if labels.dtype.kind not in "iu":
        raise TrainingDataError(f"expected integer labels, got {labels.dtype}")
    if labels.shape != rgb.shape[:2]:
        raise TrainingDataError(
            f"expected labels of the image's size {rgb.shape[:2]}, got {labels.shape}"
        )
    return labels.astype(np.int32, copy=False)


def _size(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _draw_box(
    labels: NDArray[np.int32], config: ViewConfig, zoom: float, rng: np.random.Generator
) -> Box:
    """Draw the cut; it may reach beyond the image where it is larger."""
    height, width = labels.shape
    window = config.window or max(height, width)
    size = [max(1, round(min(window, side) / zoom)) for side in (height, width)]
    balanced = rng.random() < config.balance
    place = rng.random(2)
    lows = [min(0, side - n) for side, n in zip(labels.shape, size, strict=True)]
    highs = [max(0, side - n) for side, n in zip(labels.shape, size, strict=True)]
    starts = [int(lo + u * (hi - lo + 1)) for lo, hi, u in zip(lows, highs, place, strict=True)]
    covers = size[0] >= height and size[1] >= width
    if not covers and (balanced or not _holds_labels(labels, starts, size)):
        pixel = _draw_pixel(labels, rng)
        if pixel is not None:
            # In the middle half, not in the very centre: what is rare has no fixed place.
            wanted = [
                p - int((0.25 + u / 2) * n) for p, u, n in zip(pixel, place, size, strict=True)
            ]
            starts = [min(max(s, lo), hi) for s, lo, hi in zip(wanted, lows, highs, strict=True)]
    y0, x0 = starts
    return y0, x0, y0 + size[0], x0 + size[1]


def _holds_labels(labels: NDArray[np.int32], starts: list[int], size: list[int]) -> bool:
    y, x = (slice(max(0, s), s + n) for s, n in zip(starts, size, strict=True))
    return bool((labels[y, x] >= 0).any())


def _draw_pixel(labels: NDArray[np.int32], rng: np.random.Generator) -> tuple[int, int] | None:
    """Draw a label that is present by 1/√frequency, and one of its pixels."""
    step = math.ceil(math.sqrt(labels.size / _SEARCHED_PIXELS))
    top, left = (int(n) for n in rng.integers(step, size=2))
    seen = labels[top::step, left::step].reshape(-1)
    if step > 1 and not (seen >= 0).any():
        step, top, left, seen = 1, 0, 0, labels.reshape(-1)
    values, counts = _frequencies(seen)
    if len(values) == 0:
        return None
    weights = 1 / np.sqrt(counts)
    value = values[rng.choice(len(values), p=weights / weights.sum())]
    found = np.flatnonzero(seen == value)
    columns = len(range(left, labels.shape[1], step))
    y, x = divmod(int(found[rng.integers(len(found))]), columns)
    return top + y * step, left + x * step


def _frequencies(values: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels that occur, without `UNLABELLED`, and how often."""
    if values.size and int(values.max()) < _COUNTABLE_LABEL:
        counts = np.bincount(values if values.min() >= 0 else values[values >= 0])
        present = np.flatnonzero(counts)
        return present, counts[present]
    present, counts = np.unique(values[values >= 0], return_counts=True)
    return present.astype(np.int64), counts


def _widened(box: Box, angle: float, elastic: float) -> Box:
    """Enlarge a cut so that it covers itself when it is turned and distorted."""
    height, width = _size(box)
    c, s = abs(math.cos(angle)), abs(math.sin(angle))
    margin = _ELASTIC_MARGIN * elastic * max(height, width) + 1
    rows = math.ceil((max(0.0, height * c + width * s - height)) / 2 + margin)
    columns = math.ceil((max(0.0, width * c + height * s - width)) / 2 + margin)
    return box[0] - rows, box[1] - columns, box[2] + rows, box[3] + columns


def _cut(
    rgb: NDArray[np.uint8], labels: NDArray[np.int32], box: Box
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Cut out a box, (h, w) when grey; beyond the border it is mirrored and unlabelled."""
    height, width = labels.shape
    y0, x0, y1, x1 = box
    if y0 >= 0 and x0 >= 0 and y1 <= height and x1 <= width:
        return _one_band(rgb[y0:y1, x0:x1]), labels[y0:y1, x0:x1]
    image = np.take(_one_band(rgb), _mirrored(y0, y1, height), axis=0)
    image = np.take(image, _mirrored(x0, x1, width), axis=1)
    marks = np.full(_size(box), UNLABELLED, np.int32)
    rows = slice(max(0, y0), min(height, y1))
    columns = slice(max(0, x0), min(width, x1))
    marks[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0] = labels[
        rows, columns
    ]
    return image, marks


def _mirrored(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Run back and forth through an axis of ``size`` pixels."""
    around = np.arange(start, stop) % (2 * size)
    return np.minimum(around, 2 * size - 1 - around)


def _one_band(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce grey stored as RGB to one band, which makes everything after three times faster."""
    step = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / _COMPARED_PIXELS))
    seen = image[::step, ::step]
    first = seen[..., 0]
    if (first == seen[..., 1]).all() and (first == seen[..., 2]).all():
        return image[..., 0]
    return image


def _turned(array: NDArray[Any], turns: int, flips: Sequence[bool]) -> NDArray[Any]:
    """Turn by right angles and mirror, without a copy."""
    array = np.rot90(array, turns)
    array = array[::-1] if flips[0] else array
    return array[:, ::-1] if flips[1] else array


def _resized(image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    if image.shape[:2] == shape:
        return np.ascontiguousarray(image)
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.array(picture.resize(shape[::-1], Image.Resampling.BILINEAR))


def _meshed(
    array: NDArray[Any], shape: tuple[int, int], mesh: list[Any], how: Image.Resampling
) -> NDArray[Any]:
    picture = Image.fromarray(array)
    return np.array(picture.transform(shape[::-1], Image.Transform.MESH, mesh, how))
