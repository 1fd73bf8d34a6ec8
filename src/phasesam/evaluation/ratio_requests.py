"""Requests for phase fractions to try: true, somewhat off, and wrong in several ways.

Beside a wrong request stands the oracle: the best Dice that any map with these amounts can have.
A phase that should have the share n and has the share t in truth shares min(n, t) with it at most,
and all phases can have that at once, because what is left over of some is what others lack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError, TrainingDataError
from phasesam.core.ratio_hints import noisy_fractions
from phasesam.training.class_hints import amounts
from phasesam.training.dataset import LabelledImage

Fractions = NDArray[np.float64]

DOUBT = 0.1
"""Standard error that trusting methods are told of a wrong request."""

_SHIFT = 0.2


def off_by(true: Fractions, error: float, rng: np.random.Generator) -> Fractions:
    """Draw fractions with a standard error about the true ones, as networks are told in training.

    Parameters
    ----------
    true : (k,) array
        Fractions.
    error : float
        Standard error of each; see `phasesam.core.ratio_hints.noisy_fractions`.
    rng : numpy.random.Generator
        Chance.
    """
    return noisy_fractions(true, np.full(len(true), error), rng)


def swapped(true: Fractions) -> Fractions:
    """Give the largest phase the share of the second largest, and the other way round."""
    first, second = np.argsort(-true, kind="stable")[:2]
    found = true.copy()
    found[[first, second]] = true[[second, first]]
    return found


def shifted(true: Fractions) -> Fractions:
    """Take 0.2 from the largest phase and give it to the second largest."""
    first, second = np.argsort(-true, kind="stable")[:2]
    found = true.copy()
    moved = min(_SHIFT, float(true[first]))
    found[first] -= moved
    found[second] += moved
    return found


def zeroed(true: Fractions) -> Fractions:
    """Deny the rarest phase there is; the others keep their proportions."""
    present = np.flatnonzero(true > 0)
    if len(present) < 2:
        return true.copy()
    found = true.copy()
    found[present[np.argmin(true[present])]] = 0
    return np.asarray(found / found.sum())


WRONG: Mapping[str, Callable[[Fractions], Fractions]] = {
    "true": np.copy,
    "swapped": swapped,
    "shifted": shifted,
    "zero": zeroed,
}
"""Requests of the second table by name."""


def oracle_dice(true: Fractions, wanted: Fractions) -> float:
    """Best mean Dice that a map with the wanted amounts can have.

    Parameters
    ----------
    true, wanted : (k,) array
        Fractions, each adding up to 1.

    Returns
    -------
    float
        Mean over the phases that the truth holds.

    Raises
    ------
    InvalidSettingError
        If they have different lengths.
    """
    if true.shape != wanted.shape:
        raise InvalidSettingError(f"expected {true.shape} fractions, got {wanted.shape}")
    present = true > 0
    shared = np.minimum(true, wanted)[present]
    return float((2 * shared / (true + wanted)[present]).mean())


def refuse_unlabelled(images: Sequence[LabelledImage], classes: Sequence[str]) -> None:
    """See whether each image has true fractions, before networks are trained to be asked for them.

    Parameters
    ----------
    images : sequence of LabelledImage
        That will be tested.
    classes : sequence of str
        Their classes.

    Raises
    ------
    TrainingDataError
        If no pixel of an image has a label.
    """
    for image in images:
        if np.isnan(amounts(image.label_array(), len(classes))).any():
            raise TrainingDataError(
                f"{image.name}: expected labelled pixels, for a phase ratio is compared with the "
                f"true one, got none of {', '.join(classes)}: leave the image out"
            )
