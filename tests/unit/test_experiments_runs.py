"""A run as its notebook sees it: what it notes is what the record says, and files are published once."""

from __future__ import annotations

import json

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from embedlab import paths
from embedlab.errors import ParameterError, RecordError
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.significance import bootstrap_ci, paired_difference
from embedlab.models.fingerprint import model_fingerprint
from embedlab.params import Params
from embedlab.runs import notebooks, processes, records
from embedlab.runs.run import FAILED, compute_run_id, publish, start_run
from embedlab.training.outcome import NOTHING_LEARNED, STILL_RISING, judge_training
from tests.conftest import tiny_model

CELL = 'rates: list[float] = [1, 2]  # an int is a float\nrate: float = 1\nseed: int = 0\noutput_dir: str = ""'


class Tiny(Params):
    rates: list[float]
    rate: float
    later: int = 3  # a knob of the class that the notebook does not show


@pytest.fixture(autouse=True)
def notebook(tmp_path, monkeypatch):
    """A project of its own with one notebook, as in JupyterLab: no driver."""
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    for name in (processes.ATTEMPT_VARIABLE, processes.NOTEBOOK_VARIABLE, "EMBEDLAB_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "notebooks").mkdir()
    cell = nbformat.v4.new_code_cell(CELL, metadata={"tags": ["parameters"]})
    path = tmp_path / "notebooks" / "01_tiny.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


def params(**changes) -> Tiny:
    return Tiny.checked({"rates": [1, 2], "rate": 1, "seed": 0, "output_dir": "", **changes})


def evaluation() -> Evaluation:
    values = {"ndcg@10": np.array([0.0, 1.0, 0.5, np.nan]), "recall@10": np.array([0.0, 1.0, 1.0, np.nan])}
    return Evaluation(("q1", "q2", "q3", "q4"), values, 1)


def test_driver_and_notebook_agree_where_ints_stand_for_floats(notebook):
    outside = compute_run_id(notebook, notebooks.resolved(notebooks.parameters(notebook), {}))
    assert start_run("01_tiny", params()).id == outside


def test_metrics_carry_their_interval_and_the_values_of_every_query():
    run = start_run("01_tiny", params())
    run.metrics(evaluation(), system="contrastive", split="test", dim=64)
    run.metrics(evaluation(), system="bm25", split="test")
    record = run.finish()
    interval = bootstrap_ci(np.array([0.0, 1.0, 0.5]))
    row = record.metrics[0]
    assert (row.task, row.split, row.system, row.metric, row.dim, row.n) == (
        "retrieval",
        "test",
        "contrastive",
        "ndcg@10",
        64,
        3,
    )
    assert (row.value, row.ci_low, row.ci_high) == (0.5, interval.low, interval.high)
    assert [(r.system, r.metric) for r in record.metrics[1:]] == [
        ("contrastive", "recall@10"),
        ("bm25", "ndcg@10"),
        ("bm25", "recall@10"),
    ]
    frame = pd.read_parquet(run.folder / "per_query.parquet")
    assert len(frame) == 8 and frame["dim"].isna().sum() == 4
    assert frame["ndcg@10"].tolist()[:3] == [0.0, 1.0, 0.5] and np.isnan(frame["ndcg@10"].iloc[3])


def test_record_says_what_the_run_was():
    run = start_run("01_tiny", params(seed=7, rate=2))
    with run.timing("train"):
        pass
    run.note(best_step=3, curve=[0.1, 0.2])
    run.fingerprint(contrastive="abc")
    run.value("bytes", 12, system="contrastive", stage="footprint")
    record = run.finish()
    assert record == records.read(paths.runs_dir() / run.id)
    assert record.run_id.startswith("01_tiny-") and record.run_id.endswith("-s7")
    assert record.parameters == {"seed": 7, "rates": [1.0, 2.0], "rate": 2.0, "later": 3}
    assert record.notes == {"best_step": 3, "curve": [0.1, 0.2]}
    assert record.model_fingerprints == {"contrastive": "abc"}
    assert set(record.timings) == {"train"} and record.timings["train"] >= 0
    assert (record.metrics[0].value, record.metrics[0].ci_low) == (12.0, None)
    assert {"python", "torch", "papermill"} <= set(record.versions) and record.hardware["cores"] >= 1


def test_a_run_that_trained_nothing_leaves_no_log():
    run = start_run("01_tiny", params())
    run.log_history([])
    run.finish()
    assert not (run.folder / "train_log.csv").exists()


def test_finishing_publishes_the_files_but_not_the_scratch():
    run = start_run("01_tiny", params())
    run.figure(Figure(), "curve", pd.DataFrame({"x": [1]}))
    run.log_history([{"step": 1, "loss": 0.5}])
    run.artefact("model").mkdir()
    (run.artefact("model") / "weights").write_text("w")
    run.artefact("scratch").mkdir()
    run.finish()
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"record.json", "curve.png", "curve.csv", "train_log.csv", "model", "attempts"}
    assert (run.folder / "train_log.csv").read_text() == "step,loss\n1,0.5\n"
    assert (run.folder / "model" / "weights").read_text() == "w"


