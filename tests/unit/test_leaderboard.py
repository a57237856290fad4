"""The leaderboard records what it measures, compares what it has, and chooses on dev."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from embedlab.data.dataset import Dataset
from embedlab.evaluation import reranking
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.static_share import best_share, score_static_shares
from embedlab.models import concatenation
from embedlab.models.cache import EmbeddingCache
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.layers import layer_count
from embedlab.models.static import static_model
from embedlab.runs.leaderboard import Leaderboard
from embedlab.search.exact import Ranking
from embedlab.search.strategies import at_width
from embedlab.search.vectors import Vectors, encode_split
from tests.conftest import TEXTS, tiny_model

QRELS = {"q1": {"d0": 1}, "q2": {"d3": 1}}


class RecordingRun(SimpleNamespace):
    """Stands in for a run: every call is kept as (method, positional arguments, keyword arguments)."""

    def __init__(self):
        super().__init__(calls=[], notes={})

    def metrics(self, evaluation, **labels):
        self.calls.append(("metrics", labels))

    def difference(self, difference, **labels):
        self.calls.append(("difference", labels))

    def value(self, metric, value, **labels):
        self.calls.append((metric, labels))

    def note(self, **notes):
        self.notes |= notes

    def fingerprint(self, models):
        self.calls += [("fingerprint", {system: fingerprint}) for system, fingerprint in models.items()]

    def of(self, name):
        return [labels for method, labels in self.calls if method == name]


@pytest.fixture
def board():
    corpus = {f"d{i}": text for i, text in enumerate(TEXTS)}
    queries = {"q1": "cholera", "q2": "bone fracture"}
    data = Dataset(name="toy", corpus=corpus, queries=queries, qrels={"test": QRELS, "dev": QRELS})
    return Leaderboard(RecordingRun(), data)


@pytest.mark.parametrize("roles", [(), (1, 4), range(len(TEXTS))], ids=["no queries", "some", "all"])
def test_every_text_is_encoded_once_with_the_prompt_of_its_role(board, roles, monkeypatch, tmp_path):
    monkeypatch.setattr(board, "_cache", EmbeddingCache(tmp_path))
    model, calls = tiny_model(), []
    model.prompts = {"query": "query: ", "document": "passage: "}
    encode = board._cache.encode
    monkeypatch.setattr(board._cache, "encode", lambda m, t, **kw: calls.extend(t) or encode(m, t, **kw))
    vectors = board.encode(model, TEXTS, queries=[TEXTS[i] for i in roles])
    for row, text in enumerate(TEXTS):
        expected = model.encode(text, prompt="query: " if row in roles else "passage: ", normalize_embeddings=True)
        np.testing.assert_allclose(vectors[row], expected, atol=1e-5)
    assert sorted(calls) == sorted(TEXTS)


class TestLeaderboard:
    def test_models_are_recorded_at_every_smaller_width(self, board):
        board.add_model("contrastive", tiny_model(), dims=[32, 8, 4], condition="2 layers")
        labels = board.run.of("metrics")
        assert [label["dim"] for label in labels] == [32, 8, 4] == list(board.by_dim["contrastive"])
        assert {(label["system"], label["split"], label["condition"]) for label in labels} == {
            ("contrastive", "test", "2 layers")
        }

    def test_differences_need_both_systems(self, board):
        board.add_bm25()
        assert board.compare("contrastive", "bm25") is None
        board.add_model("contrastive", tiny_model())
        assert board.compare("contrastive", "bm25").n == 2
        (label,) = board.run.of("difference")
        assert (label["system"], label["against"], label["dim"]) == ("contrastive", "bm25", 32)

    def test_hybrid_sums_reciprocal_ranks(self, board):
        documents = tuple(board.data.corpus)
        scores = np.tile(np.arange(7, 0, -1, dtype=np.float32), (2, 1))
        for system, order in (("bm25", [0, 1, 2, 3, 4, 5, 6]), ("base", [3, 2, 0, 1, 4, 5, 6])):
            board.add_ranking(system, Ranking(("q1", "q2"), documents, np.array([order, order]), scores))
        board.add_hybrid("base")
        sums = [1 / 61 + 1 / 63, 1 / 62 + 1 / 64, 1 / 63 + 1 / 62, 1 / 64 + 1 / 61]  # ranks of d0 to d3 in both
        hybrid = board.rankings["hybrid"]
        np.testing.assert_allclose(hybrid.scores[0, :4], sorted(sums, reverse=True), rtol=1e-6)
        assert hybrid.indices[0, :4].tolist() == [0, 3, 2, 1]
        board.add_ranking("contrastive", board.rankings["base"])
        board.add_hybrid("contrastive")
        assert board.run.of("metrics")[-1]["system"] == "contrastive+bm25"

    def test_linear_probe_learns_from_training_pairs(self, board):
        board.data.qrels["train"] = QRELS
        board.data.qrels["dev"] = QRELS
        model = tiny_model()
        base = board.add_model("base", model)
        probe = board.add_linear_probe(model, board.vectors(model, "train"))
        quality = {name: evaluation.mean("ndcg@10") for name, evaluation in board.evaluations.items()}
        assert quality["linear-probe"] > quality["base"]
        mapped = board.vectors(model).mapped(probe.blended(1.0))
        np.testing.assert_array_equal(mapped.rank(100).indices, board.rankings["linear-probe"].indices)
        np.testing.assert_allclose(probe.blended(0.25), 0.25 * probe.matrix + 0.75 * np.eye(32), rtol=1e-6)
        assert board.run.of("metrics")[-1] == {"system": "linear-probe", "split": "test", "dim": 32, "condition": ""}
        assert base.dim == 32
        assert board.run.of("fingerprint") == [{"base": model_fingerprint(model)}]  # of the base model only

    def test_truncation_is_compared_with_the_full_width(self, board):
        board.add_model("base", tiny_model(), dims=[32, 8])
        table = board.compare_truncated("base")
        assert table["dim"].tolist() == [8]
        full, short = (board.by_dim["base"][dim].mean("ndcg@10") for dim in (32, 8))
        assert table["share of full (%)"].item() == pytest.approx(100 * short / full)

    def test_shallow_models_keep_the_full_one(self, board):
        model = tiny_model(layers=3)
        board.add_model("base", model)
        board.add_shallow("base", 1, [32])
        assert board.run.of("metrics")[-1]["condition"] == "1 layers" and layer_count(model) == 3
        assert list(board.by_dim["base"]) == [32]

    def test_searches_are_compared_with_the_first(self, board):
        vectors = board.add_model("base", tiny_model())
        searchers = {"full": at_width(vectors.corpus, 32), "4 dims": at_width(vectors.corpus, 4)}
        recorded = len(board.run.calls)
        table = board.search_table(searchers, vectors)
        assert len(board.run.calls) == recorded
        assert table["recall of full search"].iloc[0] == 1 and table["difference"].iloc[0] == 0
        board.search_table(searchers, vectors, system="base")
        (label,) = board.run.of("difference")
        assert label["condition"] == "4 dims, against full" and label["against"] == "base"

    @pytest.mark.parametrize(("rows", "narrower"), [(0.1, True), (2, False)])
    def test_concatenation_has_the_best_share_and_is_projected_if_there_are_enough_documents(
        self, board, monkeypatch, rows, narrower
    ):
        monkeypatch.setattr(concatenation, "ROWS_PER_DIMENSION", rows)
        transformer = tiny_model()
        torch.manual_seed(0)
        static = static_model(transformer, torch.randn(len(transformer.tokenizer), 16))
        model = board.concatenate(transformer, static)
        joined, encoded = board.vectors(model), encode_split(model, board.data, "test")
        assert joined.queries == pytest.approx(encoded.queries, abs=1e-5)
        assert joined.corpus == pytest.approx(encoded.corpus, abs=1e-5) and joined.dim == encoded.dim
        assert model.get_embedding_dimension() == transformer.get_embedding_dimension() + (0 if narrower else 16)
        on_dev = board.run.notes["static_share_on_dev"]
        halves = (encode_split(part, board.data, "dev") for part in (transformer, static))
        scores = score_static_shares(*halves, board.data.qrels["dev"])
        assert board.run.notes["static_share"] == best_share(scores)
        assert on_dev == {str(share): pytest.approx(values.mean()) for share, values in scores.items()}

    def test_a_concatenation_is_measured_without_encoding_its_parts_again(self, board, monkeypatch):
        transformer = tiny_model()
        static = static_model(transformer, torch.randn(len(transformer.tokenizer), 12))
        board.vectors(transformer)
        model = board.concatenate(transformer, static, narrow=False)
        monkeypatch.setattr(type(transformer[0]), "forward", lambda *_, **__: pytest.fail("the transformer ran again"))
        board.add_model("base+static", model)
        assert board.evaluations["base+static"].mean("ndcg@10") > 0

    def test_examples_show_gains_then_losses(self, board):
        documents = tuple(board.data.corpus)
        for system, order in (("base", [3, 0, 1, 2, 4, 5, 6]), ("contrastive", [0, 3, 1, 2, 4, 5, 6])):
            scores = np.tile(np.arange(7, 0, -1, dtype=np.float32), (2, 1))
            board.add_ranking(system, Ranking(("q1", "q2"), documents, np.array([order, order]), scores))
        table = board.examples("contrastive", "base", count=1)
        assert table["query"].tolist() == ["cholera", "bone fracture"]
        assert table["contrastive"].iloc[0] > table["base"].iloc[0]


def ranking():
    return Ranking(
        ("q1", "q2"), ("a", "b", "c"), np.array([[0, 1, 2], [2, 1, -1]]), np.float32([[3, 2, 1], [2, 1, -np.inf]])
    )


class TestReranking:
    qrels = {"q1": {"c": 1}, "q2": {"b": 1}}

    def test_headroom_is_what_a_perfect_order_gains(self):
        """q1 has its answer at rank 3, q2 at rank 2: reranking two documents lifts only q2 to the top."""
        table = reranking.headroom(ranking(), self.qrels, (2, 3), "mrr@10")
        assert table["mrr@10"].tolist() == pytest.approx([(1 / 3 + 1 / 2) / 2, (1 / 3 + 1) / 2, 1.0])
        assert table["documents reranked"].tolist() == [0, 2, 3]

    def test_all_weight_on_the_embedding_model_changes_nothing(self):
        logits = np.float32([[1, 5], [0, 9]])
        kept = reranking.rerank_shortlist(ranking(), logits, 1.0)
        assert kept.indices.tolist() == ranking().indices.tolist()
        assert reranking.rerank_shortlist(ranking(), logits).indices.tolist() == [[1, 0, 2], [1, 2, -1]]

    def test_share_curve_ends_at_the_ranking_as_it_is(self):
        curve = reranking.share_curve(ranking(), np.float32([[1, 5], [0, 9]]), self.qrels, "mrr@10")
        assert curve["mrr@10"].iloc[-1] == pytest.approx(evaluate(ranking(), self.qrels).mean("mrr@10"))
        assert curve["mrr@10"].iloc[0] == pytest.approx((1 / 3 + 1) / 2)


def test_static_shares_are_scored_on_the_concatenation():
    """The transformer prefers the wrong document, the static model the right one."""
    eye = np.eye(2, dtype=np.float32)
    transformer = Vectors(("q",), ("right", "wrong"), eye[1:], eye)
    static = Vectors(("q",), ("right", "wrong"), eye[:1], eye)
    scores = score_static_shares(transformer, static, {"q": {"right": 1}}, metric="mrr@10", shares=(0.2, 0.8))
    assert {share: values.tolist() for share, values in scores.items()} == {0.2: [0.5], 0.8: [1.0]}
