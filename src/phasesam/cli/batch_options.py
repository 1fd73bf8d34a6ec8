"""The options that commands for many images share, one dataclass per panel of their help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer


def panel(title: str) -> Callable[..., Any]:
    """Return a maker of options under a heading: ``option(*names, text=..., **settings)``."""

    def option(*names: str, text: str, **settings: Any) -> Any:
        return typer.Option(*names, help=text, rich_help_panel=title, **settings)

    return option


_file = panel("Input and output")
_model = panel("Model and device")
_image = panel("Image")


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
        str | None,
        _model(
            "--model",
            "-m",
            metavar="NAME",
            text="Name of a model; see: phasesam models list. mobile_sam, or the adapter's, "
            "when left out.",
            show_default=False,
        ),
    ] = None
    adapter: Annotated[
        str | None,
        _model(
            "--adapter",
            metavar="ADAPTER",
            text="Name or file of a fine-tuned adapter.",
            show_default=False,
        ),
    ] = None
    adapter_strength: Annotated[
        float | None,
        _model(
            "--adapter-strength",
            metavar="S",
            min=0.0,
            max=1.0,
            text="How much of the adapter acts: 0 the model alone, 1 all of it (default).",
            show_default=False,
        ),
    ] = None
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
