"""Send texts to an embeddings API, and check what comes back: retries, rate limits, batches, money."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from embedlab import progress
from embedlab.errors import ModelError
from embedlab.http import RefusedError, TransientError, new_client, parse_json, post_json, with_retries
from embedlab.models.providers import OPENAI, Provider
from embedlab.models.spending import Pace, Price, estimated_tokens
from embedlab.models.vector_file import Keep

TIMEOUT_S = 60.0
_paces: dict[tuple[object, ...], Pace] = {}  # one per server, model and limits in this process


@dataclass(frozen=True)
class Endpoint:
    """One embedding model on one server.

    Attributes:
        model: the model's name on the server.
        url: address without the provider's path, such as `/embeddings`.
        provider: the server's protocol.
        dimensions: of the vectors, if the model can shorten them; None for its own.
        input_type: what the request says about the texts; None says nothing.
        attempts: attempts per request, including the first.
        batch: texts per request.
        price: what tokens cost, and the budget.
        requests_per_minute, tokens_per_minute: the server's rate limits; None for no limit.
        sleep: how to wait between attempts; tests replace it.
    """

    model: str
    url: str = OPENAI.url
    provider: Provider = field(default=OPENAI, repr=False)
    dimensions: int | None = None
    input_type: str | None = None
    attempts: int = 5
    batch: int | None = None
    price: Price = field(default_factory=Price)
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def encode(
        self,
        texts: Sequence[str],
        *,
        stage: str = "encode",
        prompt: str | None = None,
        keep: Keep | None = None,
    ) -> np.ndarray:
        """Encode texts to unit vectors.

        Args:
            texts: the texts to encode. A text without words is sent as one space, since servers reject empty texts.
            stage: label in the progress report.
            prompt: prepended to every text.
            keep: called after every request with row numbers and their vectors, e.g. to store them.

        Returns:
            float32 (len(texts), d), rows of unit length, in the order of `texts`.

        Raises:
            ModelError: the server rejects the request, cannot be reached, or does not answer with such vectors; or the
                budget does not pay for the texts.
        """
        sent = [sent_text(text, prompt) for text in texts]
        self.price.require(estimated_tokens(sent), f"{len(sent):,} texts for {self.model}")
        blocks: list[np.ndarray] = []
        with new_client(TIMEOUT_S) as client, progress.counted(stage, len(sent)) as advance:
            for rows in self._batches(sent):
                block = self._vectors(client, [sent[row] for row in rows])
                if blocks and block.shape[1] != blocks[0].shape[1]:
                    dimensions = sorted({block.shape[1], blocks[0].shape[1]})
                    raise self.error(f"returned vectors of different dimensions: {dimensions}", "Check the server")
                blocks.append(block)
                if keep:
                    keep(rows, block)
                advance(len(rows))
        return np.concatenate(blocks) if blocks else np.empty((0, 0), dtype=np.float32)

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield row numbers, in order, in batches that are within both limits of a request."""
        rows: list[int] = []
        tokens = 0
        for row, text in enumerate(texts):
            more = estimated_tokens([text])
            if rows and (len(rows) == (self.batch or self.provider.max_texts) or tokens + more > self._max_tokens):
                yield rows
                rows, tokens = [], 0
            rows.append(row)
            tokens += more
        if rows:
            yield rows

    @property
    def _max_tokens(self) -> float:
        return min(self.provider.max_tokens, self.tokens_per_minute or math.inf)

    def _vectors(self, client: httpx.Client, texts: list[str]) -> np.ndarray:
        try:
            answer = parse_json(self._post(client, texts))
            vectors = self.provider.read(answer, len(texts))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise self.error(f"returned no embeddings ({_reason(error)})", "Check the URL and the server") from None
        if self.dimensions and vectors.shape[1] != self.dimensions:
            problem = f"returned {vectors.shape[1]} dimensions instead of {self.dimensions}"
            raise self.error(problem, "Leave out dimensions=…, or use a model that can shorten its vectors")
        if (counted := self.provider.tokens(answer, texts)) is not None:
            self.price.count(counted - estimated_tokens(texts))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _post(self, client: httpx.Client, texts: list[str]) -> bytes:
        url = self.url + self.provider.path
        body = self.provider.body(self.model, texts, self.dimensions, self.input_type)
        tokens, pace = estimated_tokens(texts), self._pace()

        def post() -> bytes:
            self.price.require(tokens, f"{len(texts):,} texts for {self.model}")
            pace.wait(tokens)
            self.price.count(tokens)  # also if no answer comes: the server may have read the texts
            try:
                content = post_json(client, url, body, key_variable=self.provider.key_variable)
            except (TransientError, RefusedError) as error:
                if error.status and error.status >= 300:  # an answer without vectors is not billed
                    self.price.count(-tokens)
                raise
            self.price.count(0, texts=len(texts), requests=1)
            return content

        try:
            return with_retries(post, attempts=self.attempts, sleep=self.sleep, name=self.model)
        except TransientError as error:
            problem = f"failed {self.attempts} times ({error})"
            remedy = "Check that the server runs and that the URL is right, or try later"
            if error.status is None and len(texts) > 1:
                remedy += f". A slow server needs fewer than {len(texts)} texts per request: add batch=8 to the name"
            raise self.error(problem, remedy) from None
        except RefusedError as error:
            default = f"Check the model's name and the URL, which ends before {self.provider.path}"
            raise self.error(f"rejects the request ({error})", self._remedies().get(error.status, default)) from None

    def request(self) -> dict[str, Any]:
        """Return what a request consists of, for clients without this package. The key is not in it."""
        provider = self.provider
        return {
            "address": self.url + provider.path,
            "key_variable": provider.key_variable,
            "texts": provider.texts,
            "body": {k: v for k, v in provider.body(self.model, [], self.dimensions, None).items() if v != []},
            "max_texts": self.batch or provider.max_texts,
            "rows": provider.rows,
        }

    def _remedies(self) -> dict[int | None, str]:
        key = self.provider.key_variable
        return {401: f"Set {key}", 403: f"Set {key} to a key with access to this model"}

    def _pace(self) -> Pace:
        limits = (self.requests_per_minute, self.tokens_per_minute)
        if limits == (None, None):
            return Pace()
        return _paces.setdefault((self.url, self.model, *limits), Pace(*limits, sleep=self.sleep))

    def error(self, problem: str, remedy: str) -> ModelError:
        """Return an error about this model."""
        return ModelError(f"{self.model} at {self.url} {problem}", remedy=remedy, field="model_name")


def sent_text(text: str, prompt: str | None = None) -> str:
    """Return a text as it is sent: with its prompt, and one space if it has no words, since servers reject that."""
    return ((prompt or "") + text).strip() or " "


def _reason(error: Exception) -> str:
    return str(error)[:100] if type(error) is ValueError else f"{error!r:.100}"
