"""Pictures of single results for reports: image, truth, prediction and what is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from phasesam.core.mask_set import MaskSet
from phasesam.core.metrics import InstanceOverlap
from phasesam.formats.overlay import PALETTE, OverlayConfig, render_overlay

PANELS = ("image", "truth", "prediction", "wrong")
"""What the parts of a picture show, in reading order."""

PHASE_CAPTION = (
    "Image, truth, prediction, wrong pixels (vermilion; unlabelled ones grey). Colours are the "
    "classes; the first class is left clear."
)
OBJECT_CAPTION = (
    "Image, truth, prediction, and objects found (blue, IoU from 0.5), missed (yellow) and false "
    "(vermilion)."
)

CLICK_CAPTION = (
    "Image, truth, and what clicks gave: base after 1 and {n} clicks, adapted after 1 and {n}."
)

CHANGE_CAPTION = (
    "Image, truth, map of the network that is told nothing, and the pixels that change when the "
    "request is {requests}:"
    " blue ones become right, vermilion ones wrong, yellow ones were and are wrong."
)

_BLUE, _YELLOW, _VERMILION = PALETTE[1], PALETTE[3], PALETTE[5]
_WIDTH, _GAP = 1560, 6
_WIDE_IMAGE = 1.7
_PALE = 0.35


def choose_cases(values: ArrayLike) -> dict[str, int]:
    """Choose the images to show.

    Parameters
    ----------
    values : (n,) array-like
        A figure of each image, more is better. NaN is never chosen.

    Returns
    -------
    dict of str to int
        ``"best"``, ``"median"`` and ``"worst"``, as far as there are different images.
    """
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    order = [int(i) for i in np.argsort(-array, kind="stable") if not math.isnan(array[i])]
    if not order:
        return {}
    if len(order) == 1:
        return {"only": order[0]}
    cases = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    if len(order) == 2:
        cases.pop("median")
    return cases


def phase_picture(
    rgb: NDArray[np.uint8],
    truth: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
) -> NDArray[np.uint8]:
    """Show a phase map beside the truth.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        The image.
    truth, predicted : (h, w) integer array
        Classes from 0; -1 is unlabelled.

    Returns
    -------
    (h', w', 3) uint8 array
        Four panels in reading order, see `PANELS`.
    """
    columns = _columns(rgb.shape, 4)
    style = OverlayConfig(contour=False, opacity=0.55, scale_bar=False)
    small = _shrunk(rgb, columns)
    marks = [_nearest(labels, small) for labels in (truth, predicted)]
    coloured = [render_overlay(small, np.maximum(m, 0), style) for m in marks]
    wrong = _pale(small)
    # Errors are averaged, not picked: of thin ones every n-th pixel would miss most.
    missed = (truth != predicted) & (truth >= 0)
    share = np.asarray(
        Image.fromarray(missed * np.uint8(255)).resize(small.shape[1::-1], Image.Resampling.BOX)
    )
    weight = (np.minimum(share.astype(np.float64) * 2, 255) / 255)[..., None]
    wrong = (wrong * (1 - weight) + _VERMILION * weight).astype(np.uint8)
    for panel in (coloured[0], wrong):
        panel[marks[0] < 0] = 128
    return _arranged([small, *coloured, wrong], columns)


def instance_picture(
    rgb: NDArray[np.uint8], truth: NDArray[Any], predicted: NDArray[Any] | MaskSet
) -> NDArray[np.uint8]:
    """Show found objects beside the true ones.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        The image.
    truth : (h, w) integer array
        True objects; 0 is background, negative unlabelled.
    predicted : (h, w) integer array or MaskSet
        Found ones.

    Returns
    -------
    (h', w', 3) uint8 array
        Four panels in reading order, see `PANELS`.
    """
    columns = _columns(rgb.shape, 4)
    small = _shrunk(rgb, columns)
    ignore = truth < 0
    wanted = MaskSet.from_labels(np.where(ignore, 0, truth))
    found = predicted if isinstance(predicted, MaskSet) else MaskSet.from_labels(predicted)
    kinds = _kinds(wanted, found, ignore)
    style = OverlayConfig(opacity=0.35, scale_bar=False)
    panels = [
        render_overlay(small, _nearest(masks.to_labels(), small), style)
        for masks in (wanted, found)
    ]
    verdict = _pale(small)
    drawn = _nearest(kinds, small)
    for kind, colour in ((1, _BLUE), (2, _YELLOW), (3, _VERMILION)):
        inside = drawn == kind
        verdict[inside] = (0.25 * verdict[inside] + 0.75 * colour).astype(np.uint8)
    for panel in (panels[0], verdict):
        panel[_nearest(ignore, small)] = 128
    return _arranged([small, *panels, verdict], columns)


def click_picture(
    rgb: NDArray[np.uint8], truth: NDArray[Any], found: Sequence[MaskSet]
) -> NDArray[np.uint8]:
    """Show what clicks on objects gave, each time with the colours of the true objects.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        The image.
    truth : (h, w) integer array
        True objects that were clicked; 0 elsewhere.
    found : sequence of MaskSet
        Masks of the same objects in ascending order of their labels, one set per panel.

    Returns
    -------
    (h', w', 3) uint8 array
        Image, truth and one panel per set, in reading order.
    """
    columns = _columns(rgb.shape, 2 + len(found))
    small = _shrunk(rgb, columns)
    style = OverlayConfig(opacity=0.4, scale_bar=False)
    sets = [MaskSet.from_labels(np.maximum(truth, 0)), *found]
    panels = [render_overlay(small, _nearest(s.to_labels(), small), style) for s in sets]
    return _arranged([small, *panels], columns)


def change_picture(
    rgb: NDArray[np.uint8],
    truth: NDArray[Any],
    before: NDArray[Any],
    after: Sequence[NDArray[Any]],
) -> NDArray[np.uint8]:
    """Show which pixels of a phase map change, and whether for the better.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        The image.
    truth, before : (h, w) integer array
        Classes from 0; -1 is unlabelled.
    after : sequence of (h, w) integer arrays
        Changed maps.

    Returns
    -------
    (h', w', 3) uint8 array
        Image, truth, map before and one panel per changed map, in reading order.
    """
    columns = _columns(rgb.shape, 3 + len(after))
    small = _shrunk(rgb, columns)
    style = OverlayConfig(contour=False, opacity=0.55, scale_bar=False)
    true, old = _nearest(truth, small), _nearest(before, small)
    panels = [render_overlay(small, np.maximum(m, 0), style) for m in (true, old)]
    for labels in after:
        new, panel = _nearest(labels, small), _pale(small)
        changed = (new != old) & (true >= 0)
        for where, colour in (
            (changed & (new == true), _BLUE),
            (changed & (old == true), _VERMILION),
            (changed & (new != true) & (old != true), _YELLOW),
        ):
            panel[where] = colour
        panels.append(panel)
    return _arranged([small, *panels], columns)


def _kinds(wanted: MaskSet, found: MaskSet, ignore: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Paint matched (1), missed (2) and false (3) objects, the matched ones on top."""
    overlap = InstanceOverlap.between(found, wanted, ignore if ignore.any() else None)
    rows, columns = overlap.match(0.5)
    false = ~overlap.ignorable
    false[rows] = False
    # Objects mostly in unlabelled areas are not among those that could be matched.
    if ignore.any():
        inside = [
            i
            for i, crop in enumerate(wanted.crops)
            if 2 * np.count_nonzero(ignore[crop.slices] & crop.array()) < crop.area
        ]
    else:
        inside = list(range(len(wanted)))
    matched = {inside[i] for i in columns.tolist()}
    kinds = np.zeros(wanted.shape, np.uint8)
    layers: list[tuple[int, MaskSet, Sequence[int]]] = [
        (3, found, np.flatnonzero(false).tolist()),
        (2, wanted, [i for i in inside if i not in matched]),
        (1, wanted, sorted(matched)),
    ]
    for kind, masks, indices in layers:
        for i in indices:
            crop = masks.crops[i]
            kinds[crop.slices][crop.array()] = kind
    return kinds


