"""The public face: one image, its embedding, prompts and automatic masks.

Importing this module does not load torch; the first call that computes does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.boxes import Box
from phasesam.core.errors import InvalidImageError, InvalidPromptError, InvalidSettingError
from phasesam.core.images import is_constant
from phasesam.core.mask_set import MaskSet
from phasesam.core.types import SCALES, ProgressCallback, Prompts, Scale, StopCallback
from phasesam.core.windows import WindowLogits
from phasesam.engines.automatic_config import AutomaticConfig, as_trained
from phasesam.engines.candidates import Candidates
from phasesam.engines.encoded_image import EncodedImage


class Segmenter(EncodedImage):
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
        it acts is chosen with ``manager.set_strength``. One with classes is for
        `segment_classes`: it leaves prompts and automatic masks to the model as published.
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

    def predict(
        self,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        *,
        logits: NDArray[np.float32] | WindowLogits | None = None,
        multimask_output: bool | Scale = True,
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
        multimask_output : bool or {"part", "object", "group"}
            Three scales (part, object, group, in this order) instead of one mask. For one
            object only; several boxes give the best mask of each. By its name, the one for
            which the window is chosen where there are windows; else that of the best score.
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
        adapter = self.prompted

        def ask(seen: Box | None, asked: Prompts, earlier: NDArray[np.float32] | None) -> MaskSet:
            embedding = self._encode(adapter, view=seen)
            with self.manager.lease(self.model, adapter) as model:
                return predict(
                    model,
                    self.manager,
                    embedding,
                    asked,
                    logits=earlier,
                    multimask_output=bool(multimask_output),
                    threshold=threshold,
                )

        windows = self.windows
        if windows is None:
            answer = ask(None, prompts, None if earlier is None else earlier.moved(whole))
            answer = replace(answer, views=np.tile(np.array(whole), (len(answer), 1)))
        else:
            scale = SCALES.index(multimask_output) if isinstance(multimask_output, str) else None
            answer = predict_in_windows(windows, prompts, earlier, ask, scale)
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
        windows, card = self.windows, self._card
        config = as_trained(
            config,
            max(self.rgb.shape[:2]),
            None if windows is None else windows.side,
            1.0 if card is None else card.score_slope,
            tells_objects=card is not None and card.task == "instance",
        )
        adapter = self.prompted
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
