from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.errors import CancelledError, DeviceMemoryError, InvalidSettingError
from phasesam.models.execution import ExecutionLock
from phasesam.models.manager import ModelManager
from phasesam.models.shortage import ShortageGuard, attempt

MB = 10**6


class _Fixture:
    """A guard that counts what it frees, and computations that need room."""

    def __init__(self, capacity: int = 10**9) -> None:
        self.freed = 0
        self.capacity = capacity
        self.sizes: list[int] = []
        self.lock = ExecutionLock()
        self.guard = ShortageGuard(self.lock, self._free, "{} | {}".format)

    def _free(self) -> None:
        self.freed += 1

    def double(self, piece: np.ndarray) -> np.ndarray:
        assert self.lock.held
        self.sizes.append(len(piece))
        if len(piece) > self.capacity:
            raise torch.OutOfMemoryError(f"out of memory: tried to allocate {len(piece)}\nmore")
        return 2 * piece

    def batches(self, n_items: int, batch_size: int) -> list[tuple[int, np.ndarray]]:
        return list(self.guard.batches(self.double, np.arange(n_items), batch_size, "decoding"))


def test_attempt_keeps_results_and_passes_other_errors() -> None:
    assert attempt(lambda: 3).result == 3
    with pytest.raises(KeyError):
        attempt(lambda: {}[0])
    with pytest.raises(RuntimeError, match="shape"):
        attempt(lambda: torch.zeros(2).view(3))


def test_attempt_frees_what_the_failed_try_had_allocated() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def fail() -> None:
        tensor = torch.zeros(10)
        alive.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("CUDA out of memory")

    gc.disable()
    try:
        assert attempt(fail).shortage == "CUDA out of memory"
        assert alive[0]() is None
    finally:
        gc.enable()


def test_twice() -> None:
    fixture = _Fixture()
    failures = [MemoryError(), None]

    def compute() -> str:
        error = failures.pop(0)
        if error is not None:
            raise error
        return "done"

    assert fixture.guard.twice(compute, "encoding") == "done"
    assert fixture.freed == 1
    failures[:] = [MemoryError(), MemoryError()]
    with pytest.raises(DeviceMemoryError, match=r"encoding \| MemoryError"):
        fixture.guard.twice(compute, "encoding")
    assert fixture.freed == 2


def test_twice_does_not_retry_when_every_remedy_was_tried() -> None:
    fixture = _Fixture()

    def compute() -> None:
        raise DeviceMemoryError("nothing helped")

    with pytest.raises(DeviceMemoryError, match="nothing helped"):
        fixture.guard.twice(compute, "encoding")
    assert fixture.freed == 0


def test_batches_shrink_to_what_fits_and_stay_there() -> None:
    fixture = _Fixture(capacity=5)
    pieces = fixture.batches(40, 16)
    # Freed and tried again, halved, halved; then always 4.
    assert fixture.sizes == [16, 16, 8, 4] + [4] * 9
    assert fixture.freed == 3
    assert [done for done, _ in pieces] == list(range(4, 41, 4))
    np.testing.assert_array_equal(np.concatenate([p for _, p in pieces]), 2 * np.arange(40))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 50), st.integers(1, 20), st.integers(1, 20))
def test_batches_cover_everything_once(n_items: int, batch_size: int, capacity: int) -> None:
    fixture = _Fixture(capacity)
    results = [piece for _, piece in fixture.batches(n_items, batch_size)]
    np.testing.assert_array_equal(np.concatenate([[], *results]), 2 * np.arange(n_items))
    assert all(len(piece) <= min(batch_size, capacity) for piece in results)


def test_batches_give_up_at_one_item_with_the_report() -> None:
    fixture = _Fixture(capacity=0)
    with pytest.raises(DeviceMemoryError) as caught:
        fixture.batches(3, 4)
    assert str(caught.value) == ("decoding, one at a time | out of memory: tried to allocate 1")
    assert fixture.sizes == [3, 3, 2, 1]


def test_a_single_item_is_tried_again_too() -> None:
    fixture = _Fixture(capacity=0)
    with pytest.raises(DeviceMemoryError):
        fixture.batches(1, 1)
    assert fixture.sizes == [1, 1]


def test_batches_let_results_go() -> None:
    fixture = _Fixture()
    first = None
    for _, piece in fixture.guard.batches(lambda p: p.clone(), torch.zeros(4), 2, "decoding"):
        if first is not None:
            assert first() is None
        first = weakref.ref(piece)
        del piece


def test_batches_stop() -> None:
    fixture = _Fixture()
    with pytest.raises(CancelledError):
        list(
            fixture.guard.batches(
                fixture.double, np.arange(9), 3, "decoding", lambda: len(fixture.sizes) == 2
            )
        )
    assert fixture.sizes == [3, 3]


def test_batch_size_is_positive() -> None:
    with pytest.raises(InvalidSettingError, match="got a batch size of 0"):
        _Fixture().batches(3, 0)


class TestInTheManager:
    """Injected shortages in computations with real models."""

    def test_at_encode(self, factory) -> None:
        """The first forward pass of the real encoder fails; the idle model leaves."""
        manager = ModelManager(device="cpu")
        manager.load("mobile_sam")
        shortages = [torch.OutOfMemoryError("CUDA out of memory")]

        def fail_once(*_: object) -> None:
            if shortages:
                raise shortages.pop()

        with manager.lease("tiny") as model, torch.inference_mode():
            model.image_encoder.register_forward_pre_hook(fail_once)
            x = torch.zeros(1, 3, 1024, 1024)
            output = manager.retry(lambda: model.encode(x), doing="encoding the image")
            assert output.features.isfinite().all()
            assert factory.names(manager) == ["tiny"]

    def test_at_decode(self) -> None:
        """The real decoder takes no more than three prompts at a time."""
        manager = ModelManager(device="cpu")
        with manager.lease("tiny") as model, torch.inference_mode():
            channels = model.mask_decoder.transformer_dim
            features = torch.zeros(1, channels, 64, 64)
            positions = model.prompt_encoder.get_dense_pe()

            def decode(points: torch.Tensor) -> torch.Tensor:
                if len(points) > 3:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                labels = torch.ones(len(points), 1)
                sparse, dense = model.prompt_encoder((points, labels), None, None)
                _, scores = model.mask_decoder(features, positions, sparse, dense, True)
                return scores

            points = torch.linspace(0, 1000, 12).view(6, 1, 2)
            seen: list[tuple[int, int]] = []
            scores = manager.run_batches(
                decode, points, 6, progress=lambda done, total: seen.append((done, total))
            )
            assert [len(part) for part in scores] == [3, 3]
            assert seen == [(3, 6), (6, 6)]
            reference = torch.cat([decode(points[i : i + 1]) for i in (0, 5)])
            torch.testing.assert_close(torch.cat(scores)[[0, 5]], reference, rtol=1e-4, atol=1e-5)

    def test_says_what_it_knows(self, factory) -> None:
        manager = factory.manager()

        def compute(piece: object) -> None:
            raise MemoryError("Unable to allocate 9 TiB")

        with (
            manager.lease("m1"),
            pytest.raises(
                DeviceMemoryError,
                match=r"cpu ran out of memory while decoding masks, one at a time.* of .*B in "
                r"use, 1 MB by models \(m1 .*9 TiB.*PHASESAM_DEVICE=cpu",
            ),
        ):
            list(manager.iterate_batches(compute, [1, 2], 2, doing="decoding masks"))
