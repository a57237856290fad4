"""Real sweeps of a tiny notebook: every end is told apart, nothing is lost or done twice, the same command goes on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from embedlab.experiments import attempts, driver, engines, execute, notebooks, records, sweeps
from embedlab.experiments.driver import Driver, Options
from embedlab.experiments.guard import Limits
from tests.faults import tiny


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.delenv("EMBEDLAB_PROGRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tiny.make_project(tmp_path)


class Silent:
    """A view that remembers."""

    def __init__(self):
        self.said, self.reports = [], []

    def begin(self, total, done):
        self.said.append((total, done))

    def show(self, run_id, report):
        self.reports.append((run_id, report["stage"]))

    def ended(self, outcome, note=""):
        self.said.append((outcome.run_id, outcome.cause, note))


@pytest.fixture
def engine():
    engine = engines.DaskEngine(jobs=2)
    yield engine
    engine.close()


def run(path, engine, **options):
    view = Silent()
    result = Driver(sweeps.read_sweep(path), engine, view, Options(**options), path).run()
    return result, view


def causes(result):
    return {outcome.folder.name.rsplit("-", 1)[1] + ":" + outcome.cause for outcome in result.outcomes.values()}


def test_a_sweep_is_its_records_and_the_same_command_does_nothing_more(home, engine):
    path = tiny.write_sweep(home, grid={"x": [1.0, 2.0]}, seeds=[0, 1])
    result, view = run(path, engine)
    assert [outcome.cause for outcome in result.outcomes.values()] == [""] * 4
    assert sorted(tiny.committed(home).values()) == pytest.approx([1.0, 1.01, 2.0, 2.01])
    assert {stage for _, stage in view.reports} >= {"start", "finished"}
    notes = [outcome.record.notes for outcome in result.outcomes.values()]
    # fresh kernels, although they were forked: nothing of another run, randomness of their own, their share of threads
    assert {note["before"] for note in notes} == {None} and {note["name"] for note in notes} == {"__main__"}
    assert len({note["python"] for note in notes}) == len({note["numpy"] for note in notes}) == 4
    assert {note["cpus"] for note in notes} == {str(max(1, os.cpu_count() // 2))}
    assert {note["cwd"] for note in notes} == {str(home)}
    again, view = run(path, engine)
    assert view.said == [(4, 4)] and all(outcome.skipped for outcome in again.outcomes.values())


def test_bad_ends_are_told_apart_pass_by_and_are_run_again_on_request_only(home, engine):
    ends = ["ok", "raise", "exit", "kill", "memory", "disk", "kill once"]
    path = tiny.write_sweep(home, grid={"what": ends}, retries={"kernel died": 1})
    result, view = run(path, engine)
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
    again, view = run(path, engine)
    tried = [item for item in view.said if len(item) == 3 and "failed before" not in item[2]]
    assert [(by_id[item[0]], item[1]) for item in tried] == [("disk", "infrastructure")]  # an interruption is no result
    final, view = run(path, engine, retry_failed=True)
    assert {by_id[i] for i, o in final.outcomes.items() if o.record is None} == {
        "raise",
        "exit",
        "kill",
        "memory",
        "disk",
    }


def test_limits_end_a_run_and_all_it_started(home):
    notebook = notebooks.find_notebook("01")
    for values, limits, cause in (
        ({"seconds": 60.0}, Limits(wall_min=4 / 60), "timeout"),
        ({"what": "eat"}, Limits(mem_gb=0.5), "out of memory"),
    ):
        plan = execute.plan(notebook, values)
        outcome = execute.perform(plan, limits=limits, on_report=lambda report: None)
        assert outcome.cause == cause
    assert tiny.all_gone(home)


def test_a_cancelled_run_ends_and_the_sweep_goes_on(home, engine):
    path = tiny.write_sweep(home, grid={"seconds": [30.0, 0.0]})
    slow = execute.plan(notebooks.find_notebook("01"), {"seconds": 30.0}).run_id
    stop = Canceller(slow)
    view = Silent()
    view.show = lambda run_id, report: stop()
    result = Driver(sweeps.read_sweep(path), engine, view, Options(), path).run()
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
    result, _ = run(tiny.write_sweep(home, stages=[first, later]), engine)
    later_runs = [o.record for o in result.outcomes.values() if o.record.notebook == "02_later"]
    assert sorted(record.metrics[0].value for record in later_runs) == [4.0] * 3 + [20.0] * 3
    sources = {record.parameters["seed"]: record.parameters["source"] for record in later_runs}
    assert sources[0].endswith("-s0/model") and sources[1].endswith("-s1/model") and sources[7] == sources[0]
    assert not sources[0].startswith("/")  # the id must not depend on where the project lies


def test_a_search_resumes_from_its_records(home, engine):
    search = {"trials": 6, "batch": 2, "metric": "score", "space": {"x": {"low": -1.0, "high": 1.0}}}
    path = tiny.write_sweep(home, search=search)
    whole, _ = run(path, engine)
    assert len(whole.outcomes) == 6
    lost = list(whole.outcomes)[3]
    records.set_aside(whole.outcomes[lost].folder)
    again, view = run(path, engine)
    assert list(again.outcomes) == list(whole.outcomes)  # the same values were asked for, in the same order
    assert [item[0] for item in view.said if len(item) == 3] == [lost]


def test_two_drivers_make_each_run_once(home):
    tiny.write_sweep(home, grid={"x": [1.0, 2.0, 3.0]}, fixed={"seconds": 0.3})
    drivers = [tiny.start_driver(home, "s", "--jobs", "2") for _ in range(2)]
    texts = [driver.communicate(timeout=300)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], texts
    assert sorted(tiny.committed(home).values()) == [1.0, 2.0, 3.0]
    assert tiny.all_gone(home)


def processes_of_runs(home):
    """Child and kernel processes of the runs of a project."""
    return [
        p
        for p in tiny.family(home)
        if any(word in " ".join(p.cmdline()) for word in ("ipykernel", "experiments.child"))
    ]


def disturb(home, kind, generator):
    """Kill the driver, a run's process or a kernel of a running sweep at a random moment."""
    command, environment = tiny.driver_command(home, "s", "--jobs", "2", "--retry-failed")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with contextlib.suppress(psutil.Error):
        tiny.until(lambda: process.poll() is not None or processes_of_runs(home))
        time.sleep(generator.uniform(0, 2.5))
        word = {"worker": "experiments.child", "kernel": "ipykernel"}.get(kind)
        targets = (
            [process.pid]
            if kind == "driver"
            else [p.pid for p in processes_of_runs(home) if word in " ".join(p.cmdline())]
        )
        for target in targets[:1]:
            os.kill(target, signal.SIGKILL)
    process.wait(timeout=300)


