"""Which view of which image is seen when: the same in every run, however often interrupted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from phasesam.core.coordinates import MODEL_SIDE
from phasesam.core.images import stretched
from phasesam.core.levels import Levels, intensity_levels
from phasesam.models.free_memory import free_memory, has_room
from phasesam.training.views import View, ViewConfig, make_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phasesam.training.dataset import LabelledImage

_VIEW, _ORDER, _PROMPTS, _PIECE = 1, 2, 3, 4
_IMAGES_IN_MEMORY = 64
_SHARE_OF_FREE_MEMORY = 0.2
_PIECES_IN_A_ROW = 8

_Arrays = tuple[np.ndarray, np.ndarray, Levels]


@dataclass(frozen=True)
class Sample:
    """One view at one moment of a training.

    Attributes
    ----------
    view : int
        Number of the view; equal numbers are equal views.
    image : int
        Index of the image it shows.
    moment : int
        How many samples came before it; chance in prompts depends on it.
    """

    view: int
    image: int
    moment: int


class ViewPlan:
    """Draws views of the training images, in an order that depends on the seed alone.

    Parameters
    ----------
    images : sequence of LabelledImage
        Training images.
    config : ViewConfig
        What views show.
    pool : int or None
        Number of different views; None for ever new ones.
    seed : int
        Of all chance.
    stretch : bool
        Whether the intensities of each image are spread over the whole range.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        config: ViewConfig,
        pool: int | None,
        seed: int,
        *,
        stretch: bool = False,
    ) -> None:
        self._images = images
        self._config = config
        self._pool = None if pool is None else max(pool, len(images))
        self._seed = seed
        self._stretch = stretch
        self._room = int(_SHARE_OF_FREE_MEMORY * free_memory())
        self._kept: dict[int, _Arrays] = {}
        self._last: tuple[int, _Arrays] | None = None

    def samples(self, epoch: int, count: int) -> list[Sample]:
        """List the samples of an epoch; all views of the pool come up equally often."""
        found = []
        for moment in range(epoch * count, (epoch + 1) * count):
            view = moment
            if self._pool is not None:
                cycle, place = divmod(moment, self._pool)
                view = int(_shuffled(self._seed, cycle, self._pool)[place])
            found.append(Sample(view, view % len(self._images), moment))
        return found

    def view(self, sample: Sample) -> View:
        """Draw the view of a sample."""
        rgb, labels, _ = self._arrays(sample.image)
        rng = np.random.default_rng([self._seed, _VIEW, sample.view])
        return make_view(rgb, labels, self._config, rng)

    def piece(self, number: int, side: int) -> View:
        """Draw a small piece at the magnification of the views.

        Parameters
        ----------
        number : int
            Equal numbers are equal pieces; see `image_of_piece`.
        side : int
            Side in pixels of the piece, where a whole view has 1024.
        """
        rgb, labels, _ = self._arrays(self.image_of_piece(number))
        longest = max(labels.shape)
        # A window is never larger than the image.
        window = min(self._config.window or longest, longest)
        config = replace(self._config, window=max(1, round(window * side / MODEL_SIDE)))
        rng = np.random.default_rng([self._seed, _PIECE, number])
        return make_view(rgb, labels, config, rng, side=side)

    def image_of_piece(self, number: int) -> int:
        """Index of the image that a piece shows.

        They come in turn; of many images, which are hardly all kept in memory, several pieces in
        a row.
        """
        if len(self._images) > _IMAGES_IN_MEMORY:
            number //= _PIECES_IN_A_ROW
        return number % len(self._images)

    def levels(self, image: int) -> Levels:
        """Brightness of an image, as its views show it before they are augmented."""
        return self._arrays(image)[2]

    def chance(self, sample: Sample) -> np.random.Generator:
        """Source of chance for the prompts of a sample."""
        return np.random.default_rng([self._seed, _PROMPTS, sample.moment])

    def _arrays(self, index: int) -> _Arrays:
        """Read an image, unless it is in memory.

        What has come in stays: images come in turn, so that the oldest is the next to be needed.
        """
        if index in self._kept:
            return self._kept[index]
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        arrays = self._read(index)
        needed = arrays[0].nbytes + arrays[1].nbytes
        if len(self._kept) < _IMAGES_IN_MEMORY and needed <= self._room and has_room(needed):
            self._room -= needed
            self._kept[index] = arrays
        else:
            self._last = index, arrays
        return arrays

    def _read(self, index: int) -> _Arrays:
        image = self._images[index]
        rgb = stretched(image.rgb()) if self._stretch else image.rgb()
        return rgb, image.label_array(), intensity_levels(rgb)


@lru_cache(4)
def _shuffled(seed: int, cycle: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, cycle]).permutation(size)
