"""One image as a model sees it: which part, normalised how, encoded when.

Importing this module does not load torch; the first call that computes does.
"""

from __future__ import annotations

import sys
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.boxes import Box
from phasesam.core.data_bar import detect_data_bar
from phasesam.core.images import Normalisation, check_image, to_rgb8
from phasesam.core.types import PixelSize, ProgressCallback, StopCallback
from phasesam.core.windows import Windows

if TYPE_CHECKING:
    from phasesam.engines.embedding_cache import Embedding
    from phasesam.models.adapter_card import AdapterCard
    from phasesam.models.adapter_loading import Adapter, AdapterVersion
    from phasesam.models.manager import ModelManager


class EncodedImage:
    """An image, a model with or without an adapter, and the embeddings of both.

    Parameters and attributes are those of `phasesam.Segmenter`.
    """

    def __init__(
        self,
        image: ArrayLike,
        model: str = "mobile_sam",
        *,
        normalisation: Normalisation | None = None,
        pixel_size: PixelSize | None = None,
        exclude_data_bar: bool = True,
        adapter: Adapter = None,
        manager: ModelManager | None = None,
    ) -> None:
        self.image = check_image(image)
        self.model = model
        self.normalisation = normalisation or Normalisation()
        self.pixel_size = pixel_size or PixelSize()
        self.exclude_data_bar = exclude_data_bar
        self.adapter = adapter
        self.window: int | None = None
        self._manager = manager

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image in pixels, data bar included."""
        return self.image.shape[0], self.image.shape[1]

    @cached_property
    def data_bar(self) -> int | None:
        """First row of the SEM's data bar; None when there is none or it is not left out."""
        return detect_data_bar(self.image) if self.exclude_data_bar else None

    @cached_property
    def rgb(self) -> NDArray[np.uint8]:
        """What the model looks at: (h, w, 3) uint8, without the data bar."""
        return to_rgb8(self.image[: self.data_bar], self.normalisation)

    def with_adapter(self, adapter: Adapter) -> Self:
        """Return a segmenter of the same picture with another adapter; nothing is read again."""
        other = copy(self)
        other.adapter = adapter
        return other

    @property
    def manager(self) -> ModelManager:
        """The model manager that lends the model."""
        if self._manager is None:
            from phasesam.models.manager import get_manager

            self._manager = get_manager()
        return self._manager

    @property
    def windows(self) -> Windows | None:
        """Parts of the image that the model looks at for objects; None for the whole image."""
        side = self.window
        if side is None:
            card = self._card
            side = None if card is None else card.window
        shape = self.rgb.shape[0], self.rgb.shape[1]
        return Windows(shape, side) if side and side < max(shape) else None

    @property
    def _card(self) -> AdapterCard | None:
        from phasesam.models.adapter_loading import prompt_card

        if self.adapter is None:
            return None
        return prompt_card(self.manager.adapter_version(self.model, self.adapter))

    @property
    def prompted(self) -> AdapterVersion | str | None:
        """The adapter that answers prompts: pinned, and None for one that only maps phases."""
        from phasesam.models.adapter_loading import prompt_version

        return prompt_version(self.manager.adapter_version(self.model, self.adapter))

    @property
    def is_encoded(self) -> bool:
        """Whether the embedding is at hand, so that a prompt is answered at once."""
        return self._is_seen(self.rgb)

    def is_seen_at(self, y: float, x: float) -> bool:
        """Whether a click there is answered at once, as far as can be known before."""
        windows = self.windows
        if windows is None:
            return self.is_encoded
        y0, x0, y1, x1 = windows.around((y, x, y, x), windows.side)
        return self._is_seen(np.ascontiguousarray(self.rgb[y0:y1, x0:x1]))

    def _is_seen(self, rgb: NDArray[np.uint8]) -> bool:
        if "torch" not in sys.modules:
            # Nothing has been encoded; do not load torch to find out.
            return False
        from phasesam.engines.embedding import is_embedded

        return is_embedded(rgb, self.model, self.prompted, self.manager)

    def prepare(
        self,
        *,
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> None:
        """Make ready for prompts; as `encode`, but only load the model where there are windows."""
        if self.windows is None:
            self.encode(progress=progress, should_stop=should_stop)
            return
        adapter = self.prompted
        with self.manager.lease(self.model, adapter, progress=progress, should_stop=should_stop):
            pass

    def encode(
        self,
        *,
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> Embedding:
        """Encode the image for prompts, or look its embedding up.

        Parameters
        ----------
        progress : callable, optional
            ``progress(done, total)`` in bytes while weights are downloaded.
        should_stop : callable, optional
            Asked before each step.

        Raises
        ------
        CancelledError
            If the user asked to stop.
        ModelError
            If the model cannot be had or does not fit into memory.
        """
        return self._encode(self.prompted, progress, should_stop)

    def look(self, view: Box, *, should_stop: StopCallback | None = None) -> Embedding:
        """Encode a part of the image, or look its embedding up.

        Parameters
        ----------
        view : (y0, x0, y1, x1)
            In pixels, half open, such as one of `windows`.
        should_stop : callable, optional
            Asked before each step.
        """
        return self._encode(self.prompted, should_stop=should_stop, view=view)

    def look_at(
        self, box: Box, *, should_stop: StopCallback | None = None
    ) -> tuple[Embedding, Box]:
        """Encode the part of the image through which an object is seen best.

        Parameters
        ----------
        box : (y0, x0, y1, x1)
            Around the object, in pixels, half open.
        should_stop : callable, optional
            As for `look`.

        Returns
        -------
        Embedding, (y0, x0, y1, x1)
            And which part that is: the whole image unless the adapter was trained on windows.
        """
        windows = self.windows
        view = (0, 0, *self.rgb.shape[:2]) if windows is None else windows.fitting(box)
        return self.look(view, should_stop=should_stop), view

    def _encode(
        self,
        adapter: Adapter,
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
        view: Box | None = None,
    ) -> Embedding:
        from phasesam.engines.embedding import embed

        rgb = self.rgb
        if view is not None:
            y0, x0, y1, x1 = view
            rgb = np.ascontiguousarray(rgb[y0:y1, x0:x1])
        return embed(
            rgb,
            model=self.model,
            adapter=adapter,
            manager=self.manager,
            progress=progress,
            should_stop=should_stop,
        )
