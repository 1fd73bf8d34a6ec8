"""Which rows of a table are about which image files."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath, PurePosixPath

from phasesam.cli.inputs import Job
from phasesam.core.errors import InvalidSettingError
from phasesam.formats.slices import stem_of


def names_of_images(
    table: str | os.PathLike[str], known: Collection[str], jobs: Sequence[Job]
) -> dict[Path, str]:
    """Find what each image is called in a table.

    An image may be called by its file with its ending or without, behind as many of its folders
    as tell it from others; the most precise name counts.

    Parameters
    ----------
    table : path-like
        For messages.
    known : collection of str
        Names in the table.
    jobs : sequence of Job
        The images.

    Returns
    -------
    dict of Path to str
        Name in the table, by file.

    Raises
    ------
    InvalidSettingError
        If an image has no name there, or several, or two images may be meant by one.
    """
    fitting = {job.source: [name for name in known if _fits(name, job)] for job in jobs}
    found: dict[Path, str] = {}
    for source, names in fitting.items():
        if not names:
            raise InvalidSettingError(
                f"{table} has no amounts of {source.name}; it has those of {', '.join(known)}"
            )
        name = max(names, key=lambda n, s=source: _precision(n, s))  # type: ignore[misc]
        other = next((path for path, taken in found.items() if taken == name), None)
        if other is not None:
            raise InvalidSettingError(
                f"{table}: {name} may be {other} or {source}: write as much of the path as tells "
                "them apart"
            )
        found[source] = name
    for source, names in fitting.items():
        if any(name not in found.values() for name in names):
            raise InvalidSettingError(
                f"{table}: expected amounts of {source} once, got those of {', '.join(names)}"
            )
    return found


def _fits(name: str, job: Job) -> bool:
    """Whether a name is that of the results of an image, or the end of its path."""
    parts = _parts(name)
    # As it would be written out, but not where links lead to.
    path = PurePath(os.path.abspath(job.source))
    ends = (path.parts, (*path.parts[:-1], stem_of(job.source)), path.with_suffix("").parts)
    return name == job.name or (bool(parts) and any(end[-len(parts) :] == parts for end in ends))


def _precision(name: str, source: Path) -> tuple[int, bool]:
    parts = _parts(name)
    return len(parts), bool(parts) and parts[-1] == source.name


def _parts(name: str) -> tuple[str, ...]:
    # Tables are written on one machine and read on another one.
    return PurePosixPath(name.replace("\\", "/")).parts
