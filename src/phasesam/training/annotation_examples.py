"""Objects that were annotated, on the grid of the decoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from phasesam.training.annotation_history import Example
from phasesam.training.losses import pooled_mask
from phasesam.training.prompt_rounds import Targets

_FRAME = 1024
_GRID = 256
_STEP = 2
_LEAST_PIXELS = 64
_MOST_COVERED = 0.95


def on_frame(example: Example) -> NDArray[np.bool_]:
    """Draw an object as the model sees its image.

    Parameters
    ----------
    example : Example
        The object; what lies outside of the picture the model saw is left out.

    Returns
    -------
    (1024, 1024) bool array
    """
    frame = np.zeros((_FRAME, _FRAME), dtype=np.bool_)
    crop = example.mask
    spans = []
    for start, length, image, seen in zip(
        (crop.y0 - example.corner[0], crop.x0 - example.corner[1]), (crop.height, crop.width),
        example.image_shape, example.input_size, strict=True,
    ):  # fmt: skip
        pixels = np.floor((np.arange(seen) + 0.5) * image / seen).astype(int) - start
        inside = np.flatnonzero((pixels >= 0) & (pixels < length))
        spans.append((inside, pixels[inside]))
    (rows, crop_rows), (columns, crop_columns) = spans
    frame[np.ix_(rows, columns)] = crop.array()[np.ix_(crop_rows, crop_columns)]
    return frame


def targets_of(examples: Sequence[Example]) -> tuple[Targets | None, list[Example]]:
    """Put objects of one image together as a training wants them.

    Parameters
    ----------
    examples : sequence of Example
        All of the same image.

    Returns
    -------
    Targets or None
        None when no object can be learnt from: each is a speck, or fills the image.
    list of Example
        Those that can, in the order of the targets.
    """
    frames, usable = [], []
    for example in examples:
        frame = on_frame(example)
        area = int(np.count_nonzero(frame))
        height, width = example.input_size
        if _LEAST_PIXELS <= area < _MOST_COVERED * height * width:
            frames.append(torch.from_numpy(frame))
            usable.append(example)
    if not frames:
        return None, []
    masks = torch.stack([pooled_mask(frame, _GRID) for frame in frames])
    seen = (masks > 0.5).flatten(1).any(1).tolist()
    usable = [example for example, is_seen in zip(usable, seen, strict=True) if is_seen]
    if not usable:
        return None, []
    known = torch.zeros(_FRAME, _FRAME, dtype=torch.bool)
    height, width = usable[0].input_size
    known[:height, :width] = True
    fine = slice(_STEP // 2, None, _STEP)
    chosen = torch.tensor(seen)
    return Targets(
        masks=masks[chosen],
        weight=pooled_mask(known, _GRID),
        background=np.zeros((_GRID, _GRID), dtype=np.bool_),
        fine=torch.stack([frame[fine, fine] for frame in frames])[chosen],
        known=known[fine, fine],
    ), usable
