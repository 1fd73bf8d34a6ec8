"""Adapters: the user's, a folder of files, those that are bundled, and files anywhere by path.

Wherever an adapter is asked for, a name in the store or a path will do. What a file holds is
known by the hash of its content, so that an adapter that was trained again under the same name
is another one. This module loads no torch, so listing adapters is cheap.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from phasesam.core.errors import CheckpointError, InvalidSettingError, SaveError, UnknownModelError
from phasesam.formats.atomic import atomic_file
from phasesam.models.adapter_card import AdapterCard, read_card
from phasesam.models.download import cache_folder
from phasesam.models.registry import list_models

SUFFIX = ".safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TRIES = 5


class FileStamp(NamedTuple):
    """What changes when a file is written or replaced."""

    modified_ns: int
    size: int
    number: int


@dataclass(frozen=True)
class AdapterEntry:
    """One file that is, or should be, an adapter.

    Attributes
    ----------
    name : str
        Name in the store; the path for a file elsewhere.
    path : Path
        The file; absolute.
    stamp : FileStamp
        Of the file when it was looked at.
    card : AdapterCard or None
        What it says about itself; None if it cannot be read.
    trouble : str
        Why it cannot be read; empty when it can.
    """

    name: str
    path: Path
    stamp: FileStamp
    card: AdapterCard | None
    trouble: str = ""

    @property
    def title(self) -> str:
        """Name for people."""
        return self.path.stem

    @property
    def is_bundled(self) -> bool:
        """Whether it is part of PhaseSAM, and cannot be removed."""
        return self.path.parent == bundled_folder()

    @property
    def content_hash(self) -> str:
        """Hash of the content that the file has now; reads it where it is not known."""
        return content_hash(self.path)


class _Known:
    """What was found out about files, as long as they stay as they are. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cards: dict[Path, tuple[FileStamp, AdapterCard | None, str]] = {}
        self._hashes: dict[Path, tuple[FileStamp, str]] = {}

    def card(self, path: Path, stamp: FileStamp) -> tuple[AdapterCard | None, str]:
        with self._lock:
            known = self._cards.get(path)
        if known is not None and known[0] == stamp:
            return known[1:]
        card, trouble = None, ""
        try:
            card = read_card(path)
        except CheckpointError as error:
            trouble = str(error)
        with self._lock:
            self._cards[path] = (stamp, card, trouble)
        return card, trouble

    def content_hash(self, path: Path) -> str:
        for _ in range(_TRIES):
            with path.open("rb") as file:
                # Of the file that is open: another may have taken its name meanwhile.
                stamp = _stamp(os.fstat(file.fileno()))
                with self._lock:
                    known = self._hashes.get(path)
                if known is not None and known[0] == stamp:
                    return known[1]
                found = hashlib.file_digest(file, "sha256").hexdigest()
                unchanged = _stamp(os.fstat(file.fileno())) == stamp
            if unchanged:
                with self._lock:
                    self._hashes[path] = (stamp, found)
                return found
        raise CheckpointError(f"{path} is being written all the time; try again later")


_known = _Known()


def store_folder() -> Path:
    """Folder of the adapters that have a name; it need not exist."""
    return cache_folder().parent / "adapters"


def bundled_folder() -> Path:
    """Folder of the adapters that are part of PhaseSAM."""
    return Path(__file__).resolve().parents[1] / "bundled_adapters"


def stamp_of(path: Path) -> FileStamp:
    """Look when a file was written; raises ``OSError`` if there is none."""
    return _stamp(path.stat())


def _stamp(status: os.stat_result) -> FileStamp:
    return FileStamp(status.st_mtime_ns, status.st_size, status.st_ino)


def content_hash(path: Path) -> str:
    """Hash the content of an adapter's file (SHA-256); it is read once after each change.

    Raises
    ------
    CheckpointError
        If it cannot be read.
    """
    try:
        return _known.content_hash(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read as an adapter: {error}") from error


def list_adapters() -> tuple[AdapterEntry, ...]:
    """List the adapters that have a name: the user's, then those that are bundled.

    Damaged ones say what is wrong with them. One of the user's hides a bundled one of its name.
    """
    entries = _in_folder(store_folder())
    names = {entry.name.casefold() for entry in entries}
    bundled = _in_folder(bundled_folder())
    return (*entries, *(entry for entry in bundled if entry.name.casefold() not in names))


def _in_folder(folder: Path) -> list[AdapterEntry]:
    entries = []
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob(f"*{SUFFIX}"), key=lambda p: p.name.casefold()):
            # A file may go while we look.
            with contextlib.suppress(OSError):
                if not path.name.startswith("."):
                    entries.append(_entry(path.stem, path))
    return entries


