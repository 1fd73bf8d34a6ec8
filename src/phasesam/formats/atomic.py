"""Write a file completely or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from phasesam.core.errors import SaveError

# On Windows a file that another program has open for a moment cannot be replaced meanwhile.
_PAUSES = (0.01, 0.05, 0.25) if os.name == "nt" else ()


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces ``path`` only when all of it is on the disk.

    Parameters
    ----------
    path : path-like
        File to write. Its folder must exist; a link is followed.

    Yields
    ------
    binary file
        Seekable, readable and writable, in the same folder. Whatever goes wrong while it
        is open, it is removed and the old file stays as it was.

    Raises
    ------
    SaveError
        If the file cannot be created, written or put in place: no permission, disk full,
        folder missing. The message names the path and the reason.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        if target.is_dir():
            raise IsADirectoryError(21, "there is a folder of this name")
        with part.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError, PermissionError):
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        _put_in_place(part, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, SaveError):
            reason = error.strerror or str(error) or type(error).__name__
            raise SaveError(f"could not write {os.fspath(path)}: {reason}") from error
        raise


def _put_in_place(part: Path, target: Path) -> None:
    for pause in _PAUSES:
        try:
            part.replace(target)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    part.replace(target)
