"""The command line: ``phasesam segment``, ``phasesam models``, ``phasesam demo``."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line; the entry point of ``phasesam`` and ``python -m phasesam``."""
    # Threads of torch that wait for one another by spinning take the cores from those they
    # wait for: the demo takes 27 s on two idle cores, 16 s when they sleep instead, and many
    # times as long beside other work. OpenMP reads this when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from phasesam.cli.app import app

    app(prog_name="phasesam")
