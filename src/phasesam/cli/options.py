"""Command options as frozen dataclasses: one class per group, one option per field."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints


def with_options(*groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one parameter for each field of some dataclasses.

    Typer reads options from a function's signature; a command with thirty of them
    is unreadable. The decorated command takes one instance of each group instead.

    Parameters
    ----------
    *groups : dataclass types
        Their fields are annotated as Typer wants it,
        ``Annotated[type, typer.Option(...)]``; names are unique over all groups.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_default(field),
                annotation=hints[field.name],
            )
            for group in groups
            for hints in [get_type_hints(group, include_extras=True)]
            for field in fields(group)
        ]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            command(*(group(**{f.name: values[f.name] for f in fields(group)}) for group in groups))

        # Typer looks at both; the signature of `command` itself must not show through.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
