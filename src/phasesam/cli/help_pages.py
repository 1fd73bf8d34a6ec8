"""How ``--help`` looks: plain text that is whole on a terminal of 80 columns."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from phasesam.cli.exit_codes import DESCRIPTIONS

# The backspace keeps click from filling a paragraph, so that its lines stay lines.
EXIT_STATUS = "\n".join(
    ["\b", "Exit status:", *(f"  {int(code):<4} {text}" for code, text in DESCRIPTIONS.items())]
)
"""Epilog of commands."""


def with_examples(text: str, *examples: str) -> str:
    """Return the help text of a command, its examples below.

    Parameters
    ----------
    text : str
        What the command does; the first sentence also stands in lists of commands.
    *examples : str
        Command lines.
    """
    return "\n".join([text, "", "\b", "Examples:", *(f"  {example}" for example in examples)])


class PanelledCommand(TyperCommand):
    """A command whose help shows the options under the headings of their panels.

    Typer has panels in boxes only, which cut names and choices on 80 columns.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, panels in order of appearance."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                plain = "Arguments" if parameter.param_type_name == "argument" else "Other"
                title = getattr(parameter, "rich_help_panel", None) or plain
                panels.setdefault(title, []).append(record)
        for title, records in panels.items():
            with formatter.section(title):
                formatter.write_dl(records)
