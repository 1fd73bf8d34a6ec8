from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from phasesam.core.errors import DeviceMemoryError, InvalidSettingError
from phasesam.models import memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("4GB", 4 * 10**9),
        (" 1.5 gib ", int(1.5 * 2**30)),
        ("512MiB", 512 * 2**20),
        ("2k", 2000),
        ("0.5 TB", 5 * 10**11),
        (".5M", 500_000),
    ],
)
def test_parse_bytes(text: str, size: int) -> None:
    assert memory.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "4 XB", "1e9", "nan", "GB"])
def test_parse_bytes_refuses(text: str) -> None:
    with pytest.raises(InvalidSettingError, match="amount of memory"):
        memory.parse_bytes(text)


def test_format_bytes() -> None:
    sizes = [0, 999, 40_637_696, 999_600, 2_564_550_879, 10**13]
    texts = ["0 B", "999 B", "40.6 MB", "1 MB", "2.56 GB", "10 TB"]
    assert [memory.format_bytes(size) for size in sizes] == texts


def _real_cpu_shortage() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


def _real_numpy_shortage() -> MemoryError:
    with pytest.raises(MemoryError) as caught:
        np.empty(2**60, dtype=np.uint8)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        MemoryError(),
        _real_cpu_shortage(),
        _real_numpy_shortage(),
    ],
)
def test_is_out_of_memory(error: BaseException) -> None:
    assert memory.is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        DeviceMemoryError("out of memory after every remedy"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_is_something_else(error: BaseException) -> None:
    assert not memory.is_out_of_memory(error)


class _Parts(nn.Module):
    """Every way in which a module can hold a tensor, with one of them held twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(10, 10)
        self.tied = nn.Linear(10, 10)
        self.tied.weight = self.linear.weight
        self.register_buffer("table", torch.zeros(100))
        self.plain = torch.zeros(50)


def test_module_bytes_counts_each_storage_once() -> None:
    module = _Parts()
    assert memory.module_bytes(module) == 4 * (100 + 10 + 10 + 100 + 50)
    shared = memory.storages(module.linear)
    assert memory.module_bytes(module, shared) == 4 * (10 + 100 + 50)


def test_release_takes_everything_but_what_is_shared() -> None:
    module = _Parts()
    weight = module.linear.weight
    shared = memory.storages(module.linear)
    memory.release_module(module, shared)
    assert memory.module_bytes(module) == 4 * 110
    assert module.linear.weight is weight
    assert module.plain.is_meta
    assert module.table.is_meta
    assert module.tied.bias.shape == (10,)
    memory.release_module(module)
    assert memory.module_bytes(module) == 0
    with pytest.raises(RuntimeError, match="meta"):
        module.linear.weight.tolist()


def test_emptied_on_error() -> None:
    module = nn.Linear(4, 4)
    with pytest.raises(KeyError), memory.emptied_on_error(module):
        raise KeyError
    assert module.weight.is_meta


def test_return_memory_without_malloc_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    memory._malloc_trim.cache_clear()
    try:
        assert memory._malloc_trim() is None
        memory.return_memory(("cpu",))
    finally:
        memory._malloc_trim.cache_clear()


_UNLOAD = """
import json, psutil, torch
from torch import nn
from phasesam.models.manager import ModelManager

class Layers(nn.Module):
    # Layers of 64 kB: these stay in the allocator's heap if nobody asks.
    def __init__(self, count):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(128, 128, bias=False) for _ in range(count))

def rss():
    return psutil.Process().memory_info().rss

manager = ModelManager(device="cpu", builder=lambda spec, **_: Layers(spec), find_spec=int)
manager.load("2"); manager.unload_all()
before = rss()
manager.load("3200")
loaded = rss()
later = torch.ones(128, 128)  # Lies above the model on the heap.
claimed = manager.unload("3200")
print(json.dumps([before, loaded, rss(), claimed]))
"""


def test_unload_returns_the_memory_to_the_system() -> None:
    output = subprocess.run(
        [sys.executable, "-c", _UNLOAD], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    before, loaded, after, claimed = json.loads(output)
    assert claimed == 3200 * 128 * 128 * 4
    assert loaded - before > 0.9 * claimed
    assert loaded - after >= 0.95 * claimed