def test_publishing_that_was_cut_off_is_resumed_and_replaces_nothing():
    run = start_run("01_tiny", params())
    record = run.finish()
    for name in ("late.csv", "early.csv"):
        (run.attempt_folder / name).write_text("attempt")
    (run.folder / "early.csv").write_text("published")
    for _ in range(2):
        publish(run.folder, record)
        assert (run.folder / "late.csv").read_text() == "attempt"
        assert (run.folder / "early.csv").read_text() == "published"


def test_the_second_to_finish_says_so_and_changes_nothing(capsys):
    first, second = (start_run("01_tiny", params()) for _ in range(2))
    assert first.attempt_folder != second.attempt_folder
    first.finish()
    before = {path: path.read_bytes() for path in first.folder.glob("*.*")}
    second.value("x", 1.0, system="base")
    with pytest.raises(RecordError, match="committed first"):
        second.finish()
    assert {path: path.read_bytes() for path in first.folder.glob("*.*")} == before
    capsys.readouterr()
    start_run("01_tiny", params())
    assert "finished before" in capsys.readouterr().out


def test_a_damaged_record_does_not_block_the_rerun():
    run = start_run("01_tiny", params())
    run.finish()
    (run.folder / records.FILE).write_text("{}")
    again = start_run("01_tiny", params()).finish()
    assert records.read(run.folder) == again


def test_cell_and_class_must_have_the_same_names():
    with pytest.raises(ParameterError, match="differ in later"):
        start_run("01_tiny", params(later=4))  # a global that the cell does not hold
    with pytest.raises(ParameterError, match="differ in rate,|differ in rate\\."):
        start_run("01_tiny", Tiny.model_construct(_fields_set={"rates", "seed", "output_dir"}, rates=[1.0]))


def test_cell_and_class_must_have_the_same_types(notebook):
    content = nbformat.read(notebook, as_version=4)
    content.cells[0].source = CELL.replace("rate: float", "rate: int")
    nbformat.write(content, notebook)
    with pytest.raises(ParameterError, match=r"\[rate\]: must be int, got 1.0"):
        start_run("01_tiny", params())


@pytest.mark.parametrize("thing", [object(), np.float32(1), {1, 2}])
def test_a_note_that_cannot_be_recorded_is_refused_at_once(thing):
    run = start_run("01_tiny", params())
    with pytest.raises(ParameterError, match=r"\[best\]: cannot be stored as JSON"):
        run.note(best=thing)
    run.finish()


def test_a_driver_names_the_attempt_and_the_file(notebook, tmp_path, monkeypatch):
    edited = tmp_path / "copy" / notebook.name
    edited.parent.mkdir()
    content = nbformat.read(notebook, as_version=4)
    content.cells.append(nbformat.v4.new_code_cell("1 + 1"))
    nbformat.write(content, edited)
    monkeypatch.setenv(processes.ATTEMPT_VARIABLE, "7-driver")
    monkeypatch.setenv(processes.NOTEBOOK_VARIABLE, str(edited))
    run = start_run("01_tiny", params())
    assert run.attempt_folder == run.folder / "attempts" / "7-driver"
    assert run.id == compute_run_id(edited, params().set_values()) != compute_run_id(notebook, params().set_values())
    monkeypatch.setenv(processes.NOTEBOOK_VARIABLE, str(tmp_path / "02_other.ipynb"))
    assert start_run("01_tiny", params()).id == compute_run_id(notebook, params().set_values())


