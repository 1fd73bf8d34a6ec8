"""What tests of the command line have in common."""

from __future__ import annotations

import pytest

from phasesam.models.manager import get_manager


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of its own, and no model left in memory afterwards."""
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    yield
    get_manager().unload_all()
