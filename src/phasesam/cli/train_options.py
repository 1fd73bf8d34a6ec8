"""The options of ``phasesam train``, one dataclass per panel of its help."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from phasesam.cli.batch_options import panel


class TaskName(StrEnum):
    """What is learnt."""

    promptable = "promptable"
    instance = "instance"
    semantic = "semantic"


class TrackerName(StrEnum):
    """Where curves may go beside the log."""

    wandb = "wandb"
    tensorboard = "tensorboard"


_data = panel("Data")
_output = panel("Output")
_recipe = partial(panel("Recipe (default: the recipe's)"), show_default=False)
_model = panel("Model and device")


AdapterOutput = Annotated[
    str,
    _output(
        "--output",
        "-o",
        metavar="ADAPTER",
        text="File to write, ending in .safetensors; or a name, under which the adapter is "
        "kept and can be used at once.",
        show_default=False,
    ),
]
RunFolder = Annotated[
    Path | None,
    _output(
        "--run",
        metavar="FOLDER",
        text="Where log, curves and checkpoint go; ADAPTER_run when left out.",
        show_default=False,
    ),
]
Overwrite = Annotated[bool, _output("--overwrite", text="Replace an existing adapter.")]
JsonSummary = Annotated[
    bool, _output("--json", text="Print a summary as JSON on standard output, no table.")
]
Quiet = Annotated[bool, _output("--quiet", "-q", text="No progress and no table; errors only.")]
Device = Annotated[
    str, _model("--device", metavar="DEVICE", text="auto, cpu, cuda, cuda:N or mps.")
]
Precision = Annotated[
    str,
    _model(
        "--precision",
        metavar="FORMAT",
        text="fp32 or bf16; auto takes bf16 where it is faster.",
    ),
]
Seed = Annotated[int, _model("--seed", metavar="N", text="Of all chance.")]
"""Options that commands which train an adapter have in common."""


@dataclass(frozen=True)
class DataChoice:
    """What to learn from."""

    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder with images/ and labels/; CSV file with the columns image, label and "
            "perhaps split, specimen; COCO file; or an image or stack with its labels beside.",
            show_default=False,
        ),
    ]
    task: Annotated[
        TaskName | None,
        _data(
            "--task",
            "-t",
            metavar="TASK",
            text="promptable (objects from prompts), instance (objects without prompts) or "
            "semantic (a class for each pixel). The recipe's when left out.",
            show_default=False,
        ),
    ] = None
    fractions: Annotated[
        str | None,
        _data(
            "--fractions",
            metavar="T,V,E",
            text="Shares of images for training, validation and test where DATA does not say "
            "it: 0.7,0.2,0.1.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class TrainOutput:
    """What comes out."""

    output: AdapterOutput
    run: RunFolder = None
    resume: Annotated[
        bool, _output("--resume", text="Go on with an interrupted training in the run folder.")
    ] = False
    overwrite: Overwrite = False
    tracker: Annotated[
        list[TrackerName] | None,
        _output(
            "--tracker",
            metavar="NAME",
            text="Also send the curves to wandb or tensorboard; may be repeated. W&B stays "
            "offline unless WANDB_MODE=online.",
            show_default=False,
        ),
    ] = None
    start: Annotated[
        str | None,
        _output(
            "--start",
            metavar="ADAPTER",
            text="Adapter to train further, with its base, layers and classes; it stays as it is.",
            show_default=False,
        ),
    ] = None
    licence: Annotated[
        str,
        _output("--licence", metavar="TEXT", text="Licence of the adapter.", show_default=False),
    ] = ""
    check_only: Annotated[
        bool, _output("--check", text="Say what would be learnt, and the memory; train nothing.")
    ] = False
    json_summary: JsonSummary = False
    quiet: Quiet = False


@dataclass(frozen=True)
class RecipeChoice:
    """How to learn."""

    recipe: Annotated[
        str,
        panel("Recipe (default: the recipe's)")(
            "--recipe",
            "-p",
            metavar="NAME",
            text="Name of a recipe (see phasesam recipes), or a file ending in .json.",
        ),
    ] = "default"
    epochs: Annotated[int | None, _recipe("--epochs", min=1, metavar="N", text="Epochs.")] = None
    rank: Annotated[
        int | None, _recipe("--rank", min=1, metavar="N", text="Rank in the encoder.")
    ] = None
    window: Annotated[
        int | None,
        _recipe(
            "--window",
            min=0,
            metavar="PIXELS",
            text="Side of the square that the model sees; 0 for whole images.",
        ),
    ] = None
    batch: Annotated[
        int | None, _recipe("--batch", min=1, metavar="N", text="Views to a step.")
    ] = None
    set: Annotated[
        list[str] | None,
        _recipe(
            "--set",
            metavar="KEY=VALUE",
            text="Any other setting of the recipe: --set optimiser.lr_encoder=1e-4. May be "
            "repeated.",
        ),
    ] = None
    save_recipe: Annotated[
        str | None,
        _recipe("--save-recipe", metavar="NAME", text="Keep these settings as a recipe."),
    ] = None


@dataclass(frozen=True)
class TrainModel:
    """What to adapt, and where."""

    model: Annotated[
        str,
        _model("--model", "-m", metavar="NAME", text="Model to adapt; see: phasesam models list."),
    ] = "mobile_sam"
    device: Device = "auto"
    precision: Precision = "auto"
    seed: Seed = 0