def test_a_failing_cell_marks_the_attempt_and_a_mended_one_finishes(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    run = start_run("01_tiny", params())
    assert shell.run_cell("1 / 0").error_in_exec is not None
    failed = run.attempt_folder / FAILED
    content = json.loads(failed.read_text())
    assert (content["run_id"], content["cause"], content["detail"]) == (
        run.id,
        "error in cell",
        "ZeroDivisionError: division by zero",
    )
    shell.run_cell("1 / 1")
    run.finish()
    assert not failed.exists() and not (run.folder / FAILED).exists()


def test_differences_and_values_say_what_they_are_in_columns():
    run = start_run("01_tiny", params())
    first, second = np.array([1.0, 1.0, 0.5, 1.0]), np.array([0.0, 1.0, 0.5, 0.5])
    run.difference(
        paired_difference(first, second), metric="ndcg@10", system="contrastive", against="base", split="test", dim=64
    )
    run.value("queries per second", 7.0, system="contrastive", stage="search", task="scaling", condition="64 → 384")
    record = run.finish()
    statistics = ["difference", "relative_difference", "p_value", "value"]
    assert [row.statistic for row in record.metrics] == statistics
    assert {row.against for row in record.metrics[:3]} == {"base"} and record.metrics[0].technique == "contrastive"
    assert record.metrics[3].condition == "64 → 384" and record.metrics[3].against == ""
    assert set(record.systems) == {"contrastive", "base"}
    assert record.schema_version == 2 and record.migrated == {}
    assert '"schema": 2' in (run.folder / records.FILE).read_text()


def test_a_system_of_a_notebook_is_declared_once_and_described_in_the_record():
    run = start_run("01_tiny", params())
    with pytest.raises(ParameterError, match="'all-but-top' is not declared"):
        run.value("x", 1.0, system="all-but-top")
    for _ in range(2):  # a cell may run twice
        run.declare_system("all-but-top", "postprocessing", "the base model without its top components")
    run.metrics(evaluation(), system="all-but-top", split="test")
    run.fingerprint({"contrastive+static": "abc"}, base="def")
    with pytest.raises(ParameterError, match="declared already"):
        run.declare_system("base", "other", "something else")
    with pytest.raises(ParameterError, match="not declared"):
        run.fingerprint(mystery="abc")
    record = run.finish()
    assert record.metrics[0].technique == "postprocessing"
    assert record.systems["all-but-top"] == "the base model without its top components"
    assert record.model_fingerprints == {"contrastive+static": "abc", "base": "def"}


def test_reading_is_of_this_run_and_knows_its_training():
    run = start_run("01_tiny", params())
    first, second = np.full(50, 0.75), np.full(50, 0.5)
    run.difference(
        paired_difference(first, second), metric="ndcg@10", system="contrastive", against="base", split="test"
    )
    run.log_history([{"step": 0, "dev": 0.5}, {"step": 9, "dev": 0.7}])
    assert "+0.250" in run.reading("contrastive") and "train longer" in run.reading("contrastive")
    run.log_history([{"stage": "base", "step": 0, "dev": 0.5}, {"stage": "base", "step": 9, "dev": 0.7}])
    assert "train longer" not in run.reading("contrastive")  # the history is of another system


@pytest.mark.parametrize(
    ("history", "marked"),
    [
        ([{"step": 0, "dev": 0.5}, {"step": 90, "dev": 0.4}], True),
        ([{"step": 0, "dev": 0.5}, {"step": 90, "dev": 0.6}], False),
        ([{"stage": "contrastive", "step": 0, "dev": 0.5}, {"stage": "contrastive", "step": 90, "dev": 0.4}], True),
        ([{"stage": "static", "step": 0, "dev": 0.5}, {"stage": "static", "step": 90, "dev": 0.4}], False),
    ],
)
def test_a_model_that_did_not_learn_is_saved_with_a_mark(history, marked):
    run = start_run("01_tiny", params())
    run.log_history(history)
    path = run.save_model("contrastive", tiny_model(layers=1))
    card = (path / "README.md").read_text(encoding="utf-8")
    assert ("Not tuned" in card) is marked
    assert card.startswith("---\n")  # the mark stands below the front matter
    record = run.finish()
    assert record.notes.get("untrained", []) == (["model"] if marked else [])
    assert [*record.notes["training"].values()] == [judge_training(history)]


def test_a_log_that_the_notebook_wrote_itself_is_judged():
    """A notebook with several recipes writes the log of all of them, with a column of their names."""
    run = start_run("01_tiny", params())
    log = "step,loss,dev,recipe\n0,,0.5,static\n90,0.1,0.4,static\n0,,0.5,contrastive\n90,0.1,0.6,contrastive\n"
    run.artefact("train_log.csv").write_text(log, encoding="utf-8")
    trainings = run.finish().notes["training"]
    assert {name: list(findings) for name, findings in trainings.items()} == {
        "static": [NOTHING_LEARNED],
        "contrastive": [STILL_RISING],
    }


def test_a_reading_judges_every_stage_alone():
    """The loss of the second stage has another scale, and its end says nothing about a gain that is there."""
    run = start_run("01_tiny", params())
    values = np.full(50, 0.75), np.full(50, 0.5)
    run.difference(paired_difference(*values), metric="ndcg@10", system="contrastive", against="base", split="test")
    first = [{"stage": "pretrain", "step": step, "loss": 0.1} for step in range(60)]
    second = [{"stage": "fine-tune", "step": step, "loss": 3.0, "dev": 0.5 - step / 1000} for step in range(60)]
    run.log_history(first + second)
    reading = run.reading("contrastive")
    assert "established" in reading and "No training step beat the start" in reading and "rose" not in reading


def test_a_model_with_the_base_models_weights_is_marked():
    run, model = start_run("01_tiny", params()), tiny_model(layers=1)
    run.fingerprint(base=model_fingerprint(model))
    run.save_model("contrastive", model)
    assert run.finish().notes["untrained"] == ["model"]
