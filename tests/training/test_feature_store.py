"""Frozen features are computed once."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from phasesam.models import free_memory
from phasesam.models.split_encoder import FrozenFeatures
from phasesam.training import feature_store
from phasesam.training.feature_store import FeatureStore, shared_features


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


def test_what_the_training_needs_is_left_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeatureStore(tmp_path / "cache", limit=10**9)
    store.get("a", lambda: features(1))
    monkeypatch.setattr(free_memory, "free_memory", lambda: free_memory._LEFT_FREE + 10)
    store.get("b", lambda: features(2))
    assert [p.stem for p in (tmp_path / "cache").iterdir()] == ["b"]
    assert store.get("b", lambda: pytest.fail("again")).activation.unique().tolist() == [2]


def test_another_owner_finds_nothing(tmp_path: Path) -> None:
    with shared_features(tmp_path) as store:
        store.serve("one")
        store.get("a", lambda: features(1))
        store.serve("one")
        assert store.get("a", lambda: features(2)).activation.unique().tolist() == [1]
        store.serve("two")
        assert len(store) == 0
        assert store.get("a", lambda: features(2)).activation.unique().tolist() == [2]
    assert not list(tmp_path.iterdir())


def test_a_module_that_began_alike_gets_what_was_learnt() -> None:
    store, calls = FeatureStore(Path("unused")), []

    def learnt(module: torch.nn.Linear, name: str) -> bool:
        def learn() -> None:
            calls.append(name)
            module.weight.data += 1

        return store.learn(name, module, learn)

    first, same, other = (torch.nn.Linear(3, 2) for _ in range(3))
    same.load_state_dict(first.state_dict())
    third = torch.nn.Linear(3, 2)
    third.load_state_dict(first.state_dict())
    assert learnt(first, "a")
    # What becomes of the first one later is its own affair.
    kept = first.weight.detach().clone()
    first.weight.data += 5
    assert not learnt(same, "a")
    assert torch.equal(same.weight, kept)
    assert learnt(other, "a")
    assert learnt(third, "b")
    assert calls == ["a", "a", "b"]


def test_a_full_disk_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(feature_store, "save_file", full)
    store = FeatureStore(tmp_path / "cache", limit=0)
    calls = []
    for value in (1.0, 2.0):
        found = store.get("a", lambda v=value: (calls.append(v), features(v))[1])
        assert found.activation.unique().tolist() == [value]
    assert calls == [1.0, 2.0]
    assert not list((tmp_path / "cache").iterdir()), "no half of a file stays"


def test_room_is_left_for_checkpoint_and_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1 << 30))
    store = FeatureStore(tmp_path / "cache", limit=0)
    assert store.get("a", lambda: features(1.0)).activation.unique().tolist() == [1.0]
    assert not list((tmp_path / "cache").iterdir())


def test_what_a_killed_training_left_is_removed(tmp_path: Path) -> None:
    killed = FeatureStore(tmp_path, limit=0)
    killed.get("view-1", lambda: features(1))
    other = tmp_path / "notes.txt"
    other.write_text("")
    store = FeatureStore(tmp_path, limit=0)
    store.get("view-2", lambda: features(2))
    store.remove_leftovers()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "view-2.safetensors"]
    FeatureStore(tmp_path / "none").remove_leftovers()
