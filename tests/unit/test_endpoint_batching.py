"""Batches: who gets which tokens, one vector per text as if it were encoded alone, errors of one job stay its own."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from embedlab.deploy.endpoint.batching import Batcher, Encoded, Job, share
from embedlab.deploy.endpoint.problems import Problem
from embedlab.deploy.endpoint.roles import ServedModel
from embedlab.deploy.space import Space
from embedlab.models.tokens import TokenIds
from tests.conftest import TEXTS, tiny_model


def job(*tokens: int, done: int = 0) -> Job:
    return Job(["x"] * len(tokens), None, True, True, ends=np.cumsum(tokens), done=done)


def sizes(jobs, budget):
    found = {id(piece.job): piece.size for piece in share(jobs, budget)}
    return [found.get(id(job), 0) for job in jobs]


class TestShare:
    def test_short_jobs_are_finished_and_the_long_one_gets_the_rest(self):
        """100 tokens: the first gets at most 33, of the other 70 the short one takes 10, and the last the rest."""
        assert sizes([job(*[10] * 50), job(10), job(*[10] * 50)], 100) == [3, 1, 6]

    def test_all_fit(self):
        assert sizes([job(1, 2), job(3), job(4, 4)], 14) == [2, 1, 2]

    def test_a_text_above_the_budget_goes_alone_if_it_is_first(self):
        assert sizes([job(500, 1), job(1)], 100) == [1, 0]
        assert sizes([job(1), job(500)], 100) == [1, 0]

    def test_jobs_that_started_count_what_is_left(self):
        started = job(5, 5, 5, 5, done=2)
        assert (started.tokens_done, started.tokens_left, started.fitting(5), started.fitting(99)) == (10, 10, 1, 2)

    def test_every_job_ends_although_short_ones_keep_coming(self):
        long, rounds = job(90, 90, 90), 0
        while long.done < 3:
            waiting = [long, *(job(50) for _ in range(20))]
            for piece in share(waiting, 100):
                piece.job.done += piece.size
            rounds += 1
        assert rounds == 3

    def test_texts_without_tokens_cost_nothing(self):
        assert sizes([job(0, 0, 0)], 1) == [3]


class CountingModel:
    """Vectors are (length of the text, 1). A text `bad` raises, `slow` waits for `go`."""

    def __init__(self):
        self.calls, self.go, self.entered = [], threading.Event(), threading.Event()
        self.max_tokens = 9

    def tokens(self, texts, role):
        lengths = [min(len(text), self.max_tokens) for text in texts]
        return TokenIds(np.empty(0), np.cumsum([0, *lengths]), sum(len(text) > self.max_tokens for text in texts))

    def encode(self, texts, role, *, normalize, batch_tokens):
        self.calls.append(list(texts))
        self.entered.set()
        if "slow" in texts:
            self.go.wait(10)
        if "bad" in texts:
            raise ValueError("bad text")
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


class Plain:
    encoder, prompt = None, ""


def together(model, *work, batch_tokens=1000, max_waiting=100):
    """Run coroutines that take the batcher; returns what each returns or raises."""

    async def main():
        async with Batcher(model, batch_tokens=batch_tokens, max_waiting=max_waiting) as batcher:
            return await asyncio.gather(*(one(batcher) for one in work), return_exceptions=True)

    return asyncio.run(main())


def submit(*texts, may_truncate=True):
    return lambda batcher: batcher.submit(Job(texts, Plain, True, may_truncate))


async def release(batcher, model, waiting):
    """Let the slow batch end once so many texts wait."""
    while batcher.waiting < waiting:
        await asyncio.sleep(0.001)
    model.go.set()


def test_what_arrives_during_a_batch_is_encoded_together():
    model = CountingModel()
    others = [submit(f"text {n}") for n in range(7)]
    results = together(model, submit("slow"), *others, lambda batcher: release(batcher, model, 8))
    assert model.calls[0][0] == "slow" and len(model.calls) <= 2
    assert [result.vectors.tolist() for result in results[1:8]] == [[[6, 1]]] * 7
    assert [result.tokens for result in results[:8]] == [4, *[6] * 7]


def test_a_long_request_does_not_hold_up_a_short_one():
    model, ended = CountingModel(), []

    def noting(name, *texts):
        async def run(batcher):
            await batcher.submit(Job(texts, Plain, True, True))
            ended.append(name)

        return run

    together(model, noting("long", *["12345"] * 60), noting("short", "1"), batch_tokens=20)
    assert ended == ["short", "long"]
    assert max(sum(map(len, call)) for call in model.calls) <= 20


def test_a_text_that_fails_fails_alone():
    model = CountingModel()
    results = together(
        model, submit("slow"), submit("a"), submit("bad", "b"), submit("cc"), lambda b: release(b, model, 5)
    )
    assert isinstance(results[2], ValueError)
    assert [results[n].vectors[0, 0] for n in (0, 1, 3)] == [4, 1, 2]


def test_texts_that_must_not_be_truncated():
    long, short, allowed = together(
        CountingModel(),
        submit("x" * 10, "x", may_truncate=False),
        submit("x" * 9, may_truncate=False),
        submit("x" * 10),
    )
    assert long.status == 413 and "1 of 2 texts are longer than the model's 9 tokens" in long.message
    assert (short.tokens, short.truncated) == (9, 0) and (allowed.tokens, allowed.truncated) == (9, 1)


def test_a_full_queue_is_refused_with_a_time_to_wait():
    model = CountingModel()

    async def too_many(batcher):
        while batcher.waiting < 4:
            await asyncio.sleep(0.001)
        try:
            await batcher.submit(Job(["a", "b"], Plain, True, True))
        finally:
            model.go.set()

    *_, refused = together(model, submit("slow"), submit("a", "b", "c"), too_many, max_waiting=5)
    assert isinstance(refused, Problem) and refused.status == 429 and 1 <= refused.retry_after_s <= 60


def test_a_request_larger_than_the_queue_is_served_if_nothing_waits():
    (result,) = together(CountingModel(), submit(*"abcdef"), max_waiting=2)
    assert isinstance(result, Encoded) and len(result.vectors) == 6


def test_a_request_that_was_given_up_is_not_encoded():
    model = CountingModel()

    async def giving_up(batcher):
        task = asyncio.create_task(batcher.submit(Job(["never"], Plain, True, True)))
        while not model.entered.is_set() or batcher.waiting < 2:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.01)
        model.go.set()
        return batcher.waiting

    together(model, submit("slow"), giving_up)
    assert "never" not in sum(model.calls, []) and model.calls


def test_a_fault_of_the_batcher_itself_reaches_the_waiting(monkeypatch):
    monkeypatch.setattr("embedlab.deploy.endpoint.batching.share", lambda *_: 1 / 0)
    (failed,) = together(CountingModel(), submit("a"))
    assert isinstance(failed, ZeroDivisionError)


@pytest.mark.parametrize("count", [1, 5])
def test_batches_of_a_real_model_equal_single_texts(count):
    """Packed batches of several requests: 1e-6 from each text alone."""
    model = tiny_model()
    from embedlab.models.packing import pack

    served = ServedModel(pack(model), "tiny")
    texts = [f"{text} {n}" for text in TEXTS for n in range(count)]
    role = served.role(None)
    work = [lambda batcher, text=text: batcher.submit(Job([text], role, True, True)) for text in texts]
    results = together(served, *work, batch_tokens=64)
    alone = [model.encode([text], normalize_embeddings=True)[0] for text in texts]
    assert np.abs(np.concatenate([result.vectors for result in results]) - alone).max() <= 1e-6
    assert isinstance(served.space, Space)
