"""A run executed where this driver's disk is not: the notebook goes there, the record and the files come back."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.io import write_atomic
from embedlab.runs import execute, records
from embedlab.runs.execute import Outcome, Plan
from embedlab.runs.records import Record
from embedlab.runs.run import publish

if TYPE_CHECKING:
    from embedlab.sweeps.job import Job

MOST_BYTES = 256 * 2**20  # of one run's files, either way; more has to go through ARTEFACTS or a shared disk
ARTEFACTS = "EMBEDLAB_ARTEFACTS"  # on a worker: an fsspec URL; URL/RUN/ATTEMPT gets all files, e.g. s3://bucket/runs


@dataclass(frozen=True)
class Delivery:
    """What a run left on a worker.

    Attributes:
        run_id, attempt, cause, detail: as in `Outcome` and `Record`.
        record: its record; None when it failed.
        files: path within the run folder -> content.
        left_out: files that were too big to send.
    """

    run_id: str
    attempt: str
    record: Record | None
    cause: str
    detail: str
    files: dict[str, bytes]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextPlan(Plan):
    """A plan that carries its notebook with it, and what earlier runs left for it: path from the project -> content."""

    text: str = ""
    inputs: dict[str, bytes] = field(default_factory=dict)


def portable(job: Job) -> Job:
    """A job that another machine can perform: the notebook's text and files of earlier runs travel, folders do not.

    Raises:
        ParameterError: files of earlier runs cannot travel.
    """
    plan = job.plan
    text, inputs = plan.notebook.read_text(encoding="utf-8-sig"), _inputs(plan)
    return replace(job, plan=TextPlan(Path(plan.notebook.name), plan.values, plan.run_id, plan.folder, text, inputs))


def _inputs(plan: Plan) -> dict[str, bytes]:
    """Files of earlier runs that a value names."""
    root, found = paths.project_root(), {}
    for name, value in plan.values.items():
        source = root / value if isinstance(value, str) and value else root
        if name == "output_dir" or plan.folder.parent not in source.parents:
            continue
        files = [path for path in (source, *source.rglob("*")) if path.is_file()]
        if not source.is_relative_to(root) or sum(path.stat().st_size for path in files) > MOST_BYTES:
            problem = f"lies outside of the project, or is more than {MOST_BYTES / 2**20:.0f} MiB, and cannot travel"
            raise ParameterError(problem, remedy="Use --shared-disk", file=source, field=name)
        found |= {str(path.relative_to(root)): path.read_bytes() for path in files}
    return found


def perform_away(plan: TextPlan, **options: Any) -> Delivery:
    """On a worker: perform the run in a folder of its own and pack what it left; `options` are `execute.perform`'s."""
    for name, content in plan.inputs.items():
        _put(paths.project_root() / name, content)
    place = Path(tempfile.mkdtemp(prefix="embedlab-away-"))
    try:
        notebook = place / plan.notebook.name
        notebook.write_text(plan.text, encoding="utf-8")
        values = {**plan.values, **({"output_dir": str(place)} if "output_dir" in plan.values else {})}
        outcome = execute.perform(Plan(notebook, values, plan.run_id, place / plan.run_id), **options)
        if outcome.record:
            _upload(outcome.folder, outcome.record.attempt)
        return _pack(outcome)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _put(path: Path, content: bytes) -> None:
    """Write in one step: another run on this worker may be reading the same model."""
    write_atomic(path, content)


def _upload(folder: Path, attempt: str) -> None:
    if url := os.environ.get(ARTEFACTS):
        import fsspec

        system, target = fsspec.core.url_to_fs(f"{url.rstrip('/')}/{folder.name}/{attempt}/")
        system.put(f"{folder}/", target, recursive=True)


def _pack(outcome: Outcome) -> Delivery:
    """Smallest files first, so that one big one does not keep the others."""
    folder = outcome.folder if outcome.record else _last_attempt(outcome.folder)
    found = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    files, left_out, total = {}, [], 0
    for path in found:
        name = path.relative_to(folder)
        if name.name == records.FILE or name.parts[0] == "attempts":
            continue
        total += path.stat().st_size
        if total > MOST_BYTES:
            left_out.append(str(name))
        else:
            files[str(name)] = path.read_bytes()
    attempt = outcome.record.attempt if outcome.record else folder.name
    return Delivery(outcome.run_id, attempt, outcome.record, outcome.cause, outcome.detail, files, tuple(left_out))


def _last_attempt(folder: Path) -> Path:
    attempts = sorted((folder / "attempts").glob("*")) if (folder / "attempts").is_dir() else []
    return attempts[-1] if attempts else folder


def receive(delivery: Delivery, plan: Plan) -> Outcome:
    """On the driver: keep what came and commit the record; of two deliveries of one run the second only leaves files.

    Raises:
        RecordError: it cannot be written here.
    """
    attempt = plan.folder / "attempts" / delivery.attempt
    for name, content in delivery.files.items():
        path = attempt / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if delivery.record is None:
        return Outcome(plan.run_id, plan.folder, cause=delivery.cause, detail=delivery.detail)
    won = records.commit(delivery.record, plan.folder)
    record = records.read(plan.folder)
    publish(plan.folder, record)
    missing = f"too big to send: {', '.join(delivery.left_out)}" if delivery.left_out else ""
    return Outcome(plan.run_id, plan.folder, record, skipped=not won, detail=missing)
