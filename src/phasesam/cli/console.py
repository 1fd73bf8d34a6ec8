"""Talking to the terminal: consoles, errors as exit codes, and Ctrl+C."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.markup import escape

from phasesam.cli.exit_codes import ExitCode
from phasesam.core.errors import (
    CancelledError,
    FileFormatError,
    InvalidImageError,
    ModelError,
    PhaseSAMError,
    SaveError,
    TrainingError,
)

Parameters = ParamSpec("Parameters")


def output_console() -> Console:
    """Return a console for results, on standard output."""
    return Console(highlight=False, soft_wrap=True)


def message_console(quiet: bool = False) -> Console:
    """Return a console for messages and progress, on standard error."""
    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)


def report_error(error: BaseException) -> None:
    """Print an error in one line; it is shown with ``--quiet`` too."""
    message = str(error) or type(error).__name__
    message_console().print(f"[bold red]Error:[/] {escape(message)}")


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit status for an error that ends a command."""
    if isinstance(error, (CancelledError, KeyboardInterrupt)):
        return ExitCode.CANCELLED
    if isinstance(error, SaveError):
        return ExitCode.CANNOT_WRITE
    if isinstance(error, ModelError):
        return ExitCode.MODEL
    if isinstance(error, (InvalidImageError, FileFormatError, TrainingError, OSError)):
        return ExitCode.SOME_FAILED
    return ExitCode.USAGE


def exits_cleanly(
    command: Callable[Parameters, ExitCode | None],
) -> Callable[Parameters, None]:
    """Turn the errors of a command into one line on standard error and an exit status."""

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            code = command(*args, **kwargs) or ExitCode.OK
        except BrokenPipeError:
            # Whoever reads our output has enough of it; Typer ends quietly.
            raise
        except (PhaseSAMError, OSError, KeyboardInterrupt) as error:
            code = exit_code_of(error)
            if code is ExitCode.CANCELLED:
                message_console().print("Stopped.")
            else:
                report_error(error)
        if code is not ExitCode.OK:
            raise typer.Exit(int(code))

    return run


class Interruption:
    """Turn the first Ctrl+C into a request to stop, and a second one into an immediate stop.

    Used as a context manager around long work; `requested` is the ``should_stop``
    callback of that work.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._requested = threading.Event()
        self._previous: Any = None

    def requested(self) -> bool:
        """Return whether Ctrl+C was pressed."""
        return self._requested.is_set()

    def __enter__(self) -> Interruption:
        # Handlers can be set in the main thread only; elsewhere there is nothing to catch.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._requested.is_set():
            raise KeyboardInterrupt
        self._requested.set()
        self._console.print("Stopping after this step; press Ctrl+C again to stop at once.")
