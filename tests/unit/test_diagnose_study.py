"""Whole studies of corpora built so that it is known what helps, and the edges of what can be studied."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from embedlab.cli import diagnose as cli
from embedlab.data.dataset import Dataset
from embedlab.errors import DataError, EmbedlabError
from embedlab.evaluation.diagnose import remedies
from embedlab.evaluation.diagnose.params import DiagnoseParams
from embedlab.evaluation.diagnose.report import headline
from embedlab.evaluation.diagnose.study import Candidate, Remedy, Study, within
from embedlab.evaluation.diagnose.verdict import GOOD_ENOUGH, MORE_DATA
from embedlab.evaluation.significance import paired_difference
from embedlab.models.encoders import Encoder
from embedlab.search.exact import Ranking

N = 160  # documents; queries of the first half are dev, of the second half test


def bag_encoder(concepts, limit=None):
    """Counts the concepts of the first `limit` words; words without a concept do not count."""
    dim = max(concepts.values()) + 1

    def embed(texts, *, stage, prompt):
        rows = np.zeros((len(texts), dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in ((prompt or "") + text).split()[:limit]:
                if word in concepts:
                    row[concepts[word]] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)

    return Encoder("bag", embed)


def dataset(documents, queries, train=(), **more):
    """Query n asks for document n; the first half is dev, the second test, `train` are numbers of further queries."""
    half = len(queries) // 2
    parts = {"train": train, "dev": range(half), "test": range(half, len(queries))}
    qrels = {split: {f"{split}{n}": {f"d{n}": 1} for n in numbers} for split, numbers in parts.items()}
    texts = {f"{split}{n}": queries[n] for split, numbers in parts.items() for n in numbers}
    return Dataset("made up", {f"d{n}": text for n, text in enumerate(documents)}, texts, qrels, **more)


def params(**values):
    return DiagnoseParams.checked({"dataset": "d", "model_name": "m", "prompts": [], "chunkings": [], **values})


def verdict_of(data, encoder, **values):
    study = Study(data, encoder)
    for remedy in remedies.applicable(study, params(**values)):
        study.compare(remedy)
    return study, study.verdict()


def shared_filler(n):
    return " ".join(["filler"] * 20 + [f"doc{n}"])


SYNONYMS = {f"{side}{n}": n for n in range(N) for side in ("ask", "doc")}


def gains(study):
    return {outcome.finding.kind: outcome.finding.gain.mean for outcome in study.outcomes}


def test_only_chunking_helps():
    """Every document begins with the same words, and the model reads no further; queries share no word with any."""
    data = dataset([shared_filler(n) for n in range(N)], [f"ask{n}" for n in range(N)])
    encoder = bag_encoder({**SYNONYMS, "filler": N}, limit=15)
    study, verdict = verdict_of(data, encoder, chunkings=["7", "30", "8+2"])
    assert (verdict.action, verdict.setting) == ("fix chunking", "7 words")
    assert gains(study)["chunking"] > 0.9
    assert gains(study)["hybrid"] <= 0 and np.isnan(gains(study)["bm25"])
    trials = study.trials().set_index("setting")["dev"]
    assert "30 words" not in trials  # it cuts nothing
    assert study.missed["cause"].eq("no shared word").all()


def test_only_the_hybrid_helps():
    """Even queries are synonyms, which the model knows; odd ones are names, which only BM25 can match."""
    documents = [f"doc{n}" for n in range(N)]
    queries = [f"ask{n}" if n % 2 == 0 else f"doc{n}" for n in range(N)]
    encoder = bag_encoder({word: n for word, n in SYNONYMS.items() if n % 2 == 0})
    study, verdict = verdict_of(dataset(documents, queries), encoder)
    # Centring gains a little: it maps texts of zeros, queries and documents, to the same place.
    assert verdict.action == "use hybrid" and verdict.afterwards == ("centre the vectors",)
    assert gains(study)["hybrid"] == pytest.approx(0.5, abs=0.05)
    assert abs(gains(study)["bm25"]) < 0.05
    assert verdict.expected.low > 0.3
    hybrid = next(outcome for outcome in study.outcomes if outcome.name == "hybrid")
    differences = hybrid.test.of("ndcg@10") - study.evaluations["test"].of("ndcg@10")
    assert hybrid.finding.detectable == pytest.approx(2.8016 * differences.std(ddof=1) / np.sqrt(N / 2), rel=1e-4)
    assert study.missed["cause"].eq("identifier").all()  # "doc7" has letters and digits


def test_bm25_is_enough_where_the_model_knows_nothing():
    words = [f"doc{n}" for n in range(N)]
    _, verdict = verdict_of(dataset(words, words), bag_encoder({"else": 0}))
    assert verdict.action == "use BM25"  # the hybrid is as good and costs more


def test_only_prompts_help():
    """The model takes the query's side from its prompt."""
    documents = [f"doc{n}" for n in range(N)]

    def embed(texts, *, stage, prompt):
        numbers = [int(text[3:]) for text in texts]
        shift = 0 if prompt == "find: " or texts[0].startswith("doc") else 1
        return np.eye(N, dtype=np.float32)[[(number + shift) % N for number in numbers]]

    data = dataset(documents, [f"ask{n}" for n in range(N)])
    study, verdict = verdict_of(data, Encoder("m", embed), prompts=["look: ||", "find: ||"])
    assert (verdict.action, verdict.setting) == ("change the prompts", "find: ||")
    assert gains(study)["prompts"] > 0.9


