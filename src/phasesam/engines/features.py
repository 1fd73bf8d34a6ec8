"""Compare what the layers of two models make of pictures, in colours and in figures.

After what Swain et al. showed of SAM fine-tuned on steel: base features show no effect of the
phases through the layers, adapted ones separate them little by little. Here both are seen in one
basis, and the same is said in numbers.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import CancelledError, InvalidSettingError
from phasesam.core.layer_basis import (
    CANDIDATES,
    DIMENSIONS,
    Basis,
    class_basis,
    continuous,
    principal_basis,
)
from phasesam.core.layer_colours import ColourSpace, Limits, colours
from phasesam.core.layer_groups import followed_groups
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.engines.blas_threads import one_blas_thread
from phasesam.engines.feature_config import FeatureConfig
from phasesam.engines.layer_drawing import Groups, Masks, drawn, foreground
from phasesam.engines.layer_figures import Judged, LayerFigures, Sample, figures_of
from phasesam.engines.layer_sampling import Sampler
from phasesam.engines.layer_tokens import LayerTokens, TokenShelf, read_layers

if TYPE_CHECKING:
    from phasesam.engines.encoded_image import EncodedImage

_MOST_WORKERS = 4
# Bytes for all layers that are studied at once, and copies of its tokens that each takes.
_WORKING_MEMORY, _COPIES = 400 << 20, 7


@dataclass(frozen=True, eq=False)
class LayerView:
    """A layer as the models see it.

    Attributes
    ----------
    name : str
        Of the layer.
    pictures : tuple of tuple of (h, w, 3) uint8 array
        Colours of the tokens, by model and picture.
    basis : Basis
        What they were made with.
    limits : Limits
        Scores of the darkest and the brightest colours.
    figures : LayerFigures
        The same in numbers.
    """

    name: str
    pictures: tuple[tuple[NDArray[np.uint8], ...], ...]
    basis: Basis
    limits: Limits
    figures: LayerFigures


@dataclass(frozen=True, eq=False)
class LayerComparison:
    """Layers of one or two models on one or several pictures.

    Attributes
    ----------
    layers : tuple of LayerView
        In the order of computing.
    tokens : tuple of tuple of LayerTokens
        Features, by model and picture.
    shelf : TokenShelf
        Where features are that found no room in memory; its files go with it.
    """

    layers: tuple[LayerView, ...]
    tokens: tuple[tuple[LayerTokens, ...], ...]
    shelf: TokenShelf

    @property
    def is_same(self) -> bool:
        """Whether both models have the very same features: adapters that leave the encoder."""
        return len(self.tokens) > 1 and self.tokens[0] is self.tokens[1]


def compare_layers(
    pictures: Sequence[EncodedImage],
    against: Sequence[EncodedImage] = (),
    labels: Sequence[NDArray[np.integer] | None] = (),
    config: FeatureConfig | None = None,
    *,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> LayerComparison:
    """Look at layers of a model, or of two models beside each other.

    Parameters
    ----------
    pictures : sequence of EncodedImage
        Such as `phasesam.Segmenter`, all of the same model and adapter: usually the base.
    against : sequence of EncodedImage, optional
        The same pictures with another adapter.
    labels : sequence of (h, w) integer array or None, optional
        Class of each pixel of the pictures, from 0; negative where unknown.
    config : FeatureConfig, optional
        All layers in principal components by default.
    progress : callable, optional
        ``progress(done, total)`` in layers.
    should_stop : callable, optional
        Asked after every layer.

    Returns
    -------
    LayerComparison

    Raises
    ------
    InvalidSettingError
        If a layer is unknown, labels have another size, or models have other layers.
    InvalidImageError
        If a picture is constant.
    CancelledError
        If the user asked to stop.
    """
    config = config or FeatureConfig()
    _check(pictures, against, labels)
    models = [list(pictures)]
    if against and _encoder(against[0]) != _encoder(pictures[0]):
        models.append(list(against))
    shelf, read = TokenShelf(), []
    count = sum(len(each) for each in models)
    for number, picture in enumerate(p for each in models for p in each):

        def tell(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, count * total)

        read.append(
            read_layers(picture, config.layers, shelf=shelf, progress=tell, should_stop=should_stop)
        )
    n = len(pictures)
    tokens = tuple(tuple(read[start : start + n]) for start in range(0, count, n))
    if against and len(models) == 1:
        tokens = tokens * 2
    return LayerComparison(look(tokens, labels, config, should_stop), tokens, shelf)


def look(
    tokens: tuple[tuple[LayerTokens, ...], ...],
    labels: Sequence[NDArray[np.integer] | None] = (),
    config: FeatureConfig | None = None,
    should_stop: StopCallback | None = None,
) -> tuple[LayerView, ...]:
    """Colour and measure features that have been read.

    Parameters
    ----------
    tokens : tuple of tuple of LayerTokens
        By model and picture.
    labels, config, should_stop
        As for `compare_layers`.

    Raises
    ------
    InvalidSettingError
        If the models do not have the same layers, classes are wanted without labels, or there
        are too many of them.
    CancelledError
        If the user asked to stop.
    """
    config = config or FeatureConfig()
    layers = [
        {name: each.maps[name].shape for name in each.names} for model in tokens for each in model
    ]
    if any([*one] != [*layers[0]] or _channels(one) != _channels(layers[0]) for one in layers):
        raise InvalidSettingError(
            "layers can be compared between adapters of one model; these models have other layers"
        )
    # Products this small are slower on several threads, most of all beside other work.
    with one_blas_thread():
        return _looked(tokens, Sampler(tokens, labels, config.points), config, should_stop)


def _looked(
    tokens: tuple[tuple[LayerTokens, ...], ...],
    sampler: Sampler,
    config: FeatureConfig,
    should_stop: StopCallback | None,
) -> tuple[LayerView, ...]:
    last = sampler.names[-1]
    masks = foreground(tokens, sampler.sample(last)) if config.foreground_first else None

    def study(name: str) -> _Studied:
        _go_on(should_stop)
        return _study(sampler, name, config, masks)

    def draw(
        studied: _Studied,
        directions: NDArray[np.float64] | None,
        numbers: NDArray[np.intp] | None,
    ) -> LayerView:
        _go_on(should_stop)
        name, basis, scores = studied.name, studied.basis, studied.scores
        if directions is not None:
            basis, scores = basis.turned(directions), scores @ directions.astype(np.float32)
        limits = Limits.of(scores)
        if studied.groups is not None and numbers is not None:
            paint = studied.groups.paint(numbers)
        else:
            paint = partial(_coloured, basis, limits, config.space)
        figures = replace(studied.figures, explained=float(basis.explained.sum()))
        pictures = tuple(drawn(model, name, paint, masks) for model in tokens)
        return LayerView(name, pictures, basis, limits, figures)

    # Layers side by side, for the products within one are too small for several threads.
    with ThreadPoolExecutor(_n_workers(sampler)) as workers:
        all_studied = list(workers.map(study, sampler.names))
        # Fewer tokens than have classes are left of a foreground.
        classes = sampler.classes if masks is None else None
        chosen, numbers = _followed(all_studied, config, classes)
        return tuple(workers.map(draw, all_studied, chosen, numbers))


def _n_workers(sampler: Sampler) -> int:
    """As many layers at once as there are cores and as find room."""
    fitting = _WORKING_MEMORY // (_COPIES * sampler.nbytes)
    return max(1, min(_MOST_WORKERS, os.cpu_count() or 1, fitting))


def _coloured(
    basis: Basis, limits: Limits, space: ColourSpace, tokens: NDArray[np.float16]
) -> NDArray[np.uint8]:
    return colours(basis.scores(tokens), limits, space)


def _followed(
    layers: Sequence[_Studied], config: FeatureConfig, classes: NDArray[np.int32] | None
) -> tuple[Sequence[NDArray[np.float64] | None], Sequence[NDArray[np.intp] | None]]:
    """Settle directions, and numbers of groups, from layer to layer."""
    chosen: Sequence[NDArray[np.float64] | None] = [None] * len(layers)
    numbers: Sequence[NDArray[np.intp] | None] = [None] * len(layers)
    if config.continuous:
        weights = [_weights(studied.basis) for studied in layers]
        chosen = continuous([studied.scores for studied in layers], weights)
    elif config.groups:
        # More directions than are shown tell groups apart.
        widths = [studied.scores.shape[1] for studied in layers]
        chosen = [np.eye(width, min(DIMENSIONS, width)) for width in widths]
    if config.groups:
        sorted_ = [s.groups.sort(s.scores) for s in layers if s.groups is not None]
        numbers = followed_groups(sorted_, config.groups, classes)
    return chosen, numbers


@dataclass(frozen=True, eq=False)
class _Studied:
    """A layer whose directions have been found, but not settled."""

    name: str
    basis: Basis
    scores: NDArray[np.floating]
    figures: LayerFigures
    groups: Groups | None


def _study(sampler: Sampler, name: str, config: FeatureConfig, masks: Masks | None) -> _Studied:
    sample = sampler.sample(name)
    moments, judged = sample.moments, sampler.judged(name)
    # Figures are of all tokens, whatever is coloured.
    figures = figures_of(sample, moments, judged)
    if masks is not None:
        sample = sample.within(masks)
        moments = sample.moments
    if config.basis == "classes":
        basis = _class_basis(sampler, sample, judged)
    else:
        n = CANDIDATES if config.continuous or config.groups else DIMENSIONS
        basis = principal_basis(moments, sample.scale, min(n, len(sample.scale)))
    scores = basis.scores(sample.together)
    groups = Groups.of(basis, scores, _weights(basis), config.groups) if config.groups else None
    return _Studied(name, basis, scores, figures, groups)


def _encoder(picture: EncodedImage) -> tuple[str, Hashable]:
    """Tell encoders apart: adapters that leave it alone share that of their base."""
    from phasesam.models.adapter_loading import AdapterVersion

    version = picture.manager.adapter_version(picture.model, picture.adapter)
    return picture.model, (
        version.embedding_key if isinstance(version, AdapterVersion) else version
    )


def _go_on(should_stop: StopCallback | None) -> None:
    if should_stop is not None and should_stop():
        raise CancelledError("stopped while layers were compared")


def _check(
    pictures: Sequence[EncodedImage],
    against: Sequence[EncodedImage],
    labels: Sequence[NDArray[np.integer] | None],
) -> None:
    if not pictures:
        raise InvalidSettingError("expected at least one picture")
    if against and len(against) != len(pictures):
        raise InvalidSettingError(
            f"expected the same {len(pictures)} pictures of both models, got {len(against)}"
        )
    if labels and len(labels) != len(pictures):
        raise InvalidSettingError(
            f"expected labels, or None, for each of {len(pictures)} pictures, got {len(labels)}"
        )
    for picture, truth in zip(pictures, labels, strict=False):
        if truth is not None and truth.shape != picture.shape:
            raise InvalidSettingError(
                f"expected labels of the shape {picture.shape} of the image, got {truth.shape}"
            )


def _channels(layers: dict[str, tuple[int, ...]]) -> list[int]:
    return [shape[-1] for shape in layers.values()]


def _class_basis(sampler: Sampler, sample: Sample, judged: Judged | None) -> Basis:
    if judged is None:
        raise InvalidSettingError(
            "directions between classes need labels of two classes or more that are most of "
            f"some token, got {sampler.known_classes}"
        )
    together = np.concatenate([each for model in judged.tokens for each in model])
    classes = np.concatenate([*judged.classes] * len(judged.tokens))
    return class_basis(together, classes, sample.scale)


def _weights(basis: Basis) -> NDArray[np.float64]:
    """How much directions count; those between classes alike, and what is left of a constant."""
    shares = basis.explained
    return shares if (shares > 0).all() else np.ones_like(shares)
