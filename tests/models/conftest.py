"""Models without a network, and threads, for tests of the model manager."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from phasesam.core.errors import UnknownModelError
from phasesam.models.manager import ModelManager

MB = 10**6


class FakeModel(nn.Module):
    """Weights whose every number is the size of the model, so that a mix-up shows."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size // 4,), float(size)), requires_grad=False)


class Factory:
    """A builder that keeps count; ``m3_b`` is a model of 3 MB.

    ``before(name)`` is called before each building and may raise.
    """

    Model = FakeModel

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.declared_share = 1.0
        self.built: list[str] = []
        self.modules: list[FakeModel] = []
        self.before: Callable[[str], object] = lambda name: None

    def find_spec(self, name: str) -> SimpleNamespace:
        if not name.startswith("m"):
            raise UnknownModelError(f"no model {name!r}")
        size = int(name[1:].partition("_")[0]) * MB
        declared = int(size * self.declared_share)
        return SimpleNamespace(name=name, bytes=size, size_bytes=declared or None)

    def build(self, spec: SimpleNamespace, **callbacks: Any) -> FakeModel:
        self.before(spec.name)
        self.built.append(spec.name)
        self.modules.append(FakeModel(spec.bytes))
        return self.modules[-1]

    def manager(self, budget_mb: float = 100, device: str = "cpu", **options: Any) -> ModelManager:
        return ModelManager(
            device=device,
            budget_bytes=int(budget_mb * MB),
            builder=self.build,
            find_spec=self.find_spec,
            **options,
        )

    def present(self) -> int:
        """Bytes of all models ever built whose memory is still taken."""
        return sum(4 * m.weight.numel() for m in self.modules if not m.weight.is_meta)

    @staticmethod
    def names(manager: ModelManager) -> list[str]:
        return sorted(model.name for model in manager.resident())

    @staticmethod
    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "waited for nothing"
            time.sleep(0.002)

    @contextmanager
    def held(self, manager: ModelManager, name: str) -> Iterator[None]:
        """Lease a model in another thread for the length of the block."""
        begun, end = threading.Event(), threading.Event()

        def hold() -> None:
            with manager.lease(name):
                begun.set()
                assert end.wait(20)

        future = self.pool.submit(hold)
        self.until(lambda: begun.is_set() or future.done())
        try:
            yield
        finally:
            end.set()
            future.result(20)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


@pytest.fixture
def factory(pool: ThreadPoolExecutor) -> Factory:
    return Factory(pool)
