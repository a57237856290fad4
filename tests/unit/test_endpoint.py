"""The protocol of `embedlab serve`, without a port: what OpenAI's and TEI's clients send, and what must be refused."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import logging
import threading
import time

import httpx
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router

from embedlab.deploy.endpoint.app import build_app
from embedlab.deploy.endpoint.roles import ServedModel
from embedlab.deploy.endpoint.settings import KEY_VARIABLE, EndpointSettings, Key
from embedlab.deploy.space import ModelEncoder
from embedlab.errors import ParameterError
from embedlab.models.concatenation import concat_static
from embedlab.models.packing import pack
from embedlab.models.static import static_model, with_ngrams
from tests.conftest import TEXTS, tiny_model

SECRET = "a-very-secret-key-0123456789"
UNICODE = ["Grüße 你好 مرحبا", "🏥👩‍⚕️", "a\u0000b", "e\u0301 \u200f \ufeff", "x" * 5000, " ", "\n\t"]


@pytest.fixture(scope="module")
def plain():
    return ServedModel(pack(tiny_model()), "tiny")


@pytest.fixture(scope="module")
def prompted():
    model = tiny_model()
    model.prompts = {"query": "find: ", "passage": "text: ", "sort": "sort it: "}
    return ServedModel(pack(model), "prompted")


@pytest.fixture(scope="module")
def routed():
    base = tiny_model()
    torch.manual_seed(1)
    router = Router.for_query_document([Dense(32, 32)], [Dense(32, 32)])
    return ServedModel(pack(SentenceTransformer(modules=[*base, router], device="cpu")), "routed")


def exchange(model, *requests, key=None, **settings):
    """Send requests at the same moment to a new server; returns their answers."""

    async def main():
        app = build_app(model, EndpointSettings.checked(settings), key)
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://server") as client,
        ):
            return await asyncio.gather(*(client.request(**request) for request in requests))

    return asyncio.run(main())


def post(path="/v1/embeddings", headers=None, content=None, **body):
    request = {"method": "POST", "url": path, "headers": headers or {}}
    return request | ({"json": body} if content is None else {"content": content})


def get(path, **headers):
    return {"method": "GET", "url": path, "headers": headers}


def only(model, request, **settings):
    (answer,) = exchange(model, request, **settings)
    return answer


def vectors_of(answer):
    assert answer.status_code == 200, answer.text
    content = answer.json()
    rows = content if isinstance(content, list) else [row["embedding"] for row in content["data"]]
    return np.array(rows, dtype=np.float32)


def problem(answer, status, words):
    """Check OpenAI's shape of errors; returns the error."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and words in error["message"]
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    assert error["type"] == kind
    return error


def direct(served, texts, **options):
    return served.role("text").encoder.encode(texts, normalize_embeddings=True, prompt="", **options)


