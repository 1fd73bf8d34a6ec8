"""``phasesam evaluate``: how good labels, adapters and settings are."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from phasesam import __version__
from phasesam.cli.console import exits_cleanly, message_console, output_console
from phasesam.cli.evaluate_options import LabelOptions, MaskFiles, MaskTask, ReportOptions
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import EXIT_STATUS, PanelledCommand, with_examples
from phasesam.cli.options import with_options
from phasesam.core.errors import InvalidMaskError, InvalidSettingError, SaveError

if TYPE_CHECKING:
    from phasesam.evaluation.label_files import LabelPair
    from phasesam.evaluation.report import Report

SCORES_FILE = "scores.csv"
_WIDE = 240
_REPORT_FILES = ("report.html", "report.md", SCORES_FILE)

app = typer.Typer(
    help=with_examples(
        "Measure how good segmentations are.",
        "phasesam evaluate masks results/ truth/ --task semantic --classes matrix,pore",
        "phasesam evaluate masks results/ truth/ --task instance --images images/ -o report",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

MASKS_HELP = with_examples(
    "Compare labels with the truth; print scores, write a report.",
    "phasesam evaluate masks results/ truth/ --task semantic --classes matrix,pore",
    "phasesam evaluate masks maps/ labels/ --task semantic --by-index --unlabelled 255 -o report",
    "phasesam evaluate masks a_labels.tif a_truth.png --task instance --json",
)


@app.command("masks", cls=PanelledCommand, help=MASKS_HELP, epilog=EXIT_STATUS,
             short_help="Compare labels with the truth.")  # fmt: skip
@with_options(MaskFiles, LabelOptions, ReportOptions)
@exits_cleanly
def masks(files: MaskFiles, labels: LabelOptions, output: ReportOptions) -> ExitCode:
    """Compare labels with the truth; print scores, write a report."""
    from phasesam.evaluation.label_files import match_label_files

    refuse_to_replace(output)
    pairs, warnings = match_label_files(
        files.predicted, files.truth, output.images, skip_missing=labels.skip_missing
    )
    tell(warnings)
    title = output.title or f"{files.predicted.name} compared with {files.truth.name}"
    score = _semantic if labels.task is MaskTask.semantic else _instance
    report, columns, values = score(pairs, labels, title)
    deliver(report, columns, values, output)
    return ExitCode.OK


def _semantic(
    pairs: Sequence[LabelPair], labels: LabelOptions, title: str
) -> tuple[Report, Mapping[str, Any], Mapping[str, Any]]:
    from phasesam.evaluation.label_files import ValueChoice, classes_of, is_unlabelled, read_phases
    from phasesam.evaluation.pages import Case, phase_report
    from phasesam.evaluation.phase_maps import PhaseMapSummary, score_phase_map
    from phasesam.evaluation.phase_tables import phase_columns
    from phasesam.evaluation.score_values import phase_values

    choice = ValueChoice(labels.unlabelled, labels.no_class, labels.by_index)
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


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say which image an error is about."""
    try:
        yield
    except InvalidMaskError as error:
        raise InvalidMaskError(f"{name}: {error}") from error


def parse_classes(text: str | None) -> list[str] | dict[int, str] | None:
    """Read names of classes: ``matrix,pore`` or ``0=matrix,128=pore``.

    Raises
    ------
    InvalidSettingError
        If it is neither.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not any("=" in part for part in parts):
        if "" in parts or len(set(parts)) < len(parts):
            raise InvalidSettingError(f"--classes expects different names, got {text!r}")
        return parts
    names = {}
    for part in parts:
        value, _, name = part.partition("=")
        if not value.strip().lstrip("-").isdigit() or not name.strip():
            raise InvalidSettingError(
                f"--classes expects names, or VALUE=NAME for all of them, got {part!r}"
            )
        names[int(value)] = name.strip()
    return names


def refuse_to_replace(output: ReportOptions) -> None:
    """Stop before the work when there is a report already.

    Raises
    ------
    SaveError
        If there is and it may not be replaced.
    """
    if output.output is None or output.overwrite:
        return
    existing = [name for name in _REPORT_FILES if (output.output / name).exists()]
    if existing:
        raise SaveError(
            f"{output.output} holds {', '.join(existing)} already; --overwrite replaces them"
        )


def tell(warnings: Sequence[str]) -> None:
    """Print warnings on standard error."""
    for warning in warnings:
        message_console().print(f"[yellow]Warning:[/] {escape(warning)}")


def deliver(
    report: Report,
    columns: Mapping[str, Any],
    values: Mapping[str, Any],
    output: ReportOptions,
) -> None:
    """Print the scores and write the files that were asked for.

    Raises
    ------
    SaveError
        If a file cannot be written.
    """
    from phasesam.evaluation.report import save_report
    from phasesam.formats.tables import save_table_csv

    files: list[Path] = []
    if output.output is not None:
        files = save_report(report, output.output)
        save_table_csv(output.output / SCORES_FILE, columns)
    if output.json_summary:
        typer.echo(json.dumps({"phasesam": __version__, **values}, indent=2))
        return
    if output.quiet:
        return
    console = output_console()
    for table in report.tables:
        shown = Table(title=escape(table.title), title_justify="left", box=None, pad_edge=False)
        for index, name in enumerate(table.columns):
            shown.add_column(escape(name), justify="right" if index else "left")
        for row in table.rows:
            shown.add_row(*map(escape, row))
        # In a file, rows stay whole.
        console.print(shown, width=None if console.is_terminal else _WIDE)
        console.print()
    if files:
        console.print(escape(str(output.output and output.output / "report.html")))
