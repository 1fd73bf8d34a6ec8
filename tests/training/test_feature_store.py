"""Frozen features are computed once."""

from pathlib import Path

import torch

from phasesam.models.split_encoder import FrozenFeatures
from phasesam.training.feature_store import FeatureStore


def features(value: float) -> FrozenFeatures:
    return FrozenFeatures(torch.full((1, 2, 4, 4), value), (torch.full((1, 4), value + 1),))


def test_memory_first_then_disk_each_computed_once(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "cache", limit=150)
    calls = []
    for _ in range(2):
        for name in ("a", "b", "c"):

            def compute(name: str = name) -> FrozenFeatures:
                calls.append(name)
                return features(ord(name) / 8)

            found = store.get(name, compute)
            assert found.activation.dtype == torch.float16
            assert found.activation.unique().tolist() == [ord(name) / 8]
            assert [t.unique().item() for t in found.intermediate] == [ord(name) / 8 + 1]
    assert calls == ["a", "b", "c"]
    assert len(store) == 3
    assert store.nbytes <= 150
    assert sorted(p.stem for p in (tmp_path / "cache").iterdir()) == ["b", "c"] or (
        sorted(p.stem for p in (tmp_path / "cache").iterdir()) == ["c"]
    )
    store.clear()
    assert not list((tmp_path / "cache").iterdir())
    assert len(store) == 0