class TestOpenAI:
    def test_an_answer_has_every_field(self, plain):
        answer = only(plain, post(input=TEXTS[:2], model="tiny", user="somebody"))
        content = answer.json()
        assert content["object"] == "list" and content["model"] == "tiny"
        assert [(row["object"], row["index"]) for row in content["data"]] == [("embedding", 0), ("embedding", 1)]
        ids = plain.role(None).encoder.tokenizer(TEXTS[:2])["input_ids"]
        assert content["usage"] == {"prompt_tokens": sum(map(len, ids)), "total_tokens": sum(map(len, ids))}
        assert content["space"] == answer.headers["Embedlab-Space"] == plain.space.fingerprint
        assert np.abs(vectors_of(answer) - direct(plain, TEXTS[:2])).max() <= 1e-6

    def test_base64_holds_the_same_numbers(self, plain):
        numbers, encoded = exchange(plain, post(input="a b"), post(input="a b", encoding_format="base64"))
        raw = base64.b64decode(encoded.json()["data"][0]["embedding"])
        assert np.frombuffer(raw, dtype="<f4").tolist() == vectors_of(numbers)[0].tolist()

    def test_token_ids_mean_the_text(self, plain):
        ids = [plain.role(None).encoder.tokenizer(text)["input_ids"] for text in TEXTS]
        texts, tokens, one = exchange(plain, post(input=TEXTS), post(input=ids), post(input=ids[0]))
        assert np.array_equal(vectors_of(texts), vectors_of(tokens))
        assert np.abs(vectors_of(one) - vectors_of(texts)[:1]).max() <= 1e-6

    def test_dimensions_are_the_first_ones_normalized_again(self, plain):
        full, short = exchange(plain, post(input=TEXTS), post(input=TEXTS, dimensions=8))
        expected = vectors_of(full)[:, :8]
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.abs(vectors_of(short) - expected).max() <= 1e-6
        assert short.json()["space"] != full.json()["space"]

    @pytest.mark.parametrize("dimensions", [0, -1, 33, 10**30])
    def test_impossible_dimensions(self, plain, dimensions):
        assert only(plain, post(input="a", dimensions=dimensions)).status_code == 400

    def test_another_model_is_refused(self, plain):
        error = problem(only(plain, post(input="a", model="gpt")), 404, "This server has the model 'tiny'")
        assert error["code"] == "model_not_found"

    def test_the_organisation_may_be_left_out(self):
        hub = ServedModel(pack(tiny_model()), "organisation/tiny")
        requests = [post(input="a", model=name) for name in ("organisation/tiny", "tiny", "other/tiny", "organisation")]
        answers = exchange(hub, *requests)
        assert [answer.status_code for answer in answers] == [200, 200, 404, 404]
        assert answers[1].json()["model"] == "organisation/tiny"


class TestEmbed:
    def test_a_list_of_vectors(self, plain):
        one, several = exchange(plain, post("/embed", inputs=TEXTS[0]), post("/embed", inputs=TEXTS))
        assert np.abs(vectors_of(several) - direct(plain, TEXTS)).max() <= 1e-6
        assert vectors_of(one).shape == (1, 32) and several.headers["Embedlab-Space"] == plain.space.fingerprint

    def test_lengths_of_the_model(self, plain):
        raw, unit = exchange(plain, post("/embed", inputs=TEXTS, normalize=False), post("/embed", inputs=TEXTS))
        expected = plain.role(None).encoder.encode(TEXTS, normalize_embeddings=False)
        assert np.abs(vectors_of(raw) - expected).max() <= 1e-5
        assert np.abs(np.linalg.norm(expected, axis=1) - 1).max() > 0.1
        assert raw.headers["Embedlab-Space"] != unit.headers["Embedlab-Space"]

    def test_lengths_of_requests_that_wait_together_are_not_mixed(self, plain):
        answers = exchange(plain, *(post("/embed", inputs=TEXTS[0], normalize=bool(n % 2)) for n in range(10)))
        for number, answer in enumerate(answers):
            expected = plain.role(None).encoder.encode(TEXTS[:1], normalize_embeddings=bool(number % 2))
            assert np.abs(vectors_of(answer) - expected).max() <= 1e-5

    def test_long_texts_are_errors_unless_truncation_is_allowed(self, plain):
        long = "word " * 100
        strict, cut = exchange(plain, post("/embed", inputs=[long]), post("/embed", inputs=[long], truncate=True))
        problem(strict, 413, "1 of 1 texts are longer than the model's 64 tokens")
        assert vectors_of(cut).shape == (1, 32) and cut.headers["Embedlab-Truncated"] == "1"
        loose, tight = exchange(plain, post(input=long), post(input=long, truncate=False))
        assert loose.json()["truncated"] == 1 and tight.status_code == 413

    def test_null_is_the_default(self, plain):
        body = {
            "prompt_name": None,
            "truncate": None,
            "normalize": None,
            "truncation_direction": None,
            "dimensions": None,
        }
        assert vectors_of(only(plain, post("/embed", inputs="a", **body))).shape == (1, 32)


