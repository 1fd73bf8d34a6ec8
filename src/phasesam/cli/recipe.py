"""What is done with every image of a batch, put together from the options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.cli.batch_options import ImageOptions
from phasesam.cli.inputs import parse_pixel_size, parse_planes
from phasesam.cli.prompts_file import PromptFile, read_prompts
from phasesam.cli.segment_options import FilterOptions, PresetName, PromptOptions, SearchOptions
from phasesam.core.errors import FileFormatError, InvalidSettingError
from phasesam.core.images import Normalisation
from phasesam.core.types import PixelSize
from phasesam.engines.automatic_config import AutomaticConfig, FilterConfig
from phasesam.engines.presets import Preset, get_preset
from phasesam.models.adapter_loading import Adapter


@dataclass(frozen=True)
class Recipe:
    """How every plane of every image is segmented.

    Attributes
    ----------
    model : str
        Name in the registry.
    preset : Preset
        Settings that the options did not name.
    search : AutomaticConfig
        Settings of the search.
    filter_changes : mapping
        Fields of ``FilterConfig`` that were named by options.
    prompts : PromptFile or None
        Prompts to follow instead of searching.
    pixel_size : PixelSize or None
        Overrides that of the files.
    planes : str or None
        Planes of stacks, as the user wrote them; None for all.
    normalisation : Normalisation
        How intensities become 8 bit.
    exclude_data_bar : bool
        Whether the data bar of SEM images is left out.
    adapter : str, AdapterVersion or None
        Adapter of the model.
    """

    model: str
    preset: Preset
    search: AutomaticConfig
    filter_changes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    prompts: PromptFile | None = None
    pixel_size: PixelSize | None = None
    planes: str | None = None
    normalisation: Normalisation = field(default_factory=Normalisation)
    exclude_data_bar: bool = True
    adapter: Adapter = None

    def filter_for(self, shape: tuple[int, int]) -> FilterConfig:
        """Return the filter for an image of height and width `shape` in pixels."""
        return self.preset.filter_for(shape).changed(**self.filter_changes)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for the JSON summary."""
        search = {k: v for k, v in asdict(self.search).items() if not isinstance(v, np.ndarray)}
        return {
            "preset": self.preset.name,
            "search": {**search, "region": self.search.region is not None},
            "filter": {
                **asdict(self.preset.filter),
                "max_area_share": self.preset.max_area_share,
                **self.filter_changes,
            },
        }


def build_recipe(
    model: str,
    image: ImageOptions,
    prompts: PromptOptions,
    search: SearchOptions,
    filters: FilterOptions,
) -> Recipe:
    """Check the options and put them together.

    Raises
    ------
    InvalidSettingError, InvalidPromptError
        If an option makes no sense; nothing has been computed then.
    """
    filter_changes = _given(filters)
    named = sorted([*_given(search), *filter_changes])
    if prompts.prompts is not None and named:
        raise InvalidSettingError(
            f"--prompts and settings of automatic masks exclude each other, got {named}"
        )
    preset = get_preset((search.preset or PresetName.default).value)
    given = _given(search, leave_out=("preset", "region"))
    # A filter may not ask for less than the search kept.
    checked = preset.filter.changed(**filter_changes)
    given["iou_floor"] = min(preset.automatic.iou_floor, checked.pred_iou)
    given["stability_floor"] = min(preset.automatic.stability_floor, checked.stability)
    if search.region is not None:
        given["region"] = _read_region(search.region)
    if image.planes is not None:
        parse_planes(image.planes)
    return Recipe(
        model=model,
        preset=preset,
        search=preset.automatic.changed(**given),
        filter_changes=MappingProxyType(filter_changes),
        prompts=None if prompts.prompts is None else read_prompts(prompts.prompts),
        pixel_size=None if image.pixel_size is None else parse_pixel_size(image.pixel_size),
        planes=image.planes,
        normalisation=normalisation_of(image),
        exclude_data_bar=image.data_bar_detection,
    )


def _given(options: Any, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the options that the user named, as plain values."""
    values = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in leave_out}
    return {
        name: value.value if isinstance(value, Enum) else value
        for name, value in values.items()
        if value is not None
    }


def normalisation_of(image: ImageOptions) -> Normalisation:
    """Return how intensities become 8 bit."""
    limits = image.intensity_range
    return Normalisation() if limits is None else Normalisation("range", *limits)


def _read_region(path: Path) -> NDArray[np.bool_]:
    from phasesam.formats.readers import read_image

    try:
        micrograph = read_image(path)
    except (FileFormatError, OSError) as error:
        raise InvalidSettingError(f"--region: {error}") from error
    if micrograph.is_stack:
        raise InvalidSettingError(
            f"--region expects one image (h, w), got a stack of shape {micrograph.data.shape}"
        )
    pixels = micrograph.plane()
    region: NDArray[np.bool_] = np.asarray(pixels != 0)
    if micrograph.is_rgb:
        # An opaque alpha channel says nothing.
        region = np.asarray(region[..., :3].any(axis=-1))
    if not region.any():
        raise InvalidSettingError(f"--region: {path} is zero everywhere")
    return region
