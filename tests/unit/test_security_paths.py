"""Names from records, workers and the command line stay in their folder; files of others stay untouched."""

from __future__ import annotations

import json

import pytest

from embedlab import paths
from embedlab.errors import ModelError, ParameterError, StorageError
from embedlab.models.folder import ModelFolder
from embedlab.reporting import site, tables
from embedlab.reporting.publish import publish_all, publish_run
from embedlab.runs import attempts, per_query, record_index, records
from embedlab.runs.execute import Plan
from embedlab.runs.failures import failures
from embedlab.runs.records import DamagedRecord, MetricRow, Record
from embedlab.runs.run import publish
from embedlab.sweeps import planning, remote

RUN = "nb-01234567-s0"


def record(**fields) -> Record:
    metric = MetricRow(system="m", technique="t", split="test", metric="ndcg@10", value=0.1)
    return Record(**{"run_id": RUN, "notebook": "nb", "parameters": {"seed": 0}, "metrics": [metric], **fields})


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project with one run, in a folder that holds a stranger's photos."""
    home = tmp_path / "home"
    monkeypatch.setenv("EMBEDLAB_HOME", str(home))
    for folder in (home / "experiments", home / "notebooks", tmp_path / "photos"):
        folder.mkdir(parents=True)
    (tmp_path / "photos" / "cat.png").write_text("mine")
    (home / "README.md").write_text("# Home")
    assert records.commit(record(), paths.runs_dir() / RUN)
    yield home
    assert (tmp_path / "photos" / "cat.png").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "photos"]


@pytest.mark.parametrize("attempt", ["/tmp", "../../../photos", "..", ".", "a/b", "a\\b", "a\nb"])
@pytest.mark.parametrize("field", ["attempt", "run_id", "notebook"])
def test_a_record_that_names_another_folder_is_damaged(home, field, attempt):
    path = paths.runs_dir() / RUN / records.FILE
    content = {**record().content(), field: attempt}
    path.write_text(records.file_text(content))
    assert json.loads(path.read_text())["sha256"] == records.digest_of(content)
    with pytest.raises(DamagedRecord):
        records.read(path.parent)


def test_an_attempt_that_is_a_link_is_not_published(home, tmp_path):
    folder = paths.runs_dir() / RUN
    (folder / "attempts").mkdir()
    (folder / "attempts" / "1").symlink_to(tmp_path / "photos")
    with pytest.raises(ParameterError, match="is a link to another place"):
        publish(folder, record(attempt="1"))
    for forged in ("/etc", str(tmp_path / "photos"), "../../../../photos"):
        with pytest.raises(ParameterError):
            publish(folder, record().model_copy(update={"attempt": forged}))


@pytest.mark.parametrize("name", ["../../../escaped", "/tmp/escaped", "a/b", "..", ""])
def test_publish_writes_under_a_plain_name_only(home, name):
    before = sorted(home.rglob("*"))
    with pytest.raises(ParameterError, match=r"\[name\]"):
        publish_run(RUN, name)
    with pytest.raises(ParameterError, match=r"\[name\]"):
        tables.write_table(tables.runs_frame([record()]), name)
    assert sorted(home.rglob("*")) == before
    (home / "experiments" / "published.yaml").write_text(json.dumps({"runs": {name: RUN}}))
    with pytest.raises(ParameterError, match=r"\[name\]"):
        publish_all()


@pytest.mark.parametrize("run_id", ["../../photos", "/etc", "a/b", "..", ""])
def test_a_run_id_with_slashes_is_refused_everywhere(home, run_id):
    readers = [
        lambda: publish_run(run_id, "quick"),
        lambda: per_query.query_values(run_id, "ndcg@10"),
        lambda: list(record_index.indexed_records(["ndcg@10"], [run_id])),
        lambda: failures([run_id]),
    ]
    for read in readers:
        with pytest.raises(ParameterError, match=r"\[run\]: .* is not a plain name"):
            read()
    if run_id:
        with pytest.raises(ParameterError, match="begins with this"):
            attempts.latest(run_id)


@pytest.mark.parametrize("name", ["../../../../photos/cat.png", "/tmp/x", "a/../../x"])
def test_files_from_a_worker_stay_in_the_attempt(home, name):
    plan = Plan(home / "nb.ipynb", {}, RUN, paths.runs_dir() / RUN)
    with pytest.raises(ParameterError, match=r"\[files\]"):
        remote.receive(remote.Delivery(RUN, "1", None, "timeout", "", {name: b"x"}, ()), plan)
    with pytest.raises(ParameterError, match=r"\[attempt\]"):
        remote.receive(remote.Delivery(RUN, "../../x", None, "timeout", "", {"a": b"x"}, ()), plan)
    with pytest.raises(ParameterError, match=r"\[inputs\]"):
        remote.perform_away(remote.PortablePlan(plan.notebook, {}, RUN, plan.folder, "", {name: b"x"}))


def test_a_stage_refers_to_files_of_the_run_only(home):
    plan = Plan(home / "nb.ipynb", {"seed": 0}, RUN, paths.runs_dir() / RUN)
    earlier = {"a": {0: planning.Planned(plan, {"seed": 0})}}
    (followed,) = planning.follow([{"seed": 0, "model": "{a.model/labelled}"}], earlier)
    assert followed["model"] == f"results/runs/{RUN}/model/labelled"
    for what in ("../../../../photos", "model/../../x", "/etc"):
        with pytest.raises(ParameterError):
            planning.follow([{"seed": 0, "model": f"{{a.{what}}}"}], earlier)


@pytest.mark.parametrize("place", ["photos", "home", "."])
def test_a_site_is_not_built_into_a_folder_with_files_of_others(home, tmp_path, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(site, "NEEDS", ())
    with pytest.raises(StorageError, match="embedlab did not make this folder"):
        site.build_site(paths.Path(place))


@pytest.mark.parametrize("place", ["../photos", "/etc", "a/../../photos"])
def test_a_module_outside_the_model_folder_is_refused(tmp_path, place):
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "x", "path": ""}, {"type": "x", "path": place}]))
    with pytest.raises(ModelError, match="module 1 is at .* outside the model's folder"):
        ModelFolder(tmp_path, "m").modules()