def kills(home, count):
    generator = random.Random(0)
    tiny.write_sweep(home, grid={"x": [float(x) for x in range(4)]}, fixed={"seconds": 0.3}, retries={"kernel died": 1})
    for number in range(count):
        disturb(home, ("driver", "worker", "kernel")[number % 3], generator)
        assert tiny.all_gone(home), [p.cmdline() for p in tiny.family(home)]
        for folder in (home / "results" / "runs").glob("*"):
            if number % 3 == 0 and (folder / records.FILE).exists():  # so that there is work to disturb
                records.set_aside(folder)
    assert tiny.start_driver(home, "s", "--retry-failed").wait(timeout=300) == 0
    assert sorted(tiny.committed(home).values()) == [0.0, 1.0, 2.0, 3.0]


def test_a_killed_driver_worker_or_kernel_loses_and_doubles_nothing(home):
    kills(home, 3)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_three_hundred_kills(home):
    kills(home, 300)


def test_a_driver_that_forks_leaves_nothing_when_it_is_killed(home):
    tiny.write_sweep(home, grid={"x": [1.0, 2.0]}, fixed={"seconds": 60.0})
    process = tiny.start_driver(home, "s", "--jobs", "2", warm=True)
    tiny.until(lambda: len(list(home.glob("results/runs/*/attempts/*/scratch/progress.jsonl"))) == 2)
    assert len(tiny.family(home)) >= 5  # driver, nursery, two runs, two kernels
    process.kill()
    process.wait()
    assert tiny.all_gone(home), [(p.pid, p.cmdline()) for p in tiny.family(home)]


