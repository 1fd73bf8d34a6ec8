from __future__ import annotations

import pytest
import torch

from phasesam.models import half_precision
from phasesam.models.half_precision import product_dtype, trains_in_bf16


@pytest.fixture(autouse=True)
def _measure_anew():
    half_precision._faster_on_cpu.cache_clear()
    yield
    half_precision._faster_on_cpu.cache_clear()


@pytest.mark.parametrize(
    ("half_seconds", "expected"),
    [(0.2, torch.bfloat16), (0.6, torch.bfloat16), (0.9, torch.float32), (5.0, torch.float32)],
)
def test_processor_is_measured_once(monkeypatch, half_seconds, expected):
    measured = []

    def seconds(dtype):
        measured.append(dtype)
        return half_seconds if dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(half_precision, "_product_seconds", seconds)
    for _ in range(3):
        assert product_dtype(torch.device("cpu")) == expected
    assert sorted(measured, key=str) == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_graphics_cards_are_asked(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert product_dtype(torch.device("cuda", 0)) == expected
    assert trains_in_bf16(torch.device("cuda", 0)) == (expected == torch.bfloat16)


def test_other_devices_use_single_precision():
    assert product_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_measurement_takes_milliseconds(dtype):
    assert 0 < half_precision._product_seconds(dtype) < 5


@pytest.mark.parametrize("amx", [False, True])
def test_processors_train_in_half_precision_with_amx_only(monkeypatch, amx):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert trains_in_bf16(torch.device("cpu")) == amx
    assert not trains_in_bf16(torch.device("mps"))
