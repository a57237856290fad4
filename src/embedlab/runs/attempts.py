"""Attempts that are running now, started by any process on this disk: follow them, read their output, cancel them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.runs import heartbeat
from embedlab.runs.execute import LOG
from embedlab.runs.heartbeat import ENDED, REPORTS, UNDECIDED, Observer
from embedlab.runs.limits import CANCEL
from embedlab.runs.run_progress import ProgressFile

POLL_S = 0.5
AWAY = "-away"  # end of the name of an attempt whose files are on another machine's disk; see `sweeps.remote.Stand`

_observer = Observer()  # of this process


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run.

    Attributes:
        run_id: the run.
        folder: the attempt's folder; its `scratch` is there while it runs.
    """

    run_id: str
    folder: Path

    @property
    def state(self) -> str:
        """`RUNNING`, `ENDED`, or `UNDECIDED` for some seconds if it may run on another machine; see `heartbeat`."""
        return _observer.state(self.folder / "scratch")

    @property
    def is_away(self) -> bool:
        """Whether its files are on another machine's disk."""
        return self.folder.name.endswith(AWAY)

    @property
    def host(self) -> str:
        """The name of the machine that drives it; "" if unknown."""
        return heartbeat.host_of(self.folder / "scratch")

    def cancel(self) -> None:
        """Ask its driver to cancel it."""
        (self.folder / "scratch" / CANCEL).touch()


def running(output_dir: str = "", *, certain: bool = False) -> list[Attempt]:
    """Attempts that are running now, the oldest first.

    Args:
        output_dir: where runs are kept; results/runs when empty.
        certain: wait some seconds where it takes that to see whether a driver on another machine is alive. Without
            it, such an attempt counts as running until that is known.
    """
    folder = paths.runs_dir(output_dir)
    while True:
        attempts = [attempt for run_folder in folder.glob("*/") for attempt in running_in(run_folder)]
        if not certain or all(attempt.state != UNDECIDED for attempt in attempts):
            return sorted(attempts, key=lambda attempt: attempt.folder.name)
        time.sleep(POLL_S)


def running_in(run_folder: Path) -> list[Attempt]:
    """Attempts at one run that are running now, or may be."""
    reports_files = run_folder.glob(f"attempts/*/scratch/{REPORTS}")
    attempts = [Attempt(run_folder.name, path.parents[1]) for path in reports_files]
    return [attempt for attempt in attempts if attempt.state != ENDED]


def latest(run_id: str, output_dir: str = "") -> Attempt:
    """The last attempt at a run.

    Args:
        run_id: a run id, or the beginning of one.
        output_dir: where runs are kept; results/runs when empty.

    Raises:
        ParameterError: no run, or several runs, begin like this; or the run has no attempt.
    """
    folder = paths.runs_dir(output_dir)
    entries = folder.iterdir() if folder.is_dir() else ()
    matches = sorted(path for path in entries if path.name.startswith(run_id) and path.is_dir())
    exact = [path for path in matches if path.name == run_id] or matches
    if not exact:
        remedy = "`embedlab watch` lists the runs in progress, `embedlab table` those that have finished"
        raise ParameterError(f"no run in {paths.shown(folder)} begins with this", remedy=remedy, field=run_id)
    if len(exact) > 1:
        remedy = f"Write one of {', '.join(path.name for path in matches[:5])}"
        raise ParameterError(f"{len(exact)} runs begin with this", remedy=remedy, field=run_id)
    attempts = sorted((exact[0] / "attempts").glob("*"))
    if not attempts:
        raise ParameterError("no attempt of this run is kept here", remedy="Read its record.json", field=run_id)
    return Attempt(exact[0].name, attempts[-1])


def reports(attempts: list[Attempt], files: dict[Path, ProgressFile]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(run id, report) that attempts have written since the last call with the same `files`."""
    for attempt in attempts:
        path = attempt.folder / "scratch" / REPORTS
        file = files.setdefault(path, ProgressFile(path))
        yield from ((attempt.run_id, report) for report in file.news())


def log_lines(attempt: Attempt, follow: bool) -> Iterator[str]:
    """The output of an attempt, line by line; with `follow`, until it ends."""
    position = 0
    while True:
        path = next((p for p in (attempt.folder / "scratch" / LOG, attempt.folder / LOG) if p.exists()), None)
        if path is not None:
            with open(path, encoding="utf-8", errors="replace") as file:
                file.seek(position)
                yield from (line.rstrip("\n") for line in file)
                position = file.tell()
        if not follow or attempt.state == ENDED:
            return
        time.sleep(POLL_S)
