"""Correct objects by hand: split, merge, fill, smooth. Masks in, masks out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from phasesam.core.errors import InvalidMaskError, InvalidPromptError, InvalidSettingError
from phasesam.core.mask_set import MaskCrop
from phasesam.core.masks import EIGHT

_FARTHEST = 1e6
_SMALL_PART = 5
_NECK = 0.15
_NECK_PIXELS = 1.0


def split_by_line(mask: MaskCrop, line: ArrayLike) -> list[MaskCrop]:
    """Cut a mask along a polyline.

    The pixels under the line are taken out, the 8-connected parts that remain become
    masks, and every pixel under the line goes to the part that is nearest, so that no
    pixel is lost. Crumbs of fewer than five pixels that the line leaves along a ragged
    edge are treated like pixels under the line.

    Parameters
    ----------
    mask : MaskCrop
        The object.
    line : (k, 2) array-like
        Corners ``(y, x)`` in image pixels, k ≥ 2.

    Returns
    -------
    list of MaskCrop
        The parts, largest first; one only if the line does not cut the object.

    Raises
    ------
    InvalidPromptError
        If the line is not a list of at least two finite positions.
    """
    corners = _checked_line(line) - (mask.y0, mask.x0)
    inside = mask.array()
    cut = np.zeros(inside.shape, dtype=np.bool_)
    for start, stop in pairwise(corners):
        rows, columns = _stairs(start, stop)
        hit = (rows >= 0) & (columns >= 0) & (rows < mask.height) & (columns < mask.width)
        cut[rows[hit], columns[hit]] = True
    parts, n = ndimage.label(inside & ~cut, structure=EIGHT)
    if n < 2:
        return [mask]
    sizes = np.bincount(parts.ravel())[1:]
    # In tiny objects there are no crumbs.
    crumbs = sizes < min(_SMALL_PART, mask.area // 10)
    if np.count_nonzero(~crumbs) < 2:
        return [mask]
    parts[np.concatenate([[False], crumbs])[parts]] = 0
    return _to_crops(mask, _grow_to_nearest(parts, inside))


def _checked_line(line: ArrayLike) -> NDArray[np.float64]:
    try:
        corners = np.asarray(line, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidPromptError("a cutting line is a list of (y, x) positions") from error
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 2:
        raise InvalidPromptError(
            f"a cutting line has shape (k, 2) with k of at least 2, got {corners.shape}"
        )
    if not (np.abs(corners) < _FARTHEST).all():
        raise InvalidPromptError("a cutting line must have finite positions within the image")
    return corners


def _stairs(
    start: NDArray[np.float64], stop: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of a line that goes in steps along one axis at a time.

    No 8-connected path slips through such a line.
    """
    n = int(np.ceil(np.abs(stop - start).max())) + 1
    path = np.rint(np.linspace(start, stop, n + 1)).astype(np.int64)
    corner = np.stack([path[1:, 0], path[:-1, 1]], axis=1)
    both = np.concatenate([path, corner])
    return both[:, 0], both[:, 1]


def _grow_to_nearest(parts: NDArray[np.integer], inside: NDArray[np.bool_]) -> NDArray[np.integer]:
    """Give every pixel of ``inside`` without a part the nearest part."""
    missing = inside & (parts == 0)
    if not missing.any():
        return parts
    nearest = ndimage.distance_transform_edt(
        parts == 0, return_distances=False, return_indices=True
    )
    parts = parts.copy()
    parts[missing] = parts[nearest[0][missing], nearest[1][missing]]
    return parts


def _to_crops(mask: MaskCrop, parts: NDArray[np.integer]) -> list[MaskCrop]:
    """Crops of all non-zero parts of a crop-sized label image, largest first."""
    crops = []
    for index, slices in enumerate(ndimage.find_objects(parts)):
        if slices is not None:
            y, x = mask.y0 + slices[0].start, mask.x0 + slices[1].start
            crops.append(MaskCrop.from_array(parts[slices] == index + 1, y, x))
    return sorted(crops, key=lambda crop: -crop.area)


def split_by_watershed(mask: MaskCrop, parts: int | None = None) -> list[MaskCrop]:
    """Split touching particles at their necks.

    The distance to the outline is flooded from its maxima; then basins are joined again
    across the shallowest necks, until the wanted number remains or, by default, until
    every neck that is left is narrower by 15 % and by a pixel than the smaller of the
    two particles that it joins.

    Parameters
    ----------
    mask : MaskCrop
        The object.
    parts : int, optional
        How many parts to make. Where the outline has no such number of bulges, compact
        parts of similar size are cut.

    Returns
    -------
    list of MaskCrop
        The parts, largest first. Together they are the mask; they do not overlap.

    Raises
    ------
    InvalidSettingError
        If ``parts`` is below 1 or more than the mask has pixels.
    """
    if parts is not None and not 1 <= parts <= max(mask.area, 1):
        raise InvalidSettingError(
            f"an object of {mask.area} pixels can be split into 1 to {mask.area} parts, got {parts}"
        )
    if mask.area == 0 or parts == 1:
        return [mask]
    inside = mask.array()
    labels = _basins(inside, parts)
    if parts is not None and labels.max() != parts:
        labels = _compact_parts(inside, parts)
    return _to_crops(mask, labels)


