"""Rules that keep the code base easy to find one's way in."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION, MOST_ARGUMENTS = 400, 60, 7
CATCH_ALL_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError|placeholder)\b", re.IGNORECASE)
# Qt's own term for the grey text in an empty entry field.
ALLOWED = re.compile(r"set_?placeholder_?text|placeholder_?text", re.IGNORECASE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def length_without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if is_docstring else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_no_file_is_too_long():
    lengths = {name_of(p): len(p.read_text(encoding="utf-8").splitlines()) for p in SOURCES}
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}


def test_no_function_is_too_long():
    long = {
        f"{name_of(path)}:{node.lineno} {node.name}": length_without_docstring(node)
        for path in SOURCES
        for node in functions(path)
    }
    assert {name: n for name, n in long.items() if n > LONGEST_FUNCTION} == {}


def test_no_function_takes_too_many_arguments():
    many = {}
    for path in SOURCES:
        for node in functions(path):
            names = [
                a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            ]
            count = len([name for name in names if name not in ("self", "cls")])
            if count > MOST_ARGUMENTS:
                many[f"{name_of(path)}:{node.lineno} {node.name}"] = count
    assert many == {}


def test_files_are_named_after_what_is_in_them():
    assert [name_of(p) for p in SOURCES if p.stem in CATCH_ALL_NAMES] == []


def test_nothing_is_left_unfinished():
    found = [
        f"{name_of(path)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(ALLOWED.sub("", line))
    ]
    assert found == []


def test_every_layer_has_its_folder_of_tests():
    layers = [p for p in (ROOT / "src" / "phasesam").iterdir() if (p / "__init__.py").exists()]
    assert [p.name for p in layers if not (ROOT / "tests" / p.name).is_dir()] == []
