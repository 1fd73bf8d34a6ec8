"""Names of classes as users write them."""

from __future__ import annotations

from collections.abc import Iterable


def class_named(text: str, classes: Iterable[str]) -> str | None:
    """Find the class that is meant: case does not count, unless it tells classes apart.

    Parameters
    ----------
    text : str
        What was written.
    classes : iterable of str
        Names.

    Returns
    -------
    str or None
        The name; None if it is none of them, or may be several.
    """
    names = tuple(classes)
    if text in names:
        return text
    alike = [name for name in names if name.casefold() == text.casefold()]
    return alike[0] if len(alike) == 1 else None
