"""What to do when memory runs out: free what is idle, try again, then in smaller batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from phasesam.core.errors import CancelledError, DeviceMemoryError, InvalidSettingError
from phasesam.core.types import StopCallback
from phasesam.models.execution import ExecutionLock
from phasesam.models.memory import is_out_of_memory

Result = TypeVar("Result")


def check_stop(should_stop: StopCallback | None) -> None:
    """Raise `CancelledError` when the user asked to stop."""
    if should_stop is not None and should_stop():
        raise CancelledError("cancelled by the user")


@dataclass(frozen=True)
class Attempt(Generic[Result]):
    """How one try went: a result, or what the allocator said when it had nothing left."""

    result: Result
    shortage: str = ""


def attempt(func: Callable[[], Result]) -> Attempt[Result]:
    """Call ``func()`` and catch running out of memory; any other error passes.

    The error itself is not kept, because its traceback would keep alive the very
    tensors that must go before the next try.
    """
    try:
        return Attempt(func())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        shortage = lines[0] if lines else type(error).__name__
    nothing: Any = None
    return Attempt(nothing, shortage)


class ShortageGuard:
    """Runs computations and answers a lack of memory.

    Parameters
    ----------
    lock : ExecutionLock
        Held while something computes.
    free : callable
        Frees what is idle and gives the memory back.
    report : callable
        ``report(doing, shortage)`` writes the final message, with numbers.
    """

    def __init__(
        self,
        lock: ExecutionLock,
        free: Callable[[], object],
        report: Callable[[str, str], str],
    ) -> None:
        self._lock = lock
        self._free = free
        self._report = report

    def twice(self, func: Callable[[], Result], doing: str) -> Result:
        """Call ``func()``, once more if memory runs out; takes no lock.

        Raises
        ------
        DeviceMemoryError
            If it runs out again.
        """
        outcome = attempt(func)
        if outcome.shortage:
            self._free()
            outcome = attempt(func)
        if outcome.shortage:
            raise DeviceMemoryError(self._report(doing, outcome.shortage))
        return outcome.result

    def batches(
        self,
        func: Callable[[Any], Result],
        items: Any,
        batch_size: int,
        doing: str,
        should_stop: StopCallback | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Compute slices of ``items`` with the lock, see `ModelManager.iterate_batches`."""
        if batch_size < 1:
            raise InvalidSettingError(
                f"a batch has at least one item, got a batch size of {batch_size}"
            )
        done, total = 0, len(items)
        while done < total:
            check_stop(should_stop)
            size = min(batch_size, total - done)
            freed = False
            while (outcome := self._piece(func, items, done, size)).shortage:
                check_stop(should_stop)
                if freed and size == 1:
                    raise DeviceMemoryError(
                        self._report(f"{doing}, one at a time", outcome.shortage)
                    )
                if freed:
                    size = batch_size = (size + 1) // 2
                self._free()
                freed = True
            done += size
            result = outcome.result
            # The caller may drop the result while the next piece computes.
            del outcome
            yield done, result
            del result

    def _piece(
        self, func: Callable[[Any], Result], items: Any, start: int, size: int
    ) -> Attempt[Result]:
        with self._lock:
            return attempt(lambda: func(items[start : start + size]))
