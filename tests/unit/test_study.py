"""The study's sweeps: whole before hours are spent on them, and their stages hand each other the right models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from embedlab import paths
from embedlab.cli.main import app
from embedlab.errors import ParameterError
from embedlab.runs import notebooks, records
from embedlab.runs.execute import Outcome
from embedlab.runs.inputs import data_fingerprint, input_digests
from embedlab.runs.records import Record
from embedlab.sweeps import driver
from embedlab.sweeps.spec import expand, find_sweep, read_sweep
from tests.notebook_params import params_class

ALL = sorted(paths.sweeps_dir().glob("*.yaml"))
SIZES = [("study", "study_gpu"), ("study_medquad", "study_medquad_gpu")]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_run_of_every_sweep_has_possible_values(path):
    for stage in read_sweep(path).stages:
        known = notebooks.parameters(notebooks.find_notebook(stage.notebook))
        for values in expand(stage, path):
            assert params_class(notebooks.find_notebook(stage.notebook)).checked(notebooks.resolved(known, values))


@pytest.mark.parametrize("name", ["study", "study_gpu"])
def test_dry_run_lists_the_study(name):
    done = CliRunner().invoke(app, ["sweep", name, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert all(stage.name in done.output for stage in read_sweep(find_sweep(name)).stages)


@pytest.mark.parametrize(("here", "there"), SIZES)
def test_gpu_size_is_the_same_chain(here, there):
    small, large = (read_sweep(find_sweep(name)).stages for name in (here, there))
    for one, other in zip(small, large, strict=True):
        assert (one.name, one.notebook, one.references()) == (other.name, other.notebook, other.references())
        assert one.fixed["dataset"] == other.fixed["dataset"]
        assert (one.resources.gpus, other.resources.gpus) == (0, 1)


def test_rows_of_the_headline_have_three_seeds():
    stages = {stage.name: stage for stage in read_sweep(find_sweep("study")).stages}
    headline = {"contrastive": "03", "matryoshka": "05", "distillation": "06", "untuned": "06", "forgetting": "08"}
    assert {name: stages[name].notebook[:2] for name in headline} == headline
    assert all(stages[name].seeds == [0, 1, 2] for name in headline)
    beside = {stage.notebook[:2]: stage.seeds for name, stage in stages.items() if "adapted" in name}
    assert beside == {"03": [0], "05": [0], "06": [0], "08": [0]}  # the chain with pre-training


class PretendEngine:
    """Finishes every run at once: a record without numbers, and the folder that its notebook would leave."""

    jobs, gpus = 1, None

    def __init__(self) -> None:
        self.done: list[Outcome] = []
        self.values: dict[str, dict] = {}

    def submit(self, job) -> None:
        plan = job.plan
        assert params_class(notebooks.find_notebook(plan.notebook.stem)).checked(plan.values)
        record = Record(
            run_id=plan.run_id,
            notebook=plan.notebook.stem,
            parameters=plan.values,
            metrics=[],
            data_fingerprint=data_fingerprint(plan.values["dataset"]),
            inputs=input_digests(plan.values, plan.folder.parent),
        )
        assert records.commit(record, plan.folder)
        if plan.notebook.stem in ("04_domain_pretraining", "03_contrastive"):
            (plan.folder / "model").mkdir()
        for student in plan.values.get("students", ()):
            (plan.folder / "model" / student).mkdir(parents=True)
        self.values[plan.run_id] = plan.values
        self.done.append(Outcome(plan.run_id, plan.folder, record))

    def poll(self) -> Iterator[Outcome]:
        finished, self.done = self.done, []
        return iter(finished)

    def reports(self) -> Iterator:
        return iter(())

    def cancel(self, run_id: str) -> None: ...
    def close(self) -> None: ...


def test_stages_hand_on_the_model_of_their_own_seed(tmp_path):
    path = find_sweep("study")
    view = SimpleNamespace(begin=lambda *_: None, show=lambda *_: None, ended=lambda *_: None)
    engine = PretendEngine()
    result = driver.Driver(read_sweep(path), engine, view, driver.Options(str(tmp_path), (), False, False), path)
    outcomes = result.run().outcomes
    assert len(outcomes) == 25 and all(outcome.record for outcome in outcomes.values())
    taken = {name: [] for name in ("03_contrastive", "05_matryoshka", "06_distillation", "08_multitask", "09_evaluate")}
    for run_id, values in engine.values.items():
        for name in ("model_name", "tuned_model", "teacher"):
            if "-s" in values.get(name, ""):
                source = values[name].rpartition("/model")[0].rpartition("/")[2]
                assert source.endswith(f"-s{values['seed']}") and source in outcomes
                taken[run_id.split("-")[0]].append(source.split("-")[0])
    assert taken["03_contrastive"] == ["04_domain_pretraining"]
    assert taken["05_matryoshka"] == taken["08_multitask"] == ["03_contrastive"] * 4
    assert sorted(taken["06_distillation"]) == ["03_contrastive"] * 5 + ["06_distillation"]
    assert taken["09_evaluate"] == ["03_contrastive"] * 2


class TestCloneWithoutWeights:
    """Records are in the history, weights are not."""

    def driven(self, tmp_path, engine, *, rerun_stale=False):
        path = find_sweep("study")
        view = SimpleNamespace(begin=lambda *_: None, show=lambda *_: None, ended=lambda *_: None)
        options = driver.Options(str(tmp_path), (), False, rerun_stale)
        return driver.Driver(read_sweep(path), engine, view, options, path).run()

    def test_a_finished_study_needs_none(self, tmp_path):
        self.driven(tmp_path, PretendEngine())
        for model in tmp_path.glob("*/model"):
            shutil.rmtree(model)
        again = self.driven(tmp_path, PretendEngine())
        assert len(again.outcomes) == 25 and all(outcome.skipped for outcome in again.outcomes.values())

    def test_a_run_to_do_says_whose_weights_it_needs_and_how_to_make_them(self, tmp_path):
        self.driven(tmp_path, PretendEngine())
        for model in tmp_path.glob("*/model"):
            shutil.rmtree(model)
        (lost, *_) = tmp_path.glob("05_matryoshka-*-s1")
        shutil.rmtree(lost)
        with pytest.raises(ParameterError, match=r"-s1/model, which does not exist.*--rerun-stale") as failed:
            self.driven(tmp_path, PretendEngine())
        assert "05_matryoshka-" in str(failed.value)  # its id covers the weights, so it differs without them
        again = self.driven(tmp_path, PretendEngine(), rerun_stale=True)
        assert len(again.outcomes) == 25 and not any(outcome.skipped for outcome in again.outcomes.values())


def test_medquad_asks_for_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(paths.project_root()))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["sweep", "study_medquad", "--dry-run"])
    assert "data/medquad" in str(done.exception)
    folder = tmp_path / "data" / "medquad"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d", "text": "document"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "query"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    done = CliRunner().invoke(app, ["sweep", "study_medquad", "--dry-run"])
    assert done.exit_code == 0, done.output
