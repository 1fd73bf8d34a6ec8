"""The filter language of the object table: ``area > 500 and aspect < 2`` or plain text.

The text is parsed to a syntax tree, of which only comparisons, ``and``, ``or``, ``not``
and numbers are taken; nothing is ever evaluated as Python.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError

Columns = Mapping[str, NDArray[Any]]
"""Column name to (n,) array."""

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_LOOKS_LIKE_EXPRESSION = re.compile(r"[<>=!&|]")
_MAX_LENGTH = 500


def filter_rows(text: str, columns: Columns, text_column: str = "class") -> NDArray[np.bool_]:
    """Find the rows that a filter text asks for.

    Parameters
    ----------
    text : str
        Comparisons joined by ``and``, ``or``, ``not`` (``20 < area < 500``,
        ``class == pore``, ``not edge``), or plain text looked up in ``text_column``;
        a plain whole number is looked up in ``id``. Empty text keeps every row.
    columns : mapping of str to (n,) array
        What the names in the text stand for.
    text_column : str, optional
        Column that plain text is compared with.

    Returns
    -------
    (n,) bool array

    Raises
    ------
    InvalidSettingError
        If the text cannot be read; the message says what is wrong with it.
    """
    count = len(next(iter(columns.values()))) if columns else 0
    text = text.strip()
    if not text:
        return np.ones(count, dtype=np.bool_)
    if len(text) > _MAX_LENGTH:
        raise InvalidSettingError(f"a filter has at most {_MAX_LENGTH} characters")
    words = set(re.findall(r"[^\W\d]\w*", text))
    if not _LOOKS_LIKE_EXPRESSION.search(text) and not (words & set(columns)):
        return _find_text(text, columns, text_column, count)
    # "class" is a reserved word, and a single "=" is what people type.
    python = re.sub(r"\bclass\b", "class_", text)
    python = re.sub(r"(?<![<>=!])=(?!=)", "==", python)
    python = python.replace("&&", " and ").replace("||", " or ")
    try:
        tree = ast.parse(python, mode="eval")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InvalidSettingError(
            f'cannot read "{text}"; write for example: area > 500 and aspect < 2'
        ) from error
    named = {("class_" if name == "class" else name): column for name, column in columns.items()}
    result = np.asarray(_Evaluator(named).condition(tree.body))
    return np.broadcast_to(result.astype(np.bool_), (count,)).copy()


def _find_text(text: str, columns: Columns, text_column: str, count: int) -> NDArray[np.bool_]:
    if text.isdecimal() and "id" in columns:
        return np.asarray(columns["id"] == int(text))
    if text_column not in columns:
        return np.zeros(count, dtype=np.bool_)
    wanted = text.casefold()
    return np.array([wanted in str(v).casefold() for v in columns[text_column]], dtype=np.bool_)


class _Evaluator:
    """Turns the allowed part of a syntax tree into bool arrays."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def condition(self, node: ast.expr) -> Any:
        """Rows for which ``node`` holds."""
        if isinstance(node, ast.BoolOp):
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            result = self.condition(node.values[0])
            for value in node.values[1:]:
                result = join(result, self.condition(value))
            return result
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            join = np.logical_and if isinstance(node.op, ast.BitAnd) else np.logical_or
            return join(self.condition(node.left), self.condition(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return np.logical_not(self.condition(node.operand))
        if isinstance(node, ast.Compare):
            return self._compare(node)
        if isinstance(node, ast.Name) and self._column(node.id).dtype == np.bool_:
            return self._column(node.id)
        raise InvalidSettingError("expected a comparison such as area > 500")

    def _compare(self, node: ast.Compare) -> Any:
        result: Any = True
        sides = [node.left, *node.comparators]
        for left, symbol, right in zip(sides, node.ops, sides[1:], strict=False):
            compare = _COMPARISONS.get(type(symbol))
            if compare is None:
                raise InvalidSettingError("comparisons are < <= > >= == !=")
            a, b = self._pair(left, right)
            result = np.logical_and(result, compare(a, b))
        return result

    def _pair(self, left: ast.expr, right: ast.expr) -> tuple[Any, Any]:
        """Both sides of a comparison, as text if one of them is a text column."""
        if self._is_text(left) or self._is_text(right):
            return self._as_text(left), self._as_text(right)
        return self._number(left), self._number(right)

    def _is_text(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str)
        return (
            isinstance(node, ast.Name)
            and node.id in self._columns
            and self._columns[node.id].dtype.kind in "OUT"
        )

    def _as_text(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id in self._columns:
            return np.array([str(v).casefold() for v in self._columns[node.id]], dtype=object)
        if isinstance(node, ast.Name):
            return node.id.casefold()
        if isinstance(node, ast.Constant):
            return str(node.value).casefold()
        raise InvalidSettingError("a class is compared with a word, such as class == pore")

    def _number(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self._number(node.operand)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.Name):
            return self._column(node.id)
        raise InvalidSettingError("expected a column name or a number")

    def _column(self, name: str) -> NDArray[Any]:
        if name not in self._columns:
            known = ", ".join("class" if c == "class_" else c for c in self._columns)
            raise InvalidSettingError(f'no column "{name}"; there are {known}')
        return self._columns[name]
