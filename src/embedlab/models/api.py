"""Embeddings from any server that speaks OpenAI's `POST /embeddings`, whether a company's or one's own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np

from embedlab import progress
from embedlab.errors import ModelError

SCHEME = "openai:"
DEFAULT_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
BATCH = 128  # texts per request; OpenAI takes up to 2,048, small servers far fewer
TIMEOUT_S = 60.0
LONGEST_WAIT_S = 60.0
TRANSIENT = frozenset({408, 409, 429, 500, 502, 503, 504})  # statuses that another attempt may mend


@dataclass(frozen=True)
class Endpoint:
    """One model of one server.

    Attributes:
        model: the model's name there.
        url: up to and without `/embeddings`.
        attempts: requests made for a batch before giving up.
        batch: texts per request.
        sleep: waits between attempts; tests put a list's append here.
    """

    model: str
    url: str = DEFAULT_URL
    attempts: int = 5
    batch: int = BATCH
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    @classmethod
    def parse(cls, spec: str) -> Endpoint:
        """`openai:MODEL` or `openai:MODEL@URL`.

        Raises:
            ModelError: no model is named, or the URL is none.
        """
        model, _, url = spec.removeprefix(SCHEME).partition("@")
        if not model or (url and not url.startswith(("http://", "https://"))):
            remedy = f"Write {SCHEME}MODEL@URL, e.g. {SCHEME}text-embedding-3-small@{DEFAULT_URL}"
            raise ModelError(f"{spec!r} names no embeddings endpoint", remedy=remedy, field="model_name")
        return cls(model, (url or DEFAULT_URL).rstrip("/"))

    def encode(self, texts: Sequence[str], *, stage: str = "encode", prompt: str | None = None) -> np.ndarray:
        """Unit vectors (len(texts), d) in the order of `texts`; float32.

        A text without any word is sent as one space, since servers refuse empty ones.

        Raises:
            ModelError: the server refuses, stays unreachable, or answers with something else than such vectors.
        """
        prompted = [((prompt or "") + text).strip() or " " for text in texts]
        batches = [prompted[start : start + self.batch] for start in range(0, len(prompted), self.batch)]
        with httpx.Client(headers=_authorization(), timeout=TIMEOUT_S) as client:
            vectors = [self._vectors(client, batch) for batch in progress.track(batches, stage)]
        if len({part.shape[1] for part in vectors}) > 1:
            raise self._error("vectors of different lengths came back", "Check the server")
        return np.concatenate(vectors) if vectors else np.empty((0, 0), dtype=np.float32)

    def _vectors(self, client: httpx.Client, texts: list[str]) -> np.ndarray:
        try:
            rows = sorted(self._answer(client, texts).json()["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
        except (ValueError, TypeError, KeyError) as error:
            raise self._error(f"the answer holds no embeddings ({error!r:.100})", "Check the URL") from None
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            problem = f"{len(texts)} texts were sent and an array {vectors.shape} came back, or numbers are missing"
            raise self._error(problem, "Check the server")
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)

    def _answer(self, client: httpx.Client, texts: list[str]) -> httpx.Response:
        """The server's answer; after a transient fault it is asked again, each time after twice the wait."""
        body = {"model": self.model, "input": texts, "encoding_format": "float"}
        for attempt in range(1, self.attempts + 1):
            try:
                response = client.post(f"{self.url}/embeddings", json=body)
            except httpx.TransportError as error:
                problem, wait = f"it cannot be reached ({error or type(error).__name__})", 2.0**attempt / 2
            else:
                if response.is_success:
                    return response
                problem = f"it answers {response.status_code} ({_first_line(response.text)})"
                if response.status_code not in TRANSIENT:
                    raise self._error(problem, _remedy(response.status_code))
                wait = _wait_asked_for(response) or 2.0**attempt / 2
            if attempt < self.attempts:
                self.sleep(min(wait, LONGEST_WAIT_S))
        raise self._error(f"after {self.attempts} attempts {problem}", "Try later, or check the URL")

    def _error(self, problem: str, remedy: str) -> ModelError:
        return ModelError(f"{self.model} at {self.url}: {problem}", remedy=remedy, field="model_name")


def _authorization() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE)
    return {"Authorization": f"Bearer {key}"} if key else {}


def _wait_asked_for(response: httpx.Response) -> float | None:
    """Seconds in the `Retry-After` header; None when it is absent or a date."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else None


def _remedy(status: int) -> str:
    remedies = {401: f"Set {KEY_VARIABLE}", 403: f"Set {KEY_VARIABLE} to a key that may use it"}
    return remedies.get(status, "Check the model's name and the URL, which ends before /embeddings")


def _first_line(text: str) -> str:
    return " ".join(text.split())[:160] or "no text"
