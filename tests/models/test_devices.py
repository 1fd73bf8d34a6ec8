from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from phasesam.core.errors import InvalidSettingError
from phasesam.models import devices


def _pretend(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: cuda - 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "choice", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, False, "auto", "cuda:0"),
        (2, False, "cuda", "cuda:1"),
        (2, False, " CUDA:0 ", "cuda:0"),
        (2, False, "cpu", "cpu"),
        (0, True, "mps", "mps"),
    ],
)
def test_resolve_device(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, choice: str, expected: str
) -> None:
    _pretend(monkeypatch, cuda, mps)
    assert str(devices.resolve_device(choice)) == expected


@pytest.mark.parametrize("choice", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    _pretend(monkeypatch)
    with pytest.raises(InvalidSettingError, match=rf"\(cpu\), got '{choice}'"):
        devices.resolve_device(choice)


@pytest.mark.parametrize("choice", ["gpu", "", "cuda:", "cuda:x", "tpu", "cpu:0"])
def test_check_device_refuses(choice: str) -> None:
    with pytest.raises(InvalidSettingError, match="a device is one of"):
        devices.check_device(choice)


@pytest.mark.parametrize(
    ("kind", "in_hardware", "choice", "expected"),
    [
        ("cuda", True, "auto", torch.bfloat16),
        ("cuda", False, "auto", torch.float32),
        ("cuda", True, "fp32", torch.float32),
        ("cuda", False, "fp16", torch.float16),
        ("cpu", True, "auto", torch.float32),
        ("cpu", True, "bf16", torch.bfloat16),
        ("mps", True, "auto", torch.float32),
    ],
)
def test_precision_policy(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    in_hardware: bool,
    choice: str,
    expected: torch.dtype,
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return in_hardware or including_emulation

    def capability(device: object) -> tuple[int, int]:
        return (8, 0) if in_hardware else (7, 5)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    device = SimpleNamespace(type=kind)
    assert devices.resolve_precision(device, choice) is expected


def test_unknown_precision() -> None:
    with pytest.raises(InvalidSettingError, match="got 'int8'"):
        devices.check_precision("int8")


def test_autocast() -> None:
    linear, x = torch.nn.Linear(2, 2), torch.zeros(1, 2)
    with devices.autocast(torch.device("cpu"), torch.float32):
        assert linear(x).dtype == torch.float32
    with devices.autocast(torch.device("cpu"), torch.bfloat16):
        assert linear(x).dtype == torch.bfloat16


def test_settings_come_from_arguments_then_environment() -> None:
    environment = {
        "PHASESAM_DEVICE": "cpu",
        "PHASESAM_PRECISION": "bf16",
        "PHASESAM_MEMORY_BUDGET": "4GB",
    }
    assert devices.read_settings(environment={}) == ("auto", "auto", None)
    assert devices.read_settings(environment=environment) == ("cpu", "bfloat16", 4 * 10**9)
    assert devices.read_settings("mps", "fp32", 7, environment) == ("mps", "float32", 7)
    blank = dict.fromkeys(environment, " ")
    assert devices.read_settings(environment=blank) == ("auto", "auto", None)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PHASESAM_DEVICE", "gpu"),
        ("PHASESAM_PRECISION", "double"),
        ("PHASESAM_MEMORY_BUDGET", "half"),
    ],
)
def test_bad_environment_is_named(variable: str, value: str) -> None:
    with pytest.raises(InvalidSettingError, match=f"{value}.*{variable}"):
        devices.read_settings(environment={variable: value})


def test_budget_is_positive() -> None:
    with pytest.raises(InvalidSettingError, match="at least 1 byte, got 0"):
        devices.read_settings(budget=0, environment={})


def test_cpu_figures() -> None:
    used, total = devices.device_memory(torch.device("cpu"))
    assert 10**7 < used < total
    assert devices.default_budget(torch.device("cpu")) == total // 2


def test_cuda_and_mps_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30, 100))
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 5)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 50)
    assert devices.device_memory(SimpleNamespace(type="cuda")) == (70, 100)
    assert devices.device_memory(SimpleNamespace(type="mps")) == (5, 50)
    assert devices.default_budget(SimpleNamespace(type="cuda")) == 70


class TestDeviceChoice:
    def test_resolves_once_and_knows_its_budget(self) -> None:
        choice = devices.DeviceChoice(devices.Settings("cpu", "auto", None))
        assert choice.known is None
        assert choice.budget("cpu") is None
        assert choice.device == torch.device("cpu")
        assert choice.known is choice.device
        assert choice.budget("cpu") == devices.default_budget(choice.device)

    def test_changes(self) -> None:
        choice = devices.DeviceChoice(devices.Settings("cpu", "auto", 100))
        choice.choose_budget(50)
        choice.choose_precision("bf16")
        assert choice.budget("cpu") == 50
        assert choice.precision(choice.device) is torch.bfloat16
        choice.choose_budget(None)
        assert choice.budget("cpu") > 10**8

    def test_an_absent_device_leaves_the_old_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _pretend(monkeypatch)
        choice = devices.DeviceChoice(devices.Settings("cpu", "auto", None))
        assert choice.device.type == "cpu"
        with pytest.raises(InvalidSettingError, match="got 'cuda'"):
            choice.choose_device("cuda")
        assert choice.settings.device == "cpu"
        assert choice.known == torch.device("cpu")

    def test_is_not_looked_for_before_it_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _pretend(monkeypatch)
        choice = devices.DeviceChoice(devices.Settings("auto", "auto", None))
        choice.choose_device("cuda")
        assert choice.settings.device == "cuda"
        with pytest.raises(InvalidSettingError, match="got 'cuda'"):
            assert choice.device


def test_importing_does_not_import_torch() -> None:
    code = (
        "import sys, phasesam.models.devices as d; d.read_settings(); d.check_device('cuda:1');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_check_budget() -> None:
    assert devices.check_budget(None) is None
    assert devices.check_budget(4 * 2**30) == 4 * 2**30
    found = devices.check_budget(4e9)  # type: ignore[arg-type]
    assert (found, type(found)) == (4_000_000_000, int)


@pytest.mark.parametrize("budget", ["4GB", "4", 0, -1, 0.5, True, float("nan"), float("inf"), [1]])
def test_check_budget_refuses(budget: object) -> None:
    with pytest.raises(InvalidSettingError, match=r"number of bytes .*, got ") as caught:
        devices.check_budget(budget)  # type: ignore[arg-type]
    assert repr(budget) in str(caught.value)


def test_auto_asks_the_environment(monkeypatch):
    monkeypatch.setattr(devices, "available_devices", lambda: ("cuda:0", "cpu"))
    monkeypatch.delenv("PHASESAM_DEVICE", raising=False)
    assert devices.asked_device().type == "cuda"
    monkeypatch.setenv("PHASESAM_DEVICE", "cpu")
    assert devices.asked_device().type == "cpu"
    assert devices.asked_device("cuda:0").type == "cuda"
    monkeypatch.setenv("PHASESAM_DEVICE", "gpu")
    with pytest.raises(InvalidSettingError, match="PHASESAM_DEVICE"):
        devices.asked_device()
