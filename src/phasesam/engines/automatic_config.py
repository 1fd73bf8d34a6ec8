"""Settings of the automatic masks. Knows no torch, so that docks can show them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError

OverlapKind = Literal["box", "mask"]
NestedRule = Literal["both", "outer", "inner"]


@dataclass(frozen=True)
class AutomaticConfig:
    """How candidates are searched for: the expensive step.

    Attributes
    ----------
    points_per_side : int
        Prompts along each side of the image (and of each crop of layer 0).
    points_per_batch : int or None
        Prompts decoded at once; None lets the device decide.
    crop_n_layers : int
        Layer i searches ``(2**i)**2`` overlapping crops as well.
    crop_overlap_ratio : float
        Overlap of the crops of layer 1, as a share of the shorter side of the image.
    crop_n_points_downscale_factor : int
        Prompts per side are divided by ``factor**i`` in layer i.
    window : int or None
        Side in pixels of windows that are searched instead of crops, each with three quarters
        of `points_per_side` along a side; of the whole image only what is larger than half a
        window is kept. 0 for none. As the adapter was trained when None, unless crops are
        wanted.
    point_grid : (n, 2) float array or None
        Own prompts ``(y, x)``, as shares of the image's sides (0–1), instead of the grid.
    region : (h, w) bool array or None
        Only prompts inside are tried, and masks must lie mostly inside.
    best_only : bool or None
        Of the three masks of a prompt (part, object, group) keep the one with the highest
        predicted IoU. When None, for adapters that tell objects: what an object is they have
        learnt, and their other two are variants of it.
    iou_floor : float
        Candidates of a lower predicted IoU are not kept; a later filter cannot go below.
        A floor saves memory and little time.
    stability_floor : float
        The same for the stability score at an offset of one.
    speckle_area : int
        Holes and islands of fewer pixels are removed from every mask but the largest ones,
        before its box is compared with others'; 0 keeps them, as SAM does.
    skip_covered : bool
        Leave out prompts that lie in a mask already found with high scores. Faster, and
        nearly the same masks.
    cover_iou, cover_stability : float
        Scores from which a mask makes the prompts in it superfluous.
    cover_area : float
        Only masks up to this share of the image do so.

    Raises
    ------
    InvalidSettingError
        If a value is out of range.
    """

    points_per_side: int = 32
    points_per_batch: int | None = None
    crop_n_layers: int = 0
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    window: int | None = None
    point_grid: NDArray[np.float64] | None = None
    region: NDArray[np.bool_] | None = None
    best_only: bool | None = None
    iou_floor: float = 0.0
    stability_floor: float = 0.0
    speckle_area: int = 10
    skip_covered: bool = False
    cover_iou: float = 0.9
    cover_stability: float = 0.93
    cover_area: float = 0.1

    def __post_init__(self) -> None:
        _whole("points_per_side", self.points_per_side, 1, 512)
        if self.points_per_batch is not None:
            _whole("points_per_batch", self.points_per_batch, 1, 4096)
        _whole("crop_n_layers", self.crop_n_layers, 0, 5)
        _whole("crop_n_points_downscale_factor", self.crop_n_points_downscale_factor, 1, 64)
        if self.window is not None:
            _whole("window", self.window, 0, 2**31)
        _within("crop_overlap_ratio", self.crop_overlap_ratio, 0, 0.95)
        _whole("speckle_area", self.speckle_area, 0, 2**31)
        for name in ("iou_floor", "stability_floor", "cover_iou", "cover_stability", "cover_area"):
            _within(name, getattr(self, name), 0, 1)
        if self.point_grid is not None:
            grid = np.asarray(self.point_grid, dtype=np.float64)
            if grid.ndim != 2 or grid.shape[1] != 2 or not ((grid >= 0) & (grid <= 1)).all():
                raise InvalidSettingError(
                    f"point_grid is (n, 2) of shares of the sides, 0–1, got shape {grid.shape}"
                )
        if self.region is not None and np.asarray(self.region).ndim != 2:
            raise InvalidSettingError(
                f"region has shape (h, w), got {np.asarray(self.region).shape}"
            )

    def changed(self, **changes: Any) -> AutomaticConfig:
        """Copy with some values changed; an unknown name is an `InvalidSettingError`."""
        return _changed(self, changes)

    def grid(self, layer: int = 0) -> NDArray[np.float64]:
        """Prompts ``(y, x)`` of a crop layer as shares of the crop's sides, (n, 2), row by row."""
        if self.point_grid is not None:
            return np.asarray(self.point_grid, dtype=np.float64)
        count = max(1, int(self.points_per_side / self.crop_n_points_downscale_factor**layer))
        ticks = np.linspace(0.5 / count, 1 - 0.5 / count, count)
        y, x = np.meshgrid(ticks, ticks, indexing="ij")
        return np.stack([y.ravel(), x.ravel()], axis=1)


