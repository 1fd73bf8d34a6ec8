from __future__ import annotations

import threading
import time

import pytest

from phasesam.models.execution import ExecutionLock


def _run(target) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_reentrant_and_held() -> None:
    lock = ExecutionLock()
    assert not lock.held
    with lock:
        with lock:
            assert lock.held
        assert lock.held
    assert not lock.held


def test_excludes_other_threads() -> None:
    lock = ExecutionLock()
    seen = []
    with lock:
        thread = _run(lambda: seen.append((lock.acquire(blocking=False), lock.held)))
        thread.join(5)
    assert seen == [(False, False)]


def test_timeout_leaves_the_queue() -> None:
    lock = ExecutionLock()
    seen = []
    with lock:
        thread = _run(lambda: seen.append(lock.acquire(timeout=0.02)))
        thread.join(5)
    assert seen == [False]
    assert lock.acquire(timeout=1)
    lock.release()


def test_first_come_first_served() -> None:
    lock = ExecutionLock()
    order: list[int] = []

    def wait(index: int) -> None:
        with lock:
            order.append(index)

    threads = []
    with lock:
        for index in range(5):
            threads.append(_run(lambda index=index: wait(index)))
            while len(lock._queue) <= index:
                time.sleep(0.001)
    for thread in threads:
        thread.join(5)
    assert order == list(range(5))


def test_a_loop_does_not_starve_others() -> None:
    lock = ExecutionLock()
    served = threading.Event()
    rounds = 0

    def click() -> None:
        with lock:
            served.set()

    with lock:
        thread = _run(click)
        while not lock._queue:
            time.sleep(0.001)
    while not served.is_set() and rounds < 1000:
        with lock:
            rounds += 1
    thread.join(5)
    assert rounds <= 1


def test_release_needs_ownership() -> None:
    with pytest.raises(RuntimeError, match="has it not"):
        ExecutionLock().release()


def test_counts_exactly_under_contention() -> None:
    lock = ExecutionLock()
    total = 0

    def add() -> None:
        nonlocal total
        for _ in range(200):
            with lock, lock:
                value = total
                time.sleep(0)
                total = value + 1

    threads = [_run(add) for _ in range(4)]
    for thread in threads:
        thread.join(20)
    assert total == 800
