"""The estimate before a training, against what a training takes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from phasesam.core.errors import DeviceMemoryError
from phasesam.training import memory_estimate
from phasesam.training.fine_tuning import TrainingSettings
from phasesam.training.memory_estimate import estimate_memory, require_memory, suggestion
from phasesam.training.recipes import get_recipe

DEFAULT = TrainingSettings(get_recipe("default"), device="cpu")


def test_more_work_needs_more_memory() -> None:
    recipe = DEFAULT.recipe
    usual = estimate_memory(DEFAULT)
    whole = replace(recipe, adapter=replace(recipe.adapter, blocks="all"))
    many = replace(recipe, prompts=replace(recipe.prompts, objects=24))
    decoder = replace(recipe, adapter=replace(recipe.adapter, encoder=()))
    assert estimate_memory(replace(DEFAULT, recipe=whole)) > 1.1 * usual
    assert estimate_memory(replace(DEFAULT, recipe=many)) > 1.5 * usual
    assert estimate_memory(replace(DEFAULT, recipe=decoder)) < usual
    assert estimate_memory(replace(DEFAULT, base="sam_vit_h")) > 2 * usual
    assert estimate_memory(DEFAULT, 3) < usual


def test_refuses_what_will_not_fit_and_says_what_to_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = psutil.virtual_memory()._replace(available=10**9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(DeviceMemoryError, match=r"1\.0 GB are free: .*prompt fewer objects"):
        require_memory(DEFAULT)
    large = replace(
        DEFAULT,
        base="sam_vit_h",
        recipe=replace(
            DEFAULT.recipe, adapter=replace(DEFAULT.recipe.adapter, blocks="all", rank=512)
        ),
    )
    text = suggestion(large)
    assert text.index("late blocks") < text.index("mobile_sam") < text.index("rank")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_is_within_a_third_of_the_truth(tmp_path: Path) -> None:
    script = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from phasesam.training.fine_tuning import *; from phasesam.training.recipes import *\n"
        "from tests.training.conftest import disc_data\n"
        "recipe = replace(get_recipe('default'), epochs=1, views_per_epoch=4, pool=4)\n"
        "train(disc_data('promptable'), sys.argv[1], TrainingSettings(recipe, device='cpu', "
        "precision='fp32'))\n"
        # The figure of getrusage begins with what the process that started this one held.
        "status = Path('/proc/self/status').read_text().split('VmHWM:')[1]\n"
        "print(int(status.split()[0]) * 1024)"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    truth = int(run.stdout.split()[-1])
    assert estimate_memory(DEFAULT) == pytest.approx(truth, rel=1 / 3)


def test_the_adapter_to_go_on_from_decides(tmp_path: Path, make_adapter) -> None:
    path = tmp_path / "all.safetensors"
    make_adapter(path, config=replace(DEFAULT.recipe.adapter, blocks="all"))
    assert estimate_memory(replace(DEFAULT, start=str(path))) > 1.1 * estimate_memory(DEFAULT)


def test_processes_on_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    need = estimate_memory(DEFAULT)
    free = psutil.virtual_memory()._replace(available=int(1.9 * need))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    require_memory(DEFAULT)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(DeviceMemoryError):
        require_memory(DEFAULT)


def test_every_process_looks_at_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(memory_estimate, "asked_device", lambda device: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: asked.append(d) or (2**40, 2**40))
    require_memory(DEFAULT)
    monkeypatch.setenv("LOCAL_RANK", "1")
    require_memory(DEFAULT)
    assert asked == [torch.device("cuda:0"), 1]