class TestRoles:
    @pytest.mark.parametrize(
        ("fields", "prompt"),
        [
            ({"input_type": "query"}, "find: "),
            ({"input_type": "search_query"}, "find: "),
            ({"input_type": "document"}, "text: "),
            ({"input_type": "text"}, ""),
            ({"prompt_name": "query"}, "find: "),
            ({"prompt_name": "document"}, "text: "),
            ({"prompt_name": "passage"}, "text: "),
            ({"prompt_name": "sort"}, "sort it: "),
        ],
    )
    def test_each_role_has_its_prompt(self, prompted, fields, prompt):
        expected = direct(prompted, [prompt + text for text in TEXTS])
        openai, tei = exchange(prompted, post(input=TEXTS, **fields), post("/embed", inputs=TEXTS, **fields))
        assert np.abs(vectors_of(openai) - expected).max() <= 1e-6
        assert np.abs(vectors_of(tei) - expected).max() <= 1e-6

    def test_roles_of_requests_that_wait_together_are_not_mixed(self, prompted):
        roles = ["query", "document", "text"] * 5
        answers = exchange(prompted, *(post(input=TEXTS[0], input_type=role) for role in roles))
        prompts = {"query": "find: ", "document": "text: ", "text": ""}
        for role, answer in zip(roles, answers, strict=True):
            assert np.abs(vectors_of(answer) - direct(prompted, [prompts[role] + TEXTS[0]])).max() <= 1e-6
            assert answer.json()["input_type"] == role

    def test_spaces_tell_what_may_be_compared(self, prompted):
        types = ["query", "document", "text"]
        query, document, text = (
            answer.json()["space"]
            for answer in exchange(prompted, *(post(input="a", input_type=kind) for kind in types))
        )
        assert query == document == prompted.space.fingerprint != text
        raw = ModelEncoder(prompted.role("text").encoder, document_prompt="", query_prompt="")
        assert text == raw.space.fingerprint

    def test_a_request_must_say_its_role_if_that_matters(self, prompted, routed, plain):
        error = problem(only(prompted, post(input="a")), 400, "Set input_type to 'query' or 'document', or to 'text'")
        assert error["code"] == "input_type_required"
        answer = only(routed, post(input="a"))
        assert problem(answer, 400, "Set input_type to 'query' or 'document'.")
        assert only(plain, post(input="a")).status_code == 200

    def test_a_default_role(self, prompted):
        served = ServedModel(prompted.role("text").encoder, "prompted", "query")
        assert np.abs(vectors_of(only(served, post(input="a"))) - direct(prompted, ["find: a"])).max() <= 1e-6

    def test_a_router_has_two_encoders(self, routed):
        query, document, text = exchange(
            routed, *(post(input=TEXTS, input_type=kind) for kind in ("query", "document", "text"))
        )
        assert np.abs(vectors_of(query) - vectors_of(document)).max() > 0.1
        problem(text, 400, "input_type must be one of query, document.")
        problem(only(routed, post(input="a", prompt_name="sort")), 400, "prompt_name must be one of query, document.")
        with pytest.raises(ParameterError, match="two encoders reads no 'text'"):
            ServedModel(copy.deepcopy(tiny_routed()), "r", "text")

    @pytest.mark.parametrize("fields", [{"input_type": "x"}, {"input_type": "query", "prompt_name": "query"}])
    def test_unknown_or_two_roles(self, prompted, fields):
        assert only(prompted, post(input="a", **fields)).status_code == 400


def tiny_routed():
    router = Router.for_query_document([Dense(32, 32)], [Dense(32, 32)])
    return SentenceTransformer(modules=[*tiny_model(), router], device="cpu")


class TestModelsOfTheLab:
    def test_static_concatenated_and_truncated(self):
        transformer = tiny_model()
        torch.manual_seed(0)
        static = static_model(transformer, torch.randn(len(transformer.tokenizer), 24))
        short = tiny_model()
        short.truncate_dim = 8
        for model, dimension in ((static, 24), (concat_static(transformer, static, 0.3), 56), (short, 8)):
            served = ServedModel(pack(model), "m")
            answer = only(served, post(input=TEXTS))
            expected = model.encode(TEXTS, normalize_embeddings=True)
            assert vectors_of(answer).shape == (len(TEXTS), dimension)
            assert np.abs(vectors_of(answer) - expected).max() <= 1e-6
            assert answer.json()["space"] == ModelEncoder(model).space.fingerprint
        assert only(ServedModel(static, "m"), get("/v1/models")).json()["data"][0]["max_tokens"] is None

    @pytest.mark.parametrize("ngrams", [False, True])
    def test_token_ids_of_a_static_model(self, ngrams):
        transformer = tiny_model()
        model = static_model(transformer, torch.randn(len(transformer.tokenizer), 24))
        model = with_ngrams(model, TEXTS, least=1) if ngrams else model
        ids = transformer.tokenizer(TEXTS[0])["input_ids"]
        by_ids, by_text, unknown = exchange(
            ServedModel(model, "m"), post(input=ids), post(input=TEXTS[0]), post(input=[len(transformer.tokenizer)])
        )
        assert np.abs(vectors_of(by_ids) - vectors_of(by_text)).max() <= 1e-6
        assert np.abs(vectors_of(by_text) - model.encode(TEXTS[:1], normalize_embeddings=True)).max() <= 1e-6
        problem(unknown, 400, "token id")


