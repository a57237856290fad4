"""Embeddings from any server with OpenAI's `POST /embeddings`: a company's, or your own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from embedlab import progress
from embedlab.errors import ModelError, ParameterError
from embedlab.http import (
    KEY_VARIABLE,
    RefusedError,
    TransientError,
    checked_url,
    new_client,
    parse_json,
    post_json,
    with_retries,
)

SCHEME = "openai:"
DEFAULT_URL = "https://api.openai.com/v1"
BATCH = 128  # texts per request; OpenAI takes up to 2,048, small servers far fewer
TIMEOUT_S = 60.0
MAX_NORM = 1e15  # of a vector; float32 cannot hold the square of a larger one
STATUS_REMEDIES: dict[int | None, str] = {
    401: f"Set {KEY_VARIABLE}",
    403: f"Set {KEY_VARIABLE} to a key with access to this model",
}


@dataclass(frozen=True)
class Endpoint:
    """One embedding model on one server.

    Attributes:
        model: the model's name on the server.
        url: address without the final `/embeddings`.
        attempts: attempts per batch, including the first.
        batch: texts per request.
        sleep: how to wait between attempts; tests replace it.
    """

    model: str
    url: str = DEFAULT_URL
    attempts: int = 5
    batch: int = BATCH
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    @classmethod
    def parse(cls, spec: str) -> Endpoint:
        """Create an endpoint from `openai:MODEL` or `openai:MODEL@URL`.

        Raises:
            ModelError: the model name is missing or the URL is not a web address.
        """
        model, _, url = spec.removeprefix(SCHEME).partition("@")
        try:
            address = checked_url(url or DEFAULT_URL, "model_name")
        except ParameterError as error:
            problem = f"expected {SCHEME}MODEL@URL: {error.problem}"
            raise ModelError(problem, remedy=error.remedy, field="model_name") from None
        if not model:
            remedy = f"For example {SCHEME}text-embedding-3-small@{DEFAULT_URL}"
            raise ModelError(f"expected {SCHEME}MODEL@URL, got {spec!r}", remedy=remedy, field="model_name")
        return cls(model, address)

    def encode(self, texts: Sequence[str], *, stage: str = "encode", prompt: str | None = None) -> np.ndarray:
        """Encode texts to unit vectors.

        Args:
            texts: the texts to encode. A text without words is sent as one space, since servers reject empty texts.
            stage: label in the progress report.
            prompt: prepended to every text.

        Returns:
            float32 (len(texts), d), rows of unit length, in the order of `texts`.

        Raises:
            ModelError: the server rejects the request, cannot be reached, or does not answer with such vectors.
        """
        prompted = [((prompt or "") + text).strip() or " " for text in texts]
        batches = [prompted[start : start + self.batch] for start in range(0, len(prompted), self.batch)]
        with new_client(TIMEOUT_S) as client:
            vectors = [self._vectors(client, batch) for batch in progress.track(batches, stage)]
        if len(dimensions := {block.shape[1] for block in vectors}) > 1:
            raise self._error(f"returned vectors of different dimensions: {sorted(dimensions)}", "Check the server")
        return np.concatenate(vectors) if vectors else np.empty((0, 0), dtype=np.float32)

    def _vectors(self, client: httpx.Client, texts: list[str]) -> np.ndarray:
        try:
            vectors = in_order(parse_json(self._post(client, texts))["data"], len(texts))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise self._error(f"returned no embeddings ({_reason(error)})", "Check the URL and the server") from None
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _post(self, client: httpx.Client, texts: list[str]) -> bytes:
        url, body = f"{self.url}/embeddings", {"model": self.model, "input": texts, "encoding_format": "float"}
        try:
            return with_retries(
                lambda: post_json(client, url, body), attempts=self.attempts, sleep=self.sleep, name=self.model
            )
        except TransientError as error:
            problem = f"failed {self.attempts} times ({error})"
            raise self._error(problem, "Check that the server runs and that the URL is right, or try later") from None
        except RefusedError as error:
            default = "Check the model's name and the URL, which ends before /embeddings"
            raise self._error(f"rejects the request ({error})", STATUS_REMEDIES.get(error.status, default)) from None

    def _error(self, problem: str, remedy: str) -> ModelError:
        return ModelError(f"{self.model} at {self.url} {problem}", remedy=remedy, field="model_name")


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
    lengths = {len(values) if isinstance(values, list) else 0 for values in by_index.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"the vectors have {sorted(lengths)} numbers")
    if any(type(number) not in (int, float) for values in by_index.values() for number in values):
        raise ValueError("a vector holds something else than numbers")
    with np.errstate(over="ignore"):
        vectors = np.array([by_index[index] for index in range(count)], dtype=np.float32)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not (np.isfinite(norms).all() and (norms > np.finfo(np.float32).tiny).all() and (norms < MAX_NORM).all()):
        raise ValueError("a vector is NaN, infinite, or all zeros")
    return vectors


def _reason(error: Exception) -> str:
    return str(error)[:100] if type(error) is ValueError else f"{error!r:.100}"
