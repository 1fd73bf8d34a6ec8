"""COCO run-length encoding of masks, as pycocotools reads and writes it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidMaskError
from phasesam.core.mask_set import MaskCrop

_BITS = 5
_MORE = 1 << _BITS
_SIGN = 1 << (_BITS - 1)
_OFFSET = 48
_LONGEST = 13


def encode_rle(mask: MaskCrop, shape: tuple[int, int], compress: bool = True) -> dict[str, Any]:
    """Encode a mask.

    Parameters
    ----------
    mask : MaskCrop
        The mask.
    shape : (int, int)
        Height and width of the image.
    compress : bool
        Whether ``counts`` is COCO's short text or a list of run lengths.

    Returns
    -------
    dict
        ``{"size": [h, w], "counts": str or list of int}``, fit for JSON. Runs go down the
        columns and begin with background.

    Raises
    ------
    InvalidMaskError
        If the mask does not lie within the image.
    """
    height, width = (int(n) for n in shape)
    if mask.area and (min(mask.y0, mask.x0) < 0 or mask.box[2] > height or mask.box[3] > width):
        raise InvalidMaskError(f"expected a mask within {height} × {width}, got box {mask.box}")
    columns, rows = np.nonzero(mask.array().T)
    inside = (columns + mask.x0).astype(np.int64) * height + (rows + mask.y0)
    first = np.flatnonzero(np.diff(inside, prepend=-2) != 1)
    last = np.append(first[1:], len(inside)) - 1
    edges = np.empty(2 * len(first) + 2, dtype=np.int64)
    edges[0], edges[-1] = 0, height * width
    edges[1:-1:2] = inside[first]
    edges[2:-1:2] = inside[last[: len(first)]] + 1
    counts = np.diff(edges)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [height, width], "counts": _to_text(counts) if compress else counts.tolist()}


def decode_rle(rle: dict[str, Any]) -> MaskCrop:
    """Decode a mask.

    Parameters
    ----------
    rle : dict
        ``{"size": [h, w], "counts": str, bytes or list of int}``.

    Returns
    -------
    MaskCrop
        The mask.

    Raises
    ------
    InvalidMaskError
        If the runs are damaged or do not add up to the image.
    """
    try:
        height, width = (int(n) for n in rle["size"])
        raw = rle["counts"]
        if isinstance(raw, str):
            raw = raw.encode("ascii")
        counts = _from_text(raw) if isinstance(raw, bytes) else np.asarray(raw, dtype=np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidMaskError(f"expected a COCO RLE with size and counts: {error}") from error
    if height < 0 or width < 0 or counts.ndim != 1 or (counts < 0).any():
        raise InvalidMaskError("expected run lengths that are not negative")
    if int(counts.sum()) != height * width:
        raise InvalidMaskError(
            f"expected runs of {height * width} pixels together, got {int(counts.sum())}"
        )
    ends = np.cumsum(counts)[1::2]
    lengths = counts[1::2]
    starts = ends - lengths
    total = int(lengths.sum())
    if total == 0:
        return MaskCrop(0, 0, 0, 0, np.zeros(0, np.uint8), 0)
    shift = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    columns, rows = np.divmod(np.arange(total) + shift, height)
    top, left = int(rows.min()), int(columns.min())
    box = np.zeros((int(rows.max()) - top + 1, int(columns.max()) - left + 1), dtype=np.bool_)
    box[rows - top, columns - left] = True
    return MaskCrop.from_array(box, top, left)


def _to_text(counts: NDArray[np.int64]) -> str:
    """Write differences to the last run of the same kind, five bits to a character."""
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    characters = np.zeros((len(rest), _LONGEST), dtype=np.uint8)
    used = np.zeros(characters.shape, dtype=np.bool_)
    active = np.ones(len(rest), dtype=np.bool_)
    for place in range(_LONGEST):
        low = rest & (_MORE - 1)
        rest >>= _BITS
        more = np.where(low & _SIGN, rest != -1, rest != 0)
        characters[:, place] = low + np.where(more, _MORE, 0) + _OFFSET
        used[:, place] = active
        active = active & more
        if not active.any():
            break
    return characters[used].tobytes().decode("ascii")


def _from_text(text: bytes) -> NDArray[np.int64]:
    if not text:
        return np.zeros(0, dtype=np.int64)
    value = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - _OFFSET
    if (value < 0).any() or (value >= 2 * _MORE).any() or value[-1] & _MORE:
        raise ValueError("the text holds characters that do not belong there")
    last = np.flatnonzero((value & _MORE) == 0)
    first = np.append(0, last[:-1] + 1)
    if (last - first).max() >= _LONGEST:
        raise ValueError("a run is too long")
    place = np.arange(len(value)) - np.repeat(first, last - first + 1)
    number = np.add.reduceat((value & (_MORE - 1)) << (_BITS * place), first)
    negative = (value[last] & _SIGN) != 0
    number[negative] -= np.int64(1) << (_BITS * (place[last][negative] + 1))
    number[1::2] = np.cumsum(number[1::2])
    number[2::2] = np.cumsum(number[2::2])
    return number
