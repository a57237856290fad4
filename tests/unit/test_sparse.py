"""Sparse vectors: the inverted index by hand and against dense products, the computed head, training, saved folders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sentence_transformers import SparseEncoder

from embedlab.errors import DataError, ModelError
from embedlab.models.load import load_model
from embedlab.models.save import save_model
from embedlab.models.sparse import _discriminant_head, encode_sparse, load_sparse, sparse_from, strongest_terms
from embedlab.search.sparse import InvertedIndex, SparseVectors
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from embedlab.training.sparse import train_sparse
from tests.conftest import TEXTS, tiny_model

QUERIES = ["river", "music", "engine", "garden", "planet", "window", "bottle"]  # no word of TEXTS


@pytest.fixture(scope="module")
def base():
    return load_model(device="cpu")


@pytest.fixture(scope="module")
def start(base):
    return sparse_from(base, TEXTS)


def test_inverted_index_by_hand():
    """Documents {heart: 1, failure: 3}, {attack: 2}, {heart: 1}; the query {heart: 2, attack: 1} scores 2, 2 and 2."""
    corpus = csr_array(np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 2.0], [1.0, 0.0, 0.0]]))
    queries = csr_array(np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    index = InvertedIndex(corpus)
    scores, indices = index.search(queries, 3)
    assert indices.tolist() == [[0, 1, 2], [0, -1, -1], [-1, -1, -1]]  # ties in corpus order, no match is no rank
    assert scores[0].tolist() == [2, 2, 2] and scores[1, 0] == 3 and np.isneginf(scores[2]).all()
    assert index.bytes_per_document == 8 * 4 / 3


def test_search_equals_the_dense_product(monkeypatch):
    monkeypatch.setattr("embedlab.search.sparse.BLOCK_QUERIES", 3)
    rng = np.random.default_rng(0)
    corpus, queries = (rng.random((count, 20)) * (rng.random((count, 20)) < 0.3) for count in (30, 8))
    vectors = SparseVectors(
        tuple(f"q{row}" for row in range(8)),
        tuple(f"d{row}" for row in range(30)),
        csr_array(queries),
        csr_array(corpus),
    )
    ranking, products = vectors.rank(5), queries @ corpus.T
    for row in range(8):
        best = [document for document in np.argsort(-products[row], kind="stable") if products[row, document] > 0][:5]
        assert ranking.indices[row].tolist() == best + [-1] * (5 - len(best))
    pairs = [("q0", "d3"), ("q7", "d29"), ("q0", "d0")]
    scores = vectors.pair_scores(pairs)
    assert [scores[pair] for pair in pairs] == pytest.approx([products[0, 3], products[7, 29], products[0, 0]])
    assert vectors.terms_per_document == np.mean((corpus > 0).sum(1))


def test_the_own_document_is_left_out():
    one = csr_array(np.ones((2, 1)))
    ranking = SparseVectors(("a", "b"), ("a", "c"), one, one, frozenset({"a"})).rank(2)
    assert ranking.doc_ids.tolist() == [["c", None], ["a", "c"]]


def test_faults_have_one_clear_error():
    with pytest.raises(DataError, match="documents must be finite and 0 or more"):
        InvertedIndex(csr_array(np.array([[-1.0]])))
    index = InvertedIndex(csr_array(np.ones((2, 3))))
    with pytest.raises(DataError, match="queries must be finite"):
        index.search(csr_array(np.array([[np.nan, 0, 0]])), 1)
    with pytest.raises(DataError, match="3 dimensions, got 2"):
        index.search(csr_array(np.ones((1, 2))), 1)
    with pytest.raises(DataError, match="2 encoded documents"):
        SparseVectors(("q",), ("d",), csr_array(np.ones((1, 3))), csr_array(np.ones((2, 3))))
    with pytest.raises(DataError, match="fewer than two word pieces"):
        sparse_from(tiny_model(), ["fracture"])


def test_the_head_recognises_word_pieces():
    """Three kinds of tokens at three places with noise: the largest activation is a token's own kind, 3 on average."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.eye(3, 4, dtype=torch.float64)
    rows = torch.arange(3).repeat(40)
    hidden = centres[rows] + 0.3 * torch.randn(120, 4, generator=generator, dtype=torch.float64)
    weight, bias = _discriminant_head(hidden, rows, torch.ones(3, dtype=torch.float64))
    scores = hidden.float() @ weight.T + bias
    assert torch.equal(scores.argmax(1), rows)
    doubled, _ = _discriminant_head(hidden, rows, torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64))
    ratio = (doubled[0] / weight[0]) / (doubled[1] / weight[1])
    torch.testing.assert_close(ratio, torch.full((4,), 2.0), atol=1e-3, rtol=0)


