"""Session files: packed masks and JSON in an ``.npz`` without pickle; autosaves and recovery."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import PhaseSAMError, SaveError, SessionError
from phasesam.core.mask_set import MaskCrop
from phasesam.core.types import PixelSize
from phasesam.formats.atomic import atomic_file
from phasesam.session.objects import MAX_ID, Box, ObjectMap, ObjectRecord
from phasesam.session.open_objects import OpenObject, with_open_objects

SUFFIX = ".phasesam.npz"
"""End of the name of an autosave."""

_FORMAT = "phasesam-session"
_VERSION = 1
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    MemoryError,
    OverflowError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class SessionFacts:
    """What a session file says besides its objects.

    Attributes
    ----------
    name, image_key : str
        Name and content hash of the image.
    pixel_size : PixelSize
        For measurements.
    field_of_view : (int, int, int, int) or None
        Half-open box ``(y0, x0, y1, x1)`` of the micrograph.
    """

    name: str
    image_key: str
    pixel_size: PixelSize
    field_of_view: Box | None


@dataclass(frozen=True)
class SavedSession:
    """What is known about a session file before it is opened.

    Attributes
    ----------
    path : Path
        The file.
    name, image_key : str
        Name and content hash of the image.
    shape : tuple of int
        ``(..., h, w)``.
    n_objects : int
        Number of objects.
    saved_at : float
        Seconds since 1970.
    in_use : bool
        Whether the process that wrote it is still running.
    """

    path: Path
    name: str
    image_key: str
    shape: tuple[int, ...]
    n_objects: int
    saved_at: float
    in_use: bool


Packed = Mapping[str, NDArray[Any]]
"""What a session file holds."""


def pack(
    objects: ObjectMap,
    facts: SessionFacts,
    opened: dict[int, OpenObject] | None = None,
) -> Packed:
    """Copy what is to be saved; it no longer changes with the objects.

    Parameters
    ----------
    objects : ObjectMap
        What to write.
    facts : SessionFacts
        Written with them.
    opened : dict of int to OpenObject, optional
        Objects that are out for a while; they are written too.
    """
    pairs = list(with_open_objects(objects, opened or {}))
    records, crops = [record for record, _ in pairs], [crop for _, crop in pairs]
    head = {
        "format": _FORMAT,
        "version": _VERSION,
        "shape": list(objects.labels.shape),
        "next_id": objects.next_id,
        "saved_at": time.time(),
        "owner": _this_process(),
        "facts": asdict(facts),
        "class_names": [record.class_name for record in records],
        "sources": [record.source for record in records],
    }
    return {
        "head": np.frombuffer(json.dumps(head).encode(), dtype=np.uint8),
        "ids": np.array([record.id for record in records], dtype=np.int64),
        "planes": np.array([record.plane for record in records], dtype=np.int64),
        "scores": np.array([record.score for record in records], dtype=np.float64),
        "boxes": np.array([crop.box for crop in crops], dtype=np.int64).reshape(-1, 4),
        "bits": np.concatenate([np.zeros(0, np.uint8), *(crop.bits for crop in crops)]),
    }


def write(path: Path, packed: Packed) -> None:
    """Write a session file in one piece.

    Raises
    ------
    SaveError
        If it cannot be written; an older file is then intact.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"could not create the folder {path.parent}: {error.strerror}") from error
    with atomic_file(path) as file:
        np.savez_compressed(file, allow_pickle=False, **packed)


def read(path: Path) -> tuple[ObjectMap, SessionFacts]:
    """Read a session file.

    Raises
    ------
    SessionError
        If it is missing, broken or of a later version; the file is left as it is.
    """
    try:
        # numpy leaves a broken file open if it opens it itself.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            head = _head(file)
            arrays = {name: file[name] for name in ("ids", "planes", "scores", "boxes", "bits")}
        facts = dict(head["facts"])
        box = facts["field_of_view"]
        return _objects(head, arrays), SessionFacts(
            name=str(facts["name"]),
            image_key=str(facts["image_key"]),
            pixel_size=_pixel_size(facts["pixel_size"]),
            field_of_view=None if box is None else _box(box),
        )
    except (*_BROKEN, PhaseSAMError) as error:
        raise SessionError(f"{path} is not a complete session file: {error}") from error


