"""Which objects are large enough to be learnt, as the model will see them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from phasesam.core.coordinates import MODEL_SIDE
from phasesam.core.errors import TrainingDataError
from phasesam.training.prompt_rounds import MOST_COVERED, SMALLEST_AREA
from phasesam.training.views import ViewConfig


def about_unseen(labels: Iterable[NDArray[np.int32]], views: ViewConfig) -> str:
    """Say how many objects will not be learnt, because they are too small or fill their image.

    Parameters
    ----------
    labels : iterable of (h, w) int32 array
        Objects 1, 2, … of the training images.
    views : ViewConfig
        What views show; enlarged as much as they may be.

    Returns
    -------
    str
        A sentence; empty if all can be learnt.

    Raises
    ------
    TrainingDataError
        If none can.
    """
    n, small, large, least = 0, 0, 0, 0.0
    for array in labels:
        longest = max(array.shape)
        shown = min(views.window or longest, longest)
        pixels = (shown / (MODEL_SIDE * max(1.0, views.augmentation.scale[1]))) ** 2 * SMALLEST_AREA
        areas = np.unique(array[array > 0], return_counts=True)[1]
        n += len(areas)
        small += int((areas < pixels).sum())
        if shown == longest:
            large += int((areas >= MOST_COVERED * array.size).sum())
        least = max(least, pixels)
    if n == 0 or small + large == 0:
        return ""
    parts = [f"{small} are smaller than {least:.0f} pixels"] if small else []
    parts += [f"{large} fill their image"] if large else []
    found = " and ".join(parts)
    if small + large == n:
        raise TrainingDataError(
            f"expected objects that the model can see, got {n} of which {found}; "
            "a smaller window shows them larger"
        )
    return f"of {n} objects {found}, and are not learnt; a smaller window shows them larger"
