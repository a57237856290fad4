"""An OpenAI-compatible endpoint, played by a local server that answers from a script."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from embedlab import http
from embedlab.errors import ModelError
from embedlab.models.api import ApiModel
from embedlab.models.encoders import open_encoder
from embedlab.models.endpoint import Endpoint
from tests.stub_api import json_server


def vector(text):
    return [float(len(text)), float(text.count("a")), 1.0]


def answer(texts):
    """Embeddings in an order of the server's own."""
    rows = [{"index": place, "embedding": vector(text)} for place, text in enumerate(texts)]
    return {"data": rows[::-1]}


@contextmanager
def server(*script):
    """A server that gives (status, headers, body or None) one after the other, None and beyond the end = embeddings."""
    seen, script = [], list(script)

    def reply(request):
        seen.append(request)
        status, headers, content = script.pop(0) if script else (200, {}, None)
        return status, headers, answer(request["input"]) if content is None else content

    with json_server(reply) as url:
        yield url, seen


@pytest.fixture
def waits(monkeypatch):
    monkeypatch.setattr(http.random, "uniform", lambda low, high: 1.0)
    return []


def test_batches_keep_their_order_and_rows_have_unit_length(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    texts = ["a", "bb", "aaa", "", "  \n"]
    with server() as (url, seen):
        vectors = Endpoint("m", url, batch=2).encode(texts, prompt="query: ")
    sent = ["query: a", "query: bb", "query: aaa", "query:", "query:"]
    assert [call["input"] for call in seen] == [sent[:2], sent[2:4], sent[4:]]
    assert {(call["path"], call["model"], call["key"]) for call in seen} == {("/v1/embeddings", "m", "Bearer secret")}
    expected = np.array([vector(text) for text in sent])
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)
    assert vectors.dtype == np.float32


