"""Parameters of a notebook: flat, typed, and checked before anything is computed."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from embedlab.errors import ParameterError
from embedlab.redaction import holds_key

Count = Annotated[int, Field(gt=0)]
CountOrNone = Annotated[int, Field(ge=0)]  # 0 means no cap
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # NumPy and scikit-learn take no other
Text = Annotated[str, StringConstraints(min_length=1)]

TEMPERATURE = 0.05  # of the softmax of every contrastive loss; sentence-transformers' `scale=20` is 1 / 0.05
INJECTED = "# Parameters"  # first line of the cell that papermill puts behind the parameters cell


class Params(BaseModel):
    """Base class of every notebook's parameters: frozen, no unknown names, strict types without conversion.

    A notebook sets its defaults in the cell tagged `parameters` and reads them in the next one:
    `params = SomeParams.resolve(globals())`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seed: Seed = 0
    output_dir: str = ""

    @classmethod
    def resolve(cls, namespace: Mapping[str, Any]) -> Self:
        """Read the parameters that a notebook has set.

        Args:
            namespace: the notebook's `globals()`.

        Raises:
            ParameterError: an injected name that the notebook does not have (papermill itself only warns), or an
                invalid value.
        """
        injected = _injected_names(namespace.get("In", ()))
        check_names(injected, cls.model_fields)
        return cls.checked({name: namespace[name] for name in cls.model_fields if name in namespace})

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """Create parameters from a mapping, with one clear error instead of pydantic's report."""
        check_names(values, cls.model_fields)
        check_no_keys(values)
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            problem = f"invalid value {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
            raise ParameterError(problem, remedy="Choose another value", field=name) from None

    def set_values(self) -> dict[str, Any]:
        """Return the values that the notebook set, ready for JSON; defaults that it does not mention are omitted."""
        return self.model_dump(mode="json", exclude_unset=True)


class TrainingParams(Params):
    """Parameters that all training notebooks have."""

    dataset: Text
    model_name: Text
    max_steps: CountOrNone = 0
    max_examples: CountOrNone = 0


def check_no_keys(values: Mapping[str, Any], file: Path | None = None) -> None:
    """Check that no parameter holds a key: records, tables and executed notebooks show parameters.

    Raises:
        ParameterError: a value holds a key; the message does not repeat it.
    """
    for name, value in values.items():
        texts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(text, str) and holds_key(text) for text in texts):
            problem = "the value holds a key or a password, and records keep parameters"
            remedy = "Put it into an environment variable such as OPENAI_API_KEY"
            raise ParameterError(problem, remedy=remedy, file=file, field=name)


def check_common(values: Mapping[str, Any], file: Path | None = None) -> None:
    """Check the ranges of the parameters that all training notebooks have, without loading a notebook's own class.

    Args:
        values: parameter -> value, of the right type; others are ignored.
        file: the file that the values come from, for the message.

    Raises:
        ParameterError: a value is out of range, such as a negative number of steps.
    """
    for name, value in values.items():
        if field := TrainingParams.model_fields.get(name):
            try:
                TypeAdapter(field.rebuild_annotation()).validate_python(value)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                problem = f"invalid value {value!r}: {reason[0].lower()}{reason[1:]}"
                raise ParameterError(problem, remedy="Choose another value", file=file, field=name) from None


def check_names(names: Iterable[str], allowed: Iterable[str]) -> None:
    """Check that all names are allowed.

    Raises:
        ParameterError: an unknown name; the message suggests the most similar allowed one.
    """
    allowed = list(allowed)
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, n=1)
            remedy = f"Did you mean {close[0]!r}?" if close else f"Choose one of {', '.join(allowed)}"
            raise ParameterError(f"there is no parameter {name!r}", remedy=remedy, field=name)


def _injected_names(history: Iterable[str]) -> list[str]:
    cells = [cell for cell in history if cell.startswith(INJECTED)]
    return [target.id for cell in cells for node in ast.parse(cell).body for target in _targets(node)]


def _targets(node: ast.stmt) -> list[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target for target in targets if isinstance(target, ast.Name)]
