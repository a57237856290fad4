"""Evidence that travels with a model: from a hand-made record to the card, and back to a second measurement."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import huggingface_hub
import nbformat
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from embedlab.cli import main as cli
from embedlab.data.dataset import Dataset, split_fingerprint
from embedlab.data.load import dataset_in_use, load_dataset
from embedlab.errors import DataError, ModelError
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.significance import paired_difference
from embedlab.evaluation.verify import (
    Check,
    require_evidence_of,
    require_same_base,
    require_same_data,
    rescore,
)
from embedlab.models import evidence as evidence_file
from embedlab.models.adapter import VectorAdapter
from embedlab.models.adapter_folder import save_adapter
from embedlab.models.api import ApiModel
from embedlab.models.card import evidence_card, leak_sentence, write_card
from embedlab.models.evidence import BaseFacts, Evidence, ModelFacts, Score, SplitUse
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.load import load_model, open_model
from embedlab.models.loopback import on_loopback
from embedlab.models.save import save_model
from embedlab.models.static import static_student
from embedlab.models.static_table import StaticTable
from embedlab.models.vector_map import VectorMap
from embedlab.runs import per_query, processes
from embedlab.runs.evidence import Identity, collect, identify, identify_folder, write_evidence
from embedlab.runs.inputs import input_digests
from embedlab.runs.records import MetricRow, Record
from embedlab.runs.run import start_run
from tests.conftest import tiny_model
from tests.unit.test_experiments_runs import CELL, Tiny

QUERIES = {f"q{i}": f"query number {i} of the clinic" for i in range(60)}
CORPUS = {f"d{i}": f"document number {i} of the clinic with words" for i in range(60)}
DATA = Dataset(
    "pairs:terms.csv",
    CORPUS,
    QUERIES,
    {"train": {"q0": {"d0": 1}}, "test": {f"q{i}": {f"d{i}": 1} for i in range(1, 60)}},
    leaks={"identical query": 2},
)
IDENTITY = Identity("SentenceTransformer", "f" * 16, "e" * 16, 384, 256)


def row(system, metric, value, low=None, high=None, **more) -> MetricRow:
    labels = {"technique": "contrastive", "split": "test", "dim": 384, "n": 59}
    return MetricRow(system=system, metric=metric, value=value, ci_low=low, ci_high=high, **{**labels, **more})


def record(*more: MetricRow, **fields) -> Record:
    rows = [
        row("base", "ndcg@10", 0.4, 0.3, 0.5),
        row("contrastive", "ndcg@10", 0.6, 0.5, 0.7),
        row("contrastive", "recall@10", 0.8, 0.7, 0.9),
        row("contrastive", "ndcg@10", 0.55, 0.45, 0.65, dim=64),
        row("contrastive", "ndcg@10", 0.1, 0.0, 0.2, condition="3 layers"),
        row("contrastive", "ndcg@10", 0.2, 0.1, 0.3, statistic="difference", against="base"),
        row("contrastive", "ndcg@10", 0.15, 0.1, 0.3, statistic="difference", against="base", dim=64),
        row("contrastive", "ndcg@10", -0.03, -0.05, -0.01, statistic="difference", against="base", stage="probe",
            task="pydocs", dim=None, n=100),
        row("contrastive", "share of documents truncated", 0.25, stage="footprint", dim=None),
        *more,
    ]  # fmt: skip
    parameters = {
        "dataset": "pairs:/data/clinic/terms.csv?repair=true",
        "model_name": "all-MiniLM-L6-v2",
        "seed": 3,
        "epochs": 2.0,
        "teacher": "/home/ada/models/big",
        "engine": {"max_seq_length": 64, "query_prompt": "find: "},
    }
    content = {
        "run_id": "03_contrastive-1a2b3c4d-s3",
        "notebook": "03_contrastive",
        "parameters": parameters,
        "systems": {"contrastive": "fine-tuned on pairs"},
        "metrics": rows,
        "data_fingerprint": "d" * 16,
        "model_fingerprints": {"contrastive": "f" * 16, "base": "b" * 16},
        "versions": {"torch": "2.13.0", "papermill": "2.7.0"},
    }
    return Record(**{**content, **fields})


def collected(data: Dataset | None = DATA, values=None, **fields) -> Evidence:
    return collect(record(**fields), "contrastive", IDENTITY, "model", data, values or {}, SplitUse(runs=4, systems=2))


def test_every_field_comes_from_the_record():
    evidence = collected()
    assert evidence.run_id == "03_contrastive-1a2b3c4d-s3" and evidence.record == record().digest()
    assert [(score.metric, score.value) for score in evidence.scores] == [("ndcg@10", 0.6), ("recall@10", 0.8)]
    assert [(score.metric, score.value) for score in evidence.base_scores] == [("ndcg@10", 0.4)]
    assert evidence.gains == [Score(metric="ndcg@10", value=0.2, ci_low=0.1, ci_high=0.3, n=59)]
    assert [(task.task, task.value, task.n) for task in evidence.other_tasks] == [("pydocs", -0.03, 100)]
    assert evidence.truncated == {"documents": 0.25} and evidence.versions == {"torch": "2.13.0"}
    name = "all-MiniLM-L6-v2?max_seq_length=64&query_prompt=find%3A%20"
    hub = "sentence-transformers/all-MiniLM-L6-v2"
    assert evidence.base == BaseFacts(name=name, hub_name=hub, fingerprint="b" * 16, licence="apache-2.0")
    data = evidence.data
    assert (data.name, data.fingerprint, data.documents) == ("pairs:terms.csv?repair=true", "d" * 16, 60)
    assert data.test_fingerprint == split_fingerprint(DATA, "test") and data.queries == {"train": 1, "test": 59}
    assert data.leaks == {"identical query": 2} and data.scripts == ["Latin"]
    recipe = evidence.recipe
    assert (recipe.technique, recipe.description, recipe.seed) == ("contrastive", "fine-tuned on pairs", 3)
    assert recipe.parameters["epochs"] == 2.0 and recipe.parameters["teacher"] == "big"
    assert evidence.limits == [
        "All test queries are written in Latin script: other languages were not tested.",
        "25.0% of the documents are longer than the 256 tokens that the model reads.",
        "One training (seed 3): the intervals are over queries, not over repeated trainings.",
    ]


def test_what_a_closed_model_was_compared_with():
    """Notebook 14 names the closed model in a note, and calls the probe's stage forgetting."""
    name = "openai:m@http://127.0.0.1:8000/v1"
    lost = row(
        "contrastive", "ndcg@10", -0.5, statistic="difference", against="base", stage="forgetting", task="pydocs"
    )
    made = record(lost, parameters={"model_name": "", "seed": 3}, notes={"closed_model": name})
    evidence = collect(made, "contrastive", IDENTITY, "model", None, {}, None)
    assert (evidence.base.name, evidence.base.hub_name) == (name, "")
    assert [(task.task, task.value) for task in evidence.other_tasks][-1] == ("pydocs", -0.5)
    known = record(parameters={"model_name": "openai:text-embedding-3-small"})
    assert collect(known, "contrastive", IDENTITY, "model", None, {}, None).base.hub_name == ""


