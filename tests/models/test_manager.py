from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from phasesam.core.errors import (
    CancelledError,
    CheckpointError,
    DeviceMemoryError,
    InvalidSettingError,
    UnknownModelError,
)
from phasesam.models import manager as manager_module
from phasesam.models.manager import ModelManager, get_manager

MB = 10**6


class TestLease:
    def test_loads_once_and_stays(self, factory) -> None:
        manager = factory.manager()
        with manager.lease("m1") as first:
            assert not first.training
            (model,) = manager.resident()
            assert (model.name, model.bytes, model.device, model.leases) == ("m1", MB, "cpu", 1)
            with manager.lease("m1") as second:
                assert second is first
                assert manager.resident()[0].leases == 2
        assert manager.resident()[0].leases == 0
        with manager.lease("m1") as third:
            assert third is first
        assert factory.built == ["m1"]

    def test_ends_when_the_block_fails(self, factory) -> None:
        manager = factory.manager()
        with pytest.raises(KeyError), manager.lease("m1"):
            raise KeyError
        assert manager.resident()[0].leases == 0

    def test_eight_at_once_load_once(self, factory, pool: ThreadPoolExecutor) -> None:
        manager = factory.manager()
        factory.before = lambda name: time.sleep(0.05)

        def use() -> int:
            with manager.lease("m1") as model:
                return id(model)

        assert len({future.result(20) for future in [pool.submit(use) for _ in range(8)]}) == 1
        assert factory.built == ["m1"]

    def test_unknown_model(self, factory) -> None:
        manager = factory.manager()
        with pytest.raises(UnknownModelError, match="'nope'"), manager.lease("nope"):
            pass
        assert manager.resident() == ()

    def test_failed_load_reaches_all_who_wait_and_can_be_repeated(
        self, factory, pool: ThreadPoolExecutor
    ) -> None:
        manager = factory.manager()
        go = threading.Event()

        def fail(name: str) -> None:
            go.wait(10)
            raise CheckpointError("truncated")

        factory.before = fail
        futures = [pool.submit(manager.load, "m1") for _ in range(3)]
        factory.until(lambda: manager.resident() and manager.resident()[0].loading)
        time.sleep(0.05)
        go.set()
        for future in futures:
            with pytest.raises(CheckpointError, match="truncated"):
                future.result(20)
        assert manager.resident() == ()
        factory.before = lambda name: None
        manager.load("m1")
        assert factory.names(manager) == ["m1"]

    def test_cancel_of_one_is_not_the_cancel_of_another(
        self, factory, pool: ThreadPoolExecutor
    ) -> None:
        manager = factory.manager()
        stop = threading.Event()

        def download(name: str) -> None:
            if not factory.built and not stop.is_set():
                stop.wait(10)
                raise CancelledError("cancelled by the user")

        factory.before = download
        impatient = pool.submit(manager.load, "m1", should_stop=stop.is_set)
        factory.until(lambda: manager.resident())
        patient = pool.submit(manager.load, "m1")
        time.sleep(0.03)
        stop.set()
        with pytest.raises(CancelledError):
            impatient.result(20)
        patient.result(20)
        assert factory.names(manager) == ["m1"]

    def test_callbacks_reach_the_builder(self, factory) -> None:
        given: dict[str, Any] = {}

        def build(spec: object, **callbacks: Any) -> nn.Module:
            given.update(callbacks)
            return factory.Model(MB)

        manager = ModelManager(device="cpu", builder=build, find_spec=lambda name: None)
        progress, never = (lambda done, total: None), (lambda: False)
        manager.load("m1", progress=progress, should_stop=never)
        assert given == {"progress": progress, "should_stop": never}


class TestUnload:
    def test_frees_the_weights_even_for_who_keeps_the_model(self, factory) -> None:
        manager = factory.manager()
        with manager.lease("m2") as model:
            pass
        assert manager.unload("m2") == 2 * MB
        assert model.weight.is_meta
        assert manager.resident() == ()
        assert manager.unload("m2") == 0

    def test_of_a_model_in_use_happens_after_its_last_lease(self, factory) -> None:
        manager = factory.manager()
        with manager.lease("m1") as model:
            assert manager.unload("m1") == 0
            assert manager.resident()[0].leaving
            with manager.lease("m1") as again:
                assert again is model
            assert not model.weight.is_meta
        assert model.weight.is_meta
        assert manager.resident() == ()

    def test_load_takes_it_back(self, factory) -> None:
        manager = factory.manager()
        with manager.lease("m1"):
            manager.unload("m1")
            manager.load("m1")
        assert factory.names(manager) == ["m1"]

    def test_while_it_is_loading(self, factory, pool: ThreadPoolExecutor) -> None:
        manager = factory.manager()
        go = threading.Event()
        factory.before = lambda name: go.wait(10)
        loading = pool.submit(manager.load, "m1")
        factory.until(lambda: manager.resident())
        assert manager.unload_all() == 0
        go.set()
        loading.result(10)
        assert manager.resident() == ()

    def test_all_and_idle(self, factory) -> None:
        manager = factory.manager()
        manager.load("m1")
        manager.load("m2")
        with manager.lease("m3"):
            assert manager.evict_idle() == 3 * MB
            assert factory.names(manager) == ["m3"]
        assert manager.unload_all() == 3 * MB
        assert factory.present() == 0


