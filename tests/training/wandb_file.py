"""Read what W&B keeps of a run on disk."""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path

# The file is a log in the format of LevelDB behind a header: blocks of records in parts.
_HEADER, _BLOCK = 7, 32768
_PART = struct.Struct("<IHB")
_WHOLE, _LAST = 1, 4


def read_wandb(path: Path) -> dict[str, list[float]]:
    """Return the curves in a ``.wandb`` file by name, without W&B's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, message = path.read_bytes(), _HEADER, b""
    curves: dict[str, list[float]] = defaultdict(list)
    while place + _PART.size <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _PART.size:
            place += left
            continue
        _, size, kind = _PART.unpack_from(content, place)
        place += _PART.size
        message += content[place : place + size]
        place += size
        if kind not in (_WHOLE, _LAST):
            continue
        record = Record()
        record.ParseFromString(message)
        message = b""
        for item in record.history.item:
            name = ".".join(item.nested_key) or item.key
            if not name.startswith("_"):
                curves[name].append(float(item.value_json))
    return dict(curves)
