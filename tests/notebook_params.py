"""The class that a notebook resolves its parameters with, read from its code."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from embedlab.params import Params
from embedlab.runs import notebooks


def params_class(path: Path) -> type[Params]:
    """The class X of the notebook's line `params = X.resolve(globals())`, imported as the notebook imports it."""
    cells = [cell.source for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    nodes = [node for cell in cells for node in ast.parse(cell).body]
    (expression,) = [
        node.value.func.value
        for node in nodes
        if isinstance(node, ast.Assign) and ast.unparse(node.value).endswith(".resolve(globals())")
    ]
    root = ast.unparse(expression).split(".")[0]
    (statement,) = [
        node
        for node in nodes
        if isinstance(node, ast.ImportFrom) and root in {alias.asname or alias.name for alias in node.names}
    ]
    namespace: dict[str, Any] = {}
    exec(ast.unparse(statement), namespace)
    return eval(ast.unparse(expression), namespace)