def test_only_the_filter_helps():
    """Ten documents look alike to the model and differ in their chapter, which neighbouring training queries tell."""
    concepts = {f"{side}{n}": n // 10 for n in range(N) for side in ("ask", "doc")}
    concepts |= {f"chapter{c}": N + c for c in range(10)}
    documents = [f"doc{n}" for n in range(N)]
    queries = [f"ask{n} chapter{n % 10}" for n in range(N)]
    chapters = {f"d{n}": f"chapter{n % 10}" for n in range(N)}
    data = dataset(documents, queries, train=range(N), labels={"chapter": chapters})
    known = {query: chapters[document] for split in data.qrels for query, document in data.pairs(split)}
    study = Study(data, bag_encoder(concepts))
    guessed = study.compare(remedies.guessed_filter(study, "chapter"))
    assert guessed.finding.gain.mean > 0.1 and guessed.finding.setting.startswith("chapter, ")
    told = Study(Dataset(**{**vars(data), "labels": {"chapter": {**chapters, **known}}}), bag_encoder(concepts))
    outcome = told.compare(remedies.known_filter(told, "chapter"))
    assert outcome.test.mean("ndcg@10") == pytest.approx(1)
    assert told.verdict().action == "filter by metadata"


def test_only_the_reranker_helps():
    concepts = {f"{side}{n}": n // 10 for n in range(N) for side in ("ask", "doc")}
    data = dataset([f"doc{n}" for n in range(N)], [f"ask{n}" for n in range(N)])
    study = Study(data, bag_encoder(concepts))
    for remedy in (remedies.bm25(study), remedies.hybrid(study)):
        study.compare(remedy)
    study.compare(remedies.reranking(study, lambda pairs: np.array([q[3:] == d[3:] for q, d in pairs], float), 10))
    assert study.verdict().action == "add a reranker"
    assert gains(study)["reranker"] == pytest.approx(1 - study.evaluations["test"].mean("ndcg@10"))


def test_only_another_model_helps(monkeypatch):
    data = dataset([f"doc{n}" for n in range(N)], [f"ask{n}" for n in range(N)])
    better, worse = bag_encoder(SYNONYMS), bag_encoder({"else": 0})
    monkeypatch.setattr(remedies, "open_encoder", {"better": better, "worse": worse}.__getitem__)
    study, verdict = verdict_of(data, worse, other_models=["worse", "better"])
    assert verdict.action == "pick model better"
    assert [outcome.name for outcome in study.outcomes] == ["centring", "bm25", "feedback", "hybrid", "worse", "better"]


def lookup_encoder(data, seed=0):
    """Meaning in 8 dimensions, the same for query n and document n, next to 24 louder random ones.

    Centring removes 8 directions at most, so most of the noise stays.
    """
    rng = np.random.default_rng(seed)
    texts = [*data.corpus.values(), *data.queries.values()]
    meaning = {text: rng.normal(size=8) for text in data.corpus.values()}
    rows = {text: [*meaning["doc" + text[3:]], *(1.3 * rng.normal(size=24))] for text in dict.fromkeys(texts)}

    def embed(given, *, stage, prompt):
        vectors = np.array([rows[text] for text in given], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return Encoder("lookup", embed)


def test_only_fine_tuning_helps_and_the_probe_foretells_it():
    documents = [f"doc{n}" for n in range(3 * N)]
    data = dataset(documents[:N], [f"ask{n}" for n in range(N)])
    extra = {f"t{n}": f"ask{n}" for n in range(N, 3 * N)}
    corpus = {f"d{n}": text for n, text in enumerate(documents)}
    train = {query: {f"d{query[1:]}": 1} for query in extra}
    data = Dataset("d", corpus, {**data.queries, **extra}, {**data.qrels, "train": train})
    study, verdict = verdict_of(data, lookup_encoder(data))
    assert verdict.action == "fine-tune" and "linear probe" in verdict.setting
    seconds = {outcome.finding.kind: outcome.seconds for outcome in study.outcomes}
    assert seconds["fine-tune"] > 5 * seconds["bm25"]  # its training counts
    assert verdict.expected.low > 0.01


def test_the_data_curve_ends_in_the_whole_probe_and_leaves_the_verdict_alone():
    data = dataset([f"doc{n}" for n in range(N)], [f"ask{n}" for n in range(N)], train=range(0, N, 2))
    study = Study(data, lookup_encoder(data))
    curve = remedies.data_curve(study, [0.01, 0.5, 1.0], steps=20)
    assert curve["queries"].tolist() == [1, 40, 80]
    assert study.outcomes == []
    whole = study.compare(remedies.probe(study, steps=20))
    assert curve["gain"].iloc[-1] == whole.finding.gain.mean
    again = remedies.data_curve(study, [1.0], steps=1)  # not fitted again, or one step would show
    assert again["gain"].tolist() == [whole.finding.gain.mean]


def test_too_few_training_pairs():
    data = dataset([f"doc{n}" for n in range(N)], [f"ask{n}" for n in range(N)], train=range(10))
    _, verdict = verdict_of(data, bag_encoder({"else": 0}), max_steps=3)
    assert (verdict.action, verdict.setting) == (MORE_DATA, "training pairs")


def test_good_enough():
    data = dataset([f"doc{n}" for n in range(N)], [f"ask{n}" for n in range(N)])
    assert verdict_of(data, bag_encoder(SYNONYMS))[1].action == GOOD_ENOUGH
    larger = Dataset("d", {**data.corpus, "more": "doc more"}, data.queries, data.qrels)
    assert Study(larger, bag_encoder(SYNONYMS), max_docs=N).verdict().action != GOOD_ENOUGH


class TestChoice:
    def rankings(self, *rows):
        indices = np.array(rows)
        queries = tuple(f"{'dev' if len(rows) == 1 else 'test'}{n}" for n in range(len(rows)))
        return Ranking(queries, ("d0", "d1"), indices, -indices.astype(np.float32))

    def study(self):
        data = dataset(["doc0", "doc1"], ["ask0", "ask1"])
        return Study(data, bag_encoder(SYNONYMS))

    def test_dev_chooses_and_test_is_ranked_once(self):
        calls = []

        def candidate(name, order):
            def rank(split):
                calls.append((name, split))
                queries = tuple(study.data.qrels[split])
                return Ranking(queries, ("d0", "d1"), np.array([order]), np.array([[2, 1]], np.float32))

            return Candidate(name, rank)

        study = self.study()
        # dev asks for d0, test for d1: the best on dev is the worst on test, and must be taken all the same.
        settings = [candidate("bad", [1, 0]), candidate("first", [0, 1]), candidate("as good", [0, 1])]
        outcome = study.compare(Remedy("hybrid", settings))
        assert outcome.finding.setting == "first"
        assert calls == [("bad", "dev"), ("first", "dev"), ("as good", "dev"), ("first", "test")]
        assert outcome.test.mean("ndcg@10") == pytest.approx(1 / np.log2(3))
        assert outcome.finding.gain.mean == pytest.approx(1 / np.log2(3) - 1)
        assert outcome.finding.dev_gain == 0
        assert study.trials()["chosen"].tolist() == [True, False, True, False]

    def test_nothing_to_try(self):
        with pytest.raises(DataError, match=".chunking. has no settings"):
            self.study().compare(Remedy("chunking", []))

    def test_the_table_holds_the_paired_difference(self):
        study = self.study()
        outcome = study.compare(remedies.hybrid(study))
        row = study.table().iloc[1]
        gain = paired_difference(outcome.test.of("ndcg@10"), study.evaluations["test"].of("ndcg@10"))
        assert (row["gain"], row["wins"], row["losses"], row["n"]) == (gain.mean, gain.wins, gain.losses, 1)


class TestEdges:
    def test_test_queries_are_needed(self):
        data = dataset(["doc0", "doc1"], ["ask0", "ask1"])
        with pytest.raises(DataError, match="no test queries"):
            Study(Dataset("d", data.corpus, data.queries, {**data.qrels, "test": {}}), bag_encoder(SYNONYMS))

    def test_without_dev_queries_every_remedy_uses_its_first_setting(self):
        data = dataset([f"doc{n}" for n in range(N)], [f"ask{n}" for n in range(N)])
        without_dev = Dataset("d", data.corpus, data.queries, {"train": {}, "dev": {}, "test": data.qrels["test"]})
        study, verdict = verdict_of(without_dev, bag_encoder(SYNONYMS))
        assert study.table()["setting"].tolist()[1:] == [
            "mean projection",
            "",
            "first 1, weight 0.1",
            "reciprocal ranks",
        ]
        assert study.table()["dev"].isna().all()
        assert study.table()["n"].tolist()[0] == len(data.qrels["test"])
        assert verdict.action

    def test_one_query_has_no_interval_and_more_data_comes_first(self):
        study, verdict = verdict_of(dataset(["doc0", "doc1"], ["ask0", "ask1"]), bag_encoder(SYNONYMS))
        assert verdict.action == MORE_DATA and "1 test queries" in verdict.reasons[0]
        shown = headline(study.table())
        assert shown["ndcg@10"].tolist() == ["1.000", "1.000", "", "1.000", "1.000"]
        assert shown["gain"].tolist() == ["", "+0.000", "", "+0.000", "+0.000"]

    def test_queries_without_answers_count_nowhere(self):
        data = dataset([f"doc{n}" for n in range(N)], [f"ask{n}" for n in range(N)])
        silent = {**data.qrels["test"], "silent": {}, "judged not": {"d0": 0}}
        more = {**data.queries, "silent": "ask0", "judged not": "ask0"}
        fuller = Dataset("d", data.corpus, more, {**data.qrels, "test": silent})
        encoder = bag_encoder({word: n // 2 for word, n in SYNONYMS.items()})
        (plain, one), (study, other) = (verdict_of(each, encoder) for each in (data, fuller))
        assert study.table()["n"].tolist() == plain.table()["n"].tolist() == [N // 2, N // 2, 0, N // 2, N // 2]
        np.testing.assert_allclose(study.table()["ndcg@10"], plain.table()["ndcg@10"])
        assert one.action == other.action and study.missed.equals(plain.missed)

    def test_documents_without_text_are_searched_and_asking_for_one_is_a_cut(self):
        documents = ["" if n == N - 1 else f"doc{n}" for n in range(N)]
        data = dataset(documents, [f"ask{n}" for n in range(N)])
        study, _ = verdict_of(data, bag_encoder(SYNONYMS), chunkings=["5"])
        assert study.missed[["query_id", "cause"]].values.tolist() == [[f"test{N - 1}", "truncated or missing"]]

    def test_fewer_documents_than_are_ranked(self):
        study, _ = verdict_of(dataset(["doc0 a", "doc1 b"], ["ask0", "ask1"]), bag_encoder(SYNONYMS), chunkings=["1"])
        assert study.table()["recall@100"].fillna(-1).tolist() == [1, 1, -1, 1, 1, 1]

    def test_all_scores_tied_is_no_gain_for_anyone(self):
        data = dataset(["same"] * N, [f"ask{n}" for n in range(N)])
        study, verdict = verdict_of(data, bag_encoder({"same": 0}))
        assert np.nanmax([*gains(study).values()]) <= 0 and verdict.action == MORE_DATA

    def test_a_study_without_remedies_still_has_a_table_and_a_verdict(self):
        study = Study(dataset(["doc0", "doc1"], ["ask0", "ask1"]), bag_encoder(SYNONYMS))
        assert list(headline(study.table())) == ["system", "setting", "ndcg@10", "recall@10"]
        assert len(study.trials()) == 1 and study.verdict().action == MORE_DATA


class TestWithin:
    def test_held_out_answers_stay_and_training_pairs_follow_their_documents(self):
        data = dataset([f"doc{n}" for n in range(100)], [f"ask{n}" for n in range(20)], train=range(0, 20, 5))
        extra = {f"x{n}": {f"d{n}": 1, f"d{n + 1}": 1} for n in range(20, 99)}
        data = Dataset("d", data.corpus, {**data.queries, **dict.fromkeys(extra, "x")}, {**data.qrels, "train": extra})
        small = within(data, 60)
        assert len(small.corpus) == 60 and {f"d{n}" for n in range(20)} <= set(small.corpus)
        assert small.qrels["dev"] == data.qrels["dev"] and small.qrels["test"] == data.qrels["test"]
        kept = small.pairs("train")
        assert 0 < len(kept) < len(data.pairs("train"))
        assert all(document in small.corpus for _, document in kept)
        study = Study(data, bag_encoder(SYNONYMS), max_docs=60)
        assert (len(study.data.corpus), study.train_pairs) == (60, len(data.pairs("train")))
        assert study.sampled and not Study(data, bag_encoder(SYNONYMS), max_docs=100).sampled

    def test_a_cap_that_leaves_no_training_document_is_said(self):
        data = dataset([f"doc{n}" for n in range(40)], [f"ask{n}" for n in range(20)])
        data = Dataset("d", data.corpus, {**data.queries, "x": "x"}, {**data.qrels, "train": {"x": {"d39": 1}}})
        with pytest.warns(
            UserWarning, match="max_docs=10 removes the documents of all training pairs.* are 20 documents"
        ):
            study = Study(data, bag_encoder(SYNONYMS), max_docs=10)
        assert study.train_pairs == 1 and not study.data.pairs("train")

    def test_no_cap_or_a_loose_one_changes_nothing(self):
        data = dataset(["doc0", "doc1"], ["ask0", "ask1"])
        assert within(data, 0) is data and within(data, 2) is data


class TestCommand:
    @pytest.fixture
    def command(self):
        app = typer.Typer()
        app.command()(cli.diagnose)
        return lambda *words: CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})

    @pytest.fixture
    def spec(self, tmp_path):
        rows = [{"query": f"ask{n}", "positive": f"filler{n} doc{n}"} for n in range(600)]
        (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return f"pairs:{tmp_path / 'pairs.jsonl'}"

    def test_it_prints_table_causes_and_verdict(self, command, spec, monkeypatch):
        concepts = {f"{side}{n}": n // 15 for n in range(600) for side in ("ask", "doc")}
        monkeypatch.setattr("embedlab.models.encoders.open_encoder", lambda name: bag_encoder(concepts))
        result = command(spec, "--chunk", "1", "--prompt", "query: ||")
        assert result.exit_code == 0, result.output
        for text in ("base", "bm25", "hybrid", "chunking", "prompts", "fine-tune", "queries miss", "Verdict: "):
            assert text in result.output
        assert "Left out: enrichment, because the documents have no headings or metadata" in result.output

    def test_the_limit_of_enrichment_is_that_of_the_notebook(self):
        assert inspect.signature(cli.diagnose).parameters["enrich_characters"].default == params().enrich_characters

    def test_impossible_values_are_one_clear_error(self, command, spec):
        result = command(spec, "--good-enough", "2")
        assert isinstance(result.exception, EmbedlabError) and "good_enough" in str(result.exception)
