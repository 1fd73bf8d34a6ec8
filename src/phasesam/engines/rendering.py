"""From the decoder's 256 x 256 logits to masks in image pixels.

SAM enlarges logits to 1024 x 1024, cuts the padding off and scales the rest to the image,
bilinearly both times. Both steps are linear and separable, so that together they are one
short matrix per axis, and a small object needs only the rows and columns it lies in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from phasesam.core.coordinates import resize_longest_side
from phasesam.core.mask_set import MaskCrop
from phasesam.engines.region_cleaning import clean_mask

BINS_PER_LOGIT = 16
"""Resolution of the histograms; stability scores are exact at multiples of 1 / 16."""
HISTOGRAM_REACH = 8
"""Logits beyond ± 8 fall into the outermost bins."""
BINS = 2 * HISTOGRAM_REACH * BINS_PER_LOGIT
_SAMPLES = 1 << 16
_ALWAYS_RENDERED = 1 << 18


def _bilinear(source: int, target: int) -> NDArray[np.float32]:
    """Matrix (target, source) of ``interpolate(mode="bilinear", align_corners=False)``."""
    position = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0)
    low = np.minimum(position.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    weight = (position - low).astype(np.float32)
    matrix = np.zeros((target, source), dtype=np.float32)
    rows = np.arange(target)
    matrix[rows, low] += 1 - weight
    matrix[rows, high] += weight
    return matrix


@dataclass(frozen=True)
class Raster:
    """How logits of one image shape are rendered.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the image in pixels.
    rows : (h, side) float32 array
        Weights of the logit rows for each image row.
    columns : (w, side) float32 array
        The same for columns.
    side : int
        Size of the square of logits; only the part that is no padding has weights.
    """

    shape: tuple[int, int]
    rows: NDArray[np.float32]
    columns: NDArray[np.float32]
    side: int

    @cached_property
    def used(self) -> tuple[int, int]:
        """Rows and columns of the logits that matter."""
        return (
            int(np.flatnonzero(self.rows.any(axis=0))[-1]) + 1,
            int(np.flatnonzero(self.columns.any(axis=0))[-1]) + 1,
        )

    def window(self, logits: NDArray[np.float32], above: float) -> tuple[slice, slice] | None:
        """Find the image rows and columns outside which the rendered logits are ``<= above``."""
        hit = logits > above
        rows = np.flatnonzero(hit.any(axis=1))
        if len(rows) == 0:
            return None
        columns = np.flatnonzero(hit[rows[0] : rows[-1] + 1].any(axis=0))
        return (
            _reach(self.rows, int(rows[0]), int(rows[-1])),
            _reach(self.columns, int(columns[0]), int(columns[-1])),
        )

    def render(
        self,
        logits: NDArray[np.float32],
        window: tuple[slice, slice] | None = None,
        step: int = 1,
    ) -> NDArray[np.float32]:
        """Scale logits to the image.

        Parameters
        ----------
        logits : (side, side) float32 array
            From the decoder.
        window : pair of slices, optional
            Image rows and columns wanted; all when left out.
        step : int
            Only every `step`-th row and column is computed.
        """
        rows, columns = window or (slice(0, self.shape[0]), slice(0, self.shape[1]))
        weight_y = self.rows[rows.start : rows.stop : step]
        weight_x = self.columns[columns.start : columns.stop : step]
        y, x = _taps(weight_y), _taps(weight_x)
        scaled = weight_y[:, y] @ logits[y, x] @ weight_x[:, x].T
        return np.asarray(scaled, dtype=np.float32)


def _taps(weights: NDArray[np.float32]) -> slice:
    """Logit rows that a run of image rows uses; weights move steadily along the image."""
    first = np.flatnonzero(weights[0])
    last = np.flatnonzero(weights[-1])
    return slice(int(first[0]), int(last[-1]) + 1)


def _reach(weights: NDArray[np.float32], first: int, last: int) -> slice:
    """Image rows that any of the logit rows first..last touches."""
    touched = np.flatnonzero(weights[:, first : last + 1].any(axis=1))
    if len(touched) == 0:
        return slice(0, 0)
    return slice(int(touched[0]), int(touched[-1]) + 1)


@lru_cache(maxsize=16)
def raster(shape: tuple[int, int], side: int = 256, image_size: int = 1024) -> Raster:
    """Make the matrices for images of height and width `shape`."""
    height, width = resize_longest_side(*shape, image_size)
    enlarge = _bilinear(side, image_size)
    rows = _bilinear(height, shape[0]) @ enlarge[:height]
    columns = _bilinear(width, shape[1]) @ enlarge[:width]
    return Raster(shape, rows, columns, side)


@dataclass(frozen=True)
class DeferredMask:
    """A large mask that is rendered only when somebody wants its pixels.

    Most large candidates are near copies of one another (the background, the whole image)
    and never survive a filter.

    Only logits near a change of sign move the contour, of the others the sign is kept: a
    search finds thousands of large masks, and this is a third of their memory.

    Attributes
    ----------
    raster : Raster
        How to render.
    signs, near : (bytes,) uint8 array
        Bits of the part of the logits that is no padding, row by row: which are positive, and
        which are kept.
    values : (k,) float16 array
        The logits that are kept.
    origin : (int, int)
        Position ``(y, x)`` of the raster in the image.
    """

    raster: Raster
    signs: NDArray[np.uint8]
    near: NDArray[np.uint8]
    values: NDArray[np.float16]
    origin: tuple[int, int] = (0, 0)

    @classmethod
    def from_logits(cls, target: Raster, logits: NDArray[np.float32]) -> DeferredMask:
        """Keep what decides over the mask.

        Parameters
        ----------
        target : Raster
            How to render.
        logits : (side, side) float32 array
            From the decoder.
        """
        rows, columns = target.used
        plane = logits[:rows, :columns]
        positive = plane > 0
        near = _near_contour(positive)
        return cls(target, np.packbits(positive), np.packbits(near), plane[near].astype(np.float16))

    def render(self) -> MaskCrop:
        """Render all pixels."""
        plane = self._plane()
        window = self.raster.window(plane, 0.0)
        if window is None:
            return MaskCrop.from_array(np.zeros((1, 1), np.bool_))
        mask = self.raster.render(plane, window) > 0
        return MaskCrop.from_array(
            mask, window[0].start + self.origin[0], window[1].start + self.origin[1]
        )

    def sampled(self, step: int) -> MaskCrop:
        """Render the pixels on every `step`-th row and column of the image, as their own mask."""
        first = [-o % step for o in self.origin]
        window = (
            slice(min(first[0], self.raster.shape[0] - 1), self.raster.shape[0]),
            slice(min(first[1], self.raster.shape[1] - 1), self.raster.shape[1]),
        )
        mask = self.raster.render(self._plane(), window, step) > 0
        return MaskCrop.from_array(mask, -(-self.origin[0] // step), -(-self.origin[1] // step))

    def moved(self, dy: int, dx: int) -> DeferredMask:
        """Place the same mask `dy` rows and `dx` columns further."""
        return replace(self, origin=(self.origin[0] + dy, self.origin[1] + dx))

    def _plane(self) -> NDArray[np.float32]:
        rows, columns = self.raster.used
        size = rows * columns
        part = np.where(np.unpackbits(self.signs, count=size).view(np.bool_), 1, -1)
        part = part.astype(np.float32)
        part[np.unpackbits(self.near, count=size).view(np.bool_)] = self.values
        plane = np.full((self.raster.side, self.raster.side), -1, dtype=np.float32)
        plane[:rows, :columns] = part.reshape(rows, columns)
        return plane


@dataclass(frozen=True)
class RenderedMask:
    """One candidate in image pixels.

    Attributes
    ----------
    mask : MaskCrop or DeferredMask
        The mask at threshold 0.
    box : (y0, x0, y1, x1)
        Bounding box, half open; good to some pixels for a `DeferredMask`.
    area : int
        Pixels; good to about one per cent for a `DeferredMask`.
    above : (BINS + 1,) float32 array
        Pixels whose logit is above each bin edge, from -8 to +8.
    """

    mask: MaskCrop | DeferredMask
    box: tuple[int, int, int, int]
    area: int
    above: NDArray[np.float32]

    def moved(self, dy: int, dx: int) -> RenderedMask:
        """Place the same mask `dy` rows and `dx` columns further."""
        y0, x0, y1, x1 = self.box
        return replace(self, mask=self.mask.moved(dy, dx), box=(y0 + dy, x0 + dx, y1 + dy, x1 + dx))


def render_mask(
    target: Raster, logits: NDArray[np.float32], speckle_area: int = 0
) -> RenderedMask | None:
    """Render one candidate.

    Parameters
    ----------
    target : Raster
        From `raster`.
    logits : (side, side) float32 array
        From the decoder.
    speckle_area : int
        Holes and islands of fewer pixels are removed, except from the largest masks, where
        they tell nothing and the search for them would take long.

    Returns
    -------
    RenderedMask or None
        None when no pixel of the image is above 0.
    """
    wide = target.window(logits, -HISTOGRAM_REACH)
    if wide is None or target.window(logits, 0.0) is None:
        return None
    size = (wide[0].stop - wide[0].start) * (wide[1].stop - wide[1].start)
    # A large mask has so many pixels at its rim that every n-th tells as much.
    step = 1 if size <= 2 * _SAMPLES else int(np.ceil(np.sqrt(size / _SAMPLES)))
    if size == 0:
        return None
    values = target.render(logits, wide, step)
    above = _counts_above(values) * np.float32(step * step)
    crop = MaskCrop.from_array(values > 0, wide[0].start, wide[1].start)
    if crop.area == 0:
        return None
    if step == 1:
        crop = clean_mask(crop, speckle_area) if speckle_area else crop
        return RenderedMask(crop, crop.box, crop.area, above)
    deferred = DeferredMask.from_logits(target, logits)
    if size <= _ALWAYS_RENDERED:
        exact = deferred.render()
        exact = clean_mask(exact, speckle_area) if speckle_area else exact
        return RenderedMask(exact, exact.box, exact.area, above)
    top, left = wide[0].start, wide[1].start
    box = (
        top + (crop.y0 - top) * step,
        left + (crop.x0 - left) * step,
        min(top + (crop.y0 - top + crop.height) * step, target.shape[0]),
        min(left + (crop.x0 - left + crop.width) * step, target.shape[1]),
    )
    return RenderedMask(deferred, box, crop.area * step * step, above)


def _near_contour(positive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find logits that share an image pixel with one of the other sign.

    A pixel is a mean of at most 3 x 3 logits, so that two steps around a change are enough.
    """
    rows, columns = positive.shape
    padded = np.pad(positive, 2, mode="edge").view(np.uint8)
    stacked = np.asarray(np.sum([padded[i : i + rows] for i in range(5)], axis=0, dtype=np.uint8))
    windows = [stacked[:, i : i + columns] for i in range(5)]
    count = np.sum(windows, axis=0, dtype=np.uint8)
    return np.asarray((count > 0) & (count < 25))


def _counts_above(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Count values above each edge; a value on an edge is not above it."""
    bins = np.ceil(values * BINS_PER_LOGIT)
    bins += BINS // 2
    np.clip(bins, 0, BINS + 1, out=bins)
    counts = np.bincount(bins.astype(np.int32).ravel(), minlength=BINS + 2)
    # counts[i] holds the values in (edge[i - 1], edge[i]], the last one all beyond the edges.
    return counts[::-1].cumsum()[::-1][1:].astype(np.float32)
