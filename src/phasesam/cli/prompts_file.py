"""Read prompts for a batch from a JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from phasesam.core.errors import InvalidPromptError
from phasesam.core.types import SCALES, Prompts, Scale

"""SAM's three answers to an ambiguous prompt, in its order."""

_OBJECT_KEYS = {"points", "labels", "box", "scale", "class", "plane"}


@dataclass(frozen=True)
class ObjectPrompt:
    """What the file says about one object.

    Attributes
    ----------
    prompts : Prompts
        Its points and its box.
    scale : {"part", "object", "group", ""}
        Which of SAM's three masks to take; empty for the best.
    class_name : str
        Name of its class; may be empty.
    plane : int or None
        The plane of a stack that it lies in; None for every plane.
    """

    prompts: Prompts
    scale: Scale | Literal[""] = ""
    class_name: str = ""
    plane: int | None = None


@dataclass(frozen=True)
class PromptFile:
    """All prompts of a file.

    Attributes
    ----------
    shared : tuple of ObjectPrompt
        For every image.
    by_image : mapping of str to tuple of ObjectPrompt
        For images of that name, with or without its ending.
    """

    shared: tuple[ObjectPrompt, ...]
    by_image: Mapping[str, tuple[ObjectPrompt, ...]]

    def for_plane(self, source: Path, plane: int) -> tuple[ObjectPrompt, ...]:
        """Return the objects asked for in one plane of one image."""
        return tuple(o for o in self.for_image(source) if o.plane in (None, plane))

    def for_image(self, source: Path) -> tuple[ObjectPrompt, ...]:
        """Return the objects asked for in one image, whatever their plane."""
        own = self.by_image.get(source.name, self.by_image.get(source.stem, ()))
        return (*self.shared, *own)

    def check_names(self, sources: Iterable[Path]) -> None:
        """Make sure that every name belongs to an input.

        Raises
        ------
        InvalidPromptError
            If one does not.
        """
        inputs = list(sources)
        known = {name for path in inputs for name in (path.name, path.stem)}
        unknown = sorted(set(self.by_image) - known)
        if unknown:
            raise InvalidPromptError(
                f"the prompt file names images that are no inputs: {unknown}; the inputs are "
                f"{[path.name for path in inputs[:8]]}{' …' if len(inputs) > 8 else ''}"
            )


def read_prompts(path: Path) -> PromptFile:
    """Read a prompt file.

    Parameters
    ----------
    path : Path
        JSON: ``{"objects": [...]}`` for all images, ``{"images": {NAME: {"objects": [...]}}}``
        for single ones, or both. An object has ``points`` [[y, x], ...] with ``labels``
        [1 or 0, ...], ``box`` [y0, x0, y1, x1] or both, in pixels, and optionally
        ``scale`` (part, object or group), ``class`` and ``plane``.

    Raises
    ------
    InvalidPromptError
        If the file cannot be read or says something that makes no sense; the message
        names the place.
    """
    try:
        # Editors on Windows begin UTF-8 with a byte order mark.
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidPromptError(f"cannot read the prompt file {path}: {error}") from error
    except ValueError as error:
        raise InvalidPromptError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not content.keys() & {"objects", "images"}:
        raise InvalidPromptError(f'{path}: expected {{"objects": [...]}} or {{"images": {{...}}}}')
    _refuse_unknown(content, {"objects", "images"}, str(path))
    images = content.get("images", {})
    if not isinstance(images, dict):
        raise InvalidPromptError(f"{path}: images must map names to objects, got {images!r:.80}")
    by_image = {}
    for name, entry in images.items():
        where = f"{path}: images[{name!r}]"
        by_image[name] = _objects(entry, where)
        _refuse_unknown(entry, {"objects"}, where)
    result = PromptFile(_objects(content, str(path)), by_image)
    if not result.shared and not any(by_image.values()):
        raise InvalidPromptError(f"{path}: expected at least one object, got none")
    return result


def _objects(entry: Any, where: str) -> tuple[ObjectPrompt, ...]:
    objects = entry.get("objects", []) if isinstance(entry, dict) else None
    if not isinstance(objects, list):
        raise InvalidPromptError(f'{where}: expected {{"objects": [...]}}, got {entry!r:.80}')
    return tuple(_object(item, f"{where}: objects[{i}]") for i, item in enumerate(objects))


def _refuse_unknown(entry: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = entry.keys() - known
    if unknown:
        raise InvalidPromptError(
            f"{where}: unknown {sorted(unknown)}, expected some of {sorted(known)}"
        )


def _object(item: Any, where: str) -> ObjectPrompt:
    if not isinstance(item, dict):
        raise InvalidPromptError(f"{where}: expected an object, got {item!r:.80}")
    _refuse_unknown(item, _OBJECT_KEYS, where)
    try:
        prompts = Prompts.build(item.get("points"), item.get("labels"), item.get("box"))
    except (InvalidPromptError, TypeError, ValueError) as error:
        raise InvalidPromptError(f"{where}: {error}") from error
    if prompts.is_empty:
        raise InvalidPromptError(f"{where}: expected points, a box or both, got neither")
    if len(prompts.boxes) > 1:
        raise InvalidPromptError(f"{where}: expected one box, got {len(prompts.boxes)}")
    scale, plane = item.get("scale", ""), item.get("plane")
    if scale not in ("", *SCALES):
        raise InvalidPromptError(f"{where}: scale must be one of {SCALES}, got {scale!r}")
    if plane is not None and (not isinstance(plane, int) or plane < 0):
        raise InvalidPromptError(f"{where}: plane must be a number from 0, got {plane!r}")
    return ObjectPrompt(prompts, scale, str(item.get("class", "")), plane)
