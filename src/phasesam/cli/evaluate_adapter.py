"""``phasesam evaluate adapter``: an adapted model beside its base, and beside a U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from phasesam.cli.batch_options import ModelOptions
from phasesam.cli.console import Interruption, exits_cleanly, message_console
from phasesam.cli.evaluate_options import (
    AdapterData,
    ClickOptions,
    CompareOptions,
    ReportOptions,
)
from phasesam.cli.evaluation_output import (
    CLICKS_FILE,
    SCORES_FILE,
    deliver,
    refuse_to_replace,
    tell,
)
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import with_examples
from phasesam.cli.label_meaning import options_as_learnt
from phasesam.cli.label_options import LabelOptions
from phasesam.cli.options import with_options
from phasesam.cli.progress import step_bar
from phasesam.core.errors import InvalidSettingError

if TYPE_CHECKING:
    from phasesam.evaluation.report import Report
    from phasesam.models.adapter_card import AdapterCard
    from phasesam.models.adapter_loading import AdapterVersion
    from phasesam.training.dataset import LabelledImage, TrainingData

HELP = with_examples(
    "Test an adapter on images it has not learnt from. One with classes is scored by its phase "
    "maps, any other by clicks: base and adapted, after one and after n clicks. An instance "
    "adapter's automatic masks are compared with those of its base.",
    "phasesam evaluate adapter teeth/ --adapter teeth -o report",
    "phasesam evaluate adapter steel/ --adapter steel_phases --unet 600 -o report",
    "phasesam evaluate adapter steel/ --adapter steel_phases --split other_test",
)

_AS_PUBLISHED = "default"

Result = tuple["Report", Mapping[str, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class _Job:
    """Everything a comparison needs."""

    data: TrainingData
    images: tuple[LabelledImage, ...]
    card: AdapterCard
    model: str
    adapter: AdapterVersion | str | None
    title: str
    console: Console
    interruption: Interruption
    same_windows: bool = False

    @property
    def window(self) -> int | None:
        """Side of what the base looks at; None for whole images."""
        return self.card.window if self.same_windows else None

    @property
    def views(self) -> tuple[str, ...]:
        """What the two models look at, where they need not look at the same."""
        side = self.card.window
        if side is None:
            return ()
        if self.same_windows:
            return (f"Both models look at parts of {side} pixels of an image.",)
        return (
            f"The adapted model looks at parts of {side} pixels of an image, as it was trained, "
            "the base at the whole image, as published; --same-windows lets it look at such parts.",
        )

    @property
    def introduction(self) -> tuple[str, ...]:
        """What was compared."""
        recipe = self.card.details.get("recipe")
        trained = f", recipe {recipe}" if recipe else ""
        return (f"Adapter for {self.card.task} on {self.model}{trained}.",)


@with_options(AdapterData, LabelOptions, CompareOptions, ClickOptions, ModelOptions, ReportOptions)
@exits_cleanly
def adapter(
    test: AdapterData,
    labels: LabelOptions,
    compare: CompareOptions,
    clicks: ClickOptions,
    model: ModelOptions,
    output: ReportOptions,
) -> ExitCode:
    """Test an adapter on images it has not learnt from."""
    from phasesam.cli.model_setup import choose_model, prepare_model
    from phasesam.evaluation.adapter_scores import baseline_data, choose_images

    if model.adapter is None:
        raise InvalidSettingError("evaluate adapter needs an --adapter")
    refuse_to_replace(output)
    console = message_console(output.quiet)
    chosen = choose_model(model)
    card = chosen.card
    if card is None:
        raise InvalidSettingError(f"{model.adapter} is no adapter")
    if compare.unet is not None and not card.classes:
        raise InvalidSettingError("--unet is for adapters with classes")
    if compare.same_windows and (card.classes or card.window is None):
        raise InvalidSettingError(
            "--same-windows is for adapters of objects that were trained on parts of images"
        )
    data = _read(test, labels, card)
    images, warnings = choose_images(data, card, test.split)
    learnt = data if compare.unet is None else baseline_data(data, card)
    tell(warnings)
    with Interruption(console) as interruption:
        version = prepare_model(model, console, interruption.requested)
        title = output.title or f"{model.adapter} on {test.data.name}"
        job = _Job(
            learnt, images, card, chosen.name, version, title, console, interruption,
            compare.same_windows,
        )  # fmt: skip
        result = _phases(job, compare) if card.classes else _objects(job, compare, clicks)
    deliver(*result, output)
    return ExitCode.OK


def _read(test: AdapterData, labels: LabelOptions, card: AdapterCard) -> TrainingData:
    from phasesam.training.dataset import read_training_data

    return read_training_data(test.data, card.task, **options_as_learnt(test.data, labels, card))


def _phases(job: _Job, compare: CompareOptions) -> Result:
    from phasesam.evaluation.adapter_scores import (
        PhaseMapper,
        Watch,
        adapter_mapper,
        compare_phase_maps,
    )
    from phasesam.evaluation.pages import Case, phase_report
    from phasesam.evaluation.phase_tables import phase_columns
    from phasesam.evaluation.score_values import by_method

    methods: dict[str, PhaseMapper] = {}
    classes = job.data.classes
    mapper = adapter_mapper(job.model, job.adapter, classes, job.card.classes)
    if compare.unet is not None:
        methods["U-Net"] = _unet(job, compare.unet)
    methods["adapted"] = mapper
    with step_bar(job.console, "mapping phases") as progress:
        watch = Watch(progress, job.interruption.requested)
        answers = compare_phase_maps(job.images, methods, classes, watch)

    def case(index: int) -> Case:
        image = job.images[index]
        return image.rgb(), image.label_array(), answers.last[index]

    introduction = job.introduction
    if compare.unet is not None:
        introduction += (
            f"The U-Net was trained from scratch for {compare.unet:g} s on the same images.",
        )
    report = phase_report(job.title, answers.summaries, case, introduction)
    tables = {SCORES_FILE: phase_columns(answers.summaries)}
    return report, tables, {"task": job.card.task, "methods": by_method(answers.summaries)}


def _unet(job: _Job, seconds: float) -> Any:
    from phasesam.evaluation.unet import UNLIMITED_STEPS, UNetConfig, train_unet
    from phasesam.models.manager import get_manager

    config = UNetConfig(steps=UNLIMITED_STEPS, seconds=seconds)
    with step_bar(job.console, "training the U-Net (s)") as progress:
        network = train_unet(
            job.data, config, progress=progress, should_stop=job.interruption.requested,
            device=str(get_manager().device),
        )  # fmt: skip
    return lambda image: network.predict(image.rgb())


def _objects(job: _Job, compare: CompareOptions, options: ClickOptions) -> Result:
    from phasesam.evaluation.cells import ClickConfig, evaluate_cells, opener
    from phasesam.evaluation.click_tables import click_columns
    from phasesam.evaluation.pages import click_report, joined
    from phasesam.evaluation.score_values import cells_values

    config = ClickConfig(
        clicks=min(options.clicks, options.max_clicks),
        max_clicks=options.max_clicks,
        min_area=options.min_area,
        most_objects=options.most_objects,
    )
    with step_bar(job.console, "clicking") as progress:
        cells = evaluate_cells(
            job.images,
            opener(job.model, window=job.window),
            opener(job.model, job.adapter),
            config,
            progress=progress,
            should_stop=job.interruption.requested,
        )

    def case(index: int) -> Any:
        return job.images[index].rgb(), job.images[index].label_array()

    report = click_report(job.title, cells, (*job.introduction, *job.views), case)
    tables: dict[str, Mapping[str, Any]] = {CLICKS_FILE: click_columns(cells)}
    values: dict[str, Any] = {"task": job.card.task, "clicks": cells_values(cells)}
    wanted = compare.automatic
    if wanted or (wanted is None and job.card.task == "instance"):
        found, more, figures = _automatic(job, compare.preset)
        report = joined(job.title, found, report)
        tables, values = {**more, **tables}, {**values, **figures}
    return report, tables, values


def _automatic(job: _Job, preset: str) -> Result:
    from phasesam.evaluation.adapter_scores import Watch, compare_objects, model_finder
    from phasesam.evaluation.instance_tables import instance_columns
    from phasesam.evaluation.pages import Case, instance_report
    from phasesam.evaluation.score_values import by_method

    methods = {"base": model_finder(job.model, None, preset, job.window)}
    if preset != _AS_PUBLISHED:
        methods["base, whole image, SAM's own settings"] = model_finder(
            job.model, None, _AS_PUBLISHED
        )
    methods["adapted"] = model_finder(job.model, job.adapter, preset)
    with step_bar(job.console, "automatic masks") as progress:
        watch = Watch(progress, job.interruption.requested)
        answers = compare_objects(job.images, methods, watch)

    def case(index: int) -> Case:
        image = job.images[index]
        return image.rgb(), image.label_array(), answers.last[index]

    introduction = (
        *job.introduction, f"Automatic masks with the preset {preset}.", *job.views,
    )  # fmt: skip
    report = instance_report(job.title, answers.summaries, case, introduction)
    tables = {SCORES_FILE: instance_columns(answers.summaries)}
    return report, tables, {"methods": by_method(answers.summaries)}
