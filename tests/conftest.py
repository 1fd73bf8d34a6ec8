"""Surroundings of all tests: own settings, own caches, the CPU, few threads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

_SCRATCH = Path(tempfile.mkdtemp(prefix="phasesam-tests-"))
# Before anything imports napari, torch or phasesam: viewer tests would otherwise reset the
# developer's own napari settings, and caches would outlive the tests.
os.environ["NAPARI_CONFIG"] = str(_SCRATCH / "napari" / "settings.yaml")
os.environ["PHASESAM_CACHE"] = str(_SCRATCH / "cache")
os.environ.setdefault("PHASESAM_DEVICE", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "2")

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _remove_scratch_folder():
    """Leave nothing behind in the system's temporary folder."""
    import shutil

    yield
    shutil.rmtree(_SCRATCH, ignore_errors=True)


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Return the top folder of the source tree."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data(project_root: Path) -> Path:
    """Return the folder of development data beside the source tree; skip without it."""
    folder = project_root.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the development data (../shared) are not here")
    return folder