def test_without_the_data_it_says_what_is_not_known():
    evidence = collected(None)
    assert evidence.data.leaks is None and evidence.data.test_fingerprint == "" and not evidence.slices
    assert "It is not known here whether training examples reveal test queries." in evidence.limits


@pytest.mark.parametrize(
    ("rows", "uses", "limit"),
    [
        ([row("contrastive", "ndcg@10", 0.6, n=12)], 4, "12 test queries are few: the intervals are wide."),
        ([row("contrastive", "ndcg@10", 0.6)], 4, "There is no paired comparison with the base model."),
        (
            [
                row("contrastive", "ndcg@10", 0.6),
                row("contrastive", "ndcg@10", 0.1, -0.1, 0.3, statistic="difference", against="base"),
            ],
            4,
            "The interval of the gain includes 0 or lies below it.",
        ),
        ([row("contrastive", "ndcg@10", 0.6)], 4, "Forgetting on other domains was not measured."),
        ([row("contrastive", "ndcg@10", 0.6)], 21, "21 runs have scored these test queries, more than 20"),
        ([row("bm25", "ndcg@10", 0.6)], 4, "The model was not scored on the test queries."),
    ],
)
def test_limits_by_hand(rows, uses, limit):
    made = collect(record(metrics=rows), "contrastive", IDENTITY, "model", DATA, {}, SplitUse(runs=uses, systems=1))
    assert any(sentence.startswith(limit) for sentence in made.limits), made.limits


