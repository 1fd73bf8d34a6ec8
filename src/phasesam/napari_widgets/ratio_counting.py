"""Shares of phases that a Labels layer has where the sliders of the *Phase ratio* dock are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.class_names import class_named
from phasesam.core.errors import InvalidMaskError
from phasesam.napari_widgets.class_colours import layer_class_names
from phasesam.napari_widgets.planes import full_resolution

if TYPE_CHECKING:
    from napari.layers import Labels

_FEW = 3


@dataclass(frozen=True, eq=False)
class CountedArea:
    """What the sliders are about.

    Attributes
    ----------
    shape : tuple of int
        Of the image, ``(..., h, w)``.
    plane : tuple of int
        Which plane of it.
    inside : (h, w) bool array
        Which pixels of the plane.
    is_region : bool
        Whether these are a region, instead of all that was mapped.
    """

    shape: tuple[int, ...]
    plane: tuple[int, ...]
    inside: NDArray[np.bool_]
    is_region: bool

    def values(self, layer: Labels) -> NDArray[Any]:
        """Read the values of a Labels layer in this area, (n,); those of the plane only."""
        data = full_resolution(layer)
        shape = tuple(data.shape)
        if shape == self.shape:
            return np.asarray(np.asarray(data[self.plane] if self.plane else data)[self.inside])
        if shape == self.inside.shape:
            return np.asarray(np.asarray(data)[self.inside])
        if len(shape) == 2 and not self.is_region:
            # Of another image, which has no regions of this one.
            return np.asarray(data).reshape(-1)
        raise InvalidMaskError(
            f"{layer.name}: expected a plane, or the shape {self.shape} of the image, got {shape}."
        )


def counted_shares(layer: Labels, classes: Sequence[str], area: CountedArea) -> NDArray[np.float64]:
    """Count the pixels of each phase in a Labels layer.

    Parameters
    ----------
    layer : napari.layers.Labels
        Its values are phases: by the names in its features, or from 1 if it has no names. 0 is
        what nobody labelled.
    classes : sequence of str
        Names of the phases; case does not count.
    area : CountedArea
        Where.

    Returns
    -------
    (K,) float64 array
        Shares, which add up to 1.

    Raises
    ------
    InvalidMaskError
        If there are other values, such as of objects, or none.
    """
    phases = _values(layer, classes)
    expected = (
        f"expected the values {', '.join(map(str, phases))} for "
        f"{', '.join(classes[k] for k in phases.values())}"
    )
    found, counts = np.unique(area.values(layer), return_counts=True)
    others = [int(value) for value in found if value != 0 and int(value) not in phases]
    if others:
        few = f"{', '.join(map(str, others[:_FEW]))}{' …' if len(others) > _FEW else ''}"
        raise InvalidMaskError(f"{layer.name} holds {few}: {expected}.")
    amounts = np.zeros(len(classes))
    for value, count in zip(found, counts, strict=True):
        if int(value) in phases:
            amounts[phases[int(value)]] += count
    if amounts.sum() == 0:
        where = "in this region" if area.is_region else "in this plane"
        raise InvalidMaskError(f"{layer.name} has none of the phases {where}: {expected}.")
    return amounts / amounts.sum()


def _values(layer: Labels, classes: Sequence[str]) -> dict[int, int]:
    """Index of the phase by value of a layer; a phase without a name there has no value."""
    names = layer_class_names(layer)
    if not names:
        return {k + 1: k for k in range(len(classes))}
    meant = {value: class_named(name, classes) for value, name in names.items()}
    phases = {value: list(classes).index(name) for value, name in meant.items() if name}
    if not phases:
        raise InvalidMaskError(
            f"{layer.name} has classes of other names ({', '.join(names.values())}): expected "
            f"{', '.join(classes)}."
        )
    return phases
