"""Adapters: maps by hand, training against slow references, and folders that load without this package."""

from __future__ import annotations

import copy
import importlib.util
import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from embedlab.errors import DataError, ModelError, ParameterError
from embedlab.models import api
from embedlab.models.adapter import VectorAdapter, with_adapter
from embedlab.models.adapter_folder import load_adapter, save_adapter
from embedlab.models.api import ApiModel
from embedlab.models.concatenation import concatenate
from embedlab.models.encode import encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.load import load_model, open_model
from embedlab.models.save import save_model
from embedlab.models.sides import sides_of
from embedlab.models.static import static_student, with_ngrams
from embedlab.models.static_table import StaticTable
from embedlab.models.vector_map import VectorMap
from embedlab.runs.evidence import identify
from embedlab.search.vectors import Vectors
from embedlab.training.adapters import KINDS, AdapterSettings, train_adapter
from embedlab.training.adapters.train import _Examples
from tests.conftest import TEXTS, tiny_model
from tests.stub_api import DIM, stub_api

F = np.float32


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(F)


def random_map(rng, dim, *, network=False, out=None):
    out = out or dim
    parts = {"inner": rng.normal(size=(dim, 5)), "bias": rng.normal(size=5), "outer": rng.normal(size=(5, out))}
    arrays = {"matrix": rng.normal(size=(dim, out)), "offset": rng.normal(size=out), **(parts if network else {})}
    return VectorMap.from_arrays({name: array.astype(F) for name, array in arrays.items()})


# Maps


def test_a_map_by_hand():
    matrix, offset = np.array([[1, 0], [0, 2]], F), np.array([0, 1], F)
    np.testing.assert_allclose(VectorMap(matrix, offset).apply(np.array([[3, 1.5]])), [[0.6, 0.8]], atol=1e-6)
    network = {"inner": np.array([[1], [-1]], F), "bias": np.array([-1], F), "outer": np.array([[0, 8]], F)}
    # relu(3 - 1.5 - 1) * 8 = 4 is added to the second number: (3, 4) + (0, 4) = (3, 8)
    mapped = VectorMap(matrix, offset, network).apply(np.array([[3, 1.5]]))
    np.testing.assert_allclose(mapped, np.array([[3, 8]]) / np.sqrt(73), atol=1e-6)
    assert VectorMap(matrix, offset, network).parameters == 4 + 2 + 2 + 1 + 2


def test_zeros_stay_zeros():
    assert VectorMap(np.eye(2, dtype=F), np.zeros(2, F)).apply(np.zeros((1, 2))).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    "change",
    [
        {"matrix": np.zeros(4, F)}, {"offset": np.zeros(3, F)}, {"matrix": np.eye(2)},
        {"offset": np.full(2, np.nan, F)}, {"inner": np.zeros((2, 1), F)}, {"more": np.zeros(1, F)},
        {"inner": np.zeros((2, 3), F), "bias": np.zeros(2, F), "outer": np.zeros((3, 2), F)},
    ],
)  # fmt: skip
def test_arrays_that_are_no_map(change):
    with pytest.raises(DataError):
        VectorMap.from_arrays({"matrix": np.eye(2, dtype=F), "offset": np.zeros(2, F), **change})


# Training