def test_a_tuning_run_says_what_it_chose_and_what_it_costs_elsewhere():
    condition = {"condition": "contrastive 2e-4"}
    rows = [
        row("contrastive", "ndcg@10", 0.6, **condition),
        row("contrastive", "forgetting", 0.02, stage="footprint", split="", dim=None, n=None, **condition),
    ]
    notes = {"candidates": [{"candidate": "contrastive 2e-4", "settings": "batch 64"}], "untrained": ["model"]}
    made = collect(record(metrics=rows, notes=notes), "contrastive", IDENTITY, "model", DATA, {}, None)
    assert made.recipe.settings == "contrastive 2e-4 (batch 64)" and made.untrained
    assert [(task.task, task.value) for task in made.other_tasks] == [("pydocs", -0.02)]


def test_slices_by_hand():
    """Longer queries gain 0.5, shorter ones lose 0.25."""
    ids = sorted(DATA.qrels["test"])
    queries = {**QUERIES, **dict.fromkeys(ids[:20], "two words")}
    model = pd.Series([0.25] * 20 + [1.0] * 39, index=ids)
    base = pd.Series([0.5] * 59, index=ids)
    key = per_query.Measured
    values = {key("contrastive", "", 384): model, key("base", "", 384): base, key("contrastive", "", 64): base}
    evidence = collected(replace(DATA, queries=queries), values)
    found = {part.name: part for part in evidence.slices if part.field == "length"}
    short, long = found["2 words"], next(part for name, part in found.items() if name != "2 words")
    assert (short.n, short.base, short.model, short.value, short.is_regression) == (20, 0.5, 0.25, -0.25, True)
    assert (long.n, long.value, long.is_regression) == (39, 0.5, False)
    assert "It is significantly worse than the base model on: length 2 words." in evidence.limits


class TestFile:
    def test_a_round_trip(self, tmp_path):
        evidence = collected()
        evidence_file.write(evidence, tmp_path)
        assert evidence_file.read(tmp_path) == evidence

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda text: text.replace('"value": 0.2,', '"value": 0.3,'), "its SHA-256 does not match"),
            (lambda text: text.replace('"schema": 1', '"schema": 2'), "a newer version"),
            (lambda text: text[: len(text) // 2], "it is not JSON"),
            (lambda text: "[]", "it is not JSON"),
            (lambda text: "[" * 100_000, "it is not JSON"),
        ],
    )
    def test_changes_are_noticed(self, tmp_path, change, says):
        file = evidence_file.write(collected(), tmp_path)
        text = file.read_text(encoding="utf-8")
        assert change(text) != text
        file.write_text(change(text), encoding="utf-8")
        with pytest.raises(ModelError, match=says):
            evidence_file.read(tmp_path)

    def test_a_wrong_value_with_a_right_hash_is_named(self, tmp_path):
        content = collected().content() | {"scores": "many"}
        sha256 = evidence_file.sha256_of_json(content)
        (tmp_path / "evidence.json").write_text(json.dumps({**content, "sha256": sha256}))
        with pytest.raises(ModelError, match="the field scores has a wrong value"):
            evidence_file.read(tmp_path)

    def test_it_does_not_change_the_hash_of_a_model_that_a_parameter_names(self, tmp_path):
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "config.json").write_text("{}")
        before = input_digests({"model_name": str(tmp_path / "m")}, tmp_path / "runs")
        evidence_file.write(collected(), tmp_path / "m")
        assert input_digests({"model_name": str(tmp_path / "m")}, tmp_path / "runs") == before != {}


