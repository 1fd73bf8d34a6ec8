"""Pieces of a batch side by side on the cores of a CPU.

The products of one prompt are too small to be shared out among cores: threads of torch spend
more time waiting for one another than computing (measured on two cores: twice as slow as one
core alone). Whole prompts do not depend on one another, so each core gets its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeVar

import torch

from phasesam.engines.blas_threads import one_blas_thread

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class PromptThreads:
    """A few threads, each of which computes on one core; use it as a context manager.

    They live as long as one search and are all waited for: nothing runs on behind the
    caller's back, and an exception reaches the caller.

    Parameters
    ----------
    device : torch.device
        On anything but a CPU everything runs in the calling thread.
    """

    def __init__(self, device: torch.device) -> None:
        self.before = torch.get_num_threads()
        self.count = self.before if device.type == "cpu" else 1
        self._pool: ThreadPoolExecutor | None = None
        self._blas: AbstractContextManager[None] | None = None

    def __enter__(self) -> PromptThreads:
        if self.count > 1:
            # numpy's products would start threads of their own in each of ours.
            self._blas = one_blas_thread()
            self._blas.__enter__()
            self._pool = ThreadPoolExecutor(
                self.count, thread_name_prefix="prompts", initializer=torch.set_num_threads,
                initargs=(1,),
            )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            if self._blas is not None:
                self._blas.__exit__(None, None, None)
            # Some of torch's libraries keep one setting for all threads.
            torch.set_num_threads(self.before)

    def map(self, func: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
        """Compute ``func`` of every piece; results in order, the first exception is raised."""
        if self._pool is None:
            return [func(piece) for piece in pieces]
        futures = [self._pool.submit(func, piece) for piece in pieces]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
