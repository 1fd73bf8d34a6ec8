"""Tokens of a layer at the same places of all models, and the figures made from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from phasesam.core.layer_basis import Basis
from phasesam.core.layer_numbers import (
    FOLDS,
    fisher_ratios,
    linear_cka,
    probe_iou,
    relative_change,
)
from phasesam.core.token_grid import tokens_at

_FEWEST = 8


@dataclass(frozen=True, eq=False)
class Sample:
    """Some tokens of a layer.

    Attributes
    ----------
    name : str
        Of the layer.
    places : tuple of (m, 2) float64 array
        Where they are in each picture, within 0–1.
    tokens : tuple of tuple of (m, c) float32 array
        By model and picture.
    classes : tuple of (m,) int32 array
        Class of each token, by picture; negative where unknown.
    scale : (c,) float32 array
        Deviations of the channels in the first model.
    """

    name: str
    places: tuple[NDArray[np.float64], ...]
    tokens: tuple[tuple[NDArray[np.float32], ...], ...]
    classes: tuple[NDArray[np.int32], ...]
    scale: NDArray[np.float32]

    @property
    def together(self) -> NDArray[np.float32]:
        """Tokens of all models and pictures, (n, c)."""
        return np.concatenate([each for model in self.tokens for each in model])

    def within(self, masks: tuple[NDArray[np.bool_], ...]) -> Sample:
        """Keep tokens in masks, one of each picture and of any resolution."""
        kept = [
            mask[tokens_at(places, (mask.shape[0], mask.shape[1]))]
            for mask, places in zip(masks, self.places, strict=True)
        ]
        if sum(int(each.sum()) for each in kept) < _FEWEST:
            return self
        return replace(
            self,
            places=tuple(p[k] for p, k in zip(self.places, kept, strict=True)),
            tokens=tuple(
                tuple(t[k] for t, k in zip(model, kept, strict=True)) for model in self.tokens
            ),
            classes=tuple(c[k] for c, k in zip(self.classes, kept, strict=True)),
        )


@dataclass(frozen=True, eq=False)
class LayerFigures:
    """What can be said of a layer in numbers.

    Attributes
    ----------
    explained : float
        Share of the variance that is in the three directions shown; with directions between
        classes, of the variance between them.
    cka : float or None
        Likeness of the two models, 0–1; None with one model.
    change : float or None
        Mean length of the difference of the two models' tokens, over that of the first model's.
    fisher : tuple of (n,) float64 array
        Fisher ratio of each class, by model; empty without labels.
    probe : tuple of (n,) float64 array
        IoU of each class that a linear probe finds, by model; empty without labels.
    """

    explained: float
    cka: float | None = None
    change: float | None = None
    fisher: tuple[NDArray[np.float64], ...] = ()
    probe: tuple[NDArray[np.float64], ...] = ()

    @property
    def probe_means(self) -> tuple[float, ...]:
        """Mean IoU of the probe over the classes that occur, by model."""
        return tuple(float(np.nanmean(each)) for each in self.probe)


def figures_of(sample: Sample, basis: Basis) -> LayerFigures:
    """Measure a layer."""
    explained = float(basis.explained.sum())
    cka = change = None
    if len(sample.tokens) > 1:
        first, second = (np.concatenate(model) for model in sample.tokens[:2])
        cka, change = linear_cka(first, second), relative_change(first, second)
    classes = np.concatenate(sample.classes)
    n = int(classes.max(initial=-1)) + 1
    if len(np.unique(classes[classes >= 0])) < 2:
        return LayerFigures(explained, cka, change)
    scaled = [[each / sample.scale for each in model] for model in sample.tokens]
    fisher = tuple(fisher_ratios(np.concatenate(model), classes, n) for model in scaled)
    return LayerFigures(
        explained, cka, change, fisher, tuple(_probe(sample, model) for model in scaled)
    )


def _probe(sample: Sample, tokens: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    if len(tokens) > 1:
        return probe_iou(tokens, sample.classes)
    # Of one picture bands are left out, one after another.
    places, classes = sample.places[0], sample.classes[0]
    band = np.minimum((places[:, 1] * FOLDS).astype(int), FOLDS - 1)
    parts = [band == number for number in range(FOLDS)]
    return probe_iou([tokens[0][part] for part in parts], [classes[part] for part in parts])
