"""Clusters, neighbours and contexts: hand-made vectors whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.clustering import cluster, labelled_rows, project
from embedlab.evaluation.context import answer_in_context, token_counts
from embedlab.evaluation.neighbours import evaluate_neighbours, item_groups
from embedlab.search.exact import ABSENT, Ranking


def unit(rows):
    rows = np.array(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def blobs(groups, size, noise, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.eye(groups, 8).repeat(size, 0)
    return unit(centres + rng.normal(0, noise, centres.shape)), [f"g{i}" for i in np.arange(groups).repeat(size)]


class TestClustering:
    def test_separate_groups_are_found_and_shuffled_labels_are_not(self):
        vectors, labels = blobs(2, 40, 0.05)
        assert cluster(vectors, labels).mean == pytest.approx(1)
        shuffled = list(np.random.default_rng(0).permutation(labels))
        assert cluster(vectors, shuffled).mean < 0.1

    def test_agrees_with_the_definition(self):
        from sklearn.cluster import MiniBatchKMeans
        from sklearn.metrics import completeness_score, homogeneity_score

        vectors, labels = blobs(3, 30, 0.6)
        found = cluster(vectors, labels, starts=2, seed=5)
        for start, value in enumerate(found.v_measures):
            assigned = MiniBatchKMeans(3, batch_size=512, n_init=1, random_state=5 + start).fit_predict(vectors)
            h, c = homogeneity_score(labels, assigned), completeness_score(labels, assigned)
            assert value == pytest.approx(2 * h * c / (h + c))
        assert (found.clusters, found.n) == (3, 90)
        assert math.isnan(cluster(vectors, labels, starts=1).spread)

    def test_rows_are_a_seeded_sample_of_the_labelled(self, monkeypatch):
        monkeypatch.setattr("embedlab.evaluation.clustering.MAX_ITEMS", 20)
        ids, labels = [f"i{n}" for n in range(50)], {f"i{n}": "ab"[n % 2] for n in range(40)}
        rows, values = labelled_rows(ids, labels, seed=1)
        assert len(rows) == 20 and max(rows) < 40
        assert values == [labels[ids[row]] for row in rows]
        assert rows.tolist() == labelled_rows(ids, labels, seed=1)[0].tolist()
        assert rows.tolist() != labelled_rows(ids, labels, seed=2)[0].tolist()

    @pytest.mark.parametrize("labels", [{}, {"a": "x", "b": "x"}, {"a": "x", "b": "y"}])
    def test_labels_that_part_nothing_are_refused(self, labels):
        with pytest.raises(DataError, match="labelled items"):
            labelled_rows(["a", "b"], labels)

    def test_impossible_calls(self):
        with pytest.raises(ParameterError, match="one label per vector"):
            cluster(np.eye(3), ["a", "b"])

    def test_projection_is_the_best_plane(self):
        points = np.random.default_rng(0).normal(size=(50, 5)) * [10, 3, 0.1, 0.1, 0.1]
        flat = project(points)
        centred = points - points.mean(0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
        np.testing.assert_allclose(np.abs(flat), np.abs(centred @ axes.T), atol=1e-6)


class TestNeighbours:
    IDS = ("a1", "a2", "b1", "b2", "c")
    VECTORS = unit([[1, 0], [1, 0.1], [0, 1], [0.9, 0.3], [0.1, 1]])
    GROUPS = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "c": "c"}

    def test_by_hand(self):
        found = evaluate_neighbours(self.IDS, self.VECTORS, self.GROUPS, k=1)
        # nearest others: a1-a2, a2-a1, b1-c, b2-a2; c is alone in its group
        assert found.of("hit@1")[:4].tolist() == [1, 1, 0, 0] and math.isnan(found.of("hit@1")[4])
        assert found.n == 4 and found.mean("hit@1") == 0.5

    def test_deeper_lists_divide_by_k_and_by_the_group(self):
        groups = {"a1": "a", "a2": "a", "b2": "a", "b1": "b", "c": "b"}
        found = evaluate_neighbours(self.IDS, self.VECTORS, groups, k=2)
        assert found.of("precision@2").tolist() == [1, 1, 0.5, 1, 0.5]
        assert found.of("recall@2").tolist() == [1, 1, 1, 1, 1]

    def test_nobody_is_its_own_neighbour_even_among_copies(self):
        vectors = unit([[1, 0]] * 4)
        found = evaluate_neighbours(list("wxyz"), vectors, dict(zip("wxyz", "abcd", strict=True)), k=3)
        assert found.n == 0
        found = evaluate_neighbours(list("wxyz"), vectors, {"w": "a", "x": "a"}, k=3)
        assert found.query_ids == ("w", "x") and found.of("precision@3").tolist() == [1 / 3, 1 / 3]

    def test_more_neighbours_than_items(self):
        assert evaluate_neighbours(self.IDS, self.VECTORS, self.GROUPS, k=50).of("hit@50")[:4].tolist() == [1] * 4

    def test_a_sample_asks_fewer_but_searches_all(self, monkeypatch):
        whole = evaluate_neighbours(self.IDS, self.VECTORS, self.GROUPS, k=1)
        monkeypatch.setattr("embedlab.evaluation.neighbours.MAX_ITEMS", 2)
        part = evaluate_neighbours(self.IDS, self.VECTORS, self.GROUPS, k=1)
        place = {query: row for row, query in enumerate(whole.query_ids)}
        assert len(part.query_ids) == 2
        expected = [whole.of("hit@1")[place[query]] for query in part.query_ids]
        np.testing.assert_array_equal(part.of("hit@1"), expected)

    def test_bad_input(self):
        with pytest.raises(DataError, match="5 ids, 4 vectors"):
            evaluate_neighbours(self.IDS, self.VECTORS[:4], self.GROUPS)
        with pytest.raises(DataError, match="No item has a group"):
            evaluate_neighbours(self.IDS, self.VECTORS, {"other": "x"})

    def test_groups_from_relations_or_queries(self):
        corpus = {name: name for name in "abcd"}
        relations = {"a": frozenset("b"), "b": frozenset("ac"), "c": frozenset("b")}
        data = Dataset("x", corpus, {}, {}, related=relations)
        groups = item_groups(data)
        assert groups["a"] == groups["b"] == groups["c"] != groups["d"]
        asked = Dataset(
            "x", corpus, {"q": "", "r": ""}, {"test": {"q": {"a": 1, "b": 1}, "r": {"c": 1}}}, groups={"q": "g"}
        )
        assert item_groups(asked) == {"a": "g", "b": "g"}
        with pytest.raises(DataError, match="does not group"):
            item_groups(Dataset("x", corpus, {}, {}))


class TestContext:
    def ranking(self, indices):
        indices = np.array(indices)
        scores = np.where(indices == ABSENT, -np.inf, -np.arange(indices.shape[1], dtype=np.float32))
        queries = tuple(f"q{row}" for row in range(len(indices)))
        return Ranking(queries, ("a", "b", "c"), indices, scores.astype(np.float32))

    LENGTHS = np.array([4, 6, 1])

    @pytest.mark.parametrize(("budget", "inside"), [(3, 0), (4, 0), (9, 0), (10, 1), (11, 1)])
    def test_a_document_counts_when_it_fits_whole(self, budget, inside):
        values = answer_in_context(self.ranking([[0, 1, 2]]), {"q0": {"b": 1}}, self.LENGTHS, budget)
        assert values.tolist() == [inside]

    def test_what_comes_after_the_cut_is_out_though_it_would_fit(self):
        assert answer_in_context(self.ranking([[0, 1, 2]]), {"q0": {"c": 1}}, self.LENGTHS, 5).tolist() == [0]

    def test_any_positive_will_do_and_grades_of_zero_do_not(self):
        values = answer_in_context(
            self.ranking([[0, 2, ABSENT]] * 3),
            {"q0": {"b": 1, "c": 2}, "q1": {"a": 0}, "q2": {"b": 1}},
            self.LENGTHS,
            5,
        )
        assert values[0] == 1 and math.isnan(values[1]) and values[2] == 0

    def test_an_absent_place_is_not_the_last_document(self):
        values = answer_in_context(self.ranking([[ABSENT, ABSENT, ABSENT]]), {"q0": {"c": 1}}, self.LENGTHS, 99)
        assert values.tolist() == [0]

    def test_more_room_never_hurts(self):
        rng = np.random.default_rng(0)
        ranking = self.ranking([rng.permutation(3) for _ in range(20)])
        qrels = {query: {"abc"[i % 3]: 1} for i, query in enumerate(ranking.query_ids)}
        shares = [answer_in_context(ranking, qrels, self.LENGTHS, budget).mean() for budget in range(1, 12)]
        assert shares == sorted(shares) and shares[-1] == 1

    def test_bad_input(self):
        with pytest.raises(DataError, match="got 2 for 3 documents"):
            answer_in_context(self.ranking([[0]]), {}, np.array([1, 2]), 5)
        with pytest.raises(ParameterError, match="must be at least 1 token, got 0"):
            answer_in_context(self.ranking([[0]]), {}, self.LENGTHS, 0)

    def test_tokens_of_the_whole_text(self, tiny):
        long = "fracture " * 500
        assert token_counts(tiny, ["", "fracture", long]).tolist() == [0, 1, 500]
