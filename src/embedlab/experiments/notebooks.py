"""A notebook as the lab sees it: its parameters, and the code that decides its results."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import nbformat

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.params import check_names

TAG = "parameters"
TYPES = {"int": int, "float": float, "str": str, "bool": bool}
LISTS = {f"list[{name}]": list[type_] for name, type_ in TYPES.items()}


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell: `name: type = default  # help`."""

    name: str
    type_name: str
    default: Any
    help: str

    @property
    def type(self) -> Any:
        """int, float, str, bool or a list of one of them."""
        return {**TYPES, **LISTS}[self.type_name]


def find_notebook(name: str) -> Path:
    """The notebook called `name`: a path, a stem ("00_quickstart") or its number ("00").

    Raises:
        ParameterError: there is none, or more than one.
    """
    if (path := Path(name)).suffix == ".ipynb" and path.exists():
        return path.resolve()
    known = sorted(paths.notebooks_dir().glob("*.ipynb"))
    found = [path for path in known if name in (path.stem, path.stem.partition("_")[0], path.name)]
    if len(found) == 1:
        return found[0]
    remedy = f"Notebooks are {', '.join(path.stem for path in known) or 'none'}"
    raise ParameterError(f"there is no notebook {name!r}", remedy=remedy, field="notebook")


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook file.

    Raises:
        ParameterError: it cannot be read, or is no notebook.
    """
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8-sig"), as_version=4)
        nbformat.validate(notebook)
    except OSError as error:
        raise ParameterError(f"cannot be read ({error.strerror})", remedy="Check the path", file=path) from None
    except UnicodeDecodeError:
        raise ParameterError("is not UTF-8", remedy="Save it as UTF-8", file=path) from None
    except json.JSONDecodeError as error:
        raise ParameterError("is not JSON", remedy="Save it again as .ipynb", file=path, line=error.lineno) from None
    except Exception as error:  # nbformat raises several kinds for JSON that is no notebook
        reason = str(error).splitlines()[0][:120]
        raise ParameterError(f"is no notebook ({reason})", remedy="Save it again as .ipynb", file=path) from None
    return notebook


def parameters(path: Path) -> list[Parameter]:
    """The parameters of a notebook, in the order of its one cell tagged `parameters`.

    Raises:
        ParameterError: no such cell or several, or a line that is not `name: type = value`.
    """
    cells = [cell for cell in read(path).cells if TAG in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        remedy = f"Tag exactly one cell {TAG!r}"
        raise ParameterError(f"has {len(cells)} cells tagged {TAG!r}", remedy=remedy, file=path)
    source = cells[0].source
    comments = _comments(source)
    return [_parameter(node, comments, path) for node in ast.parse(source).body]


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _parameter(node: ast.stmt, comments: Mapping[int, str], path: Path) -> Parameter:
    try:
        type_name = ast.unparse(node.annotation)
        found = Parameter(node.target.id, type_name, ast.literal_eval(node.value), comments.get(node.end_lineno, ""))
        _ = found.type
    except (AttributeError, ValueError, KeyError):
        problem = f"the parameters cell has {ast.unparse(node)!r}"
        remedy = f"Write name: type = value with a type of {', '.join({**TYPES, **LISTS})}"
        raise ParameterError(problem, remedy=remedy, file=path) from None
    return found


def resolved(known: list[Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter with its given or default value, an int for a float made one, as the notebook resolves them."""
    chosen = {parameter.name: values.get(parameter.name, parameter.default) for parameter in known}
    return {
        parameter.name: float(chosen[parameter.name]) if parameter.type is float else chosen[parameter.name]
        for parameter in known
    }


def parse_values(known: list[Parameter], texts: Mapping[str, str]) -> dict[str, Any]:
    """Values from `name=text` as the parameters' types say; text for a `str` is kept to the letter.

    Raises:
        ParameterError: an unknown name, with the nearest known one, or text that is not of the type.
    """
    types = {parameter.name: parameter for parameter in known}
    check_names(texts, types)
    return {name: _parse(types[name], text) for name, text in texts.items()}


def _parse(parameter: Parameter, text: str) -> Any:
    try:
        return _from_text(parameter.type, text)
    except (ValueError, TypeError):
        problem = f"{text!r} is no {parameter.type_name}"
        raise ParameterError(problem, remedy=f"For example {parameter.default!r}", field=parameter.name) from None


def _from_text(kind: Any, text: str) -> Any:
    if get_origin(kind) is list:
        values = json.loads(text)
        if not isinstance(values, list):
            raise ValueError(text)
        return [_from_json(get_args(kind)[0], value) for value in values]
    if kind is bool:
        return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else _refuse(text)
    return kind(text)


def _from_json(kind: type, value: Any) -> Any:
    if not fits(kind, value):
        raise ValueError(value)
    return kind(value)


def fits(kind: Any, value: Any) -> bool:
    """Whether a value may be given for a parameter: a bool is no int, an int is a float, nothing else is converted."""
    if get_origin(kind) is list:
        return isinstance(value, list) and all(fits(get_args(kind)[0], item) for item in value)
    return type(value) is kind or (kind is float and type(value) is int)


def _refuse(value: Any) -> Any:
    raise ValueError(value)


def source_hash(path: Path) -> str:
    """Hash of the code cells without the parameters cell and outputs.

    Editing a default in JupyterLab must give the run id that `-p` gives with the same value, so the parameters cell
    does not count (the resolved values do, elsewhere); mending prose must not make finished runs stale.
    """
    code = [
        cell.source
        for cell in read(path).cells
        if cell.cell_type == "code" and not {TAG, "injected-parameters"} & set(cell.metadata.get("tags", ()))
    ]
    return hashlib.sha256("\n\0\n".join(code).encode()).hexdigest()[:16]
