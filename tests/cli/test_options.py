from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from phasesam.cli.options import with_options


@dataclass(frozen=True)
class First:
    name: Annotated[str, typer.Argument(help="A name.")]
    size: Annotated[int, typer.Option("--size", min=1, help="A size.")] = 3


@dataclass(frozen=True)
class Second:
    loud: Annotated[bool, typer.Option("--loud")] = False


def run(*args):
    app = typer.Typer()
    calls = []

    @app.command()
    @with_options(First, Second)
    def greet(first: First, second: Second) -> None:
        """Greet somebody."""
        calls.append((first, second))

    return CliRunner().invoke(app, list(args)), calls


def test_fields_become_options_and_arrive_as_groups():
    result, calls = run("Ada", "--size", "5", "--loud")
    assert result.exit_code == 0
    assert calls == [(First("Ada", 5), Second(True))]


def test_defaults_of_the_fields_hold():
    assert run("Ada")[1] == [(First("Ada", 3), Second(False))]


def test_required_and_limited_values():
    assert run()[0].exit_code == 2
    assert run("Ada", "--size", "0")[0].exit_code == 2


def test_help_shows_the_text_of_the_command_and_its_options():
    text = run("--help")[0].output
    assert "Greet somebody." in text
    assert "A size." in text
