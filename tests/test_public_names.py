from __future__ import annotations

import ast
import importlib
import inspect

import pytest

import phasesam

LAZY = sorted(set(phasesam.__all__) - {"__version__"})


def test_all_and_the_lazy_table_agree():
    assert set(LAZY) == set(phasesam._LAZY)
    assert sorted(phasesam.__all__) == dir(phasesam)


def test_type_checkers_see_the_same_names():
    """The imports under TYPE_CHECKING name the same modules as the lazy table."""
    tree = ast.parse(inspect.getsource(phasesam))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("phasesam.")
        for alias in node.names
    }
    assert seen == phasesam._LAZY


@pytest.mark.parametrize("name", LAZY)
def test_name_resolves_to_the_object_of_its_module(name):
    value = getattr(phasesam, name)
    assert value is getattr(importlib.import_module(phasesam._LAZY[name]), name)
    assert inspect.getdoc(value)
