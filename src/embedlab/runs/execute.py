"""Execute one notebook as a run: check its values, watch its process, read its record."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from embedlab import paths, progress
from embedlab.errors import DataError, LeakageError, ParameterError, RecordError, StoppedAtCheckpoint
from embedlab.launchers import require_plain_start
from embedlab.redaction import shareable_value
from embedlab.runs import causes, child, heartbeat, left_behind, measured, notebooks, processes, records
from embedlab.runs.causes import CANCELLED, INCOMPLETE, INFRASTRUCTURE, KERNEL_DIED, OUT_OF_MEMORY, TIMEOUT, cause_of
from embedlab.runs.heartbeat import REPORTS
from embedlab.runs.limits import CANCEL, Guard, Limits
from embedlab.runs.records import Record
from embedlab.runs.run import compute_run_id, new_attempt_name, publish, write_failure
from embedlab.runs.run_progress import LiveView, ProgressFile

POLL_S = 0.1
TRACEBACK_LINES = 8  # at the end of the traceback
INPUT_ERRORS = tuple(error.__name__ for error in (DataError, LeakageError, ParameterError))
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TEXT_DIRECTION = "<style>td, th, p, li, h1, h2, h3 { unicode-bidi: plaintext }</style>"  # each as its own text runs
LOG = "driver.log"  # in an attempt's scratch folder

OnReport = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_id: the run.
        folder: where it is kept.
        record: its record; None when it failed.
        skipped: whether the record is that of another attempt, which finished earlier.
        cause: why it failed: "error in cell", "out of memory", "kernel died", "timeout", "cancelled", "infrastructure"
            or "incomplete".
        detail: the failing cell and the end of the traceback, for people.
    """

    run_id: str
    folder: Path
    record: Record | None = None
    skipped: bool = False
    cause: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Plan:
    """A run with its id, before it starts.

    Attributes:
        notebook: its file.
        values: every parameter.
        run_id, folder: its id and its folder.
    """

    notebook: Path
    values: dict[str, Any]
    run_id: str
    folder: Path


def plan(path: Path, values: Mapping[str, Any] | None = None, *, output_dir: str = "") -> Plan:
    """Check the values of a run and compute its id.

    Args:
        path: the notebook.
        values: parameter -> value, of the right types (see `notebooks.parse_values`).
        output_dir: where runs are kept, relative to the current folder; the notebook's parameter when empty.

    Raises:
        ParameterError: the notebook or a value is not valid.
    """
    overrides = {**(values or {}), **({"output_dir": output_dir} if output_dir else {})}
    resolved = notebooks.resolved(notebooks.parameters(path), overrides)
    if runs_folder := resolved.get("output_dir", ""):
        resolved["output_dir"] = runs_folder = str(paths.runs_dir(runs_folder))  # the kernel has another current folder
    identifier = compute_run_id(path, resolved)
    return Plan(path, resolved, identifier, paths.runs_dir(runs_folder) / identifier)


