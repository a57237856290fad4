"""Execute a run on a machine without a shared disk: the notebook is sent there, its record and files are sent back."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.io import confined, write_atomic
from embedlab.runs import attempts, execute, heartbeat, inputs, left_behind, records
from embedlab.runs.execute import Outcome, Plan
from embedlab.runs.limits import CANCEL
from embedlab.runs.records import Record
from embedlab.runs.run import new_attempt_name, publish
from embedlab.sweeps.job import Job

MAX_BYTES = 256 * 2**20  # of one run's files, in each direction; larger files need ARTEFACTS_URL or a shared disk
# On a worker: an fsspec URL such as s3://bucket/runs, where all files of a run are copied to URL/RUN/ATTEMPT.
ARTEFACTS_URL = "EMBEDLAB_ARTEFACTS"


@dataclass(frozen=True)
class Delivery:
    """What a worker sends back.

    Attributes:
        run_id, attempt, cause, detail: as in `Outcome` and `Record`.
        record: the run's record; None if it failed.
        files: path within the run folder -> content.
        omitted: files that were too large to send.
    """

    run_id: str
    attempt: str
    record: Record | None
    cause: str
    detail: str
    files: dict[str, bytes]
    omitted: tuple[str, ...] = ()


@dataclass(frozen=True)
class PortablePlan(Plan):
    """A plan together with all that it needs.

    Attributes:
        text: the notebook's JSON.
        inputs: files of earlier runs: path from the project root -> content.
    """

    text: str = ""
    inputs: dict[str, bytes] = field(default_factory=dict)


def portable(job: Job) -> Job:
    """Return a job that can be executed on another machine, with the notebook and the files of earlier runs.

    Raises:
        ParameterError: the files of earlier runs are too large, or outside the project.
    """
    plan = job.plan
    text, inputs = plan.notebook.read_text(encoding="utf-8-sig"), _inputs(plan)
    name = Path(plan.notebook.name)
    return replace(job, plan=PortablePlan(name, plan.values, plan.run_id, plan.folder, text, inputs))


def _inputs(plan: Plan) -> dict[str, bytes]:
    """Return the files that the plan's parameters name; a worker must have its own copy of those outside the project.

    Files that are too large must be there too, unless an earlier run made them, which only this machine has.
    """
    root, runs_folder = paths.project_root(), plan.folder.parent
    contents: dict[str, bytes] = {}
    for name, _, source in inputs.named_paths(plan.values):
        of_a_run = runs_folder in source.parents
        if runs_folder.is_relative_to(source) or not (of_a_run or source.is_relative_to(root)):
            continue
        files = [path for path in (source, *source.rglob("*")) if path.is_file()]
        if not source.is_relative_to(root):
            raise _not_portable("is outside the project", source, name)
        if sum(path.stat().st_size for path in files) <= MAX_BYTES:
            contents |= {str(path.relative_to(root)): path.read_bytes() for path in files}
        elif of_a_run:
            raise _not_portable(f"is larger than {MAX_BYTES / 2**20:.0f} MiB", source, name)
    return contents


def _not_portable(problem: str, source: Path, parameter: str) -> ParameterError:
    remedy = "Use --shared-disk if the workers share this disk"
    return ParameterError(f"{problem} and cannot be sent to a worker", remedy=remedy, file=source, field=parameter)


def perform_away(plan: PortablePlan, **options: Any) -> Delivery:
    """Execute a run on a worker, in a temporary folder, and pack its files.

    Args:
        plan: from `portable`.
        **options: those of `execute.perform`.
    """
    for name, content in plan.inputs.items():
        path = confined(paths.project_root(), name, field="inputs", single=False)
        write_atomic(path, content)  # another run on this worker may be reading the same model
    folder = Path(tempfile.mkdtemp(prefix=f"{left_behind.PREFIX}away-"))
    heartbeat.claim(folder)
    try:
        notebook = folder / plan.notebook.name
        notebook.write_text(plan.text, encoding="utf-8")
        values = {**plan.values, **({"output_dir": str(folder)} if "output_dir" in plan.values else {})}
        outcome = execute.perform(Plan(notebook, values, plan.run_id, folder / plan.run_id), **options)
        if outcome.record:
            _upload(outcome.folder, outcome.record.attempt)
        return _pack(outcome)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Stand:
    """Stands for a run on another machine's disk, so that `embedlab watch` and `cancel` find it on this one.

    Args:
        plan: the run.
    """

    def __init__(self, plan: Plan) -> None:
        self._attempt = plan.folder / "attempts" / f"{new_attempt_name(plan.folder)}{attempts.AWAY}"
        self._scratch = self._attempt / "scratch"
        self._scratch.mkdir(parents=True)
        heartbeat.claim(self._scratch)
        (self._scratch / heartbeat.REPORTS).touch()

    def show(self, report: Mapping[str, Any]) -> None:
        """Write down a progress report that has arrived."""
        with suppress(OSError), open(self._scratch / heartbeat.REPORTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(report)) + "\n")

    def is_to_end(self) -> bool:
        """Show that the driver is alive; returns whether someone asked to cancel the run."""
        heartbeat.beat(self._scratch)
        return (self._scratch / CANCEL).exists()

    def remove(self) -> None:
        """Remove it when the run has ended."""
        shutil.rmtree(self._attempt, ignore_errors=True)


def _upload(folder: Path, attempt: str) -> None:
    if url := os.environ.get(ARTEFACTS_URL):
        import fsspec

        system, target = fsspec.core.url_to_fs(f"{url.rstrip('/')}/{folder.name}/{attempt}/")
        system.put(f"{folder}/", target, recursive=True)


def _pack(outcome: Outcome) -> Delivery:
    """Pack a run's files, smallest first, so that one large file does not keep the others back."""
    folder = outcome.folder if outcome.record else _last_attempt(outcome.folder)
    by_size = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    files: dict[str, bytes] = {}
    omitted: list[str] = []
    total = 0
    for path in by_size:
        name = path.relative_to(folder)
        if name.name == records.FILE or name.parts[0] == "attempts":
            continue
        total += path.stat().st_size
        if total > MAX_BYTES:
            omitted.append(str(name))
        else:
            files[str(name)] = path.read_bytes()
    attempt = outcome.record.attempt if outcome.record else folder.name
    return Delivery(outcome.run_id, attempt, outcome.record, outcome.cause, outcome.detail, files, tuple(omitted))


def _last_attempt(folder: Path) -> Path:
    folders = sorted((folder / "attempts").glob("*")) if (folder / "attempts").is_dir() else []
    return folders[-1] if folders else folder


def receive(delivery: Delivery, plan: Plan) -> Outcome:
    """Save what a worker sent back, and commit the record. If the run has a record already, only files are saved.

    Raises:
        RecordError: the record cannot be written.
    """
    attempt = confined(plan.folder, f"attempts/{delivery.attempt}", field="attempt", single=False)
    for name, content in delivery.files.items():
        path = confined(attempt, name, field="files", single=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if delivery.record is None:
        omitted = [f"too large to send: {', '.join(delivery.omitted)}"] if delivery.omitted else []
        detail = "\n".join([delivery.detail, *omitted])
        return Outcome(plan.run_id, plan.folder, cause=delivery.cause, detail=detail)
    committed = records.commit(delivery.record, plan.folder)
    record = records.read(plan.folder)
    publish(plan.folder, record)
    detail = f"too large to send: {', '.join(delivery.omitted)}" if delivery.omitted else ""
    return Outcome(plan.run_id, plan.folder, record, skipped=not committed, detail=detail)
