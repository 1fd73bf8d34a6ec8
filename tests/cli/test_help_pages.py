"""Help on a narrow terminal, and into a pipe."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from phasesam.cli.app import app


def pages():
    """Words that lead to each command, and the command."""
    top = get_command(app)
    yield (), top
    for name, command in top.commands.items():
        yield (name,), command
        for below, inner in getattr(command, "commands", {}).items():
            yield (name, below), inner


PAGES = dict(pages())


def show(words, monkeypatch, columns="80"):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERMINAL_WIDTH", columns)
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    return result.output


def test_all_commands_are_looked_at():
    expected = {("segment",), ("demo",), ("models",), ("models", "info"), ("models", "import")}
    assert expected < set(PAGES)


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_nothing_is_cut_on_80_columns(words, monkeypatch):
    text = show(words, monkeypatch)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    lines = text.splitlines()
    for parameter in PAGES[words].params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            if name.startswith("--"):
                pattern = rf"(?<![\w-]){name}(?![\w-])"
                assert any(re.search(pattern, line) for line in lines), name
        values = str(parameter.metavar or "").split("|")
        assert all(value in text for value in values)
    # Neither are names broken in the middle of a sentence.
    assert not [line for line in lines if re.search(r"--[a-z-]*-$", line)]
    assert not [line for line in lines if re.search(r"\w\|$|^\s*\|", line)]


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_every_page_has_examples_that_are_whole_lines(words, monkeypatch):
    lines = show(words, monkeypatch).splitlines()
    start = lines.index("  Examples:")
    examples = []
    for line in lines[start + 1 :]:
        if not line.startswith("    phasesam "):
            break
        examples.append(line)
    assert examples
    assert any(line.split()[1 : 1 + len(words)] == list(words) for line in examples)


def test_short_descriptions_are_whole(monkeypatch):
    for words in ((), ("models",)):
        text = show(words, monkeypatch)
        listed = text[text.index("Commands:") :]
        assert "..." not in listed
        for name in PAGES[words].commands:
            assert re.search(rf"^  {name} +\S", listed, re.MULTILINE)


def test_options_stand_under_headings(monkeypatch):
    text = show(("segment",), monkeypatch)
    order = ["Input and output:", "  -o, --output ", "Model and device:", "  --device ", "Image:"]
    positions = [text.index(f"\n{start}") for start in order]
    assert positions == sorted(positions)
