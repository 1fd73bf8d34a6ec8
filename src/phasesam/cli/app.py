"""The application: its commands and the options they have in common."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from phasesam import __version__
from phasesam.cli import demo, evaluate, features, models, predict, segment, teach, train
from phasesam.cli.help_pages import EXIT_STATUS, PanelledCommand, with_examples

app = typer.Typer(
    name="phasesam",
    help=with_examples(
        "Segment micrographs and X-ray CT stacks with the Segment Anything Model.",
        "phasesam demo",
        "phasesam segment powder.tif -o results",
        "phasesam segment images/ -o results --preset particles --pixel-size 12nm",
        "phasesam train powder/ -o powder --task instance",
        "phasesam models list",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_STATUS,
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


app.command(
    "segment",
    cls=PanelledCommand,
    help=segment.HELP,
    short_help="Segment images; write labels, overlays, tables.",
    epilog=EXIT_STATUS,
)(segment.segment)
app.command(
    "train",
    cls=PanelledCommand,
    help=train.HELP,
    short_help="Adapt a model to labelled images.",
    epilog=EXIT_STATUS,
)(train.train)
app.command(
    "teach",
    cls=PanelledCommand,
    help=teach.HELP,
    short_help="Train an adapter further by phase fractions.",
    epilog=EXIT_STATUS,
)(teach.teach)
app.command(
    "recipes",
    cls=PanelledCommand,
    help=train.RECIPES_HELP,
    short_help="List the recipes for training.",
    epilog=EXIT_STATUS,
)(train.list_recipes)
app.command(
    "predict",
    cls=PanelledCommand,
    help=predict.HELP,
    short_help="Apply a fine-tuned adapter to images.",
    epilog=EXIT_STATUS,
)(predict.predict)
app.command(
    "features",
    cls=PanelledCommand,
    help=features.HELP,
    short_help="See what the layers of an encoder see.",
    epilog=EXIT_STATUS,
)(features.features)
app.add_typer(evaluate.app, name="evaluate", short_help="Measure how good results are.")
app.add_typer(models.app, name="models", short_help="List, fetch and import models.")
app.command("demo", help=demo.HELP, short_help="Segment a bundled sample.", epilog=EXIT_STATUS)(
    demo.demo
)
