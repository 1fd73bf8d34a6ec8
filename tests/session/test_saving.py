from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from phasesam.core.errors import SaveError, SessionError
from phasesam.session import SegmentationSession, storage


@pytest.fixture
def saved(session, tmp_path) -> SegmentationSession:
    session.autosave_path = tmp_path / "auto.npz"
    return session


def count(session):
    return len(SegmentationSession.load(session.autosave_path).objects)


def test_a_job_writes_in_a_worker(saved):
    job = saved.autosave_job()
    assert saved.autosave_job() is None
    assert not saved.autosave_path.exists()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(job).result()
    assert count(saved) == 3
    saved.delete([1, 2])
    assert saved.autosave()
    assert count(saved) == 1
    assert not saved.autosave()


def test_objects_edited_before_they_were_copied_are_not_written(saved):
    job = saved.autosave_job()
    saved.delete([1, 2])
    assert not job()
    assert not saved.autosave_path.exists()
    assert saved.autosave()
    assert count(saved) == 1


def test_a_failed_edit_disturbs_copying_too(saved):
    job = saved.autosave_job()
    with pytest.raises(SessionError):
        saved.merge([1])
    assert not job()
    assert saved.autosave()


def test_an_older_content_does_not_replace_a_newer_one(saved, monkeypatch):
    newer: list[SegmentationSession] = []

    def pack(*args):
        packed = real_pack(*args)
        if not newer:
            newer.append(saved)
            # Saved again, as when a viewer closes, while the first job compresses.
            monkeypatch.setattr(storage, "pack", real_pack)
            saved.discard_autosave()
            saved.name = "newer"
            saved.autosave()
        return packed

    real_pack = storage.pack
    monkeypatch.setattr(storage, "pack", pack)
    saved.autosave_job()()
    assert storage.describe(saved.autosave_path).name == "newer"


def test_a_discarded_autosave_does_not_come_back(saved):
    job = saved.autosave_job()
    saved.discard_autosave()
    job()
    assert not saved.autosave_path.exists()
    assert saved.autosave()
    assert count(saved) == 3


def test_what_could_not_be_written_is_tried_again(saved, monkeypatch):
    with monkeypatch.context() as patch:

        def refuse(path, packed):
            raise SaveError("no room")

        patch.setattr(storage, "write", refuse)
        with pytest.raises(SaveError):
            saved.autosave()
    assert saved.autosave()
    assert count(saved) == 3
