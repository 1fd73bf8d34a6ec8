"""A frozen set of masks, kept as bit-packed crops so that thousands fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidMaskError
from phasesam.core.windows import WindowLogits

_LARGEST_INDEX = 1 << 22


@dataclass(frozen=True, eq=False)
class MaskCrop:
    """One mask, cut to its bounding box and packed eight pixels to a byte.

    Attributes
    ----------
    y0, x0 : int
        Position of the box in the image.
    height, width : int
        Size of the box; both 0 for an empty mask.
    bits : uint8 array
        ``numpy.packbits`` of the flattened box.
    area : int
        Number of pixels in the mask.
    """

    y0: int
    x0: int
    height: int
    width: int
    bits: NDArray[np.uint8]
    area: int

    @classmethod
    def from_array(cls, mask: NDArray[np.bool_], y0: int = 0, x0: int = 0) -> MaskCrop:
        """Cut ``mask``, (h, w) bool placed at ``(y0, x0)`` of the image, to its box."""
        rows = np.flatnonzero(mask.any(axis=1))
        if len(rows) == 0:
            return cls(y0, x0, 0, 0, np.zeros(0, np.uint8), 0)
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        columns = np.flatnonzero(mask[top:bottom].any(axis=0))
        left, right = int(columns[0]), int(columns[-1]) + 1
        box = np.ascontiguousarray(mask[top:bottom, left:right])
        return cls(
            y0 + top,
            x0 + left,
            bottom - top,
            right - left,
            np.packbits(box),
            int(np.count_nonzero(box)),
        )

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box ``(y0, x0, y1, x1)``, half open."""
        return self.y0, self.x0, self.y0 + self.height, self.x0 + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where the box lies in the image."""
        return slice(self.y0, self.y0 + self.height), slice(self.x0, self.x0 + self.width)

    def moved(self, dy: int, dx: int) -> MaskCrop:
        """Place the same mask `dy` rows and `dx` columns further."""
        if dy == 0 and dx == 0:
            return self
        return replace(self, y0=self.y0 + dy, x0=self.x0 + dx)

    def array(self) -> NDArray[np.bool_]:
        """Unpack to a (height, width) bool array."""
        count = self.height * self.width
        flat = np.unpackbits(self.bits, count=count) if count else np.zeros(0, np.uint8)
        return flat.view(np.bool_).reshape(self.height, self.width)


@dataclass(frozen=True, eq=False)
class MaskSet:
    """Masks of one image with their scores.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the image in pixels.
    crops : tuple of MaskCrop
        The n masks.
    scores : (n,) float32 array
        Predicted IoU of each mask, 0–1.
    stability : (n,) float32 array
        Stability score of each mask, 0–1; NaN where it was not computed.
    points : (n, 2) float32 array
        The prompt ``(y, x)`` that each mask came from; NaN where there was none.
    dropped : mapping of str to int
        How many candidates were left out, for each reason.
    logits : (n, 256, 256) float32 array or None
        Low-resolution logits, to be passed back for refinement.
    views : (n, 4) int array or None
        Part of the image ``(y0, x0, y1, x1)`` that the logits of each mask show; None for the
        whole image.
    """

    shape: tuple[int, int]
    crops: tuple[MaskCrop, ...] = ()
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    stability: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    points: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    dropped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    logits: NDArray[np.float32] | None = None
    views: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        return f"MaskSet({len(self.crops)} masks of {self.shape[0]} x {self.shape[1]} pixels)"

    def __post_init__(self) -> None:
        n = len(self.crops)
        for name in ("scores", "stability", "points"):
            if len(getattr(self, name)) != n:
                raise InvalidMaskError(
                    f"expected {n} {name} for {n} masks, got {len(getattr(self, name))}"
                )

    @classmethod
    def from_masks(
        cls,
        masks: NDArray[Any] | Sequence[NDArray[Any]],
        scores: Iterable[float] | None = None,
        **fields: Any,
    ) -> MaskSet:
        """Pack full-size masks.

        Parameters
        ----------
        masks : (n, h, w) array-like
            Non-zero where the object is.
        scores : (n,) iterable of float, optional
            Predicted IoU; NaN when left out.
        **fields
            Further attributes of `MaskSet`.
        """
        stack = [np.asarray(mask) != 0 for mask in masks]
        if not stack:
            shape = getattr(masks, "shape", (0, 0, 0))[-2:]
            return cls(shape=(int(shape[0]), int(shape[1])), **fields)
        if any(mask.ndim != 2 or mask.shape != stack[0].shape for mask in stack):
            raise InvalidMaskError(
                f"masks must all have the same shape (h, w), got {[m.shape for m in stack][:5]}"
            )
        return cls.from_crops(
            (stack[0].shape[0], stack[0].shape[1]),
            [MaskCrop.from_array(mask) for mask in stack],
            scores,
            **fields,
        )

    @classmethod
    def from_crops(
        cls,
        shape: tuple[int, int],
        crops: Sequence[MaskCrop],
        scores: Iterable[float] | None = None,
        **fields: Any,
    ) -> MaskSet:
        """Build from crops; scores, stability and points default to NaN."""
        n = len(crops)
        fields.setdefault("stability", np.full(n, np.nan, np.float32))
        fields.setdefault("points", np.full((n, 2), np.nan, np.float32))
        score_array = (
            np.full(n, np.nan, np.float32) if scores is None else np.asarray(scores, np.float32)
        )
        return cls(shape=shape, crops=tuple(crops), scores=score_array, **fields)

    @classmethod
    def from_labels(cls, labels: NDArray[Any]) -> MaskSet:
        """Make one mask of each non-zero label of an (h, w) integer image, in ascending order."""
        from scipy.ndimage import find_objects

        labels = np.asarray(labels)
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise InvalidMaskError(
                f"a label image is (h, w) of integers, got {labels.shape} {labels.dtype}"
            )
        crops = []
        if labels.any():
            if labels.min() < 0 or labels.max() > _LARGEST_INDEX:
                # Large and negative labels are numbered from 1 in ascending order first.
                values = np.unique(labels)
                values = values[values != 0]
                position = np.searchsorted(values, labels) + 1
                labels = np.where(labels == 0, 0, position)
            compact = labels.astype(np.int32, copy=False)
            for index, slices in enumerate(find_objects(compact)):
                if slices is not None:
                    box = compact[slices] == index + 1
                    crops.append(MaskCrop.from_array(box, slices[0].start, slices[1].start))
        return cls.from_crops((labels.shape[0], labels.shape[1]), crops)

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """All masks unpacked, (n, h, w) bool. This takes n × h × w bytes."""
        stack = np.zeros((len(self), *self.shape), dtype=np.bool_)
        for plane, crop in zip(stack, self.crops, strict=True):
            plane[crop.slices] = crop.array()
        return stack

    def mask(self, index: int) -> NDArray[np.bool_]:
        """One mask unpacked, (h, w) bool."""
        plane = np.zeros(self.shape, dtype=np.bool_)
        crop = self.crops[index]
        plane[crop.slices] = crop.array()
        return plane

    def to_refine(self, index: int) -> WindowLogits | None:
        """Logits of one mask, to be passed back for refinement; None where none were kept."""
        if self.logits is None:
            return None
        view = (0, 0, *self.shape) if self.views is None else self.views[index].tolist()
        return WindowLogits(self.logits[index], tuple(view))

    @property
    def boxes(self) -> NDArray[np.int64]:
        """Bounding boxes, (n, 4) ``(y0, x0, y1, x1)`` half open, in pixels."""
        return np.array([crop.box for crop in self.crops], dtype=np.int64).reshape(-1, 4)

    @property
    def areas(self) -> NDArray[np.int64]:
        """Number of pixels of each mask, (n,)."""
        return np.array([crop.area for crop in self.crops], dtype=np.int64)

    @property
    def coverage(self) -> float:
        """Share of the image that at least one mask covers, 0–1."""
        return float(np.count_nonzero(self.to_labels())) / max(1, self.shape[0] * self.shape[1])

    def subset(self, indices: Sequence[int] | NDArray[Any]) -> MaskSet:
        """Select masks by index (or bool mask), in the given order; ``dropped`` is kept."""
        index = np.asarray(indices)
        if index.size == 0:
            index = index.astype(np.int64)
        chosen = np.arange(len(self))[index].reshape(-1)
        return MaskSet(
            shape=self.shape,
            crops=tuple(self.crops[i] for i in chosen),
            scores=self.scores[chosen],
            stability=self.stability[chosen],
            points=self.points[chosen],
            dropped=self.dropped,
            logits=None if self.logits is None else self.logits[chosen],
            views=None if self.views is None else self.views[chosen],
        )

    def to_labels(self, order: str = "area", *, min_area: float = 0) -> NDArray[np.int32]:
        """Paint all masks into one label image.

        Mask ``i`` gets label ``i + 1``.

        Parameters
        ----------
        order : {"area", "score", "given"}
            What decides where masks overlap: with ``"area"`` smaller masks lie on
            larger ones, with ``"score"`` better ones on worse, with ``"given"``
            later ones on earlier.
        min_area : float
            A mask of which fewer pixels than this remain visible is left out, and its
            pixels go to what lies beneath.

        Returns
        -------
        (h, w) int32 array
            0 where no mask is.
        """
        if order == "area":
            sequence = np.argsort(-self.areas, kind="stable")
        elif order == "score":
            sequence = np.argsort(np.nan_to_num(self.scores), kind="stable")
        elif order == "given":
            sequence = np.arange(len(self))
        else:
            raise InvalidMaskError(f"order must be 'area', 'score' or 'given', got {order!r}")
        labels = np.zeros(self.shape, dtype=np.int32)
        if min_area > 0:
            # From the top down: what of a mask is visible depends only on what lies above it.
            for index in sequence[::-1]:
                crop = self.crops[index]
                below = labels[crop.slices]
                visible = crop.array() & (below == 0)
                if np.count_nonzero(visible) >= min_area:
                    below[visible] = index + 1
            return labels
        for index in sequence:
            crop = self.crops[index]
            np.copyto(labels[crop.slices], np.int32(index + 1), where=crop.array())
        return labels