class TestSettings:
    def test_device_switch(self, factory, monkeypatch: pytest.MonkeyPatch) -> None:
        # A second "device" on which a model is where it was built.
        manager = factory.manager()
        monkeypatch.setattr(factory.Model, "to", lambda module, device: module)
        manager.load("m1")
        with manager.lease("m2") as old:
            monkeypatch.setattr(
                "phasesam.models.devices.resolve_device", lambda choice: torch.device("meta")
            )
            monkeypatch.setattr("phasesam.models.devices.default_budget", lambda device: 9)
            manager.set_device("cuda")
            assert manager.device.type == "meta"
            assert [(m.name, m.device, m.leaving) for m in manager.resident()] == [
                ("m2", "cpu", True)
            ]
            with manager.lease("m2") as new:
                assert new is not old
                assert not old.weight.is_meta
        assert [(m.name, m.device) for m in manager.resident()] == [("m2", "meta")]
        assert old.weight.is_meta

    def test_absent_device(self, factory) -> None:
        manager = factory.manager()
        manager.load("m1")
        with pytest.raises(InvalidSettingError, match="got 'warp'"):
            manager.set_device("warp")
        assert manager.device.type == "cpu"
        assert factory.names(manager) == ["m1"]

    def test_precision(self, factory) -> None:
        manager = factory.manager()
        assert manager.precision is torch.float32
        manager.set_precision("bf16")
        assert manager.precision is torch.bfloat16
        assert manager.status().precision == "bfloat16"
        with manager.autocast():
            assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype is torch.bfloat16

    def test_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PHASESAM_DEVICE", "cpu")
        monkeypatch.setenv("PHASESAM_MEMORY_BUDGET", "3MB")
        status = ModelManager().status()
        assert (status.device, status.budget_bytes) == ("cpu", 3 * MB)
        monkeypatch.setenv("PHASESAM_DEVICE", "gpu")
        with pytest.raises(InvalidSettingError, match="PHASESAM_DEVICE"):
            ModelManager()


class TestFigures:
    def test_status(self, factory) -> None:
        manager = factory.manager(50)
        before = manager.status()
        assert (before.device, before.device_total, before.budget_bytes) == ("cpu", None, 50 * MB)
        manager.load("m1")
        status = manager.status()
        assert (status.n_models, status.bytes, status.precision) == (1, MB, "float32")
        assert status.device_used is not None
        assert status.device_total is not None
        assert MB < status.device_used < status.device_total

    def test_events_come_without_a_lock(self, factory, pool: ThreadPoolExecutor) -> None:
        manager = factory.manager()
        seen: list[int] = []

        def listen() -> None:
            # Another thread can look, so nobody holds a lock while the event fires.
            seen.append(pool.submit(lambda: manager.status().n_models).result(10))

        manager.events.changed.connect(listen)
        with manager.lease("m1"):
            pass
        manager.unload("m1")
        manager.set_precision("fp32")
        assert seen[0] == 1
        assert seen[-1] == 0

    def test_a_broken_listener_does_not_stop_the_work(
        self, factory, caplog: pytest.LogCaptureFixture
    ) -> None:
        manager = factory.manager()

        def broken() -> None:
            raise ValueError("window gone")

        manager.events.changed.connect(broken)
        with manager.lease("m1") as model:
            assert not model.weight.is_meta
        assert "listener" in caplog.text


def test_there_is_one_manager(monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor) -> None:
    monkeypatch.setattr(manager_module, "_manager", None)
    managers = [pool.submit(get_manager) for _ in range(8)]
    assert len({id(future.result(10)) for future in managers}) == 1


def test_a_window_can_look_without_torch() -> None:
    code = (
        "import sys; from phasesam.models.manager import get_manager; manager = get_manager();"
        "status = manager.status(); assert status.device == 'auto', status;"
        "assert manager.resident() == (); manager.events.changed.connect(print);"
        "manager.set_device('cpu'); manager.set_budget(10**9); manager.set_precision('fp32');"
        "sys.exit(any(name in sys.modules for name in ('torch', 'qtpy', 'napari')))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PHASESAM_")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=60)
    assert run.returncode == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestCuda:
    def test_unload_returns_device_memory(self, factory) -> None:
        manager = factory.manager(1000, device="cuda")
        before = torch.cuda.memory_reserved()
        with manager.lease("m200") as model:
            assert model.weight.is_cuda
            loaded = torch.cuda.memory_reserved()
        freed = manager.unload("m200")
        assert freed == 200 * MB
        assert loaded - torch.cuda.memory_reserved() >= 0.95 * freed
        assert torch.cuda.memory_allocated() <= before

    def test_real_shortage(self, factory) -> None:
        manager = factory.manager(1000, device="cuda")
        manager.load("m200")
        total = torch.cuda.get_device_properties(0).total_memory
        limit = torch.cuda.memory_reserved() + 100 * MB
        torch.cuda.set_per_process_memory_fraction(limit / total)
        try:
            result = manager.retry(
                lambda: torch.ones(40 * MB, device="cuda").sum().item(), doing="encoding"
            )
            assert result == 40 * MB
            assert factory.names(manager) == []
            parts = manager.run_batches(
                lambda piece: torch.ones(len(piece) * 20 * MB, device="cuda").sum().item(),
                range(8),
                8,
            )
            assert sum(parts) == 160 * MB
            assert len(parts) > 1
            with pytest.raises(DeviceMemoryError, match="one at a time"):
                manager.run_batches(lambda p: torch.ones(200 * MB, device="cuda"), range(4), 4)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
