"""Values that a person typed: unknown names and wrong values give one clear error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from embedlab.errors import ParameterError
from embedlab.redaction import holds_key


class Checked(BaseModel):
    """A group of values: frozen, no unknown names, strict types without conversion.

    Attributes:
        GROUP: put before the names in errors, such as "engine" for `engine.precision`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    GROUP: ClassVar[str] = ""

    @classmethod
    def checked(cls, values: Mapping[str, Any], file: Path | None = None) -> Self:
        """Create the group from a mapping, with one clear error instead of pydantic's report.

        Args:
            values: name -> value; names that are left out keep their defaults.
            file: the file that the values come from, for the message.

        Raises:
            ParameterError: an unknown name, a value of another type or out of range, or a key.
        """
        check_names(values, cls.model_fields, file, cls.GROUP)
        check_no_keys({cls.full_name(name): value for name, value in values.items()}, file)
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = cls.full_name(".".join(map(str, first["loc"])))
            problem = f"invalid value {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
            raise ParameterError(problem, remedy="Choose another value", file=file, field=name) from None

    @classmethod
    def full_name(cls, name: str) -> str:
        """Return a name as it is written on the command line: `precision` is `engine.precision`."""
        return f"{cls.GROUP}.{name}" if cls.GROUP else name


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


def check_names(names: Iterable[str], allowed: Iterable[str], file: Path | None = None, group: str = "") -> None:
    """Check that all names are allowed.

    Args:
        names: what a person wrote.
        allowed: the names that there are.
        file: the file that the names come from, for the message.
        group: of the names, such as "engine" for `engine.precision`.

    Raises:
        ParameterError: an unknown name; the message suggests the most similar allowed one.
    """
    allowed, prefix = list(allowed), f"{group}." if group else ""
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(str(name), allowed, n=1)
            remedy = f"Did you mean {prefix + close[0]!r}?" if close else f"Choose one of {', '.join(allowed)}"
            problem = f"there is no parameter {f'{prefix}{name}'!r}"
            raise ParameterError(problem, remedy=remedy, file=file, field=f"{prefix}{name}")
