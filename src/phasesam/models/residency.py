"""Models in memory, safe for threads: borrow, wait for room, send away the idle ones."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from phasesam.core.errors import CancelledError, DeviceMemoryError
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.models import memory
from phasesam.models.devices import BUDGET_VARIABLE
from phasesam.models.execution import ExecutionLock
from phasesam.models.ledger import Entry, Ledger, ModelKey, ResidentModel
from phasesam.models.memory import format_bytes
from phasesam.models.shortage import check_stop

# How often a waiting thread looks whether it should stop, in seconds.
_POLL = 0.05


@dataclass(frozen=True)
class Request:
    """How one caller wants a model.

    Attributes
    ----------
    progress, should_stop : callable, optional
        Callbacks of a download; the second is asked while waiting, too.
    timeout : float
        Longest wait for room in seconds.
    purpose : tuple of Entry
        The adapters for which the model below them is asked for.
    """

    progress: ProgressCallback | None = None
    should_stop: StopCallback | None = None
    timeout: float = 60.0
    purpose: tuple[Entry, ...] = ()

    def for_base_of(self, entry: Entry) -> Request:
        """Return the same request for the base of an adapter."""
        return replace(self, purpose=(*self.purpose, entry))

    def callbacks(self) -> dict[str, Any]:
        """Return the callbacks that were given, for a builder."""
        given = {"progress": self.progress, "should_stop": self.should_stop}
        return {name: callback for name, callback in given.items() if callback is not None}


class Residency:
    """Which models are in memory, and the waiting for room.

    Parameters
    ----------
    budget : callable
        ``budget(device)`` is the bytes that weights may fill there; None is "no limit".
    announce : callable
        Called without any lock after every change.
    execution_lock : ExecutionLock
        A thread that holds it is never made to wait for room.
    """

    def __init__(
        self,
        budget: Callable[[str], int | None],
        announce: Callable[[], object],
        execution_lock: ExecutionLock,
    ) -> None:
        self._budget = budget
        self._announce = announce
        self._execution_lock = execution_lock
        self._changed = threading.Condition()
        self._ledger = Ledger()
        self._held: Counter[int] = Counter()

    # Borrowing

    def borrow(self, key: ModelKey, request: Request) -> tuple[Entry, bool]:
        """Lease a model, or become the one who has to load it.

        Waits while another thread is loading it.

        Returns
        -------
        entry : Entry
            The model; leased to the calling thread unless it must load it.
        must_load : bool
            Whether the calling thread has to finish it with `settle` or `fail`.
        """
        awaited: Entry | None = None
        while True:
            check_stop(request.should_stop)
            with self._changed:
                error = awaited.error if awaited is not None else None
                # Someone else's cancel is not ours: go on and load it here.
                if error is not None and not isinstance(error, CancelledError):
                    raise error
                entry = self._ledger.get(key)
                if entry is None:
                    entry = Entry(key)
                    self._ledger.add(entry)
                    break
                if not entry.loading:
                    self._begin_lease(entry)
                    break
                if self._must_not_wait(entry, request):
                    entry.urgent = True
                    self._changed.notify_all()
                self._changed.wait(_POLL)
                awaited = entry
        self._announce()
        return entry, entry.loading

    def settle(self, entry: Entry, module: Any, base: Entry | None = None) -> None:
        """Note that an entry has been loaded, and lease it to the calling thread."""
        with self._changed:
            entry.module, entry.base, entry.loading = module, base, False
            if base is not None:
                base.pins += 1
                entry.retired = entry.retired or base.retired
            self._begin_lease(entry)
            self._changed.notify_all()
        self._announce()

    def fail(self, entry: Entry, error: BaseException) -> None:
        """Note that an entry could not be loaded; who waits for it gets the error."""
        with self._changed:
            self._ledger.remove(entry)
            entry.error, entry.bytes = error, 0
            self._changed.notify_all()
        self._announce()

    def end_lease(self, entry: Entry, holder: int) -> None:
        """End a lease that the thread ``holder`` began; send away what has to go."""
        with self._changed:
            entry.leases -= 1
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]
            self._ledger.touch(entry)
            leaving = self._retired() + self._overflow(entry.key.device)
            self._changed.notify_all()
        self._give_back(leaving)
        self._announce()

    def keep(self, key: ModelKey) -> None:
        """Let a model, and the base it stands on, stay that was to leave after its last lease."""
        with self._changed:
            for entry in (self._ledger.get(key), self._ledger.get(key._replace(adapter=None))):
                if entry is not None:
                    entry.retired = False

    def _begin_lease(self, entry: Entry) -> None:
        entry.leases += 1
        self._held[threading.get_ident()] += 1
        self._ledger.touch(entry)

    def _must_not_wait(self, entry: Entry, request: Request) -> bool:
        """Whether somebody may be waiting for the calling thread, so that it must go on."""
        return (
            entry.urgent
            or any(purpose.urgent for purpose in request.purpose)
            or self._held[threading.get_ident()] > 0
            or self._execution_lock.held
        )

    # Room

    def reserve(self, entry: Entry, size: int, request: Request, wait: bool = True) -> bool:
        """Set bytes aside for an entry that is loading, sending idle models away for it.

        While it waits, nothing is set aside for the entry: two threads with half of what
        they need would wait for each other.

        Parameters
        ----------
        entry : Entry
            What is being loaded.
        size : int
            All the bytes it needs.
        request : Request
            How long to wait.
        wait : bool
            Whether to wait for leases to end.

        Returns
        -------
        bool
            False only if ``wait`` is False and there is no room now.

        Raises
        ------
        DeviceMemoryError
            If it is larger than the whole budget, or no room came in time.
        CancelledError
            If the user asked to stop.
        """
        deadline = time.monotonic() + request.timeout
        while True:
            check_stop(request.should_stop)
            with self._changed:
                budget = self._budget(entry.key.device)
                excess = self._excess(entry, size, budget)
                if excess <= 0:
                    entry.bytes = size
                    return True
                leaving = self._make_way(entry, excess, self._must_not_wait(entry, request))
                if leaving is None:
                    if not wait:
                        return False
                    self._wait_for_room(entry, size, deadline)
                elif leaving:
                    self._ledger.begin_release(leaving)
                elif not self._ledger.releasing(entry.key.device):
                    entry.bytes = size
                    return True
                else:
                    self._changed.wait(_POLL)
            if leaving:
                self._give_back(leaving)
                self._announce()

    def at_most_budget(self, entry: Entry, size: int) -> int:
        """Cut a guessed size down to the budget, so that a bad guess refuses nothing."""
        budget = self._budget(entry.key.device)
        return size if budget is None else min(size, budget)

    def _excess(self, entry: Entry, size: int, budget: int | None) -> int:
        if budget is None:
            return 0
        if size > budget:
            raise DeviceMemoryError(
                f"{entry.key.name} needs {format_bytes(size)}, more than the whole memory budget "
                f"of {format_bytes(budget)} on {entry.key.device}. Take a smaller model, or "
                f"raise the budget ({BUDGET_VARIABLE})"
            )
        return self._ledger.used(entry.key.device, but=entry) + size - budget

    def _make_way(self, entry: Entry, excess: int, pressed: bool) -> list[Entry] | None:
        """Choose who leaves for an entry.

        None means that leases have to end first; an empty list that nobody has to leave
        (others are just leaving), or that nobody is left who could.
        """
        device = entry.key.device
        leaving = self._ledger.victims(device, excess - self._ledger.releasing(device))
        if leaving is None and pressed:
            return self._ledger.idle(e for e in self._ledger if e.key.device == device)
        return leaving

    def _wait_for_room(self, entry: Entry, size: int, deadline: float) -> None:
        if entry.bytes:
            entry.bytes = 0
            self._changed.notify_all()
        if time.monotonic() > deadline:
            device = entry.key.device
            raise DeviceMemoryError(
                f"{entry.key.name} needs {format_bytes(size)} on {device}, but models in use hold "
                f"{format_bytes(self._ledger.used(device, but=entry))} of the budget of "
                f"{format_bytes(self._budget(device) or 0)}: "
                f"{self._ledger.describe(device, but=entry)}. Wait until they are done, or raise "
                f"the budget ({BUDGET_VARIABLE})"
            )
        self._changed.wait(_POLL)

    # Leaving

    def retire(self, wanted: Callable[[ModelKey], bool]) -> int:
        """Let models leave, now if idle, else after their last lease; return bytes freed now."""
        with self._changed:
            for entry in self._ledger:
                entry.retired = entry.retired or wanted(entry.key)
            leaving = self._retired()
            self._changed.notify_all()
        return self._give_back(leaving)

    def evict_idle(self) -> int:
        """Send away every model that nobody uses; return the bytes freed."""
        with self._changed:
            leaving = self._reach(self._ledger.idle())
        return self._give_back(leaving)

    def fit(self, device: str) -> int:
        """Send away idle models until a device is within its budget; return the bytes freed."""
        with self._changed:
            leaving = self._overflow(device)
            self._changed.notify_all()
        return self._give_back(leaving)

    def _reach(self, leaving: list[Entry]) -> list[Entry]:
        """Take entries out of everybody's reach."""
        self._ledger.begin_release(leaving)
        return leaving

    def _retired(self) -> list[Entry]:
        return self._reach(self._ledger.idle(e for e in self._ledger if e.retired))

    def _overflow(self, device: str) -> list[Entry]:
        budget = self._budget(device)
        if budget is None:
            return []
        excess = self._ledger.used(device) - self._ledger.releasing(device) - budget
        leaving = self._ledger.victims(device, excess)
        if leaving is None:
            leaving = self._ledger.idle(e for e in self._ledger if e.key.device == device)
        return self._reach(leaving)

    def _give_back(self, leaving: Iterable[Entry]) -> int:
        """Free the memory of entries that are out of reach; never called with the lock."""
        leaving = list(leaving)
        if not leaving:
            return 0
        for entry in leaving:
            memory.release_module(entry.module, shared_storages(entry.base))
            entry.module = None
        # The weights are in no reference cycle any more, so there is nothing to collect.
        kinds = {entry.key.device.partition(":")[0] for entry in leaving}
        memory.return_memory(kinds, collect=False)
        with self._changed:
            self._ledger.end_release(leaving)
            self._changed.notify_all()
        return sum(entry.bytes for entry in leaving)

    # Figures

    def resident(self) -> tuple[ResidentModel, ...]:
        """Describe all models in memory."""
        with self._changed:
            return self._ledger.resident()

    def describe(self, device: str) -> str:
        """Say for an error message which models are in use on a device."""
        with self._changed:
            return self._ledger.describe(device)


def shared_storages(base: Entry | None) -> set[int]:
    """Return the storages that an adapter has from its base."""
    return set() if base is None else set(memory.storages(base.module))
