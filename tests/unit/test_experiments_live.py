"""What a person sees of a run: reports read as they are written, whatever state the file is in."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from embedlab.runs import run_progress
from embedlab.runs.run_progress import LiveView, ProgressFile


def report(stage="train", step=0, total=None, time=100.0, **numbers):
    return {"time": time, "stage": stage, "step": step, "total": total, **numbers}


def test_reports_are_read_once_and_half_a_line_waits_for_its_rest(tmp_path):
    path = tmp_path / "progress.jsonl"
    reports = ProgressFile(path)
    assert reports.news() == []  # the run has not said anything yet
    first, second = json.dumps(report(step=1)), json.dumps(report(step=2))
    path.write_text(first + "\n" + second[:20])
    assert reports.news() == [report(step=1)]
    assert reports.news() == []
    with open(path, "a") as file:
        file.write(second[20:] + "\n")
    assert reports.news() == [report(step=2)]


def test_a_line_that_was_cut_off_for_good_stops_nothing(tmp_path):
    path = tmp_path / "progress.jsonl"
    whole = json.dumps(report(step=3))
    path.write_text(whole[:15] + whole + "\n" + whole + "\n")
    assert ProgressFile(path).news() == [report(step=3)]


@pytest.fixture
def view(monkeypatch):
    """A view on a pipe, with a clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: now[0])
    text = io.StringIO()
    return LiveView("nb", Console(file=text, width=200)), now, text


def test_rate_and_time_left_by_hand(view):
    live_view, now, text = view
    live_view.show(report(step=10, total=110, time=0.0))
    now[0] += 60
    live_view.show(report(step=30, total=110, time=10.0, loss=0.125, dev="0.5"))  # 20 steps in 10 s, 80 to go
    assert text.getvalue().splitlines() == [
        "nb · train 10/110",
        "nb · train 30/110, 2/s, 40 s left, loss 0.125, dev 0.5",
    ]


def test_a_pipe_is_not_flooded(view):
    live_view, now, text = view
    for step in range(100):
        live_view.show(report(step=step, total=100, time=now[0]))
        now[0] += 0.1  # 10 s in all
    assert len(text.getvalue().splitlines()) == 2
    now[0] += run_progress.PLAIN_STAGE_S
    live_view.show(report("evaluate"))
    assert text.getvalue().splitlines()[-1] == "nb · evaluate"


def test_a_terminal_gets_a_bar_that_follows_the_stages():
    text = io.StringIO()
    with LiveView("nb", Console(file=text, force_terminal=True, width=120, _environ={"TERM": "xterm"})) as live_view:
        live_view.show(report("start"))
        live_view.show(report("train", 5, 10))
        live_view.show(report("encode", 1, 4))
        (task,) = live_view._bar.tasks
        assert (task.description, task.completed, task.total) == ("nb · encode", 1, 4)


@pytest.mark.parametrize(
    "line",
    ["5", "null", "[]", "[" * 100_000, '{"stage": 1}', '{"stage": "s", "step": "1", "total": 2, "time": 0}',
     '{"stage": "s", "step": 1, "total": [], "time": NaN}', "\udcff"],
)  # fmt: skip
def test_a_damaged_line_is_left_out(tmp_path, line):
    path = tmp_path / "progress.jsonl"
    good = json.dumps(report(step=3))
    path.write_bytes(f"{line}\n{good}\n".encode(errors="surrogateescape"))
    assert ProgressFile(path).news() == [report(step=3)]


def test_a_dumb_terminal_gets_lines():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=200, _environ={"TERM": "dumb"})
    with LiveView("nb", console) as view:
        view.show({**report(step=3), "stage": "train"})
    assert "train" in out.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_stage_cannot_style_or_control_the_terminal(is_terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=200)
    with LiveView("nb [red]", console) as view:
        view.show({**report(step=3), "stage": "[/bold][link=http://x]y \x1b]0;title\x07"})
    assert "[/bold][link=http://x]y \\x1b]0;title\\x07" in out.getvalue() and "nb [red]" in out.getvalue()
