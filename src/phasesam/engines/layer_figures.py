"""Tokens of a layer at the same places of all models, and the figures made from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from phasesam.core.layer_moments import Moments
from phasesam.core.layer_numbers import (
    FOLDS,
    fisher_ratios,
    probe_iou,
    relative_change,
)
from phasesam.core.token_grid import tokens_at

_FEWEST = 8


@dataclass(frozen=True, eq=False)
class Judged:
    """Tokens with classes, all layers at one resolution, so that their figures can be compared.

    Attributes
    ----------
    tokens : tuple of tuple of (m, c) float32 array
        By model and picture; tokens of a finer layer are averaged.
    classes : tuple of (m,) int32 array
        Class of each, by picture; negative where unknown.
    bands : tuple of (m,) int array
        Which part of its picture each lies in.
    n_classes : int
        Classes that the labels have.
    """

    tokens: tuple[tuple[NDArray[np.float32], ...], ...]
    classes: tuple[NDArray[np.int32], ...]
    bands: tuple[NDArray[np.intp], ...]
    n_classes: int


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
    scale : (c,) float32 array
        Deviations of the channels in the first model.
    """

    name: str
    places: tuple[NDArray[np.float64], ...]
    tokens: tuple[tuple[NDArray[np.float32], ...], ...]
    scale: NDArray[np.float32]

    @property
    def moments(self) -> Moments:
        """How the channels vary together, in all models."""
        return Moments.of([np.concatenate(model) for model in self.tokens])

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
        return tuple(
            float(each[np.isfinite(each)].mean()) if np.isfinite(each).any() else float("nan")
            for each in self.probe
        )


def figures_of(sample: Sample, moments: Moments, judged: Judged | None) -> LayerFigures:
    """Measure a layer; what needs classes only if there are some.

    What its directions explain is not known yet.
    """
    explained = float("nan")
    cka = change = None
    if len(sample.tokens) > 1:
        cka = moments.cka
        change = relative_change(*(np.concatenate(model) for model in sample.tokens[:2]))
    if judged is None:
        return LayerFigures(explained, cka, change)
    classes = np.concatenate(judged.classes)
    scaled = [[each / sample.scale for each in model] for model in judged.tokens]
    fisher = tuple(
        fisher_ratios(np.concatenate(model), classes, judged.n_classes) for model in scaled
    )
    probe = tuple(_probe(judged, model) for model in scaled)
    return LayerFigures(explained, cka, change, fisher, probe)


def _probe(judged: Judged, tokens: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """IoU of each class, where a probe was not fitted: other pictures, or bands of the only one."""
    parts = [(t, c) for t, c in zip(tokens, judged.classes, strict=True) if (c >= 0).any()]
    if len(parts) == 1:
        index = next(i for i, c in enumerate(judged.classes) if (c >= 0).any())
        (t, c), band = parts[0], judged.bands[index]
        parts = [(t[band == b], c[band == b]) for b in np.unique(band)]
        parts = [(t, c) for t, c in parts if (c >= 0).any()]
    result = np.full(judged.n_classes, np.nan)
    if len(parts) >= 2:
        found = probe_iou([t for t, _ in parts], [c for _, c in parts])
        result[: len(found)] = found
    return result


def bands_of(index: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Divide a picture into bands of whole tokens along one side, by the index of its tokens."""
    return index * min(FOLDS, length) // length