class TestSpace:
    @pytest.mark.parametrize("path", ["/v1/embeddings", "/embed"])
    def test_another_space_is_refused_before_anything_is_encoded(self, plain, path):
        field = "input" if path.startswith("/v1") else "inputs"
        wrong = post(path, {"Embedlab-Space": "0123456789abcdef"}, **{field: "a"})
        right = post(path, {"Embedlab-Space": plain.space.fingerprint}, **{field: "a"})
        refused, accepted = exchange(plain, wrong, right)
        assert problem(refused, 412, plain.space.fingerprint)["code"] == "space_mismatch"
        assert accepted.status_code == 200

    def test_in_the_body(self, plain):
        assert only(plain, post(input="a", space="0123456789abcdef")).status_code == 412
        assert only(plain, post(input="a", space=plain.space.fingerprint)).status_code == 200
        assert only(plain, post(input="a", dimensions=8, space=plain.space.fingerprint)).status_code == 412

    def test_the_list_of_models_tells_it(self, plain):
        listed, one, other = exchange(plain, get("/v1/models"), get("/v1/models/tiny"), get("/v1/models/a/b"))
        assert listed.json()["data"] == [one.json()]
        facts = {"id": "tiny", "space": plain.space.fingerprint, "dimensions": 32, "max_tokens": 64}
        assert facts.items() <= one.json().items()
        problem(other, 404, "no other")


