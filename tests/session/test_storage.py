import json
import os
import time
import zipfile

import numpy as np
import pytest

from phasesam.core.errors import SaveError, SessionError
from phasesam.core.types import PixelSize
from phasesam.session import (
    SegmentationSession,
    autosave_folder,
    autosave_path_for,
    describe,
    find_recoverable,
    storage,
)

from .conftest import HEIGHT, WIDTH, check_consistent, rectangle


@pytest.fixture
def stack() -> SegmentationSession:
    session = SegmentationSession(
        (3, HEIGHT, WIDTH), pixel_size=PixelSize(0.5, 0.25, "um"), name="steel", image_key="abc"
    )
    session.field_of_view = (0, 0, 20, WIDTH)
    session.commit(rectangle(2, 2, 10, 10), plane=(1,), score=0.5, class_name="ferrite")
    session.commit(rectangle(4, 4, 7, 20), plane=(1,))
    session.commit(np.eye(HEIGHT, WIDTH) > 0, plane=(2,), source="painted")
    session.delete(2)
    session.commit(rectangle(20, 20, 24, 24), plane=(0,), score=0.25)
    return session


def saved_by_dead_process(session, path):
    """Write a file as if its process had ended."""
    session.save(path)
    rewrite(path, lambda head: head["owner"].update(started=1.0))


def rewrite(path, change, **arrays):
    """Change the JSON or the arrays of a session file."""
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    head = json.loads(content["head"].tobytes())
    change(head)
    content["head"] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    np.savez(path, **{**content, **arrays})


def test_save_and_load(stack, tmp_path):
    path = tmp_path / "steel.npz"
    stack.save(path)
    again = SegmentationSession.load(path)
    assert np.array_equal(again.labels, stack.labels)
    assert repr(again.objects) == repr(stack.objects)
    assert (again.name, again.image_key, again.next_id) == ("steel", "abc", stack.next_id)
    assert again.pixel_size == stack.pixel_size
    assert again.field_of_view == (0, 0, 20, WIDTH)
    assert not again.can_undo
    check_consistent(again)
    assert again.commit(rectangle(0, 0, 2, 2), plane=(0,)) == stack.next_id
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_session(tmp_path):
    SegmentationSession((5, 6)).save(tmp_path / "a.npz")
    assert SegmentationSession.load(tmp_path / "a.npz").shape == (5, 6)


def test_files_hold_no_pickle(stack, tmp_path):
    stack.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_autosave_writes_only_what_is_new(tmp_path):
    path = tmp_path / "deep" / "a.phasesam.npz"
    session = SegmentationSession((HEIGHT, WIDTH), autosave_path=path)
    assert not session.autosave()
    session.commit(rectangle(0, 0, 3, 3))
    assert session.autosave()
    assert not session.autosave()
    session.undo()
    assert session.autosave()
    assert SegmentationSession.load(path).objects == ()
    session.discard_autosave()
    assert not path.exists()
    session.discard_autosave()
    assert session.autosave()
    assert not SegmentationSession((3, 3)).autosave()


def test_an_interrupted_session_goes_on(stack, tmp_path):
    path = autosave_path_for(tmp_path, "steel")
    saved_by_dead_process(stack, path)
    (saved,) = find_recoverable(tmp_path)
    assert (saved.path, saved.name, saved.image_key) == (path, "steel", "abc")
    assert (saved.shape, saved.n_objects, saved.in_use) == ((3, HEIGHT, WIDTH), 3, False)
    assert abs(saved.saved_at - time.time()) < 60
    again = SegmentationSession.recover(path)
    assert np.array_equal(again.labels, stack.labels)
    again.delete(1)
    assert again.autosave()
    assert len(SegmentationSession.load(path).objects) == 2


def test_running_sessions_are_not_offered(stack, tmp_path):
    stack.save(autosave_path_for(tmp_path, "steel"))
    assert find_recoverable(tmp_path) == ()
    (path,) = tmp_path.iterdir()
    assert describe(path).in_use
    # A new process may have got the number of an old one.
    rewrite(path, lambda head: head["owner"].update(started=head["owner"]["started"] - 100))
    assert len(find_recoverable(tmp_path)) == 1
    rewrite(path, lambda head: head["owner"].update(pid=2**31 - 7))
    assert len(find_recoverable(tmp_path)) == 1


def test_the_latest_comes_first_and_broken_ones_are_kept(stack, tmp_path):
    for age, name in enumerate(("new", "old")):
        path = tmp_path / f"{name}{storage.SUFFIX}"
        saved_by_dead_process(stack, path)
        rewrite(path, lambda head, age=age: head.update(saved_at=1000 - age))
    broken = tmp_path / f"broken{storage.SUFFIX}"
    broken.write_bytes(b"PK\x03\x04 nothing")
    assert [saved.path.name.split(".")[0] for saved in find_recoverable(tmp_path)] == ["new", "old"]
    assert broken.exists()
    assert find_recoverable(tmp_path / "missing") == ()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/root/x", "a\\b:c", "..", "", "a\0b", "é" * 300]
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    path = autosave_path_for(tmp_path, name)
    assert path.resolve().parent == tmp_path.resolve()
    assert path.name.endswith(storage.SUFFIX)
    assert len(path.name) < 100
    SegmentationSession((3, 3)).save(path)


