"""Turns the tokens of a layer into pictures: by their scores, or by the group they belong to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phasesam.core.layer_basis import Basis, principal_basis
from phasesam.core.layer_colours import greyed
from phasesam.core.layer_groups import group_centres, nearest_group
from phasesam.core.token_grid import resampled
from phasesam.formats.overlay import PALETTE

if TYPE_CHECKING:
    from phasesam.engines.layer_figures import Sample
    from phasesam.engines.layer_tokens import LayerTokens

Masks = tuple[NDArray[np.bool_], ...]
Paint = Callable[[NDArray[np.float16]], NDArray[np.uint8]]
"""Makes colours (h, w, 3) of tokens (h, w, c)."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of alike tokens in a layer.

    Attributes
    ----------
    basis : Basis
        Directions that tokens are told apart by.
    weights : (d,) float32 array
        How much each counts: what it explains.
    centres : (k, d) float32 array
        Of the groups.
    """

    basis: Basis
    weights: NDArray[np.float32]
    centres: NDArray[np.float32]

    @classmethod
    def of(
        cls, basis: Basis, scores: NDArray[np.floating], weights: NDArray[np.float64], n: int
    ) -> Groups:
        """Find groups of tokens by their scores (m, d)."""
        factors = np.sqrt(weights).astype(np.float32)
        return cls(basis, factors, group_centres(scores * factors, n))

    def sort(self, scores: NDArray[np.floating]) -> NDArray[np.intp]:
        """Group of each token by its scores (..., d)."""
        return nearest_group(scores * self.weights, self.centres)

    def paint(self, numbers: NDArray[np.intp]) -> Paint:
        """Colour tokens by their group; `numbers` are those that groups have in all layers."""
        colours = PALETTE[numbers % len(PALETTE)]
        return lambda tokens: colours[self.sort(self.basis.scores(tokens))]


def foreground(tokens: tuple[tuple[LayerTokens, ...], ...], sample: Sample) -> Masks:
    """Tell objects from what is around them, (h, w) of each picture in the layer of a sample."""
    from skimage.filters import threshold_otsu

    name = sample.name
    basis = principal_basis(sample.together, sample.scale, 1)
    means = [
        np.mean([basis.scores(model[index].maps[name])[..., 0] for model in tokens], axis=0)
        for index in range(len(tokens[0]))
    ]
    values = np.concatenate([mean.reshape(-1) for mean in means])
    threshold = threshold_otsu(values)
    above = np.count_nonzero(values > threshold) * 2 <= len(values)
    return tuple((mean > threshold) == above for mean in means)


def drawn(
    model: tuple[LayerTokens, ...], name: str, paint: Paint, masks: Masks | None
) -> tuple[NDArray[np.uint8], ...]:
    """Paint all pictures as one model sees them in one layer."""
    pictures = []
    for index, each in enumerate(model):
        picture = paint(each.maps[name])
        if masks is not None:
            scale = each.sides[name] / each.sides[each.names[-1]]
            picture = greyed(picture, ~resampled(masks[index], picture.shape[:2], scale))
        pictures.append(picture)
    return tuple(pictures)
