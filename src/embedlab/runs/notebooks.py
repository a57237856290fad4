"""Read notebooks: their parameters, and the code that determines their results."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import math
import tokenize
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import nbformat

from embedlab import paths
from embedlab.checked import check_names, check_no_keys
from embedlab.engine import EngineParams
from embedlab.errors import ParameterError
from embedlab.runs.run_id import topic_of

TAG = "parameters"
TYPES = {"int": int, "float": float, "str": str, "bool": bool}
GROUPS = {"engine": EngineParams}  # parameters of type dict, and the class of their entries
LISTS = {"list[int]": list[int], "list[float]": list[float], "list[str]": list[str], "list[bool]": list[bool]}


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell: `name: type = default  # help`."""

    name: str
    type_name: str
    default: Any
    help: str

    @property
    def type(self) -> Any:
        """int, float, str, bool, a list of one of them, or dict for a group of entries."""
        return {**TYPES, **LISTS, **({"dict": dict} if self.name in GROUPS else {})}[self.type_name]


def find_notebook(name: str) -> Path:
    """Find a notebook by its path, its name ("00_quickstart") or its number ("00").

    Raises:
        ParameterError: no notebook has this name, or several have this number.
    """
    if (path := Path(name)).suffix == ".ipynb" and path.exists():
        return path.resolve()
    notebooks = sorted(paths.notebooks_dir().glob("*.ipynb"))
    if not notebooks:
        problem = f"there are no notebooks in {paths.project_root()}"
        remedy = "Change to your project's folder, or create a project with `embedlab init`"
        raise ParameterError(problem, remedy=remedy, field="notebook")
    matches = [path for path in notebooks if name in (path.stem, path.stem.partition("_")[0], path.name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = " and ".join(path.stem for path in matches)
        raise ParameterError(f"{name!r} fits {names}", remedy="Write the whole name", field="notebook")
    remedy = f"Choose one of {', '.join(path.stem for path in notebooks)}"
    raise ParameterError(f"there is no notebook {name!r}", remedy=remedy, field="notebook")


def read(path: Path) -> nbformat.NotebookNode:
    """Read and validate a notebook file.

    Raises:
        ParameterError: the file cannot be read, or is not a notebook.
    """
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8-sig"), as_version=4)
        nbformat.validate(notebook)
    except OSError as error:
        raise ParameterError(
            f"the file cannot be read ({error.strerror})", remedy="Check the path", file=path
        ) from None
    except UnicodeDecodeError:
        raise ParameterError("the file is not UTF-8", remedy="Save it as UTF-8", file=path) from None
    except json.JSONDecodeError as error:
        raise ParameterError(
            "the file is not JSON", remedy="Save it again as .ipynb", file=path, line=error.lineno
        ) from None
    except Exception as error:  # nbformat raises several kinds of errors for JSON that is not a notebook
        reason = str(error).splitlines()[0][:120]
        raise ParameterError(
            f"the file is not a notebook ({reason})", remedy="Save it again as .ipynb", file=path
        ) from None
    return notebook


def parameters(path: Path) -> list[Parameter]:
    """The parameters of a notebook, in the order of its one cell tagged `parameters`.

    Raises:
        ParameterError: there is no such cell, or several, or a line is not `name: type = value`.
    """
    cells = [cell for cell in read(path).cells if TAG in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        remedy = f"Tag exactly one cell {TAG!r}"
        raise ParameterError(f"the notebook has {len(cells)} cells tagged {TAG!r}", remedy=remedy, file=path)
    source = cells[0].source
    try:
        nodes = ast.parse(source).body
    except SyntaxError as error:
        problem = f"line {error.lineno} of the parameters cell is not valid Python ({error.msg})"
        raise ParameterError(problem, remedy="Fix that line", file=path) from None
    parsed = [_parameter(node, _comments(source), path) for node in nodes]
    if repeated := [name for name, count in Counter(parameter.name for parameter in parsed).items() if count > 1]:
        problem = "the parameter is defined twice in the parameters cell"
        raise ParameterError(problem, remedy="Remove one line", file=path, field=repeated[0])
    return parsed


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _parameter(node: ast.stmt, comments: Mapping[int, str], path: Path) -> Parameter:
    try:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.value is None:
            raise TypeError
        type_name = ast.unparse(node.annotation)
        default, comment = ast.literal_eval(node.value), comments.get(node.end_lineno or node.lineno, "")
        parameter = Parameter(node.target.id, type_name, default, comment)
        _ = parameter.type
    except (ValueError, TypeError, KeyError):
        problem = f"cannot read {ast.unparse(node)!r} in the parameters cell"
        remedy = f"Write name: type = value with a type of {', '.join({**TYPES, **LISTS})}"
        raise ParameterError(problem, remedy=remedy, file=path) from None
    if not fits(parameter.type, parameter.default):
        problem = f"the default must be {type_name}, got {parameter.default!r}"
        raise ParameterError(problem, remedy="Change the value or the type", file=path, field=parameter.name)
    return parameter


def check_values(parameters: list[Parameter], values: Mapping[str, Any], file: Path | None = None) -> None:
    """Check names and types of parameter values.

    Args:
        parameters: of a notebook.
        values: parameter -> value; an entry of a group may stand alone, as in `engine.precision`.
        file: the file that the values come from, for the message.

    Raises:
        ParameterError: a name that the notebook does not have, or a value of another type.
    """
    parameters_by_name = {parameter.name: parameter for parameter in parameters}
    values = grouped(values)
    check_names(values, parameters_by_name)
    check_no_keys(values, file)
    for name, value in values.items():
        _fitted(parameters_by_name[name], value, file)


def grouped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the entries of groups: `engine.precision` becomes an entry of `engine`.

    Entries that stand alone win over those of the group.

    >>> grouped({"epochs": 1.0, "engine.precision": "bf16"})
    {'epochs': 1.0, 'engine': {'precision': 'bf16'}}

    Args:
        values: parameter -> value.
    """
    alone = {name: value for name, value in values.items() if name.partition(".")[0] in GROUPS and "." in name}
    together = {name: value for name, value in values.items() if name not in alone}
    for name, value in alone.items():
        group, _, entry = name.partition(".")
        entries = together.get(group, {})
        together[group] = {**entries, entry: value} if isinstance(entries, dict) else entries
    return together


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `grouped`: one entry per name, for tables.

    >>> flat({"epochs": 1.0, "engine": {"precision": "bf16"}})
    {'epochs': 1.0, 'engine.precision': 'bf16'}

    Args:
        values: parameter -> value.
    """
    entries: dict[str, Any] = {}
    for name, value in values.items():
        is_group = name in GROUPS and isinstance(value, Mapping)
        entries |= {f"{name}.{entry}": item for entry, item in value.items()} if is_group else {name: value}
    return entries


def _fitted(parameter: Parameter, value: Any, file: Path | None = None) -> Any:
    """The value as the notebook resolves it: an int becomes a float where the parameter is a float.

    A group loses the entries that equal their defaults.
    """
    if not fits(parameter.type, value):
        raise _misfit(parameter, value, file)
    if parameter.type is dict:
        return GROUPS[parameter.name].checked(value, file).changes()
    if get_origin(parameter.type) is list:
        return [get_args(parameter.type)[0](item) for item in value]
    return parameter.type(value)


def _misfit(parameter: Parameter, value: Any, file: Path | None = None) -> ParameterError:
    problem, remedy = f"must be {parameter.type_name}, got {value!r}", f"Write {parameter.default!r}, for example"
    return ParameterError(problem, remedy=remedy, file=file, field=parameter.name)


def resolved(parameters: list[Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter with its value, or its default where `values` has none.

    Raises:
        ParameterError: see `check_values`.
    """
    check_values(parameters, values)
    values = grouped(values)
    return {
        parameter.name: _fitted(parameter, values.get(parameter.name, parameter.default)) for parameter in parameters
    }


def default_of(name: str) -> Any:
    """Return the default of an entry of a group, such as `engine.precision`."""
    group, _, entry = name.partition(".")
    return GROUPS[group].model_fields[entry].default


def with_defaults(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the values of several runs, `flat`; an entry that one run sets has its default in the others.

    >>> with_defaults([{"engine": {"workers": 2}}, {"engine": {}}])
    [{'engine.workers': 2}, {'engine.workers': 0}]

    Args:
        settings: parameter -> value, of each run.
    """
    rows = [flat(values) for values in settings]
    entries = {name for row in rows for name in row if name.partition(".")[0] in GROUPS and "." in name}
    defaults = {name: default_of(name) for name in sorted(entries)}
    return [{**defaults, **row} for row in rows]


def parse_values(parameters: list[Parameter], texts: Mapping[str, str]) -> dict[str, Any]:
    """Convert texts to the types of the parameters; a text for a `str` parameter stays exactly as it is.

    Raises:
        ParameterError: a name that the notebook does not have, or a text that cannot be converted.
    """
    types = {parameter.name: parameter for parameter in parameters}
    check_names(grouped(texts), types)
    return {
        name: _parse_entry(name, text) if "." in name else _parse(types[name], text) for name, text in texts.items()
    }


def _parse_entry(name: str, text: str) -> Any:
    """Read one entry of a group, such as `engine.precision`."""
    group, _, entry = name.partition(".")
    fields = GROUPS[group].model_fields
    check_names([entry], fields, group=group)
    for kind in (bool, int, float):
        if kind in (fields[entry].annotation, *get_args(fields[entry].annotation)):
            with suppress(ValueError, KeyError, OverflowError):
                return _from_text(kind, text)
    return text  # the check of the group says what is wrong with it


def _parse(parameter: Parameter, text: str) -> Any:
    try:
        return _fitted(parameter, _from_text(parameter.type, text))
    except (ValueError, KeyError, OverflowError, RecursionError):
        raise _misfit(parameter, text) from None


def _from_text(kind: Any, text: str) -> Any:
    if kind is dict or get_origin(kind) is list:
        return json.loads(text)
    return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)


def fits(kind: Any, value: Any) -> bool:
    """Whether a value has the type of a parameter: int counts as float, bool is not an int, NaN is not allowed."""
    if kind is dict:
        return isinstance(value, dict)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(fits(get_args(kind)[0], item) for item in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind


def source_hash(path: Path) -> str:
    """Hash of the code cells without the parameters cell and outputs.

    The parameters cell does not count because the run id covers the values: an edited default in JupyterLab gives the
    same run id as `-p`. Text cells do not count either: a corrected sentence must not make finished runs stale.
    """
    return hashlib.sha256("\n\0\n".join(code(read(path))).encode()).hexdigest()[:16]


def code(notebook: nbformat.NotebookNode) -> list[str]:
    """The sources of its code cells, without the parameters cell and the cell that papermill inserts after it."""
    return [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code" and not {TAG, "injected-parameters"} & set(cell.metadata.get("tags", ()))
    ]


def is_older_code(stem: str, recorded_hash: str) -> bool:
    """Whether a run was made by other code than the notebook on its topic has now.

    Args:
        stem: the notebook of the run, under the number that it had then.
        recorded_hash: `source_hash` of the notebook then, from the run's record.

    Returns:
        False when the code is the same, or when there is no notebook on this topic to compare with.
    """
    paths_of_topic = [path for path in paths.notebooks_dir().glob("*.ipynb") if topic_of(path.stem) == topic_of(stem)]
    return bool(paths_of_topic) and recorded_hash not in map(source_hash, paths_of_topic)
