"""What is said about a batch: lines while it runs, a table and JSON at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from phasesam import __version__
from phasesam.cli.batch import Outcome, Work
from phasesam.cli.exit_codes import ExitCode
from phasesam.core.errors import PhaseSAMError

_COLOURS = {"ok": "green", "failed": "red", "skipped": "dim", "cancelled": "yellow"}
_MOST_WARNINGS = 5


def line_of(outcome: Outcome) -> str:
    """Say in one line what became of an input, in one more each what to beware of (rich markup)."""
    name = escape(outcome.source.name)
    if outcome.status == "ok":
        line = f"{name}: {_found(outcome)}, {outcome.seconds:.1f} s"
        texts = list(outcome.warnings[:_MOST_WARNINGS])
        if len(outcome.warnings) > _MOST_WARNINGS:
            texts.append(f"{len(outcome.warnings) - _MOST_WARNINGS} more such warnings")
        warnings = [f"  [yellow]Warning:[/] {escape(text)}" for text in texts]
        return "\n".join([line, *warnings])
    if outcome.error is not None:
        # Messages of our readers begin with the name of the file.
        message = _message(outcome.error).removeprefix(f"{outcome.source.name}: ")
        return f"{name}: [red]{escape(message)}[/]"
    return f"{name}: {outcome.status}"


def summary_table(outcomes: Sequence[Outcome]) -> Table:
    """Make the table at the end of a batch."""
    classes = next((list(o.fractions) for o in outcomes if o.fractions is not None), None)
    if classes is not None:
        return _phase_table(outcomes, classes)
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


def _phase_table(outcomes: Sequence[Outcome], classes: list[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("Image", overflow="fold")
    table.add_column("Status")
    for heading in (*classes, "Seconds"):
        table.add_column(escape(heading), justify="right")
    for outcome in outcomes:
        cells = [f"{100 * share:.1f} %" for share in (outcome.fractions or {}).values()]
        table.add_row(
            escape(str(outcome.source)),
            f"[{_COLOURS[outcome.status]}]{outcome.status}[/]",
            *([*cells, f"{outcome.seconds:.1f}"] if outcome.status == "ok" else ()),
        )
    return table


def summary_json(batch: Work, outcomes: Sequence[Outcome], code: ExitCode) -> str:
    """Return the summary for scripts; its keys stay as they are."""
    summary: dict[str, Any] = {
        "phasesam": __version__,
        **batch.summary(),
        "output": str(batch.folder),
        "exit_code": int(code),
        "results": [outcome.as_dict() for outcome in outcomes],
    }
    return json.dumps(summary, indent=2)


def _found(outcome: Outcome) -> str:
    if outcome.fractions is None:
        return _objects(outcome)
    shares = ", ".join(f"{escape(n)} {100 * f:.1f} %" for n, f in outcome.fractions.items())
    return f"{shares}; {outcome.n_planes} planes" if outcome.n_planes > 1 else shares


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
