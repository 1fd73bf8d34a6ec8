"""``phasesam evaluate ablation``: which recipe, rank and learning rate, honestly compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from rich.markup import escape

from phasesam.cli.batch_options import panel
from phasesam.cli.console import Interruption, exits_cleanly, message_console
from phasesam.cli.evaluate_options import ReportOptions
from phasesam.cli.evaluation_output import (
    CLICKS_FILE,
    SCORES_FILE,
    deliver,
    refuse_to_replace,
    tell,
)
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import with_examples
from phasesam.cli.label_options import LabelOptions
from phasesam.cli.options import with_options
from phasesam.cli.progress import step_bar
from phasesam.cli.train import build_recipe, read_data, refuse_other_task, use_device
from phasesam.cli.train_options import DataChoice, RecipeChoice, TrainModel
from phasesam.core.errors import InvalidSettingError

if TYPE_CHECKING:
    from phasesam.evaluation.ablation import Trial
    from phasesam.evaluation.adapter_scores import Watch
    from phasesam.evaluation.report import Report, Table
    from phasesam.training.dataset import LabelledImage, TrainingData
    from phasesam.training.recipes import Recipe

HELP = with_examples(
    "Train variants of recipes, each at several learning rates; choose the rate of each variant "
    "on the validation images, then test it once.",
    "phasesam evaluate ablation steel/ -o ablation --task semantic --ranks 4,16",
    "phasesam evaluate ablation steel/ -o ablation --recipes default,one-image",
)

_variants = panel("Variants")


@dataclass(frozen=True)
class VariantOptions:
    """What is varied."""

    recipes: Annotated[
        str,
        _variants(
            "--recipes",
            metavar="NAMES",
            text="Recipes to compare: names, or files ending in .json; see: phasesam recipes.",
        ),
    ] = "default"
    ranks: Annotated[
        str | None,
        _variants(
            "--ranks",
            metavar="N,N",
            text="Ranks to compare; the recipes' own when left out.",
            show_default=False,
        ),
    ] = None
    rates: Annotated[
        str,
        _variants(
            "--rates", metavar="X,X", text="By which the recipes' learning rates are multiplied."
        ),
    ] = "0.3,1,3"
    set: Annotated[
        list[str] | None,
        _variants(
            "--set",
            metavar="KEY=VALUE",
            text="A setting of all recipes: --set epochs=5. May be repeated.",
            show_default=False,
        ),
    ] = None
    unet: Annotated[
        float | None,
        _variants(
            "--unet",
            metavar="SECONDS",
            min=1,
            text="Also train a U-Net for so long; for --task semantic.",
            show_default=False,
        ),
    ] = None
    most_objects: Annotated[
        int | None,
        _variants(
            "--most-objects",
            metavar="N",
            min=1,
            text="Click on so many objects per image at most; all when left out.",
            show_default=False,
        ),
    ] = None
    trials: Annotated[
        Path | None,
        _variants(
            "--trials",
            metavar="FOLDER",
            text="Where the trainings go, and are found again; trials in the output folder when "
            "left out.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class _Job:
    """What is compared on what."""

    data: TrainingData
    images: tuple[LabelledImage, ...]
    model: str
    options: VariantOptions
    console: Console
    interruption: Interruption

    def watch(self, progress: Any) -> Watch:
        """Follow work with a bar and Ctrl+C."""
        from phasesam.evaluation.adapter_scores import Watch

        return Watch(progress, self.interruption.requested)


Tested = tuple["Report", Mapping[str, Mapping[str, Any]], Mapping[str, Any]]


@with_options(DataChoice, LabelOptions, VariantOptions, TrainModel, ReportOptions)
@exits_cleanly
def ablation(
    choice: DataChoice,
    labels: LabelOptions,
    variants: VariantOptions,
    model: TrainModel,
    output: ReportOptions,
) -> ExitCode:
    """Train variants of recipes; choose rates on validation images, test once."""
    from phasesam.evaluation.ablation import trial_table, tune_rates, variants_of
    from phasesam.evaluation.adapter_scores import with_labels
    from phasesam.training.data_checks import check
    from phasesam.training.fine_tuning import TrainingSettings

    if output.output is None and variants.trials is None:
        raise InvalidSettingError("evaluate ablation needs --output, or --trials")
    refuse_to_replace(output)
    console = message_console(output.quiet)
    recipes = [_recipe(name, variants) for name in variants.recipes.split(",")]
    compared = variants_of(recipes, [int(n) for n in _numbers("--ranks", variants.ranks)])
    factors = _numbers("--rates", variants.rates)
    data = read_data(choice, labels, recipes[0], model.seed)
    images, blank = with_labels(data.of("test"))
    tell(blank)
    if not images:
        raise InvalidSettingError(
            f"an ablation needs test images; the data have the splits {', '.join(data.splits)}"
        )
    if variants.unet is not None and data.task != "semantic":
        raise InvalidSettingError("--unet is for --task semantic")
    for recipe in recipes:
        refuse_other_task(recipe, data.task)
    # The adapters are asked where they were trained.
    use_device(model.device)
    settings = TrainingSettings(
        recipes[0], base=model.model, seed=model.seed, device=model.device,
        precision=model.precision,
    )  # fmt: skip
    folder = variants.trials or Path(output.output or ".") / "trials"
    with Interruption(console) as interruption:
        for warning in check(data, should_stop=interruption.requested).warnings:
            console.print(f"[yellow]Warning:[/] {escape(warning)}")
        job = _Job(data, images, model.model, variants, console, interruption)
        with step_bar(console, "training") as progress:
            trials = tune_rates(data, folder, compared, settings, factors, job.watch(progress))
        test = _phases if data.task == "semantic" else _clicks
        report, tables, values = test(job, trials, trial_table(trials))
    deliver(report, tables, {**values, "trials": _trial_values(trials)}, output)
    return ExitCode.OK


def _phases(job: _Job, trials: tuple[Trial, ...], tuning: Table) -> Tested:
    from phasesam.evaluation.ablation import best_trials
    from phasesam.evaluation.adapter_scores import PhaseMapper, adapter_mapper, compare_phase_maps
    from phasesam.evaluation.pages import Case, phase_report
    from phasesam.evaluation.phase_tables import phase_columns
    from phasesam.evaluation.score_values import by_method
    from phasesam.evaluation.unet import UNLIMITED_STEPS, UNetConfig, train_unet
    from phasesam.models.manager import get_manager

    classes = job.data.classes
    methods: dict[str, PhaseMapper] = {}
    if job.options.unet is not None:
        config = UNetConfig(steps=UNLIMITED_STEPS, seconds=job.options.unet)
        with step_bar(job.console, "training the U-Net (s)") as progress:
            network = train_unet(
                job.data, config, progress=progress, should_stop=job.interruption.requested,
                device=str(get_manager().device),
            )  # fmt: skip
        methods["U-Net"] = lambda image: network.predict(image.rgb())
    for name, trial in best_trials(trials).items():
        methods[name] = adapter_mapper(job.model, str(trial.path), classes, classes)
    with step_bar(job.console, "mapping phases") as progress:
        answers = compare_phase_maps(job.images, methods, classes, job.watch(progress))

    def case(index: int) -> Case:
        image = job.images[index]
        return image.rgb(), image.label_array(), answers.last[index]

    report = phase_report("Ablation", answers.summaries, case, _RULES)
    tables = {SCORES_FILE: phase_columns(answers.summaries)}
    return _with_table(report, tuning), tables, {"methods": by_method(answers.summaries)}


def _clicks(job: _Job, trials: tuple[Trial, ...], tuning: Table) -> Tested:
    from phasesam.evaluation.ablation import best_trials, click_variant_table, click_variants
    from phasesam.evaluation.cells import ClickConfig, opener
    from phasesam.evaluation.click_tables import curve_columns, curve_plot
    from phasesam.evaluation.report import INTERVAL_NOTE, Report
    from phasesam.evaluation.score_values import curve_values

    openers = {"base": opener(job.model)}
    for name, trial in best_trials(trials).items():
        openers[name] = opener(job.model, str(trial.path))
    config = ClickConfig(most_objects=job.options.most_objects)
    with step_bar(job.console, "clicking") as progress:
        curves = click_variants(job.images, openers, config, job.watch(progress))
    report = Report(
        "Ablation",
        (*_RULES, INTERVAL_NOTE),
        (click_variant_table(curves),),
        (curve_plot(dict(list(curves.items())[:5])),),
    )
    values = {name: curve_values(of, config.clicks) for name, of in curves.items()}
    return _with_table(report, tuning), {CLICKS_FILE: curve_columns(curves)}, {"methods": values}


_RULES = (
    "Every variant was trained at several learning rates. The rate of each was chosen on the "
    "validation images; the test images were looked at once, with that rate.",
)


def _with_table(report: Report, table: Table) -> Report:
    """Put the tuning before the test."""
    from dataclasses import replace

    return replace(report, tables=(table, *report.tables))


def _trial_values(trials: tuple[Trial, ...]) -> list[dict[str, Any]]:
    return [
        {
            "variant": trial.variant,
            "rate_factor": trial.factor,
            "lr_encoder": trial.rate,
            "val_score": None if trial.score != trial.score else round(trial.score, 6),
            "seconds": None if trial.seconds != trial.seconds else trial.seconds,
            "parameters": trial.parameters,
            "adapter": str(trial.path),
        }
        for trial in trials
    ]


def _recipe(name: str, options: VariantOptions) -> Recipe:
    return build_recipe(RecipeChoice(recipe=name.strip(), set=options.set))


def _numbers(option: str, text: str | None) -> list[float]:
    """Read numbers separated by commas."""
    try:
        numbers = [float(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise InvalidSettingError(
            f"{option} takes numbers separated by commas, got {text!r}"
        ) from error
    if any(not n > 0 for n in numbers) or (option == "--ranks" and any(n % 1 for n in numbers)):
        raise InvalidSettingError(f"{option} takes positive numbers, got {text!r}")
    return numbers
