"""Real sweeps of a tiny notebook: every end is told apart, nothing is done twice, the same command goes on."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from embedlab.runs import attempts, execute, heartbeat, notebooks, records
from embedlab.sweeps import planning
from embedlab.sweeps.local import LocalEngine
from embedlab.sweeps.spec import Search, Space, Stage
from tests.faults import tiny


def test_a_sweep_is_its_records_and_the_same_command_does_nothing_more(home, engine):
    path = tiny.write_sweep(home, grid={"x": [1.0, 2.0]}, seeds=[0, 1])
    result, view = tiny.run_sweep(path, engine)
    assert [outcome.cause for outcome in result.outcomes.values()] == [""] * 4
    assert sorted(tiny.committed(home).values()) == pytest.approx([1.0, 1.01, 2.0, 2.01])
    assert {stage for _, stage in view.reports} >= {"start", "finished"}
    notes = [outcome.record.notes for outcome in result.outcomes.values()]
    # fresh kernels, although they were forked: nothing of another run, randomness of their own, their share of threads
    assert {note["before"] for note in notes} == {None} and {note["name"] for note in notes} == {"__main__"}
    assert len({note["python"] for note in notes}) == len({note["numpy"] for note in notes}) == 4
    assert {note["cpus"] for note in notes} == {str(max(1, os.cpu_count() // 2))}
    assert {note["cwd"] for note in notes} == {""}  # the project folder, which records do not name
    again, view = tiny.run_sweep(path, engine)
    assert view.said == [(4, 4)] and all(outcome.skipped for outcome in again.outcomes.values())


def test_bad_ends_are_told_apart_pass_by_and_are_run_again_on_request_only(home, engine):
    ends = ["ok", "raise", "exit", "kill", "memory", "disk", "kill once"]
    path = tiny.write_sweep(home, grid={"what": ends}, retries={"kernel died": 1})
    result, view = tiny.run_sweep(path, engine)
    by_id = {execute.plan(notebooks.find_notebook("01"), {"what": end}).run_id: end for end in ends}
    found = {by_id[run_id]: outcome.cause for run_id, outcome in result.outcomes.items()}
    assert found == {
        "ok": "",
        "raise": "error in cell",
        "exit": "incomplete",
        "kill": "kernel died",
        "memory": "out of memory",
        "disk": "infrastructure",
        "kill once": "",
    }
    assert sum("try 2" in item[2] for item in view.said if len(item) == 3) == 2  # kill, kill once
    again, view = tiny.run_sweep(path, engine)
    tried = [item for item in view.said if len(item) == 3 and "failed before" not in item[2]]
    # An interruption is no result: a full disk, or a cause that the sweep retries.
    assert {(by_id[item[0]], item[1]) for item in tried} == {("disk", "infrastructure"), ("kill", "kernel died")}
    final, view = tiny.run_sweep(path, engine, retry_failed=True)
    assert {by_id[i] for i, o in final.outcomes.items() if o.record is None} == {
        "raise",
        "exit",
        "kill",
        "memory",
        "disk",
    }


def test_a_cancelled_run_ends_and_the_sweep_goes_on(home, engine):
    path = tiny.write_sweep(home, grid={"seconds": [30.0, 0.0]})
    slow = execute.plan(notebooks.find_notebook("01"), {"seconds": 30.0}).run_id
    stop = Canceller(slow)
    view = tiny.Silent()
    view.show = lambda run_id, report: stop()
    result, _ = tiny.run_sweep(path, engine, view)
    assert result.outcomes[slow].cause == "cancelled"
    assert [o.cause for i, o in result.outcomes.items() if i != slow] == [""]


class Canceller:
    """Cancels a run as soon as it is on."""

    def __init__(self, run_id):
        self.run_id = run_id

    def __call__(self):
        for attempt in attempts.running():
            if attempt.run_id == self.run_id:
                attempt.cancel()


def test_stages_hand_on_the_best_of_the_same_seed(home, engine):
    first = {"name": "first", "notebook": "01_tiny", "grid": {"x": [3.0, 2.0]}, "seeds": [0, 1]}
    first["pick"] = {"metric": "score"}  # -x²: the smaller x wins
    later = {"name": "second", "notebook": "02_later", "fixed": {"source": "{first.model}"}, "seeds": [0, 1, 7]}
    later["grid"] = {"factor": [10.0, "{first.p.x}"]}
    result, _ = tiny.run_sweep(tiny.write_sweep(home, stages=[first, later]), engine)
    later_runs = [o.record for o in result.outcomes.values() if o.record.notebook == "02_later"]
    assert sorted(record.metrics[0].value for record in later_runs) == [4.0] * 3 + [20.0] * 3
    sources = {record.parameters["seed"]: record.parameters["source"] for record in later_runs}
    assert sources[0].endswith("-s0/model") and sources[1].endswith("-s1/model") and sources[7] == sources[0]
    assert not sources[0].startswith("/")  # the id must not depend on where the project lies


def test_a_combination_that_lost_a_seed_does_not_compete():
    def finished(x, seed, score):
        row = records.MetricRow(
            system="contrastive", technique="contrastive", split="dev", metric="ndcg@10", value=score
        )
        plan = SimpleNamespace(run_id=f"{x}-{seed}")
        record = SimpleNamespace(run_id=plan.run_id, metrics=[row])
        return planning.Planned(plan, {"x": x, "seed": seed}, record)

    lucky = [finished(1, 0, 0.9)]
    sound, other = ([finished(x, seed, score) for seed in (0, 1)] for x, score in ((2, 0.5), (3, 0.4)))
    stage = Stage(notebook="01_tiny")
    chosen = planning.best(stage, [*lucky, *lucky, *other, *sound])
    assert {seed: item.values["x"] for seed, item in chosen.items()} == {0: 2, 1: 2}
    assert planning.best(stage, lucky)[0].values["x"] == 1
    search = Search(trials=1, metric="score", space={"x": Space(choices=[1])})
    assert Stage(notebook="01_tiny", search=search).decides is search


def test_a_dry_run_names_what_builds_on_finished_stages(home, engine, command):
    stages = [
        {"name": "first", "notebook": "01_tiny", "grid": {"x": [3.0, 2.0]}, "pick": {"metric": "score"}},
        {"name": "second", "notebook": "02_later", "fixed": {"source": "{first.model}"}},
    ]
    path = tiny.write_sweep(home, stages=stages)
    code, out, _ = command("sweep", "s", "--dry-run")
    assert code == 0 and "2 runs, 0 finished, 2 to do" in out and "second: 1 runs, which depend on" in out
    result, _ = tiny.run_sweep(path, engine)
    code, out, _ = command("sweep", "s", "--dry-run")
    assert code == 0 and "1 runs, 1 finished, 0 to do" in out
    assert all(run_id in out for run_id in result.outcomes)


def test_a_search_resumes_from_its_records(home, engine):
    search = {"trials": 6, "batch": 2, "metric": "score", "space": {"x": {"low": -1.0, "high": 1.0}}}
    path = tiny.write_sweep(home, search=search)
    whole, _ = tiny.run_sweep(path, engine)
    assert len(whole.outcomes) == 6
    lost = list(whole.outcomes)[3]
    records.set_aside(whole.outcomes[lost].folder)
    again, view = tiny.run_sweep(path, engine)
    assert list(again.outcomes) == list(whole.outcomes)  # the same values were asked for, in the same order
    assert [item[0] for item in view.said if len(item) == 3] == [lost]


def test_two_drivers_make_each_run_once(home):
    tiny.write_sweep(home, grid={"x": [1.0, 2.0, 3.0]}, fixed={"seconds": 0.3})
    drivers = [tiny.start_warm_driver(home, "s", "--jobs", "2") for _ in range(2)]
    for driver in drivers:
        driver.join(120)
    assert [driver.exitcode for driver in drivers] == [0, 0], [path.read_text() for path in home.glob("driver-*.log")]
    assert sorted(tiny.committed(home).values()) == [1.0, 2.0, 3.0]
    assert tiny.all_gone(home)


def test_a_run_is_watched_followed_and_cancelled_from_elsewhere(home, command):
    plan = execute.plan(notebooks.find_notebook("01"), {"seconds": 60.0})
    with ThreadPoolExecutor() as pool:
        perform = pool.submit(execute.perform, plan, warm=True, on_report=lambda report: None)
        (reports,) = tiny.until(lambda: list(plan.folder.glob(f"attempts/*/scratch/{heartbeat.REPORTS}")))
        tiny.until(lambda: "start" in reports.read_text())
        assert f"{plan.run_id} on {socket.gethostname()} · start" in command("watch", "--once")[1]
        assert f"asked {plan.run_id} to stop" in command("cancel", plan.run_id[:12])[1]
        code, out, err = command("logs", plan.run_id[:12], "--follow")  # to its end
        assert perform.result(timeout=30).cause == "cancelled"
    assert code == 0 and "executed.ipynb" in out.replace("\n", "")
    assert "last failure: cancelled" in command("logs", plan.run_id)[2]
    assert command("watch")[1].startswith(f"no runs in progress on this disk ({home}")
    assert command("watch", "--once")[1].startswith("no runs in progress")
    code, _, err = command("cancel", plan.run_id)
    assert code == 2 and "no runs in progress on this disk" in err and "Call it on the machine that has them" in err
    code, _, err = command("logs", "zzz")
    assert code == 2 and "`embedlab table` those that have finished" in err


def test_a_dead_attempt_that_is_dated_tomorrow_is_at_work_no_more(home, command, monkeypatch):
    monkeypatch.setattr(heartbeat, "FIRST_LOOK_S", 0.5)
    reports = home / "results" / "runs" / "01_tiny-01234567-s0" / "attempts" / "1-a" / "scratch" / heartbeat.REPORTS
    reports.parent.mkdir(parents=True)
    reports.write_text('{"time": 0, "stage": "start", "step": 0, "total": null}\n')
    tomorrow = time.time() + 86_400
    os.utime(reports, (tomorrow, tomorrow))
    assert command("watch")[0] == 0  # it ends
    assert attempts.running() == [] and attempts.running_in(reports.parents[3]) == []
    assert command("cancel", "all")[0] == 2
    assert command("logs", "01_tiny-01234567-s0", "-f")[0] == 0


def test_tables_lie_with_runs_that_are_kept_elsewhere(home, command):
    tiny.write_sweep(home)
    code, out, _ = command("sweep", "s", "--output-dir", "kept")
    tables = {path.name for path in (home / "kept" / "tables").iterdir()}
    assert code == 0 and tables == {"sweep-s.md", "sweep-s.csv", "sweep-s.parquet"}
    assert not (home / "results").exists() and not (home / "experiments" / "runs.csv").exists()
    assert command("sweep", "s", "--output-dir", "kept")[0] == 0  # the tables are no run


def test_the_table_has_all_of_the_sweep_when_only_a_part_was_run(home, command):
    tiny.write_sweep(home, grid={"x": [1.0, 2.0, 3.0]})
    for x, rows in (("1.0", 1), ("3.0", 2)):
        assert command("sweep", "s", "--only", f"x={x}")[0] == 0
        table = pd.read_csv(home / "results" / "mine" / "tables" / "sweep-s.csv")
        assert table["runs"].nunique() == rows


def weights(outcome):
    assert outcome.record, outcome.detail
    return outcome.record.model_fingerprints, {row.metric: row.value for row in outcome.record.metrics}


def repeats(home, monkeypatch, count):
    """Contrastive training at smoke size, `count` times alone and `count` times next to another run."""
    project = Path(notebooks.__file__).resolve().parents[3]
    notebook = project / "notebooks" / "03_contrastive.ipynb"
    (home / "notebooks" / notebook.name).write_bytes(notebook.read_bytes())
    fixed = {"dataset": "icd10cm:smoke", "max_steps": 2, "max_examples": 60, "matryoshka_dims": [384]}
    found = []
    for jobs, warm, seeds in ((1, "0", [7]), (2, "1", [7, 8])):
        monkeypatch.setenv("EMBEDLAB_WARM", warm)
        engine = LocalEngine(jobs)
        spec = tiny.write_sweep(home, notebook="03_contrastive", fixed=fixed, seeds=seeds, resources={"cpus": 1})
        for _ in range(count):
            result, _ = tiny.run_sweep(spec, engine, output_dir=str(home / f"kept-{jobs}"))
            outcome = next(o for o in result.outcomes.values() if o.run_id.endswith("-s7"))
            found.append(weights(outcome))
            for item in result.outcomes.values():
                records.set_aside(item.folder)
        engine.close()
    assert all(item == found[0] for item in found)


@pytest.mark.slow
def test_one_seed_gives_the_same_weights_alone_beside_another_run_cold_and_warm(home, monkeypatch):
    repeats(home, monkeypatch, 1)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_times_the_same_weights(home, monkeypatch):
    repeats(home, monkeypatch, 5)
