"""The public face: one image, its embedding, prompts and automatic masks.

Importing this module does not load torch; the first call that computes does.
"""

from __future__ import annotations

import sys
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.data_bar import detect_data_bar
from phasesam.core.errors import InvalidImageError, InvalidPromptError, InvalidSettingError
from phasesam.core.images import Normalisation, check_image, is_constant, to_rgb8
from phasesam.core.mask_set import MaskSet
from phasesam.core.types import PixelSize, ProgressCallback, Prompts, StopCallback
from phasesam.core.windows import Box, WindowLogits, Windows
from phasesam.engines.automatic_config import AutomaticConfig
from phasesam.engines.candidates import Candidates

if TYPE_CHECKING:
    from phasesam.engines.embedding_cache import Embedding
    from phasesam.models.adapter_card import AdapterCard
    from phasesam.models.adapter_loading import Adapter
    from phasesam.models.manager import ModelManager


class Segmenter:
    """Segment one image with one model.

    The image is encoded on first use, through the shared model manager and the cache of
    embeddings. All coordinates are napari's ``(y, x)`` in pixels of the image.

    Parameters
    ----------
    image : (h, w), (h, w, 3) or (h, w, 4) array-like
        Grey, RGB or RGBA, of any real dtype; NaN and infinity are allowed in places.
    model : str
        Name in the registry of models.
    normalisation : Normalisation, optional
        How intensities become 8 bit; 8-bit images stay as they are by default.
    pixel_size : PixelSize, optional
        For measurements.
    exclude_data_bar : bool
        Leave out the bar with text and scale that SEMs write below the micrograph.
    adapter : str, path or AdapterVersion, optional
        An adapter of the model, by its name in the store of adapters or its path. How much of
        it acts is chosen with ``manager.set_strength``.
    manager : ModelManager, optional
        The process-wide one by default.

    Attributes
    ----------
    window : int or None
        Side in pixels of the part of the image that the model looks at for an object; larger
        parts follow for objects that do not fit. 0 for the whole image; None, in the beginning,
        for what the adapter was trained on.

    Raises
    ------
    InvalidImageError
        If the array is no image.

    Examples
    --------
    >>> from phasesam import Segmenter
    >>> seg = Segmenter(image)                                          # doctest: +SKIP
    >>> seg.predict(points=[(120, 80)], labels=[1]).scores              # doctest: +SKIP
    >>> seg.automatic().filter(pred_iou=0.9).to_labels()                # doctest: +SKIP
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

    def with_adapter(self, adapter: Adapter) -> Segmenter:
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
        card = self._card
        side = self.window
        if side is None:
            side = None if card is None else card.window
        shape = self.rgb.shape[0], self.rgb.shape[1]
        return Windows(shape, side) if side and side < max(shape) else None

    @property
    def _card(self) -> AdapterCard | None:
        from phasesam.models.adapter_loading import prompt_card

        return prompt_card(self.adapter)

    @property
    def is_encoded(self) -> bool:
        """Whether the embedding is at hand, so that a prompt is answered at once."""
        if "torch" not in sys.modules:
            # Nothing has been encoded; do not load torch to find out.
            return False
        from phasesam.engines.embedding import is_embedded

        return is_embedded(self.rgb, self.model, self.adapter, self.manager)

    def encode(
        self,
        *,
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> Embedding:
        """Encode the image, or look its embedding up.

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
        return self._encode(self.adapter, progress, should_stop)

    def look(self, view: Box, *, should_stop: StopCallback | None = None) -> Embedding:
        """Encode a part of the image, or look its embedding up.

        Parameters
        ----------
        view : (y0, x0, y1, x1)
            In pixels, half open, such as one of `windows`.
        should_stop : callable, optional
            Asked before each step.
        """
        adapter = self.manager.adapter_version(self.model, self.adapter)
        return self._encode(adapter, should_stop=should_stop, view=view)

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

    def predict(
        self,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        *,
        logits: NDArray[np.float32] | WindowLogits | None = None,
        multimask_output: bool = True,
        threshold: float = 0.0,
    ) -> MaskSet:
        """Segment what points, boxes or a mask point at.

        Parameters
        ----------
        points : (n, 2) array-like, optional
            Positions ``(y, x)`` of one object.
        labels : (n,) array-like, optional
            1 inside, 0 outside; all inside when left out.
        boxes : (m, 4) array-like, optional
            ``(y0, x0, y1, x1)``. Several boxes without points mean several objects.
        mask : (h, w) array-like, optional
            A mask to start from, non-zero inside.
        logits : WindowLogits or (256, 256) array, optional
            Of an earlier answer that is to be refined: ``MaskSet.to_refine(i)``; or a plane of
            ``MaskSet.logits`` where the whole image was looked at.
        multimask_output : bool
            Three scales (part, object, group, in this order) instead of one mask. For one
            object only; several boxes give the best mask of each.
        threshold : float
            Logit above which a pixel belongs to the object.

        Returns
        -------
        MaskSet
            ``.masks`` (n, h, w) bool, ``.scores`` (n,), ``.logits`` (n, 256, 256).

        Raises
        ------
        InvalidPromptError
            If prompts are missing, inconsistent or outside the image.
        """
        from phasesam.engines.prompting import check_prompts, predict
        from phasesam.engines.window_prompting import predict_in_windows

        prompts = self._checked(Prompts.build(points, labels, boxes, mask))
        whole = (0, 0, *self.rgb.shape[:2])
        earlier = WindowLogits.of(logits, whole)
        check_prompts(prompts, None if earlier is None else earlier.logits)
        adapter = self.manager.adapter_version(self.model, self.adapter)

        def ask(seen: Box | None, asked: Prompts, earlier: NDArray[np.float32] | None) -> MaskSet:
            embedding = self._encode(adapter, view=seen)
            with self.manager.lease(self.model, adapter) as model:
                return predict(
                    model,
                    self.manager,
                    embedding,
                    asked,
                    logits=earlier,
                    multimask_output=multimask_output,
                    threshold=threshold,
                )

        windows = self.windows
        if windows is None:
            answer = ask(None, prompts, None if earlier is None else earlier.moved(whole))
        else:
            answer = predict_in_windows(windows, prompts, earlier, ask)
        return replace(answer, shape=self.shape)

    def automatic(
        self,
        config: AutomaticConfig | None = None,
        *,
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
        **changes: Any,
    ) -> Candidates:
        """Search the whole image for masks; filter them afterwards as often as you like.

        Parameters
        ----------
        config : AutomaticConfig, optional
            What to try; 32 x 32 points by default.
        progress : callable, optional
            ``progress(done, total)`` in prompts.
        should_stop : callable, optional
            Asked between batches.
        **changes
            Single settings of `AutomaticConfig` by name, for example ``points_per_side=64``.

        Raises
        ------
        InvalidSettingError
            If a setting is unknown or out of range, or nothing is in the region.
        InvalidImageError
            If all pixels are equal, so that there is nothing to find.
        CancelledError
            If the user asked to stop.
        """
        from phasesam.engines.automatic import search

        config = (config or AutomaticConfig()).changed(**changes)
        if config.region is not None:
            region = np.asarray(config.region) != 0
            if region.shape != self.shape:
                raise InvalidSettingError(
                    f"region must have the shape of the image {self.shape}, got {region.shape}"
                )
            if not region.any():
                raise InvalidSettingError("expected a region with at least one pixel, got none")
            config = config.changed(region=region[: self.data_bar])
        if is_constant(self.image[: self.data_bar]):
            raise InvalidImageError(
                f"all pixels of the image of {self.shape[0]} x {self.shape[1]} are equal: there "
                "is nothing to find"
            )
        windows = self.windows
        if config.window is None and config.crop_n_layers == 0 and windows is not None:
            config = config.changed(window=windows.side)
        card = self._card
        if card is not None:
            # Of scores that were brought closer to 1, more is asked as well.
            slope = min(1.0, card.score_slope)
            config = config.changed(cover_iou=1 - slope * (1 - config.cover_iou))
        adapter = self.manager.adapter_version(self.model, self.adapter)
        embedding = self._encode(adapter, should_stop=should_stop)
        with self.manager.lease(self.model, adapter, should_stop=should_stop) as model:
            found = search(
                self.rgb,
                embedding,
                model,
                self.manager,
                config,
                progress=progress,
                should_stop=should_stop,
            )
        return replace(found, shape=self.shape)

    def _checked(self, prompts: Prompts) -> Prompts:
        """Refuse prompts outside the picture and cut the mask to it."""
        height, width = self.rgb.shape[:2]
        limit = np.array([height, width])
        # The centre of the first pixel is (0, 0), so the last one ends at limit - 0.5.
        outside = ((prompts.points < -0.5) | (prompts.points > limit - 0.5)).any(axis=1)
        if outside.any():
            place = "image" if self.data_bar is None else "image above its data bar"
            raise InvalidPromptError(
                f"expected points inside the {place} of {height} x {width} pixels, "
                f"got (y, x) = {prompts.points[outside][0].tolist()}"
            )
        low, high = prompts.boxes[:, :2], prompts.boxes[:, 2:]
        if ((high <= 0) | (low >= limit)).any():
            raise InvalidPromptError(
                f"expected boxes that meet the image of {height} x {width} pixels, "
                f"got {prompts.boxes.tolist()}"
            )
        if prompts.mask is None:
            return prompts
        if prompts.mask.shape != self.shape:
            raise InvalidPromptError(
                f"a mask prompt has the shape of the image {self.shape}, got {prompts.mask.shape}"
            )
        return replace(prompts, mask=prompts.mask[:height])
