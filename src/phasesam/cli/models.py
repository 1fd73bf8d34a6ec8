"""``phasesam models``: what models and adapters there are, fetching them, taking in one's own."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from phasesam.cli import adapters
from phasesam.cli.console import Interruption, exits_cleanly, message_console, output_console
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import with_examples
from phasesam.cli.progress import transfer_bar

if TYPE_CHECKING:
    from phasesam.models.registry import ModelSpec

app = typer.Typer(
    help=with_examples(
        "List, fetch and import models and adapters.",
        "phasesam models list",
        "phasesam models download sam_vit_b",
        "phasesam segment powder.tif -o results --model sam_vit_b",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _size(size_bytes: int | None) -> str:
    return "" if not size_bytes else f"{size_bytes / 1e6:.0f} MB"


def _as_dict(spec: ModelSpec) -> dict[str, Any]:
    from phasesam.models.registry import where

    fields = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(spec).items()}
    return {**fields, "where": where(spec)}


@app.command(
    "list",
    help=with_examples(
        "List the models with their adapters, and where the weights are.",
        "phasesam models list",
        "phasesam models list --json",
    ),
)
@exits_cleanly
def list_all(as_json: AsJson = False) -> None:
    """List the models with their adapters, and where the weights are."""
    from phasesam.models.registry import DEFAULT_MODEL, list_models

    specs, found = list_models(), adapters.by_base()
    homeless = [
        e for base, own in found.items() if base not in {s.name for s in specs} for e in own
    ]
    if as_json:
        entries = [
            {**_as_dict(spec), "adapters": [adapters.describe(e) for e in found.get(spec.name, [])]}
            for spec in specs
        ]
        if homeless:
            entries.append({"name": None, "adapters": [adapters.describe(e) for e in homeless]})
        typer.echo(json.dumps(entries, indent=2))
        return
    table = Table("Name", "Model", "Weights", "Size", "Licence", box=None, pad_edge=False)
    for spec in specs:
        entry = _as_dict(spec)
        name = f"[bold]{escape(spec.name)}[/]" if spec.name == DEFAULT_MODEL else escape(spec.name)
        colour = {"to download": "dim", "missing": "red"}.get(entry["where"], "green")
        table.add_row(
            name,
            escape(spec.title),
            f"[{colour}]{entry['where']}[/]",
            _size(spec.size_bytes),
            spec.licence,
        )
        for adapter in found.get(spec.name, []):
            table.add_row(*adapters.table_row(adapter))
    if homeless:
        table.add_row("", "[dim]without a model here:[/]")
    for adapter in homeless:
        table.add_row(*adapters.table_row(adapter))
    output_console().print(table)


@app.command(
    "info",
    help=with_examples(
        "Show everything known about a model or an adapter.",
        "phasesam models info mobile_sam",
        "phasesam models info sam_vit_b --json",
    ),
)
@exits_cleanly
def info(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a model, name or file of an adapter.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show everything known about a model or an adapter."""
    entry = _everything(name)
    if as_json:
        typer.echo(json.dumps(entry, indent=2))
        return
    console = output_console()
    for key, value in entry.items():
        if value not in (None, ""):
            text = _size(value) if key == "size_bytes" else str(value)
            # Plain lines: a table would cut addresses and paths to the width of the terminal.
            console.print(f"{key.removesuffix('_bytes').replace('_', ' '):<14}{escape(text)}")


def _everything(name: str) -> dict[str, Any]:
    from phasesam.core.errors import UnknownModelError
    from phasesam.models.adapter_store import get_adapter
    from phasesam.models.registry import get_spec, locate

    try:
        spec = get_spec(name)
    except UnknownModelError as error:
        try:
            return adapters.describe(get_adapter(name))
        except UnknownModelError:
            raise error from None
    entry = _as_dict(spec)
    if entry["where"] in ("bundled", "on disk"):
        entry["path"] = str(locate(spec, download=False))
    return entry


@app.command(
    "download",
    help=with_examples(
        "Fetch weights now, for instance before going offline.",
        "phasesam models download sam_vit_b sam_hq_vit_tiny",
    ),
    short_help="Fetch weights before going offline.",
)
@exits_cleanly
def download(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of models.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> ExitCode | None:
    """Fetch weights now, for instance before going offline."""
    from phasesam.models.registry import get_spec, locate, where

    console = message_console(quiet)
    specs = [get_spec(name) for name in names]
    with Interruption(console) as interruption:
        for spec in specs:
            state = where(spec)
            # Also what is here is checked: a spoilt file is fetched again, or refused.
            with transfer_bar(console, spec.name) as progress:
                path = locate(spec, progress=progress, should_stop=interruption.requested)
            here = f"{state}, " if state in ("bundled", "on disk") else ""
            console.print(f"{escape(spec.name)}: {escape(here + str(path or state))}")
    return None


@app.command(
    "import",
    help=with_examples(
        "Take in a checkpoint or an adapter of your own; what it is, is recognised.",
        "phasesam models import my_vit_b.pt --name steel_vit_b",
        "phasesam models import run/best.safetensors --name powder",
    ),
    short_help="Take in a checkpoint or an adapter.",
)
@exits_cleanly
def take_in(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="FILE", help="File with weights (.pt, .pth, .safetensors).")
    ],
    name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="What to call it.")],
) -> None:
    """Take in a checkpoint or an adapter of your own; what it is, is recognised."""
    from phasesam.models.adapter_card import is_adapter
    from phasesam.models.adapter_store import check_name, import_adapter
    from phasesam.models.registry import import_checkpoint

    console = output_console()
    if is_adapter(checkpoint.expanduser()):
        card = import_adapter(checkpoint, name).card
        made_for = "" if card is None else f", an adapter of {escape(card.base)}"
        console.print(f"{escape(name)}{made_for}. Use it with:  --adapter {escape(name)}")
        return
    check_name(name)
    spec = import_checkpoint(checkpoint, name)
    decoder = "SAM-HQ" if spec.decoder == "hq" else "SAM"
    console.print(
        f"{escape(spec.name)}: {spec.architecture} encoder, {decoder} decoder. "
        f"Use it with:  --model {escape(spec.name)}"
    )


app.command(
    "merge", help=adapters.MERGE_HELP, short_help="Make one checkpoint of model and adapter."
)(adapters.merge)


@app.command(
    "forget",
    help=with_examples(
        "Remove a model or an adapter of your own, with its copy of the weights.",
        "phasesam models forget steel_vit_b",
    ),
    short_help="Remove a model or an adapter of your own.",
)
@exits_cleanly
def forget(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of an imported model, or of an adapter.")
    ],
) -> None:
    """Remove a model or an adapter of your own, with its copy of the weights."""
    from phasesam.models.adapter_store import list_adapters, remove_adapter
    from phasesam.models.registry import forget as forget_model

    if name in {entry.name for entry in list_adapters()}:
        remove_adapter(name)
    else:
        forget_model(name)
    output_console().print(f"{escape(name)}: forgotten")