def _basins(inside: NDArray[np.bool_], parts: int | None) -> NDArray[np.int32]:
    """Watershed basins of the distance to the outline, joined across shallow necks."""
    from skimage.segmentation import watershed

    distance = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    # A slight blur removes the ridges that a pixelated outline leaves in the distance.
    smooth = np.where(inside, ndimage.gaussian_filter(distance, 1.0), 0)
    peaks = inside & (smooth == ndimage.maximum_filter(smooth, footprint=EIGHT))
    markers, n = ndimage.label(peaks, structure=EIGHT)
    basins = watershed(-smooth, markers, mask=inside, connectivity=2)
    basins = _grow_to_nearest(basins, inside)
    heights = np.asarray(ndimage.maximum(distance, basins, np.arange(1, n + 1)))
    root = _join(heights, _necks(basins, distance), parts)
    return np.concatenate([[0], root + 1]).astype(np.int32)[basins]


def _necks(
    basins: NDArray[np.integer], distance: NDArray[np.float64]
) -> dict[tuple[int, int], float]:
    """Largest distance value on the border of every two adjacent basins (counted from 0)."""
    n = int(basins.max()) + 1
    keys, values = [], []
    for a, b in (
        (np.s_[1:, :], np.s_[:-1, :]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:, 1:], np.s_[:-1, :-1]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    ):
        first, second = basins[a].astype(np.int64), basins[b].astype(np.int64)
        border = (first != second) & (first > 0) & (second > 0)
        first, second = first[border], second[border]
        keys.append(np.minimum(first, second) * n + np.maximum(first, second))
        values.append(np.minimum(distance[a][border], distance[b][border]))
    unique, position = np.unique(np.concatenate(keys), return_inverse=True)
    height = np.zeros(len(unique))
    np.maximum.at(height, position, np.concatenate(values))
    return {
        (int(key) // n - 1, int(key) % n - 1): float(top)
        for key, top in zip(unique, height, strict=True)
    }


def _join(
    heights: NDArray[np.float64], necks: dict[tuple[int, int], float], parts: int | None
) -> NDArray[np.int64]:
    """Join basins across the shallowest necks; returns a number from 0 up for each basin.

    Going from the widest neck down, the lower of the two particles that meet there has its
    own height above the neck: its persistence. A neck is shallow when that is small.
    """
    tree = list(range(len(heights)))
    top = heights.tolist()
    depths, edges = [], []
    for (a, b), neck in sorted(necks.items(), key=lambda item: -item[1]):
        first, second = _root(tree, a), _root(tree, b)
        if first != second:
            high, low = (first, second) if top[first] >= top[second] else (second, first)
            rise = top[low] - neck
            depths.append(0.0 if rise < _NECK_PIXELS and parts is None else rise / top[low])
            edges.append((a, b))
            tree[low] = high
    order = np.argsort(depths, kind="stable")
    if parts is None:
        order = order[np.array(depths)[order] < _NECK] if len(order) else order
    else:
        order = order[: max(len(heights) - parts, 0)]
    tree = list(range(len(heights)))
    for index in order.tolist():
        a, b = edges[index]
        tree[_root(tree, a)] = _root(tree, b)
    roots = [_root(tree, basin) for basin in range(len(heights))]
    return np.unique(roots, return_inverse=True)[1].reshape(-1)


def _root(tree: list[int], node: int) -> int:
    while tree[node] != node:
        tree[node] = tree[tree[node]]
        node = tree[node]
    return node


def _compact_parts(inside: NDArray[np.bool_], parts: int) -> NDArray[np.int32]:
    """Cut into ``parts`` compact pieces of similar size (Lloyd's algorithm, no randomness)."""
    pixels = np.argwhere(inside).astype(np.float64)
    farthest = int(np.argmax(((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1)))
    chosen = [farthest]
    nearest = ((pixels - pixels[farthest]) ** 2).sum(axis=1)
    for _ in range(parts - 1):
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((pixels - pixels[chosen[-1]]) ** 2).sum(axis=1))
    centres = pixels[chosen]
    owner = KDTree(centres).query(pixels)[1]
    for _ in range(10):
        sizes = np.bincount(owner, minlength=parts)
        sums = [np.bincount(owner, pixels[:, axis], minlength=parts) for axis in (0, 1)]
        moved = np.stack(sums, axis=1) / sizes[:, None]
        new_owner = KDTree(moved).query(pixels)[1]
        if len(np.unique(new_owner)) < parts:
            break
        owner = new_owner
    labels = np.zeros(inside.shape, dtype=np.int32)
    labels[inside] = owner + 1
    return labels


def merge(masks: Sequence[MaskCrop]) -> MaskCrop:
    """Unite masks of one image.

    Raises
    ------
    InvalidMaskError
        If there is no mask.
    """
    if not masks:
        raise InvalidMaskError("expected at least one mask to merge, got none")
    filled = [mask for mask in masks if mask.area]
    if not filled:
        return masks[0]
    y0, x0 = min(mask.y0 for mask in filled), min(mask.x0 for mask in filled)
    y1, x1 = max(mask.box[2] for mask in filled), max(mask.box[3] for mask in filled)
    union = np.zeros((y1 - y0, x1 - x0), dtype=np.bool_)
    for mask in filled:
        top, left = mask.y0 - y0, mask.x0 - x0
        union[top : top + mask.height, left : left + mask.width] |= mask.array()
    return MaskCrop.from_array(union, y0, x0)


def fill_holes(mask: MaskCrop, max_area: int | None = None) -> MaskCrop:
    """Fill the holes of a mask.

    Parameters
    ----------
    mask : MaskCrop
        The object.
    max_area : int, optional
        Holes of more pixels stay open; by default all are filled. A hole is a
        4-connected region of background that the mask encloses.

    Returns
    -------
    MaskCrop
        The mask with its holes filled.
    """
    inside = mask.array()
    holes = ndimage.binary_fill_holes(inside) & ~inside
    if max_area is not None:
        regions, n = ndimage.label(holes)
        large = np.bincount(regions.ravel(), minlength=n + 1) > max_area
        holes &= ~large[regions]
    return MaskCrop.from_array(inside | holes, mask.y0, mask.x0)


def smooth(mask: MaskCrop, radius: float = 2.0, shape: tuple[int, int] | None = None) -> MaskCrop:
    """Round the outline of a mask without changing how large it is.

    The mask is blurred and the pixels with the highest values are kept, as many as it had.
    (A threshold of one half would shrink every small or thin object, and would bias the
    size distribution.) No object vanishes, and none falls apart into more pieces than
    it had: surplus small ones are dropped.

    Parameters
    ----------
    mask : MaskCrop
        The object.
    radius : float
        Standard deviation of the blur in pixels: details smaller than this are rounded.
        At most half the radius of the largest circle inside the mask is used, because a
        wider blur would draw a thin object together.
    shape : (int, int), optional
        Height and width of the image, which the result must not leave. The sides of the
        image do not count as outline.

    Returns
    -------
    MaskCrop
        The rounded mask; the mask itself if it is empty or the radius is 0.

    Raises
    ------
    InvalidSettingError
        If the radius is not between 0 and 1000 pixels.
    """
    if not 0 <= radius <= 1000:
        raise InvalidSettingError(f"the radius must be 0 to 1000 pixels, got {radius}")
    if mask.area == 0 or radius == 0:
        return mask
    inside = mask.array()
    radius = min(radius, 0.5 * float(ndimage.distance_transform_edt(np.pad(inside, 1)).max()))
    margin = int(np.ceil(3 * radius)) + 1
    limits = shape if shape is not None else (mask.box[2] + margin, mask.box[3] + margin)
    before = (min(margin, mask.y0), min(margin, mask.x0))
    after = [max(0, min(margin, limits[i] - mask.box[2 + i])) for i in (0, 1)]
    padded = np.pad(inside, ((before[0], after[0]), (before[1], after[1])))
    blurred = ndimage.gaussian_filter(padded.astype(np.float32), radius, mode="nearest")
    level = np.partition(blurred.ravel(), -mask.area)[-mask.area]
    at_least, above = blurred >= level, blurred > level
    surplus = np.count_nonzero(at_least) - mask.area
    rounded = above if surplus > mask.area - np.count_nonzero(above) > 0 else at_least
    if not rounded.any():
        return mask
    pieces = ndimage.label(padded, structure=EIGHT)[1]
    return MaskCrop.from_array(
        _keep_largest(rounded, pieces), mask.y0 - before[0], mask.x0 - before[1]
    )


def _keep_largest(mask: NDArray[np.bool_], n_pieces: int) -> NDArray[np.bool_]:
    regions, n = ndimage.label(mask, structure=EIGHT)
    if n <= n_pieces:
        return mask
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    keep = np.zeros(n + 1, dtype=np.bool_)
    keep[np.argsort(-sizes, kind="stable")[:n_pieces]] = True
    return keep[regions]