class TestCard:
    def test_its_parts(self, tmp_path):
        card = evidence_card(collected(), tmp_path)
        assert "**nDCG@10 +0.200 [+0.100, +0.300]** against the base model, paired over 59 test queries" in card
        assert "The interval excludes 0: the gain is established" in card
        assert (
            "| nDCG@10 | 0.400 [0.300, 0.500] | 0.600 [0.500, 0.700] | +0.200 [+0.100, +0.300] |" in card.splitlines()
        )
        assert "| pydocs | nDCG@10 | 100 | -0.030 [-0.050, -0.010] |" in card.splitlines()
        assert "2 training or dev examples that would reveal held-out queries were dropped" in card
        assert "4 recorded runs scored it, this one included. This run scored 2 systems." in card
        assert "has the licence apache-2.0" in card and "Not tuned" not in card
        assert "/data/" not in card and "/home/" not in card
        assert not any(text in card for text in [*QUERIES.values(), *CORPUS.values()])

    def test_what_is_not_known_is_said(self, tmp_path):
        without_gain = collected(None).model_copy(
            update={"gains": [], "untrained": True, "base": BaseFacts(name="my-model"), "test_use": None}
        )
        card = evidence_card(without_gain, tmp_path)
        assert "was not compared with its base model" in card and "Not tuned" in card
        assert "has a licence that is not known here" in card and "- Leaks: not known." in card
        assert huggingface_hub.ModelCard(card).data.base_model is None

    def test_the_hub_reads_the_results(self, tmp_path):
        data = huggingface_hub.ModelCard(evidence_card(collected(), tmp_path)).data
        assert (
            data.base_model == "sentence-transformers/all-MiniLM-L6-v2" and data.pipeline_tag == "sentence-similarity"
        )
        results = {result.metric_type: result for result in data.eval_results}
        assert results["cosine_ndcg@10"].metric_value == 0.6 and results["cosine_recall@10"].metric_value == 0.8
        assert results["cosine_ndcg@10"].dataset_split == "test"
        assert results["cosine_ndcg@10"].dataset_name == "pairs:terms.csv?repair=true"
        assert data.model_name == "03_contrastive-1a2b3c4d-s3"

    @pytest.mark.parametrize(
        ("low", "high", "n", "says"),
        [
            (-0.1, 0.3, 9, "includes 0"),
            (-0.3, -0.1, 9, "worse than its base"),
            (0.1, 0.3, 9, "excludes"),
            (0.1, 0.3, 5, "too few queries to show a gain"),
        ],
    )
    def test_verdict(self, tmp_path, low, high, n, says):
        gain = Score(metric="ndcg@10", value=0.1, ci_low=low, ci_high=high, n=n)
        assert says in evidence_card(collected().model_copy(update={"gains": [gain]}), tmp_path)

    def test_a_name_cannot_add_markup(self, tmp_path):
        spec = "pairs:x](http://evil)<script>.csv"
        evidence = collected().model_copy(update={"data": collected().data.model_copy(update={"name": spec})})
        body = evidence_card(evidence, tmp_path).split("---\n")[2]
        assert "<script>" not in body and "x](http" not in body

    def test_leaks(self):
        assert leak_sentence(None) == "not known." and "no training example" in leak_sentence({})


