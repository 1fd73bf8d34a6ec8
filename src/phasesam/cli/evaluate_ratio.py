"""``phasesam evaluate ratio``: what it gains to know how much of each phase there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console

from phasesam.cli.batch_options import panel
from phasesam.cli.console import Interruption, exits_cleanly, message_console
from phasesam.cli.evaluate_options import ReportOptions
from phasesam.cli.evaluation_output import SCORES_FILE, deliver, refuse_to_replace
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import with_examples
from phasesam.cli.label_options import LabelOptions
from phasesam.cli.options import with_options
from phasesam.cli.progress import step_bar
from phasesam.cli.train import build_recipe, read_data, use_device
from phasesam.cli.train_options import DataChoice, RecipeChoice, TaskName, TrainModel
from phasesam.core.errors import InvalidSettingError

if TYPE_CHECKING:
    from phasesam.evaluation.ratio_requests import Fractions
    from phasesam.evaluation.ratio_trials import Method, Networks, Outcome, Request
    from phasesam.evaluation.report import Picture
    from phasesam.training.dataset import TrainingData
    from phasesam.training.fine_tuning import TrainingSettings

HELP = with_examples(
    "Train networks that take phase fractions in several ways, test them by specimen with true, "
    "uncertain and wrong requests, and compare them with the solver.",
    "phasesam evaluate ratio steel/ -o ratio --folds 3",
    'phasesam evaluate ratio steel/ -o r --specimen "(spot\\d+)" --set epochs=8',
    'phasesam evaluate ratio steel/ -o r --methods "no guidance,solver alone"',
)

_ratio = panel("Ratio")


@dataclass(frozen=True)
class RatioOptions:
    """What is tried."""

    folds: Annotated[
        int, _ratio("--folds", metavar="N", min=2, text="Parts of the specimens, tested in turn.")
    ] = 3
    specimen: Annotated[
        str | None,
        _ratio(
            "--specimen",
            metavar="PATTERN",
            text="Regular expression: what its first group finds in the name of an image is the "
            "specimen. As the data say when left out.",
            show_default=False,
        ),
    ] = None
    train_images: Annotated[
        int | None,
        _ratio(
            "--train-images",
            metavar="N",
            min=1,
            text="Images that each network learns from at most, specimens in turn: what a ratio is "
            "worth to somebody who has labelled a handful. All when left out.",
            show_default=False,
        ),
    ] = None
    methods: Annotated[
        str | None,
        _ratio(
            "--methods",
            metavar="NAMES",
            text="Names of the methods to compare, as they are in the table; the first is what "
            "the others are compared with. All that need no --teach when left out.",
            show_default=False,
        ),
    ] = None
    teach: Annotated[
        bool,
        _ratio(
            "--teach",
            text="Also networks that first learn from the images they are tested on, without "
            "their masks: by the amounts. One more training per specimen and request.",
        ),
    ] = False
    errors: Annotated[
        str,
        _ratio(
            "--errors", metavar="X,X", text="Standard errors of requests that are not quite true."
        ),
    ] = "0.02,0.05,0.1"
    draws: Annotated[
        int, _ratio("--draws", metavar="N", min=1, text="Requests per image and standard error.")
    ] = 3
    orientations: Annotated[
        int,
        _ratio(
            "--orientations",
            metavar="N",
            text="Look at each window once, twice or 4 times (turned and mirrored).",
        ),
    ] = 2
    recipe: Annotated[
        str, _ratio("--recipe", metavar="NAME", text="How the networks are trained.")
    ] = "default"
    set: Annotated[
        list[str] | None,
        _ratio(
            "--set",
            metavar="KEY=VALUE",
            text="A setting of the recipe: --set epochs=5. May be repeated.",
            show_default=False,
        ),
    ] = None
    trials: Annotated[
        Path | None,
        _ratio(
            "--trials",
            metavar="FOLDER",
            text="Where the trainings go, and are found again; trials in the output folder when "
            "left out.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class _Job:
    """What is tried on what."""

    folds: list[TrainingData]
    methods: tuple[Method, ...]
    settings: TrainingSettings
    options: RatioOptions
    folder: Path
    console: Console
    interruption: Interruption


@with_options(DataChoice, LabelOptions, RatioOptions, TrainModel, ReportOptions)
@exits_cleanly
def ratio(
    choice: DataChoice,
    labels: LabelOptions,
    options: RatioOptions,
    model: TrainModel,
    output: ReportOptions,
) -> ExitCode:
    """Compare ways of using a phase ratio, tested by specimen."""
    from phasesam.engines.semantic import PhaseMapConfig
    from phasesam.evaluation.ratio_requests import refuse_unlabelled
    from phasesam.training.fine_tuning import TrainingSettings
    from phasesam.training.folds import specimen_folds

    if output.output is None and options.trials is None:
        raise InvalidSettingError("evaluate ratio needs --output, or --trials")
    if choice.task not in (None, TaskName.semantic):
        raise InvalidSettingError("a phase ratio is of phases: --task semantic")
    refuse_to_replace(output)
    methods, errors = chosen_methods(options.methods, options.teach), _numbers(options.errors)
    # Refused before the networks are trained, not after.
    PhaseMapConfig(orientations=options.orientations)
    recipe = build_recipe(RecipeChoice(recipe=options.recipe, set=options.set))
    data = read_data(replace(choice, task=TaskName.semantic), labels, recipe, model.seed)
    data = with_specimens(data, options.specimen)
    refuse_unlabelled(data.images, data.classes)
    settings = TrainingSettings(
        recipe, base=model.model, seed=model.seed, device=model.device, precision=model.precision
    )
    # The networks are asked where they were trained.
    use_device(model.device)
    console = message_console(output.quiet)
    folds = specimen_folds(data, options.folds, model.seed, most=options.train_images)
    folder = options.trials or Path(output.output or ".") / "trials"
    with Interruption(console) as interruption:
        job = _Job(folds, methods, settings, options, folder, console, interruption)
        outcomes = _tested(job, errors)
        pictures = _pictures(job) if output.output is not None else ()
    _deliver(outcomes, methods, errors, pictures, data.classes, output)
    return ExitCode.OK


def chosen_methods(text: str | None, teach: bool = False) -> tuple[Method, ...]:
    """Find methods by their names, separated by commas.

    None is for all of them, those that are taught only with `teach`.

    Raises
    ------
    InvalidSettingError
        If one is not known, or there are fewer than two. A comma within a name is part of it.
    """
    from phasesam.evaluation.ratio_trials import METHODS

    if text is None:
        return tuple(method for method in METHODS if teach or method.taught == "none")
    by_name = {method.name: method for method in METHODS}
    found, rest = [], text.strip()
    while rest:
        # Longest first: one name begins another.
        name = next((n for n in sorted(by_name, key=len, reverse=True) if rest.startswith(n)), None)
        after = "" if name is None else rest[len(name) :].lstrip()
        if name is None or (after and not after.startswith(",")):
            raise InvalidSettingError(
                f"--methods knows {'; '.join(by_name)}, got {rest.split(',')[0]!r}"
            )
        if by_name[name] in found:
            raise InvalidSettingError(f"--methods names {name!r} twice")
        found.append(by_name[name])
        rest = after[1:].lstrip()
    if len(found) < 2:
        raise InvalidSettingError("--methods expects at least two, to be compared")
    if found[0].uses_ratio or found[0].boxes:
        raise InvalidSettingError(
            f"the others are compared with the first of --methods, which hears nothing: "
            f"{METHODS[0].name}, not {found[0].name}"
        )
    return tuple(found)


def with_specimens(data: TrainingData, pattern: str | None) -> TrainingData:
    """Take the specimen of each image from its name.

    Raises
    ------
    InvalidSettingError
        If the pattern is none, or does not fit a name.
    """
    if pattern is None:
        return data
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidSettingError(f"--specimen is no regular expression: {error}") from error
    images = []
    for image in data.images:
        match = compiled.search(image.name)
        if match is None or not match.groups() or not match[1]:
            raise InvalidSettingError(f"--specimen finds no group in the name {image.name!r}")
        images.append(replace(image, specimen=match[1]))
    return replace(data, images=tuple(images))


def _tested(job: _Job, errors: Sequence[float]) -> list[Outcome]:
    """Train and test fold by fold."""
    from phasesam.evaluation.adapter_scores import Watch
    from phasesam.evaluation.ratio_trials import ask_all, networks_of, train_networks

    outcomes: list[Outcome] = []
    names = networks_of(job.methods)
    for number, fold in enumerate(job.folds):
        where = job.folder / f"fold{number}"
        job.console.print(f"fold {number + 1} of {len(job.folds)}: training {', '.join(names)}")
        stop = Watch(should_stop=job.interruption.requested)
        adapters = train_networks(fold, where, names, job.settings, stop)
        with step_bar(job.console, f"fold {number + 1}: mapping") as progress:
            watch = Watch(progress, job.interruption.requested)
            requests = requests_of(errors, job.options.draws)
            networks = _networks(job, fold, where, adapters, requests)
            outcomes += ask_all(fold.of("test"), networks, job.methods, requests, watch)
    # Methods in their order, whatever the fold.
    order = {method.name: i for i, method in enumerate(job.methods)}
    return sorted(outcomes, key=lambda o: order[o.method])


def _networks(
    job: _Job,
    fold: TrainingData,
    folder: Path,
    adapters: Mapping[str, Path],
    requests: Callable[[Fractions], Sequence[Request]],
) -> Networks:
    """Put together who is asked about a fold."""
    from phasesam.evaluation.adapter_scores import Watch
    from phasesam.evaluation.ratio_teaching import Teacher
    from phasesam.evaluation.ratio_trials import Networks

    stop = Watch(should_stop=job.interruption.requested)
    teacher = Teacher(fold.of("test"), folder / "taught", requests, job.settings, stop)
    return Networks(job.settings.base, adapters, job.options.orientations, teacher)


def requests_of(errors: Sequence[float], draws: int) -> Callable[[Fractions], list[Request]]:
    """Make what is asked about each image: true, off by an error, wrong."""
    import numpy as np

    from phasesam.evaluation.ratio_requests import DOUBT, WRONG, off_by
    from phasesam.evaluation.ratio_trials import Request

    def make(true: Fractions) -> list[Request]:
        asked = [
            Request(name, change(true), doubt=0.0 if name == "true" else DOUBT)
            for name, change in WRONG.items()
        ]
        for error in errors:
            for draw in range(draws):
                # The same draws for all methods and runs; other ones for other images.
                seed = [draw, *(int(1e6 * f) for f in true)]
                wanted = off_by(true, error, np.random.default_rng(seed))
                asked.append(Request(error_name(error), wanted, error, draw=draw))
        return asked

    return make


def error_name(error: float) -> str:
    """Name of requests that are off by a standard error."""
    return f"off by {error:g}"


def _deliver(
    outcomes: list[Outcome],
    methods: tuple[Method, ...],
    errors: Sequence[float],
    pictures: tuple[Picture, ...],
    classes: tuple[str, ...],
    output: ReportOptions,
) -> None:
    from phasesam.evaluation.ratio_tables import (
        error_table,
        method_table,
        outcome_columns,
        summary,
        wrong_table,
    )
    from phasesam.evaluation.report import INTERVAL_NOTE, Report

    tables = [method_table(outcomes)]
    if errors:
        tables.append(error_table(outcomes, ["true", *map(error_name, errors)]))
    tables.append(wrong_table(outcomes, [m.name for m in methods if m.uses_ratio]))
    report = Report(
        output.title or "Phase ratio",
        (f"Classes: {', '.join(classes)}.", *_RULES, INTERVAL_NOTE),
        tuple(tables),
        pictures=pictures,
    )
    values = {"classes": list(classes), "requests": summary(outcomes)}
    deliver(report, {SCORES_FILE: outcome_columns(outcomes)}, values, output)


_RULES = (
    "Networks were trained on all folds of the specimens but one, and tested on that one. v0: a "
    "map per share, added to the embedding; v1: features times an embedding of the shares; v2: "
    "phases change the features where the image looks like them, and prompt the decoder. exact: "
    "the solver meets the request; trust: as far as its standard error allows; fewest changes: it "
    "meets it with as few changed pixels as it can. Boxes are those of the truth. self-taught, "
    "taught: the network first learns from the images of the specimen, without their masks, by "
    "what it sees there, or by maps that have the amounts.",
    "Requests: true; off by a standard error, told to v2 and to the trusting solver; swapped: the "
    "two largest phases change their shares; shifted: 0.2 goes from the largest to the second; "
    "zero: the rarest phase is denied. Wrong requests are told to be exact, but those that trust "
    "are told a standard error of 0.1.",
)


def _pictures(job: _Job) -> tuple[Picture, ...]:
    """Show where pixels change, for the first image that is tested."""
    from phasesam.evaluation.ratio_pictures import change_pictures
    from phasesam.evaluation.ratio_trials import networks_of, train_networks

    fold = job.folds[0]
    names = networks_of(job.methods)
    adapters = train_networks(fold, job.folder / "fold0", names, job.settings)
    asked = requests_of((), 1)
    networks = _networks(job, fold, job.folder / "fold0", adapters, asked)
    return change_pictures(fold.of("test")[0], networks, job.methods, asked)


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InvalidSettingError(f"--errors takes numbers, got {text!r}") from error
    if any(not 0 < x <= 1 for x in found):
        raise InvalidSettingError(f"--errors takes standard errors within 0–1, got {text!r}")
    return found
