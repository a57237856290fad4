"""Embeddings from any server with OpenAI's `POST /embeddings`: a company's, or your own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np

from embedlab import progress
from embedlab.errors import ModelError
from embedlab.http import KEY_VARIABLE, RefusedError, TransientError, post_json, with_retries

SCHEME = "openai:"
DEFAULT_URL = "https://api.openai.com/v1"
BATCH = 128  # texts per request; OpenAI takes up to 2,048, small servers far fewer
TIMEOUT_S = 60.0
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
        if not model or (url and not url.startswith(("http://", "https://"))):
            remedy = f"For example {SCHEME}text-embedding-3-small@{DEFAULT_URL}"
            raise ModelError(f"expected {SCHEME}MODEL@URL, got {spec!r}", remedy=remedy, field="model_name")
        return cls(model, (url or DEFAULT_URL).rstrip("/"))

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
        with httpx.Client(timeout=TIMEOUT_S) as client:
            vectors = [self._vectors(client, batch) for batch in progress.track(batches, stage)]
        if len(dimensions := {block.shape[1] for block in vectors}) > 1:
            raise self._error(f"returned vectors of different dimensions: {sorted(dimensions)}", "Check the server")
        return np.concatenate(vectors) if vectors else np.empty((0, 0), dtype=np.float32)

    def _vectors(self, client: httpx.Client, texts: list[str]) -> np.ndarray:
        try:
            rows = sorted(json.loads(self._post(client, texts))["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
        except (ValueError, TypeError, KeyError) as error:
            raise self._error(f"returned no embeddings ({error!r:.100})", "Check the URL") from None
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise self._error(f"returned an array {vectors.shape} for {len(texts)} texts", "Check the server")
        if not np.isfinite(vectors).all():
            raise self._error("returned NaN or infinite values", "Check the server")
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)

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
