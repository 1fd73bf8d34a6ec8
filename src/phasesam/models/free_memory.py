"""How much memory this process may take: what is free, within what a cluster or container grants.

A job that takes more than its control group grants is killed without a word, while the machine
as a whole has plenty left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

# What a program may need suddenly; who has less left is close to being killed.
_LEFT_FREE = 512 << 20
_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Grant:
    """What one control group of Linux lets its processes have.

    Attributes
    ----------
    limit, used : int
        Bytes; `used` without file contents that are given up when memory is short.
    """

    limit: int
    used: int


def free_memory() -> int:
    """Bytes that this process can still take."""
    left = [grant.limit - grant.used for grant in grants()]
    return max(0, min([psutil.virtual_memory().available, *left]))


def has_room(nbytes: int) -> bool:
    """Tell whether something may stay in memory that could be had again from elsewhere."""
    return free_memory() >= nbytes + _LEFT_FREE


def total_memory() -> int:
    """Bytes that this process could have if it were alone."""
    return min([psutil.virtual_memory().total, *(grant.limit for grant in grants())])


def grants(groups: Path = _GROUPS, own: Path = _OWN) -> Iterator[Grant]:
    """Find what bounds this process: its control group and those around it.

    Parameters
    ----------
    groups : Path
        Where control groups are mounted, of version 1 or 2 (https://docs.kernel.org/admin-guide).
    own : Path
        File that names those of the process; nothing is found where there is none.
    """
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folder, names = groups, ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            folder = groups / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        place = PurePosixPath(path)
        # Inside a container the path may be that of the machine, and its own group the root.
        for group in (place, *place.parents):
            grant = _read(folder / group.relative_to("/"), *names)
            if grant is not None:
                yield grant


def _read(folder: Path, limit: str, used: str, prefix: str) -> Grant | None:
    try:
        most = int((folder / limit).read_text(encoding="ascii"))
        taken = int((folder / used).read_text(encoding="ascii"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):  # No limit is written "max".
        return None
    spare = tuple(f"{prefix}{kind}_file " for kind in ("active", "inactive"))
    files = sum(int(line.split()[1]) for line in lines if line.startswith(spare))
    return Grant(most, max(0, taken - files))
