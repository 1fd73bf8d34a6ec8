"""Settings that suit common micrographs. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from phasesam.core.errors import InvalidSettingError
from phasesam.engines.automatic_config import AutomaticConfig, FilterConfig


@dataclass(frozen=True)
class Preset:
    """Settings of both steps under a name.

    Attributes
    ----------
    name, title, description : str
        Key, label and tooltip.
    automatic : AutomaticConfig
        Settings of the search.
    filter : FilterConfig
        Settings of the filter.
    max_area_share : float or None
        Largest mask as a share of the image; becomes `FilterConfig.max_area` in pixels.
    """

    name: str
    title: str
    description: str
    automatic: AutomaticConfig = field(default_factory=AutomaticConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    max_area_share: float | None = None

    def filter_for(self, shape: tuple[int, int]) -> FilterConfig:
        """Return the filter for an image of height and width `shape` in pixels."""
        if self.max_area_share is None:
            return self.filter
        largest = self.max_area_share * shape[0] * shape[1]
        # In a picture of some pixels the share may be below the smallest object.
        return self.filter.changed(max_area=max(largest, self.filter.min_area))


_ALL = (
    Preset(
        name="default",
        title="SAM's own",
        description="The settings of the Segment Anything paper: 32 x 32 points, boxes compared.",
    ),
    Preset(
        name="particles",
        title="Particles",
        description="Dense particles or powder: 64 x 64 points, overlapping masks resolved "
        "pixel by pixel, nothing larger than 30 % of the image.",
        automatic=AutomaticConfig(points_per_side=64, skip_covered=True),
        filter=FilterConfig(
            stability=0.92, nms_kind="mask", overlap=0.6, rank="product", min_area=20
        ),
        max_area_share=0.3,
    ),
    Preset(
        name="grains",
        title="Grains",
        description="Grains that fill the image and touch: 48 x 48 points, lower thresholds, "
        "the outer one of nested masks.",
        automatic=AutomaticConfig(points_per_side=48, skip_covered=True),
        filter=FilterConfig(
            pred_iou=0.8,
            stability=0.88,
            nms_kind="mask",
            overlap=0.5,
            rank="product",
            min_area=50,
            nested="outer",
        ),
        max_area_share=0.5,
    ),
    Preset(
        name="pores",
        title="Pores and inclusions",
        description="Small separate objects in a matrix: 64 x 64 points, nothing larger than "
        "5 % of the image, the inner one of nested masks.",
        automatic=AutomaticConfig(points_per_side=64, skip_covered=True),
        filter=FilterConfig(
            pred_iou=0.8,
            stability=0.88,
            nms_kind="mask",
            overlap=0.6,
            rank="product",
            min_area=4,
            nested="inner",
        ),
        max_area_share=0.05,
    ),
)

PRESETS = MappingProxyType({preset.name: preset for preset in _ALL})
"""All presets by name."""


def get_preset(name: str) -> Preset:
    """Look a preset up.

    Raises
    ------
    InvalidSettingError
        If there is none of this name.
    """
    if name not in PRESETS:
        raise InvalidSettingError(f"unknown preset {name!r}; known are {', '.join(PRESETS)}")
    return PRESETS[name]
