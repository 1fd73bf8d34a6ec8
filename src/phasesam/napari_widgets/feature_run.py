"""Looks at the layers of two models in a worker."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.images import Normalisation, is_constant
from phasesam.core.similar_region import class_similarity, similarity, unit_tokens
from phasesam.core.token_grid import resampled, token_labels
from phasesam.core.types import PixelSize
from phasesam.engines.layer_sampling import MOST_CLASSES
from phasesam.napari_widgets.planes import ShownPlane, read_plane
from phasesam.napari_widgets.segmenters import LazySegmenter

if TYPE_CHECKING:
    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.engines.feature_config import FeatureConfig
    from phasesam.engines.features import LayerComparison, LayerView
    from phasesam.engines.segmenter import Segmenter

_UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class PictureSource:
    """A picture to look at, as plain values.

    Attributes
    ----------
    data : (..., h, w) or (..., h, w, 3 or 4) array
        Possibly lazy.
    plane : ShownPlane
        Which plane.
    normalisation, exclude_data_bar, pixel_size
        As for `phasesam.Segmenter`.
    labels : (h, w) integer array or None
        Values of a Labels layer: 0 is unknown.
    """

    data: Any
    plane: ShownPlane
    normalisation: Normalisation
    exclude_data_bar: bool
    pixel_size: PixelSize
    labels: NDArray[Any] | None = None

    @property
    def has_contrast(self) -> bool:
        """Whether there is anything to see; for workers."""
        return not is_constant(read_plane(self.data, self.plane))

    def segmenter(self, model: str, adapter: str | None) -> Segmenter:
        """Make it ready for a model; for workers."""
        return LazySegmenter(
            self.data,
            self.plane,
            model=model,
            normalisation=self.normalisation,
            exclude_data_bar=self.exclude_data_bar,
            pixel_size=self.pixel_size,
            adapter=adapter,
        ).get()


@dataclass(frozen=True, eq=False)
class FeatureRun:
    """What to look at, as plain values.

    Attributes
    ----------
    sources : tuple of PictureSource
        One of each image that is shown, then more planes that directions are made from.
    n_shown : int
        How many are shown.
    model : str
        Name of the model.
    adapters : tuple of str or None
        Of model A and, if there is one, of model B; None for the model alone.
    config : FeatureConfig
        Layers and colours.
    classes : dict of int to str
        Name of each value of the labels.
    """

    sources: tuple[PictureSource, ...]
    n_shown: int
    model: str
    adapters: tuple[str | None, ...]
    config: FeatureConfig
    classes: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SeenLayers:
    """What came of it for one of the images.

    Attributes
    ----------
    run : FeatureRun
        What was asked.
    found : LayerComparison
        Colours, figures, and features of all of them.
    index : int
        Which of the images.
    rgb : (h, w, 3) uint8 array
        The picture, without data bar.
    labels : (h, w) int32 array or None
        Index of the class of each pixel of it; -1 where unknown.
    classes : tuple of str
        Their names.
    """

    run: FeatureRun
    found: LayerComparison
    index: int
    rgb: NDArray[np.uint8]
    labels: NDArray[np.int32] | None
    classes: tuple[str, ...]
    _units: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)
    _grids: dict[tuple[int, ...], NDArray[np.int32]] = field(default_factory=dict)

    @property
    def plane(self) -> ShownPlane:
        """The plane that was looked at."""
        return self.run.sources[self.index].plane

    @property
    def layers(self) -> tuple[LayerView, ...]:
        """The layers, in the order of computing."""
        return self.found.layers

    @property
    def n_models(self) -> int:
        """One or two."""
        return len(self.run.adapters)

    def side(self, layer: int) -> float:
        """Side of a token of a layer in pixels."""
        return self.found.tokens[0][self.index].sides[self.layers[layer].name]

    def token_at(self, layer: int, point: NDArray[np.float64]) -> tuple[int, int] | None:
        """Row and column of the token at ``(y, x)``; None outside the picture."""
        if not ((point >= -0.5) & (point < np.array(self.rgb.shape[:2]) - 0.5)).all():
            return None
        row, column = ((point + 0.5) / self.side(layer)).astype(int)
        return int(row), int(column)

    def similarity(self, layer: int, model: int, token: tuple[int, int]) -> NDArray[np.float32]:
        """Cosine similarity of the tokens of a layer to one of them, (h, w)."""
        return similarity(self._unit_tokens(layer, model), token)

    def class_similarity(self, layer: int, model: int, index: int) -> NDArray[np.float32]:
        """Cosine similarity of the tokens of a layer to the mean of a class, (h, w).

        Raises
        ------
        InvalidMaskError
            If the class is most of no token.
        """
        units = self._unit_tokens(layer, model)
        return class_similarity(units, self._token_classes(layer) == index)

    def sort_tokens(self) -> None:
        """Find the classes of the tokens of all layers, which takes long of large images."""
        for layer in range(len(self.layers) if self.labels is not None else 0):
            self._token_classes(layer)

    def _token_classes(self, layer: int) -> NDArray[np.int32]:
        if self.labels is None:
            raise InvalidMaskError("there are no labels")
        height, width = self.found.tokens[0][self.index].maps[self.layers[layer].name].shape[:2]
        if (height, width) not in self._grids:
            grid = token_labels(self.labels, (height, width), self.side(layer))
            self._grids[height, width] = grid
        return self._grids[height, width]

    def _unit_tokens(self, layer: int, model: int) -> NDArray[np.float32]:
        key = layer, model
        if key not in self._units:
            # One layer at a time is looked at: others need not stay.
            self._units.clear()
            tokens = self.found.tokens[model][self.index]
            self._units[key] = unit_tokens(tokens.maps[self.layers[layer].name])
        return self._units[key]

    def stack(self, model: int) -> NDArray[np.uint8]:
        """All layers as one model sees them, (n, h, w, 3), at the finest resolution of them."""
        pictures = [view.pictures[model][self.index] for view in self.layers]
        sides = [self.side(index) for index in range(len(pictures))]
        finest = min(range(len(sides)), key=lambda index: sides[index])
        size = pictures[finest].shape[:2]
        return np.stack(
            [
                resampled(picture, size, sides[finest] / side)
                for picture, side in zip(pictures, sides, strict=True)
            ]
        )

    @property
    def finest_side(self) -> float:
        """Side of a pixel of `stack` in pixels of the picture."""
        return min(self.side(index) for index in range(len(self.layers)))


def feature_job(run: FeatureRun) -> Callable[..., tuple[SeenLayers, ...]]:
    """Make the job for a worker: ``job(progress, should_stop)``, of each image that is shown."""

    def job(progress: ProgressCallback, should_stop: StopCallback) -> tuple[SeenLayers, ...]:
        from phasesam.engines.features import compare_layers

        # Images that are shown are to tell if they have nothing to see.
        sources = [
            source
            for index, source in enumerate(run.sources)
            if index < run.n_shown or source.has_contrast
        ]
        pictures = [source.segmenter(run.model, run.adapters[0]) for source in sources]
        others = [each.with_adapter(a) for a in run.adapters[1:] for each in pictures]
        labels, names = _classes([source.labels for source in sources], run.classes)
        found = compare_layers(
            pictures, others, labels, run.config, progress=progress, should_stop=should_stop
        )
        seen = []
        for index in range(run.n_shown):
            rgb, truth = pictures[index].rgb, labels[index]
            shown = None if truth is None else truth[: len(rgb)]
            seen.append(SeenLayers(run, found, index, rgb, shown, names))
            seen[-1].sort_tokens()
        return tuple(seen)

    return job


def spread_planes(shape: tuple[int, ...], shown: ShownPlane, n: int) -> tuple[ShownPlane, ...]:
    """Choose planes of a stack (..., h, w) besides the one shown, spread over all.

    Parameters
    ----------
    shape : tuple of int
        Of the stack.
    shown : ShownPlane
        In view.
    n : int
        Planes, with the one shown.
    """
    count = math.prod(shape[:-2])
    own = int(np.ravel_multi_index(shown.index, shape[:-2])) if shown.index else 0
    places = np.round(np.linspace(0, count - 1, min(n, count))).astype(int)
    # The one in view stands for its neighbour among them.
    rest = np.delete(places, np.abs(places - own).argmin())
    indices = np.transpose(np.unravel_index(rest, shape[:-2])).tolist() if len(rest) else []
    return tuple(ShownPlane(tuple(index), shown.shape) for index in indices)


def _classes(
    planes: list[NDArray[Any] | None], names: dict[int, str]
) -> tuple[list[NDArray[np.int32] | None], tuple[str, ...]]:
    """Turn the values of a Labels layer into classes from 0, and name them."""
    given = [values for values in planes if values is not None]
    present = sorted({int(value) for values in given for value in np.unique(values)} - {0})
    if len(present) > MOST_CLASSES:
        raise InvalidSettingError(
            f"expected labels of at most {MOST_CLASSES} phases, got {len(present)} values: are "
            "these objects?"
        )

    def sort(values: NDArray[Any]) -> NDArray[np.int32]:
        labels = np.full(values.shape, _UNKNOWN, np.int32)
        for index, value in enumerate(present):
            labels[values == value] = index
        return labels

    found = [None if values is None else sort(values) for values in planes]
    return found, tuple(names.get(value, f"class {value}") for value in present)
