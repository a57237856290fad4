"""Sweeps under fire: whatever is killed, stopped or full, every run counts once and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from embedlab.runs import attempts, execute, heartbeat, notebooks, records
from tests.faults import tiny


def results(home):
    """What the sweep's tables hold, and the score of every committed run."""
    files = (home / "results" / "mine" / "tables").glob("sweep-s.[mc]*")
    return {path.name: path.read_text() for path in files}, tiny.committed(home)


def end_warm(driver, home):
    """Wait for a driver's end; its exit code."""
    driver.join(120)
    assert driver.exitcode is not None and tiny.all_gone(home), [p.cmdline() for p in tiny.family(home)]
    return driver.exitcode


def interrupted(home, count, signals):
    """A sweep that is interrupted so often and then left to end has the tables of one that nobody disturbed."""
    tiny.write_sweep(home, grid={"x": [0.0, 1.0]}, seeds=[0, 1], fixed={"seconds": 0.3})
    assert end_warm(tiny.start_warm_driver(home, "s", "--jobs", "2"), home) == 0
    undisturbed, generator = results(home), random.Random(0)
    assert set(undisturbed[0]) == {"sweep-s.md", "sweep-s.csv"} and len(undisturbed[1]) == 4
    shutil.rmtree(home / "results")
    while count:
        driver = tiny.start_warm_driver(home, "s", "--jobs", "2")
        time.sleep(generator.uniform(0, 3))
        if driver.is_alive():
            os.kill(driver.pid, generator.choice(signals))
            count -= 1
        end_warm(driver, home)
        if len(done := tiny.committed(home)) == 4:  # so that there is work to disturb
            for run_id in done:
                records.set_aside(home / "results" / "runs" / run_id)
    assert end_warm(tiny.start_warm_driver(home, "s", "--jobs", "2"), home) == 0
    assert results(home) == undisturbed


SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def test_an_interrupted_sweep_ends_as_if_nobody_had_disturbed_it(home):
    interrupted(home, 4, SIGNALS)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count, signals", [(50, SIGNALS), (100, SIGNALS[:1])], ids=["interruptions", "kills"])
def test_an_interrupted_sweep_full_count(home, count, signals):
    interrupted(home, count, signals)


def killed(home, engine, count):
    """Kill so many runs and so many kernels of sweeps that go on: every sweep ends with each run once."""
    path = tiny.write_sweep(
        home,
        grid={"x": [float(x) for x in range(4)]},
        fixed={"seconds": 0.5},
        retries={"infrastructure": 99, "kernel died": 99},
    )
    generator, left = random.Random(0), Counter({0: count, 1: count})  # a run's process, its kernel

    def kill_some(over):
        while not over.wait(generator.uniform(0.1, 0.8)) and +left:
            kind = generator.choice(list(+left))
            if targets := tiny.runs_and_kernels(home)[kind]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    generator.choice(targets).kill()
                    left[kind] -= 1

    while +left:
        over = threading.Event()
        killer = threading.Thread(target=kill_some, args=(over,))
        killer.start()
        result, _ = tiny.run_sweep(path, engine)
        over.set()
        killer.join()
        assert [outcome.cause for outcome in result.outcomes.values()] == [""] * 4
        assert sorted(tiny.committed(home).values()) == [0.0, 1.0, 2.0, 3.0]
        assert tiny.all_gone(home), [p.cmdline() for p in tiny.family(home)]
        for outcome in result.outcomes.values():
            records.set_aside(outcome.folder)


def test_killed_runs_and_kernels_lose_and_double_nothing(home, engine):
    killed(home, engine, 2)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_kills_of_runs_and_of_kernels(home, engine):
    killed(home, engine, 100)


def test_a_driver_that_forks_leaves_nothing_when_it_is_killed(home):
    tiny.write_sweep(home, grid={"x": [1.0, 2.0]}, fixed={"seconds": 60.0})
    process = tiny.start_driver(home, "s", "--jobs", "2", warm=True)
    tiny.until(lambda: len(tiny.family(home)) >= 5)  # driver, nursery, two runs, two kernels
    process.kill()
    process.wait()
    assert tiny.all_gone(home), [(p.pid, p.cmdline()) for p in tiny.family(home)]


def test_control_c_keeps_what_is_finished_and_exits_with_130(home):
    tiny.write_sweep(home, grid={"seconds": [0.0, 60.0]})
    process = tiny.start_driver(home, "s")
    tiny.until(lambda: tiny.committed(home))
    tiny.until(lambda: any(tiny.runs_and_kernels(home)))
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert len(tiny.committed(home)) == 1 and "1 runs finished" in text
    assert tiny.all_gone(home)


def test_a_run_stopped_past_its_lease_and_continued_late_is_refused(home):
    plan = execute.plan(notebooks.find_notebook("01"), {"seconds": 1.0})
    options = {"warm": True, "on_report": lambda report: None}
    with ThreadPoolExecutor() as pool:
        stopped = pool.submit(execute.perform, plan, **options)
        (attempt,) = tiny.until(lambda: attempts.running_in(plan.folder))
        reports = attempt.folder / "scratch" / heartbeat.REPORTS
        tiny.until(lambda: "start" in reports.read_text())  # it has begun and will sleep
        (kernel,) = tiny.runs_and_kernels(home)[1]
        kernel.suspend()
        outcome = execute.perform(plan, **options)
        kernel.resume()
        late = stopped.result(timeout=60)
    assert not outcome.skipped and late.skipped and late.record == outcome.record
    (failed,) = plan.folder.glob("attempts/*/failed.json")
    assert "another attempt at this run committed first" in failed.read_text()
    assert records.read(plan.folder) == outcome.record


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A project alone on a small disk."""
    tiny.warm_up()
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)), capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a disk")
    try:
        monkeypatch.setenv("EMBEDLAB_HOME", str(place))
        monkeypatch.delenv("EMBEDLAB_PROGRESS", raising=False)
        yield tiny.make_project(place)
    finally:
        subprocess.run(("umount", "-l", str(place)), check=True)


def fill(disk):
    """Leave no byte; returns how to make room again."""
    file = disk / "filler"
    with contextlib.suppress(OSError), open(file, "wb", buffering=0) as filler:
        while filler.write(b"0" * 4096):
            pass
    return file.unlink


def lock(disk):
    """Let nobody write; returns how to allow it again."""
    remount = ("mount", "-o", "remount,{}", str(disk))
    subprocess.run([part.format("ro") for part in remount], check=True)
    return lambda: subprocess.run([part.format("rw") for part in remount], check=True)


@pytest.mark.parametrize("spoil", [fill, lock])
def test_a_disk_that_takes_nothing_costs_no_row_and_no_table(disk, command, spoil):
    tiny.write_sweep(disk, grid={"x": [1.0]})
    assert command("sweep", "s")[0] == 0
    tiny.write_sweep(disk, grid={"x": [1.0, 2.0]})
    before = results(disk)
    make_writable = spoil(disk)
    code, out, err = command("sweep", "s", "--jobs", "2")
    assert code == 1 and "1 failed" in out and "cannot write the tables" in err and "Traceback" not in out + err
    assert results(disk) == before and len(before[0]) == 2 and len(before[1]) == 1
    make_writable()
    assert command("sweep", "s")[0] == 0
    assert sorted(tiny.committed(disk).values()) == [1.0, 2.0] and results(disk)[0] != before[0]
    assert tiny.all_gone(disk)
