"""A job may take what its control groups grant, not what the machine has."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from phasesam.models import free_memory as module
from phasesam.models.free_memory import Grant, free_memory, grants, total_memory

GB = 10**9


def group(folder: Path, version: int, limit: object, used: int, files: int = 0) -> None:
    names = (
        ("memory.max", "memory.current", "")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    )
    lines = [f"anon {5 * GB}", f"{names[2]}inactive_file {files - files // 3}"]
    lines += [f"{names[2]}active_file {files // 3}", f"inactive_file_of_others {GB}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text("\n".join(lines))


def own(folder: Path, text: str) -> Path:
    path = folder / "own"
    path.write_text(text)
    return path


def test_the_job_around_the_step_counts_too(tmp_path):
    group(tmp_path / "slurm" / "job_7", 2, 8 * GB, 5 * GB, GB)
    group(tmp_path / "slurm" / "job_7" / "step_0", 2, "max", 5 * GB)
    found = list(grants(tmp_path, own(tmp_path, "0::/slurm/job_7/step_0\n")))
    assert found == [Grant(8 * GB, 4 * GB)]


def test_version_1_inside_a_container(tmp_path):
    group(tmp_path / "memory", 1, 4 * GB, 3 * GB, GB)
    lines = "5:cpu,cpuacct:/a\n4:memory:/docker/1f2e\n1:name=systemd:/\n0::/\n"
    assert list(grants(tmp_path, own(tmp_path, lines))) == [Grant(4 * GB, 2 * GB)]


def test_no_groups(tmp_path):
    assert list(grants(tmp_path, tmp_path / "nothing")) == []
    assert list(grants(tmp_path, own(tmp_path, "0::/a/b\n"))) == []


@pytest.mark.parametrize(("limit", "used"), [(2 * GB, GB), (GB, 2 * GB), (9 * 10**18, GB)])
def test_the_least_counts(monkeypatch, limit, used):
    machine = psutil.virtual_memory()._replace(available=3 * GB, total=4 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(module, "grants", lambda: [Grant(limit, used)])
    assert free_memory() == min(3 * GB, max(0, limit - used))
    assert total_memory() == min(4 * GB, limit)


def test_here():
    assert 0 <= free_memory() <= total_memory() <= psutil.virtual_memory().total
