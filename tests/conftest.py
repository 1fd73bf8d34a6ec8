"""Surroundings of all tests: own settings, own caches, the CPU, few threads."""

from __future__ import annotations

import gc
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
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

PROJECT = Path(__file__).resolve().parents[1]


def pytest_collection_finish():
    """Keep the collector away from what was imported: napari calls it after each viewer."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _remove_scratch_folder():
    """Leave nothing behind in the system's temporary folder."""
    import shutil

    yield
    shutil.rmtree(_SCRATCH, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_bundled_adapters(monkeypatch, tmp_path_factory):
    """Leave the bundled adapters out: tests count the adapters that they make themselves."""
    from phasesam.models import adapter_store

    original = adapter_store.bundled_folder
    empty = tmp_path_factory.getbasetemp() / "no-adapters"
    monkeypatch.setattr(adapter_store, "bundled_folder", lambda: empty)
    return original


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


@pytest.fixture(scope="session")
def make_adapter():
    """Write an adapter that visibly changes its base.

    ``make_adapter(path, base="tiny", config=..., classes=(), seed=0, **details)`` returns the
    path; the classes make it a semantic one.
    """
    from functools import cache

    bases = cache(_base)

    def make(path, base="tiny", config=None, classes=(), seed=0, **details):
        import torch

        from phasesam.models.adapter_config import AdapterConfig
        from phasesam.models.adapters import AdapterCard, adapter_tensors, attach, save_adapter

        config = config or AdapterConfig(rank=2, decoder_rank=2)
        model, fingerprint = bases(base)
        adapted = attach(model, config, len(classes))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in adapter_tensors(adapted, config).values():
                tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
        task = details.pop("task", "semantic" if classes else "promptable")
        card = AdapterCard(config, base, fingerprint, task, tuple(classes), details)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_adapter(adapted, card, path)
        return path

    return make


def _base(name):
    from phasesam.models.adapters import weights_hash
    from phasesam.models.sam import build_model

    model = build_model(name)
    return model, weights_hash(model)