def _columns(shape: tuple[int, ...], count: int) -> int:
    """Choose how many panels lie side by side: fewer of wide images, so that these are larger."""
    wide = shape[1] > _WIDE_IMAGE * shape[0]
    if count > 4:
        return 2 if wide else 3
    return 2 if wide else count


def _shrunk(rgb: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Scale an image to a panel; none is enlarged."""
    longest = (_WIDTH - (columns - 1) * _GAP) / columns
    step = max(rgb.shape[:2]) / longest
    if step <= 1:
        return rgb.copy()
    size = [max(1, round(length / step)) for length in rgb.shape[1::-1]]
    return np.array(Image.fromarray(rgb).resize((size[0], size[1]), Image.Resampling.BOX))


def _nearest(labels: NDArray[Any], like: NDArray[np.uint8]) -> NDArray[Any]:
    """Scale labels to the size of a panel; never a mixture of two."""
    rows, columns = (
        ((2 * np.arange(n) + 1) * m // (2 * n)).astype(np.intp)
        for n, m in zip(like.shape[:2], labels.shape, strict=True)
    )
    return labels[rows][:, columns]


def _pale(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey and faint, so that colours on it are seen."""
    grey = rgb.mean(axis=2, keepdims=True)
    return np.repeat(255 - _PALE * (255 - grey), 3, axis=2).astype(np.uint8)


def _arranged(panels: Sequence[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Put panels of one size into rows, white between them."""
    height, width = panels[0].shape[:2]
    rows = -(-len(panels) // columns)
    out = np.full(
        (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8
    )
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        y, x = row * (height + _GAP), column * (width + _GAP)
        out[y : y + height, x : x + width] = panel
    return out
