from __future__ import annotations

import pytest

from phasesam.core.errors import SaveError
from phasesam.session import SegmentationSession, storage


@pytest.fixture
def saved(session, tmp_path) -> SegmentationSession:
    session.autosave_path = tmp_path / "auto.npz"
    return session


def count(session):
    return len(SegmentationSession.load(session.autosave_path).objects)


def test_a_job_writes_what_was_there_when_it_was_made(saved):
    job = saved.autosave_job()
    assert saved.autosave_job() is None
    saved.delete([1, 2])
    assert not saved.autosave_path.exists()
    job()
    assert count(saved) == 3
    assert saved.autosave()
    assert count(saved) == 1
    assert not saved.autosave()


def test_an_older_job_does_not_replace_a_newer_one(saved):
    older = saved.autosave_job()
    saved.delete(1)
    newer = saved.autosave_job()
    newer()
    older()
    assert count(saved) == 2


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