def run_notebook(
    path: Path, values: Mapping[str, Any] | None = None, *, output_dir: str = "", **options: Any
) -> Outcome:
    """Run a notebook with `values` in place of its defaults, unless this run is finished: `plan`, then `perform`."""
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
        force: run again; the folder of the finished run is renamed.
        html: also save the executed notebook as HTML.
        limits: limits of the run.
        warm: fork its kernel from a process that has done the slow imports, where the platform allows it. This pays
            off from the second run of a driver on.
        on_report: called with every progress report; by default they are shown on standard error.
        cancelled: called often; True ends the run.
    """
    require_plain_start()
    if force and run.folder.exists():
        records.set_aside(run.folder)
    left_behind.clean(run.folder)
    if record := records.read_or_quarantine(run.folder):
        publish(run.folder, record)
        return Outcome(run.run_id, run.folder, record, skipped=True)
    if on_report:
        return _Attempt(run, limits, warm).outcome(html, on_report, cancelled)
    with LiveView(run.notebook.stem) as view:
        return _Attempt(run, limits, warm).outcome(html, view.show, cancelled)


class _Attempt:
    """One child process, its progress and its results."""

    def __init__(self, run: Plan, limits: Limits, warm: bool) -> None:
        self.run, self.limits, self.warm = run, limits, warm
        self.name = new_attempt_name(run.folder)
        self.folder = run.folder / "attempts" / self.name
        self.kept_scratch = self.folder / "scratch"
        _make_folder(self.kept_scratch)
        heartbeat.claim(self.kept_scratch)
        self.reports = ProgressFile(self.kept_scratch / REPORTS)
        self.log = self.kept_scratch / LOG
        self.scratch = Path(tempfile.mkdtemp(prefix=left_behind.PREFIX))
        heartbeat.claim(self.scratch)
        self.path = self.scratch / run.notebook.name  # a copy: the original may be edited while it runs
        self.executed = self.scratch / "executed.ipynb"
        self.session: int | None = None
        self.stage: Mapping[str, Any] = {"stage": ""}  # the last report
        self.exit_code: int | None = None
        self.system_ran_out, self.peak_bytes, self.asked_to_stop = False, 0, False

    def outcome(self, html: bool, on_report: OnReport, cancelled: Callable[[], bool]) -> Outcome:
        try:
            return self._ended(self._execute(on_report, cancelled), html)
        except KeyboardInterrupt:  # outside of `_watch`
            processes.end(self.name, self.session)
            return self._ended(CANCELLED, html)
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)
            shutil.rmtree(self.kept_scratch, ignore_errors=True)

    def _ended(self, cause: str, html: bool) -> Outcome:
        record = records.read_or_quarantine(self.run.folder)
        if record is not None and record.attempt == self.name:
            publish(self.run.folder, record)
            self._keep_notebook(self.run.folder, html)
            return Outcome(self.run.run_id, self.run.folder, record)
        failure = self._failure(cause)
        return failure if record is None else Outcome(self.run.run_id, self.run.folder, record, skipped=True)

    def _execute(self, on_report: OnReport, cancelled: Callable[[], bool]) -> str:
        """Run the child process until it ends; returns why it was stopped, or "" when it ended by itself."""
        if cancelled():  # while it waited for its turn; a short run could end before the first check
            return CANCELLED
        self.path.write_text(self.run.notebook.read_text(encoding="utf-8-sig"), encoding="utf-8")
        self.reports.path.touch()
        process = child.start(self._job(), self._environment(), self.log, warm=self.warm)
        self.session, marker = process.session, self.kept_scratch / CANCEL
        guard = Guard(
            self.name,
            process.session,
            self.limits,
            lambda: cancelled() or marker.exists(),
            self._ask_to_stop,
        )
        try:
            return self._watch(process, guard, on_report)
        finally:
            self.system_ran_out, self.exit_code = guard.system_ran_out(), process.exit_code()
            self.asked_to_stop = guard.asked
            self.peak_bytes = guard.peak_bytes
            processes.end(self.name, process.session)
            process.wait()

    def _ask_to_stop(self) -> None:
        """Ask a training of the run to stop at a checkpoint, see `progress.stop_requested`."""
        with suppress(OSError):  # a full disk: the time limit ends the run as it ends any other
            (self.kept_scratch / progress.STOP).touch()

    def _job(self) -> Path:
        job = self.scratch / "job.json"
        content = {"notebook": self.path, "output": self.executed, "values": self.run.values, "scratch": self.scratch}
        job.write_text(json.dumps({**content, "cwd": paths.project_root(), "driver": os.getpid()}, default=str))
        return job

    def _environment(self) -> dict[str, str]:
        return {
            progress.ENVIRONMENT_NAME: str(self.reports.path),
            processes.ATTEMPT_VARIABLE: self.name,
            processes.NOTEBOOK_VARIABLE: str(self.path),
            processes.RUN_ID_VARIABLE: self.run.run_id,
            "EMBEDLAB_HOME": str(paths.project_root()),
            "PYTHONUNBUFFERED": "1",
            **self.limits.environment(self.run.values),
        }

    def _watch(self, process: child.Child, guard: Guard, on_report: OnReport) -> str:
        next_beat = 0.0
        try:
            while process.exit_code() is None:
                if reason := guard.reason_to_end():
                    return reason
                for report in self.reports.news():
                    self.stage = report
                    on_report(report)
                if time.monotonic() >= next_beat:
                    heartbeat.beat(self.kept_scratch)
                    next_beat = time.monotonic() + heartbeat.BEAT_EVERY_S
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

            page, _ = HTMLExporter().from_notebook_node(notebook)
            page = page.replace("</head>", f"{TEXT_DIRECTION}</head>", 1)
            (folder / "executed.html").write_text(page, encoding="utf-8")

    def _failure(self, cause: str) -> Outcome:
        error = first_error(_executed(self.executed))
        log = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        if self.asked_to_stop and StoppedAtCheckpoint.__name__ in error:
            cause = TIMEOUT
        cause = cause or cause_of(error, log, self.exit_code, self.system_ran_out)
        detail = "\n".join(text for text in (self._explanation(cause, error, log), self._kept(cause)) if text)
        with suppress(OSError):  # a full disk must not hide what happened
            write_failure(self.folder, self.run.run_id, cause, detail)
            shutil.copy(self.log, self.folder)
            self._keep_notebook(self.folder, html=False)
        return Outcome(self.run.run_id, self.run.folder, cause=cause, detail=detail)

    def _explanation(self, cause: str, error: str, log: str) -> str:
        """What happened and what to do, in plain words; for an error in a cell, that error."""
        where, limits = self._where(), self.limits
        if cause == TIMEOUT:
            remedy = "Raise --timeout (wall_min in a sweep), or give the run less to do."
            if StoppedAtCheckpoint.__name__ in error:
                remedy = "It wrote a checkpoint: start the run again, and the training continues from there."
            return f"Stopped {where} by its time limit of {limits.wall_min:g} minutes. {remedy}"
        if cause == CANCELLED:
            return f"Cancelled {where}."
        if cause == OUT_OF_MEMORY and self.peak_bytes > limits.mem_gb * 2**30 > 0:
            used = f"needed more than {limits.mem_gb:g} GiB, its limit, and had {self.peak_bytes / 2**30:.2g} GiB"
            return f"It {used} {where}. Raise --mem-gb (mem_gb in a sweep), or use smaller batches."
        if error:
            return "\n".join(text for text in (causes.explanation_of(error), error) if text)
        if cause == OUT_OF_MEMORY:
            return f"The machine ran out of memory {where} and ended a process of the run. Use smaller batches."
        if cause == KERNEL_DIED:
            return f"The kernel ended {where} without an error: it was killed, or it crashed."
        if cause == INCOMPLETE:
            return "The notebook ended before run.finish()."
        return causes.end_of(log) or f"The process of the run ended {where} with exit code {self.exit_code}."

    def _where(self) -> str:
        """How far the run got."""
        stage, total = str(self.stage["stage"]), self.stage.get("total")
        if not stage:
            return "before its first report"
        return f"in stage {stage!r}" + (f", step {self.stage.get('step')} of {total}," if total else "")

    def _kept(self, cause: str) -> str:
        """What a run that ended early has left in its attempt's folder."""
        if cause in (INCOMPLETE, INFRASTRUCTURE):
            return ""
        record = measured.read(self.folder)
        folders = sorted(path.name for path in self.folder.glob("*/") if path.name != "scratch")
        parts = [f"{len(record.metrics)} numbers (`embedlab table --incomplete`)"] if record else []
        parts += [f"{name}/" for name in folders]
        return f"Kept in the run's folder attempts/{self.name}: {', '.join(parts)}." if parts else ""


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        problem = f"cannot create the folder ({error.strerror})"
        remedy = "Free disk space or fix the permissions, then run it again"
        raise RecordError(problem, remedy=remedy, file=folder) from None


