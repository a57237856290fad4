"""Conditions of a sweep file, such as `epochs > 3 and batch_size in [16, 32]`: data, never code.

The grammar is a small part of Python's: parameter names, numbers, texts, lists, comparisons, `in`, `and`, `or`, `not`.
There are no calls, attributes, subscripts or arithmetic, so a condition cannot do anything but compare.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from embedlab.errors import ParameterError

REMEDY = 'Write a condition on parameters, such as "epochs > 3 and batch_size == 64"'
MAX_CHARACTERS = 1_000

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, values: value in values,
    ast.NotIn: lambda value, values: value not in values,
}
_PARTS = (ast.BoolOp, ast.And, ast.Or, ast.Not, ast.UnaryOp, ast.USub, ast.UAdd, ast.Compare, ast.Name, ast.Load)
_ALLOWED = (ast.Expression, ast.Constant, ast.List, ast.Tuple, *_PARTS, *_COMPARISONS)


class Condition:
    """A condition on parameter values.

    Args:
        text: the condition.

    Raises:
        ParameterError: the text has anything else than comparisons of parameters and literals.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_CHARACTERS:
            raise self._error(f"the condition has {len(text)} characters; at most {MAX_CHARACTERS} are allowed")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self._error("this is not a condition") from None
        if foreign := next((node for node in ast.walk(tree) if not isinstance(node, _ALLOWED)), None):
            raise self._error(f"{type(foreign).__name__.lower()} is not allowed in a condition")
        if not isinstance(tree.body, ast.BoolOp | ast.UnaryOp | ast.Compare | ast.Name | ast.Constant):
            raise self._error("this is not a condition")
        self._tree = tree.body

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether the condition is true of these values.

        Args:
            values: parameter -> value.

        Raises:
            ParameterError: a name that is not a parameter, a comparison of a text with a number, or a result that is
                not true or false.
        """
        try:
            result = self._value(self._tree, values)
        except TypeError as error:
            raise self._error(str(error)) from None
        if not isinstance(result, bool):
            raise self._error(f"the condition gives {result!r}, not true or false")
        return result

    def _value(self, node: ast.AST, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self._parameter(node.id, values)
            case ast.List() | ast.Tuple():
                return [self._value(item, values) for item in node.elts]
            case ast.BoolOp():
                parts = (self._truth(clause, values) for clause in node.values)
                return all(parts) if isinstance(node.op, ast.And) else any(parts)
            case ast.UnaryOp(op=ast.Not()):
                return not self._truth(node.operand, values)
            case ast.UnaryOp():
                number = self._value(node.operand, values)
                return -number if isinstance(node.op, ast.USub) else +number
            case ast.Compare():
                return self._compared(node, values)
        raise self._error("this is not a condition")

    def _truth(self, node: ast.AST, values: Mapping[str, Any]) -> bool:
        if isinstance(value := self._value(node, values), bool):
            return value
        raise self._error(f"{value!r} stands where a comparison is expected")

    def _compared(self, node: ast.Compare, values: Mapping[str, Any]) -> bool:
        operands = [self._value(operand, values) for operand in (node.left, *node.comparators)]
        pairs = zip(operands, operands[1:], strict=False)
        return all(_COMPARISONS[type(sign)](*pair) for sign, pair in zip(node.ops, pairs, strict=True))

    def _parameter(self, name: str, values: Mapping[str, Any]) -> Any:
        if name in ("true", "false"):  # as in YAML
            return name == "true"
        if name not in values:
            raise self._error(f"there is no parameter {name!r}")
        return values[name]

    def _error(self, reason: str) -> ParameterError:
        return ParameterError(f"{self.text[:200]!r}: {reason}", remedy=REMEDY, field="skip")