def test_a_text_activates_its_own_words_most(start):
    strongest = strongest_terms(start.model, start.terms, "Cholera", count=3)
    own = start.model.tokenizer.tokenize("Cholera")
    assert set(own[:1]) <= set(strongest) and list(strongest.values()) == sorted(strongest.values(), reverse=True)
    assert len(start.terms) == len(set(start.terms)) == start.model.get_embedding_dimension()


def test_every_text_finds_itself_before_training(start):
    vectors = encode_sparse(start.model, TEXTS, "document")
    _, found = InvertedIndex(vectors).search(encode_sparse(start.model, TEXTS, "query"), 1)
    assert np.mean(found[:, 0] == np.arange(len(TEXTS))) > 0.7


def test_encoding_is_that_of_sentence_transformers(start):
    vectors = encode_sparse(start.model, TEXTS, "document")
    stock = start.model.encode_document(TEXTS, convert_to_sparse_tensor=False).numpy()
    assert vectors.toarray() == pytest.approx(stock, abs=1e-6) and vectors.nnz == (stock > 0).sum()
    assert encode_sparse(start.model, [], "query").shape == (0, len(start.terms))
    padded = sparse_from(load_model(packed=False, device="cpu"), TEXTS).model
    assert encode_sparse(padded, TEXTS, "document").toarray() == pytest.approx(stock, abs=1e-3)


def test_saves_as_a_stock_model(start, tmp_path):
    save_model(start.model, tmp_path / "model")
    assert "embedlab" not in (tmp_path / "model" / "modules.json").read_text()
    expected = encode_sparse(start.model, TEXTS, "document").toarray()
    for loaded in (SparseEncoder(str(tmp_path / "model"), device="cpu"), load_sparse(str(tmp_path / "model"))):
        assert encode_sparse(loaded, TEXTS, "document").toarray() == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ModelError) as caught:
        load_model(str(tmp_path / "model"))
    assert "load_sparse" in caught.value.remedy


def test_another_kind_of_model_is_not_completed_with_random_weights(tmp_path):
    tiny_model().save_pretrained(str(tmp_path / "dense"))
    with pytest.raises(ModelError, match="not a sparse model"):
        load_sparse(str(tmp_path / "dense"))


def test_training_lowers_the_loss_and_the_regulariser_prunes(base, tmp_path):
    """Queries share one word with their document. A strong regulariser leaves fewer words in the documents."""
    pairs = [(f"{word} {text.split()[-1]}", text) for word, text in zip(QUERIES, TEXTS, strict=True)]
    counts, losses = {}, {}
    for weight in (0.0, 0.3):
        model = sparse_from(base, TEXTS + QUERIES).model
        settings = FitSettings(epochs=15, batch_size=7, learning_rate=1e-4)
        options = {"document_weight": weight, "query_weight": weight, "output_dir": str(tmp_path)}
        history = train_sparse(model, number_rows(pairs), settings, **options).history
        losses[weight] = [row["loss"] for row in history if "loss" in row]
        counts[weight] = encode_sparse(model, TEXTS, "document").nnz
    assert losses[0.0][-1] < 0.5 * losses[0.0][0]
    assert 0 < counts[0.3] < 0.9 * counts[0.0]
