"""The command line: ``phasesam segment``, ``phasesam models``, ``phasesam demo``."""

from __future__ import annotations


def main() -> None:
    """Run the command line; the entry point of ``phasesam`` and ``python -m phasesam``."""
    from phasesam.cli.app import app

    app(prog_name="phasesam")
