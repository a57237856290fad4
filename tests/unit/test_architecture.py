"""The import graph of the package, function-level imports included: layers, circles, private names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import embedlab

PACKAGE = Path(embedlab.__file__).parent

# A module may import from its own layer and from layers further down in this list.
LAYERS = (
    ("cli",),
    ("reporting",),
    ("sweeps",),
    ("arena",),
    ("runs",),
    ("tuning",),
    ("deploy", "evaluation", "training"),
    ("search",),
    ("models",),
    ("scan",),
    ("data",),
    ("http", "io", "params", "engine", "checked", "launchers", "progress", "paths", "redaction", "escaping", "errors")
    + ("blocks", "finding", "memory"),
)
SEPARATE = ("training", "evaluation")  # of the same layer, but neither imports the other


@cache
def modules() -> dict[str, ast.Module]:
    """Module name without the package, e.g. `models.load` -> syntax tree; the package itself has the name ''."""
    files = {path: path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")}
    return {
        ".".join(name.parts).removesuffix("__init__").rstrip("."): ast.parse(p.read_text()) for p, name in files.items()
    }


def imported_names(module: str) -> Iterator[tuple[str, str | None]]:
    """(module of ours, name taken from it or None) for every import in a module, wherever it stands."""
    for node in ast.walk(modules()[module]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "embedlab":
            source = node.module.removeprefix("embedlab").lstrip(".")
            for alias in node.names:
                submodule = f"{source}.{alias.name}".lstrip(".")
                yield (submodule, None) if submodule in modules() else (source, alias.name)
        elif isinstance(node, ast.Import):
            yield from (
                (alias.name.removeprefix("embedlab."), None) for alias in node.names if "embedlab." in alias.name
            )


@cache
def graph() -> dict[str, set[str]]:
    """Module -> modules it imports. `embedlab` itself only holds the version and lazy exports, so it is left out."""
    return {module: {target for target, _ in imported_names(module)} - {"", module} for module in modules() if module}


def layer(module: str) -> int:
    (number,) = (number for number, names in enumerate(LAYERS) if module.partition(".")[0] in names)
    return number


def test_imports_go_downwards():
    upward = [
        f"{module} -> {target}"
        for module, targets in graph().items()
        for target in targets
        if layer(target) < layer(module)
    ]
    assert upward == []


def test_training_and_evaluation_are_independent():
    crossing = [
        f"{module} -> {target}"
        for module, targets in graph().items()
        for target in targets
        if {module.partition(".")[0], target.partition(".")[0]} == set(SEPARATE)
    ]
    assert crossing == []


def circles() -> list[list[str]]:
    """Groups of modules that import each other, directly or not (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        stack.append(module)
        for target in graph().get(module, ()):
            if target not in index:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in stack:
                lowest[module] = min(lowest[module], index[target])
        if lowest[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in graph():
        if module not in index:
            visit(module)
    return groups


def test_no_circles():
    assert circles() == []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_private_names_across_modules():
    """Neither `from embedlab.x import _name` nor `x._name` where x is a module of ours."""
    violations = []
    for module, tree in modules().items():
        violations += [
            f"{module}: {source}.{name}" for source, name in imported_names(module) if name and is_private(name)
        ]
        ours = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "embedlab"
            for alias in node.names
            if f"{node.module}.{alias.name}".removeprefix("embedlab.") in modules()
        }
        violations += [
            f"{module}: {node.value.id}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if node.value.id in ours and is_private(node.attr)
        ]
    assert violations == []


def test_every_module_belongs_to_a_layer():
    assert all(layer(module) >= 0 for module in graph())
