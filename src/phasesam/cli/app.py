"""The application: its commands and the options they have in common."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from phasesam import __version__
from phasesam.cli import demo, models, segment
from phasesam.cli.exit_codes import DESCRIPTIONS

_EPILOG = "Exit status: " + "; ".join(f"{int(c)} {text}" for c, text in DESCRIPTIONS.items()) + "."

app = typer.Typer(
    name="phasesam",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"phasesam {__version__}")
        raise typer.Exit


@app.callback()
def phasesam(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Segment micrographs and X-ray CT stacks with the Segment Anything Model."""
    # What it logs about a broken file, we report ourselves.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)


app.command("segment", help=segment.HELP, epilog=_EPILOG)(segment.segment)
app.add_typer(models.app, name="models", help="List, fetch and import models.")
app.command("demo")(demo.demo)
