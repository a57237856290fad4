"""Centring, enrichment and feedback: values by hand, what must change nothing, and studies in which only one helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.errors import ParameterError
from embedlab.evaluation.diagnose import remedies
from embedlab.evaluation.diagnose.enrichment import Enrichment, affordable, enrichments
from embedlab.evaluation.diagnose.params import DiagnoseParams
from embedlab.evaluation.diagnose.study import Study
from embedlab.models.adapter import VectorAdapter, with_adapter
from embedlab.models.centring import all_but_the_top, mean_projection
from embedlab.models.encoders import Encoder
from embedlab.search.exact import ABSENT, Ranking
from embedlab.search.feedback import with_feedback
from embedlab.search.vectors import Vectors

N = 120  # documents; queries of the first half are dev, of the second half test


def unit(rows):
    rows = np.array(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_units(n, dim, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, dim)))


class TestCentring:
    def test_mean_projection_by_hand(self):
        """The mean of (3, 1) and (1, 3) is (2, 2). Of (3, 1), the part along it is (2, 2): (1, -1) remains."""
        projected = mean_projection(np.array([[3.0, 1.0], [1.0, 3.0]])).apply(np.array([[3.0, 1.0], [5.0, 5.0]]))
        np.testing.assert_allclose(projected[0], [np.sqrt(0.5), -np.sqrt(0.5)], atol=1e-6)
        assert abs(mean_projection(np.array([[2.0, 2.0]])).matrix @ [1, 1]).max() < 1e-6

    def test_all_but_the_top_by_hand(self):
        """Mean (0, 1, 1); around it the first axis varies most, then the second."""
        sample = np.array([[2.0, 1, 1], [-2, 1, 1], [0, 2, 1], [0, 0, 1]])
        point = np.array([[6.0, 4.0, 5.0]])  # (6, 3, 4) from the mean
        for directions, expected in ((0, [6, 3, 4]), (1, [0, 3, 4]), (2, [0, 0, 4])):
            np.testing.assert_allclose(all_but_the_top(sample, directions).apply(point), unit([expected]), atol=1e-6)

    def test_a_zero_mean_and_no_directions_change_nothing(self):
        corpus = np.vstack([random_units(9, 6), -random_units(9, 6)])
        for unchanged in (mean_projection(corpus), all_but_the_top(corpus, 0)):
            np.testing.assert_allclose(unchanged.apply(corpus), corpus, atol=1e-6)
        assert mean_projection(corpus).matrix.tolist() == np.eye(6).tolist()

    def test_it_equals_the_textbook(self):
        corpus = random_units(200, 12) + np.float32(0.3)
        mean = corpus.mean(axis=0, dtype=np.float64)
        axes = np.linalg.svd(corpus - mean, full_matrices=False)[2][:3]
        centred = corpus - mean
        expected = centred - centred @ axes.T @ axes
        np.testing.assert_allclose(all_but_the_top(corpus, 3).apply(corpus), unit(expected), atol=1e-5)

    @pytest.mark.parametrize("directions", [-1, 3])
    def test_impossible_numbers_of_directions(self, directions):
        with pytest.raises(ParameterError, match="between 0 and 2"):
            all_but_the_top(np.eye(3), directions)

    def test_a_model_with_it_is_a_stock_folder_and_gives_the_same_vectors(self, tmp_path):
        from sentence_transformers import SentenceTransformer

        from embedlab.models.load import load_model
        from embedlab.models.save import save_model

        model = load_model("all-MiniLM-L6-v2")
        texts = [f"{disease} of the {organ}" for disease in ("cyst", "ulcer") for organ in ("lung", "liver", "eye")]
        vectors = model.encode(texts, normalize_embeddings=True)
        centred = all_but_the_top(vectors, 1)
        save_model(with_adapter(model, VectorAdapter("centring", centred, centred)), tmp_path / "centred")
        loaded = SentenceTransformer(str(tmp_path / "centred"), device="cpu")
        assert not any(tmp_path.glob("centred/**/*.py"))
        np.testing.assert_allclose(loaded.encode(texts), centred.apply(vectors), atol=1e-5)


class TestFeedback:
    vectors = Vectors(
        ("q",), ("a", "b", "c"), np.array([[1.0, 0]], np.float32), unit([[0.8, 0.6], [0.6, 0.8], [-1, 0]])
    )

    def test_by_hand(self):
        """Of a = (0.8, 0.6) and b = (0.6, 0.8) the mean is (0.7, 0.7); the query becomes (1.7, 0.7) for weight 1."""
        moved = with_feedback(self.vectors, self.vectors.rank(3), 2, 1.0)
        np.testing.assert_allclose(moved.queries, unit([[1.7, 0.7]]), atol=1e-6)
        np.testing.assert_allclose(
            with_feedback(self.vectors, self.vectors.rank(3), 1, 0.5).queries, unit([[1.4, 0.3]])
        )
        assert moved.corpus is self.vectors.corpus and self.vectors.queries.tolist() == [[1, 0]]

    def test_fewer_documents_than_asked_for(self):
        indices = np.array([[1, ABSENT, ABSENT]])
        few = Ranking(("q",), ("a", "b", "c"), indices, np.array([[0.6, -np.inf, -np.inf]], np.float32))
        np.testing.assert_allclose(with_feedback(self.vectors, few, 3, 1.0).queries, unit([[1.6, 0.8]]), atol=1e-6)
        none = replace(few, indices=np.full((1, 3), ABSENT))
        np.testing.assert_allclose(with_feedback(self.vectors, none, 3, 1.0).queries, [[1, 0]])

    def test_weight_0_changes_nothing(self):
        names = tuple(map(str, range(40)))
        space = Vectors(names[:7], names, random_units(7, 5), random_units(40, 5, seed=1))
        moved = with_feedback(space, space.rank(10), 10, 0.0)
        np.testing.assert_allclose(moved.queries, space.queries, atol=1e-6)
        np.testing.assert_array_equal(moved.rank(10).indices, space.rank(10).indices)

    def test_impossible_values(self):
        ranking = self.vectors.rank(2)
        for documents, weight, message in (
            (0, 1.0, "k must be at least 1"),
            (1, -0.1, "weight"),
            (1, np.nan, "weight"),
        ):
            with pytest.raises(ParameterError, match=message):
                with_feedback(self.vectors, ranking, documents, weight)
        with pytest.raises(ParameterError, match="other queries or documents"):
            with_feedback(self.vectors, replace(ranking, query_ids=("other",)), 1, 1.0)


class TestEnrichments:
    corpus = {"d0": "Anemia, unspecified", "d1": "Ulcer", "d2": "Cyst"}

    def ways(self, **more):
        data = Dataset("d", self.corpus, {"q0": "Low blood"}, {"test": {"q0": {"d0": 1}}}, **more)
        return {way.setting: dict(way.prefixes) for way in enrichments(data)}

    def test_headings_in_front_the_widest_first(self):
        headings = {"d0": ("Blood", "Anemias"), "d1": ("Skin",), "unknown": ("Skin",)}
        ways = self.ways(headings=headings)
        assert ways == {
            "nearest heading": {"d0": "Anemias", "d1": "Skin"},
            "all headings": {"d0": "Blood. Anemias", "d1": "Skin"},
        }
        way = Enrichment("all headings", ways["all headings"])
        enriched = {"d0": "Blood. Anemias. Anemia, unspecified", "d1": "Skin. Ulcer"}
        assert way.texts(self.corpus) == enriched and way.characters(self.corpus) == sum(map(len, enriched.values()))

    def test_fields_alone_and_together(self):
        fields = {"d0": {"source": "book", "age": "adult"}, "d1": {"source": "web"}, "d2": {"source": "web"}}
        assert self.ways(fields=fields) == {
            "field age": {"d0": "age: adult"},
            "field source": {"d0": "source: book", "d1": "source: web", "d2": "source: web"},
            "all fields": {"d0": "age: adult. source: book", "d1": "source: web", "d2": "source: web"},
        }

    def test_nothing_of_the_queries_enters(self):
        fields = {"q0": {"source": "a"}, "d1": {"asked": "low  BLOOD", "other": "x"}}
        assert self.ways(fields=fields, headings={"d2": ("Low blood",)}) == {"field other": {"d1": "other: x"}}

    def test_a_document_with_the_id_of_a_query_has_no_metadata_here(self):
        data = Dataset("d", self.corpus, {"d0": "ill"}, {}, fields={"d0": {"seen": "unseen"}, "d1": {"seen": "no"}})
        assert [dict(way.prefixes) for way in enrichments(data)] == [{"d1": "seen: no"}]

    def test_what_tells_nothing_new_is_left_out(self):
        same = dict.fromkeys(self.corpus, ("Diseases",))
        assert self.ways(headings=same) == {}
        assert self.ways(headings={"d1": ("ulcer",)}, fields={"d2": {"title": "Cyst", "empty": ""}}) == {}
        headings = {"d0": ("Blood",), "d1": ("Skin",)}
        chapters = {document: {"chapter": title} for document, (title,) in headings.items()}
        assert list(self.ways(headings=headings, fields=chapters)) == ["nearest heading"]

    def test_the_limit_takes_ways_in_their_order(self):
        ways = [Enrichment(name, {"d1": "x" * n}) for name, n in (("a", 3), ("b", 90), ("c", 13))]  # 10, 97 and 20
        for limit, names in ((9, ""), (10, "a"), (29, "a"), (30, "ac"), (126, "ab"), (127, "abc")):
            assert "".join(way.setting for way in affordable(ways, self.corpus, limit)) == names


def study_of(documents, queries, rows, **more):
    """Query n asks for document n; the first half is dev. `rows` are the vectors of all texts."""
    half = len(queries) // 2
    parts = {"dev": range(half), "test": range(half, len(queries))}
    qrels = {"train": {}, **{split: {f"q{n}": {f"d{n}": 1} for n in numbers} for split, numbers in parts.items()}}
    texts = {f"q{n}": text for n, text in enumerate(queries)}
    data = Dataset("made up", {f"d{n}": text for n, text in enumerate(documents)}, texts, qrels, **more)
    return Study(data, Encoder("lookup", lambda texts, *, stage, prompt: unit([rows(text) for text in texts])))


def outcomes(study, **values):
    plain = {"dataset": "d", "model_name": "m", "prompts": [], "chunkings": []}
    for remedy in remedies.applicable(study, DiagnoseParams.checked({**plain, **values})):
        study.compare(remedy)
    return {outcome.finding.kind: outcome for outcome in study.outcomes}


def faint_meaning(shift):
    """Vectors of ask n and doc n: a faint common meaning, next to what `shift` adds to the text."""
    meaning = random_units(N, 16)
    return lambda text: np.concatenate([meaning[int(text[3:])], shift(text)])


class TestStudies:
    def test_only_centring_helps(self):
        """All vectors share one loud direction with a sign by chance: around its mean, it is the first component."""
        rng = np.random.default_rng(3)
        loud = {f"{side}{n}": 4 * rng.normal() for side in ("ask", "doc") for n in range(N)}
        study = study_of(
            [f"doc{n}" for n in range(N)],
            [f"ask{n}" for n in range(N)],
            faint_meaning(lambda text: [loud[text], 0.5]),
        )
        found = outcomes(study)
        assert found["centring"].finding.setting == "mean and 1 direction removed"
        assert study.evaluations["test"].mean("ndcg@10") < 0.3 and found["centring"].test.mean("ndcg@10") > 0.8
        verdict = study.verdict()
        assert verdict.action == "centre the vectors" and "models.adapter.with_adapter" in verdict.next_step
        assert list(study.trials().query("kind == 'centring'")["setting"]) == [
            "mean projection",
            "mean removed",
            "mean and 1 direction removed",
            *(f"mean and {n} directions removed" for n in (2, 4, 8)),
        ]

    def test_only_feedback_helps(self):
        """The query t finds three documents t + u first, then a dozen others; the answer is nearer to u than to t.

        The answer has rank 16. Next to t + 0.4 (t + u) / √2 it has rank 4.
        """
        noise = random_units(12 * N, 8)

        def row(text):
            kind, number = text.replace(" n", " ").split()
            vector, topic = np.zeros(2 * N + 8), int(number) % N
            along, across = {"ask": (1, 0), "answer": (0.45, 0.89), "near": (1, 1), "other": (0.5, 0)}[kind]
            vector[[topic, N + topic]] = along, across
            if kind == "other":
                vector[2 * N :] = np.sqrt(0.75) * noise[int(number)]
            return vector

        documents = [
            f"{kind} {n}" for kind, count in (("answer", 1), ("near", 3), ("other", 12)) for n in range(count * N)
        ]
        study = study_of(documents, [f"ask n{n}" for n in range(N)], row)
        found = outcomes(study)
        assert study.evaluations["test"].mean("ndcg@10") == 0
        assert found["feedback"].test.mean("ndcg@10") == pytest.approx(1 / np.log2(5))
        assert study.verdict().action == "use pseudo-relevance feedback"
        trials = found["feedback"].trials  # of the first 10 documents, 7 lead elsewhere
        assert trials["first 10, weight 0.4"] < trials["first 1, weight 0.4"]

    def test_only_enrichment_helps(self):
        """Documents have numbers that mean nothing to the model; the heading says what they are about."""
        topics = random_units(N, 32)

        def row(text):
            topic = next((word[5:] for word in text.replace(".", "").split() if word.startswith("topic")), None)
            return np.append(topics[int(topic)] if topic else np.zeros(32), 0.1)

        headings = {f"d{n}": ("Everything", f"topic{n}") for n in range(N)}
        encoded = []

        def counted(text):
            encoded.append(text)
            return row(text)

        study = study_of(
            [f"no {n}" for n in range(N)], [f"topic{n} please" for n in range(N)], counted, headings=headings
        )
        found = outcomes(study)
        assert found["enrichment"].finding.setting == "nearest heading"
        assert found["enrichment"].test.mean("ndcg@10") == pytest.approx(1)
        assert found["enrichment"].seconds > 0 and study.left_out["filter"]
        assert study.verdict().action == "enrich the documents"
        assert encoded.count("topic7. no 7") == encoded.count("Everything. topic7. no 7") == 1  # once for dev and test
        assert "enrichment" not in study.left_out

    def test_only_enriched_documents_are_encoded_again(self):
        encoded = []

        def row(text):
            encoded.append(text)
            return np.eye(4)[3 if text.startswith("x") else int(text[-1])]

        study = study_of(["no 0", "no 1", "no 2"], ["ask 0", "ask 1"], row, headings={"d1": ("x",)})
        before = study.vectors["test"]
        encoded.clear()
        [way] = enrichments(study.data)
        outcome = study.compare(remedies.enrichment(study, [way]))
        assert encoded == ["x. no 1"] and outcome.finding.gain.mean < 0  # query 1 asked for document 1
        assert before.corpus.tolist() == study.vectors["test"].corpus.tolist()

    def test_what_is_left_out_and_why(self):
        texts = [f"doc{n}" for n in range(N)], [f"ask{n}" for n in range(N)], faint_meaning(lambda text: [0.0])
        plain = study_of(*texts)
        assert "enrichment" not in outcomes(plain, chunkings=["9"])
        assert plain.left_out == {
            "enrichment": "the documents have no headings or metadata that say more than their text",
            "chunking": "no document is longer than a chunk",
            "filter": "the documents have no label that tells them apart",
            "fine-tune": "there are no training pairs whose document is searched",
        }
        headings = {f"d{n}": (f"heading {n}",) for n in range(N)}
        limited = study_of(*texts, headings=headings)
        assert "enrichment" not in outcomes(limited, enrich_characters=100)
        assert "more than enrich_characters=100; set max_docs" in limited.left_out["enrichment"]
        off = study_of(*texts, headings=headings)
        assert "enrichment" not in outcomes(off, enrich_characters=0) and "enrichment" not in off.left_out
