"""Products of the channels of a layer: made once, for directions and for likeness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Moments:
    """How the channels of one model, or of two at the same tokens, vary together.

    Attributes
    ----------
    counts : tuple of int
        Tokens, by model.
    means : tuple of (c,) float64 array
        Of the channels, by model.
    own : tuple of (c, c) float32 array
        Sums over tokens of products of two channels less their means, by model.
    cross : (c, d) float32 array or None
        The same of a channel of the first model and one of the second.
    """

    counts: tuple[int, ...]
    means: tuple[NDArray[np.float64], ...]
    own: tuple[NDArray[np.float32], ...]
    cross: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, models: Sequence[ArrayLike]) -> Self:
        """Take tokens (n, c) of one model, or of two at the same places."""
        means, centred = [], []
        for tokens in models:
            values = np.array(tokens, np.float32)
            means.append(values.mean(axis=0, dtype=np.float64))
            values -= means[-1].astype(np.float32)
            centred.append(values)
        # Of a matrix and itself half the products are enough: numpy sees to it.
        own = tuple(values.T @ values for values in centred)
        cross = centred[0].T @ centred[1] if len(centred) > 1 else None
        return cls(tuple(len(values) for values in centred), tuple(means), own, cross)

    @property
    def cka(self) -> float:
        """Centred kernel alignment of both models, see `phasesam.core.layer_numbers`."""
        if self.cross is None:
            return float("nan")
        shared, first, second = (
            float(np.einsum("ij,ij->", each, each, dtype=np.float64))
            for each in (self.cross, self.own[0], self.own[1])
        )
        return shared / float(np.sqrt(first * second)) if first * second > 0 else float("nan")

    def covariance(self, scale: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Mean (c,) and covariance (c, c) of the tokens of all models, channels over a scale."""
        n = max(sum(self.counts), 1)
        mean = np.average(self.means, axis=0, weights=np.maximum(self.counts, 1))
        covariance = np.zeros(self.own[0].shape)
        for count, own_mean, own in zip(self.counts, self.means, self.own, strict=True):
            covariance += own
            if len(self.counts) > 1:
                gap = own_mean - mean
                covariance += count * np.outer(gap, gap)
        inverse = 1 / np.asarray(scale, np.float64)
        covariance *= inverse[:, None] / n
        covariance *= inverse
        return mean.astype(np.float32), covariance