def test_control_c_keeps_what_is_finished_and_exits_with_130(home):
    tiny.write_sweep(home, grid={"seconds": [0.0, 60.0]})
    process = tiny.start_driver(home, "s")
    tiny.until(lambda: tiny.committed(home))
    tiny.until(lambda: processes_of_runs(home))
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert len(tiny.committed(home)) == 1 and "1 runs finished" in text
    assert tiny.all_gone(home)


def dask(*arguments, home, prefix=()):
    command = [*prefix, sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
    environment = {**os.environ, "EMBEDLAB_HOME": str(home), "EMBEDLAB_WARM": "0"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_dask_workers_without_a_shared_disk_and_one_of_them_killed(home, tmp_path_factory):
    """Records and files come back to the driver; what a lost worker had is done by the other one, and counts once."""
    away = [tiny.make_project(tmp_path_factory.mktemp("away")) for _ in range(2)]
    file = home / "scheduler.json"
    scheduler = dask("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file), home=home)
    address = tiny.until(lambda: file.exists() and file.stat().st_size and json.loads(file.read_text()))["address"]
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
    workers = [dask("worker", address, *options, home=place) for place in away]
    engine = engines.DaskEngine(address, jobs=2)
    try:
        path = tiny.write_sweep(home, grid={"x": [1.0, 2.0, 3.0, 4.0]}, fixed={"seconds": 1.0})
        view = Silent()
        seen = []

        def kill_one(run_id, report):
            if not seen:
                seen.append(run_id)
                workers[0].kill()

        view.show = kill_one
        result = Driver(sweeps.read_sweep(path), engine, view, Options(), path).run()
        assert seen and [o.cause for o in result.outcomes.values()] == [""] * 4
        assert sorted(tiny.committed(home).values()) == [1.0, 2.0, 3.0, 4.0]
        for outcome in result.outcomes.values():
            assert (outcome.folder / "model" / "weights.txt").read_text() == str(outcome.record.metrics[1].value)
            assert (outcome.folder / "executed.ipynb").exists()
        assert not any((place / "results").exists() for place in away)
    finally:
        engine.close()
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def island():
    """A network namespace with one cable to this machine; gives a command prefix, our address and the cable's name."""
    name, cable = f"el{os.getpid()}", f"el{os.getpid()}c"
    steps = [
        ("ip", "netns", "add", name),
        ("ip", "link", "add", cable, "type", "veth", "peer", "name", f"{cable}2", "netns", name),
        ("ip", "addr", "add", "10.77.13.1/24", "dev", cable),
        ("ip", "link", "set", cable, "up"),
        ("ip", "-n", name, "addr", "add", "10.77.13.2/24", "dev", f"{cable}2"),
        ("ip", "-n", name, "link", "set", f"{cable}2", "up"),
        ("ip", "-n", name, "link", "set", "lo", "up"),
    ]
    try:
        if not shutil.which("ip") or any(subprocess.run(step, capture_output=True).returncode for step in steps):
            pytest.skip("this system gives no network namespaces")
        yield ("ip", "netns", "exec", name), "10.77.13.1", cable
    finally:
        subprocess.run(("ip", "netns", "del", name), capture_output=True)


@pytest.mark.long
def test_a_worker_cut_off_by_the_network_doubles_nothing(home, island, monkeypatch, tmp_path_factory):
    """The cable to a working worker is cut and put back: its run is made again elsewhere, and counts once."""
    prefix, address, cable = island
    quick = {"DISTRIBUTED__SCHEDULER__WORKER_TTL": "6s", "DISTRIBUTED__COMM__TIMEOUTS__TCP": "5s"}
    for name, value in quick.items():
        monkeypatch.setenv(f"DASK_{name}", value)
    away = [tiny.make_project(tmp_path_factory.mktemp("away")) for _ in range(2)]
    file = home / "scheduler.json"
    scheduler = dask(
        "scheduler", "--host", address, "--port", "0", "--no-dashboard", "--scheduler-file", str(file), home=home
    )
    where = tiny.until(lambda: file.exists() and file.stat().st_size and json.loads(file.read_text()))["address"]
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
    workers = [dask("worker", where, *options, home=away[0], prefix=prefix)]
    engine = engines.DaskEngine(where, jobs=2)
    try:
        path = tiny.write_sweep(home, grid={"x": [1.0, 2.0, 3.0]}, fixed={"seconds": 3.0})
        view, cut = Silent(), []

        def cut_cable(run_id, report):
            if not cut:
                cut.append(run_id)
                subprocess.run(("ip", "link", "set", cable, "down"), check=True)
                workers.append(dask("worker", where, *options, home=away[1]))
                threading.Timer(20, subprocess.run, [("ip", "link", "set", cable, "up")]).start()

        view.show = cut_cable
        result = Driver(sweeps.read_sweep(path), engine, view, Options(), path).run()
        assert cut and [o.cause for o in result.outcomes.values()] == [""] * 3
        assert sorted(tiny.committed(home).values()) == [1.0, 2.0, 3.0]
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
        engine.close()


def test_a_late_delivery_is_refused(home):
    """A worker that was believed lost and comes back after the lease finds the record taken."""
    from embedlab.experiments import delivery

    plan = execute.plan(notebooks.find_notebook("01"), {"x": 5.0})
    portable = delivery.portable(engines.Job(plan)).plan
    first, second = (delivery.perform_away(portable, on_report=lambda report: None) for _ in range(2))
    assert first.record.attempt != second.record.attempt
    assert not delivery.receive(first, plan).skipped
    late = delivery.receive(second, plan)
    assert late.skipped and late.record.attempt == first.record.attempt
    assert list(tiny.committed(home).values()) == [5.0]


def test_slurm_jobs_through_submitit(home):
    """The same adapter, with submitit's local processes in Slurm's place."""
    engine = engines.SlurmEngine(jobs=2, cluster="local")
    path = tiny.write_sweep(home, grid={"what": ["ok", "raise"]}, resources={"wall_min": 5.0})
    result, view = run(path, engine)
    assert sorted(o.cause for o in result.outcomes.values()) == ["", "error in cell"]
    assert list(tiny.committed(home).values()) == [1.0]


def test_engine_options_that_do_not_go_together():
    for kind, scheduler in (("dask", None), ("local", "tcp://x:1"), ("ray", None)):
        with pytest.raises(sweeps.ParameterError):
            engines.make_engine(kind, jobs=1, scheduler=scheduler)
    with pytest.raises(sweeps.ParameterError, match="no Dask scheduler answers"):
        engines.make_engine("dask", jobs=1, scheduler="tcp://127.0.0.1:9")


def test_options_are_frozen():
    with pytest.raises(AttributeError):
        driver.Options().only = ("x=1",)


def weights(outcome):
    return outcome.record.model_fingerprints["tuned"], {row.metric: row.value for row in outcome.record.metrics}


def repeats(home, monkeypatch, count):
    """The quickstart at smoke size, `count` times alone and `count` times beside another run."""
    project = Path(notebooks.__file__).resolve().parents[3]
    notebook = project / "notebooks" / "00_quickstart.ipynb"
    (home / "notebooks" / notebook.name).write_bytes(notebook.read_bytes())
    fixed = {"dataset": "icd10cm:smoke", "max_steps": 2, "max_examples": 60}
    found = []
    for jobs, warm in ((1, "0"), (2, "1")):
        monkeypatch.setenv("EMBEDLAB_WARM", warm)
        engine = engines.DaskEngine(jobs=jobs)
        spec = tiny.write_sweep(home, notebook="00_quickstart", fixed=fixed, seeds=[7, 8], resources={"cpus": 1})
        for _ in range(count):
            result, _ = run(spec, engine, output_dir=str(home / f"kept-{jobs}"))
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
