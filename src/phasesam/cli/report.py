"""What is said about a batch: lines while it runs, a table and JSON at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from phasesam import __version__
from phasesam.cli.batch import Batch, Outcome
from phasesam.cli.exit_codes import ExitCode
from phasesam.core.errors import PhaseSAMError

_COLOURS = {"ok": "green", "failed": "red", "skipped": "dim", "cancelled": "yellow"}


def line_of(outcome: Outcome) -> str:
    """Say in one line what became of an input (rich markup)."""
    name = escape(outcome.source.name)
    if outcome.status == "ok":
        return f"{name}: {_objects(outcome)}, {outcome.seconds:.1f} s"
    if outcome.error is not None:
        return f"{name}: [red]{escape(_message(outcome.error))}[/]"
    return f"{name}: {outcome.status}"


def summary_table(outcomes: Sequence[Outcome]) -> Table:
    """Make the table at the end of a batch."""
    table = Table(box=None, pad_edge=False)
    table.add_column("Image", overflow="fold")
    table.add_column("Status")
    for heading in ("Objects", "Covered", "Dropped", "Seconds"):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        status = f"[{_COLOURS[outcome.status]}]{outcome.status}[/]"
        figures = (
            str(outcome.objects),
            f"{100 * outcome.coverage:.1f} %",
            str(sum(outcome.dropped.values())),
            f"{outcome.seconds:.1f}",
        )
        table.add_row(
            escape(str(outcome.source)), status, *(figures if outcome.status == "ok" else ())
        )
    return table


def summary_json(batch: Batch, outcomes: Sequence[Outcome], code: ExitCode) -> str:
    """Return the summary for scripts; its keys stay as they are."""
    summary: dict[str, Any] = {
        "phasesam": __version__,
        "model": batch.recipe.model,
        "prompted": batch.recipe.prompts is not None,
        "settings": batch.recipe.as_dict(),
        "output": str(batch.folder),
        "exit_code": int(code),
        "results": [outcome.as_dict() for outcome in outcomes],
    }
    return json.dumps(summary, indent=2)


def _objects(outcome: Outcome) -> str:
    text = f"{outcome.objects} object{'' if outcome.objects == 1 else 's'}"
    if outcome.n_planes > 1:
        text += f" in {outcome.n_planes} planes"
    reasons = ", ".join(f"{count} {name}" for name, count in outcome.dropped.items() if count)
    return text + (f" ({sum(outcome.dropped.values())} dropped: {reasons})" if reasons else "")


def _message(error: Exception) -> str:
    text = str(error) or type(error).__name__
    ours = isinstance(error, (PhaseSAMError, FileNotFoundError))
    return text if ours else f"{type(error).__name__}: {text}"