MALFORMED = {
    "no body": post(content=b""),
    "not JSON": post(content=b"{input: 1}"),
    "a list": post(content=b"[1]"),
    "not UTF-8": post(content=b'{"input": "\xff\xfe"}'),
    "a lone surrogate": post(content=b'{"input": "\\ud800"}'),
    "deep": post(content=b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "no input": post(model="tiny"),
    "null": post(input=None),
    "a number": post(input=1),
    "an object": post(input={"text": "a"}),
    "mixed": post(input=["a", 1]),
    "booleans": post(input=[True, False]),
    "fractions": post(input=[1.5]),
    "too deep": post(input=[[["a"]]]),
    "no texts": post(input=[]),
    "an empty text": post(input=["a", ""]),
    "empty ids": post(input=[[1], []]),
    "negative ids": post(input=[-1]),
    "ids beyond the vocabulary": post(input=[10**9]),
    "special tokens only": post(input=[101, 102]),
    "an unknown format": post(input="a", encoding_format="int8"),
    "a word for a number": post(input="a", dimensions="8"),
    "an unknown field": post(input="a", input_typ="query"),
    "a direction": post("/embed", inputs="a", truncation_direction="left"),
    "the field of the other protocol": post("/embed", input="a"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_one_clear_error(plain, name):
    error = problem(only(plain, MALFORMED[name]), 400, "")
    assert len(error["message"]) < 300 and error["message"].endswith(".")


def test_messages_name_the_field(plain):
    answers = exchange(plain, post(input="a", input_typ="query"), post(input=["a", ""]), post(model="tiny"))
    expected = ["There is no field 'input_typ'", "input[1] is an empty text.", "input: Field required."]
    for answer, words in zip(answers, expected, strict=True):
        problem(answer, 400, words)


def test_unicode_is_text_like_any_other(plain):
    answer = only(plain, post(input=UNICODE))
    assert np.abs(vectors_of(answer) - direct(plain, UNICODE)).max() <= 1e-6


def test_unknown_paths_and_methods(plain):
    missing, method = exchange(plain, get("/v1/nothing"), get("/v1/embeddings"))
    problem(missing, 404, "/openapi.json")
    problem(method, 405, "no method GET")


class TestLimits:
    def test_too_many_bytes_with_and_without_a_declared_size(self, plain):
        async def chunks():
            for _ in range(100):
                yield b"x" * 100

        answers = exchange(plain, post(content=b"x" * 5000), post(content=chunks()), max_bytes=2000)
        for answer in answers:
            assert problem(answer, 413, "larger than 2,000 bytes")["code"] == "request_too_large"

    def test_too_many_texts(self, plain):
        fits, over = exchange(plain, post(input=["a"] * 3), post(input=["a"] * 4), max_texts=3)
        assert fits.status_code == 200
        problem(over, 413, "input has 4 texts, and 3 are allowed")

    def test_too_many_requests(self, plain):
        answers = exchange(plain, *(post(input="a") for _ in range(6)), get("/health"), max_requests=2)
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) == 4 and answers[-1].status_code == 200
        assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)
        problem(refused[0], 429, "no more are allowed")

    def test_requests_that_ended_do_not_count(self, plain):
        """Answered, refused, too slow to send: after each there is room for the next."""

        async def drip():
            while True:
                yield b" "
                await asyncio.sleep(0.01)

        async def main():
            app = build_app(plain, EndpointSettings(max_requests=1, timeout_s=0.5))
            transport = httpx.ASGITransport(app)
            async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
                bodies = ({"json": {"inputs": "a"}}, {"json": {}}, {"content": drip()}, {"json": {"inputs": "a"}})
                return [(await client.post("http://s/embed", **body)).status_code for body in bodies]

        assert asyncio.run(main()) == [200, 400, 503, 200]

    def test_a_full_queue(self, plain):
        answers = exchange(plain, *(post(input=["a"] * 10) for _ in range(6)), max_waiting=20)
        assert {answer.status_code for answer in answers} == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert problem(refused, 429, "texts are waiting")["code"] == "queue_full"

    def test_a_request_that_takes_too_long(self, plain, monkeypatch):
        monkeypatch.setattr(ServedModel, "encode", lambda *_, **__: time.sleep(0.3))
        answer = only(plain, post(input="a"), timeout_s=0.05)
        assert problem(answer, 503, "longer than 0.05 s")["code"] == "timeout" and answer.headers["Retry-After"]

    def test_a_slow_upload(self, plain):
        async def drip():
            while True:
                yield b" "
                await asyncio.sleep(0.01)

        assert only(plain, post(content=drip()), timeout_s=0.1).status_code == 503

    @pytest.mark.parametrize("name", ["batch_tokens", "max_texts", "max_bytes", "max_requests", "max_waiting"])
    def test_impossible_limits(self, name):
        with pytest.raises(ParameterError, match=name):
            EndpointSettings.checked({name: 0})


class TestKey:
    def test_only_the_key_opens(self, plain):
        paths = [post(input="a"), post("/embed", inputs="a"), get("/v1/models"), get("/metrics")]
        wrong = ["", SECRET, f"Basic {SECRET}", f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", "Bearer", "Bearer ÿ"]
        for header in wrong:
            requests = [{**path, "headers": {"Authorization": header.encode("latin-1")}} for path in paths]
            for answer in exchange(plain, *requests, key=Key(SECRET)):
                error = problem(answer, 401, "Bearer KEY")
                assert error["code"] == "invalid_api_key" and SECRET[:8] not in answer.text + str(answer.headers)
        opened = [{**path, "headers": {"Authorization": f"bearer {SECRET}"}} for path in paths]
        answers = exchange(plain, *opened, get("/health"), key=Key(SECRET))
        assert [answer.status_code for answer in answers] == [200] * 5
        assert SECRET not in "".join(answer.text for answer in answers)

    def test_from_the_environment(self, monkeypatch):
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        assert Key.from_environment() is None
        monkeypatch.setenv(KEY_VARIABLE, SECRET)
        key = Key.from_environment()
        assert key.matches(f"Bearer {SECRET}".encode()) and SECRET not in repr(vars(key))

    @pytest.mark.parametrize("bad", ["short", "with spaces in between", "schlüssel-schlüssel", "x" * 15])
    def test_weak_keys(self, monkeypatch, bad):
        monkeypatch.setenv(KEY_VARIABLE, bad)
        with pytest.raises(ParameterError, match=KEY_VARIABLE) as caught:
            Key.from_environment()
        assert bad not in str(caught.value)


class TestFailures:
    def test_no_text_in_the_log_or_the_answer(self, plain, monkeypatch, caplog):
        def fail(self, texts, *_, **__):
            raise ValueError(f"cannot encode {texts}")

        monkeypatch.setattr(ServedModel, "encode", fail)
        with caplog.at_level(logging.DEBUG):
            answer = only(plain, post(input="a private text"))
        assert problem(answer, 500, "see the log")["code"] == "failed"
        assert "ValueError" in caplog.text and "private" not in caplog.text + answer.text

    def test_a_vector_that_is_not_finite(self, plain, monkeypatch):
        monkeypatch.setattr(
            "embedlab.deploy.endpoint.roles.encode", lambda *_, **__: np.full((1, 32), np.nan, np.float32)
        )
        assert only(plain, post(input="a")).status_code == 500

    def test_a_stopped_thread_shows_in_health(self, plain):
        from embedlab.deploy.endpoint.batching import Batcher

        async def main():
            app = build_app(plain, EndpointSettings())
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://s") as client:
                return await client.get("/health")  # without its lifespan, nothing is encoded

        problem(asyncio.run(main()), 503, "does not encode")
        assert not Batcher(plain, batch_tokens=1, max_waiting=1).is_working


def test_a_client_that_leaves_costs_no_more_encoding(plain, monkeypatch):
    """Its request ends at once, and the texts that no batch has yet are dropped."""
    encoded, started = [], threading.Event()
    encode = ServedModel.encode

    def slow(self, texts, *arguments, **options):
        encoded.extend(texts)
        started.set()
        time.sleep(0.05)
        return encode(self, texts, *arguments, **options)

    async def main():
        app = build_app(plain, EndpointSettings(batch_tokens=1))
        messages = [{"type": "http.request", "body": json.dumps({"inputs": ["a"] * 50}).encode()}]
        sent = []

        async def receive():
            if messages:
                return messages.pop()
            while not started.is_set():
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/embed", "headers": [], "query_string": b""}
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)
            await asyncio.sleep(0.2)
        return sent

    monkeypatch.setattr(ServedModel, "encode", slow)
    assert asyncio.run(main()) == [] and 1 <= len(encoded) <= 3


def test_metrics_count_and_hold_no_text(prompted):
    async def main():
        app = build_app(prompted, EndpointSettings())
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://s") as c:
            await asyncio.gather(
                *(c.post("/embed", json={"inputs": ["a private text"], "prompt_name": "query"}) for _ in "123")
            )
            await c.post("/v1/embeddings", json={"input": "word " * 99, "input_type": "text"})
            await c.get("/private/path")
            return (await c.get("/metrics")).text

    page = asyncio.run(main())
    for line in (
        'embedlab_requests_total{path="/embed",status="200"} 3.0',
        'embedlab_requests_total{path="other",status="404"} 1.0',
        'embedlab_texts_total{role="query"} 3.0',
        "embedlab_truncated_texts_total 1.0",
        "embedlab_waiting_texts 0.0",
        "embedlab_batch_texts_sum 4.0",
        f'embedlab_model{{model="prompted",space="{prompted.space.fingerprint}"}} 1.0',
    ):
        assert line in page.splitlines()
    assert "private" not in page


def test_many_clients_get_their_own_vectors(plain):
    texts = [f"{text} number {n}" for n, text in enumerate(TEXTS * 8)]
    answers = exchange(plain, *(post(input=text) for text in texts), batch_tokens=128)
    assert np.abs(np.concatenate([vectors_of(answer) for answer in answers]) - direct(plain, texts)).max() <= 1e-6


def test_the_description_lists_the_fields(plain):
    paths = only(plain, get("/openapi.json")).json()["paths"]
    schema = paths["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"input", "dimensions", "input_type", "space"} <= set(schema["properties"])
    assert json.dumps(paths).isascii()
