from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from phasesam.core.errors import (
    CancelledError,
    DeviceMemoryError,
    InvalidSettingError,
)
from phasesam.models.manager import ModelManager

MB = 10**6


class TestBudget:
    def test_two_models_and_room_for_one(self, factory) -> None:
        manager = factory.manager(3)
        for name in ("m3_a", "m2_b", "m3_a"):
            with manager.lease(name) as model:
                assert factory.names(manager) == [name]
                assert model.weight[0] == manager.resident()[0].bytes
                assert factory.present() == manager.status().bytes <= 3 * MB
        assert factory.built == ["m3_a", "m2_b", "m3_a"]

    def test_the_one_unused_for_longest_leaves(self, factory) -> None:
        manager = factory.manager(3)
        for name in ("m1_a", "m1_b", "m1_c", "m1_a", "m1_d"):
            manager.load(name)
        assert factory.names(manager) == ["m1_a", "m1_c", "m1_d"]

    def test_larger_than_the_budget(self, factory) -> None:
        factory.declared_share = 0
        manager = factory.manager(3)
        manager.load("m1")
        with pytest.raises(DeviceMemoryError, match=r"m4 needs 4 MB.*budget of 3 MB on cpu"):
            manager.load("m4")
        assert factory.names(manager) == ["m1"]
        assert factory.present() == MB

    def test_waits_for_a_lease_to_end(self, factory, pool: ThreadPoolExecutor) -> None:
        manager = factory.manager(3)
        with factory.held(manager, "m2"):
            waiting = pool.submit(manager.load, "m3")
            time.sleep(0.1)
            assert not waiting.done()
            assert factory.built == ["m2"]
        waiting.result(20)
        assert factory.names(manager) == ["m3"]

    def test_waits_empty_handed_for_a_model_of_unknown_size(
        self, factory, pool: ThreadPoolExecutor
    ) -> None:
        factory.declared_share = 0
        manager = factory.manager(3)
        with factory.held(manager, "m2"):
            waiting = pool.submit(manager.load, "m3")
            factory.until(lambda: len(factory.modules) == 2 and factory.modules[1].weight.is_meta)
            assert manager.status().bytes == 2 * MB
        waiting.result(20)
        assert factory.built == ["m2", "m3", "m3"]

    def test_two_that_turn_out_too_large_do_not_wait_for_each_other(
        self, factory, pool: ThreadPoolExecutor
    ) -> None:
        # Each has set 1.5 MB of 3 MB aside, then needs 2 MB.
        factory.declared_share = 0.75
        manager = factory.manager(3)
        both = threading.Barrier(2, timeout=10)

        def meet(name: str) -> None:
            if len(factory.built) < 2:
                both.wait()

        factory.before = meet
        for future in [pool.submit(manager.load, name, timeout=5) for name in ("m2_a", "m2_b")]:
            future.result(20)
        assert len(factory.built) >= 3
        assert factory.present() == manager.status().bytes == 2 * MB

    def test_waits_only_so_long(self, factory) -> None:
        manager = factory.manager(3)
        with (
            factory.held(manager, "m2"),
            pytest.raises(DeviceMemoryError, match=r"m3 needs 3 MB on cpu.*m2 \(2 MB, in use 1x"),
        ):
            manager.load("m3", timeout=0.05)
        assert factory.names(manager) == ["m2"]

    def test_waiting_can_be_cancelled(self, factory) -> None:
        manager = factory.manager(3)
        asked = iter([False, False, False, True])
        with factory.held(manager, "m2"), pytest.raises(CancelledError):
            manager.load("m3", should_stop=lambda: next(asked))
        assert factory.names(manager) == ["m2"]

    def test_a_thread_with_a_lease_goes_over_and_comes_back(self, factory) -> None:
        manager = factory.manager(3)
        manager.load("m1")
        with manager.lease("m2"):
            with manager.lease("m3"):
                assert factory.names(manager) == ["m2", "m3"]
                assert manager.status().bytes == 5 * MB
            assert factory.names(manager) == ["m2"]

    def test_a_thread_that_computes_goes_over(self, factory) -> None:
        manager = factory.manager(3)
        with factory.held(manager, "m2"):
            manager.retry(lambda: manager.load("m3", timeout=5))
            assert factory.names(manager) == ["m2"]

    def test_two_threads_that_want_each_others_model(
        self, factory, pool: ThreadPoolExecutor
    ) -> None:
        # One holds m2 and waits for m3, which the other is loading; the other waits for room.
        manager = factory.manager(3)
        go = threading.Event()

        def both() -> None:
            with manager.lease("m2"):
                go.wait(10)
                with manager.lease("m3", timeout=20):
                    pass

        holder = pool.submit(both)
        factory.until(lambda: manager.resident() and not manager.resident()[0].loading)
        loader = pool.submit(manager.load, "m3", timeout=20)
        factory.until(lambda: len(manager.resident()) == 2)
        go.set()
        holder.result(10)
        loader.result(10)

    def test_a_lower_budget_applies_at_once(self, factory) -> None:
        manager = factory.manager(9)
        for name in ("m1", "m2", "m3"):
            manager.load(name)
        manager.set_budget(3 * MB)
        assert manager.budget_bytes == 3 * MB
        assert factory.names(manager) == ["m3"]
        with pytest.raises(InvalidSettingError):
            manager.set_budget(0)
        with pytest.raises(InvalidSettingError, match=r"number of bytes.*got '4GB'"):
            manager.set_budget("4GB")
        assert manager.budget_bytes == 3 * MB
        manager.set_budget(None)
        assert manager.budget_bytes is not None
        assert manager.budget_bytes > 3 * MB