def test_leaks_that_were_dropped_are_counted(tmp_path):
    rows = ["query,positive,split"]
    rows += [
        f"question about item {i},answer about item {i},{split}" for i, split in enumerate(["train"] * 8 + ["test"] * 3)
    ]
    rows += ["question about item 9,another answer,train"]
    (tmp_path / "a.csv").write_text("\n".join(rows), encoding="utf-8")
    spec = f"pairs:{tmp_path / 'a.csv'}?repair=true&split_by=query"
    data = load_dataset(spec)
    assert sum(data.leaks.values()) == 1 and dataset_in_use(spec) is data
    load_dataset(spec, training=False)
    assert dataset_in_use(spec) is data
    del data
    assert dataset_in_use(spec) is None


def test_the_split_fingerprint_follows_what_a_score_depends_on():
    same = replace(DATA, corpus=dict(reversed(CORPUS.items())), name="other", qrels={"test": DATA.qrels["test"]})
    expected = split_fingerprint(DATA, "test")
    assert split_fingerprint(same, "test") == expected
    others = [
        replace(DATA, corpus={**CORPUS, "d1": "other"}),
        replace(DATA, corpus={**CORPUS, "new": "text"}),
        replace(DATA, queries={**QUERIES, "q1": "other"}),
        replace(DATA, qrels={"test": {**DATA.qrels["test"], "q1": {"d1": 2}}}),
        replace(DATA, qrels={"test": {"q1": {"d1": 1}}}),
    ]
    assert len({expected, *(split_fingerprint(data, "test") for data in others)}) == 6


@pytest.fixture(scope="module")
def models():
    """A fine-tuned model and its base model."""
    return tiny_model(layers=1), tiny_model(layers=1, seed=1)


def published(folder, models, **changes) -> Evidence:
    """Evidence of a saved model, whose published values are those of a measurement."""
    save_model(models[0], folder)
    rescored = rescore(*models, DATA)
    by_name = {name: [] for name in ("this model", "base model", "gain")}
    for what, score in rescored.table(["ndcg@10", "mrr@10"]):
        by_name[what].append(score)
    identity = identify_folder(folder)
    evidence = collect(record(), "contrastive", identity, "model", DATA, {}, None)
    files = evidence.model.model_copy(update={"files": evidence_file.hash_files(folder)})
    base = BaseFacts(name="my-base", fingerprint=model_fingerprint(models[1]))
    update = {"scores": by_name["this model"], "base_scores": by_name["base model"], "gains": by_name["gain"]}
    evidence = evidence.model_copy(update={**update, "model": files, "base": base, **changes})
    evidence_file.write(evidence, folder)
    write_card(evidence, folder)
    return evidence


