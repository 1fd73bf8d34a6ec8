"""Looks at the layers of two models in a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.images import Normalisation
from phasesam.core.similar_region import similarity, unit_tokens
from phasesam.core.token_grid import resampled
from phasesam.core.types import PixelSize
from phasesam.engines.layer_sampling import MOST_CLASSES
from phasesam.napari_widgets.planes import ShownPlane
from phasesam.napari_widgets.segmenters import LazySegmenter

if TYPE_CHECKING:
    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.engines.features import FeatureConfig, LayerComparison, LayerView

_UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class FeatureRun:
    """What to look at, as plain values.

    Attributes
    ----------
    data : (..., h, w) or (..., h, w, 3 or 4) array
        Possibly lazy.
    plane : ShownPlane
        Which plane.
    model : str
        Name of the model.
    adapters : tuple of str or None
        Of model A and, if there is one, of model B; None for the model alone.
    normalisation, exclude_data_bar, pixel_size
        As for `phasesam.Segmenter`.
    config : FeatureConfig
        Layers and colours.
    labels : (h, w) integer array or None
        Values of a Labels layer: 0 is unknown.
    classes : dict of int to str
        Name of each value.
    """

    data: Any
    plane: ShownPlane
    model: str
    adapters: tuple[str | None, ...]
    normalisation: Normalisation
    exclude_data_bar: bool
    pixel_size: PixelSize
    config: FeatureConfig
    labels: NDArray[Any] | None = None
    classes: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SeenLayers:
    """What came of it.

    Attributes
    ----------
    run : FeatureRun
        What was asked.
    found : LayerComparison
        Colours, figures, and features.
    rgb : (h, w, 3) uint8 array
        The picture, without data bar.
    labels : (h, w) int32 array or None
        Index of the class of each pixel of it; -1 where unknown.
    classes : tuple of str
        Their names.
    """

    run: FeatureRun
    found: LayerComparison
    rgb: NDArray[np.uint8]
    labels: NDArray[np.int32] | None
    classes: tuple[str, ...]
    _units: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)

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
        return self.found.tokens[0][0].sides[self.layers[layer].name]

    def token_at(self, layer: int, point: NDArray[np.float64]) -> tuple[int, int] | None:
        """Row and column of the token at ``(y, x)``; None outside the picture."""
        if not ((point >= -0.5) & (point < np.array(self.rgb.shape[:2]) - 0.5)).all():
            return None
        row, column = ((point + 0.5) / self.side(layer)).astype(int)
        return int(row), int(column)

    def similarity(self, layer: int, model: int, token: tuple[int, int]) -> NDArray[np.float32]:
        """Cosine similarity of the tokens of a layer to one of them, (h, w)."""
        key = layer, model
        if key not in self._units:
            # One layer at a time is looked at: others need not stay.
            self._units.clear()
            tokens = self.found.tokens[model][0]
            self._units[key] = unit_tokens(tokens.maps[self.layers[layer].name])
        return similarity(self._units[key], token)

    def stack(self, model: int) -> NDArray[np.uint8]:
        """All layers as one model sees them, (n, h, w, 3), at the finest resolution of them."""
        pictures = [view.pictures[model][0] for view in self.layers]
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


def feature_job(run: FeatureRun) -> Callable[..., SeenLayers]:
    """Make the job for a worker: ``job(progress, should_stop)``."""

    def job(progress: ProgressCallback, should_stop: StopCallback) -> SeenLayers:
        from phasesam.engines.features import compare_layers

        segmenter = LazySegmenter(
            run.data,
            run.plane,
            model=run.model,
            normalisation=run.normalisation,
            exclude_data_bar=run.exclude_data_bar,
            pixel_size=run.pixel_size,
            adapter=run.adapters[0],
        ).get()
        others = [segmenter.with_adapter(adapter) for adapter in run.adapters[1:]]
        labels, names = (None, ()) if run.labels is None else _classes(run.labels, run.classes)
        found = compare_layers(
            [segmenter], others, [labels], run.config, progress=progress, should_stop=should_stop
        )
        shown = None if labels is None else labels[: len(segmenter.rgb)]
        return SeenLayers(run, found, segmenter.rgb, shown, names)

    return job


def _classes(
    values: NDArray[Any], names: dict[int, str]
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Turn the values of a Labels layer into classes from 0, and name them."""
    present = [int(value) for value in np.unique(values) if value != 0]
    if len(present) > MOST_CLASSES:
        raise InvalidSettingError(
            f"expected labels of at most {MOST_CLASSES} phases, got {len(present)} values: are "
            "these objects?"
        )
    labels = np.full(values.shape, _UNKNOWN, np.int32)
    for index, value in enumerate(present):
        labels[values == value] = index
    return labels, tuple(names.get(value, f"class {value}") for value in present)
