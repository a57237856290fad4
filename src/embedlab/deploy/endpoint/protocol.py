"""Requests and answers of the two protocols: OpenAI's embeddings, and `/embed` of text-embeddings-inference."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json

from embedlab.deploy.endpoint.problems import Problem

SPACE_HEADER = "Embedlab-Space"
TRUNCATED_HEADER = "Embedlab-Truncated"

Request = TypeVar("Request", bound=BaseModel)
Texts = list[str] | list[list[int]]


class EmbeddingsRequest(BaseModel):
    """`POST /v1/embeddings`: OpenAI's fields, and `input_type`, `prompt_name`, `truncate` and `space` of this server.

    Attributes:
        input: a text, a list of texts, token ids of this model, or a list of those.
        model: name of the model; another name than the served one is an error.
        encoding_format: "float", or "base64" for little-endian float32.
        dimensions: keep the first dimensions and normalize again.
        user: accepted and ignored.
        input_type: "query", "document" or "text".
        prompt_name: name of a prompt that is saved with the model, instead of `input_type`.
        truncate: False raises an error for texts that are longer than the model's limit.
        space: fingerprint of the vector space that the client expects; the header `Embedlab-Space` does the same.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    input: Any
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None
    input_type: str | None = None
    prompt_name: str | None = None
    truncate: bool | None = True
    space: str | None = None


class EmbedRequest(BaseModel):
    """`POST /embed`: the fields of text-embeddings-inference, and `input_type`.

    Attributes:
        inputs: a text, a list of texts, token ids of this model, or a list of those.
        prompt_name: name of a prompt that is saved with the model.
        input_type: "query", "document" or "text", instead of `prompt_name`.
        normalize: scale the vectors to unit length.
        truncate: read the beginning of texts that are longer than the model's limit; False raises an error.
        truncation_direction: only the end can be left out.
        dimensions: keep the first dimensions.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    inputs: Any
    prompt_name: str | None = None
    input_type: str | None = None
    normalize: bool | None = True
    truncate: bool | None = False
    truncation_direction: Literal["right", "Right"] | None = None
    dimensions: int | None = None


def parse(kind: type[Request], body: bytes) -> Request:
    """Read the JSON body of a request.

    Raises:
        Problem: it is not JSON, or has unknown, missing or impossible fields.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = ".".join(map(str, first["loc"]))[:50]
    if first["type"] == "extra_forbidden":
        message = f"There is no field {name!r}. The fields are {', '.join(kind.model_fields)}."
    else:
        message = f"{name or 'The body'}: {first['msg']}."
    raise Problem(400, message, param=name or None)


def texts_of(value: Any, field: str, max_texts: int) -> Texts:
    """Return the texts, or lists of token ids, of a request.

    Args:
        value: what the client sent.
        field: its name.
        max_texts: the most that one request may have.

    Raises:
        Problem: there are none or too many, one of them is empty, or they are something else.
    """
    items = [value] if isinstance(value, str) else value
    if isinstance(items, list) and items and all(type(item) is int for item in items):
        items = [items]
    of_text = isinstance(items, list) and all(isinstance(item, str) for item in items)
    if not (of_text or (isinstance(items, list) and all(_is_ids(item) for item in items))):
        message = f"{field} must be a text, a list of texts, a list of token ids, or a list of lists of token ids."
        raise Problem(400, message, param=field)
    if not items:
        raise Problem(400, f"{field} is empty.", param=field)
    if len(items) > max_texts:
        message = f"{field} has {len(items)} texts, and {max_texts} are allowed. Send several requests."
        raise Problem(413, message, param=field, code="too_many_texts")
    check_not_empty(items, field)
    return items


def check_not_empty(items: Sequence[Any], field: str) -> None:
    """Check that no text is empty.

    Raises:
        Problem: one is; the message says which.
    """
    if (empty := next((number for number, item in enumerate(items) if not item), None)) is not None:
        raise Problem(400, f"{field}[{empty}] is an empty text.", param=field)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int for number in value)


def prefix(vectors: np.ndarray, dimensions: int | None, *, normalize: bool) -> np.ndarray:
    """Keep the first dimensions of vectors (Matryoshka truncation).

    Args:
        vectors: float32 (N, d).
        dimensions: how many; None for all.
        normalize: scale the result to unit length.

    Returns:
        float32 (N, dimensions).
    """
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    first = vectors[:, :dimensions]
    if not normalize:
        return first
    lengths = np.linalg.norm(first, axis=1, keepdims=True)
    return first / np.where(lengths > 0, lengths, 1)


def embeddings_answer(vectors: np.ndarray, encoding_format: str, tokens: int, facts: dict[str, Any]) -> bytes:
    """Return the body of an answer to `POST /v1/embeddings`.

    Args:
        vectors: float32 (N, d).
        encoding_format: "float" or "base64".
        tokens: that the model has read.
        facts: fields that OpenAI does not have, and the model's name.
    """
    if encoding_format == "base64":
        embeddings: list[Any] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        embeddings = vectors.tolist()
    data = [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(embeddings)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return to_json({"object": "list", "data": data, **facts, "usage": usage})
