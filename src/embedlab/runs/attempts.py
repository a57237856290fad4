"""Attempts that run now, wherever they were started on this disk: follow them, read what they say, end them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.runs.execute import LOG, REPORTS
from embedlab.runs.limits import CANCEL
from embedlab.runs.run_progress import ProgressFile

POLL_S = 0.5
LEASE_S = 60.0  # what its driver has not touched for so long is at work no more: the driver was killed


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
    def runs(self) -> bool:
        """Whether it has not ended: its driver touches the reports as long as it is there, on whatever machine."""
        with suppress(OSError):
            return time.time() - (self.folder / "scratch" / REPORTS).stat().st_mtime < LEASE_S
        return False

    def cancel(self) -> None:
        """Ask its driver to end it."""
        (self.folder / "scratch" / CANCEL).touch()


def running(output_dir: str = "") -> list[Attempt]:
    """Attempts that run now, the oldest first."""
    found = [attempt for folder in paths.runs_dir(output_dir).glob("*/") for attempt in at_work(folder)]
    return sorted(found, key=lambda attempt: attempt.folder.name)


def at_work(run_folder: Path) -> list[Attempt]:
    """Attempts at one run that run now."""
    found = [Attempt(run_folder.name, path.parents[1]) for path in run_folder.glob(f"attempts/*/scratch/{REPORTS}")]
    return [attempt for attempt in found if attempt.runs]


def latest(run_id: str, output_dir: str = "") -> Attempt:
    """The last attempt at a run; the beginning of an id will do.

    Raises:
        ParameterError: there is none, or several runs begin so.
    """
    folder = paths.runs_dir(output_dir)
    found = sorted(path for path in folder.glob(f"{run_id}*") if path.is_dir())
    exact = [path for path in found if path.name == run_id] or found
    if len(exact) != 1:
        problem = "several runs begin so" if found else "there is no such run"
        remedy = (
            f"Write one of {', '.join(path.name for path in found[:5])}" if found else "`embedlab watch` lists them"
        )
        raise ParameterError(problem, remedy=remedy, field=run_id)
    attempts = sorted((exact[0] / "attempts").glob("*"))
    if not attempts:
        raise ParameterError("the run has left no attempt", remedy="Its record says all", field=run_id)
    return Attempt(exact[0].name, attempts[-1])


def reports(attempts: list[Attempt], files: dict[Path, ProgressFile]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(run id, report) that attempts have written since the last call with the same `files`."""
    for attempt in attempts:
        path = attempt.folder / "scratch" / REPORTS
        file = files.setdefault(path, ProgressFile(path))
        yield from ((attempt.run_id, report) for report in file.news())


def log_lines(attempt: Attempt, follow: bool) -> Iterator[str]:
    """What an attempt's process writes; with `follow`, until it ends."""
    position = 0
    while True:
        path = next((p for p in (attempt.folder / "scratch" / LOG, attempt.folder / LOG) if p.exists()), None)
        if path is not None:
            with open(path, encoding="utf-8", errors="replace") as file:
                file.seek(position)
                yield from (line.rstrip("\n") for line in file)
                position = file.tell()
        if not follow or not attempt.runs:
            return
        time.sleep(POLL_S)
