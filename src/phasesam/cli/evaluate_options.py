"""The options of ``phasesam evaluate``, one dataclass per panel of its help."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from phasesam.cli.batch_options import panel
from phasesam.cli.segment_options import PresetName


class MaskTask(StrEnum):
    """What the labels are."""

    semantic = "semantic"
    instance = "instance"


_labels = panel("Labels")
_data = panel("Data")
_clicks = panel("Clicks, for adapters without classes")
_compare = panel("Comparison")
_report = panel("Report")


@dataclass(frozen=True)
class MaskFiles:
    """What is compared."""

    predicted: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTED", help="Label file, or folder of them.", show_default=False
        ),
    ]
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH",
            help="True label file, or folder of them; files belong together by their names, also "
            "with endings such as _labels or _mask. Stacks are compared plane by plane.",
            show_default=False,
        ),
    ]


@dataclass(frozen=True)
class LabelOptions:
    """What the labels mean."""

    task: Annotated[
        MaskTask,
        _labels(
            "--task",
            "-t",
            metavar="TASK",
            text="semantic (a class for each pixel) or instance (objects).",
            show_default=False,
        ),
    ]
    classes: Annotated[
        str | None,
        _labels(
            "--classes",
            metavar="NAMES",
            text="Names of the classes in the order of their values: matrix,pore,inclusion; or "
            "by value: 0=matrix,128=pore.",
            show_default=False,
        ),
    ] = None
    unlabelled: Annotated[
        int | None,
        _labels(
            "--unlabelled",
            metavar="VALUE",
            text="Value of TRUTH where nothing is known; such pixels do not count.",
            show_default=False,
        ),
    ] = None
    no_class: Annotated[
        int,
        _labels(
            "--no-class",
            metavar="VALUE",
            text="Value of PREDICTED where no class was given, which counts as wrong.",
        ),
    ] = 255
    by_index: Annotated[
        bool,
        _labels(
            "--by-index",
            text="Values of PREDICTED count the classes from 0, as phasesam predict writes them; "
            "otherwise they are those of TRUTH.",
        ),
    ] = False
    skip_missing: Annotated[
        bool, _labels("--skip-missing", text="Leave out what was not predicted.")
    ] = False
    images: Annotated[
        Path | None,
        _labels(
            "--images",
            metavar="PATH",
            text="The pictures, shown in the report below the labels.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class ReportOptions:
    """What is said about it."""

    output: Annotated[
        Path | None,
        _report(
            "--output",
            "-o",
            metavar="FOLDER",
            text="Where report.html, report.md and scores.csv go; only a table is printed when "
            "left out.",
            show_default=False,
        ),
    ] = None
    title: Annotated[
        str | None, _report("--title", metavar="TEXT", text="Heading.", show_default=False)
    ] = None
    overwrite: Annotated[bool, _report("--overwrite", text="Replace an existing report.")] = False
    json_summary: Annotated[
        bool, _report("--json", text="Print figures as JSON on standard output, no table.")
    ] = False
    quiet: Annotated[bool, _report("--quiet", "-q", text="No table; errors only.")] = False


@dataclass(frozen=True)
class AdapterData:
    """What an adapter is tested on."""

    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Images and labels, as for phasesam train.",
            show_default=False,
        ),
    ]
    split: Annotated[
        str | None,
        _data(
            "--split",
            metavar="NAME",
            text="Images of this split of DATA. When left out, those that the adapter's training "
            "kept for testing; all of them if DATA is not what it was trained on.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class CompareOptions:
    """What an adapter is compared with."""

    unet: Annotated[
        float | None,
        _compare(
            "--unet",
            metavar="SECONDS",
            min=1,
            text="Also train a U-Net for so long on the training images of DATA; for adapters "
            "with classes.",
            show_default=False,
        ),
    ] = None
    preset: Annotated[
        PresetName,
        _compare(
            "--preset",
            metavar="NAME",
            text="Settings of the automatic masks, for instance adapters: "
            f"{', '.join(PresetName)}.",
        ),
    ] = PresetName.particles
    automatic: Annotated[
        bool | None,
        _compare(
            "--automatic/--no-automatic",
            text="Compare automatic masks; only for instance adapters when left out.",
            show_default=False,
        ),
    ] = None
    same_windows: Annotated[
        bool,
        _compare(
            "--same-windows",
            text="Let the base look at parts of images as large as those that the adapter was "
            "trained on, instead of whole images as published.",
        ),
    ] = False


@dataclass(frozen=True)
class ClickOptions:
    """How objects are clicked."""

    clicks: Annotated[
        int, _clicks("--clicks", metavar="N", min=2, max=11, text="Compare 1 with N clicks.")
    ] = 11
    max_clicks: Annotated[
        int,
        _clicks(
            "--max-clicks",
            metavar="N",
            min=2,
            max=100,
            text="Most clicks per object, for the numbers of clicks needed.",
        ),
    ] = 20
    min_area: Annotated[
        int,
        _clicks("--min-area", metavar="PX", min=0, text="Leave out true objects below this area."),
    ] = 0
    most_objects: Annotated[
        int | None,
        _clicks(
            "--most-objects",
            metavar="N",
            min=1,
            text="At most so many objects per image, drawn at random; all when left out.",
            show_default=False,
        ),
    ] = None
