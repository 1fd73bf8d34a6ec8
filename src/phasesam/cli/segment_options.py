"""The options of ``phasesam segment``, one dataclass per panel of its help.

Where a threshold is None, the preset decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer


class PresetName(StrEnum):
    """The quality presets, see `phasesam.engines.presets`."""

    default = "default"
    particles = "particles"
    grains = "grains"
    pores = "pores"


class Nested(StrEnum):
    """Which mask stays where one lies inside another."""

    both = "both"
    outer = "outer"
    inner = "inner"


class NmsKind(StrEnum):
    """What non-maximum suppression compares."""

    box = "box"
    mask = "mask"


class Rank(StrEnum):
    """What makes one of two overlapping masks the better one."""

    score = "score"
    product = "product"


def _panel(title: str) -> Callable[..., Any]:
    def option(*names: str, text: str, **settings: Any) -> Any:
        return typer.Option(*names, help=text, rich_help_panel=title, **settings)

    return option


_file = _panel("Input and output")
_model = _panel("Model and device")
_image = _panel("Image")
_prompt = _panel("Prompts, instead of automatic masks")
_search = partial(_panel("Automatic masks: search (default: the preset's)"), show_default=False)
_filter = partial(_panel("Automatic masks: filter (default: the preset's)"), show_default=False)


@dataclass(frozen=True)
class FileOptions:
    """What is read and what is written."""

    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Image files, folders, or glob patterns in quotes. Multi-page files are stacks.",
            show_default=False,
        ),
    ]
    output: Annotated[
        Path,
        _file(
            "--output",
            "-o",
            metavar="FOLDER",
            text="Where the results go; made if it does not exist.",
            show_default=False,
        ),
    ]
    overwrite: Annotated[bool, _file("--overwrite", text="Replace existing results.")] = False
    skip_existing: Annotated[
        bool,
        _file(
            "--skip-existing",
            text="Leave out inputs whose results exist: go on with an interrupted batch.",
        ),
    ] = False
    recursive: Annotated[
        bool, _file("--recursive", "-r", text="Search folders below folders too.")
    ] = False
    folder_is_stack: Annotated[
        bool,
        _file("--folder-is-stack", text="Read each folder as one stack, its files as slices."),
    ] = False
    coco: Annotated[
        bool, _file("--coco", text="Also write NAME_coco.json: every mask whole, as COCO RLE.")
    ] = False
    json_summary: Annotated[
        bool, _file("--json", text="Print a summary as JSON on standard output, no table.")
    ] = False
    quiet: Annotated[
        bool, _file("--quiet", "-q", text="No progress and no table; errors only.")
    ] = False


@dataclass(frozen=True)
class ModelOptions:
    """Which model computes where."""

    model: Annotated[
        str,
        _model("--model", "-m", metavar="NAME", text="Name of a model; see: phasesam models list."),
    ] = "mobile_sam"
    device: Annotated[
        str | None,
        _model(
            "--device",
            metavar="DEVICE",
            text="auto, cpu, cuda, cuda:N or mps; PHASESAM_DEVICE or the fastest when left out.",
            show_default=False,
        ),
    ] = None
    precision: Annotated[
        str | None,
        _model(
            "--precision",
            metavar="FORMAT",
            text="auto, fp32, bf16 or fp16; PHASESAM_PRECISION or what suits the device when "
            "left out.",
            show_default=False,
        ),
    ] = None
    threads: Annotated[
        int | None, _model("--threads", metavar="N", min=1, text="CPU threads.", show_default=False)
    ] = None
    download: Annotated[
        bool,
        _model("--download/--no-download", text="Whether missing weights may be fetched."),
    ] = True


@dataclass(frozen=True)
class ImageOptions:
    """How images are read."""

    pixel_size: Annotated[
        str | None,
        _image(
            "--pixel-size",
            metavar="LENGTH",
            text="Edge of a pixel in µm, or with its unit: 12nm. Overrides the file's.",
            show_default=False,
        ),
    ] = None
    planes: Annotated[
        str | None,
        _image(
            "--planes",
            metavar="RANGES",
            text="Planes of stacks, from 0: 0-9,20 or 0-99/10 for every tenth. All when left out; "
            "single images are segmented anyway.",
            show_default=False,
        ),
    ] = None
    intensity_range: Annotated[
        tuple[float, float] | None,
        _image(
            "--intensity-range",
            metavar="LOW HIGH",
            text="Values shown as black and as white; percentiles 0.5 and 99.5 when left out.",
            show_default=False,
        ),
    ] = None
    data_bar_detection: Annotated[
        bool,
        _image(
            "--data-bar-detection/--no-data-bar-detection",
            text="Find the data bar of SEM images and leave it out.",
        ),
    ] = True


@dataclass(frozen=True)
class PromptOptions:
    """Where prompts come from."""

    prompts: Annotated[
        Path | None,
        _prompt(
            "--prompts",
            metavar="FILE.json",
            text='Holds {"objects": [{"points": [[y, x]], "labels": [1], '
            '"box": [y0, x0, y1, x1]}]}, or {"images": {"NAME": {"objects": ...}}} for prompts '
            "of single images.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class SearchOptions:
    """The expensive step of automatic masks."""

    preset: Annotated[
        PresetName | None,
        _search(
            "--preset",
            "-p",
            metavar="NAME",
            text=f"Settings for a kind of object: {', '.join(PresetName)}. Options given besides "
            "override it.",
        ),
    ] = None
    points_per_side: Annotated[
        int | None,
        _search(
            "--points-per-side", metavar="N", min=1, max=512, text="Point prompts along each side."
        ),
    ] = None
    points_per_batch: Annotated[
        int | None,
        _search(
            "--points-per-batch", metavar="N", min=1, max=4096, text="Prompts decoded at once."
        ),
    ] = None
    crop_n_layers: Annotated[
        int | None,
        _search(
            "--crop-layers",
            metavar="N",
            min=0,
            max=5,
            text="For small objects: layer i adds 4^i enlarged crops to the search.",
        ),
    ] = None
    crop_overlap_ratio: Annotated[
        float | None,
        _search(
            "--crop-overlap",
            metavar="X",
            min=0.0,
            max=0.95,
            text="Overlap of the crops, share of the side.",
        ),
    ] = None
    crop_n_points_downscale_factor: Annotated[
        int | None,
        _search(
            "--crop-points-divisor",
            metavar="N",
            min=1,
            max=64,
            text="Points per side are divided by this in each further layer.",
        ),
    ] = None
    speckle_area: Annotated[
        int | None,
        _search(
            "--speckle-area",
            metavar="N",
            min=0,
            text="Remove holes and islands smaller than this from every mask (pixels).",
        ),
    ] = None
    skip_covered: Annotated[
        bool | None,
        _search(
            "--skip-covered/--no-skip-covered",
            text="Leave out points in masks already found with high scores: faster.",
        ),
    ] = None
    region: Annotated[
        Path | None,
        _search(
            "--region",
            metavar="MASK",
            text="Image of the same size; only its non-zero part is searched.",
        ),
    ] = None


@dataclass(frozen=True)
class FilterOptions:
    """The instant step of automatic masks; named as the fields of ``FilterConfig``."""

    pred_iou: Annotated[
        float | None,
        _filter(
            "--pred-iou",
            metavar="X",
            min=0.0,
            max=1.0,
            text="Smallest quality (IoU) the model predicts.",
        ),
    ] = None
    stability: Annotated[
        float | None,
        _filter("--stability", metavar="X", min=0.0, max=1.0, text="Smallest stability score."),
    ] = None
    stability_offset: Annotated[
        float | None,
        _filter(
            "--stability-offset",
            metavar="X",
            min=0.0,
            max=8.0,
            text="Shift of the mask threshold that stability is measured with (logits).",
        ),
    ] = None
    min_area: Annotated[
        float | None, _filter("--min-area", metavar="X", min=0.0, text="Smallest object (pixels).")
    ] = None
    max_area: Annotated[
        float | None, _filter("--max-area", metavar="X", min=0.0, text="Largest object (pixels).")
    ] = None
    nms: Annotated[
        float | None,
        _filter(
            "--nms",
            metavar="X",
            min=0.0,
            max=1.0,
            text="Of two objects that overlap by more than this IoU the worse one goes.",
        ),
    ] = None
    crop_nms: Annotated[
        float | None,
        _filter(
            "--crop-nms",
            metavar="X",
            min=0.0,
            max=1.0,
            text="The same between crops of the image.",
        ),
    ] = None
    nms_kind: Annotated[
        NmsKind | None,
        _filter("--nms-kind", metavar="box|mask", text="Whether boxes or masks are compared."),
    ] = None
    overlap: Annotated[
        float | None,
        _filter(
            "--overlap",
            metavar="X",
            min=0.0,
            max=1.0,
            text="Of two objects that share more than this part of the smaller one, the worse "
            "one goes; 1 switches it off.",
        ),
    ] = None
    rank: Annotated[
        Rank | None,
        _filter(
            "--rank",
            metavar="score|product",
            text="What is better: predicted IoU, or that times stability.",
        ),
    ] = None
    nested: Annotated[
        Nested | None,
        _filter(
            "--nested",
            metavar="both|outer|inner",
            text="Which object stays where one lies inside another.",
        ),
    ] = None
    touching_edge: Annotated[
        bool | None,
        _filter(
            "--touching-edge/--no-touching-edge",
            text="Whether objects that touch the edge of the image stay.",
        ),
    ] = None
    min_region_area: Annotated[
        int | None,
        _filter(
            "--min-region-area",
            metavar="N",
            min=0,
            text="Fill holes and drop islands smaller than this (pixels).",
        ),
    ] = None
