"""Late interaction: MaxSim by hand and against loops, shortlists, and models that save as stock folders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder

from embedlab.errors import DataError, ModelError, ParameterError
from embedlab.models.late_interaction import (
    TokenVectors,
    encode_tokens,
    late_interaction_from,
    load_late_interaction,
)
from embedlab.models.load import load_model
from embedlab.models.packing import pack
from embedlab.models.save import save_model
from embedlab.search.exact import Ranking
from embedlab.search.late_interaction import TokenIndex, max_sim
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from embedlab.training.late_interaction import score_rows_by_tokens, train_late_interaction
from tests.conftest import TEXTS, tiny_model

QUERIES = ["river", "music", "engine", "garden", "planet", "window", "bottle"]  # no word of TEXTS


def ragged(rng, count, dim=5, most=4):
    lengths = rng.integers(1, most + 1, count)
    vectors = rng.normal(size=(lengths.sum(), dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return TokenVectors(vectors, np.cumsum([0, *lengths]))


def slow_max_sim(query, document):
    return sum(max(float(np.dot(token, other)) for other in document) for token in query)


@pytest.fixture
def index():
    rng = np.random.default_rng(0)
    queries, corpus = ragged(rng, 6), ragged(rng, 9)
    return TokenIndex(tuple("abcdef"), tuple(f"d{row}" for row in range(9)), queries, corpus)


@pytest.fixture(scope="module")
def encoder():
    return late_interaction_from(tiny_model(), TEXTS, dim=8)


def test_max_sim_by_hand():
    """Query tokens (1, 0), (0, 1). First document: 0.6 + 1. Second: 0 + 0, its only token points away. Third: 1 + 0."""
    tokens = np.array([[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    documents = TokenVectors(tokens, np.array([0, 2, 3, 4]))
    assert max_sim(np.eye(2), documents).tolist() == pytest.approx([1.6, -1.0, 1.0])
    assert max_sim(np.eye(2), documents, np.array([2, 0, 2])).tolist() == pytest.approx([1.0, 1.6, 1.0])
    assert len(max_sim(np.eye(2), documents, np.array([], dtype=int))) == 0


def test_ranking_equals_loops_over_all_tokens(index):
    ranking = index.rank(4)
    for row in range(6):
        scores = np.array([slow_max_sim(index.queries[row], index.corpus[document]) for document in range(9)])
        best = np.argsort(-scores, kind="stable")[:4]
        assert ranking.indices[row].tolist() == best.tolist()
        assert ranking.scores[row].tolist() == pytest.approx(scores[best].tolist(), abs=1e-5)
    pairs = [("b", "d3"), ("a", "d0"), ("b", "d1")]
    scores = index.pair_scores(pairs)
    rows = {name: row for row, name in enumerate("abcdef")}
    expected = [slow_max_sim(index.queries[rows[q]], index.corpus[int(d[1])]) for q, d in pairs]
    assert [scores[pair] for pair in pairs] == pytest.approx(expected, abs=1e-5)


def test_equal_documents_are_in_corpus_order():
    documents = TokenVectors(np.ones((3, 1), np.float32), np.array([0, 1, 2, 3]))
    index = TokenIndex(("q",), ("x", "y", "z"), TokenVectors(np.ones((2, 1)), np.array([0, 2])), documents)
    assert index.rank(3).doc_ids.tolist() == [["x", "y", "z"]]


def test_rerank_orders_the_shortlist_only(index):
    """A shortlist of three with an empty rank: MaxSim orders the two documents, and finds no other."""
    indices = np.tile([7, 2, -1], (6, 1))
    first = Ranking(index.query_ids, index.corpus_ids, indices, np.zeros((6, 3), np.float32))
    ranking = index.rerank(first, 3)
    for row in range(6):
        scores = {document: slow_max_sim(index.queries[row], index.corpus[document]) for document in (7, 2)}
        assert ranking.indices[row].tolist() == [*sorted(scores, key=lambda document: -scores[document]), -1]
    whole = index.rerank(index.rank(9), 5)
    assert np.array_equal(whole.indices, index.rank(5).indices)


def test_the_own_document_is_left_out(index):
    own = TokenIndex(tuple("abcdef"), ("a", *(f"d{row}" for row in range(1, 9))), index.queries, index.corpus, {"a"})
    assert "a" not in own.rank(9).doc_ids[0].tolist() and "a" in own.rank(9).doc_ids[1].tolist()


def test_tokens_find_what_max_sim_finds_when_all_are_read(index):
    """With every token found, the sum of the best tokens is MaxSim itself."""
    found = index.token_shortlist(len(index.corpus.vectors), 9)
    exact = index.rank(9)
    assert np.array_equal(found.indices, exact.indices)
    assert found.scores == pytest.approx(exact.scores, abs=1e-5)


def test_a_short_token_search_by_hand():
    """One token per query token: (1, 0) finds 0.9, (0, 1) finds 0.8, and the third document is missed."""
    tokens = np.array([[0.9, 0.1], [0.0, 0.8], [0.5, 0.5]], np.float32)
    documents = TokenVectors(tokens, np.array([0, 1, 2, 3]))
    queries = TokenVectors(np.eye(2, dtype=np.float32), np.array([0, 2]))
    found = TokenIndex(("q",), ("x", "y", "z"), queries, documents).token_shortlist(1, 3)
    assert found.doc_ids.tolist() == [["x", "y", None]]
    assert found.scores[0, :2].tolist() == pytest.approx([0.9, 0.8])


def test_faults_have_one_clear_error(index):
    with pytest.raises(DataError, match="has no token"):
        TokenVectors(np.ones((1, 2)), np.array([0, 0, 1]))
    with pytest.raises(DataError, match="do not match where"):
        TokenVectors(np.ones((3, 2)), np.array([0, 2]))
    with pytest.raises(DataError, match="5\\), got"):
        max_sim(np.ones((2, 3)), index.corpus)
    with pytest.raises(DataError, match="other queries or another corpus"):
        index.rerank(Ranking(("a",), index.corpus_ids, np.zeros((1, 1), int), np.zeros((1, 1), np.float32)), 1)
    with pytest.raises(ParameterError, match="at most 2"):
        index.rerank(index.rank(2), 3)
    with pytest.raises(DataError, match="5 encoded|encoded documents"):
        TokenIndex(("a",), index.corpus_ids, index.queries, index.corpus)
    with pytest.raises(ModelError, match="32 dimensions, got dim=64"):
        late_interaction_from(tiny_model(), TEXTS, dim=64)


def test_max_sim_is_that_of_sentence_transformers(encoder):
    queries, documents = (
        encode_tokens(encoder, TEXTS[:3], "query", half=False),
        encode_tokens(encoder, TEXTS, "document"),
    )
    stock = encoder.similarity(encoder.encode_query(TEXTS[:3]), encoder.encode_document(TEXTS)).numpy()
    ours = np.stack([max_sim(queries[row], documents) for row in range(3)])
    assert ours == pytest.approx(stock, abs=0.02)  # half precision, up to 20 tokens
    assert documents.vectors.dtype == np.float16 and documents.bytes_per_text == 2 * 8 * len(documents.vectors) / 7


def test_the_projection_keeps_more_than_random_directions(encoder):
    """Rows are orthonormal, and the token vectors lose less length on them than on any 8 axes drawn at random."""
    weight = encoder[1].linear.weight.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)
    model = tiny_model()
    tokens = torch.cat(model.encode(TEXTS, output_value="token_embeddings", convert_to_numpy=False)).float()
    tokens = torch.nn.functional.normalize(tokens, dim=1)
    random = torch.linalg.qr(torch.randn(32, 8, generator=torch.Generator().manual_seed(0)))[0].T
    assert (tokens @ weight.T).square().sum() > 1.5 * (tokens @ random.T).square().sum()


def test_packed_batches_give_the_same_vectors(encoder):
    packed = late_interaction_from(pack(tiny_model()), TEXTS, dim=8)
    assert encode_tokens(packed, TEXTS, "document", half=False).vectors == pytest.approx(
        encode_tokens(encoder, TEXTS, "document", half=False).vectors, abs=1e-4
    )


def test_saves_as_a_stock_model(encoder, tmp_path):
    save_model(encoder, tmp_path / "model", facts={"Run": "x"})
    assert "embedlab" not in (tmp_path / "model" / "modules.json").read_text()
    assert "MultiVectorEncoder(" in (tmp_path / "model" / "README.md").read_text()
    expected = encode_tokens(encoder, TEXTS, "document").vectors
    for loaded in (
        MultiVectorEncoder(str(tmp_path / "model"), device="cpu"),
        load_late_interaction(str(tmp_path / "model")),
    ):
        assert np.array_equal(encode_tokens(loaded, TEXTS, "document").vectors, expected)
    with pytest.raises(ModelError) as caught:
        load_model(str(tmp_path / "model"))
    assert "load_late_interaction" in caught.value.remedy


def test_another_kind_of_model_is_not_completed_with_random_weights(tmp_path):
    tiny_model().save_pretrained(str(tmp_path / "dense"))
    with pytest.raises(ModelError, match="not a model with one vector per token"):
        load_late_interaction(str(tmp_path / "dense"))


def test_training_brings_queries_to_their_documents(tmp_path):
    """Queries that share no word with their document: MaxSim ranks it first after training, and not before."""
    pairs = list(zip(QUERIES, TEXTS, strict=True))
    model = late_interaction_from(load_model(device="cpu"), TEXTS)

    def accuracy():
        queries = encode_tokens(model, [query for query, _ in pairs], "query")
        documents = encode_tokens(model, [document for _, document in pairs], "document")
        return np.mean([max_sim(queries[row], documents).argmax() == row for row in range(7)])

    before = accuracy()
    settings = FitSettings(epochs=20, batch_size=7, learning_rate=2e-4)
    result = train_late_interaction(model, number_rows(pairs), settings, output_dir=str(tmp_path))
    assert before < 0.5 < 0.8 < accuracy()
    losses = [row["loss"] for row in result.history if "loss" in row]
    assert losses[-1] < losses[0] / 2


def test_teacher_scores_are_mean_cosines_over_the_temperature(encoder):
    rows = [(TEXTS[0], TEXTS[1], TEXTS[2]), (TEXTS[3], TEXTS[4], TEXTS[0])]
    scores = score_rows_by_tokens(encoder, rows, temperature=0.1)
    for number, (query, *documents) in enumerate(rows):
        tokens = encode_tokens(encoder, [query], "query")[0].astype(np.float32)
        expected = [
            slow_max_sim(tokens, encode_tokens(encoder, [text], "document")[0].astype(np.float32)) for text in documents
        ]
        assert scores[number].tolist() == pytest.approx([value / len(tokens) / 0.1 for value in expected], abs=0.02)
