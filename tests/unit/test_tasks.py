"""Tasks from the code tree and from files: right labels, no held-out text among the examples, probes to be read."""

from __future__ import annotations

import csv
import json

import pytest

from embedlab.data import tasks
from embedlab.data.dataset import Dataset, GradedPair
from embedlab.data.icd10cm import code_similarity
from embedlab.data.load import load_dataset
from embedlab.data.tasks import Labelled, Task, code_tree_tasks, general_texts
from embedlab.data.text_analysis import normalise
from embedlab.errors import DataError
from embedlab.evaluation.local_tasks import labelled_columns, sts_columns
from embedlab.evaluation.probes import open_probe
from embedlab.evaluation.task_files import folder_tasks
from tests.conftest import tiny_model


@pytest.fixture(scope="module")
def smoke():
    return load_dataset("icd10cm:smoke")


@pytest.fixture(scope="module")
def made(smoke, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probes")
    return {task.name: task for task in code_tree_tasks(smoke, folder)}, folder


class TestCodeTree:
    def test_three_kinds(self, made):
        assert {name: task.kind for name, task in made[0].items()} == {
            "similarity": "similarity",
            "classification": "classification",
            "clustering": "clustering",
        }

    def test_labels_are_levels_of_the_tree(self, smoke, made):
        """The smoke set is one chapter: classes are its blocks, groups its categories."""
        codes = {text: code for code, text in reversed(smoke.corpus.items())}
        blocks = {row.text: row.label for row in made[0]["classification"].train if row.text in codes}
        assert len(blocks) > 100
        assert {*blocks.values()} == {"D50-D53", "D55-D59", "D60-D64", "D65-D69", "D70-D77", "D78", "D80-D89"}
        categories = {row.text: row.label for row in made[0]["clustering"].train if row.text in codes}
        assert blocks["Iron deficiency anemia, unspecified"] == "D50-D53"
        assert categories["Iron deficiency anemia, unspecified"] == "D50"

    def test_nothing_held_out_is_among_the_examples(self, smoke, made):
        unsaid = {normalise(text) for split in ("dev", "test") for text in smoke.split_queries(split).values()}
        unsaid |= {normalise(smoke.corpus[code]) for split in ("dev", "test") for _, code in smoke.pairs(split)}
        for name in ("classification", "clustering"):
            assert unsaid.isdisjoint(normalise(row.text) for row in made[0][name].train)
        assert made[0]["similarity"].train == smoke.graded_pairs

    def test_similarity_is_judged_on_held_out_codes(self, smoke, made):
        columns = sts_columns(made[1] / "sts.jsonl")
        codes = {smoke.corpus[code]: code for _, code in smoke.pairs("test")}
        assert 2 * len(codes) < len(columns["score"]) <= 4 * len(codes) and len(set(columns["score"])) > 3
        for one, other, score in zip(
            *(columns[name][:20] for name in ("sentence1", "sentence2", "score")), strict=True
        ):
            assert score == pytest.approx(code_similarity(codes[one], codes[other]))

    @pytest.mark.parametrize("kind", ["classification", "clustering"])
    def test_groups_are_judged_on_test_queries(self, smoke, made, kind):
        splits = labelled_columns(made[1] / f"{kind}.jsonl")
        assert splits["test"]["text"] == list(smoke.split_queries("test").values())
        assert splits["train"]["text"] == [row.text for row in made[0][kind].train]

    def test_probes_can_be_scored(self, made):
        for task in made[0].values():
            score = open_probe(task.probe)(tiny_model())
            assert -1 <= score.value <= 1 and len(score.items)

    def test_other_data_has_no_tree(self, tmp_path):
        assert code_tree_tasks(Dataset("pairs:x.csv", {}, {}, {}), tmp_path) == []


def test_a_capped_task_is_a_sample_in_order():
    task = Task("t", "clustering", tuple(Labelled(f"text {n}", "a") for n in range(50)), "")
    few, more = task.capped(5).train, task.capped(20).train
    assert len(few) == 5 and set(few) < set(more) and list(more) == sorted(more, key=task.train.index)
    assert few != task.train[:5] and task.capped(99) == task


def documented(packages):
    """A dataset of test queries alone: package -> number of docstrings, each a query with its body."""
    names = [f"{package}.f{n}" for package, count in packages.items() for n in range(count)]
    subject = {name: f"{name} {name[::-1]}" for name in names}
    return Dataset(
        "docs",
        {f"{name}#body": f"body {subject[name]}" for name in names},
        {name: f"summary {subject[name]}" for name in names},
        {"train": {}, "dev": {}, "test": {name: {f"{name}#body": 1} for name in names}},
        groups={name: f"{name}#body" for name in names},
        fields={name: {"package": name.partition(".")[0]} for name in names},
    )


class TestGeneral:
    def test_probe_and_replay_share_no_package(self):
        data = documented({"one": 20, "two": 15, "three": 10, "four": 5})
        general = general_texts(data)
        probed = {query.partition(".")[0] for split in ("dev", "test") for query in general.probe.qrels[split]}
        replayed = {query.split()[1].partition(".")[0] for query, _ in general.replay}
        assert probed and replayed and probed.isdisjoint(replayed)
        assert probed | replayed == {"one", "two", "three", "four"}
        assert not general.probe.qrels["train"]
        assert set(general.probe.corpus.values()).isdisjoint(document for _, document in general.replay)

    def test_dev_and_test_are_apart_and_capped(self):
        general = general_texts(documented({"one": 60, "two": 60}), max_queries=10)
        dev, test = general.probe.qrels["dev"], general.probe.qrels["test"]
        assert (len(dev), len(test)) == (5, 10) and not dev.keys() & test.keys()
        assert len(general.replay) == 60

    def test_given_splits_stay(self):
        data = documented({"one": 9})
        judged = list(data.qrels["test"].items())
        splits = {"train": dict(judged[:3]), "dev": dict(judged[3:6]), "test": dict(judged[6:])}
        from dataclasses import replace

        general = general_texts(replace(data, qrels=splits))
        assert [query for query, _ in general.replay] == [data.queries[query] for query, _ in judged[:3]]
        assert general.probe.qrels["dev"] == splits["dev"] and general.probe.qrels["test"] == splits["test"]
        assert len(general.probe.corpus) == 6

    def test_the_built_in_probe(self, monkeypatch):
        monkeypatch.setattr(tasks, "GENERAL_WORDS", 20)
        general = general_texts(load_dataset("pydocs"))
        texts = [*general.probe.corpus.values(), *(document for _, document in general.replay)]
        assert {len(text.split()) for text in texts} == {20}
        assert len(general.replay) > 300
        assert (len(general.probe.qrels["dev"]), len(general.probe.qrels["test"])) == (100, 200)


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


class TestFolder:
    def test_no_folder_no_tasks(self):
        assert folder_tasks("") == []

    @pytest.mark.parametrize("inside", [[], ["elsewhere"]])
    def test_a_folder_without_tasks_is_said(self, tmp_path, inside):
        for name in inside:
            (tmp_path / name).mkdir()
        with pytest.raises(DataError, match="holds no task"):
            folder_tasks(tmp_path)

    def test_scores_and_labels_are_read(self, tmp_path):
        for split in ("train", "test"):
            write_csv(tmp_path / "stsb" / f"{split}.csv", [[f"{split} a", "b", 5.0], ["c", "d", 1.0]])
            rows = [["text", "category"], [f"{split} card", "lost"], ["loan", "credit"], ["debt", "credit"]]
            write_csv(tmp_path / "banking77" / f"{split}.csv", rows)
        (tmp_path / "clinc150").mkdir()
        intents = {split: [[f"{split} hello", "greet"], ["bye", "leave"]] for split in ("train", "val", "test")}
        (tmp_path / "clinc150" / "data_full.json").write_text(json.dumps(intents))
        (tmp_path / "clinc150" / "domains.json").write_text("{}")
        tasks = {task.name: task for task in folder_tasks(tmp_path)}
        assert {name: task.kind for name, task in tasks.items()} == {
            "stsb": "similarity",
            "banking77": "classification",
            "clinc150": "clustering",
        }
        assert tasks["stsb"].train == (GradedPair("train a", "b", 1.0), GradedPair("c", "d", 0.2))
        assert [row.text for row in tasks["banking77"].train] == ["train card", "loan", "debt"]
        assert len({row.label for row in tasks["banking77"].train[1:]}) == 1
        assert tasks["clinc150"].train[0].text == "train hello"
        assert tasks["clinc150"].probe.endswith("data_full.json") and tasks["stsb"].probe.endswith("test.csv")

    def test_a_task_called_like_its_kind_stands_beside_the_tree(self, tmp_path):
        for split in ("train", "test"):
            write_csv(tmp_path / "similarity" / f"{split}.csv", [["a", "b", 5.0], ["c", "d", 1.0]])
        assert [task.name for task in folder_tasks(tmp_path)] == ["own similarity"]

    def test_retrieval_from_a_beir_folder(self, tmp_path):
        folder = tmp_path / "retrieval"
        (folder / "qrels").mkdir(parents=True)
        words = ["malaria", "asthma", "anemia", "cholera", "gout", "scurvy", "mumps", "measles"]
        records = [{"_id": f"d{n}", "text": f"all about {word} and its cure"} for n, word in enumerate(words)]
        (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, records)))
        records = [{"_id": f"q{n}", "text": f"what heals {word} here"} for n, word in enumerate(words)]
        (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, records)))
        for split, places in (("train", range(4)), ("dev", (4, 5)), ("test", (6, 7))):
            lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in places)]
            (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines))
        (task,) = folder_tasks(tmp_path)
        assert (task.name, task.kind) == ("own retrieval", "retrieval")
        assert task.train[0] == ("what heals malaria here", "all about malaria and its cure") and len(task.train) == 4

    def test_a_missing_split_is_said(self, tmp_path):
        write_csv(tmp_path / "stsb" / "train.csv", [["a", "b", 5.0], ["c", "d", 1.0]])
        with pytest.raises(DataError, match="has no test file"):
            folder_tasks(tmp_path)
