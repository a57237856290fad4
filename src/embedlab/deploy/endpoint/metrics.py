"""Counters of a server for Prometheus: requests, texts, tokens, batches, times and memory, and no text."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Metrics:
    """The counters of one server.

    Args:
        model: its name.
        space: fingerprint of its vector space.
        waiting: returns how many texts wait.
    """

    def __init__(self, model: str, space: str, waiting: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        names = ("embedlab_model", "The served model and the fingerprint of its vector space")
        Gauge(*names, ["model", "space"], registry=registry).labels(model, space).set(1)
        labels = ["path", "status"]
        self._requests = Counter("embedlab_requests", "Requests by path and status", labels, registry=registry)
        self._seconds = Histogram(
            "embedlab_request_seconds", "Time of a request", ["path"], buckets=_SECONDS, registry=registry
        )
        self._texts = Counter("embedlab_texts", "Texts that were encoded", ["role"], registry=registry)
        self._tokens = Counter("embedlab_tokens", "Tokens that were encoded", registry=registry)
        self._truncated = Counter("embedlab_truncated_texts", "Texts longer than the limit", registry=registry)
        self._batch_texts = Histogram("embedlab_batch_texts", "Texts of a batch", buckets=_SIZES, registry=registry)
        self._batch_tokens = Histogram("embedlab_batch_tokens", "Tokens of a batch", buckets=_SIZES, registry=registry)
        self._batch_seconds = Histogram(
            "embedlab_batch_seconds", "Time of a batch", buckets=_SECONDS, registry=registry
        )
        Gauge("embedlab_waiting_texts", "Texts without a vector", registry=registry).set_function(waiting)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def texts(self, role: str, count: int, truncated: int) -> None:
        """Count the texts of an answer."""
        self._texts.labels(role).inc(count)
        self._truncated.inc(truncated)

    def batch(self, texts: int, tokens: int, seconds: float) -> None:
        """Count a batch."""
        self._tokens.inc(tokens)
        self._batch_texts.observe(texts)
        self._batch_tokens.observe(tokens)
        self._batch_seconds.observe(seconds)

    def page(self) -> bytes:
        """Return all counters in the text format of Prometheus."""
        return generate_latest(self._registry)
