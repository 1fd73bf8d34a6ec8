"""The options of ``phasesam segment``, one dataclass per panel of its help."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_FILES = "Input and output"
_MODEL = "Model and device"
_IMAGE = "Image"
_PROMPTS = "Prompts (instead of automatic masks)"
_CANDIDATES = "Automatic masks: candidates"
_FILTER = "Automatic masks: filter"


class PresetName(StrEnum):
    """The quality presets."""

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


class Device(StrEnum):
    """Where the model computes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


@dataclass(frozen=True)
class FileOptions:
    """What is read and what is written."""

    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Image files, folders, or glob patterns in quotes. Multi-page files are stacks.",
            show_default=False,
        ),
    ]
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where the results go; made if it does not exist.",
            rich_help_panel=_FILES,
            show_default=False,
        ),
    ]
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace existing results.", rich_help_panel=_FILES),
    ] = False
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Leave out inputs whose results exist: continue an interrupted batch.",
            rich_help_panel=_FILES,
        ),
    ] = False
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive", "-r", help="Search folders below folders too.", rich_help_panel=_FILES
        ),
    ] = False
    folder_is_stack: Annotated[
        bool,
        typer.Option(
            "--folder-is-stack",
            help="Read each folder as one stack, its files being the slices.",
            rich_help_panel=_FILES,
        ),
    ] = False
    coco: Annotated[
        bool,
        typer.Option(
            "--coco", help="Also write NAME_coco.json (COCO, masks as RLE).", rich_help_panel=_FILES
        ),
    ] = False
    json_summary: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print a summary as JSON on standard output instead of a table.",
            rich_help_panel=_FILES,
        ),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="No progress and no table; errors only.", rich_help_panel=_FILES
        ),
    ] = False


@dataclass(frozen=True)
class ModelOptions:
    """Which model computes where."""

    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Name of a model; see: phasesam models list.",
            rich_help_panel=_MODEL,
        ),
    ] = "mobile_sam"
    device: Annotated[
        Device | None,
        typer.Option(
            "--device",
            help="Where to compute; PHASESAM_DEVICE or the best device when left out.",
            rich_help_panel=_MODEL,
            show_default=False,
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, help="CPU threads.", rich_help_panel=_MODEL, show_default=False
        ),
    ] = None
    download: Annotated[
        bool,
        typer.Option(
            "--download/--no-download",
            help="Whether missing weights may be fetched.",
            rich_help_panel=_MODEL,
        ),
    ] = True


@dataclass(frozen=True)
class ImageOptions:
    """How images are read."""

    pixel_size: Annotated[
        str | None,
        typer.Option(
            "--pixel-size",
            metavar="LENGTH",
            help="Edge of a pixel, in µm or with a unit (12nm); overrides the file's.",
            rich_help_panel=_IMAGE,
            show_default=False,
        ),
    ] = None
    planes: Annotated[
        str | None,
        typer.Option(
            "--planes",
            metavar="RANGES",
            help="Planes of a stack, counted from 0: 0-9,20 or 0-99/10 for every tenth. "
            "All when left out.",
            rich_help_panel=_IMAGE,
            show_default=False,
        ),
    ] = None
    intensity_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--intensity-range",
            metavar="LOW HIGH",
            help="Grey values shown as black and white; percentiles 0.5 and 99.5 when left out.",
            rich_help_panel=_IMAGE,
            show_default=False,
        ),
    ] = None
    data_bar_detection: Annotated[
        bool,
        typer.Option(
            "--data-bar-detection/--no-data-bar-detection",
            help="Find the data bar of SEM images and leave it out.",
            rich_help_panel=_IMAGE,
        ),
    ] = True


@dataclass(frozen=True)
class PromptOptions:
    """Where prompts come from."""

    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE.json",
            help='{"objects": [{"points": [[y, x]], "labels": [1], "box": [y0, x0, y1, x1]}]}, '
            'or {"images": {"NAME": {"objects": [...]}}} for different prompts per image.',
            rich_help_panel=_PROMPTS,
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class CandidateOptions:
    """The expensive step of automatic masks; None means: as the preset says."""

    preset: Annotated[
        PresetName,
        typer.Option(
            "--preset",
            "-p",
            help="Settings for a kind of object; options given besides override it.",
            rich_help_panel=_CANDIDATES,
        ),
    ] = PresetName.default
    points_per_side: Annotated[
        int | None,
        typer.Option(
            "--points-per-side",
            min=1,
            help="Grid of point prompts along each side.",
            rich_help_panel=_CANDIDATES,
            show_default=False,
        ),
    ] = None
    crop_n_layers: Annotated[
        int | None,
        typer.Option(
            "--crop-layers",
            min=0,
            help="Layers of enlarged crops for small objects: layer i has 4^i of them.",
            rich_help_panel=_CANDIDATES,
            show_default=False,
        ),
    ] = None
    crop_overlap_ratio: Annotated[
        float | None,
        typer.Option(
            "--crop-overlap",
            min=0.0,
            max=1.0,
            help="Overlap of the crops, as a share of the image.",
            rich_help_panel=_CANDIDATES,
            show_default=False,
        ),
    ] = None
    crop_n_points_downscale_factor: Annotated[
        int | None,
        typer.Option(
            "--crop-points-divisor",
            min=1,
            help="Grid points per side are divided by this in each further crop layer.",
            rich_help_panel=_CANDIDATES,
            show_default=False,
        ),
    ] = None
    region: Annotated[
        Path | None,
        typer.Option(
            "--region",
            metavar="MASK",
            help="Image of the same size; only its non-zero part is segmented.",
            rich_help_panel=_CANDIDATES,
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class FilterOptions:
    """The instant step of automatic masks; None means: as the preset says."""

    pred_iou: Annotated[
        float | None,
        typer.Option(
            "--pred-iou",
            min=0.0,
            max=1.0,
            help="Smallest quality predicted by the model (IoU).",
            rich_help_panel=_FILTER,
            show_default=False,
        ),
    ] = None
    stability: Annotated[
        float | None,
        typer.Option(
            "--stability",
            min=0.0,
            max=1.0,
            help="Smallest stability score.",
            rich_help_panel=_FILTER,
            show_default=False,
        ),
    ] = None
    stability_offset: Annotated[
        float | None,
        typer.Option(
            "--stability-offset",
            min=0.0,
            help="Shift of the mask threshold that stability is measured with (logits).",
            rich_help_panel=_FILTER,
            show_default=False,
        ),
    ] = None
    min_area: Annotated[
        float | None,
        typer.Option(
            "--min-area",
            min=0.0,
            help="Smallest object (pixels).",
            rich_help_panel=_FILTER,
            show_default=False,
        ),
    ] = None
    max_area: Annotated[
        float | None,
        typer.Option(
            "--max-area",
            min=0.0,
            help="Largest object (pixels).",
            rich_help_panel=_FILTER,
            show_default=False,
        ),
    ] = None
    nms: Annotated[
        float | None,
        typer.Option(
            "--nms",
            min=0.0,
            max=1.0,
            help="Of two objects that overlap by more than this IoU the worse goes.",
            rich_help_panel=_FILTER,
            show_default=False,
        ),
    ] = None
    nms_kind: Annotated[
        NmsKind | None,
        typer.Option(
            "--nms-kind",
            help="Whether boxes or masks are compared.",
            rich_help_panel=_FILTER,
            show_default=False,
        ),
    ] = None
    nested: Annotated[
        Nested | None,
        typer.Option(
            "--nested",
            help="Which object stays where one lies inside another.",
            rich_help_panel=_FILTER,
            show_default=False,
        ),
    ] = None