class TestVerify:
    @pytest.fixture(scope="class")
    def saved(self, models, tmp_path_factory):
        folder = tmp_path_factory.mktemp("verify") / "model"
        return folder, published(folder, models)

    def test_the_same_models_are_inside(self, saved, models):
        checks = rescore(*models, DATA).compare(saved[1])
        assert [check.subject for check in checks] == ["this model"] * 2 + ["base model"] * 2 + ["gain"] * 2
        assert all(check.is_inside for check in checks)
        assert checks[0].value == pytest.approx(checks[0].published.value, abs=1e-12)

    def test_another_gain_is_outside(self, saved, models):
        """A model against itself gains exactly 0."""
        gain = Score(metric="ndcg@10", value=0.2, ci_low=0.1, ci_high=0.3, n=59)
        checks = rescore(models[0], models[0], DATA).compare(saved[1].model_copy(update={"gains": [gain]}))
        assert [(check.value, check.is_inside) for check in checks if check.subject == "gain"] == [(0.0, False)]

    def test_the_ends_of_an_interval_are_inside(self):
        score = Score(metric="m", value=0.5, ci_low=0.25, ci_high=0.75, n=9)
        inside = [Check("gain", score, value).is_inside for value in (0.25, 0.75, 0.2499, 0.7501, float("nan"))]
        assert inside == [True, True, False, False, False]

    def test_nothing_to_check_is_an_error(self, models, saved):
        empty = saved[1].model_copy(update={"scores": [], "base_scores": [], "gains": []})
        with pytest.raises(ModelError, match="no value with an interval"):
            rescore(*models, DATA).compare(empty)

    def test_the_evidence_belongs_to_these_files(self, saved, tmp_path):
        folder = shutil.copytree(saved[0], tmp_path / "model")
        model, evidence = load_model(str(folder)), evidence_file.read(folder)
        require_evidence_of(evidence, folder, model)
        (folder / "notes.txt").write_text("more files may be there")
        require_evidence_of(evidence, folder, model)
        weights = bytearray((folder / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (folder / "model.safetensors").write_bytes(weights)
        with pytest.raises(ModelError, match="another model: model.safetensors differs from"):
            require_evidence_of(evidence, folder, model)
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="model.safetensors is missing"):
            require_evidence_of(evidence, folder, model)

    def test_evidence_of_another_model_is_refused(self, saved, models):
        with pytest.raises(ModelError, match="the model's fingerprint is"):
            require_evidence_of(saved[1], saved[0], models[1])

    def test_data_and_base_model_must_be_the_same(self, saved, models):
        evidence = saved[1]
        require_same_data(evidence, DATA, "anything")
        with pytest.raises(DataError, match="fingerprint of the test split is .*the files are the same"):
            require_same_data(evidence, replace(DATA, queries={**QUERIES, "q1": "x"}), "d" * 16)
        old = evidence.model_copy(update={"data": evidence.data.model_copy(update={"test_fingerprint": ""})})
        require_same_data(old, DATA, "d" * 16)
        with pytest.raises(DataError, match="fingerprint of the data is cccc"):
            require_same_data(old, DATA, "c" * 16)
        require_same_base(evidence, models[1], "x")
        with pytest.raises(ModelError, match="fingerprint of the base model 'x'"):
            require_same_base(evidence, models[0], "x")


def turn() -> VectorAdapter:
    """A map of the queries of the tiny model."""
    matrix = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0].astype(np.float32)
    return VectorAdapter("query-linear", VectorMap(matrix, np.zeros(32, np.float32)), None)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own with one notebook, as in JupyterLab: no driver."""
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in (processes.ATTEMPT_VARIABLE, processes.NOTEBOOK_VARIABLE, "EMBEDLAB_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "notebooks").mkdir()
    cell = nbformat.v4.new_code_cell(CELL, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks" / "01_tiny.ipynb")
    return tmp_path


def finished_run(model, save):
    run = start_run("01_tiny", Tiny.checked({"rates": [1, 2], "rate": 1, "seed": 0, "output_dir": ""}))
    good, bad = np.linspace(0.5, 1, 60), np.linspace(0, 0.5, 60)
    for system, values in (("contrastive", good), ("base", bad)):
        evaluation = Evaluation(tuple(f"q{i}" for i in range(60)), {"ndcg@10": values}, 0)
        run.metrics(evaluation, system=system, split="test", dim=32)
    difference = paired_difference(good, bad)
    run.difference(difference, metric="ndcg@10", system="contrastive", against="base", split="test", dim=32)
    save(run, model)
    return run, run.finish()


class TestRun:
    def test_a_saved_model_has_its_evidence(self, project, models):
        run, record = finished_run(models[0], lambda run, model: run.save_model("contrastive", model))
        folder = run.folder / "model"
        evidence = evidence_file.read(folder)
        assert evidence.record == record.digest() and evidence.recipe.system == "contrastive"
        assert evidence.gain.value == pytest.approx(0.5) and evidence.test_use == SplitUse(runs=1, systems=2)
        assert evidence.model.dimension == 32 and evidence.model.space
        require_evidence_of(evidence, folder, load_model(str(folder)))
        assert "+0.500" in (folder / "README.md").read_text(encoding="utf-8")

    def test_a_model_that_the_notebook_saved_itself_too(self, project, models):
        """sentence-transformers' own card may quote training texts; it is replaced."""

        def save(run, model):
            model.save_pretrained(str(run.artefact("model")))
            (run.artefact("model") / "README.md").write_text("a training text")
            run.fingerprint(contrastive=model_fingerprint(model))

        run, _ = finished_run(models[0], save)
        assert evidence_file.read(run.folder / "model").recipe.system == "contrastive"
        assert "a training text" not in (run.folder / "model" / "README.md").read_text(encoding="utf-8")

    def test_a_failure_does_not_cost_the_record(self, project, models, monkeypatch, caplog):
        def fail(*arguments, **options):
            raise OSError("disk full")

        monkeypatch.setattr("embedlab.runs.evidence.write_evidence", fail)
        run, record = finished_run(models[0], lambda run, model: run.save_model("contrastive", model))
        assert record.run_id == run.id and (run.folder / "record.json").exists()
        assert f"embedlab evidence {run.id}" in caplog.text

    def test_a_reranker(self, project, models):
        from embedlab.models.cross_encoder import cross_encoder_from

        encoder = cross_encoder_from(models[0])
        run, _ = finished_run(encoder, lambda run, model: run.save_model("contrastive", model, folder="model/reranker"))
        folder = run.folder / "model" / "reranker"
        evidence = evidence_file.read(folder)
        assert (
            evidence.model.kind == "CrossEncoder" and identify_folder(folder).fingerprint == evidence.model.fingerprint
        )
        card = huggingface_hub.ModelCard((folder / "README.md").read_text(encoding="utf-8"))
        assert card.data.pipeline_tag == "text-ranking" and "CrossEncoder(" in card.content
        with pytest.raises(ModelError, match="cross-encoder"):
            require_evidence_of(evidence, folder, encoder)

    def test_what_was_trained_for_an_api_model(self, project, models):
        static = StaticTable.of(static_student(models[0], list(CORPUS.values())), 0.3)

        def save(run, model):
            run.save_adapter("contrastive", model, turn(), "model/adapter", static=static)

        with on_loopback(models[0]) as name:
            run, record = finished_run(ApiModel.parse(name), save)
            folder = run.folder / "model" / "adapter"
            require_evidence_of(evidence_file.read(folder), folder, open_model(str(folder)))
        evidence, card = evidence_file.read(folder), (folder / "README.md").read_text(encoding="utf-8")
        assert (evidence.model.kind, evidence.model.dimension) == ("ApiModel", 64) and evidence.model.space
        assert record.model_fingerprints["contrastive"] == evidence.model.fingerprint
        assert "numpy, httpx and tokenizers" in card and "adapted to" in card and "+0.500" in card
        assert "sentence-transformers" not in card and not huggingface_hub.ModelCard(card).data.library_name

    def test_an_adapter_of_a_local_model(self, project, models):
        run, _ = finished_run(models[0], lambda run, model: run.save_adapter("contrastive", model, turn(), "model"))
        folder = run.folder / "model"
        require_evidence_of(evidence_file.read(folder), folder, load_model(str(folder)))

    def test_the_command_writes_it_for_an_older_run(self, project, models):
        run, record = finished_run(models[0], lambda run, model: run.save_model("contrastive", model))
        file = run.folder / "model" / "evidence.json"
        before = file.read_bytes()
        file.unlink()
        result = CliRunner().invoke(cli.app, ["evidence", run.id])
        assert result.exit_code == 0, result.output
        assert file.read_bytes() == before

    def test_a_model_of_another_run_gets_none(self, project, models, caplog):
        run, record = finished_run(models[0], lambda run, model: run.save_model("contrastive", model))
        shutil.rmtree(run.folder / "model")
        save_model(models[1], run.folder / "model")
        assert write_evidence(record, run.folder, None) == [] and "no model with the fingerprint" in caplog.text
        result = CliRunner().invoke(cli.app, ["evidence", run.id])
        assert isinstance(result.exception, ModelError) and "no model that its record knows" in str(result.exception)