def test_no_key_no_header_and_no_empty_text(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with server() as (url, seen):
        Endpoint("m", url).encode(["", "a"])
        assert Endpoint("m", url).encode([]).shape == (0, 0)
    assert [(call["input"], call["key"]) for call in seen] == [([" ", "a"], None)]


def test_transient_faults_are_tried_again_after_growing_waits(waits):
    script = [(503, {}, "busy"), (500, {}, "oops"), (429, {"Retry-After": "7"}, "slow down"), (200, {}, None)]
    with server(*script) as (url, seen):
        vectors = Endpoint("m", url, sleep=waits.append).encode(["a"])
    assert vectors.shape == (1, 3) and len(seen) == 4
    assert waits == [1, 2, 7]


def test_a_server_may_not_ask_for_an_hour(waits):
    with server((429, {"Retry-After": "3600"}, ""), (429, {"Retry-After": "Wed, 21 Oct"}, "")) as (url, _):
        Endpoint("m", url, sleep=waits.append).encode(["a"])
    assert waits == [60, 2]


def test_gives_up_after_the_last_attempt_without_another_wait(waits):
    with (
        server(*[(503, {}, "busy")] * 9) as (url, seen),
        pytest.raises(ModelError, match="failed 3 times .HTTP 503: busy"),
    ):
        Endpoint("m", url, attempts=3, sleep=waits.append).encode(["a"])
    assert (len(seen), waits) == (3, [1, 2])


@pytest.mark.parametrize(
    "status, remedy", [(401, "Set OPENAI_API_KEY"), (404, "Check the model's name"), (400, "too long")]
)
def test_refusals_are_not_tried_again(status, remedy, waits):
    with server((status, {}, '{"error": "too long"}')) as (url, seen), pytest.raises(ModelError, match=remedy):
        Endpoint("m", url, sleep=waits.append).encode(["a"])
    assert (len(seen), waits) == (1, [])


@pytest.mark.parametrize(
    "body",
    [
        "<html>not json</html>",
        {"object": "list"},
        {"data": []},
        {"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]},
        '{"data": [{"index": 0, "embedding": [NaN]}, {"index": 1, "embedding": [1.0]}]}',
        {"data": [{"index": 0, "embedding": [1.0]}]},
        [1],
    ],
)
def test_an_answer_that_is_no_embedding_is_one_clear_error(body):
    with server((200, {}, body)) as (url, _), pytest.raises(ModelError, match="^.model_name.: m at http"):
        Endpoint("m", url).encode(["a", "b"])


def test_batches_of_different_lengths_are_refused():
    long = {"data": [{"index": 0, "embedding": [1.0, 2.0]}]}
    with server((200, {}, None), (200, {}, long)) as (url, _), pytest.raises(ModelError, match="different dimensions"):
        Endpoint("m", url, batch=1).encode(["a", "b"])


def test_nobody_there(waits):
    with server() as (url, _):
        pass
    with pytest.raises(ModelError, match="failed 2 times .ConnectError"):
        Endpoint("m", url, attempts=2, sleep=waits.append).encode(["a"])
    assert waits == [1]


def test_spec():
    assert ApiModel.parse("openai:m@http://h:1/v1/").endpoint == Endpoint("m", "http://h:1/v1")
    assert ApiModel.parse("openai:org/m").endpoint.url == "https://api.openai.com/v1"
    for spec in ("openai:", "openai:@http://h", "openai:m@h:1"):
        with pytest.raises(ModelError, match="expected openai:MODEL@URL"):
            ApiModel.parse(spec)


def test_as_an_encoder_it_reads_everything_and_has_no_pieces(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path))
    with server() as (url, seen):
        encoder = open_encoder(f"openai:m@{url}").with_prompts("q: ||")
        assert encoder.encode(["abc"], prompt=encoder.prompts["query"]).shape == (1, 3)
    assert seen[-1]["input"] == ["q: abc"]
    assert encoder.part_read("x " * 9999) == "x " * 9999
    assert encoder.pieces("word") == [] and not encoder.is_unknown("word")


def rows(*vectors, index=None):
    places = range(len(vectors)) if index is None else index
    data = [{"index": place, "embedding": values} for place, values in zip(places, vectors, strict=True)]
    return {"data": data}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (rows([1.0], [2.0], index=[1, 1]), "the indices are not 0 to 1, each once"),
        (rows([1.0], [2.0], index=[7, 3]), "the indices are not"),
        (rows([1.0], [2.0], index=[-1, 0]), "the indices are not"),
        (rows([1.0], [2.0], index=[True, False]), "the indices are not"),
        (rows([1.0], [2.0], index=["0", "1"]), "the indices are not"),
        (rows([1.0], [2.0], index=[0.0, 1.0]), "the indices are not"),
        (rows([1.0]), "1 vectors for 2 texts"),
        (rows([1.0], [1.0], [1.0]), "3 vectors for 2 texts"),
        (rows([], []), r"have \[0\] numbers"),
        (rows([1.0], [1.0, 2.0]), r"have \[1, 2\] numbers"),
        (rows([0.0, 0.0], [1.0, 2.0]), "NaN, infinite, or all zeros"),
        (rows([1e39, 0.0], [1.0, 2.0]), "NaN, infinite, or all zeros"),
        (rows([1e30, 0.0], [1.0, 2.0]), "NaN, infinite, or all zeros"),
        (rows([True, False], [1.0, 2.0]), "something else than numbers"),
        (rows(["1.0", "2.0"], [1.0, 2.0]), "something else than numbers"),
        (rows([None, 1.0], [1.0, 2.0]), "something else than numbers"),
        (rows("ab", [1.0, 2.0]), "have .* numbers"),
        ("[" * 100_000, "nested too deeply"),
        ({"data": {}}, "no vectors for 2 texts"),
        ('{"data": [{"index": 0, "embedding": [NaN]}, {"index": 1, "embedding": [1.0]}]}', "NaN"),
    ],
    ids=str,
)  # fmt: skip
def test_answers_that_cannot_be_are_refused(content, reason):
    with server((200, {}, content)) as (url, _), pytest.raises(ModelError, match=reason) as caught:
        Endpoint("m", url).encode(["a", "b"])
    assert "\n" not in str(caught.value)


def test_a_key_is_in_no_message_and_no_address(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-SECRET-KEY-12345")
    with server((400, {}, "no access for sk-SECRET-KEY-12345")) as (url, _), pytest.raises(ModelError) as caught:
        Endpoint("m", url).encode(["a"])
    assert "SECRET" not in str(caught.value) and "[key]" in str(caught.value)
    with pytest.raises(ModelError, match="must not hold a user"):
        ApiModel.parse("openai:m@http://u:password1@h/v1")
