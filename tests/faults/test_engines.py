"""Sweeps on Dask clusters of several processes and through Slurm's adapter: no shared disk, lost and late workers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from embedlab.errors import EmbedlabError, ParameterError
from embedlab.runs import attempts, execute, notebooks, records
from embedlab.runs.limits import Limits, visible_gpus
from embedlab.sweeps import dask as dask_engine
from embedlab.sweeps import remote, slurm
from embedlab.sweeps.dask import DaskEngine
from embedlab.sweeps.engine import make_engine
from embedlab.sweeps.job import Job
from embedlab.sweeps.local import LocalEngine
from tests.faults import tiny


def dask(*arguments, home, prefix=()):
    command = [*prefix, sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
    environment = {**os.environ, "EMBEDLAB_HOME": str(home), "EMBEDLAB_WARM": "1" if "--nanny" in arguments else "0"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def cluster(home, *options):
    """An engine on a Dask scheduler in a process of its own, and a function that starts a worker for a folder."""
    file, rest = home / "scheduler.json", ("--port", "0", "--no-dashboard", *options)
    processes = [dask("scheduler", "--scheduler-file", str(file), *rest, home=home)]

    def start_worker(place, prefix=(), nanny="--no-nanny"):
        options = ("--nthreads", "1", "--no-dashboard", nanny)
        processes.append(dask("worker", address, *options, home=place, prefix=prefix))
        return processes[-1]

    try:
        address = tiny.until(lambda: file.exists() and file.stat().st_size and json.loads(file.read_text()))["address"]
        with closing(DaskEngine(address)) as engine:
            yield engine, start_worker
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_dask_workers_without_a_shared_disk_and_one_of_them_killed(home, tmp_path_factory):
    """Records and files come back to the driver; what a lost worker had is done by the other one, and counts once.

    The other one is under a nanny, as `dask worker` starts them: a daemon, which cannot fork.
    """
    away = [tiny.make_project(tmp_path_factory.mktemp("away")) for _ in range(2)]
    with cluster(home) as (engine, start_worker):
        first, _ = start_worker(away[0]), start_worker(away[1], nanny="--nanny")
        path = tiny.write_sweep(home, grid={"x": [1.0, 2.0]}, fixed={"seconds": 1.0})
        view, seen = tiny.Silent(), []

        def show(run_id, report):
            first.kill()
            seen.extend(attempt for attempt in attempts.running() if attempt.is_away)

        view.show = show
        result, _ = tiny.run_sweep(path, engine, view)
    assert {attempt.run_id for attempt in seen} == set(result.outcomes)  # `embedlab watch` shows them here
    assert not list(home.glob(f"results/runs/*/attempts/*{attempts.AWAY}"))
    assert first.poll() is not None and [o.cause for o in result.outcomes.values()] == [""] * 2
    assert sorted(tiny.committed(home).values()) == [1.0, 2.0]
    for outcome in result.outcomes.values():
        assert (outcome.folder / "model" / "weights.txt").read_text() == str(outcome.record.metrics[1].value)
        assert (outcome.folder / "executed.ipynb").exists()
    assert not any((place / "results").exists() for place in away)


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
    # Long enough for a worker that imports on a busy machine: one that is given up does not come back without a nanny.
    quick = {"DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s", "DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s"}
    for name, value in quick.items():
        monkeypatch.setenv(f"DASK_{name}", value)
    away = [tiny.make_project(tmp_path_factory.mktemp("away")) for _ in range(2)]
    restore = threading.Timer(45, subprocess.run, [("ip", "link", "set", cable, "up")])
    with cluster(home, "--host", address) as (engine, start_worker):
        start_worker(away[0], prefix)
        path = tiny.write_sweep(home, grid={"x": [1.0, 2.0]}, fixed={"seconds": 3.0})
        view = tiny.Silent()

        def cut_cable(run_id, report):
            if not restore.ident:
                subprocess.run(("ip", "link", "set", cable, "down"), check=True)
                start_worker(away[1])
                restore.start()

        view.show = cut_cable
        result, _ = tiny.run_sweep(path, engine, view)
        committed = tiny.committed(home)
        restore.join()
        time.sleep(5)  # for whatever the worker that was cut off may still say
    assert [o.cause for o in result.outcomes.values()] == [""] * 2
    assert sorted(committed.values()) == [1.0, 2.0] and tiny.committed(home) == committed


def test_a_late_delivery_is_refused(home):
    """A worker that was believed lost and comes back after the lease finds the record taken."""
    plan = execute.plan(notebooks.find_notebook("01"), {"x": 5.0})
    portable = remote.portable(Job(plan)).plan
    first, second = (remote.perform_away(portable, warm=True, on_report=lambda report: None) for _ in range(2))
    assert first.record.attempt != second.record.attempt
    assert not remote.receive(first, plan).skipped
    late = remote.receive(second, plan)
    assert late.skipped and late.record.attempt == first.record.attempt
    assert list(tiny.committed(home).values()) == [5.0]


def test_a_run_on_another_disk_is_cancelled_from_here(home):
    """Without a worker the run never starts; the request reaches the engine all the same."""
    plan = execute.plan(notebooks.find_notebook("01"), {"seconds": 60.0})
    with cluster(home) as (engine, _):
        cancelled = []
        engine.cancel = cancelled.append
        engine.submit(Job(plan))
        (attempt,) = attempts.running()
        list(engine.poll())
        assert attempt.is_away and cancelled == []
        attempt.cancel()
        list(engine.poll())
        assert cancelled == [plan.run_id]
    assert attempts.running() == []


def test_slurm_jobs_through_submitit(home):
    """The same adapter, with submitit's local processes in Slurm's place."""
    engine = slurm.SlurmEngine(jobs=2, cluster="local")
    path = tiny.write_sweep(home, grid={"what": ["ok", "raise"]}, resources={"wall_min": 5.0})
    result, view = tiny.run_sweep(path, engine)
    assert sorted(o.cause for o in result.outcomes.values()) == ["", "error in cell"]
    assert list(tiny.committed(home).values()) == [1.0]


def test_engine_options_that_do_not_go_together(monkeypatch):
    monkeypatch.setattr(dask_engine, "CONNECT_TIMEOUT_S", 0.5)
    for kind, scheduler in (("dask", None), ("local", "tcp://x:1"), ("ray", None)):
        with pytest.raises(ParameterError):
            make_engine(kind, jobs=1, scheduler=scheduler)
    with pytest.raises(ParameterError, match="no Dask scheduler answers"):
        make_engine("dask", jobs=1, scheduler="tcp://127.0.0.1:9")


def test_what_earlier_runs_left_travels_to_workers_and_artefacts_to_their_store(home, monkeypatch, tmp_path_factory):
    first = execute.run_notebook(notebooks.find_notebook("01"), {"x": 4.0}, warm=True, on_report=lambda report: None)
    source = f"results/runs/{first.run_id}/model"
    plan = execute.plan(notebooks.find_notebook("02"), {"source": source, "factor": 10.0})
    portable = remote.portable(Job(plan)).plan
    assert portable.inputs == {f"{source}/weights.txt": b"4.0"}
    away, store = tiny.make_project(tmp_path_factory.mktemp("away")), tmp_path_factory.mktemp("store")
    with monkeypatch.context() as there:
        there.setenv("EMBEDLAB_HOME", str(away))
        there.setenv(remote.ARTEFACTS_URL, f"file://{store}")
        sent = remote.perform_away(portable, warm=True, on_report=lambda report: None)
    outcome = remote.receive(sent, plan)
    assert (outcome.run_id, outcome.record.metrics[0].value) == (plan.run_id, 40.0)
    kept = store / plan.run_id / outcome.record.attempt
    assert (kept / records.FILE).read_bytes() == (outcome.folder / records.FILE).read_bytes()


def test_what_cannot_travel_is_said(home, monkeypatch, tmp_path_factory):
    place = tmp_path_factory.mktemp("kept")
    (place / "model").mkdir()
    values = {"source": str(place / "model"), "output_dir": str(place)}
    plan = execute.plan(notebooks.find_notebook("02"), values)
    with pytest.raises(ParameterError, match="outside the project.*--shared-disk"):
        remote.portable(Job(plan))
    monkeypatch.setattr(remote, "MAX_BYTES", 3)
    runs = home / "results" / "runs"
    (runs / "a").mkdir(parents=True)
    (runs / "a" / "weights.txt").write_text("1.00")
    plan = execute.plan(notebooks.find_notebook("02"), {"source": "results/runs/a"})
    with pytest.raises(ParameterError, match="cannot be sent"):
        remote.portable(Job(plan))
    sent = remote.Delivery("a", "1", None, "", "", {}, ("model/weights",))
    record = records.Record(run_id="a", notebook="01_tiny", parameters={}, metrics=[])
    outcome = remote.receive(replace(sent, record=record), replace(plan, run_id="a", folder=runs / "a"))
    assert outcome.record and outcome.detail == "too large to send: model/weights"


def test_local_runs_share_the_gpus(home, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with closing(make_engine("local", jobs=3)) as engine:
        path = tiny.write_sweep(home, grid={"x": [1.0, 2.0, 3.0]}, fixed={"seconds": 1.0}, resources={"gpus": 1})
        result, _ = tiny.run_sweep(path, engine)
        assert {outcome.record.notes["gpus"] for outcome in result.outcomes.values()} == {"3", "5"}
        path = tiny.write_sweep(home, resources={"gpus": 3})
        with pytest.raises(ParameterError, match="needs 3 GPUs, but the engine has 2"):
            tiny.run_sweep(path, engine)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_a_cancelled_run_that_waits_for_a_gpu_or_for_its_turn_ends(home):
    plan = execute.plan(notebooks.find_notebook("01"), {"seconds": 30.0})
    others = [execute.plan(notebooks.find_notebook("01"), {"x": x}) for x in (2.0, 3.0)]
    with closing(LocalEngine(2, gpus=["0"])) as engine:
        engine.submit(Job(plan, gpus=1))
        tiny.until(lambda: not engine._free_gpus, within_s=20)
        for waiting in others:  # the first waits for the GPU, the second for a thread
            engine.submit(Job(waiting, gpus=1))
        for waiting in (*others, plan):
            engine.cancel(waiting.run_id)
        outcomes = []
        tiny.until(lambda: outcomes.extend(engine.poll()) or len(outcomes) == 3, within_s=20)
    assert {outcome.cause for outcome in outcomes} == {"cancelled"} and tiny.committed(home) == {}


def test_a_problem_outside_of_the_notebook_is_an_interruption(home, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(execute, "perform", full)
    with closing(LocalEngine()) as engine:
        engine.submit(Job(execute.plan(notebooks.find_notebook("01"))))
        (outcome,) = tiny.until(lambda: list(engine.poll()), within_s=5)
    assert (outcome.cause, outcome.detail) == ("infrastructure", "OSError: no space left")


@pytest.mark.parametrize("kind, package", [("dask", "distributed"), ("slurm", "submitit")])
def test_a_cluster_engine_says_how_to_install_it(monkeypatch, kind, package):
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    monkeypatch.setattr(dask_engine, "find_spec", lambda name: None)
    with pytest.raises(EmbedlabError, match=rf"{package} is not installed.*pip install 'embedlab\[cluster\]'"):
        make_engine(kind, scheduler="tcp://127.0.0.1:9" if kind == "dask" else None)


def test_local_sweeps_need_no_dask():
    code = "import sys; from embedlab.sweeps import driver, engine, local; print('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_lost_scheduler_is_an_interruption(home):
    plan = execute.plan(notebooks.find_notebook("01"))
    assert dask_engine._outcome_of(SimpleNamespace(status="cancelled"), plan).cause == "infrastructure"
    with cluster(home) as (engine, _):
        engine.close()
        with pytest.raises(EmbedlabError, match="scheduler does not answer any more"):
            engine.submit(Job(plan))


def test_slurm_is_asked_for_a_little_more_than_the_limits_and_for_a_day_without_any(home):
    plan = execute.plan(notebooks.find_notebook("01"))
    wishes = slurm._requests(Job(plan, Limits(wall_min=1.5, mem_gb=0.5, cpus=2), gpus=1))
    expected = {"timeout_min": 7, "cpus_per_task": 2, "gpus_per_node": 1, "mem_gb": 2, "name": plan.run_id}
    assert wishes == expected
    assert slurm._requests(Job(plan))["timeout_min"] == 24 * 60
    engine = slurm.SlurmEngine(cluster="local", options={"timeout_min": 3})
    assert engine._executor(timeout_min=9, mem_gb=4)._executor.parameters["timeout_min"] == 3
    assert "mem_gb" not in engine._executor()._executor.parameters  # that of another job
    texts = {"timeout_min": "60", "mem_gb": "4", "slurm_exclusive": "False", "slurm_partition": "010"}
    engine = slurm.SlurmEngine(cluster="local", options=texts)
    assert engine._options == {"timeout_min": 60, "mem_gb": 4.0, "slurm_exclusive": False, "slurm_partition": "010"}
    refused = ("slurm_setup", "slurm_additional_parameters", "slurm_srun_args", "name")
    for options in ({"slurm_partitoin": "x"}, {"timeout_min": "long"}, *({name: "x"} for name in refused)):
        with pytest.raises(ParameterError, match="--slurm"):
            slurm.SlurmEngine(cluster="local", options=options)


def test_slurms_queue_is_no_longer_than_it_may_be(home):
    engine = slurm.SlurmEngine(jobs=1, cluster="local")
    jobs = [Job(execute.plan(notebooks.find_notebook("01"), {"x": x, "seconds": 60.0})) for x in (1.0, 2.0)]
    for job in jobs:
        engine.submit(job)
    assert len(engine._running) == len(engine._waiting) == 1
    engine.cancel(jobs[1].plan.run_id)
    assert [(outcome.run_id, outcome.cause) for outcome in engine.poll()] == [(jobs[1].plan.run_id, "cancelled")]
    engine.close()
