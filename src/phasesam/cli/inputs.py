"""Find the inputs of a batch and give each a name for its results."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from phasesam.core.errors import InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.formats.lengths import to_micrometres
from phasesam.formats.readers import is_image_file
from phasesam.formats.slices import natural_key, stem_of

RESULT_ENDINGS = ("_labels.tif", "_overlay.png")
"""Endings of files we write ourselves; folders and patterns leave them out."""

IMAGE_ENDINGS = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".npy"})
"""A file of such a name counts as an image even if its content is none: it fails loudly."""


@dataclass(frozen=True)
class Job:
    """One input and the name of its results.

    Attributes
    ----------
    source : Path
        File, or folder that is read as a stack.
    name : str
        Results are called ``name_labels.tif`` and so on; unique in the batch.
    missing : str
        Why there is nothing to read; empty when there is.
    """

    source: Path
    name: str
    missing: str = ""


def find_jobs(
    inputs: Sequence[str],
    *,
    recursive: bool = False,
    folder_is_stack: bool = False,
) -> list[Job]:
    """Expand files, folders and glob patterns.

    Parameters
    ----------
    inputs : sequence of str
        As given by the user. An existing path is taken literally, even if it
        contains ``*`` or ``[``.
    recursive : bool
        Whether folders below folders are searched.
    folder_is_stack : bool
        Whether a folder is one input instead of many.

    Raises
    ------
    InvalidSettingError
        If there is nothing to read at all, or two inputs would write the same files.
    """
    found: dict[Path, str] = {}
    for text in inputs:
        try:
            expanded = list(_expand(text, recursive, folder_is_stack))
        except OSError as error:
            expanded = [(Path(text).expanduser(), _reason(error))]
        for path, missing in expanded:
            found.setdefault(path, missing)
    if all(found.values()):
        reasons = "; ".join(f"{path}: {missing}" for path, missing in found.items())
        raise InvalidSettingError(f"there is nothing to read: {reasons}")
    names = _result_names(list(found))
    return [Job(path, name, found[path]) for path, name in zip(found, names, strict=True)]


def _expand(text: str, recursive: bool, folder_is_stack: bool) -> Iterable[tuple[Path, str]]:
    path = Path(text).expanduser()
    if path.name in ("", ".."):
        # The present folder and its like have a name only when written out.
        path = path.resolve()
    if path.is_dir() and (folder_is_stack or is_image_file(path)):
        return [(path, "")]
    if path.is_dir():
        return _search_folder(path, recursive) or [(path, "the folder contains no images")]
    if path.exists():
        return [(path, "")]
    if glob.has_magic(text):
        matches = [Path(m) for m in glob.glob(str(path), recursive=True)]
        if folder_is_stack and any(m.is_dir() for m in matches):
            chosen = [m for m in matches if m.is_dir()]
        else:
            files = [m for m in matches if not _is_result(m)]
            below = next(p for p in path.parents if not glob.has_magic(str(p)))
            chosen = [
                m for m in files if (m.is_file() or is_image_file(m)) and not _is_in_image(m, below)
            ]
        return [(m, "") for m in sorted(chosen, key=_by_folder)] or [(path, "no file matches")]
    return [(path, "no such file or folder")]


def _search_folder(folder: Path, recursive: bool) -> list[tuple[Path, str]]:
    found = {}
    for path in _below(folder) if recursive else folder.iterdir():
        try:
            if _is_input(path):
                found[path] = ""
        except OSError as error:
            # A folder that would not be searched anyway may be locked.
            if recursive or not os.path.isdir(path):
                found[path] = _reason(error)
    return [(path, found[path]) for path in sorted(found, key=_by_folder)]


def _below(folder: Path) -> Iterator[Path]:
    """Everything in a folder and its folders, but nothing in those that are images, as Zarr is."""
    for path in folder.iterdir():
        yield path
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink() and not is_image_file(path):
                yield from _below(path)


def _is_in_image(path: Path, below: Path) -> bool:
    """Whether a file is part of an image that is a folder in another folder, or further below."""
    return any(is_image_file(parent) for parent in path.parents if below in parent.parents)


def _reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror or type(error).__name__}"


def _is_input(path: Path) -> bool:
    """Tell whether a file of a folder is meant to be segmented; a broken image is."""
    if path.name.startswith((".", "~")) or _is_result(path):
        return False
    return is_image_file(path) or (path.is_file() and path.suffix.lower() in IMAGE_ENDINGS)


def _is_result(path: Path) -> bool:
    return path.name.lower().endswith(RESULT_ENDINGS)


def _by_folder(path: Path) -> tuple[str, list[tuple[int, int | str]]]:
    return str(path.parent), natural_key(path)


def _result_names(paths: Sequence[Path]) -> list[str]:
    """Name results after their inputs, with as much of the path as makes them differ."""
    schemes: list[Callable[[Path], str]] = [
        lambda p: stem_of(p),
        lambda p: p.name.replace(".", "_"),
        lambda p: f"{p.resolve().parent.name}_{stem_of(p)}",
        lambda p: f"{p.resolve().parent.name}_{p.name.replace('.', '_')}",
    ]
    names = [""] * len(paths)
    open_indices = list(range(len(paths)))
    for scheme in schemes:
        proposals = {i: scheme(paths[i]) for i in open_indices}
        # File systems of Windows and macOS do not tell upper from lower case.
        taken = Counter(name.casefold() for name in [*proposals.values(), *filter(None, names)])
        for index, name in proposals.items():
            if taken[name.casefold()] == 1:
                names[index] = name
        open_indices = [i for i in open_indices if not names[i]]
        if not open_indices:
            return names
    clashing = ", ".join(str(paths[i]) for i in open_indices[:4])
    raise InvalidSettingError(
        f"these inputs would write files of the same name: {clashing}; "
        "write them into different output folders"
    )


def parse_pixel_size(text: str) -> PixelSize:
    """Read ``0.012`` (µm), ``12nm`` or ``0.5 um``.

    Raises
    ------
    InvalidSettingError
        If it is not a positive length.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[-+]?\d+)?)\s*(\D*)", text, re.IGNORECASE)
    length = to_micrometres(match.group(1), match.group(2).strip() or "um") if match else None
    if length is None:
        raise InvalidSettingError(
            f"--pixel-size expects a length such as 0.012 (µm), 12nm or 0.5um, got {text!r}"
        )
    return PixelSize(length, length, "um")


def parse_planes(text: str) -> list[range]:
    """Read plane numbers such as ``0-9,20`` or ``0-99/10``.

    Parameters
    ----------
    text : str
        Comma-separated numbers or inclusive ranges, the latter with an optional step.

    Raises
    ------
    InvalidSettingError
        If the text cannot be read.
    """
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+)(?:\s*/\s*(\d+))?)?\s*", part)
        first = int(match.group(1)) if match else 0
        last = int(match.group(2) or first) if match else -1
        step = int(match.group(3) or 1) if match else 0
        if step < 1 or last < first:
            raise InvalidSettingError(
                f"--planes expects numbers and ranges such as 0-9,20 or 0-99/10, got {text!r}"
            )
        ranges.append(range(first, last + 1, step))
    return ranges


def choose_planes(text: str, count: int) -> list[int]:
    """Read plane numbers as `parse_planes`, for a stack of `count` planes; in ascending order.

    Raises
    ------
    InvalidSettingError
        If the text cannot be read, or a plane does not exist.
    """
    ranges = parse_planes(text)
    last = max(part[-1] for part in ranges)
    if last >= count:
        raise InvalidSettingError(f"--planes asks for plane {last}, but there are {count}")
    return sorted(set().union(*ranges))
