"""Parameters of a notebook: flat, typed, and checked before anything is computed."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from embedlab.checked import Checked, check_names
from embedlab.engine import Engine, EngineParams
from embedlab.errors import ParameterError

Count = Annotated[int, Field(gt=0)]
CountOrNone = Annotated[int, Field(ge=0)]  # 0 means no cap
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
ShareOrNone = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # NumPy and scikit-learn take no other
Text = Annotated[str, StringConstraints(min_length=1)]

TEMPERATURE = 0.05  # of the softmax of every contrastive loss; sentence-transformers' `scale=20` is 1 / 0.05
INJECTED = "# Parameters"  # first line of the cell that papermill puts behind the parameters cell


class Params(Checked):
    """Base class of every notebook's parameters: frozen, no unknown names, strict types without conversion.

    A notebook sets its defaults in the cell tagged `parameters` and reads them in the next one:
    `params = SomeParams.resolve(globals())`.
    """

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

    def set_values(self) -> dict[str, Any]:
        """Return the values that the notebook set, ready for JSON; defaults that it does not mention are omitted."""
        return self._with_changes_only(self.model_dump(mode="json", exclude_unset=True))

    def all_values(self) -> dict[str, Any]:
        """Return all values, ready for JSON; of a group, those that differ from their defaults."""
        return self._with_changes_only(self.model_dump(mode="json"))

    def _with_changes_only(self, values: dict[str, Any]) -> dict[str, Any]:
        groups = {name: value for name in values if isinstance(value := getattr(self, name), EngineParams)}
        return values | {name: group.changes() for name, group in groups.items()}


class TrainingParams(Params):
    """Parameters that all training notebooks have."""

    dataset: Text
    model_name: Text
    max_steps: CountOrNone = 0
    max_examples: CountOrNone = 0
    engine: Engine = EngineParams()


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


def _injected_names(history: Iterable[str]) -> list[str]:
    cells = [cell for cell in history if cell.startswith(INJECTED)]
    return [target.id for cell in cells for node in ast.parse(cell).body for target in _targets(node)]


def _targets(node: ast.stmt) -> list[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target for target in targets if isinstance(target, ast.Name)]
