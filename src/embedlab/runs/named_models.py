"""Check the models that parameters name before any run starts, without loading them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embedlab.errors import ModelError, ParameterError
from embedlab.models.api import ApiModel, is_api_name
from embedlab.models.folder import ModelFolder
from embedlab.models.load import model_path
from embedlab.models.names import ModelName
from embedlab.runs.inputs import absolute
from embedlab.runs.notebooks import Parameter
from embedlab.runs.run_id import RunId

MODELS = (
    "model_name", "tuned_model", "other_models", "against", "teacher", "reranker", "local_base", "replacement"
)  # fmt: skip
HUB_NAME = re.compile(r"\w[\w.-]*(?:/[\w.-]+)?")  # everything else is a path


class NamedModels:
    """Checks of parameter values against the models that they name.

    Args:
        parameters: of the notebook, for defaults.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._defaults = {parameter.name: parameter.default for parameter in parameters}
        self._dimensions: dict[str, int | None] = {}

    def check(self, values: Mapping[str, Any], file: Path | None = None) -> None:
        """Check that model folders exist, and that no Matryoshka dimension exceeds the model's.

        Args:
            values: parameter -> value.
            file: the file that the values come from, for the message.

        Raises:
            ParameterError: a folder does not exist, or a dimension is too large.
        """
        for name in MODELS:
            value = values.get(name, "")
            for text in value if isinstance(value, list) else [value]:
                _require_folder(name, text, file)
        if "matryoshka_dims" in values:
            self._check_dimensions(values, file)

    def _check_dimensions(self, values: Mapping[str, Any], file: Path | None) -> None:
        name = values.get("model_name", self._defaults["model_name"])
        if name not in self._dimensions:
            self._dimensions[name] = _dimension(name)
        full, dims = self._dimensions[name], values["matryoshka_dims"]
        if wrong := [dim for dim in dims if dim < 1 or (full is not None and dim > full)]:
            problem = f"{name} has {full or 'more than 0'} dimensions, got {wrong[0]}"
            remedy = f"Choose values from 1 to {full}" if full else "Choose values of at least 1"
            raise ParameterError(problem, remedy=remedy, file=file, field="matryoshka_dims")


def _require_folder(parameter: str, text: str, file: Path | None) -> None:
    """Check a path, but not one to a run: an earlier stage may write it, see `planning.require_inputs`."""
    try:
        if is_api_name(text):
            ApiModel.parse(text)
            return
        name = ModelName.parse(text).name
    except ModelError as error:
        raise ParameterError(error.problem, remedy=error.remedy, file=file, field=parameter) from None
    is_path = bool(name) and ":" not in name and not HUB_NAME.fullmatch(name) and not RunId.find_all(name)
    try:
        missing = is_path and not absolute(name).exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL character, no home folder
        missing = True
    if missing:
        remedy = "Check the path; relative ones start at the project folder"
        raise ParameterError(f"there is no model folder {name[:200]!r}", remedy=remedy, file=file, field=parameter)


def _dimension(text: str) -> int | None:
    """Read a model's embedding dimension from its files; None if they are not here or do not say it."""
    if is_api_name(text):
        return ApiModel.parse(text).endpoint.dimensions
    name = ModelName.parse(text).name
    try:
        path = Path(model_path(name))
        return ModelFolder(path if path.is_absolute() else absolute(name), name).dimension()
    except (OSError, ValueError, RuntimeError, ImportError, ModelError):
        return None  # the run itself names what is wrong with the files
