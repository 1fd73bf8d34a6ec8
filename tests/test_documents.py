"""The documentation names what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer.main

from phasesam.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
VARIABLE = re.compile(r"PHASESAM_[A-Z_]+")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(page))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_are_valid(page):
    for code in blocks(page, "python"):
        compile(code, page.name, "exec")
    for content in blocks(page, "json"):
        json.loads(content)


@pytest.mark.parametrize(
    "words",
    [
        "segment",
        "predict",
        "train",
        "models merge",
        "evaluate masks",
        "evaluate adapter",
        "evaluate ablation",
        "evaluate ratio",
        "features",
    ],
)
def test_every_option_is_described(words):
    command = typer.main.get_command(app)
    for word in words.split():
        command = command.commands[word]
    options = {name for p in command.params for name in p.opts if name.startswith("--")}
    described = text_of(ROOT / "docs" / "command-line.md")
    obvious = {"--help", "--output", "--quiet", "--data-bar-detection", "--download"}
    assert [name for name in sorted(options - obvious) if name not in described] == []


def test_every_variable_of_the_environment_is_described():
    sources = "".join(text_of(path) for path in (ROOT / "src").rglob("*.py"))
    described = set(VARIABLE.findall(text_of(ROOT / "docs" / "models.md")))
    assert set(VARIABLE.findall(sources)) == described


def test_keys_are_described():
    keys = pytest.importorskip("phasesam.napari_widgets.keys").KEYS
    table = text_of(ROOT / "docs" / "prompting.md")
    for key in keys:
        assert re.search(rf"\|[^|]*\b{re.escape(key.qt)}\b[^|]*\|", table), key.qt
