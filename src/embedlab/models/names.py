"""Model names with options: `NAME?max_seq_length=512&query_prompt=query: `."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from embedlab.errors import ModelError

OPTIONS = ("max_seq_length", "query_prompt", "document_prompt")
EXAMPLE = "MODEL?max_seq_length=512&query_prompt=query: "


@dataclass(frozen=True)
class ModelName:
    """A model and the options written after its name.

    Attributes:
        name: the base model's short name, a folder, or a hub name.
        max_seq_length: tokens after which a text is truncated; the model's own limit if None.
        query_prompt, document_prompt: the name of a prompt saved with the model, or a text; the model's own if None.
    """

    name: str
    max_seq_length: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Split a name from its options; the name of an existing path is taken whole.

        >>> ModelName.parse("some/model?max_seq_length=512").max_seq_length
        512

        Args:
            text: `NAME`, or `NAME?option=value&option=value`. Special characters in a prompt are written as in a web
                address: `%0A` for a new line, `%26` for `&`.

        Raises:
            ModelError: an option is unknown or has an impossible value.
        """
        name, mark, options = text.partition("?")
        if not mark or Path(text).exists():
            return cls(text)
        # A plus stays a plus: it is common in prompts, and `%20` or a space says the same.
        values = dict(parse_qsl(options.replace("+", "%2B"), keep_blank_values=True))
        if unknown := [option for option in values if option not in OPTIONS] or ([""] if not values else []):
            problem = f"unknown option {unknown[0]!r} in {text!r}; the options are {', '.join(OPTIONS)}"
            raise ModelError(problem, remedy=f"Write {EXAMPLE!r}, for example", field="model_name")
        return cls(name, _length(values), values.get("query_prompt"), values.get("document_prompt"))


def _length(values: dict[str, str]) -> int | None:
    text = values.get("max_seq_length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 2):
        problem = f"max_seq_length must be a whole number of tokens, 3 or more, got {text!r}"
        raise ModelError(problem, remedy=f"Write {EXAMPLE!r}, for example", field="model_name")
    return int(text)
