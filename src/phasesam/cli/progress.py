"""Progress bars on standard error; silent where nobody watches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from phasesam.core.types import ProgressCallback


@contextmanager
def transfer_bar(console: Console, description: str) -> Iterator[ProgressCallback]:
    """Show a download; yields the ``progress(done, total)`` callback, in bytes."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), **_options(console)) as bar:
        task = bar.add_task(escape(description), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


@contextmanager
def step_bar(console: Console, description: str) -> Iterator[ProgressCallback]:
    """Show counted work; yields the ``progress(done, total)`` callback."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), **_options(console)) as bar:
        task = bar.add_task(escape(description), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


class BatchProgress:
    """Two bars: the images of a batch and the steps of the current one.

    Without a terminal, one line per finished image instead.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._finished = 0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            **_options(console),
        )
        self._images = self._bar.add_task("images", total=total, visible=total > 1)
        self._steps = self._bar.add_task("", total=None)

    def __enter__(self) -> BatchProgress:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def start(self, name: str) -> None:
        """Begin an image."""
        self._bar.reset(self._steps, description=escape(name), total=None)

    def step(self, name: str, done: int, total: int) -> None:
        """Report a step of the current image."""
        self._bar.update(self._steps, description=escape(name), completed=done, total=total)

    def finish(self, line: str) -> None:
        """End an image with one line about it (rich markup)."""
        self._finished += 1
        self._bar.update(self._images, completed=self._finished)
        prefix = f"\\[{self._finished}/{self._total}] " if self._total > 1 else ""
        self._console.print(prefix + line)


def _options(console: Console) -> dict[str, Any]:
    return {
        "console": console,
        "transient": True,
        "disable": console.quiet or not console.is_terminal,
    }
