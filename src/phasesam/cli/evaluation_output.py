"""What the commands of ``phasesam evaluate`` print and write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from phasesam import __version__
from phasesam.cli.console import message_console, output_console
from phasesam.cli.evaluate_options import ReportOptions
from phasesam.core.errors import SaveError

if TYPE_CHECKING:
    from phasesam.evaluation.report import Report

SCORES_FILE, CLICKS_FILE = "scores.csv", "clicks.csv"
_REPORT_FILES = ("report.html", "report.md", SCORES_FILE, CLICKS_FILE)
_WIDE = 240


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
    tables: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Any],
    output: ReportOptions,
) -> None:
    """Print the scores and write the files that were asked for.

    Parameters
    ----------
    report : Report
        For people.
    tables : mapping of str to columns
        CSV files by name.
    values : mapping of str to plain values
        For scripts.
    output : ReportOptions
        What was asked for.

    Raises
    ------
    SaveError
        If a file cannot be written.
    """
    from phasesam.evaluation.report import save_report
    from phasesam.formats.tables import save_table_csv

    if output.output is not None:
        save_report(report, output.output)
        for name, columns in tables.items():
            save_table_csv(output.output / name, columns)
    if output.json_summary:
        typer.echo(json.dumps({"phasesam": __version__, **values}, indent=2))
        return
    if output.quiet:
        return
    console = output_console()
    if not console.is_terminal:
        # In a file, rows stay whole.
        console.width = _WIDE
    for table in report.tables:
        shown = Table(title=escape(table.title), title_justify="left", box=None, pad_edge=False)
        for index, name in enumerate(table.columns):
            shown.add_column(escape(name), justify="right" if index else "left")
        for row in table.rows:
            shown.add_row(*map(escape, row))
        console.print(shown)
        console.print()
    if output.output is not None:
        console.print(escape(str(output.output / "report.html")))
