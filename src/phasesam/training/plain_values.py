"""Plain values, as in JSON files: of the kinds that a dataclass has, and in what they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from phasesam.core.errors import InvalidSettingError

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
    NoneType: "null",
}


def check_value(kind: type, name: str, value: Any, origin: str) -> None:
    """Refuse a value that is not of the kind its field has.

    Parameters
    ----------
    kind : type
        A dataclass.
    name : str
        One of its fields.
    value : object
        Plain: number, text, list, None. Of lists only that they are lists is looked at.
    origin : str
        What the message calls the dataclass.

    Raises
    ------
    InvalidSettingError
        Saying what was expected.
    """
    hint = get_type_hints(kind)[name]
    if not _fits(hint, value):
        raise InvalidSettingError(
            f"{origin}.{name}: expected {' or '.join(_expected(hint))}, got {value!r}"
        )


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Tell settings that differ, each as ``part.setting was OLD, is NEW``.

    Parameters
    ----------
    before, now : object
        Plain values, or mappings of them by name; lists and tuples are alike.
    name : str
        Of what they are; empty for the whole.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*before, *now)):
            part = f"{name}.{key}" if name else str(key)
            yield from differences(before.get(key), now.get(key), part)
    elif _listed(before) != _listed(now):
        yield f"{name} was {_listed(before)!r}, is {_listed(now)!r}"


def _listed(value: Any) -> Any:
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value


def _fits(hint: Any, value: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(each, value) for each in get_args(hint))
    if origin is Literal:
        return isinstance(value, str)  # which ones there are, the dataclass says
    if origin is tuple:
        return isinstance(value, list | tuple)
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, int | float)
    return not isinstance(hint, type) or hint not in _WORDS or isinstance(value, hint)


def _expected(hint: Any) -> list[str]:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return list(dict.fromkeys(word for each in get_args(hint) for word in _expected(each)))
    plain = tuple if origin is tuple else str if origin is Literal else hint
    return [_WORDS.get(plain, "settings by name")]