def as_trained(
    config: AutomaticConfig,
    longest_side: int,
    window: int | None,
    score_slope: float,
    *,
    tells_objects: bool,
) -> AutomaticConfig:
    """Complete settings with what an adapter asks for.

    Parameters
    ----------
    config : AutomaticConfig
        As the user wants it.
    longest_side : int
        Of the image, in pixels; windows as large as that are none.
    window : int or None
        Side of the windows that it was trained on, which are searched unless crops are wanted.
    score_slope : float
        `AdapterCard.score_slope`: of scores that were brought closer to 1, more is asked before
        a mask makes the prompts in it superfluous.
    tells_objects : bool
        Whether its scores were trained to tell objects from what is none.
    """
    side = config.window
    if side is None:
        side = window if config.crop_n_layers == 0 else None
    slope = min(1.0, score_slope)
    return config.changed(
        window=side if side and side < longest_side else 0,
        best_only=tells_objects if config.best_only is None else config.best_only,
        cover_iou=1 - slope * (1 - config.cover_iou) if slope < 1 else config.cover_iou,
    )


@dataclass(frozen=True)
class FilterConfig:
    """Which candidates become masks: the instant step.

    Attributes
    ----------
    pred_iou : float
        Masks must have a predicted IoU above this, 0–1.
    stability : float
        Masks must have at least this stability score, 0–1.
    stability_offset : float
        Shift of the mask threshold, in logits, whose effect the stability score measures.
    min_area : float
        Smaller masks go, in pixels.
    max_area : float or None
        Larger masks go, in pixels.
    nms : float
        Of two masks whose boxes (or pixels, see `nms_kind`) have a larger IoU, the worse goes.
    crop_nms : float
        The same between crops of the image, where the smaller crop's mask stays.
    nms_kind : {"box", "mask"}
        SAM compares boxes; comparing pixels keeps neighbours whose boxes overlap.
    overlap : float
        Of two masks that share more than this part of the smaller one, the worse goes;
        1 switches it off.
    rank : {"score", "product"}
        What makes a mask the better one: predicted IoU, or that times stability.
    nested : {"both", "outer", "inner"}
        What stays of masks that lie in one another.
    touching_edge : bool
        Whether masks that touch the edge of the image stay.
    min_region_area : int
        Holes and islands of fewer pixels are removed from the chosen masks; 0 leaves them.

    Raises
    ------
    InvalidSettingError
        If a value is out of range.
    """

    pred_iou: float = 0.88
    stability: float = 0.95
    stability_offset: float = 1.0
    min_area: float = 0
    max_area: float | None = None
    nms: float = 0.7
    crop_nms: float = 0.7
    nms_kind: OverlapKind = "box"
    overlap: float = 1.0
    rank: Literal["score", "product"] = "score"
    nested: NestedRule = "both"
    touching_edge: bool = True
    min_region_area: int = 0

    def __post_init__(self) -> None:
        for name in ("pred_iou", "stability", "nms", "crop_nms", "overlap"):
            _within(name, getattr(self, name), 0, 1)
        _within("stability_offset", self.stability_offset, 0, 8)
        _within("min_area", self.min_area, 0, math.inf)
        if self.max_area is not None:
            _within("max_area", self.max_area, 0, math.inf)
            if self.max_area < self.min_area:
                raise InvalidSettingError(
                    f"max_area must be at least min_area, got {self.max_area} < {self.min_area}"
                )
        _whole("min_region_area", self.min_region_area, 0, 2**31)
        _choice("nms_kind", self.nms_kind, ("box", "mask"))
        _choice("rank", self.rank, ("score", "product"))
        _choice("nested", self.nested, ("both", "outer", "inner"))

    def changed(self, **changes: Any) -> FilterConfig:
        """Copy with some values changed; an unknown name is an `InvalidSettingError`."""
        return _changed(self, changes)


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    unknown = sorted(set(changes) - set(config.__dataclass_fields__))
    if unknown:
        raise InvalidSettingError(
            f"unknown settings {unknown}; known are {sorted(config.__dataclass_fields__)}"
        )
    return replace(config, **changes)


def _within(name: str, value: float, low: float, high: float) -> None:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not math.isnan(value)
    if not number or not low <= value <= high:
        raise InvalidSettingError(f"{name} must be a number from {low} to {high}, got {value!r}")


def _whole(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise InvalidSettingError(
            f"{name} must be a whole number from {low} to {high}, got {value!r}"
        )


def _choice(name: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise InvalidSettingError(f"{name} must be one of {options}, got {value!r}")
