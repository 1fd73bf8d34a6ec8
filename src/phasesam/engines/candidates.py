"""What an automatic search found, and the instant filter that makes masks of it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from phasesam.core.errors import InvalidSettingError
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.core.nms import box_nms, mask_nms, nesting, overlap_matrix
from phasesam.engines.automatic_config import FilterConfig
from phasesam.engines.region_cleaning import clean_masks
from phasesam.engines.rendering import BINS, BINS_PER_LOGIT, HISTOGRAM_REACH, DeferredMask

_RENDERED_AT_ONCE = 64
_SIZE_CLASSES = (0.02, 0.1, 0.3, np.inf)

REASONS = ("pred_iou", "stability", "area", "edge", "nms", "overlap", "nested")
"""Keys of `MaskSet.dropped`, in the order in which the filter asks."""


@dataclass(frozen=True)
class Candidates:
    """Every mask of an automatic search above its floors, in image pixels.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the image in pixels.
    masks : tuple of MaskCrop or DeferredMask
        The N masks; `crop` gives the pixels of one.
    boxes : (N, 4) int array
        Bounding boxes ``(y0, x0, y1, x1)``, half open; of large masks good to some pixels.
    areas : (N,) int array
        Pixels of each mask; of large masks good to about one per cent.
    scores : (N,) float32 array
        Predicted IoU.
    points : (N, 2) float32 array
        Prompt ``(y, x)`` of each mask in pixels.
    above : (N, 257) float32 array
        Pixels whose logit is above each edge from -8 to +8, in steps of 1 / 16.
    searched : (N,) int array
        Index of the crop of the image that each mask was found in.
    searched_boxes : (c, 4) int array
        ``(y0, x0, y1, x1)`` of these crops.
    floor, stability_floor : float
        Lowest predicted IoU and stability score (at an offset of 1) that were kept.
    n_prompts, n_skipped : int
        Prompts decoded, and prompts left out because they lay in a good mask.
    seconds : float
        Time the search took.
    """

    shape: tuple[int, int]
    masks: tuple[MaskCrop | DeferredMask, ...]
    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]
    scores: NDArray[np.float32]
    points: NDArray[np.float32]
    above: NDArray[np.float32]
    searched: NDArray[np.int64]
    searched_boxes: NDArray[np.int64]
    floor: float = 0.0
    stability_floor: float = 0.0
    n_prompts: int = 0
    n_skipped: int = 0
    seconds: float = 0.0
    _offsets: dict[float, NDArray[np.float32]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _rendered: dict[int, MaskCrop] = field(default_factory=dict, repr=False, compare=False)
    _shared: dict[float, tuple[sparse.csr_matrix, NDArray[np.int64]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.masks)

    def __repr__(self) -> str:
        return f"Candidates({len(self)} masks of {self.shape[0]} x {self.shape[1]} pixels)"

    def crop(self, index: int) -> MaskCrop:
        """Pixels of one mask; a large one is rendered on first use."""
        mask = self.masks[index]
        if isinstance(mask, MaskCrop):
            return mask
        if index not in self._rendered:
            if len(self._rendered) >= _RENDERED_AT_ONCE:
                self._rendered.clear()
            self._rendered[index] = mask.render()
        return self._rendered[index]

    def intersections(
        self, kept: NDArray[np.int64]
    ) -> tuple[sparse.csr_matrix, NDArray[np.float64]]:
        """Count shared pixels of some masks, on a coarse grid that is scaled up.

        Parameters
        ----------
        kept : (k,) int array
            Indices of masks.

        Returns
        -------
        (k, k) sparse matrix, (k,) array
            Shared pixels of each pair, and the areas counted on the same grid.
        """
        # Large masks meet all others; they are compared only when some are wanted.
        largest = self.areas[kept].max(initial=0)
        limit = next(share for share in _SIZE_CLASSES if largest <= share * np.prod(self.shape))
        if limit not in self._shared:
            members = np.flatnonzero(self.areas <= limit * np.prod(self.shape))
            step = _step(self.areas[members])
            shared = overlap_matrix([_sampled(self.masks[i], step) for i in members])
            position = np.full(len(self), -1)
            position[members] = np.arange(len(members))
            self._shared[limit] = (shared * float(step * step), position)
        shared, position = self._shared[limit]
        chosen = shared[position[kept]][:, position[kept]]
        return chosen, chosen.diagonal()

    def stability(self, offset: float = 1.0) -> NDArray[np.float32]:
        """Stability scores: pixels above ``+offset`` over pixels above ``-offset``, (N,).

        Exact at multiples of 1 / 16, linear between; large masks are sampled.

        Raises
        ------
        InvalidSettingError
            If the offset is not from 0 to 8.
        """
        if not 0 <= offset <= HISTOGRAM_REACH:
            raise InvalidSettingError(
                f"stability_offset must be from 0 to {HISTOGRAM_REACH}, got {offset!r}"
            )
        if offset not in self._offsets:
            high, low = self._count(offset), self._count(-offset)
            score = np.divide(high, low, out=np.zeros_like(high), where=low > 0)
            if len(self._offsets) > 64:
                self._offsets.clear()
            self._offsets[offset] = score
        return self._offsets[offset]

    def _count(self, logit: float) -> NDArray[np.float32]:
        position = (logit + HISTOGRAM_REACH) * BINS_PER_LOGIT
        left = min(int(position), BINS - 1)
        weight = np.float32(position - left)
        return self.above[:, left] * (1 - weight) + self.above[:, left + 1] * weight

    def filter(self, config: FilterConfig | None = None, **changes: Any) -> MaskSet:
        """Choose masks. Never runs the network.

        Parameters
        ----------
        config : FilterConfig, optional
            Settings; SAM's own when left out.
        **changes
            Single settings of `FilterConfig` by name, for example ``pred_iou=0.9``.

        Returns
        -------
        MaskSet
            Best first; ``dropped`` tells how many candidates went for which reason.

        Raises
        ------
        InvalidSettingError
            If a setting is unknown or out of range, or `pred_iou` or `stability` are below the
            floors of the search.
        """
        config = (config or FilterConfig()).changed(**changes)
        for name, value, floor in (
            ("pred_iou", config.pred_iou, self.floor),
            ("stability", config.stability, self.stability_floor),
        ):
            if value < floor:
                raise InvalidSettingError(
                    f"{name} {value} is below {floor}, the {name.removeprefix('pred_')}_floor of "
                    "the search; search again with a lower floor"
                )
        stability = self.stability(config.stability_offset)
        kept = np.arange(len(self))
        dropped = dict.fromkeys(REASONS, 0)
        rank = self.scores * stability if config.rank == "product" else self.scores
        for reason, step in (
            ("pred_iou", lambda k: k[self.scores[k] > config.pred_iou]),
            ("stability", lambda k: k[stability[k] >= config.stability]),
            ("area", lambda k: k[self._area_fits(config)[k]]),
            ("edge", lambda k: k if config.touching_edge else k[~self._at_edge[k]]),
            ("nms", lambda k: self._suppress(k, rank, config)),
            ("overlap", lambda k: self._separate(k, rank, config)),
            ("nested", lambda k: self._unnest(k, config)),
        ):
            left = step(kept)
            dropped[reason] = len(kept) - len(left)
            kept = left
        kept = kept[np.argsort(-rank[kept], kind="stable")]
        crops = [self.crop(int(i)) for i in kept]
        if config.min_region_area > 0:
            crops, left = clean_masks(
                crops, config.min_region_area, max(config.nms, config.crop_nms)
            )
            dropped["nms"] += len(kept) - len(left)
            kept, crops = kept[left], [crops[i] for i in left]
        return MaskSet(
            shape=self.shape,
            crops=tuple(crops),
            scores=self.scores[kept],
            stability=stability[kept],
            points=self.points[kept],
            dropped=MappingProxyType(dropped),
        )

    def _area_fits(self, config: FilterConfig) -> NDArray[np.bool_]:
        top = np.inf if config.max_area is None else config.max_area
        return (self.areas >= config.min_area) & (self.areas <= top)

    @cached_property
    def _at_edge(self) -> NDArray[np.bool_]:
        # The first searched crop is the whole field of view, without a data bar.
        box, field_of_view = self.boxes, self.searched_boxes[0]
        return (box[:, :2] <= 0).any(axis=1) | (box[:, 2:] >= field_of_view[2:]).any(axis=1)

    def _suppress(
        self, kept: NDArray[np.int64], rank: NDArray[np.float32], config: FilterConfig
    ) -> NDArray[np.int64]:
        """Remove duplicates, within each searched crop and then between crops."""
        if config.nms >= 1 or len(kept) == 0:
            return kept
        left = [
            part[self._nms(part, rank[part], config)] for part in _groups(kept, self.searched[kept])
        ]
        merged = np.concatenate(left)
        if len(left) > 1:
            sides = self.searched_boxes[:, 2:] - self.searched_boxes[:, :2]
            # SAM trusts the smaller crop, which shows the object larger; of crops of one size
            # the better mask.
            closeness = (1.0 / sides.prod(axis=1))[self.searched[merged]]
            trust = np.empty(len(merged), dtype=np.float32)
            trust[np.lexsort((rank[merged], closeness))] = np.arange(len(merged))
            between = config.changed(nms=config.crop_nms)
            merged = merged[self._nms(merged, trust, between)]
        return merged

    def _nms(
        self, kept: NDArray[np.int64], rank: NDArray[np.float32], config: FilterConfig
    ) -> NDArray[np.int64]:
        if config.nms_kind == "box":
            # SAM's boxes end at the last pixel instead of after it. In an image one pixel wide
            # all of them would be empty.
            last = int(min(self.shape) > 1)
            boxes = self.boxes[kept] - np.array([0, 0, last, last])
            return box_nms(boxes.astype(np.float32), rank, config.nms)
        shared, areas = self.intersections(kept)
        return mask_nms(shared, areas, rank, config.nms)

    def _separate(
        self, kept: NDArray[np.int64], rank: NDArray[np.float32], config: FilterConfig
    ) -> NDArray[np.int64]:
        if config.overlap >= 1 or len(kept) == 0:
            return kept
        shared, areas = self.intersections(kept)
        return kept[mask_nms(shared, areas, rank[kept], config.overlap, "iomin")]

    def _unnest(self, kept: NDArray[np.int64], config: FilterConfig) -> NDArray[np.int64]:
        if config.nested == "both" or len(kept) == 0:
            return kept
        shared, areas = self.intersections(kept)
        return kept[nesting(shared, areas, config.nested)]


def _groups(items: NDArray[np.int64], group: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
    return [items[group == value] for value in np.unique(group)]


def _step(areas: NDArray[np.int64]) -> int:
    """Sample coarsely, but leave the smallest masks some fifty samples."""
    if len(areas) == 0:
        return 1
    return int(np.clip(np.sqrt(np.percentile(areas, 2) / 50), 1, 4))


def _sampled(mask: MaskCrop | DeferredMask, step: int) -> MaskCrop:
    """Keep every `step`-th row and column of the image, as a mask on the coarse grid."""
    if isinstance(mask, DeferredMask):
        return mask.sampled(step)
    if step == 1:
        return mask
    pixels = mask.array()[-mask.y0 % step :: step, -mask.x0 % step :: step]
    if mask.area and not pixels.any():
        # So that two copies of the smallest mask are still copies.
        pixel = np.ones((1, 1), np.bool_)
        return MaskCrop.from_array(pixel, mask.y0 // step, mask.x0 // step)
    return MaskCrop.from_array(pixels, -(-mask.y0 // step), -(-mask.x0 // step))
