"""Takes tokens of layers at the same places of all of them, for bases and for figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.layer_basis import deviations
from phasesam.core.token_grid import NO_LABEL, spread_points, token_labels, tokens_at
from phasesam.engines.layer_figures import Judged, Sample, bands_of

if TYPE_CHECKING:
    from phasesam.engines.layer_tokens import LayerTokens

MOST_CLASSES = 50

_MOST_POINTS = 50_000
_FEWEST_POINTS = 16


class Sampler:
    """Takes tokens layer by layer, so that few layers at a time are held in full precision.

    Parameters
    ----------
    tokens : tuple of tuple of LayerTokens
        By model and picture.
    labels : sequence of (h, w) integer array or None
        Class of each pixel, from 0, negative where unknown; fewer than pictures or none.
    points : int
        Tokens of each picture and model; fewer of many pictures.

    Attributes
    ----------
    known_classes : int
        Classes that some token has.

    Raises
    ------
    InvalidSettingError
        If there are too many classes for phases.
    """

    def __init__(
        self,
        tokens: tuple[tuple[LayerTokens, ...], ...],
        labels: Sequence[NDArray[np.integer] | None],
        points: int,
    ) -> None:
        self._tokens = tokens
        shown = tokens[0]
        most = _MOST_POINTS // (len(shown) * len(tokens))
        self._points = spread_points(max(_FEWEST_POINTS, min(points, most)))
        # What is judged is judged where all layers have tokens.
        sides = shown[0].sides
        self._coarsest = max(shown[0].names, key=lambda name: sides[name])
        given = [*labels, *[None] * (len(shown) - len(labels))]
        self.n_classes = max(
            (int(t.max(initial=-1)) + 1 for t in given if t is not None), default=0
        )
        if self.n_classes > MOST_CLASSES:
            raise InvalidSettingError(
                f"expected labels of at most {MOST_CLASSES} classes, got {self.n_classes}: are "
                "these objects instead of phases?"
            )
        self._grids = [self._classes(each, t) for each, t in zip(shown, given, strict=True)]
        found = [np.unique(grid[grid >= 0]) for grid in self._grids]
        self.known_classes = len(np.unique(np.concatenate(found)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return self._tokens[0][0].names

    def _classes(
        self, picture: LayerTokens, truth: NDArray[np.integer] | None
    ) -> NDArray[np.int32]:
        shape = picture.maps[self._coarsest].shape[:2]
        if truth is None:
            return np.full(shape, NO_LABEL, np.int32)
        side = picture.sides[self._coarsest]
        return token_labels(truth[: picture.shape[0]], (shape[0], shape[1]), side)

    @property
    def nbytes(self) -> int:
        """Bytes of the largest sample of a layer."""
        widest = max(self._tokens[0][0].maps[name].shape[-1] for name in self.names)
        count = len(self._points) * len(self._tokens[0]) * len(self._tokens)
        return 4 * count * widest

    def sample(self, name: str) -> Sample:
        """Take tokens of a layer."""
        places = [tokens_at(self._points, each.seen(name)) for each in self._tokens[0]]
        taken = tuple(
            tuple(
                each.maps[name][place].astype(np.float32)
                for each, place in zip(model, places, strict=True)
            )
            for model in self._tokens
        )
        return Sample(
            name, (self._points,) * len(places), taken, deviations(np.concatenate(taken[0]))
        )

    @property
    def classes(self) -> NDArray[np.int32]:
        """Class of each token of a sample, all models and pictures together."""
        each = [
            grid[tokens_at(self._points, picture.seen(self._coarsest))]
            for picture, grid in zip(self._tokens[0], self._grids, strict=True)
        ]
        return np.concatenate(each * len(self._tokens))

    def judged(self, name: str) -> Judged | None:
        """Take tokens of a layer with classes; None if no two classes are known."""
        if self.known_classes < 2:
            return None
        places, classes, bands = [], [], []
        for each, grid in zip(self._tokens[0], self._grids, strict=True):
            seen = each.seen(self._coarsest)
            flat = np.unique(np.ravel_multi_index(tokens_at(self._points, seen), seen))
            rows, columns = np.unravel_index(flat, seen)
            places.append((rows, columns))
            classes.append(grid[rows, columns])
            along = int(seen[1] >= seen[0])
            bands.append(bands_of((rows, columns)[along], seen[along]))
        tokens = tuple(
            tuple(
                self._pooled(each, name, place) for each, place in zip(model, places, strict=True)
            )
            for model in self._tokens
        )
        return Judged(tokens, tuple(classes), tuple(bands), self.n_classes)

    def _pooled(
        self, picture: LayerTokens, name: str, place: tuple[NDArray[np.intp], NDArray[np.intp]]
    ) -> NDArray[np.float32]:
        """Mean of the tokens of a layer within each of some coarsest tokens, (m, c)."""
        tokens = picture.maps[name]
        factor = max(1, round(picture.sides[self._coarsest] / picture.sides[name]))
        total = np.zeros((len(place[0]), tokens.shape[2]), np.float32)
        for down in range(factor):
            rows = np.minimum(place[0] * factor + down, tokens.shape[0] - 1)
            for right in range(factor):
                columns = np.minimum(place[1] * factor + right, tokens.shape[1] - 1)
                total += tokens[rows, columns]
        return total / np.float32(factor * factor)
