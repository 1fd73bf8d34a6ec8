"""Who may compute on the device: one thread at a time, in the order of asking."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class ExecutionLock:
    """A reentrant lock that serves its waiters first come, first served.

    ``threading.RLock`` lets a loop that releases and takes it at once keep it for ever;
    with this one a click is answered between two batches of an automatic run.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queue: deque[tuple[threading.Lock, int]] = deque()
        self._owner: int | None = None
        self._depth = 0

    @property
    def held(self) -> bool:
        """Whether the calling thread holds the lock."""
        return self._owner == threading.get_ident()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; as ``threading.RLock.acquire``.

        Parameters
        ----------
        blocking : bool
            Wait for the lock if another thread has it.
        timeout : float
            Longest wait in seconds; -1 waits for ever.

        Returns
        -------
        bool
            Whether the calling thread has the lock now.
        """
        me = threading.get_ident()
        with self._guard:
            if self._owner in (me, None):
                self._owner = me
                self._depth += 1
                return True
            if not blocking:
                return False
            turn = threading.Lock()
            turn.acquire()
            self._queue.append((turn, me))
        try:
            granted = turn.acquire(timeout=timeout)
        except BaseException:
            if not self._withdraw(turn, me):
                self.release()
            raise
        return granted or not self._withdraw(turn, me)

    def release(self) -> None:
        """Give the lock to whoever has waited longest.

        Raises
        ------
        RuntimeError
            If the calling thread does not hold it.
        """
        with self._guard:
            if self._owner != threading.get_ident():
                raise RuntimeError("the execution lock is released by a thread that has it not")
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
            if self._queue:
                turn, self._owner = self._queue.popleft()
                self._depth = 1
                turn.release()

    def _withdraw(self, turn: threading.Lock, me: int) -> bool:
        """Leave the queue; False if the lock was handed over in the meantime."""
        with self._guard:
            if (turn, me) in self._queue:
                self._queue.remove((turn, me))
                return True
            return False

    def __enter__(self) -> ExecutionLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
