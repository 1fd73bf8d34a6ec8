"""How many pixels masks share, and their IoU and IoMin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.mask_set import MaskCrop, MaskSet

_TILE = 32
_DENSE_LIMIT = 5000
_ENTRIES_AT_ONCE = 1 << 22

Criterion = Literal["iou", "iomin"]


def overlap_matrix(masks: MaskSet | Sequence[MaskCrop], *, step: int = 1) -> sparse.csr_matrix:
    """Count the pixels that every pair of masks shares.

    The image is cut into tiles of 32 × 32 pixels, so that a mask fills at most sixteen
    64-bit words of a tile. Only masks that meet in a tile are compared, word by word. (A
    matrix product would do the same; it loses its speed when other threads are busy.)

    Parameters
    ----------
    masks : MaskSet or sequence of MaskCrop
        The n masks, all of one image.
    step : int
        Look at every ``step``-th row and column only and scale the counts up by
        ``step**2``; 4 is several times faster and good to a few per cent for objects of
        some hundred pixels and more. 1 counts exactly.

    Returns
    -------
    (n, n) symmetric scipy.sparse.csr_matrix of float64
        Shared pixels; the diagonal holds the (sampled) areas.

    Raises
    ------
    InvalidSettingError
        If ``step`` is below 1.
    """
    if step < 1:
        raise InvalidSettingError(f"step must be at least 1, got {step}")
    crops = masks.crops if isinstance(masks, MaskSet) else tuple(masks)
    n = len(crops)
    total = _Accumulator(n)
    tile = _TILE * step
    bottom = max((crop.y0 + crop.height for crop in crops), default=0)
    by_row: dict[int, list[int]] = {}
    for index, crop in enumerate(crops):
        for row in range(crop.y0 // tile, -(-(crop.y0 + crop.height) // tile)):
            by_row.setdefault(row, []).append(index)
    for row in sorted(by_row):
        top = row * tile
        tiles: dict[int, list[tuple[int, NDArray[np.uint64]]]] = {}
        for index in by_row[row]:
            for column, words in _tiles_of(crops[index], top, min(top + tile, bottom), step):
                tiles.setdefault(column, []).append((index, words))
        for entries in tiles.values():
            members = np.array([index for index, _ in entries])
            total.add(members, _shared_bits(np.stack([words for _, words in entries])))
    return total.result() * float(step * step)


def _tiles_of(
    crop: MaskCrop, top: int, bottom: int, step: int
) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Yield the mask's sampled pixels, packed, in each tile of a strip of rows that it meets."""
    first, last = max(top, crop.y0), min(bottom, crop.y0 + crop.height)
    rows = _unpack_rows(crop, first - crop.y0, last - crop.y0)
    rows = rows[-first % step :: step, -crop.x0 % step :: step]
    if rows.size == 0:
        return
    left = -(-crop.x0 // step)
    column = left // _TILE
    n_tiles = -(-(left + rows.shape[1]) // _TILE) - column
    strip = np.zeros((_TILE, n_tiles * _TILE), dtype=np.uint8)
    y, x = -(-first // step) - top // step, left - column * _TILE
    strip[y : y + rows.shape[0], x : x + rows.shape[1]] = rows
    tiles = strip.reshape(_TILE, n_tiles, _TILE).transpose(1, 0, 2).reshape(n_tiles, -1)
    words = np.packbits(tiles, axis=1).view(np.uint64)
    for index in np.flatnonzero(words.any(axis=1)).tolist():
        yield column + index, words[index]


def _shared_bits(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Count the bits that every two of the (m, k) rows have in common, (m, m)."""
    shared = np.zeros((len(words), len(words)), dtype=np.int64)
    for column in np.flatnonzero(words.any(axis=0)):
        word = words[:, column]
        shared += _bit_count(word[:, None] & word[None, :])
    return shared


def _bit_count(words: NDArray[np.uint64]) -> NDArray[np.integer]:
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    # numpy 1.26: add up neighbouring bits, then pairs, then nibbles; the last product
    # sums the eight bytes into the topmost one.
    odd, pairs, nibbles, ones = (np.uint64(int(byte * 8, 16)) for byte in ("55", "33", "0f", "01"))
    one, two, four, top = (np.uint64(n) for n in (1, 2, 4, 56))
    words = words - ((words >> one) & odd)
    words = (words & pairs) + ((words >> two) & pairs)
    words = (words + (words >> four)) & nibbles
    return (words * ones) >> top


def _unpack_rows(crop: MaskCrop, first: int, last: int) -> NDArray[np.uint8]:
    """Rows ``first:last`` of the crop as 0/1, without unpacking the others."""
    start, stop = first * crop.width, last * crop.width
    bits = np.unpackbits(crop.bits[start // 8 : -(-stop // 8)])
    return bits[start % 8 : start % 8 + stop - start].reshape(last - first, crop.width)


class _Accumulator:
    """Sums small blocks into an (n, n) matrix: dense while that is small, else sparse."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.dense = np.zeros((n, n), dtype=np.float64) if n <= _DENSE_LIMIT else None
        self.summed = sparse.csr_matrix((n, n), dtype=np.float64)
        self.waiting: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        self.n_waiting = 0

    def add(self, members: NDArray[np.int64], block: NDArray[np.int64]) -> None:
        """Add ``block`` to the rows and columns of ``members``."""
        if self.dense is not None:
            self.dense[np.ix_(members, members)] += block
            return
        y, x = np.nonzero(block)
        keys = members[y] * self.n + members[x]
        self.waiting.append((keys, block[y, x].astype(np.float64)))
        self.n_waiting += len(keys)
        if self.n_waiting > _ENTRIES_AT_ONCE:
            self._sum_up()

    def _sum_up(self) -> None:
        if self.waiting:
            keys = np.concatenate([keys for keys, _ in self.waiting])
            values = np.concatenate([values for _, values in self.waiting])
            entries = (values, (keys // self.n, keys % self.n))
            self.summed = self.summed + sparse.csr_matrix(entries, shape=(self.n, self.n))
            self.waiting, self.n_waiting = [], 0

    def result(self) -> sparse.csr_matrix:
        """Return the sum."""
        if self.dense is not None:
            return sparse.csr_matrix(self.dense)
        self._sum_up()
        return self.summed


def overlap_ratio(
    intersections: sparse.spmatrix, areas: ArrayLike, criterion: Criterion = "iou"
) -> sparse.csr_matrix:
    """Turn shared pixels into IoU or IoMin (shared part of the smaller mask).

    Parameters
    ----------
    intersections : (n, n) sparse matrix
        From `overlap_matrix`.
    areas : (n,) array-like
        Pixels per mask.
    criterion : {"iou", "iomin"}
        What to divide by: the union or the smaller of the two masks.

    Returns
    -------
    (n, n) scipy.sparse.csr_matrix of float64
        Ratios, 0–1, for the pairs stored in ``intersections``.
    """
    pairs = sparse.coo_matrix(intersections)
    area = _checked_areas(areas, pairs.shape)
    smaller = np.minimum(area[pairs.row], area[pairs.col])
    # Sampled counts may exceed the true area of a small mask.
    shared = np.minimum(pairs.data, smaller)
    if criterion == "iou":
        whole = area[pairs.row] + area[pairs.col] - shared
    elif criterion == "iomin":
        whole = smaller
    else:
        raise InvalidSettingError(f"criterion must be 'iou' or 'iomin', got {criterion!r}")
    ratio = shared / np.maximum(whole, 1)
    return sparse.csr_matrix((ratio, (pairs.row, pairs.col)), shape=pairs.shape)


def _checked_areas(areas: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    area = np.asarray(areas, dtype=np.float64).reshape(-1)
    if shape != (len(area), len(area)):
        raise InvalidMaskError(f"expected {shape[0]} areas for a {shape} matrix, got {len(area)}")
    return area
