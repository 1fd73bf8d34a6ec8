"""Held by several at once, the limit stays until the last lets go."""

import pytest

from phasesam.engines import blas_threads
from phasesam.engines.blas_threads import one_blas_thread


@pytest.fixture
def asked(monkeypatch):
    """Record what the libraries are asked for; how they answer is theirs to test."""
    asked = []

    class Limits:
        def __init__(self, limits, user_api):
            asked.append((limits, user_api))

        def restore_original_limits(self):
            asked.append("restored")

    monkeypatch.setattr(blas_threads, "threadpool_limits", Limits)
    monkeypatch.setattr(blas_threads, "_users", 0)
    monkeypatch.setattr(blas_threads, "_limits", None)
    return asked


def test_the_last_brings_back_what_was_before(asked):
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert asked == [(1, "blas")]
    second.__exit__(None, None, None)
    assert asked == [(1, "blas"), "restored"]
    with one_blas_thread():
        assert asked[2:] == [(1, "blas")]
    assert asked[3:] == ["restored"]


def test_errors_let_go(asked):
    with pytest.raises(ValueError, match="x"), one_blas_thread():
        raise ValueError("x")
    assert asked[-1] == "restored"
