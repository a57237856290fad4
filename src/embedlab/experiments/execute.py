"""Execute one notebook as a run: checked before it starts, watched while it runs, judged by its record."""

from __future__ import annotations

import json
import os
import shutil
import signal
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
from embedlab.experiments import notebooks, records, runs
from embedlab.experiments.live import LiveView, ProgressFile
from embedlab.experiments.records import Record

POLL_S = 0.2
GRACE_S = 2.0  # between asking a process to end and ending it


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_id: the run.
        folder: where it is kept.
        record: its record; None when it failed.
        skipped: it was finished before.
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
        output_dir: where runs are kept; results/runs when empty.
        force: run again; the finished run is moved aside.
        html: keep an HTML copy of the executed notebook too.
        timeout_s: end the run after so many seconds.

    Raises:
        ParameterError: before anything runs, when the notebook or a value is no good.
    """
    resolved = notebooks.resolved(notebooks.parameters(path), {**(values or {}), "output_dir": output_dir})
    identifier = runs.run_id(path, resolved)
    folder = paths.runs_dir(output_dir) / identifier
    if force and folder.exists():
        folder.rename(folder.with_name(f"{identifier}.old-{uuid.uuid4().hex[:6]}"))
    if record := records.read_or_quarantine(folder):
        runs.publish(folder, record)
        return Outcome(identifier, folder, record, skipped=True)
    return _Attempt(path, resolved, identifier, folder).outcome(timeout_s, html)


class _Attempt:
    """One child process, its progress and what it leaves."""

    def __init__(self, path: Path, values: dict[str, Any], identifier: str, folder: Path) -> None:
        self.path, self.values, self.id, self.folder = path, values, identifier, folder
        self.name = f"{int(time.time())}-{uuid.uuid4().hex[:8]}"
        self.attempt_folder = folder / "attempts" / self.name
        self.attempt_folder.mkdir(parents=True)
        self.scratch = Path(tempfile.mkdtemp(prefix="embedlab-"))
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
            return self._failure(cause)
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)
            shutil.rmtree(self.attempt_folder / "scratch", ignore_errors=True)

    def _execute(self, timeout_s: float | None) -> str:
        """Run the child to its end; returns why it was ended, or "" when it ended by itself."""
        job = self.scratch / "job.json"
        content = {"notebook": self.path, "output": self.executed, "values": self.values, "scratch": self.scratch}
        job.write_text(json.dumps({**content, "cwd": paths.project_root()}, default=str))
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
                end_process_tree(child)

    def _environment(self, reports: Path) -> dict[str, str]:
        return {
            **os.environ,
            progress.ENVIRONMENT_NAME: str(reports),
            runs.ATTEMPT_VARIABLE: self.name,
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
        if not self.executed.exists():
            return
        notebook = portable(nbformat.read(self.executed, as_version=4), self.path)
        nbformat.write(notebook, folder / "executed.ipynb")
        if html:
            from nbconvert import HTMLExporter

            (folder / "executed.html").write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")

    def _failure(self, cause: str) -> Outcome:
        found, detail = _first_error(self.executed)
        log = self.log.read_text(encoding="utf-8")
        shutil.copy(self.log, self.attempt_folder)
        if not cause:
            cause = found or ("kernel died" if "DeadKernelError" in log else "incomplete")
        detail = detail or {"incomplete": "The notebook ended without run.finish()."}.get(cause, log.strip()[-600:])
        self._keep_notebook(self.attempt_folder, html=False)
        content = {"run_id": self.id, "attempt": self.name, "cause": cause, "detail": detail}
        (self.attempt_folder / "failed.json").write_text(json.dumps(content, indent=1))
        return Outcome(self.id, self.folder, cause=cause, detail=detail)


def _first_error(executed: Path) -> tuple[str, str]:
    """("error in cell", cell number, its first line and the end of its traceback), or two empty texts."""
    if not executed.exists():
        return "", ""
    cells = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error" and output.ename != "SystemExit":
                first_line = cell.source.strip().partition("\n")[0]
                return "error in cell", f"code cell {number}: {first_line}\n{output.ename}: {output.evalue}"
    return "", ""


def portable(notebook: nbformat.NotebookNode, path: Path) -> nbformat.NotebookNode:
    """An executed notebook without this machine's folders, so that it can be committed."""
    notebook.metadata.get("papermill", {}).update(input_path=path.name, output_path="executed.ipynb")
    notebook.metadata.get("papermill", {}).pop("parameters", None)
    text = nbformat.writes(notebook)
    for folder, name in ((paths.project_root(), ""), (Path(sys.prefix), "environment/"), (Path.home(), "~/")):
        text = text.replace(f"{folder}{os.sep}", name)
    return nbformat.reads(text, as_version=4)


def end_process_tree(process: subprocess.Popen) -> None:
    """End a process with all its descendants, kernels included: asked first, then made to."""
    import psutil

    try:
        root = psutil.Process(process.pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        _signal(member.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=GRACE_S)
    for member in alive:
        _signal(member.pid, signal.SIGKILL)
    process.wait()


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