def test_links_are_not_followed(stack, tmp_path):
    outside = tmp_path / "outside.npz"
    saved_by_dead_process(stack, outside)
    folder = tmp_path / "sessions"
    folder.mkdir()
    try:
        (folder / f"a{storage.SUFFIX}").symlink_to(outside)
    except OSError:
        pytest.skip("no links here")
    assert find_recoverable(folder) == ()


def test_usual_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path))
    assert autosave_folder() == tmp_path / "sessions"
    monkeypatch.delenv("PHASESAM_CACHE")
    assert autosave_folder().name == "sessions"


def broken_files(path):
    """Yield every kind of damage that a session file may have."""
    whole = path.read_bytes()
    yield "empty", b""
    yield "text", b"hello"
    for share in (0.1, 0.5, 0.9, 0.99):
        yield f"cut at {share}", whole[: int(len(whole) * share)]
    for place in np.linspace(0, len(whole) - 1, 60).astype(int).tolist():
        flipped = bytearray(whole)
        flipped[place] ^= 0xFF
        yield f"flipped at {place}", bytes(flipped)


def test_broken_files_are_refused_and_kept(stack, tmp_path):
    path = tmp_path / "a.npz"
    stack.save(path)
    refused = 0
    for name, content in list(broken_files(path)):
        path.write_bytes(content)
        session = load_or_none(path)
        refused += session is None
        # Some bytes of a zip file mean nothing, such as dates.
        assert session is None or np.array_equal(session.labels, stack.labels), name
        assert path.read_bytes() == content, name
    assert refused > 40


def load_or_none(path):
    try:
        return SegmentationSession.load(path)
    except SessionError:
        return None


def nothing(head):
    """Leave the JSON as it is."""


@pytest.mark.parametrize(
    ("change", "arrays"),
    [
        (lambda head: head.update(format="other"), {}),
        (lambda head: head.update(version=99), {}),
        (lambda head: head.update(shape=[3, HEIGHT]), {}),
        (lambda head: head.update(shape=[10**9, 10**9, 10**9]), {}),
        (lambda head: head.update(shape="abc"), {}),
        (lambda head: head.update(next_id=2), {}),
        (lambda head: head.pop("facts"), {}),
        (lambda head: head["facts"].update(pixel_size={"y": 0, "x": 1, "unit": "um"}), {}),
        (lambda head: head["facts"].update(field_of_view=[1, 2]), {}),
        (lambda head: head.update(class_names=[]), {}),
        (nothing, {"ids": np.array([1, 1, 4])}),
        (nothing, {"ids": np.array([-1, 3, 4])}),
        (nothing, {"ids": np.array([1])}),
        (nothing, {"ids": np.array([None, 1, 2], dtype=object)}),
        (nothing, {"boxes": np.zeros((3, 4), int)}),
        (nothing, {"boxes": np.full((3, 4), 10**6)}),
        (nothing, {"boxes": np.array([[0, 0, 10**9, 10**9]] * 3)}),
        (nothing, {"planes": np.array([[1], [2], [7]])}),
        (nothing, {"planes": np.array([[1], [2], [-1]])}),
        (nothing, {"bits": np.zeros(0, np.uint8)}),
        (nothing, {"bits": np.zeros(500, np.uint8)}),
        (nothing, {"bits": np.full(500, 255, np.uint8), "planes": np.array([[1], [1], [1]])}),
        (nothing, {"scores": np.zeros(0)}),
        (nothing, {"head": np.frombuffer(b"[]", np.uint8)}),
        (nothing, {"head": np.frombuffer(b"\xff{", np.uint8)}),
    ],
)
def test_files_that_contradict_themselves_are_refused(stack, tmp_path, change, arrays):
    path = tmp_path / "a.npz"
    stack.save(path)
    rewrite(path, change, **arrays)
    content = path.read_bytes()
    with pytest.raises(SessionError, match=r"a\.npz"):
        SegmentationSession.load(path)
    assert path.read_bytes() == content


def test_other_files_are_refused(tmp_path):
    with pytest.raises(SessionError, match="missing"):
        SegmentationSession.load(tmp_path / "missing.npz")
    with pytest.raises(SessionError):
        SegmentationSession.load(tmp_path)
    np.save(tmp_path / "a.npz", np.zeros(3))
    (tmp_path / "a.npz.npy").rename(tmp_path / "a.npz")
    with pytest.raises(SessionError):
        SegmentationSession.load(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
        file.writestr("x.txt", "hello")
    with pytest.raises(SessionError):
        describe(tmp_path / "b.npz")


def test_a_failed_save_keeps_the_old_file(stack, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    stack.save(path)
    old = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    stack.delete(1)
    with pytest.raises(SaveError, match="No space left"):
        stack.save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_autosave_is_tried_again(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    session = SegmentationSession((HEIGHT, WIDTH), autosave_path=blocked / "a.npz")
    session.commit(rectangle(0, 0, 3, 3))
    for _ in range(2):
        with pytest.raises(SaveError):
            session.autosave()
    session.autosave_path = tmp_path / "a.npz"
    assert session.autosave()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs an ordinary user")
def test_no_write_permission(stack, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SaveError):
            stack.save(tmp_path / "a.npz")
    finally:
        tmp_path.chmod(0o700)
