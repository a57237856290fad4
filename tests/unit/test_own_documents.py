"""A query that is in the corpus under its own id must not find itself, unless it is judged relevant to itself."""

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.evaluation.diagnose.chunking import Chunks, rank_by_best_chunk
from embedlab.evaluation.diagnose.filters import rank_among
from embedlab.evaluation.metrics import evaluate
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.exact import Ranking
from embedlab.search.funnel import Funnel, rank_with
from embedlab.search.fusion import fuse_rrf
from embedlab.search.quantised import QuantisedVectors
from embedlab.search.rescore import rescored
from embedlab.search.vectors import Vectors

CORPUS = {"a": "red pump leaks", "b": "red pump fix", "c": "blue lamp", "d": "blue lamp fix", "e": "green"}
QUERIES = {"a": "red pump leaks", "c": "blue lamp", "x": "green"}
QRELS = {"a": {"b": 1}, "c": {"c": 1, "d": 1}, "x": {"e": 1}}  # c is judged relevant to itself
DATASET = Dataset("data", CORPUS, QUERIES, {"train": {}, "dev": {}, "test": QRELS})
OWN = DATASET.own_documents("test")


def _vectors(own=OWN):
    rng = np.random.default_rng(0)
    of_text = {text: rng.standard_normal(16) for text in CORPUS.values()}
    of_text["red pump fix"] = of_text["red pump leaks"] + 0.2 * rng.standard_normal(16)
    corpus, queries = (np.array([of_text[t] for t in texts.values()], np.float32) for texts in (CORPUS, QUERIES))
    corpus, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (corpus, queries))
    return Vectors(tuple(QUERIES), tuple(CORPUS), queries, corpus, own)


def test_only_queries_that_are_not_relevant_to_themselves_have_an_own_document():
    assert {"a"} == OWN


@pytest.mark.parametrize(
    "rank",
    [
        lambda vectors, k: vectors.rank(k),
        lambda vectors, k: rank_with(Funnel(vectors.corpus, (8, 16), (5,)), vectors, k),
        lambda vectors, k: rank_with(QuantisedVectors.encode(vectors.corpus, "int8"), vectors, k),
        lambda vectors, k: rank_with(
            rescored(QuantisedVectors.encode(vectors.corpus, "int8"), vectors.corpus, 5), vectors, k
        ),
        lambda vectors, k: rank_by_best_chunk(
            vectors, Chunks(tuple(CORPUS.values()) * 2, np.repeat(np.arange(5), 2)), vectors.corpus.repeat(2, 0), k
        ),
        lambda vectors, k: rank_among(vectors, [frozenset(), frozenset("1"), frozenset()], dict.fromkeys("ab", "1"), k),
        lambda vectors, k: bm25_ranking(CORPUS, QUERIES, k, own_documents=vectors.own_documents),
        lambda vectors, k: fuse_rrf(
            [vectors.rank(k), bm25_ranking(CORPUS, QUERIES, k, own_documents=vectors.own_documents)], k
        ),
    ],
    ids=["exact", "funnel", "quantised", "rescored", "chunks", "filter", "bm25", "fusion"],
)
def test_every_search_leaves_the_own_document_out(rank):
    ranking = rank(_vectors(), 2)
    assert ranking.depth == 2
    assert ranking.doc_ids[0, 0] == "b"
    assert "a" not in ranking.doc_ids[0]
    assert ranking.doc_ids[2, 0] == "e"
    plain = rank(_vectors(frozenset()), 2)
    assert plain.doc_ids[0].tolist() == ["a", "b"]
    np.testing.assert_array_equal(ranking.indices[1:], plain.indices[1:])


def test_a_document_judged_relevant_to_itself_stays():
    assert _vectors().rank(1).doc_ids[1, 0] == "c"


def test_evaluate_leaves_it_out_of_any_ranking():
    ranking = Ranking.from_scores({"a": {"a": 3.0, "b": 2.0}, "c": {"c": 3.0, "d": 2.0}, "x": {"e": 1.0}})
    assert evaluate(ranking, QRELS, [2]).mean("ndcg@2") == 1.0


def test_a_query_that_did_not_find_itself_keeps_its_ranks():
    ranking = Ranking.from_scores({"a": {"b": 3.0, "c": 2.0}, "c": {"a": 1.0}}).without_own({"a", "c"}, 2)
    assert ranking.as_candidates() == {"a": [("b", 3.0), ("c", 2.0)], "c": [("a", 1.0)]}
