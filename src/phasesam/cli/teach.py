"""``phasesam teach``: an adapter learns new images by their phase fractions, without a mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from phasesam.cli.adapter_output import (
    adapter_target,
    check_run,
    deliver_adapter,
    report_adapter,
    run_folder,
    training_watcher,
)
from phasesam.cli.batch_options import panel
from phasesam.cli.console import Interruption, exits_cleanly, message_console
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import with_examples
from phasesam.cli.image_names import names_of_images
from phasesam.cli.inputs import Job, find_jobs
from phasesam.cli.options import with_options
from phasesam.cli.phase_ratio import parse_ratio
from phasesam.cli.train_options import (
    AdapterOutput,
    Device,
    JsonSummary,
    Overwrite,
    Precision,
    Quiet,
    RunFolder,
    Seed,
)
from phasesam.core.errors import InvalidImageError, InvalidSettingError
from phasesam.core.ratio_request import RatioRequest
from phasesam.engines.ratio_guidance import RatioConfig
from phasesam.formats.shares_csv import read_image_shares_csv

if TYPE_CHECKING:
    from phasesam.training.ratio_learning import RatioExample

HELP = with_examples(
    "Train an adapter with classes further on images of which only the phase fractions are "
    "known: those of a point count, EBSD, XRD. No masks are needed.",
    "phasesam teach new/ --adapter steel --amounts amounts.csv -o new_steel",
    'phasesam teach a.tif --adapter steel --ratio "pore=2+-0.5%" -o a.safetensors',
)

_amounts = panel("Amounts of phases")
_learning = panel("Learning")


@dataclass(frozen=True)
class Lesson:
    """What is learnt by whom."""

    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Image files, folders, or glob patterns in quotes, best of one material.",
            show_default=False,
        ),
    ]
    adapter: Annotated[
        str,
        _amounts(
            "--adapter",
            metavar="ADAPTER",
            text="Name or file of the adapter that learns; it stays as it is.",
            show_default=False,
        ),
    ]
    amounts: Annotated[
        Path | None,
        _amounts(
            "--amounts",
            metavar="FILE",
            text="CSV file with the columns image, phase, fraction or percent, and perhaps error. "
            "Phases that it leaves out are unknown.",
            show_default=False,
        ),
    ] = None
    ratio: Annotated[
        list[str] | None,
        _amounts(
            "--ratio",
            metavar="CLASS=SHARE",
            text='How much of a phase there is in each of the images: "pore=2%", with a standard '
            'error "pore=2+-0.5%", or a range "pore=1-3%". Once for each phase that is known.',
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class LessonOutput:
    """Where it goes."""

    output: AdapterOutput
    run: RunFolder = None
    overwrite: Overwrite = False
    json_summary: JsonSummary = False
    quiet: Quiet = False


@dataclass(frozen=True)
class LessonStyle:
    """How it is learnt."""

    believed: Annotated[
        float,
        _learning(
            "--believed",
            metavar="X",
            text="Share of the pixels of each phase that is learnt from, the surest ones.",
        ),
    ] = 0.7
    rate: Annotated[
        float,
        _learning("--rate", metavar="X", text="Learning rate, times that of the default recipe."),
    ] = 0.3
    views: Annotated[
        int | None,
        _learning(
            "--views",
            metavar="N",
            text="Views of the images that are learnt from; 16 for each image, but 24 to 96, when "
            "left out.",
            show_default=False,
        ),
    ] = None
    device: Device = "auto"
    precision: Precision = "auto"
    seed: Seed = 0


@with_options(Lesson, LessonOutput, LessonStyle)
@exits_cleanly
def teach(lesson: Lesson, output: LessonOutput, style: LessonStyle) -> ExitCode:
    """Train an adapter further on images of which only the phase fractions are known."""
    from phasesam.models.adapter_store import card_of
    from phasesam.models.manager import get_manager
    from phasesam.training.fine_tuning import TrainingSettings
    from phasesam.training.ratio_learning import RatioLearning, learn_from_ratios

    console = message_console(output.quiet)
    config = RatioLearning(style.believed, style.rate, style.views)
    target = adapter_target(output.output, replaces=output.overwrite)
    classes = card_of(lesson.adapter).classes
    if not classes:
        raise InvalidSettingError(
            f"{lesson.adapter} has no classes: amounts are for adapters that map phases"
        )
    check_run(output.output, output.run, resume=None, overwrite=output.overwrite)
    examples = read_examples(lesson, classes)
    get_manager().set_device(style.device)
    settings = TrainingSettings(seed=style.seed, device=style.device, precision=style.precision)
    with Interruption(console) as interruption:
        watcher = training_watcher(console, interruption)
        console.print(f"mapping {len(examples)} images, then learning from them")
        with watcher.bar:
            result = learn_from_ratios(
                examples, lesson.adapter, run_folder(output.output, output.run), config,
                settings=settings, callbacks=[watcher],
            )  # fmt: skip
    path = deliver_adapter(result.path, output.output, target)
    report_adapter(result, path, as_json=output.json_summary, quiet=output.quiet)
    return ExitCode.OK


def read_examples(lesson: Lesson, classes: tuple[str, ...]) -> list[RatioExample]:
    """Read the images and what is known about each.

    Raises
    ------
    InvalidSettingError
        If nothing is known, an image is not there or of several planes, or amounts cannot add
        up to 1.
    FileFormatError
        If a file cannot be read.
    """
    from phasesam.formats.readers import read_image
    from phasesam.training.ratio_learning import RatioExample

    jobs = find_jobs(lesson.inputs)
    for job in jobs:
        if job.missing:
            raise InvalidSettingError(f"{job.source}: {job.missing}")
    known = _known(lesson, jobs, classes)
    examples = []
    for job in jobs:
        micrograph = read_image(job.source)
        if micrograph.stack_shape:
            raise InvalidImageError(
                f"{job.source}: expected an image, got a stack (planes: "
                f"{math.prod(micrograph.stack_shape)})"
            )
        image = np.asarray(micrograph.data)[: micrograph.data_bar]
        request = known[job.source]
        examples.append(
            RatioExample(
                job.name, image, request.fractions, request.uncertainty,
                pixel_size=micrograph.pixel_size,
            )
        )  # fmt: skip
    return examples


def _known(
    lesson: Lesson, jobs: Sequence[Job], classes: tuple[str, ...]
) -> Mapping[Path, RatioRequest]:
    """Find the amounts of each image, in the file or the same for all."""
    if (lesson.amounts is None) == (not lesson.ratio):
        got = "both" if lesson.ratio else "neither"
        raise InvalidSettingError(f"teach expects either --amounts or --ratio, got {got}")
    if lesson.amounts is None:
        same = parse_ratio(lesson.ratio or [], classes, "plane", RatioConfig())
        return {job.source: RatioRequest(same.fractions, same.errors) for job in jobs}
    by_name = read_image_shares_csv(lesson.amounts, classes)
    names = names_of_images(lesson.amounts, by_name, jobs)
    found = {}
    for source, name in names.items():
        shares = [by_name[name].get(phase, (None, 0.0)) for phase in classes]
        try:
            found[source] = RatioRequest([f for f, _ in shares], [e for _, e in shares])
        except InvalidSettingError as error:
            raise InvalidSettingError(f"{lesson.amounts}, {name}: {error}") from error
    return found
