"""``phasesam evaluate``: how good labels, adapters and settings are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from phasesam.cli import evaluate_ablation, evaluate_adapter, evaluate_ratio
from phasesam.cli.console import exits_cleanly
from phasesam.cli.evaluate_options import (
    LabelOptions,
    MaskFiles,
    MaskTask,
    ReportOptions,
)
from phasesam.cli.evaluation_output import SCORES_FILE, deliver, refuse_to_replace, tell
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import EXIT_STATUS, PanelledCommand, with_examples
from phasesam.cli.label_options import parse_classes
from phasesam.cli.options import with_options
from phasesam.core.errors import InvalidMaskError, InvalidSettingError

if TYPE_CHECKING:
    from phasesam.evaluation.label_files import LabelPair
    from phasesam.evaluation.report import Report

app = typer.Typer(
    help=with_examples(
        "Measure how good segmentations are.",
        "phasesam evaluate masks maps/ truth/ --task semantic --classes matrix,pore",
        "phasesam evaluate masks results/ truth/ --task instance -o report",
        "phasesam evaluate adapter teeth/ --adapter teeth -o report",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

MASKS_HELP = with_examples(
    "Compare labels with the truth; print scores, write a report.",
    "phasesam evaluate masks maps/ truth/ --task semantic --classes matrix,pore",
    "phasesam evaluate masks maps/ labels/ --task semantic --by-index",
    "phasesam evaluate masks a_labels.tif a_truth.png --task instance --json",
)


_STRAY = (
    "predictions hold values that no truth has ({}); if they are indices of the classes, as "
    "phasesam predict writes them, add --by-index"
)


@app.command(
    "masks",
    cls=PanelledCommand,
    help=MASKS_HELP,
    short_help="Compare labels with the truth.",
    epilog=EXIT_STATUS,
)
@with_options(MaskFiles, LabelOptions, ReportOptions)
@exits_cleanly
def masks(files: MaskFiles, labels: LabelOptions, output: ReportOptions) -> ExitCode:
    """Compare labels with the truth; print scores, write a report."""
    from phasesam.evaluation.label_files import match_label_files

    refuse_to_replace(output)
    pairs, warnings = match_label_files(
        files.predicted, files.truth, labels.images, skip_missing=labels.skip_missing
    )
    tell(warnings)
    title = output.title or f"{files.predicted.name} compared with {files.truth.name}"
    score = _semantic if labels.task is MaskTask.semantic else _instance
    report, columns, values = score(pairs, labels, title)
    deliver(report, {SCORES_FILE: columns}, values, output)
    return ExitCode.OK


def _semantic(
    pairs: Sequence[LabelPair], labels: LabelOptions, title: str
) -> tuple[Report, Mapping[str, Any], Mapping[str, Any]]:
    from phasesam.evaluation.label_files import (
        ValueChoice,
        classes_of,
        is_unlabelled,
        read_phases,
        stray_values,
    )
    from phasesam.evaluation.pages import Case, phase_report
    from phasesam.evaluation.phase_maps import PhaseMapSummary, score_phase_map
    from phasesam.evaluation.phase_tables import phase_columns
    from phasesam.evaluation.score_values import phase_values

    choice = ValueChoice(labels.unlabelled, labels.no_class, labels.by_index)
    strays = stray_values(pairs, choice)
    if strays:
        tell([_STRAY.format(", ".join(map(str, strays)))])
    classes = classes_of(pairs, parse_classes(labels.classes), choice)
    values = list(classes)
    kept, scores = [], []
    for pair in pairs:
        predicted, truth = read_phases(pair, values, choice)
        if is_unlabelled(truth):
            continue
        kept.append(pair)
        with _naming(pair.name):
            scores.append(score_phase_map(predicted, truth, len(values)))
    if not scores:
        raise InvalidSettingError(
            f"expected labelled pixels in the truth, got none in {len(pairs)} images"
        )
    summary = PhaseMapSummary(
        tuple(scores),
        tuple(classes.values()),
        tuple(pair.name for pair in kept),
        tuple(pair.group for pair in kept),
    )

    def case(index: int) -> Case:
        predicted, truth = read_phases(kept[index], values, choice)
        return kept[index].rgb((truth.shape[0], truth.shape[1])), truth, predicted

    report = phase_report(title, {"predicted": summary}, case)
    return report, phase_columns({"predicted": summary}), phase_values(summary)


def _instance(
    pairs: Sequence[LabelPair], labels: LabelOptions, title: str
) -> tuple[Report, Mapping[str, Any], Mapping[str, Any]]:
    from phasesam.evaluation.instance_tables import instance_columns
    from phasesam.evaluation.instances import InstanceSummary, score_image
    from phasesam.evaluation.label_files import is_unlabelled, read_objects
    from phasesam.evaluation.pages import Case, instance_report
    from phasesam.evaluation.score_values import instance_values

    if labels.classes is not None or labels.by_index:
        raise InvalidSettingError("--classes and --by-index are for --task semantic")
    kept, images = [], []
    for pair in pairs:
        predicted, truth = read_objects(pair, labels.unlabelled)
        if is_unlabelled(truth):
            continue
        kept.append(pair)
        with _naming(pair.name):
            images.append(score_image(predicted, truth))
    summary = InstanceSummary(
        tuple(images), tuple(pair.name for pair in kept), tuple(pair.group for pair in kept)
    )

    def case(index: int) -> Case:
        predicted, truth = read_objects(kept[index], labels.unlabelled)
        return kept[index].rgb((truth.shape[0], truth.shape[1])), truth, predicted

    report = instance_report(title, {"predicted": summary}, case)
    return report, instance_columns({"predicted": summary}), instance_values(summary)


app.command(
    "adapter",
    cls=PanelledCommand,
    help=evaluate_adapter.HELP,
    short_help="Compare an adapted model with its base.",
    epilog=EXIT_STATUS,
)(evaluate_adapter.adapter)
app.command(
    "ablation",
    cls=PanelledCommand,
    help=evaluate_ablation.HELP,
    short_help="Compare recipes, ranks and learning rates.",
    epilog=EXIT_STATUS,
)(evaluate_ablation.ablation)
app.command(
    "ratio",
    cls=PanelledCommand,
    help=evaluate_ratio.HELP,
    short_help="Compare ways of using a phase ratio.",
    epilog=EXIT_STATUS,
)(evaluate_ratio.ratio)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say which image an error is about."""
    try:
        yield
    except InvalidMaskError as error:
        raise InvalidMaskError(f"{name}: {error}") from error
