"""Execute one notebook as a run: checked before it starts, watched while it runs, judged by its record."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from embedlab import paths, progress
from embedlab.errors import RecordError
from embedlab.runs import child, notebooks, processes, records
from embedlab.runs.limits import CANCEL, CANCELLED, OUT_OF_MEMORY, Guard, Limits
from embedlab.runs.records import Record
from embedlab.runs.run import compute_run_id, publish, write_failure
from embedlab.runs.run_progress import LiveView, ProgressFile

POLL_S = 0.1
TRACEBACK_LINES = 8  # the last ones say most
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
INCOMPLETE = "The notebook ended without run.finish() of this run."
REPORTS, LOG = "progress.jsonl", "driver.log"  # in an attempt's scratch folder

# How an error in a cell reads when the machine is to blame, not the notebook.
MEMORY_ERRORS = re.compile(r"MemoryError|OutOfMemoryError|can't allocate memory|CUDA out of memory")
INFRASTRUCTURE = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Input/output error|Stale file handle"
    r"|the record cannot be written"
)

OnReport = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_id: the run.
        folder: where it is kept.
        record: its record; None when it failed.
        skipped: the record is another attempt's, which was finished before or won the race.
        cause: why it failed: "error in cell", "out of memory", "kernel died", "timeout", "cancelled", "infrastructure"
            or "incomplete".
        detail: for a person: the failing cell and the end of the traceback.
    """

    run_id: str
    folder: Path
    record: Record | None = None
    skipped: bool = False
    cause: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Plan:
    """A run that is known before it starts.

    Attributes:
        notebook: its file.
        values: every parameter.
        run_id, folder: what it is called and where it is kept.
    """

    notebook: Path
    values: dict[str, Any]
    run_id: str
    folder: Path


def plan(path: Path, values: Mapping[str, Any] | None = None, *, output_dir: str = "") -> Plan:
    """Check a run's values and find its id.

    Args:
        path: the notebook.
        values: parameter -> value, of the right types (see `notebooks.parse_values`).
        output_dir: where runs are kept, from the working folder; when empty, where the notebook's parameter says.

    Raises:
        ParameterError: the notebook or a value is no good.
    """
    given = {**(values or {}), **({"output_dir": output_dir} if output_dir else {})}
    resolved = notebooks.resolved(notebooks.parameters(path), given)
    if place := resolved.get("output_dir", ""):
        resolved["output_dir"] = place = str(paths.runs_dir(place))  # the kernel works in another folder
    identifier = compute_run_id(path, resolved)
    return Plan(path, resolved, identifier, paths.runs_dir(place) / identifier)


def run_notebook(
    path: Path, values: Mapping[str, Any] | None = None, *, output_dir: str = "", **options: Any
) -> Outcome:
    """Run a notebook with `values` over its defaults, unless that run is finished: `perform` of its `plan`."""
    return perform(plan(path, values, output_dir=output_dir), **options)


