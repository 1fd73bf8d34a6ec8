"""Adapters under ``phasesam models``: how they are listed and described, and merging one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from phasesam.cli.console import Interruption, exits_cleanly, message_console, output_console
from phasesam.cli.help_pages import with_examples
from phasesam.core.errors import InvalidSettingError, SaveError

if TYPE_CHECKING:
    from phasesam.models.adapter_store import AdapterEntry

MERGE_HELP = with_examples(
    "Write a model and its adapter as one checkpoint, for other tools too.",
    "phasesam models merge powder -o powder_vit_b.pth",
)


def describe(entry: AdapterEntry) -> dict[str, Any]:
    """Return what is known about an adapter as plain values; ``trouble`` if it is damaged."""
    card = entry.card
    about: dict[str, Any] = {"name": entry.name, "path": str(entry.path)}
    if card is None:
        return {**about, "trouble": entry.trouble}
    return {
        **about,
        "base": card.base,
        "base_sha256": card.base_hash,
        "task": card.task,
        "classes": list(card.classes),
        "size_bytes": entry.stamp.size,
        "settings": card.config.to_dict(),
        "details": dict(card.details),
    }


def by_base() -> dict[str | None, list[AdapterEntry]]:
    """Return the adapters of the store by the name of their base; damaged ones under None."""
    from phasesam.models.adapter_store import list_adapters

    found: dict[str | None, list[AdapterEntry]] = {}
    for entry in list_adapters():
        found.setdefault(None if entry.card is None else entry.card.base, []).append(entry)
    return found


def table_row(entry: AdapterEntry) -> tuple[str, str, str, str, str]:
    """Return the cells of an adapter in the table of models (rich markup)."""
    name = f"  + {escape(entry.name)}"
    if entry.card is None:
        return name, escape(entry.trouble), "[red]damaged[/]", "", ""
    card = entry.card
    task = ", ".join(card.classes) if card.classes else card.task
    size = f"{entry.stamp.size / 1e6:.1f} MB"
    licence = str(card.details.get("licence") or "")
    return name, escape(f"adapter: {task}"), "[green]on disk[/]", size, escape(licence)


@exits_cleanly
def merge(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Name or file of an adapter.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="CHECKPOINT",
            help="File to write: .safetensors, or .pth as segment_anything reads it.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="The base, where it has another name here than where the adapter was trained.",
            show_default=False,
        ),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            "--adapter-strength",
            metavar="S",
            min=0.0,
            max=1.0,
            help="How much of the adapter goes in, 0 to 1.",
        ),
    ] = 1.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write a model and its adapter as one checkpoint, for other tools too."""
    from phasesam.models.merging import save_merged

    if output.exists() and not overwrite:
        raise SaveError(f"{output} exists already; give --overwrite to replace it")
    if not output.parent.is_dir():
        raise InvalidSettingError(f"there is no folder {output.parent}")
    with Interruption(message_console()) as interruption:
        spec = save_merged(
            adapter, output, base=model, strength=strength, should_stop=interruption.requested
        )
    decoder = "SAM-HQ" if spec.decoder == "hq" else "SAM"
    output_console().print(f"{escape(str(output))}: {spec.architecture} encoder, {decoder} decoder")
