"""Dynamic batching: texts of all requests that wait at the same moment are encoded together.

Nothing waits for a batch to fill up. While one batch is encoded, new requests arrive, and all of them form the next
batch. A batch has a budget of tokens, and requests share it: the texts of a long request are spread over many batches,
so that a short request behind it does not wait for all of them.

One thread does all work with the model. The event loop only adds jobs and takes results.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from embedlab.deploy.endpoint.problems import Problem
from embedlab.deploy.endpoint.roles import Role, ServedModel

MAX_RETRY_AFTER_S = 60


class Encoded(NamedTuple):
    """The answer to a job.

    Attributes:
        vectors: float32 (N, d).
        tokens: that the model reads, with prompts and special tokens.
        truncated: texts that were longer than the model's limit.
    """

    vectors: np.ndarray
    tokens: int
    truncated: int


@dataclass(eq=False)
class Job:
    """The texts of one request.

    Attributes:
        texts: N texts.
        role: how to encode them.
        normalize: scale vectors to unit length.
        may_truncate: False raises an error for a text that is longer than the model's limit.
        ends: int64 (N,), tokens up to and with each text; None before they are counted.
        done: texts that have a vector.
        vectors: of the texts that are done.
        truncated: texts longer than the limit.
        error: why the job failed.
    """

    texts: Sequence[str]
    role: Role
    normalize: bool
    may_truncate: bool
    ends: np.ndarray | None = None
    done: int = 0
    vectors: list[np.ndarray] = field(default_factory=list)
    truncated: int = 0
    error: Exception | None = None

    @property
    def tokens_done(self) -> int:
        """Tokens of the texts that have a vector."""
        return int(self.ends[self.done - 1]) if self.done and self.ends is not None else 0

    @property
    def tokens_left(self) -> int:
        """Tokens of the texts that have no vector yet."""
        return int(self.ends[-1]) - self.tokens_done if self.ends is not None else 0

    @property
    def is_finished(self) -> bool:
        """Whether all texts have a vector, or the job failed."""
        return self.error is not None or self.done == len(self.texts)

    def fitting(self, tokens: int) -> int:
        """Return how many of the next texts have at most `tokens` tokens together."""
        if self.ends is None:
            return 0
        return int(np.searchsorted(self.ends, self.tokens_done + tokens, "right")) - self.done


class Piece(NamedTuple):
    """The next texts of a job that go into a batch."""

    job: Job
    size: int

    @property
    def texts(self) -> Sequence[str]:
        """The texts."""
        return self.job.texts[self.job.done : self.job.done + self.size]

    @property
    def tokens(self) -> int:
        """Tokens of these texts."""
        ends = self.job.ends
        return 0 if ends is None else int(ends[self.job.done + self.size - 1]) - self.job.tokens_done


def share(jobs: Sequence[Job], budget: int) -> list[Piece]:
    """Divide the tokens of a batch between jobs: short ones are finished, long ones get what remains, in equal parts.

    The first job always advances by at least one text, so no job waits forever.

    Args:
        jobs: in the order of their arrival.
        budget: tokens of the batch; only a single text may exceed it.

    Returns:
        What goes into the batch; not empty if there is a job.
    """
    pieces, remaining = [], budget
    by_size = sorted(jobs, key=lambda job: (job is not jobs[0], job.tokens_left))
    for number, job in enumerate(by_size):
        count = max(job.fitting(remaining // (len(jobs) - number)), int(job is jobs[0]))
        if count:
            pieces.append(piece := Piece(job, count))
            remaining = max(0, remaining - piece.tokens)
    return pieces


class Batcher:
    """Encodes what requests submit, in batches.

    Args:
        model: the model.
        batch_tokens: tokens of a batch.
        max_waiting: texts that may wait.
        observe: called after every batch with its texts, its tokens and its seconds.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        batch_tokens: int,
        max_waiting: int,
        observe: Callable[[int, int, float], None] = lambda texts, tokens, seconds: None,
    ) -> None:
        self._model, self._batch_tokens, self._max_waiting, self._observe = model, batch_tokens, max_waiting, observe
        self._jobs: dict[Job, asyncio.Future[Encoded]] = {}  # in the order of their arrival
        self._arrived = asyncio.Event()
        self._rate = 0.0  # texts per second of the last batches
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher:
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

    @property
    def is_working(self) -> bool:
        """Whether jobs get done."""
        return self._task is not None and not self._task.done()

    @property
    def waiting(self) -> int:
        """Texts that have no vector yet."""
        return sum(len(job.texts) - job.done for job in self._jobs)

    async def submit(self, job: Job) -> Encoded:
        """Encode the texts of a job. If the caller is cancelled, the texts that are left are not encoded.

        Raises:
            Problem: too many texts wait, or a text is too long and must not be truncated.
            Exception: whatever the model raises.
        """
        waiting = self.waiting
        if waiting and waiting + len(job.texts) > self._max_waiting:
            message = f"{waiting} texts are waiting, and {self._max_waiting} may. Try again later."
            raise Problem(429, message, code="queue_full", retry_after_s=self.retry_after_s)
        future = self._jobs[job] = asyncio.get_running_loop().create_future()
        self._arrived.set()
        try:
            return await future
        finally:
            self._jobs.pop(job, None)

    @property
    def retry_after_s(self) -> int:
        """Seconds until the texts that wait now are done, as far as the last batches tell; 1 to 60."""
        seconds = self.waiting / self._rate if self._rate else 1.0
        return min(max(1, math.ceil(seconds)), MAX_RETRY_AFTER_S)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while jobs := [job for job, future in self._jobs.items() if not future.done()]:
                try:
                    await loop.run_in_executor(self._thread, self._encode_batch, jobs)
                except Exception as error:  # a fault of this module; without an answer, every later request would hang
                    for job in jobs:
                        job.error = error
                for job in jobs:
                    if job.is_finished:
                        self._answer(job)

    def _answer(self, job: Job) -> None:
        future = self._jobs.pop(job, None)
        if future is None or future.done():  # the client is gone
            return
        if job.error is not None:
            future.set_exception(job.error)
        else:
            future.set_result(Encoded(np.concatenate(job.vectors), job.tokens_done, job.truncated))

    def _encode_batch(self, jobs: Sequence[Job]) -> None:
        """Count the tokens of new jobs, then encode one batch. Runs in the thread; every error belongs to a job."""
        began = time.perf_counter()
        for job in jobs:
            if job.ends is None:
                self._count(job)
        ready = [job for job in jobs if job.error is None]
        pieces = share(ready, self._batch_tokens) if ready else []
        texts, tokens = sum(piece.size for piece in pieces), sum(piece.tokens for piece in pieces)
        groups: dict[tuple[int, str, bool], list[Piece]] = {}
        for piece in pieces:
            job = piece.job
            groups.setdefault((id(job.role.encoder), job.role.prompt, job.normalize), []).append(piece)
        for group in groups.values():
            self._encode(group)
        seconds = time.perf_counter() - began
        self._rate = 0.7 * self._rate + 0.3 * texts / seconds if self._rate else texts / seconds
        self._observe(texts, tokens, seconds)

    def _count(self, job: Job) -> None:
        try:
            ids = self._model.tokens(job.texts, job.role)
        except Exception as error:
            job.error = error
            return
        job.ends, job.truncated = np.cumsum(ids.lengths), ids.truncated
        if job.truncated and not job.may_truncate:
            message = (
                f"{job.truncated} of {len(job.texts)} texts are longer than the model's {self._model.max_tokens} "
                "tokens. Shorten them, or allow it with truncate=true."
            )
            job.error = Problem(413, message, param="input", code="text_too_long")

    def _encode(self, pieces: Sequence[Piece]) -> None:
        """Encode the texts of several jobs together; if that fails, those of each job alone."""
        first = pieces[0].job
        try:
            texts = [text for piece in pieces for text in piece.texts]
            vectors = self._model.encode(texts, first.role, normalize=first.normalize, batch_tokens=self._batch_tokens)
        except Exception as error:
            if len(pieces) == 1:
                first.error = error
                return
            for piece in pieces:
                self._encode([piece])
            return
        ends = np.cumsum([piece.size for piece in pieces])
        for piece, block in zip(pieces, np.split(vectors, ends[:-1]), strict=True):
            piece.job.vectors.append(block)
            piece.job.done += piece.size
