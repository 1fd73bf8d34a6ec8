"""What the exit status of the command line means; scripts may rely on these numbers."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of ``phasesam``."""

    OK = 0
    """Everything was done."""
    SOME_FAILED = 1
    """At least one input failed; the results of the others are complete."""
    USAGE = 2
    """An option, a prompt file or a path makes no sense; nothing was done."""
    MODEL = 3
    """The model is unknown, broken, could not be fetched or does not fit into memory."""
    CANNOT_WRITE = 4
    """Results could not be written, or exist already and may not be replaced."""
    CANCELLED = 130
    """Stopped with Ctrl+C; results written before are complete."""


DESCRIPTIONS = {
    ExitCode.OK: "everything was done",
    ExitCode.SOME_FAILED: "some inputs failed, the others are complete",
    ExitCode.USAGE: "an option, prompt file or path makes no sense",
    ExitCode.MODEL: "the model is unknown, broken, not available or too large",
    ExitCode.CANNOT_WRITE: "results cannot be written, or exist already",
    ExitCode.CANCELLED: "stopped with Ctrl+C",
}
