"""Search the whole image for masks: the expensive step of the automatic masks.

After Kirillov et al., Segment Anything (arXiv 2304.02643), section "automatic mask
generation", with the filters taken out: they are instant in `Candidates.filter`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from phasesam.core.boxes import Box, overlap
from phasesam.core.coordinates import points_to_model
from phasesam.core.errors import InvalidSettingError
from phasesam.core.mask_set import MaskCrop
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.engines.automatic_config import AutomaticConfig, FilterConfig
from phasesam.engines.candidates import Candidates
from phasesam.engines.crops import EDGE_TOLERANCE, crop_boxes, cut_by_crop, window_points
from phasesam.engines.embedding import encode
from phasesam.engines.prompt_threads import PromptThreads
from phasesam.engines.rendering import (
    BINS,
    BINS_PER_LOGIT,
    DeferredMask,
    Raster,
    RenderedMask,
    raster,
    render_mask,
)
from phasesam.models.decoder_state import ImageContext
from phasesam.models.half_precision import product_dtype
from phasesam.models.mask_decoder import MultiPromptDecoder
from phasesam.models.shortage import check_stop

if TYPE_CHECKING:
    from phasesam.engines.embedding_cache import Embedding
    from phasesam.models.manager import ModelManager
    from phasesam.models.sam import SamModel

__all__ = ["AutomaticConfig", "Candidates", "FilterConfig", "search"]

_SCALES = (1, 2, 3)
_IN_WINDOW = 0.75
"""Prompts along a window, of those along an image: what is small there is large here."""


def search(
    rgb: NDArray[np.uint8],
    embedding: Embedding,
    model: SamModel,
    manager: ModelManager,
    config: AutomaticConfig,
    *,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> Candidates:
    """Try a grid of points and keep every mask above the floors.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        The picture; crops of it are encoded here.
    embedding : Embedding
        Of the whole picture.
    model : SamModel
        Leased from `manager`.
    manager : ModelManager
        Guards the device.
    config : AutomaticConfig
        What to try.
    progress : callable, optional
        ``progress(done, total)`` in prompts.
    should_stop : callable, optional
        Asked between batches.

    Raises
    ------
    CancelledError
        If the user asked to stop.
    DeviceMemoryError
        If a single prompt does not fit into memory.
    """
    return _Search(rgb, embedding, model, manager, config).run(progress, should_stop)


@dataclass(frozen=True)
class _Crop:
    """One crop under search: where it lies, what is tried, and how logits are rendered."""

    index: int
    box: Box
    points: NDArray[np.float64]
    raster: Raster
    covered: NDArray[np.bool_]


@dataclass(frozen=True)
class _Found:
    """One mask above the floors, in pixels of its crop."""

    mask: RenderedMask
    score: float
    point: NDArray[np.float64]


class _Search:
    """One run; collects what passes the floors."""

    def __init__(
        self,
        rgb: NDArray[np.uint8],
        embedding: Embedding,
        model: SamModel,
        manager: ModelManager,
        config: AutomaticConfig,
    ) -> None:
        self.rgb = rgb
        self.shape: tuple[int, int] = (rgb.shape[0], rgb.shape[1])
        self.embedding = embedding
        self.model = model
        self.manager = manager
        self.config = config
        # Side of the windows; 0 where crops are searched.
        self.side = config.window or 0
        self.device = next(model.mask_decoder.parameters()).device
        self.product = product_dtype(self.device)
        self.decoder = MultiPromptDecoder(model, self.product)
        self.local = threading.local()
        self.threads = PromptThreads(self.device)
        self.found: list[RenderedMask] = []
        self.scores: list[float] = []
        self.prompts: list[tuple[float, float]] = []
        self.searched: list[int] = []
        self.decoded = 0
        if config.region is not None and np.asarray(config.region).shape != self.shape:
            raise InvalidSettingError(
                f"region must have the shape of the image {self.shape}, "
                f"got {np.asarray(config.region).shape}"
            )

    def run(
        self, progress: ProgressCallback | None, should_stop: StopCallback | None
    ) -> Candidates:
        start = time.perf_counter()
        crops = list(self._crops())
        with self.threads:
            self._search(crops, progress, should_stop)
        self.decoder.workspace.clear()
        return self._candidates(crops, time.perf_counter() - start)

    def _search(
        self,
        crops: list[_Crop],
        progress: ProgressCallback | None,
        should_stop: StopCallback | None,
    ) -> None:
        total = max(1, sum(len(crop.points) for crop in crops))
        done = 0
        # Windows before the whole image, of which only what is too large for them is wanted.
        for crop in [*crops[1:], crops[0]] if self.side else crops:
            if len(crop.points) == 0:
                continue
            check_stop(should_stop)
            context = self._context(crop)
            batch = self.config.points_per_batch or self._batch_size()
            order = _coarse_first(crop.points) if self.config.skip_covered else None
            items = np.arange(len(crop.points)) if order is None else order

            def decode(
                part: NDArray[np.int64], crop: _Crop = crop, context: ImageContext = context
            ) -> None:
                self._decode(part[~crop.covered[part]], crop, context, crops)

            for count, _ in self.manager.iterate_batches(
                decode, items, batch, doing="searching masks", should_stop=should_stop
            ):
                if progress is not None:
                    progress(done + count, total)
            done += len(crop.points)

    def _crops(self) -> Iterator[_Crop]:
        for index, (box, points) in enumerate(self._layout()):
            if self.config.region is not None:
                pixel = np.minimum(points.astype(np.int64), np.array(self.shape) - 1)
                points = points[np.asarray(self.config.region)[pixel[:, 0], pixel[:, 1]] != 0]
            size = (box[2] - box[0], box[3] - box[1])
            lines = raster(size, 4 * self.model.embed_size, self.model.image_size)
            free = np.zeros(len(points), dtype=np.bool_)
            yield _Crop(index, box, points - np.array(box[:2]), lines, free)

    def _layout(self) -> list[tuple[Box, NDArray[np.float64]]]:
        """Parts of the image and their prompts, in its pixels; the whole image first."""
        config = self.config
        if self.side:
            whole = (0, 0, *self.shape), config.grid() * np.array(self.shape)
            count = max(1, round(_IN_WINDOW * config.points_per_side))
            return [whole, *window_points(self.shape, self.side, count, config.point_grid)]
        layout = crop_boxes(self.shape, config.crop_n_layers, config.crop_overlap_ratio)
        return [
            (box, config.grid(layer) * (np.array(box[2:]) - box[:2]) + np.array(box[:2]))
            for layer, box in layout
        ]

    def _batch_size(self) -> int:
        return 64 if self.device.type != "cpu" else 4 * self.threads.count

    def _context(self, crop: _Crop) -> ImageContext:
        if crop.index == 0:
            features = self.embedding.features.to(self.device)
            intermediate = tuple(t.to(self.device) for t in self.embedding.intermediate)
        else:
            y0, x0, y1, x1 = crop.box
            features, intermediate, _ = encode(self.model, self.rgb[y0:y1, x0:x1], self.manager)
        dtype = self.decoder.dtype
        return self.manager.retry(
            lambda: self.decoder.context(
                features.to(dtype), tuple(t.to(dtype) for t in intermediate)
            ),
            doing="preparing the decoder",
        )

    def _decode(
        self,
        part: NDArray[np.int64],
        crop: _Crop,
        context: ImageContext,
        crops: Sequence[_Crop],
    ) -> None:
        """Decode some prompts of a crop and keep the masks above the floors."""
        if len(part) == 0:
            return
        # On a CPU the image tokens of one prompt stay in the cache.
        size = 1 if self.device.type == "cpu" else len(part)
        pieces = [part[i : i + size] for i in range(0, len(part), size)]
        found = self.threads.map(lambda piece: self._masks(piece, crop, context), pieces)
        # Only now: when memory runs out half way, the whole piece is computed again.
        self.decoded += len(part)
        for piece in found:
            for one in piece:
                self._keep(one, crop, crops)

    def _own_decoder(self) -> MultiPromptDecoder:
        """Return the decoder of the calling thread: buffers are not shared."""
        if self.threads.count == 1:
            return self.decoder
        if not hasattr(self.local, "decoder"):
            self.local.decoder = MultiPromptDecoder(self.model, self.product)
        decoder: MultiPromptDecoder = self.local.decoder
        return decoder

    @torch.inference_mode()
    def _masks(self, part: NDArray[np.int64], crop: _Crop, context: ImageContext) -> list[_Found]:
        """Decode a few prompts: all masks above the floors."""
        decoder = self._own_decoder()
        size = (crop.box[2] - crop.box[0], crop.box[3] - crop.box[1])
        points = crop.points[part]
        xy = torch.as_tensor(
            points_to_model(points, size, self.model.image_size), dtype=decoder.dtype
        )
        sparse, _ = self.model.prompt_encoder(
            points=(
                xy[:, None].to(self.device),
                torch.ones(len(part), 1, device=self.device),
            ),
            boxes=None,
            masks=None,
        )
        hidden, keys, predicted = decoder.tokens(context, sparse)
        scores = predicted[:, 1:].float().cpu().numpy()
        # SAM-HQ refines the best of the three scales only.
        if self.model.is_hq or self.config.best_only:
            scores = np.where(scores == scores.max(axis=1, keepdims=True), scores, -np.inf)
        promising = np.flatnonzero((scores > self.config.iou_floor).any(axis=1))
        found: list[_Found] = []
        if len(promising):
            if len(promising) < len(part):
                chosen = torch.as_tensor(promising, device=self.device)
                hidden, keys = hidden[chosen], keys[chosen]
            logits = decoder.masks(context, hidden, keys, _SCALES).float().cpu().numpy()
            for row, prompt in enumerate(promising):
                for scale in np.flatnonzero(scores[prompt] > self.config.iou_floor):
                    mask = self._render(logits[row, scale], crop)
                    if mask is not None:
                        found.append(_Found(mask, float(scores[prompt, scale]), points[prompt]))
        return found

    def _render(self, logits: NDArray[np.float32], crop: _Crop) -> RenderedMask | None:
        """Render one mask; None if it is empty or below the floor of the stability."""
        mask = render_mask(crop.raster, logits, self.config.speckle_area)
        if mask is None or _stability(mask) < self.config.stability_floor:
            return None
        return mask

    def _keep(self, one: _Found, crop: _Crop, crops: Sequence[_Crop]) -> None:
        """Remember one mask, and which prompts it makes superfluous."""
        mask = one.mask
        placed = mask.moved(*crop.box[:2])
        wanted = self._belongs(placed, crop)
        if (wanted or not self.side) and self._covers(one, crop):
            for other in crops if self.side else [crop]:
                if overlap(placed.box, other.box):
                    _cover(placed.mask, other)
        if not wanted:
            return
        if self.config.region is not None and not _inside(placed.mask, self.config.region):
            return
        self.found.append(placed)
        self.scores.append(one.score)
        self.prompts.append(tuple((one.point + np.array(crop.box[:2])).tolist()))
        self.searched.append(crop.index)

    def _covers(self, one: _Found, crop: _Crop) -> bool:
        """Whether a mask is so good that prompts in it need not be tried."""
        small = (
            one.mask.area <= self.config.cover_area * crop.raster.shape[0] * crop.raster.shape[1]
        )
        return (
            self.config.skip_covered
            and small
            and one.score >= self.config.cover_iou
            and _stability(one.mask) >= self.config.cover_stability
        )

    def _belongs(self, placed: RenderedMask, crop: _Crop) -> bool:
        """Whether a mask is seen well in this crop, and wanted from it."""
        tolerance = max(1, self.side // 50) if self.side else EDGE_TOLERANCE
        if crop.index == 0:
            y0, x0, y1, x1 = placed.box
            # Smaller ones lie whole in a window, wherever they are.
            return max(y1 - y0, x1 - x0) > self.side // 2 - 2 * (tolerance + 1)
        return not cut_by_crop(np.array([placed.box]), crop.box, self.shape, tolerance)[0]

    def _candidates(self, crops: list[_Crop], seconds: float) -> Candidates:
        n = len(self.found)
        return Candidates(
            shape=self.shape,
            masks=tuple(mask.mask for mask in self.found),
            boxes=np.array([mask.box for mask in self.found], dtype=np.int64).reshape(n, 4),
            areas=np.array([mask.area for mask in self.found], dtype=np.int64),
            scores=np.array(self.scores, dtype=np.float32),
            points=np.array(self.prompts, dtype=np.float32).reshape(n, 2),
            above=np.array([mask.above for mask in self.found], np.float32).reshape(n, BINS + 1),
            searched=np.array(self.searched, dtype=np.int64),
            searched_boxes=np.array([crop.box for crop in crops], dtype=np.int64),
            floor=self.config.iou_floor,
            stability_floor=self.config.stability_floor,
            n_prompts=self.decoded,
            n_skipped=sum(len(crop.points) for crop in crops) - self.decoded,
            seconds=seconds,
        )


def _stability(mask: RenderedMask) -> float:
    """Stability score at an offset of one."""
    high, low = (mask.above[BINS // 2 + sign * BINS_PER_LOGIT] for sign in (1, -1))
    return float(high / low) if low > 0 else 0.0


def _coarse_first(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order prompts so that early ones are spread out and can cover many later ones."""
    ranks = [np.unique(points[:, axis], return_inverse=True)[1] for axis in (0, 1)]
    level = np.full(len(points), 3)
    level[(ranks[0] % 2 == 0) & (ranks[1] % 2 == 0)] = 2
    level[(ranks[0] % 4 == 0) & (ranks[1] % 4 == 0)] = 1
    level[(ranks[0] % 4 == 2) & (ranks[1] % 4 == 2)] = 0
    return np.argsort(level, kind="stable")


def _cover(mask: MaskCrop | DeferredMask, crop: _Crop) -> None:
    """Mark the prompts of a crop that lie in a mask; one that is yet to be rendered covers none."""
    if not isinstance(mask, MaskCrop):
        return
    mask = mask.moved(-crop.box[0], -crop.box[1])
    y0, x0, y1, x1 = mask.box
    pixel = crop.points.astype(np.int64)
    near = np.flatnonzero(
        ~crop.covered
        & (pixel[:, 0] >= y0) & (pixel[:, 0] < y1)
        & (pixel[:, 1] >= x0) & (pixel[:, 1] < x1)
    )  # fmt: skip
    if len(near):
        near = near[mask.array()[pixel[near, 0] - y0, pixel[near, 1] - x0]]
        crop.covered[near] = True


def _inside(mask: MaskCrop | DeferredMask, region: NDArray[np.bool_]) -> bool:
    """Tell whether most of a mask lies in the region."""
    if isinstance(mask, DeferredMask):
        mask = mask.render()
    return bool(2 * np.count_nonzero(np.asarray(region)[mask.slices] & mask.array()) > mask.area)
