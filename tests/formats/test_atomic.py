"""A file is written completely or not at all."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from phasesam.core.errors import SaveError
from phasesam.core.mask_set import MaskSet
from phasesam.formats import atomic
from phasesam.formats.atomic import atomic_file
from phasesam.formats.coco import save_coco
from phasesam.formats.label_tiff import save_labels_tiff
from phasesam.formats.overlay import save_overlay_png
from phasesam.formats.tables import save_table_csv

NOISE = np.random.default_rng(0).integers(0, 60_000, (200, 200))
RGB = np.dstack([NOISE % 256] * 3).astype(np.uint8)


def write_bytes(path: Path) -> None:
    with atomic_file(path) as file:
        file.write(NOISE.tobytes())


def write_masks(path: Path) -> None:
    save_coco(path, MaskSet.from_labels((NOISE % 300).astype(np.int32)))


WRITERS: dict[str, Callable[[Path], None]] = {
    "bytes": write_bytes,
    "labels": lambda path: save_labels_tiff(path, NOISE),
    "many labels": lambda path: save_labels_tiff(path, NOISE + 60_000),
    "coco": write_masks,
    "table": lambda path: save_table_csv(path, {"area_px": NOISE.ravel()}),
    "overlay": lambda path: save_overlay_png(path, RGB, NOISE),
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "result"
    path.parent.mkdir()
    path.write_text("old content")
    return path


def assert_untouched(path: Path) -> None:
    assert path.read_text() == "old content"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@every_writer
def test_file_is_replaced_and_nothing_else_left(old: Path, write):
    write(old)
    assert old.stat().st_size > 1000
    assert [p.name for p in old.parent.iterdir()] == ["result"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
@every_writer
def test_no_room_while_writing(old: Path, write):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(SaveError, match="result: File too large"):
            write(old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_untouched(old)


@every_writer
def test_disk_full(old: Path, write, monkeypatch):
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveError, match="No space left on device") as caught:
        write(old)
    assert str(old) in str(caught.value)
    assert_untouched(old)


@every_writer
def test_target_is_locked(old: Path, write, monkeypatch):
    def locked(self: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(target))

    monkeypatch.setattr(Path, "replace", locked)
    with pytest.raises(SaveError, match="Permission denied"):
        write(old)
    assert_untouched(old)


def test_folder_is_not_writable(old: Path):
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("everything is allowed to root")
    old.parent.chmod(0o500)
    try:
        with pytest.raises(SaveError, match="Permission denied"):
            write_bytes(old)
    finally:
        old.parent.chmod(0o700)
    assert_untouched(old)


def test_impossible_places(tmp_path: Path):
    with pytest.raises(SaveError, match="No such file or directory"):
        write_bytes(tmp_path / "missing" / "x.tif")
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"Not a directory|No such file"):
        write_bytes(tmp_path / "file" / "x.tif")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SaveError, match="a folder of this name"):
        write_bytes(tmp_path / "folder")


def test_other_errors_pass_through_and_leave_nothing(old: Path):
    def fail_half_way() -> None:
        with atomic_file(old) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert_untouched(old)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_link_and_permissions_are_kept(old: Path):
    old.chmod(0o640)
    link = old.with_name("link")
    link.symlink_to(old)
    write_bytes(link)
    assert link.is_symlink()
    assert old.stat().st_size == NOISE.nbytes
    assert old.stat().st_mode & 0o777 == 0o640


def test_long_names(tmp_path: Path):
    path = tmp_path / ("x" * 250)
    write_bytes(path)
    assert path.stat().st_size == NOISE.nbytes


def test_a_target_that_is_open_for_a_moment_is_waited_for(old: Path, monkeypatch):
    replace, tries = Path.replace, []

    def locked(self: Path, target: Path) -> Path:
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", locked)
    monkeypatch.setattr(atomic, "_PAUSES", (0.0, 0.0))
    write_bytes(old)
    assert len(tries) == 3
    assert old.read_bytes() == NOISE.tobytes()
