from __future__ import annotations

import pytest
import torch
from torch import nn

from phasesam.core.errors import (
    CheckpointError,
    DeviceMemoryError,
    UnknownModelError,
)

MB = 10**6


class TestAdapters:
    @staticmethod
    def adapt(base: nn.Module, adapter: str) -> nn.Module:
        """Half a megabyte of its own beside the weights and parts of the base."""
        adapted = nn.Module()
        adapted.part = base
        adapted.weight = nn.Parameter(torch.zeros(MB // 8), requires_grad=False)
        adapted.base_weight = base.weight
        return adapted

    def test_share_their_base(self, factory) -> None:
        manager = factory.manager(adapter_loader=self.adapt)
        with manager.lease("m2", "x") as x, manager.lease("m2", "y") as y:
            assert x.base_weight is y.base_weight
            sizes = {m.adapter: m.bytes for m in manager.resident()}
            assert sizes == {None: 2 * MB, "x": MB // 2, "y": MB // 2}
        assert factory.built == ["m2"]
        assert manager.unload("m2", "x") == MB // 2
        assert x.weight.is_meta
        assert not y.base_weight.is_meta
        assert not y.part.weight.is_meta
        assert manager.unload("m2") == 2 * MB + MB // 2
        assert manager.resident() == ()

    def test_keep_their_base_until_they_go(self, factory) -> None:
        manager = factory.manager(3, adapter_loader=self.adapt)
        with manager.lease("m2", "x") as x:
            assert manager.evict_idle() == 0
            assert manager.unload("m2") == 0
            assert not x.base_weight.is_meta
        assert manager.resident() == ()
        manager.load("m2", "x")
        manager.load("m3")
        assert factory.names(manager) == ["m3"]

    def test_fail_without_a_trace(self, factory) -> None:
        def broken(base: nn.Module, adapter: str) -> nn.Module:
            raise CheckpointError(f"no adapter {adapter}")

        manager = factory.manager(adapter_loader=broken)
        with pytest.raises(CheckpointError, match="no adapter x"):
            manager.load("m1", "x")
        assert [(m.adapter, m.leases) for m in manager.resident()] == [(None, 0)]
        assert manager.unload("m1") == MB

    def test_that_are_not_there(self, factory) -> None:
        manager = factory.manager()
        with pytest.raises(UnknownModelError, match="no adapter 'x'"):
            manager.load("m1", "x")
        assert manager.resident() == ()


class TestOutOfMemory:
    def test_at_load(self, factory) -> None:
        manager = factory.manager()
        manager.load("m1")
        shortages = [torch.OutOfMemoryError("CUDA out of memory")]

        def before(name: str) -> None:
            if shortages:
                raise shortages.pop()

        factory.before = before
        manager.load("m2")
        assert factory.names(manager) == ["m2"]  # The idle one has made room.

    def test_at_load_for_ever(self, factory) -> None:
        manager = factory.manager()

        def before(name: str) -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")

        with manager.lease("m1"):
            factory.before = before
            with pytest.raises(DeviceMemoryError, match=r"loading m2.*m1 \(1 MB, in use 1x\)"):
                manager.load("m2")
        assert factory.names(manager) == ["m1"]

    def test_on_the_way_to_the_device(self, factory, monkeypatch: pytest.MonkeyPatch) -> None:
        # "meta" stands for a device that is not the CPU.
        manager = factory.manager()
        assert manager.device.type == "cpu"
        manager._choice._device = torch.device("meta")
        tries: list[str] = []

        def to(module: nn.Module, device: torch.device) -> nn.Module:
            tries.append(device.type)
            if len(tries) < limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return module

        monkeypatch.setattr(factory.Model, "to", to)
        limit = 2
        manager.load("m1")
        assert tries == ["meta", "meta"]
        limit = 10
        # There are no figures of a "meta" device.
        monkeypatch.setattr(manager._guard, "_report", lambda doing, shortage: doing)
        with pytest.raises(DeviceMemoryError, match="loading m2 onto meta"):
            manager.load("m2")
        assert factory.modules[-1].weight.is_meta