def _executed(path: Path) -> nbformat.NotebookNode | None:
    """The executed notebook as far as it was saved; None when it was never saved, or saving was interrupted."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError):
        return None


def first_error(notebook: nbformat.NotebookNode | None) -> str:
    """The failing code cell, numbered as in the executed notebook, its error and the end of its traceback; or "".

    An error about the user's data or parameters says what to do. A traceback would only hide that.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"] if notebook else []
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error" and output.ename != "SystemExit":
                first_line = cell.source.strip().partition("\n")[0]
                lines = COLOUR.sub("", "\n".join(output.traceback)).splitlines()[:-1]  # the last one is the error
                error = f"{output.ename}: {output.evalue}"
                traceback = [] if output.ename in INPUT_ERRORS else lines[-TRACEBACK_LINES:]
                return "\n".join([f"code cell {number}: {first_line}", error, *traceback])
    return ""


def portable(notebook: nbformat.NotebookNode, path: Path) -> nbformat.NotebookNode:
    """An executed notebook without this machine's folders, so that it can be committed."""
    notebook.metadata.get("papermill", {}).update(input_path=path.name, output_path="executed.ipynb")
    notebook.metadata.get("papermill", {}).pop("parameters", None)
    return nbformat.from_dict(shareable_value(notebook))