def perform(
    run: Plan,
    *,
    force: bool = False,
    html: bool = False,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    warm: bool = False,
    on_report: OnReport | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Execute a planned run, unless it is finished.

    Args:
        run: the run.
        force: run again; the finished run is moved aside.
        html: keep an HTML copy of the executed notebook too.
        limits: what it may use.
        warm: fork its kernel from a process that has the heavy imports behind it, where that can be done. Worth it
            from the second run of a driver on.
        on_report: gets every progress report; shown on standard error when not given.
        cancelled: asked often; True ends the run.
    """
    if force and run.folder.exists():
        records.set_aside(run.folder)
    if record := records.read_or_quarantine(run.folder):
        publish(run.folder, record)
        return Outcome(run.run_id, run.folder, record, skipped=True)
    if on_report:
        return _Attempt(run, limits, warm).outcome(html, on_report, cancelled)
    with LiveView(run.notebook.stem) as view:
        return _Attempt(run, limits, warm).outcome(html, view.show, cancelled)


class _Attempt:
    """One child process, its progress and what it leaves."""

    def __init__(self, run: Plan, limits: Limits, warm: bool) -> None:
        self.run, self.limits, self.warm = run, limits, warm
        self.name = f"{int(time.time())}-{uuid.uuid4().hex[:8]}"
        self.folder = run.folder / "attempts" / self.name
        self.kept_scratch = self.folder / "scratch"
        _make_folder(self.kept_scratch)
        self.scratch = Path(tempfile.mkdtemp(prefix="embedlab-"))
        self.path = self.scratch / run.notebook.name  # a copy: the original may be edited while it runs
        self.path.write_text(run.notebook.read_text(encoding="utf-8-sig"), encoding="utf-8")
        self.executed = self.scratch / "executed.ipynb"
        self.log = self.kept_scratch / LOG

    def outcome(self, html: bool, on_report: OnReport, cancelled: Callable[[], bool]) -> Outcome:
        try:
            cause = self._execute(on_report, cancelled)
            record = records.read_or_quarantine(self.run.folder)
            if record is not None and record.attempt == self.name:
                publish(self.run.folder, record)
                self._keep_notebook(self.run.folder, html)
                return Outcome(self.run.run_id, self.run.folder, record)
            failure = self._failure(cause)
            return failure if record is None else Outcome(self.run.run_id, self.run.folder, record, skipped=True)
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)
            shutil.rmtree(self.kept_scratch, ignore_errors=True)

    def _execute(self, on_report: OnReport, cancelled: Callable[[], bool]) -> str:
        """Run the child to its end; returns why it was ended, or "" when it ended by itself."""
        reports = ProgressFile(self.kept_scratch / REPORTS)
        process = child.start(self._job(), self._environment(reports.path), self.log, warm=self.warm)
        marker = self.kept_scratch / CANCEL
        guard = Guard(self.name, process.session, self.limits, lambda: cancelled() or marker.exists())
        try:
            return self._watch(process, reports, guard, on_report)
        finally:
            self.system_ran_out, self.exit_code = guard.system_ran_out(), process.exit_code()
            processes.end(self.name, process.session)
            process.wait()

    def _job(self) -> Path:
        job = self.scratch / "job.json"
        content = {"notebook": self.path, "output": self.executed, "values": self.run.values, "scratch": self.scratch}
        job.write_text(json.dumps({**content, "cwd": paths.project_root(), "driver": os.getpid()}, default=str))
        return job

    def _environment(self, reports: Path) -> dict[str, str]:
        return {
            progress.ENVIRONMENT_NAME: str(reports),
            processes.ATTEMPT_VARIABLE: self.name,
            processes.NOTEBOOK_VARIABLE: str(self.path),
            "EMBEDLAB_HOME": str(paths.project_root()),
            "PYTHONUNBUFFERED": "1",
            **self.limits.environment(),
        }

    @staticmethod
    def _watch(process: child.Child, reports: ProgressFile, guard: Guard, on_report: OnReport) -> str:
        try:
            while process.exit_code() is None:
                if reason := guard.reason_to_end():
                    return reason
                for report in reports.news():
                    on_report(report)
                with suppress(OSError):  # not there yet, or a full disk, which must not end the run
                    os.utime(reports.path)  # see `attempts`
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            return CANCELLED
        return ""

    def _keep_notebook(self, folder: Path, html: bool) -> None:
        if (executed := _executed(self.executed)) is None:
            return
        notebook = portable(executed, self.path)
        nbformat.write(notebook, folder / "executed.ipynb")
        if html:
            from nbconvert import HTMLExporter

            (folder / "executed.html").write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")

    def _failure(self, cause: str) -> Outcome:
        error = first_error(_executed(self.executed))
        log = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        cause = cause or cause_of(error, log, self.exit_code, self.system_ran_out)
        detail = error or (INCOMPLETE if cause == "incomplete" else log.strip()[-600:])
        with suppress(OSError):  # a full disk must not hide what happened
            shutil.copy(self.log, self.folder)
            self._keep_notebook(self.folder, html=False)
            write_failure(self.folder, self.run.run_id, cause, detail)
        return Outcome(self.run.run_id, self.run.folder, cause=cause, detail=detail)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        problem, remedy = f"cannot be made ({error.strerror})", "Make room or mend the permissions, then run it again"
        raise RecordError(problem, remedy=remedy, file=folder) from None


def cause_of(error: str, log: str, exit_code: int | None = 0, system_ran_out: bool = False) -> str:
    """Why a run that nobody ended has no record.

    Args:
        error: the failing cell and its error, "" when no cell failed.
        log: what the driver's child wrote.
        exit_code: how it ended.
        system_ran_out: whether the system has killed for want of memory meanwhile.
    """
    if error:
        machine = ((MEMORY_ERRORS, OUT_OF_MEMORY), (INFRASTRUCTURE, "infrastructure"))
        raised = error.splitlines()[1]  # not the traceback, which quotes the notebook
        return next((cause for pattern, cause in machine if pattern.search(raised)), "error in cell")
    if "DeadKernelError" in log or "Kernel died" in log:
        return OUT_OF_MEMORY if system_ran_out else "kernel died"
    return "infrastructure" if exit_code else "incomplete"


def _executed(path: Path) -> nbformat.NotebookNode | None:
    """The executed notebook as far as it was saved; None when the end came before or amid that."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError):
        return None


def first_error(notebook: nbformat.NotebookNode | None) -> str:
    """The failing code cell, numbered as in the executed notebook, its error and the end of its traceback; or ""."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"] if notebook else []
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error" and output.ename != "SystemExit":
                first_line = cell.source.strip().partition("\n")[0]
                lines = COLOUR.sub("", "\n".join(output.traceback)).splitlines()[:-1]  # the last one is the error
                error = f"{output.ename}: {output.evalue}"
                return "\n".join([f"code cell {number}: {first_line}", error, *lines[-TRACEBACK_LINES:]])
    return ""


def portable(notebook: nbformat.NotebookNode, path: Path) -> nbformat.NotebookNode:
    """An executed notebook without this machine's folders, so that it can be committed."""
    notebook.metadata.get("papermill", {}).update(input_path=path.name, output_path="executed.ipynb")
    notebook.metadata.get("papermill", {}).pop("parameters", None)
    text = nbformat.writes(notebook)
    for folder, name in ((paths.project_root(), ""), (Path(sys.prefix), "environment/"), (Path.home(), "~/")):
        if folder != Path(folder.anchor):  # some accounts live in /, which is in every URL
            text = text.replace(f"{folder}{os.sep}", name)
    return nbformat.reads(text, as_version=4)