def get_adapter(name_or_path: str | os.PathLike[str]) -> AdapterEntry:
    """Find an adapter that can be used.

    Parameters
    ----------
    name_or_path : str or path-like
        Name in the store, else path of a file.

    Raises
    ------
    UnknownModelError
        If there is no such adapter; the message lists those there are.
    CheckpointError
        If the file is damaged or no adapter.
    """
    for name, path in _places(name_or_path):
        if path.is_file():
            try:
                entry = _entry(name, path)
            except OSError as error:
                raise CheckpointError(f"{path} cannot be read as an adapter: {error}") from error
            if entry.card is None:
                raise CheckpointError(entry.trouble)
            return entry
    names = ", ".join(entry.name for entry in list_adapters()) or "none"
    raise UnknownModelError(
        f"there is no adapter {os.fspath(name_or_path)!r}, neither a file nor in the store; "
        f"there are: {names}"
    )


def card_of(name_or_path: str | os.PathLike[str]) -> AdapterCard:
    """Read the card of an adapter; raises as `get_adapter`."""
    entry = get_adapter(name_or_path)
    if entry.card is None:
        raise CheckpointError(entry.trouble)
    return entry.card


def import_adapter(path: str | os.PathLike[str], name: str, replace: bool = False) -> AdapterEntry:
    """Copy an adapter into the store, completely or not at all.

    Parameters
    ----------
    path : path-like
        File of the adapter.
    name : str
        By which it is asked for from now on.
    replace : bool
        Whether an adapter of this name may be replaced.

    Raises
    ------
    CheckpointError
        If the file is damaged or no adapter.
    InvalidSettingError
        If the name is malformed, or taken and may not be replaced.
    SaveError
        If it cannot be stored; an adapter of the name stays as it was.
    """
    source = Path(path).expanduser()
    check_name(name, replace)
    read_card(source)
    target = store_folder() / f"{name}{SUFFIX}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as original, atomic_file(target) as copy:
            shutil.copyfileobj(original, copy)
    except OSError as error:
        if isinstance(error, SaveError):
            raise
        raise SaveError(f"cannot store {source} in {target.parent}: {error}") from error
    return get_adapter(name)


def remove_adapter(name: str) -> None:
    """Remove an adapter from the store, damaged or not; files elsewhere are left alone.

    Raises
    ------
    UnknownModelError
        If the store has no adapter of this name.
    InvalidSettingError
        If it is part of PhaseSAM.
    """
    entry = next((entry for entry in list_adapters() if entry.name == name), None)
    if entry is None:
        raise UnknownModelError(f"the store has no adapter {name!r}")
    if entry.is_bundled:
        raise InvalidSettingError(f"the adapter {name} is part of PhaseSAM and cannot be removed")
    (store_folder() / f"{name}{SUFFIX}").unlink(missing_ok=True)


def check_name(name: str, replace: bool = False) -> None:
    """Refuse a name for a new adapter that is malformed or taken.

    Raises
    ------
    InvalidSettingError
        Saying which.
    """
    if not _NAME.fullmatch(name):
        raise InvalidSettingError(
            "the name of an adapter consists of at most 64 letters, digits, '_', '-' and '.', "
            f"and begins with a letter or digit; got {name!r}"
        )
    # File systems of Windows and macOS do not tell upper from lower case.
    alike = {entry.name.casefold(): entry.name for entry in list_adapters()}
    taken = alike.get(name.casefold())
    if taken is not None and not (replace and taken == name):
        raise InvalidSettingError(f"there is an adapter {taken!r} already; choose another name")
    if name in {spec.name for spec in list_models()}:
        raise InvalidSettingError(f"there is a model {name!r}; choose another name")


def _places(name_or_path: str | os.PathLike[str]) -> list[tuple[str, Path]]:
    """Where an adapter may be, best place first, and what it is called there."""
    text = os.fspath(name_or_path)
    outside = Path(text).expanduser()
    absolute = Path(os.path.abspath(outside))
    places = [(str(absolute), absolute)]
    if text and isinstance(name_or_path, str) and Path(text).name == text:
        folders = (store_folder(), bundled_folder())
        places = [*((text, folder / f"{text}{SUFFIX}") for folder in folders), *places]
    return places


def _entry(name: str, path: Path) -> AdapterEntry:
    stamp = stamp_of(path)
    return AdapterEntry(name, path, stamp, *_known.card(path, stamp))