class TestStress:
    """Eight threads lease at random, from a budget for two of four models."""

    @staticmethod
    def watch(manager: ModelManager, budget: int) -> list[str]:
        """Look for a moment at which the budget was exceeded although something was idle."""
        models = manager.resident()
        idle = [m.name for m in models if not (m.leases or m.loading)]
        if sum(m.bytes for m in models) > budget and idle:
            return [f"{idle} idle in {models}"]
        return []

    @pytest.mark.parametrize("nested", [False, True])
    def test_random_leases(self, factory, pool: ThreadPoolExecutor, nested: bool) -> None:
        manager = factory.manager(5)
        kinds = ["m1", "m2", "m2_b", "m3"]
        faults: list[str] = []

        def use(model: nn.Module, name: str) -> None:
            expected = float(factory.find_spec(name).bytes)
            for _ in range(3):
                if model.weight.is_meta or not (model.weight[::1000] == expected).all():
                    faults.append(f"{name} used after it was unloaded")
                time.sleep(0)

        def work(seed: int) -> None:
            random = torch.Generator().manual_seed(seed)
            for _ in range(100):
                first, second, action = torch.randint(0, 4, (3,), generator=random).tolist()
                with manager.lease(kinds[first]) as model:
                    use(model, kinds[first])
                    if nested and action:
                        with manager.lease(kinds[second]) as other:
                            use(other, kinds[second])
                    elif not nested and factory.present() > 5 * MB:
                        faults.append("over the budget")
                    use(model, kinds[first])
                if action == 0:
                    manager.unload(kinds[second])
                faults.extend(self.watch(manager, 5 * MB))

        futures = [pool.submit(work, seed) for seed in range(8)]
        for future in futures:
            future.result(60)
        assert faults == []
        assert all(m.leases == 0 and not m.loading for m in manager.resident())
        assert factory.present() == manager.status().bytes <= 5 * MB
        assert manager._residency._held == {}
        manager.unload_all()
        assert factory.present() == 0

    def test_two_real_models_and_room_for_one(self, pool: ThreadPoolExecutor) -> None:
        manager = ModelManager(device="cpu", budget_bytes=42 * MB)
        faults: list[str] = []
        rounds = {"mobile_sam": 2, "tiny": 6}
        prompt = ((torch.zeros(1, 1, 2), torch.ones(1, 1)), None, None)

        def work(name: str) -> None:
            for _ in range(rounds[name]):
                with manager.lease(name) as model, torch.inference_mode():
                    if manager.status().bytes > 42 * MB:
                        faults.append("over the budget")
                    sparse, _ = manager.retry(lambda m=model: m.prompt_encoder(*prompt))
                    if not sparse.isfinite().all():
                        faults.append("not finite")

        futures = [pool.submit(work, name) for name in ("mobile_sam", "tiny") * 4]
        for future in futures:
            future.result(120)
        assert faults == []
        assert len(manager.resident()) == 1
        assert manager.unload_all() > MB