class TestCommand:
    @pytest.fixture
    def folders(self, project, models):
        rows = ["query,positive,split,id"]
        rows += [f"query number {i},document number {i},{'train' if i < 20 else 'test'},{i}" for i in range(60)]
        (project / "terms.csv").write_text("\n".join(rows), encoding="utf-8")
        data = load_dataset("pairs:terms.csv")
        save_model(models[1], project / "base")
        facts = collected(data).data
        rescored = {"ndcg@10": rescore(*models, data)}
        scores = [score for what, score in rescored["ndcg@10"].table(["ndcg@10"])]
        published(
            project / "model", models, data=facts, base_scores=scores[:1], scores=scores[1:2], gains=scores[2:],
            base=BaseFacts(name="my-base", fingerprint=model_fingerprint(models[1])),
        )  # fmt: skip
        return project

    def invoke(self, *more):
        return CliRunner().invoke(cli.app, ["verify", "model", "pairs:terms.csv", *more])

    def test_inside(self, folders):
        result = self.invoke("--base", "base")
        assert result.exit_code == 0 and "All 3 values are inside" in result.output, result.output

    def test_outside(self, folders):
        evidence = evidence_file.read(folders / "model")
        score = evidence.scores[0].model_copy(update={"ci_low": 0.99, "ci_high": 1.0})
        evidence_file.write(evidence.model_copy(update={"scores": [score]}), folders / "model")
        result = self.invoke("--base", "base")
        assert result.exit_code == 3 and "1 of 3 values are outside" in result.output, result.output

    def test_a_base_model_in_a_folder_must_be_named(self, folders):
        assert "Give its path with --base" in str(self.invoke().exception)

    def test_a_base_model_behind_an_api(self, folders, models):
        """The same base model over HTTP: the same values, and no option is needed, since the name has the address."""
        with on_loopback(models[1]) as name:
            evidence, closed = evidence_file.read(folders / "model"), ApiModel.parse(name)
            base = BaseFacts(name=name, fingerprint=closed.fingerprint)
            evidence_file.write(evidence.model_copy(update={"base": base}), folders / "model")
            result = self.invoke()
            assert result.exit_code == 0 and "All 3 values are inside" in result.output, result.output

    def test_what_was_trained_for_an_api_model(self, folders, models):
        folder = folders / "adapter"
        static = StaticTable.of(static_student(models[1], list(CORPUS.values())), 0.3)
        with on_loopback(models[1]) as name:
            closed = ApiModel.parse(name)
            save_adapter(closed, turn(), folder, {}, static=static)
            adapted = open_model(str(folder))
            rows = rescore(adapted, closed, load_dataset("pairs:terms.csv")).table(["ndcg@10"])
            base_score, score, gain = ([score] for _, score in rows)
            update = {
                "model": ModelFacts(**vars(identify(adapted)), files=evidence_file.hash_files(folder)),
                "base": BaseFacts(name=name, fingerprint=closed.fingerprint),
                "base_scores": base_score, "scores": score, "gains": gain,
            }  # fmt: skip
            evidence_file.write(evidence_file.read(folders / "model").model_copy(update=update), folder)
            command = ["verify", "adapter", "pairs:terms.csv"]
            result = CliRunner().invoke(cli.app, command)
            assert result.exit_code == 0 and "All 3 values are inside" in result.output, result.output
            (folder / "client.py").write_text("changed")
            assert "client.py" in str(CliRunner().invoke(cli.app, command).exception)

    def test_other_data(self, folders):
        text = (folders / "terms.csv").read_text().replace("query number 59", "another query")
        (folders / "terms.csv").write_text(text)
        assert "fingerprint of the test split" in str(self.invoke("--base", "base").exception)
        result = self.invoke("--base", "base", "--other-data")
        assert result.exit_code == 0 and "do not apply" in result.output and "gain" in result.output
