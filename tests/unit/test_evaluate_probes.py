"""Probes of forgetting: local files as tasks, items behind every score, paired differences."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.local_tasks import labelled_columns, local_task, sts_columns
from embedlab.evaluation.probes import ProbeScore, compare_probe, compare_probes, correlation_difference, open_probe
from embedlab.models.encode import encode
from tests.conftest import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore")

STS = (
    'A plane flies.,A plane is flying.,5.0\nA man eats.,A dog sleeps.,0\n"One, two",One and two,3.5\nRain,Wet snow,2\n'
)


@pytest.fixture
def sts_file(tmp_path):
    path = tmp_path / "sts.csv"
    path.write_text(STS, encoding="utf-8")
    return path


@pytest.fixture
def labelled_folder(tmp_path):
    for split, count in (("train", 9), ("test", 6)):
        rows = [f"{word} number {i},{word}" for i in range(count) for word in ("card", "loan", "cash")]
        (tmp_path / f"{split}.csv").write_text("text,category\n" + "\n".join(rows), encoding="utf-8")
    (tmp_path / "README.md").write_text("no data")
    return tmp_path


class TestFiles:
    def test_sts_with_and_without_a_header(self, sts_file, tmp_path):
        columns = sts_columns(sts_file)
        assert columns["score"] == [5, 0, 3.5, 2] and columns["sentence1"][2] == "One, two"
        titled = tmp_path / "titled.tsv"
        titled.write_text("Text1\tText2\tScore\n" + "x\ty\t1\n", encoding="utf-8")
        assert sts_columns(titled) == {"sentence1": ["x"], "sentence2": ["y"], "score": [1.0]}
        lines = tmp_path / "lines.jsonl"
        lines.write_text(json.dumps({"sentence1": "x", "sentence2": "y", "score": 1}))
        assert sts_columns(lines)["score"] == [1.0]

    @pytest.mark.parametrize(
        ("content", "place"),
        [
            ("sentence1,sentence2,score\na,b,1\nc,d,high\n", r":3 \[score\]: 'score' must be a number"),
            ("sentence1,sentence2,score\na,b,nan\n", r":2 \[score\]"),
            ("sentence1,score\na,1\n", r":2 \[sentence2\]: 'sentence2' is missing"),
            ("sentence1,sentence2,score\na,,1\n", r":2 \[sentence2\]: 'sentence2' is empty"),
        ],
    )
    def test_bad_sts_lines_are_named(self, tmp_path, content, place):
        path = tmp_path / "bad.csv"
        path.write_text(content)
        with pytest.raises(DataError, match=f"bad.csv{place}"):
            sts_columns(path)

    def test_labels_are_numbered_alike_in_both_splits(self, labelled_folder):
        columns = labelled_columns(labelled_folder)
        assert columns.keys() == {"train", "test"}
        assert columns["test"]["label"][:3] == columns["train"]["label"][:3] == [0, 2, 1]

    def test_a_split_column_and_json_lists(self, tmp_path):
        one = tmp_path / "one.csv"
        one.write_text("text,label,split\na,x,train\nb,y,test\nc,x,val\n")
        assert {split: part["text"] for split, part in labelled_columns(one).items()} == {
            "train": ["a"],
            "test": ["b"],
            "dev": ["c"],
        }
        other = tmp_path / "other.json"
        other.write_text(json.dumps({"train": [["a", "x"]], "test": [["b", "y"]]}))
        assert labelled_columns(other)["test"] == {"text": ["b"], "label": [1]}

    def test_what_cannot_be_a_task(self, tmp_path, labelled_folder):
        with pytest.raises(ParameterError, match="Unknown task kind 'sentiment'"):
            local_task("sentiment", tmp_path)
        with pytest.raises(DataError, match="no train split"):
            local_task("classification", labelled_folder / "test.csv")
        flat = tmp_path / "flat.csv"
        flat.write_text("a,b,1\nc,d,1\n")
        with pytest.raises(DataError, match="same score"):
            local_task("sts", flat)
        alone = tmp_path / "alone.csv"
        alone.write_text("text,label\na,x\nb,y\n")
        with pytest.raises(DataError, match="form no groups"):
            local_task("clustering", alone)
        broken = tmp_path / "broken.json"
        broken.write_text("[1, 2]")
        with pytest.raises(DataError, match="not a JSON list of objects"):
            local_task("clustering", broken)
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="no train or test file"):
            local_task("classification", tmp_path / "empty")


class TestScores:
    def test_sts_items_give_the_score(self, tiny, sts_file):
        from scipy.stats import spearmanr

        score = open_probe(f"sts:{sts_file}")(tiny)
        assert score.metric == "cosine_spearman" and score.gold.tolist() == [5, 0, 3.5, 2]
        assert score.value == pytest.approx(spearmanr(score.gold, score.items).statistic)

    def test_classifiers_draw_from_two_hundred_texts_of_a_label(self, tmp_path):
        labelled = [(f"text {n}", "many" if n < 300 else "few") for n in range(310)]
        rows = [("train", *row) for row in labelled] + [("test", "one", "few"), ("test", "other", "many")]
        lines = (json.dumps({"split": split, "text": text, "label": label}) + "\n" for split, text, label in rows)
        (tmp_path / "all.jsonl").write_text("".join(lines))
        train = local_task("classification", tmp_path / "all.jsonl").dataset["default"]["train"]
        numbers = [int(text.split()[1]) for text in train["text"]]
        assert [sum(number < 300 for number in numbers), len(numbers)] == [200, 210]
        assert numbers == sorted(numbers) and numbers[:200] != list(range(200))
        assert train["label"] == [int(number < 300) for number in numbers]

    def test_classification_items_are_shares_of_right_classifiers(self, tiny, labelled_folder):
        score = open_probe(f"classification:{labelled_folder}")(tiny)
        assert score.metric == "accuracy" and score.items.shape == (18,)
        assert score.value == pytest.approx(score.items.mean()) and set(np.round(score.items * 10, 6) % 1) == {0}
        assert score.value > 0.5  # the label is a word of the text

    def test_labels_are_read_once_and_scored_as_mteb_scores_them(self, labelled_folder):
        from mteb.abstasks.classification import AbsTaskClassification

        class Column(list):
            reads = 0

            def __array__(self, *args, **kwargs):
                self.reads += 1
                return np.array(list(self), *args, **kwargs)

        task = local_task("classification", labelled_folder)
        labels, found = Column([0, 1, 1, 2]), np.array([0, 1, 2, 2])
        scores = task._calculate_scores(labels, found)
        assert labels.reads == 1 and scores["accuracy"] == 0.75
        assert scores == AbsTaskClassification._calculate_scores(task, [0, 1, 1, 2], found)

    def test_clustering_repeats_itself(self, tiny, labelled_folder, monkeypatch):
        texts_encoded, stock = [], tiny.encode
        monkeypatch.setattr(
            tiny, "encode", lambda texts, *a, **kw: texts_encoded.append(len(texts)) or stock(texts, *a, **kw)
        )
        score = open_probe(f"clustering:{labelled_folder}")
        first, second = score(tiny), score(tiny)
        assert first.metric == "v_measure" and first.items.shape == (10,)
        np.testing.assert_array_equal(first.items, second.items)
        assert texts_encoded == [18, 18]  # of mteb's own tasks only a sample is clustered
        assert compare_probe(first, second).mean == 0

    def test_a_dataset_as_a_probe_can_be_shrunk(self, tiny, monkeypatch):
        corpus = {f"d{i}": f"cholera {i}" for i in range(20)}
        qrels = {"test": {f"q{i}": {f"d{i}": 1} for i in range(10)}}
        data = Dataset("x", corpus, {f"q{i}": f"cholera {i}" for i in range(10)}, qrels)
        monkeypatch.setattr("embedlab.evaluation.probes.load_dataset", lambda spec, **_options: data)
        score = open_probe("pydocs")(tiny)
        assert score.items.tolist() == [1] * 10 and score.value == 1 and score.metric == "ndcg@10"
        assert open_probe("pydocs", max_queries=3)(tiny).items.shape == (3,)

    def test_each_model_is_encoded_by_its_own_encoder(self, monkeypatch):
        tuned, base = tiny_model(seed=1), tiny_model(seed=0)
        data = Dataset("x", {"d0": "cholera"}, {"q0": "cholera"}, {"test": {"q0": {"d0": 1}}})
        monkeypatch.setattr("embedlab.evaluation.probes.load_dataset", lambda spec, **_options: data)
        used = []

        def encoder(name):
            def spy(model, texts, **options):
                used.append((name, model))
                return encode(model, texts, **options)

            return spy

        compare_probes(tuned, base, ["pydocs"], encoders=(encoder("tuned"), encoder("base")))
        assert ("tuned", tuned) in used and ("base", base) in used
        assert ("tuned", base) not in used and ("base", tuned) not in used

    def test_vectors_of_the_base_model_are_kept_for_later_runs(self, monkeypatch, tmp_path):
        monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path))
        encoded = []
        monkeypatch.setattr(
            "embedlab.models.cache.encode",
            lambda model, texts, **options: encoded.extend(texts) or encode(model, texts, **options),
        )
        tuned, base = tiny_model(seed=1), tiny_model(seed=0)
        first, _ = compare_probes(tuned, base, ["pydocs"], max_queries=10)
        assert len(encoded) == 30  # 10 queries and 20 documents
        again, _ = compare_probes(tuned, base, ["pydocs"], max_queries=10)
        assert len(encoded) == 30 and again.equals(first)

    def test_an_unknown_probe_is_named(self):
        with pytest.raises(DataError, match="unknown dataset 'pydoc'.*pydocs"):
            open_probe("pydoc")

    def test_a_model_that_came_apart_is_seen(self, labelled_folder):
        tuned, base = tiny_model(seed=1), tiny_model(seed=0)
        for parameter in tuned.parameters():
            parameter.data.mul_(0)
        table, differences = compare_probes(tuned, base, [f"classification:{labelled_folder}"])
        outcome = differences[f"classification:{labelled_folder}"]
        assert outcome.high < 0 and outcome.p_value < 0.05
        assert table["tuned"][0] - table["base"][0] == pytest.approx(table["difference"][0])


class TestDifferences:
    def test_means_are_paired(self):
        a, b = np.array([1.0, 0, 1, 1]), np.array([0.0, 0, 1, 1])
        outcome = compare_probe(ProbeScore("accuracy", 0.75, a), ProbeScore("accuracy", 0.5, b))
        assert (outcome.mean, outcome.wins, outcome.ties, outcome.losses) == (0.25, 1, 3, 0)

    def test_scores_without_items_have_no_interval(self):
        none = np.array([])
        outcome = compare_probe(ProbeScore("v", 0.6, none), ProbeScore("v", 0.5, none))
        assert outcome.mean == pytest.approx(0.1) and outcome.relative == pytest.approx(0.2)
        assert math.isnan(outcome.low) and math.isnan(outcome.p_value) and outcome.n == 0

    def test_other_items_are_refused(self):
        with pytest.raises(DataError, match="2 and 3 probe items"):
            compare_probe(ProbeScore("v", 0, np.zeros(2)), ProbeScore("v", 0, np.zeros(3)))

    def test_correlations_of_equal_and_unequal_models(self):
        rng = np.random.default_rng(0)
        gold = rng.random(200)
        good, poor = gold + rng.normal(0, 0.1, 200), gold + rng.normal(0, 1, 200)
        outcome = correlation_difference(gold, good, poor)
        assert outcome.low < outcome.mean < outcome.high and outcome.low > 0 and outcome.p_value == 1 / 1000
        assert outcome.wins > outcome.losses and outcome.n == 200
        back = correlation_difference(gold, poor, good)
        assert back.mean == -outcome.mean and (back.wins, back.losses) == (outcome.losses, outcome.wins)
        same = correlation_difference(gold, good, good)
        assert (same.mean, same.p_value, same.ties) == (0, 1, 200)

    def test_the_p_value_is_the_share_of_all_swaps(self):
        from itertools import product

        from scipy.stats import rankdata, spearmanr

        gold, a, b = np.random.default_rng(4).random((3, 8))
        of_a, of_b = rankdata(a), rankdata(b)

        def difference(flip):
            one, other = np.where(flip, of_b, of_a), np.where(flip, of_a, of_b)
            return abs(spearmanr(gold, one).statistic - spearmanr(gold, other).statistic)

        exact = np.mean([difference(np.array(flip)) >= difference(False) - 1e-12 for flip in product((0, 1), repeat=8)])
        assert 0.05 < exact < 0.95
        assert correlation_difference(gold, a, b, samples=9999).p_value == pytest.approx(exact, abs=0.02)

    def test_the_scale_of_a_model_does_not_matter(self):
        rng = np.random.default_rng(1)
        gold, a, b = rng.random((3, 50))
        one, other = correlation_difference(gold, a, b), correlation_difference(gold, 100 * a - 7, np.exp(b))
        assert one == other

    def test_false_alarms_are_as_rare_as_the_level_says(self):
        rng = np.random.default_rng(2)
        alarms = 0
        for seed in range(100):
            gold = rng.random(40)
            a, b = (gold + rng.normal(0, 0.3, 40) for _ in range(2))
            alarms += correlation_difference(gold, a, b, samples=99, seed=seed).p_value <= 0.05
        assert alarms <= 11
