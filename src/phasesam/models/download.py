"""Fetching, finding and checking weights files.

Places, in the order in which they are searched:

1. the folder named by the environment variable ``PHASESAM_MODELS``, for machines without
   internet access; nothing is ever written to or deleted from it;
2. the folder ``models`` in the cache: ``PHASESAM_CACHE``, else the platform's usual place.

Downloads come from the publisher or, if ``PHASESAM_MIRROR`` is set, from ``MIRROR/FILENAME``.
They go to a temporary file that is checked before it gets its name, so a weights file in the
cache is complete. Where a publisher gives no SHA-256, the first download must match the size and
the checksum of another kind that are known. Its SHA-256 is then kept beside the weights
(``FILENAME.sha256``) and every later use and download must match it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from functools import lru_cache
from pathlib import Path

import pooch

from phasesam.core.errors import CancelledError, CheckpointError, DownloadError
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.models.checkpoints import check_kind
from phasesam.models.model_spec import ModelSpec

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 30
# How far a file may be from a size that is known as a rounded number only.
_SIZE_TOLERANCE = 0.05
_ABANDONED_SECONDS = 24 * 3600


def cache_folder() -> Path:
    """Folder of the weights that were downloaded or imported; it need not exist."""
    root = os.environ.get("PHASESAM_CACHE") or str(pooch.os_cache("phasesam"))
    return Path(root).expanduser() / "models"


def offline_folder() -> Path | None:
    """Folder of weights that somebody else put there, if one is configured."""
    folder = os.environ.get("PHASESAM_MODELS")
    return Path(folder).expanduser() if folder else None


def find(spec: ModelSpec) -> Path | None:
    """Path of the weights file if it is on this machine; the content is not looked at."""
    if spec.path is not None:
        return spec.path if spec.path.is_file() else None
    if not spec.filename:
        return None
    for folder in (offline_folder(), cache_folder()):
        if folder is not None and (folder / spec.filename).is_file():
            return folder / spec.filename
    return None


def check(spec: ModelSpec, path: Path) -> None:
    """Refuse a weights file that is not what it should be.

    The first file of a model without a published SHA-256 is remembered.

    Raises
    ------
    CheckpointError
        If it is not a weights file, or its size or checksum is another one.
    """
    check_kind(path)
    size = path.stat().st_size
    if not _is_about_right(spec, size):
        raise CheckpointError(
            f"{path} is not the published file of {spec.title}: {_size_mismatch(spec, size)}. "
            "Replace the file."
        )
    for algorithm, expected in _checksums(spec):
        found = _digest_of(path, algorithm)
        if found != expected:
            raise CheckpointError(
                f"{path} is not the published file of {spec.title}: expected {algorithm} "
                f"{expected}, got {found}. Replace the file."
            )
    # A read-only cache must not keep anybody from working.
    with contextlib.suppress(OSError):
        _pin(spec, path)


def download(
    spec: ModelSpec,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> Path:
    """Fetch the weights of a model into the cache.

    Parameters
    ----------
    spec : ModelSpec
        Entry with a `url`.
    progress : callable, optional
        Called as ``progress(done, total)`` in bytes; `total` is 0 while unknown.
    should_stop : callable, optional
        Asked after every quarter of a mebibyte.

    Returns
    -------
    Path
        The complete and checked file.

    Raises
    ------
    DownloadError
        If it cannot be fetched or stored, is incomplete, or is another file than expected.
    CancelledError
        If the user asked to stop.
    """
    url = _address(spec)
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        _check_space(spec, folder)
        handle, name = tempfile.mkstemp(f".{spec.filename}.part", ".", folder)
        os.close(handle)
    except OSError as error:
        raise DownloadError(f"cannot store weights in {folder}: {error}") from error
    temporary = Path(name)
    try:
        _fetch(spec, url, temporary, _Reporter(spec, progress, should_stop))
        _check_download(spec, url, temporary)
        target = folder / spec.filename
        temporary.chmod(0o644)
        _pin(spec, temporary)
        temporary.replace(target)
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"cannot store {spec.title} in {folder}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


class _Reporter:
    """Stands in for pooch's progress bar: passes the count on and lets the user stop."""

    def __init__(
        self, spec: ModelSpec, progress: ProgressCallback | None, should_stop: StopCallback | None
    ) -> None:
        self._name = spec.name
        self._progress = progress
        self._should_stop = should_stop
        self._done = 0
        self.total = 0

    def update(self, count: int) -> None:
        if self._should_stop is not None and self._should_stop():
            raise CancelledError(f"download of {self._name} stopped")
        # pooch counts the last piece as a whole one.
        self._done = min(self._done + count, self.total) if self.total else self._done + count
        if self._progress is not None:
            self._progress(self._done, self.total)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        self._done = 0


