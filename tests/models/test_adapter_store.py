from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from phasesam.core.errors import CheckpointError, InvalidSettingError, SaveError, UnknownModelError
from phasesam.models import adapter_store
from phasesam.models.adapter_card import AdapterCard, is_adapter, read_card
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapter_store import (
    card_of,
    content_hash,
    get_adapter,
    import_adapter,
    list_adapters,
    remove_adapter,
    store_folder,
)

CARD = AdapterCard(AdapterConfig(), "tiny", "0" * 64, details={"recipe": "default"})


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "adapters"


def adapter_file(path, value=1.0, card=CARD):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": torch.full((3,), value)}, path, {"card": card.to_json()})
    return path


def test_import_list_get_remove(tmp_path, store):
    assert list_adapters() == ()
    source = adapter_file(tmp_path / "run" / "best.safetensors")
    entry = import_adapter(source, "powder")
    assert (entry.name, entry.title, entry.card, entry.trouble) == ("powder", "powder", CARD, "")
    assert entry.path == store / "powder.safetensors"
    assert list_adapters() == (entry,)
    assert get_adapter("powder") == entry
    assert card_of("powder") == CARD
    source.unlink()
    assert torch.equal(load_file(entry.path)["a"], torch.ones(3))
    remove_adapter("powder")
    assert list_adapters() == ()
    with pytest.raises(UnknownModelError, match="no adapter 'powder'"):
        remove_adapter("powder")


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    monkeypatch.setattr(adapter_store, "bundled_folder", lambda: tmp_path / "bundled")
    return adapter_file(tmp_path / "bundled" / "steel.safetensors", 3.0)


def test_bundled_adapters_are_there_without_import(bundled, tmp_path):
    (entry,) = list_adapters()
    assert (entry.name, entry.path, entry.is_bundled) == ("steel", bundled, True)
    assert get_adapter("steel") == entry
    own = import_adapter(adapter_file(tmp_path / "a.safetensors"), "powder")
    assert not own.is_bundled
    assert [e.name for e in list_adapters()] == ["powder", "steel"]
    with pytest.raises(InvalidSettingError, match="part of PhaseSAM and cannot be removed"):
        remove_adapter("steel")
    assert bundled.exists()


def test_a_name_of_a_bundled_adapter_is_taken(bundled, tmp_path):
    path = adapter_file(tmp_path / "a.safetensors")
    with pytest.raises(InvalidSettingError, match="there is an adapter 'steel' already"):
        import_adapter(path, "Steel")
    # Asked to, one's own stands before it, and can be removed.
    own = import_adapter(path, "steel", replace=True)
    assert get_adapter("steel").path == own.path == store_folder() / "steel.safetensors"
    assert [e.is_bundled for e in list_adapters()] == [False]
    remove_adapter("steel")
    assert get_adapter("steel").path == bundled


def test_a_path_will_do(tmp_path, monkeypatch):
    path = adapter_file(tmp_path / "run" / "best.safetensors")
    for written in (path, str(path), os.path.relpath(path)):
        assert get_adapter(written).path == path
    monkeypatch.chdir(path.parent)
    assert get_adapter("best.safetensors").name == str(path)
    # A name in the store goes before a file of the present folder.
    adapter_file(path.parent / "powder")
    assert get_adapter("powder").path == path.parent / "powder"
    import_adapter(path, "powder")
    assert get_adapter("powder").path == store_folder() / "powder.safetensors"
    with pytest.raises(UnknownModelError, match=r"'steel', neither .* there are: powder"):
        get_adapter("steel")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-x", "x" * 65, "é"])
def test_malformed_names(tmp_path, name):
    path = adapter_file(tmp_path / "a.safetensors")
    with pytest.raises(InvalidSettingError, match="the name of an adapter"):
        import_adapter(path, name)


def test_taken_names(tmp_path):
    path = adapter_file(tmp_path / "a.safetensors")
    import_adapter(path, "powder")
    for name in ("powder", "Powder"):
        with pytest.raises(InvalidSettingError, match="an adapter 'powder' already"):
            import_adapter(path, name)
    with pytest.raises(InvalidSettingError, match="a model 'mobile_sam'"):
        import_adapter(path, "mobile_sam")
    before = get_adapter("powder").content_hash
    adapter_file(path, 2.0)
    assert import_adapter(path, "powder", replace=True).content_hash != before
    with pytest.raises(InvalidSettingError):
        import_adapter(path, "Powder", replace=True)


