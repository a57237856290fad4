"""The protocols of embedding APIs: OpenAI (and every server that copies it), Cohere, Voyage.

A protocol says where a request goes, what it holds, and what can be believed of the answer. `endpoint.Endpoint`
sends it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from embedlab.http import KEY_VARIABLE

MAX_NORM = 1e15  # of a vector; float32 cannot hold the square of a larger one
TOKENS_BESIDES_TEXT = 32  # per text, that a server may count: special tokens, or a prompt for the input type


class InputTypes(NamedTuple):
    """What a request says about its texts; None says nothing."""

    query: str | None
    document: str | None


@dataclass(frozen=True)
class Provider:
    """The protocol of one kind of API.

    Attributes:
        scheme: start of a model's name, with the colon.
        url: address of the company's own server.
        path: of the request, after the address.
        key_variable: environment variable of the API key.
        texts: name of the field that holds the texts.
        dimensions: name of the field that holds the number of dimensions.
        more: fields that every request holds.
        input_types: what queries and documents are called.
        max_texts: texts per request.
        max_tokens: estimated tokens per request, below the server's limit, since the estimate may be too low.
        rows: where the answer holds the vectors: names from the outside to the inside.
        check: takes these rows and the number of texts; returns float32 vectors (n, d).
        usage: takes the parsed answer; returns what it says about the tokens.
    """

    scheme: str
    url: str
    path: str
    key_variable: str
    texts: str
    dimensions: str
    more: dict[str, Any]
    input_types: InputTypes
    max_texts: int
    max_tokens: int
    rows: tuple[str, ...]
    check: Callable[[Any, int], np.ndarray]
    usage: Callable[[Any], Any]

    def body(self, model: str, texts: list[str], dimensions: int | None, input_type: str | None) -> dict[str, Any]:
        """Return the JSON of a request for the vectors of `texts`."""
        body = {"model": model, self.texts: texts, **self.more}
        if dimensions is not None:
            body[self.dimensions] = dimensions
        if input_type is not None:
            body["input_type"] = input_type
        return body

    def read(self, answer: Any, count: int) -> np.ndarray:
        """Return the vectors of a parsed answer, float32 (count, d).

        Raises:
            KeyError, TypeError, ValueError: the answer does not hold `count` vectors.
        """
        for name in self.rows:
            answer = answer[name]
        return self.check(answer, count)

    def tokens(self, answer: Any, texts: list[str]) -> int | None:
        """Return the tokens that the server says it has read; None if it says nothing, or what cannot be."""
        try:
            count = self.usage(answer)
        except (KeyError, TypeError, IndexError):
            return None
        # A token is at least one byte of the text, whatever the tokenizer.
        most = sum(len(text.encode()) + TOKENS_BESIDES_TEXT for text in texts)
        return int(count) if type(count) in (int, float) and 0 < count <= most else None


def in_order(rows: list[dict[str, Any]], count: int) -> np.ndarray:
    """Return the vectors of an answer in the order of the texts, after checks of what a server can get wrong.

    Args:
        rows: `{"index": place of the text, "embedding": numbers}` per text, in any order.
        count: number of texts.

    Returns:
        float32 (count, d), finite, no row of zeros.

    Raises:
        ValueError: a place is missing or there twice, a vector has other numbers than the rest, or is not a direction.
    """
    if not isinstance(rows, list) or len(rows) != count:
        raise ValueError(f"{len(rows) if isinstance(rows, list) else 'no'} vectors for {count} texts")
    by_index = {row["index"]: row["embedding"] for row in rows if type(row["index"]) is int}
    if by_index.keys() != set(range(count)):
        raise ValueError(f"the indices are not 0 to {count - 1}, each once")
    return checked([by_index[index] for index in range(count)], count)


def checked(rows: list[list[float]], count: int) -> np.ndarray:
    """Return vectors that came in the order of the texts, after the same checks.

    Args:
        rows: the numbers of each vector.
        count: number of texts.

    Returns:
        float32 (count, d), finite, no row of zeros.

    Raises:
        ValueError: there are more or fewer vectors than texts, or one of them is not a direction like the rest.
    """
    if not isinstance(rows, list) or len(rows) != count:
        raise ValueError(f"{len(rows) if isinstance(rows, list) else 'no'} vectors for {count} texts")
    lengths = {len(values) if isinstance(values, list) else 0 for values in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"the vectors have {sorted(lengths)} numbers")
    if any(type(number) not in (int, float) for values in rows for number in values):
        raise ValueError("a vector holds something else than numbers")
    with np.errstate(over="ignore"):
        vectors = np.array(rows, dtype=np.float32)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not (np.isfinite(norms).all() and (norms > np.finfo(np.float32).tiny).all() and (norms < MAX_NORM).all()):
        raise ValueError("a vector is NaN, infinite, or all zeros")
    return vectors


OPENAI = Provider(
    scheme="openai:",
    url="https://api.openai.com/v1",
    path="/embeddings",
    key_variable=KEY_VARIABLE,
    texts="input",
    dimensions="dimensions",
    more={"encoding_format": "float"},
    input_types=InputTypes(None, None),
    max_texts=128,  # OpenAI takes up to 2,048, small servers far fewer
    max_tokens=100_000,  # OpenAI takes up to 300,000
    rows=("data",),
    check=in_order,
    usage=lambda answer: answer["usage"]["total_tokens"],
)
COHERE = Provider(
    scheme="cohere:",
    url="https://api.cohere.com/v2",
    path="/embed",
    key_variable="CO_API_KEY",
    texts="texts",
    dimensions="output_dimension",
    more={"embedding_types": ["float"], "truncate": "END"},
    input_types=InputTypes("search_query", "search_document"),
    max_texts=96,
    max_tokens=100_000,
    rows=("embeddings", "float"),
    check=checked,
    usage=lambda answer: answer["meta"]["billed_units"]["input_tokens"],
)
VOYAGE = Provider(
    scheme="voyage:",
    url="https://api.voyageai.com/v1",
    path="/embeddings",
    key_variable="VOYAGE_API_KEY",
    texts="input",
    dimensions="output_dimension",
    more={"truncation": True},
    input_types=InputTypes("query", "document"),
    max_texts=128,  # Voyage takes up to 1,000
    max_tokens=60_000,  # Voyage takes 120,000 for its largest models
    rows=("data",),
    check=in_order,
    usage=lambda answer: answer["usage"]["total_tokens"],
)
PROVIDERS = {provider.scheme: provider for provider in (OPENAI, COHERE, VOYAGE)}