def _head(file: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    head = json.loads(file["head"].tobytes().decode())
    if not isinstance(head, dict) or head.get("format") != _FORMAT:
        raise ValueError("it was not written by PhaseSAM")
    if head["version"] != _VERSION:
        raise ValueError(f"expected version {_VERSION} of the format, got {head['version']}")
    return head


def _pixel_size(values: Mapping[str, Any]) -> PixelSize:
    size = PixelSize(float(values["y"]), float(values["x"]), str(values["unit"]))
    if not (0 < size.y < np.inf and 0 < size.x < np.inf):
        raise ValueError(f"the pixel size must be positive, got {size}")
    return size


def _box(values: Any) -> Box:
    y0, x0, y1, x1 = (int(value) for value in values)
    return y0, x0, y1, x1


def _objects(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ObjectMap:
    """Paint all objects, checking that they fit together."""
    objects = ObjectMap(tuple(int(n) for n in head["shape"]))
    ids = arrays["ids"].astype(np.int64)
    objects.next_id = int(head["next_id"])
    if len(ids) and not 0 < ids.min() <= ids.max() < objects.next_id < MAX_ID:
        raise ValueError("object ids are out of range")
    planes = arrays["planes"].reshape(len(ids), len(objects.labels.shape) - 2)
    position = 0
    for index, object_id in enumerate(ids.tolist()):
        y0, x0, y1, x1 = arrays["boxes"][index].tolist()
        height, width = y1 - y0, x1 - x0
        n_bytes = -(-height * width // 8)
        bits = arrays["bits"][position : position + n_bytes]
        position += n_bytes
        if height < 1 or width < 1 or len(bits) != n_bytes:
            raise ValueError(f"the mask of object {object_id} is incomplete")
        area = int(np.unpackbits(bits, count=height * width).sum())
        crop = objects.checked_mask(MaskCrop(y0, x0, height, width, bits, area))
        plane = objects.checked_plane(planes[index].tolist())
        piece = objects.labels[plane][crop.slices]
        mask = crop.array()
        if piece[mask].any() or object_id in objects.records:
            raise ValueError(f"object {object_id} overlaps another one")
        piece[mask] = object_id
        objects.records[object_id] = ObjectRecord(
            id=object_id,
            plane=plane,
            score=float(arrays["scores"][index]),
            class_name=str(head["class_names"][index]),
            source=str(head["sources"][index]),
            box=crop.box,
            area=area,
        )
    return objects


@cache
def _this_process() -> dict[str, float]:
    import psutil

    return {"pid": os.getpid(), "started": psutil.Process().create_time()}


def _is_running(owner: Mapping[str, Any]) -> bool:
    import psutil

    try:
        started = psutil.Process(int(owner["pid"])).create_time()
    except psutil.Error:
        return False
    # Process ids are used again; the start time tells an old owner from a new process.
    return abs(started - float(owner["started"])) < 1.0


def describe(path: Path | str) -> SavedSession:
    """Read what a session file says about itself, without its objects.

    Raises
    ------
    SessionError
        If it is missing, broken or of a later version.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            head = _head(file)
            n_objects = len(file["ids"])
        return SavedSession(
            path=path,
            name=str(head["facts"]["name"]),
            image_key=str(head["facts"]["image_key"]),
            shape=tuple(int(n) for n in head["shape"]),
            n_objects=n_objects,
            saved_at=float(head["saved_at"]),
            in_use=_is_running(head["owner"]),
        )
    except _BROKEN as error:
        raise SessionError(f"{path} is not a complete session file: {error}") from error


def autosave_folder() -> Path:
    """Return the usual folder of autosaves; it need not exist.

    It is ``sessions`` in the cache: ``PHASESAM_CACHE``, else the platform's usual place.
    """
    root = os.environ.get("PHASESAM_CACHE")
    if not root:
        import pooch

        root = str(pooch.os_cache("phasesam"))
    return Path(root).expanduser() / "sessions"


def find_recoverable(folder: Path | str) -> tuple[SavedSession, ...]:
    """List the autosaves in a folder whose process has ended, the latest first.

    Broken files are skipped and kept.
    """
    found = []
    for path in Path(folder).glob(f"*{SUFFIX}"):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            saved = describe(path)
        except SessionError:
            continue
        if not saved.in_use:
            found.append(saved)
    return tuple(sorted(found, key=lambda saved: -saved.saved_at))


def autosave_path_for(folder: Path | str, name: str) -> Path:
    """Make up a new file name for an autosave; no ``name`` can lead out of the folder."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:60] or "session"
    return Path(folder) / f"{stem}-{uuid.uuid4().hex[:8]}{SUFFIX}"
