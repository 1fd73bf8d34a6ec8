"""Computing on the device: one computation at a time, smaller batches when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.models.execution import ExecutionLock
from phasesam.models.shortage import ShortageGuard

Result = TypeVar("Result")


class DeviceWork:
    """What a `ModelManager` does with computations; models are lent by the manager itself.

    Attributes
    ----------
    execution_lock : ExecutionLock
        Held while a model computes: one computation at a time, first come, first served.
    """

    execution_lock: ExecutionLock
    _guard: ShortageGuard

    def retry(self, func: Callable[[], Result], *, doing: str = "computing") -> Result:
        """Compute ``func()`` with the execution lock; once more if memory runs out.

        Parameters
        ----------
        func : callable
            A computation that can be started again.
        doing : str
            What it does, for the error message: "encoding the image".

        Raises
        ------
        DeviceMemoryError
            If memory runs out again after all idle models have left.
        """
        with self.execution_lock:
            return self._guard.twice(func, doing)

    def run_batches(
        self,
        func: Callable[[Any], Result],
        items: Any,
        batch_size: int,
        *,
        doing: str = "computing",
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> list[Result]:
        """Compute ``func(items[i:j])`` piece by piece, each with the execution lock.

        When memory runs out, idle models leave and the piece is tried again, then in halves down
        to single items; the size that worked is kept. Between pieces others may compute.

        Parameters
        ----------
        func : callable
            Takes a slice of ``items``.
        items : sequence, array or tensor
            Anything with a length that can be sliced.
        batch_size : int
            Largest length of a slice.
        doing : str
            What it does, for the error message.
        progress : callable, optional
            ``progress(done, total)`` in items.
        should_stop : callable, optional
            Asked before every piece.

        Returns
        -------
        list
            What ``func`` returned for each piece, in order.

        Raises
        ------
        DeviceMemoryError
            If a single item does not fit.
        CancelledError
            If the user asked to stop.
        """
        results = []
        for done, result in self._guard.batches(func, items, batch_size, doing, should_stop):
            results.append(result)
            if progress is not None:
                progress(done, len(items))
        return results

    def iterate_batches(
        self,
        func: Callable[[Any], Result],
        items: Any,
        batch_size: int,
        *,
        doing: str = "computing",
        should_stop: StopCallback | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Do as `run_batches`, and hand out every result as soon as it is there.

        Parameters
        ----------
        func, items, batch_size, doing, should_stop
            As for `run_batches`, which also names the errors.

        Yields
        ------
        (int, object)
            Items done so far, and what ``func`` returned for the last piece.
        """
        return self._guard.batches(func, items, batch_size, doing, should_stop)