def test_what_is_no_adapter_is_not_imported(tmp_path, store):
    (tmp_path / "text.safetensors").write_text("nothing at all")
    save_file({"a": torch.ones(1)}, tmp_path / "weights.safetensors")
    cut = adapter_file(tmp_path / "cut.safetensors")
    cut.write_bytes(cut.read_bytes()[:-4])
    for name, message in (
        ("text", "cannot be read as an adapter"),
        ("weights", "it has no card"),
        ("cut", "the file is incomplete"),
        ("gone", "cannot be read as an adapter"),
    ):
        with pytest.raises(CheckpointError, match=message):
            import_adapter(tmp_path / f"{name}.safetensors", "powder")
    assert not store.exists() or list(store.iterdir()) == []
    assert [is_adapter(tmp_path / f"{n}.safetensors") for n in ("text", "weights")] == [False] * 2


def test_a_full_disk_leaves_the_old_one(tmp_path, store, monkeypatch):
    path = adapter_file(tmp_path / "a.safetensors")
    import_adapter(path, "powder")
    before = get_adapter("powder").content_hash

    def fail(source, target):
        target.write(source.read(10))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapter_store.shutil, "copyfileobj", fail)
    with pytest.raises(SaveError, match="No space left"):
        import_adapter(path, "powder", replace=True)
    assert get_adapter("powder").content_hash == before
    assert [file.name for file in store.iterdir()] == ["powder.safetensors"]


def test_damaged_files_are_listed_with_their_trouble(store, tmp_path):
    adapter_file(store / "good.safetensors")
    cut = adapter_file(store / "cut.safetensors")
    cut.write_bytes(cut.read_bytes()[:-4])
    (store / "empty.safetensors").touch()
    (store / ".powder.1234.part.safetensors").touch()
    (store / "notes.txt").touch()
    found = {entry.name: entry for entry in list_adapters()}
    assert list(found) == ["cut", "empty", "good"]
    assert found["cut"].card is None
    assert "incomplete" in found["cut"].trouble
    with pytest.raises(CheckpointError, match="incomplete"):
        get_adapter("cut")
    remove_adapter("cut")
    assert [entry.name for entry in list_adapters()] == ["empty", "good"]


@pytest.mark.parametrize(
    "change",
    [
        {"task": "dance"},
        {"task": "semantic"},
        {"classes": ["a", "b"]},
        {"base": 3},
        {"details": []},
        {"config": {"rank": 0}},
        {"config": {"strange": 1}},
        {"format": "phasesam-adapter-9"},
        {"surplus": 1},
    ],
)
def test_cards_that_make_no_sense(tmp_path, change):
    card = json.dumps({**json.loads(CARD.to_json()), **change})
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", {"card": card})
    with pytest.raises(CheckpointError, match="the card of the adapter is damaged"):
        read_card(tmp_path / "a.safetensors")


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path = adapter_file(tmp_path / "a.safetensors")
    reads = []
    real = adapter_store.hashlib.file_digest
    monkeypatch.setattr(
        adapter_store.hashlib, "file_digest", lambda *args: reads.append(1) or real(*args)
    )
    first = content_hash(path)
    assert content_hash(path) == get_adapter(path).content_hash == first
    assert len(reads) == 1
    # Trained again: the same name, length and, by bad luck, time.
    status = path.stat()
    other = path.with_name("new")
    other.write_bytes(save({"a": torch.full((3,), 2.0)}, {"card": CARD.to_json()}))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert other.stat().st_size == status.st_size
    other.replace(path)
    assert content_hash(path) != first
    assert len(reads) == 2


def test_cards_are_read_again_after_a_change(tmp_path):
    path = adapter_file(tmp_path / "a.safetensors")
    assert card_of(path).details == {"recipe": "default"}
    adapter_file(path, card=AdapterCard(AdapterConfig(rank=4), "tiny", "0" * 64))
    assert card_of(path).config.rank == 4


def test_many_look_while_one_writes(tmp_path):
    """Who looks gets a whole file, the old or the new one."""
    path = adapter_file(tmp_path / "a.safetensors")
    contents = [save({"a": torch.full((3,), float(i))}, {"card": CARD.to_json()}) for i in (0, 1)]
    path.write_bytes(contents[0])
    allowed = set()
    for content in contents:
        path.write_bytes(content)
        allowed.add(content_hash(path))
    ended = threading.Event()
    faults = []

    def look():
        while not ended.is_set():
            entry = get_adapter(path)
            if entry.content_hash not in allowed or entry.card != CARD:
                faults.append(entry)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(100):
        part = tmp_path / "part"
        part.write_bytes(contents[number % 2])
        part.replace(path)
    ended.set()
    for thread in threads:
        thread.join()
    assert faults == []


def test_listing_loads_no_torch(store):
    adapter_file(store / "powder.safetensors")
    code = (
        "import sys; from phasesam.models.adapter_store import list_adapters;"
        "entry = list_adapters()[0]; assert entry.card.base == 'tiny'; entry.content_hash;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'peft', 'qtpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
