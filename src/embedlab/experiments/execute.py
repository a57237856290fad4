"""Execute one notebook as a run: checked before it starts, watched while it runs, judged by its record."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from embedlab import paths, progress
from embedlab.experiments import notebooks, processes, records, runs
from embedlab.experiments.live import LiveView, ProgressFile
from embedlab.experiments.records import Record

POLL_S = 0.2
TRACEBACK_LINES = 8  # the last ones say most
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
INCOMPLETE = "The notebook ended without run.finish() of this run."


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_id: the run.
        folder: where it is kept.
        record: its record; None when it failed.
        skipped: the record is another attempt's, which was finished before or won the race.
        cause: why it failed: "error in cell", "kernel died", "timeout", "cancelled" or "incomplete".
        detail: for a person: the failing cell and the end of the traceback.
    """

    run_id: str
    folder: Path
    record: Record | None = None
    skipped: bool = False
    cause: str = ""
    detail: str = ""


def run_notebook(
    path: Path,
    values: Mapping[str, Any] | None = None,
    *,
    output_dir: str = "",
    force: bool = False,
    html: bool = False,
    timeout_s: float | None = None,
) -> Outcome:
    """Run a notebook with `values` over its defaults, unless that run is finished.

    Args:
        path: the notebook.
        values: parameter -> value, of the right types (see `notebooks.parse_values`).
        output_dir: where runs are kept, from the working folder; when empty, where the notebook's parameter says.
        force: run again; the finished run is moved aside.
        html: keep an HTML copy of the executed notebook too.
        timeout_s: end the run after so many seconds.

    Raises:
        ParameterError: before anything runs, when the notebook or a value is no good.
    """
    given = {**(values or {}), **({"output_dir": output_dir} if output_dir else {})}
    resolved = notebooks.resolved(notebooks.parameters(path), given)
    if place := resolved.get("output_dir", ""):
        resolved["output_dir"] = place = str(paths.runs_dir(place))  # the kernel works in another folder
    identifier = runs.run_id(path, resolved)
    folder = paths.runs_dir(place) / identifier
    if force and folder.exists():
        folder.rename(folder.with_name(f"{identifier}{records.OLD}{uuid.uuid4().hex[:6]}"))
    if record := records.read_or_quarantine(folder):
        runs.publish(folder, record)
        return Outcome(identifier, folder, record, skipped=True)
    return _Attempt(path, resolved, identifier, folder).outcome(timeout_s, html)


class _Attempt:
    """One child process, its progress and what it leaves."""

    def __init__(self, path: Path, values: dict[str, Any], identifier: str, folder: Path) -> None:
        self.values, self.id, self.folder = values, identifier, folder
        self.name = f"{int(time.time())}-{uuid.uuid4().hex[:8]}"
        self.attempt_folder = folder / "attempts" / self.name
        self.attempt_folder.mkdir(parents=True)
        self.scratch = Path(tempfile.mkdtemp(prefix="embedlab-"))
        self.path = self.scratch / path.name  # a copy: the original may be edited while it runs
        self.path.write_text(path.read_text(encoding="utf-8-sig"), encoding="utf-8")
        self.executed = self.scratch / "executed.ipynb"
        self.log = self.scratch / "driver.log"

    def outcome(self, timeout_s: float | None, html: bool) -> Outcome:
        try:
            cause = self._execute(timeout_s)
            record = records.read_or_quarantine(self.folder)
            if record is not None and record.attempt == self.name:
                runs.publish(self.folder, record)
                self._keep_notebook(self.folder, html)
                return Outcome(self.id, self.folder, record)
            failure = self._failure(cause)
            return failure if record is None else Outcome(self.id, self.folder, record, skipped=True)
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)
            shutil.rmtree(self.attempt_folder / "scratch", ignore_errors=True)

    def _execute(self, timeout_s: float | None) -> str:
        """Run the child to its end; returns why it was ended, or "" when it ended by itself."""
        job = self.scratch / "job.json"
        content = {"notebook": self.path, "output": self.executed, "values": self.values, "scratch": self.scratch}
        job.write_text(json.dumps({**content, "cwd": paths.project_root(), "driver": os.getpid()}, default=str))
        reports = self.scratch / "progress.jsonl"
        with open(self.log, "w", encoding="utf-8") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "embedlab.experiments.child", str(job)],
                env=self._environment(reports),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                return self._watch(child, ProgressFile(reports), timeout_s)
            finally:
                processes.end(self.name)
                child.wait()

    def _environment(self, reports: Path) -> dict[str, str]:
        return {
            **os.environ,
            progress.ENVIRONMENT_NAME: str(reports),
            processes.ATTEMPT_VARIABLE: self.name,
            processes.NOTEBOOK_VARIABLE: str(self.path),
            "EMBEDLAB_HOME": str(paths.project_root()),
            "PYTHONUNBUFFERED": "1",
        }

    def _watch(self, child: subprocess.Popen, reports: ProgressFile, timeout_s: float | None) -> str:
        deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
        try:
            with LiveView(self.path.stem) as view:
                while child.poll() is None:
                    if time.monotonic() > deadline:
                        return "timeout"
                    for report in reports.news():
                        view.show(report)
                    time.sleep(POLL_S)
        except KeyboardInterrupt:
            return "cancelled"
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
        detail = first_error(_executed(self.executed))
        log = self.log.read_text(encoding="utf-8", errors="replace")
        if not cause:
            cause = "error in cell" if detail else "kernel died" if "DeadKernelError" in log else "incomplete"
        detail = detail or (INCOMPLETE if cause == "incomplete" else log.strip()[-600:])
        shutil.copy(self.log, self.attempt_folder)
        self._keep_notebook(self.attempt_folder, html=False)
        runs.write_failure(self.attempt_folder, self.id, cause, detail)
        return Outcome(self.id, self.folder, cause=cause, detail=detail)


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