def _fetch(spec: ModelSpec, url: str, target: Path, reporter: _Reporter) -> None:
    # requests takes its time to load, and pooch does not import it either until it is needed.
    import requests

    responses: list[requests.Response] = []
    # pooch leaves the connection open when something goes wrong on the way.
    hooks = {"response": lambda response, *args, **options: responses.append(response)}
    fetch = pooch.HTTPDownloader(reporter, _CHUNK_BYTES, timeout=_TIMEOUT_SECONDS, hooks=hooks)
    try:
        fetch(url, str(target), None)
    except requests.RequestException as error:
        raise DownloadError(
            f"could not fetch {spec.title} from {url}: {error}. Without internet access, put "
            f"{spec.filename} into a folder and set PHASESAM_MODELS to it, or set "
            "PHASESAM_MIRROR to the address of a copy."
        ) from error
    finally:
        for response in responses:
            response.close()


def _check_download(spec: ModelSpec, url: str, path: Path) -> None:
    size = path.stat().st_size
    if spec.sha256 and spec.size_bytes and size != spec.size_bytes:
        raise DownloadError(
            f"{url} gave {size} bytes instead of the {spec.size_bytes} of {spec.title}; "
            "nothing was kept"
        )
    try:
        check_kind(path)
    except CheckpointError as error:
        raise DownloadError(
            f"{url} did not give the weights of {spec.title} but something else, perhaps an "
            f"error page ({error}); nothing was kept"
        ) from error
    if not _is_about_right(spec, size):
        raise DownloadError(
            f"{url} is not the expected file of {spec.title}: {_size_mismatch(spec, size)}; "
            "nothing was kept"
        )
    for algorithm, expected in _checksums(spec):
        found = pooch.file_hash(str(path), algorithm)
        if found != expected:
            first = algorithm == "sha256" and spec.sha256 is None
            hint = f" (first seen: {_pin_file(spec)})" if first else ""
            raise DownloadError(
                f"{url} is not the expected file of {spec.title}: expected {algorithm} "
                f"{expected}{hint}, got {found}; nothing was kept"
            )


def _is_about_right(spec: ModelSpec, size: int) -> bool:
    """Whether a size is near the rounded one; where there is a SHA-256, that decides."""
    if spec.sha256 is not None or not spec.size_bytes:
        return True
    return abs(size - spec.size_bytes) <= _SIZE_TOLERANCE * spec.size_bytes


def _size_mismatch(spec: ModelSpec, size: int) -> str:
    return f"expected about {(spec.size_bytes or 0) / 1e6:.1f} MB, got {size / 1e6:.1f} MB"


def _checksums(spec: ModelSpec) -> list[tuple[str, str]]:
    """Algorithm and value of the checksum to check, if one is known."""
    sha256 = spec.sha256 or _pinned(spec)
    if sha256 is not None:
        return [("sha256", sha256)]
    if spec.other_hash is not None:
        algorithm, _, value = spec.other_hash.partition(":")
        return [(algorithm, value)]
    return []


def _address(spec: ModelSpec) -> str:
    mirror = os.environ.get("PHASESAM_MIRROR")
    if spec.url is None or not spec.filename:
        raise DownloadError(f"the weights of {spec.title} are not published anywhere")
    return f"{mirror.rstrip('/')}/{spec.filename}" if mirror else spec.url


def _check_space(spec: ModelSpec, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if spec.size_bytes and spec.size_bytes > free:
        raise DownloadError(
            f"{spec.title} needs {spec.size_bytes / 1e6:.0f} MB, but {folder} has only "
            f"{free / 1e6:.0f} MB left"
        )


def _remove_abandoned(folder: Path) -> None:
    """Delete what a process that was killed in the middle of a download has left."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                part.unlink()


def _pin_file(spec: ModelSpec) -> Path:
    return cache_folder() / f"{spec.filename}.sha256"


def _pinned(spec: ModelSpec) -> str | None:
    """SHA-256 of the first file, unless that was accepted without today's other checksum."""
    if not spec.filename or spec.path is not None:
        return None
    try:
        words = _pin_file(spec).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return None
    checked = words[1] if len(words) > 1 else None
    return words[0] if words and checked == spec.other_hash else None


def _pin(spec: ModelSpec, path: Path) -> None:
    if spec.sha256 is None and spec.path is None and _pinned(spec) is None:
        words = [_digest_of(path, "sha256"), *filter(None, [spec.other_hash])]
        _pin_file(spec).parent.mkdir(parents=True, exist_ok=True)
        _pin_file(spec).write_text(" ".join(words) + "\n", encoding="ascii")


def _digest_of(path: Path, algorithm: str) -> str:
    status = path.stat()
    return _digest(str(path), algorithm, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: str, algorithm: str, size: int, modified: int) -> str:
    """Checksum, computed once for every state of a file."""
    return pooch.file_hash(path, algorithm)