def noisy(count=120, dim=16, seed=0):
    """Queries and documents agree in four dimensions; the rest is noise that is three times as strong."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(count, 4))
    queries, corpus = (np.hstack([shared, 3 * rng.normal(size=(count, dim - 4))]) for _ in range(2))
    names = [str(number) for number in range(count)]
    return Vectors(tuple(f"q{name}" for name in names), tuple(names), unit(queries), unit(corpus))


def turned(count=120, dim=16, seed=0):
    """Queries are the documents in other coordinates: what a map of the queries alone can undo."""
    rng = np.random.default_rng(seed)
    corpus = rng.normal(size=(count, dim))
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(dim, dim)))[0]
    queries = corpus @ turn + 0.1 * rng.normal(size=(count, dim))
    names = [str(number) for number in range(count)]
    return Vectors(tuple(f"q{name}" for name in names), tuple(names), unit(queries), unit(corpus))


def first_ranks(vectors):
    """Share of the queries whose own document comes first."""
    return float((np.asarray(vectors.queries @ vectors.corpus.T).argmax(1) == np.arange(len(vectors.queries))).mean())


def pairs_of(vectors):
    return list(zip(vectors.query_ids, vectors.corpus_ids, strict=True))


SETTINGS = AdapterSettings(steps=150, learning_rate=5e-3, random_negatives=32, rank=8, hidden=32, patience=15)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_what_it_can(kind):
    data = turned if kind.startswith("query-") else noisy
    train, dev, test = data(seed=1), data(seed=2), data(seed=3)
    fitted = train_adapter(kind, train, pairs_of(train), lambda a: first_ranks(dev.adapted(a)), SETTINGS)
    before, after = first_ranks(test), first_ranks(test.adapted(fitted.adapter))
    assert after > before + 0.1
    assert fitted.history[0] == first_ranks(dev) and max(fitted.history.values()) == fitted.history[fitted.step] > 0
    is_query_side = kind.startswith("query-")
    assert fitted.adapter.changes_documents is not is_query_side
    assert (test.adapted(fitted.adapter).corpus is test.corpus) is is_query_side
    assert (fitted.adapter.query is fitted.adapter.document) is not is_query_side


def test_training_is_reproducible_and_leaves_the_random_state_alone():
    train = noisy()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    runs = [train_adapter("mlp", train, pairs_of(train), lambda a: 0.0 if a.query is None else 1.0, AdapterSettings(
        steps=20, seed=seed)).adapter.fingerprint for seed in (0, 0, 1)]  # fmt: skip
    assert runs[0] == runs[1] != runs[2]
    assert torch.equal(state, torch.random.get_rng_state())


def test_dev_decides_and_patience_ends_training():
    train, values = noisy(), iter([0.5, 0.6, 0.6, 0.4, 0.9, 0.9])
    settings = AdapterSettings(steps=200, every=10, patience=2)
    fitted = train_adapter("linear", train, pairs_of(train), lambda a: next(values), settings)
    assert fitted.history == {0: 0.5, 10: 0.6, 20: 0.6, 30: 0.4} and fitted.step == 10
    untouched = train_adapter("linear", train, pairs_of(train), lambda a: 0.5, settings)
    assert untouched.step == 0 and untouched.adapter.query is None and not untouched.adapter.changes_documents
    np.testing.assert_array_equal(train.adapted(untouched.adapter).queries, train.queries)


def test_candidates_and_mask_against_a_slow_reference():
    train = noisy(12)
    train = Vectors(
        ("q0", "q1", "3", *train.query_ids[3:]), train.corpus_ids, train.queries, train.corpus, frozenset("3")
    )
    pairs = [("q0", "0"), ("q0", "5"), ("q1", "1"), ("3", "2")]
    negatives = {("q0", "0"): ["7", "8"], ("q0", "5"): ["9"], ("q1", "1"): ["10", "11"], ("3", "2"): ["4", "6"]}
    examples = _Examples.of(train, pairs, negatives, torch.Generator().manual_seed(0))
    assert examples.documents.shape == (4, 3) and examples.documents[0].tolist() == [0, 7, 8]
    assert examples.documents[1, :2].tolist() == [5, 9]
    settings = AdapterSettings(batch_size=4, random_negatives=30)
    queries, documents, mask = examples.batch(settings, torch.Generator().manual_seed(1))
    row_of = {tuple(vector.tolist()): row for row, vector in enumerate(train.corpus)}
    name_of = {tuple(vector.tolist()): name for name, vector in zip(train.query_ids, train.queries, strict=True)}
    rows = [row_of[tuple(vector.tolist())] for vector in documents]
    relevant = {"q0": {0, 5}, "q1": {1}, "3": {2, 3}}
    assert len(rows) == 4 + 8 + 30
    for index, vector in enumerate(queries):
        expected = [row in relevant[name_of[tuple(vector.tolist())]] for row in rows]
        assert expected[index]  # the positive of the row itself
        expected[index] = False
        assert mask[index].tolist() == expected


def test_bad_input():
    train = noisy()
    with pytest.raises(DataError, match="needs training pairs"):
        train_adapter("linear", train, [], lambda a: 0.0)
    with pytest.raises(ParameterError, match="unknown kind"):
        train_adapter("cubic", train, pairs_of(train), lambda a: 0.0)


# On a local model: stock modules


@pytest.fixture(scope="module")
def local():
    return tiny_model()


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("sides", ["query", "both", "different"])
def test_stock_modules_compute_the_same(local, tmp_path, network, sides):
    rng = np.random.default_rng(0)
    one = random_map(rng, 32, network=network)
    other = {"query": None, "both": one, "different": random_map(rng, 32, network=network)}[sides]
    save_model(with_adapter(local, VectorAdapter("x", one, other)), tmp_path)
    assert not list(tmp_path.rglob("*.py"))
    vectors = local.encode(TEXTS, normalize_embeddings=True)
    stock = SentenceTransformer(str(tmp_path), device="cpu")
    documents = vectors if other is None else other.apply(vectors)
    np.testing.assert_allclose(stock.encode_query(TEXTS), one.apply(vectors), atol=2e-5)
    np.testing.assert_allclose(stock.encode_document(TEXTS), documents, atol=2e-5)
    ours = sides_of(load_model(str(tmp_path)))
    np.testing.assert_allclose(encode(ours.query.model, TEXTS), one.apply(vectors), atol=2e-5)
    np.testing.assert_allclose(encode(ours.document.model, TEXTS), documents, atol=2e-5)


# On an API model: a client of its own


@pytest.fixture
def stub(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(api, "_checked", {})
    with stub_api() as server:
        yield server


def client_in(folder):
    spec = importlib.util.spec_from_file_location("client_of_test", folder / "client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.AdaptedModel(folder)


@pytest.mark.parametrize("scheme", ["openai", "cohere", "voyage"])
@pytest.mark.parametrize("sides", ["query", "both", "different"])
def test_client_and_package_give_the_same_vectors(stub, tmp_path, monkeypatch, scheme, sides):
    monkeypatch.setenv({"openai": "OPENAI", "cohere": "CO", "voyage": "VOYAGE"}[scheme] + "_API_KEY", "SECRET-123456")
    rng = np.random.default_rng(0)
    one = random_map(rng, DIM, network=True, out=DIM if sides == "query" else 8)
    other = {"query": None, "both": one, "different": random_map(rng, DIM, out=8)}[sides]
    model = ApiModel.parse(f"{scheme}:m@{stub.url}?query_prompt=q%26+: &price=3&batch=2")
    folder = tmp_path / "adapter"
    save_adapter(model, VectorAdapter("x", one, other), folder, {"Run": "r"})
    assert not any(b"SECRET" in file.read_bytes() for file in folder.iterdir())
    texts = ["a b", "c", "", "d e f", "g"]
    client, package = client_in(folder), open_model(str(folder))
    of_model = sides_of(model)
    queries = one.apply(of_model.query.model.encode(texts, prompt=of_model.query.prompt))
    documents = of_model.document.model.encode(texts)
    documents = documents if other is None else other.apply(documents)
    loaded = sides_of(package)
    np.testing.assert_allclose(client.encode_queries(texts), queries, atol=1e-5)
    np.testing.assert_allclose(client.encode_documents(texts), documents, atol=1e-5)
    np.testing.assert_allclose(loaded.query.model.encode(texts, prompt=loaded.query.prompt), queries, atol=1e-5)
    np.testing.assert_allclose(encode(package, texts), documents, atol=1e-5)
    assert package.dimension == documents.shape[1] and model_fingerprint(package) != model_fingerprint(model)
    assert all(call["key"] == "Bearer SECRET-123456" for call in stub.requests)


# A static model next to an API model


@pytest.fixture(scope="module")
def static():
    model = static_student(tiny_model(), TEXTS)
    torch.nn.init.normal_(model[0].embedding.weight, generator=torch.Generator().manual_seed(0))
    return model


def test_a_static_table_has_the_vectors_of_its_model(static):
    table = StaticTable.of(static, 0.3)
    texts = [*TEXTS, "", "a " * 500]
    expected = encode(static, texts)
    np.testing.assert_allclose(table.encode(texts), expected, atol=1e-5)
    assert not table.encode([""]).any()
    other = StaticTable.of(static, 0.4)
    assert table.fingerprint == StaticTable.of(static, 0.3).fingerprint != other.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"weights": np.zeros((3, 2), F)}, {"weights": np.zeros(4, F)}, {"weights": np.full((999, 2), np.inf, F)},
        {"weights": np.zeros((999, 2))}, {"share": 1.5}, {"share": float("nan")}, {"tokenizer": "{"},
    ],
)  # fmt: skip
def test_parts_that_make_no_static_table(static, change):
    table = StaticTable.of(static, 0.3)
    with pytest.raises(DataError):
        StaticTable(**{"tokenizer": table.tokenizer, "weights": table.weights, "share": 0.3} | change)


def test_a_static_model_of_ngrams_is_refused(static):
    with pytest.raises(ModelError, match="words and n-grams"):
        StaticTable.of(with_ngrams(copy.deepcopy(static), TEXTS * 2), 0.3)


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_static_model_next_to_an_api_model_in_client_and_package(stub, static, tmp_path, is_mapped):
    model, table = ApiModel.parse(f"openai:m@{stub.url}?query_prompt=q: "), StaticTable.of(static, 0.3)
    one = random_map(np.random.default_rng(0), DIM, out=8) if is_mapped else None
    save_adapter(model, VectorAdapter("base+static", one, one), tmp_path, {}, static=table)
    client, package = client_in(tmp_path), open_model(str(tmp_path))
    texts = [*TEXTS, ""]
    for role, of_client in (("query", client.encode_queries), ("document", client.encode_documents)):
        side, loaded = getattr(sides_of(model), role), getattr(sides_of(package), role)
        alone = side.model.encode(texts, prompt=side.prompt)  # the static model does not read the prompt
        by_hand = concatenate(one.apply(alone) if one else alone, encode(static, texts), 0.3)
        np.testing.assert_allclose(of_client(texts), by_hand, atol=1e-5)
        np.testing.assert_allclose(loaded.model.encode(texts, prompt=loaded.prompt), by_hand, atol=1e-5)
    assert package.dimension == by_hand.shape[1] and model_fingerprint(package) != model_fingerprint(model)
    assert package.encode([]).shape == (0, package.dimension)
    assert "numpy, httpx and tokenizers" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("damage", ["no tokenizer", "other tokenizer", "no weights", "share", "no share"])
def test_a_damaged_static_model_is_one_error(stub, static, tmp_path, damage):
    adapter, table = VectorAdapter("base+static", None, None), StaticTable.of(static, 0.3)
    save_adapter(ApiModel.parse(f"openai:m@{stub.url}"), adapter, tmp_path, {}, static=table)
    about, tokenizer = tmp_path / "adapter.json", tmp_path / "tokenizer.json"
    content = json.loads(about.read_text())
    if damage == "no tokenizer":
        tokenizer.unlink()
    elif damage == "other tokenizer":
        tokenizer.write_text(tokenizer.read_text() + " ")
    elif damage == "no weights":
        np.savez(tmp_path / "adapter.npz")
    else:
        about.write_text(json.dumps(content | {"static": {"share": 0.9} if damage == "share" else {}}))
    with pytest.raises(ModelError):
        load_adapter(tmp_path)


def test_a_static_model_next_to_a_local_model_is_no_adapter(local, static, tmp_path):
    with pytest.raises(ModelError, match="concat_static"):
        save_adapter(local, VectorAdapter("x", None, None), tmp_path, {}, static=StaticTable.of(static, 0.3))


def test_client_notices_that_the_model_has_changed_and_repeats_when_busy(stub, tmp_path):
    model = ApiModel.parse(f"openai:m@{stub.url}")
    save_adapter(model, VectorAdapter("x", random_map(np.random.default_rng(0), DIM), None), tmp_path, {})
    stub.faults = [(429, {"Retry-After": "0"}, ""), (503, {"Retry-After": "0"}, "")]
    assert client_in(tmp_path).encode_queries(["a"]).shape == (1, DIM)
    stub.salt = "other"
    with pytest.raises(ValueError, match="has changed"):
        client_in(tmp_path).encode_queries(["a"])


def test_client_refuses_wrong_answers_and_shows_no_key(stub, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-SECRET-KEY-12345")
    save_adapter(ApiModel.parse(f"openai:m@{stub.url}"), VectorAdapter("x", None, None), tmp_path, {})
    client = client_in(tmp_path)
    client.encode_queries(["a"])
    for fault in (
        (200, {}, {"data": [{"index": 1, "embedding": [1.0] * DIM}]}),
        (200, {}, {"data": [{"index": 0, "embedding": [0.0] * DIM}]}),
        (200, {}, {"data": [{"index": 0, "embedding": [1.0]}]}),
        (400, {}, "invalid key sk-SECRET-KEY-12345"),
    ):
        stub.faults = [fault]
        with pytest.raises(ValueError) as caught:
            client.encode_queries(["b"])
        assert "SECRET" not in str(caught.value)


ENDLESS = b"10000\r\n" + b" " * 65_536 + b"\r\n"


@pytest.mark.parametrize(("block", "limit"), [(b"1\r\n \r\n", "TOTAL_S"), (ENDLESS, "MAX_ANSWER_BYTES")])
def test_client_does_not_wait_for_ever(stub, tmp_path, monkeypatch, block, limit):
    from tests.unit.test_http import HEAD, raw_server

    save_adapter(ApiModel.parse(f"openai:m@{stub.url}"), VectorAdapter("x", None, None), tmp_path, {})
    client = client_in(tmp_path)
    monkeypatch.setitem(type(client)._read.__globals__, limit, 0.3 if limit == "TOTAL_S" else 1 << 18)
    with raw_server(HEAD, block, pause_s=0.02) as url, pytest.raises(ValueError, match="too long"):
        client.about["request"]["address"] = url
        client.encode_queries(["a"])


@pytest.mark.parametrize(
    "damage", ["cut", "other weights", "no file", "not json", "deep", "format", "address", "pickle"]
)
def test_damaged_folders_are_one_error(stub, tmp_path, damage):
    adapter = VectorAdapter("x", random_map(np.random.default_rng(0), DIM), None)
    save_adapter(ApiModel.parse(f"openai:m@{stub.url}"), adapter, tmp_path, {})
    about, weights = tmp_path / "adapter.json", tmp_path / "adapter.npz"
    content = json.loads(about.read_text())
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-50])
    elif damage == "other weights":
        np.savez(weights, **{"query.matrix": np.eye(DIM, dtype=F), "query.offset": np.zeros(DIM, F)})
    elif damage == "pickle":
        np.savez(weights, **{"query.matrix": np.array([{}], dtype=object), "query.offset": np.zeros(DIM, F)})
    elif damage == "no file":
        weights.unlink()
    else:
        texts = {
            "not json": "{", "deep": "[" * 100_000, "format": json.dumps(content | {"format": 3}),
            "address": json.dumps(content | {"model": "openai:m@file:///etc"}),
        }  # fmt: skip
        about.write_text(texts[damage])
    with pytest.raises(ModelError):
        load_adapter(tmp_path)


def test_evidence_knows_models_without_a_limit(local):
    assert identify(static_student(local, TEXTS)).max_seq_length is None
    assert identify(local).max_seq_length == local.max_seq_length


def test_an_adapter_folder_has_no_weights_to_train(stub, tmp_path):
    save_adapter(ApiModel.parse(f"openai:m@{stub.url}"), VectorAdapter("x", None, None), tmp_path, {})
    with pytest.raises(ModelError, match="API model"):
        load_model(str(tmp_path))
