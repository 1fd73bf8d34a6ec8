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
from phasesam.models.adapter_loading import Adapter, AdapterVersion

_COLOURS = {"ok": "green", "failed": "red", "skipped": "dim", "cancelled": "yellow"}
_MOST_WARNINGS = 5


def line_of(outcome: Outcome) -> str:
    """Say in one line what became of an input, in one more each what to beware of (rich markup)."""
    name = escape(outcome.source.name)
    if outcome.status == "ok":
        line = f"{name}: {_objects(outcome)}, {outcome.seconds:.1f} s"
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
        **adapter_summary(batch.recipe.adapter),
        "prompted": batch.recipe.prompts is not None,
        "settings": batch.recipe.as_dict(),
        "output": str(batch.folder),
        "exit_code": int(code),
        "results": [outcome.as_dict() for outcome in outcomes],
    }
    return json.dumps(summary, indent=2)


def adapter_summary(adapter: Adapter) -> dict[str, Any]:
    """Name an adapter in a summary: its name, content and strength; None for none."""
    if not isinstance(adapter, AdapterVersion):
        return {"adapter": adapter and str(adapter)}
    return {
        "adapter": adapter.name,
        "adapter_sha256": adapter.content_hash,
        "adapter_strength": adapter.strength,
    }


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
