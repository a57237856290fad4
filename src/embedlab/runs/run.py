"""A run as its notebook sees it: start, note numbers and figures, finish.

The same few calls work in JupyterLab, under plain papermill and under `embedlab run`, and leave the same record.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab import paths, progress
from embedlab.data.load import source_fingerprint
from embedlab.errors import ParameterError, RecordError
from embedlab.params import Params
from embedlab.runs import notebooks, provenance, records
from embedlab.runs.processes import ATTEMPT_VARIABLE, NOTEBOOK_VARIABLE
from embedlab.runs.records import MetricRow, Record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from embedlab.evaluation.metrics import Evaluation
    from embedlab.evaluation.significance import PairedDifference

FAILED = "failed.json"  # what an attempt that came to nothing leaves
HEADLINE = ("ndcg@10", "recall@10")


def compute_run_id(path: Path, values: Mapping[str, Any]) -> str:
    """`<notebook>-<8 hex>-s<seed>`: the same code, parameters and data give the same id on every machine.

    A notebook knows its id when it starts, and a driver knows it before: both hash the values of the parameters cell.
    The seed stands apart, and where a run is kept does not change its numbers.

    Args:
        path: the notebook.
        values: every parameter of its parameters cell, as `notebooks.resolved` gives them.
    """
    identity = {name: value for name, value in values.items() if name not in ("seed", "output_dir")}
    data = source_fingerprint(values["dataset"]) if values.get("dataset") else ""
    content = json.dumps([path.stem, notebooks.source_hash(path), identity, data], sort_keys=True)
    return f"{path.stem}-{hashlib.sha256(content.encode()).hexdigest()[:8]}-s{values.get('seed', 0)}"


def start_run(notebook: str, params: Params) -> Run:
    """Begin an attempt at the run that `notebook` with `params` is.

    Args:
        notebook: stem of the notebook, e.g. "00_quickstart".
        params: its resolved parameters.

    Raises:
        ParameterError: the parameters cell and the class of `params` do not have the same names or types.
    """
    path = _notebook_file(notebook)
    known, values = notebooks.parameters(path), params.set_values()
    if differing := ", ".join(sorted({parameter.name for parameter in known} ^ values.keys())):
        problem = f"the parameters cell and {type(params).__name__} differ in {differing}"
        remedy = "Let both have the same names, save the notebook and restart its kernel"
        raise ParameterError(problem, remedy=remedy, file=path)
    run = Run(compute_run_id(path, notebooks.resolved(known, values)), path, params)
    finished = records.read_or_quarantine(run.folder) is not None
    print(f"run {run.id}" + (", finished before: its record will stand, this attempt only shows" if finished else ""))
    _mark_failure(run)
    return run


def _notebook_file(stem: str) -> Path:
    """The file that the driver runs; without a driver, or in a notebook run by another one, the file of that name."""
    driven = Path(os.environ.get(NOTEBOOK_VARIABLE, ""))
    return driven if driven.stem == stem else notebooks.find_notebook(stem)


def _mark_failure(run: Run) -> None:
    """In a notebook: let a cell that fails mark the attempt as failed, whoever runs the notebook."""
    from IPython import get_ipython

    def after_cell(result: Any) -> None:
        if (error := result.error_in_exec) is not None and run.attempt_folder.is_dir():
            write_failure(run.attempt_folder, run.id, "error in cell", f"{type(error).__name__}: {error}")

    if shell := get_ipython():
        shell.events.register("post_run_cell", after_cell)


def write_failure(attempt_folder: Path, identifier: str, cause: str, detail: str) -> None:
    """Mark an attempt as failed, with its cause; it never blocks a later one."""
    content = {"run_id": identifier, "attempt": attempt_folder.name, "cause": cause, "detail": detail}
    (attempt_folder / FAILED).write_text(json.dumps(content, indent=1), encoding="utf-8")


class Run:
    """One attempt at a run.

    Attributes:
        id: the run's id.
        folder: where the run is kept once it is committed.
        attempt_folder: where this attempt writes until then.
        rows: the metric rows noted so far.
    """

    def __init__(self, identifier: str, path: Path, params: Params) -> None:
        self.id, self.notebook, self.params = identifier, path.stem, params
        self.folder = paths.runs_dir(params.output_dir) / identifier
        self.attempt = os.environ.get(ATTEMPT_VARIABLE) or f"{int(time.time())}-{uuid.uuid4().hex[:8]}"
        self.attempt_folder = self.folder / "attempts" / self.attempt
        self.attempt_folder.mkdir(parents=True, exist_ok=True)
        self.rows: list[MetricRow] = []
        self._per_query: list[pd.DataFrame] = []
        self._timings: dict[str, float] = {}
        self._notes: dict[str, Any] = {}
        self._models: dict[str, str] = {}
        self._source, self._started = notebooks.source_hash(path), provenance.now()
        progress.report("start", run_id=identifier, attempt_folder=str(self.attempt_folder))

    @property
    def scratch(self) -> str:
        """A folder for what nobody will want afterwards."""
        return str(self.attempt_folder / "scratch")

    def artefact(self, name: str) -> Path:
        """Where to write a file or folder that the run keeps."""
        return self.attempt_folder / name

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Note the seconds that the block takes, and report the stage."""
        began = time.perf_counter()
        progress.report(stage)
        yield
        self._timings[stage] = round(time.perf_counter() - began, 3)

    def note(self, **notes: Any) -> None:
        """Keep anything JSON-able in the record beside the metrics.

        Raises:
            ParameterError: it is not JSON-able; said now, not when hours of work are to be recorded.
        """
        try:
            self._notes |= json.loads(json.dumps(notes))
        except (TypeError, ValueError) as error:
            remedy = "Note plain numbers, texts, lists and dicts"
            raise ParameterError(f"cannot be recorded ({error})", remedy=remedy, field=", ".join(notes)) from None

    def fingerprint(self, **models: str) -> None:
        """Keep the fingerprints of the models behind the numbers."""
        self._models |= models

    def metrics(
        self, evaluation: Evaluation, *, model: str, split: str, task: str = "retrieval", dim: int | None = None
    ) -> None:
        """Note every metric of an evaluation with its bootstrap interval, and keep the per-query values."""
        from embedlab.evaluation.significance import bootstrap_ci

        for metric, values in evaluation.values.items():
            interval = bootstrap_ci(values)
            numbers = {"value": interval.mean, "n": interval.n, "ci_low": interval.low, "ci_high": interval.high}
            self.rows.append(MetricRow(task=task, split=split, model=model, metric=metric, dim=dim, **numbers))
        self._per_query.append(evaluation.frame().assign(task=task, split=split, model=model, dim=dim))

    def difference(
        self,
        difference: PairedDifference,
        *,
        metric: str,
        model: str,
        split: str,
        task: str = "retrieval",
        dim: int | None = None,
    ) -> None:
        """Note a paired difference: its mean with interval, the relative gain and the p-value."""
        interval = {"ci_low": difference.low, "ci_high": difference.high, "n": difference.n}
        common = {"task": task, "split": split, "model": model, "dim": dim}
        self.rows.append(MetricRow(metric=metric, value=difference.mean, **interval, **common))
        self.rows.append(MetricRow(metric=f"{metric} relative", value=difference.relative, n=difference.n, **common))
        self.rows.append(MetricRow(metric=f"{metric} p", value=difference.p_value, n=difference.n, **common))

    def value(self, metric: str, value: float | None, *, model: str, split: str = "", task: str, **fields: Any) -> None:
        """Note one number that is no evaluation: a loss, bytes, seconds."""
        self.rows.append(MetricRow(metric=metric, value=value, model=model, split=split, task=task, **fields))

    def figure(self, figure: Figure, name: str, table: pd.DataFrame) -> None:
        """Save a figure and the table it was drawn from, and show the figure in the notebook."""
        from IPython.display import Image

        path = self.artefact(f"{name}.png")
        figure.savefig(path)
        table.to_csv(path.with_suffix(".csv"), index=False)
        _display(Image(filename=str(path)))

    def log_history(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write train_log.csv; a run that trained nothing leaves none."""
        import pandas as pd

        if history:
            pd.DataFrame(history).to_csv(self.artefact("train_log.csv"), index=False)

    def headline(self, metrics: Sequence[str] = HEADLINE) -> None:
        """Show model x metric with intervals, as far as the run has come."""
        from embedlab.reporting.tables import headline

        _display(headline(self.rows, metrics))

    def finish(self) -> Record:
        """Commit the record and publish the attempt's files beside it.

        Raises:
            RecordError: another attempt at the same run committed first; its record stands.
        """
        if self._per_query:
            import pandas as pd

            pd.concat(self._per_query).to_parquet(self.artefact("per_query.parquet"), index=False)
        (self.attempt_folder / FAILED).unlink(missing_ok=True)  # of a cell that was mended and run again
        record = self._record()
        if not records.commit(record, self.folder):
            remedy = "Read that record, or remove its folder to run again"
            raise RecordError("another attempt at this run committed first", remedy=remedy, file=self.folder)
        publish(self.folder, record)
        progress.report("finished", run_id=self.id)
        print(f"committed {paths.shown(self.folder / records.FILE)}")
        return record

    def _record(self) -> Record:
        commit, dirty = provenance.code_version()
        dataset = getattr(self.params, "dataset", "")
        return Record(
            run_id=self.id,
            notebook=self.notebook,
            parameters=self.params.model_dump(mode="json", exclude={"output_dir"}),
            metrics=self.rows,
            timings=self._timings,
            data_fingerprint=source_fingerprint(dataset) if dataset else "",
            model_fingerprints=self._models,
            notes=self._notes,
            source_hash=self._source,
            commit=commit,
            dirty=dirty,
            versions=provenance.versions(),
            hardware=provenance.hardware(),
            attempt=self.attempt,
            started=self._started,
            finished=provenance.now(),
        )


def publish(folder: Path, record: Record) -> None:
    """Move the winning attempt's files beside its record; called again it does what is left to do."""
    attempt = folder / "attempts" / record.attempt
    for item in sorted(attempt.iterdir()) if attempt.is_dir() else ():
        if item.name != "scratch" and not (folder / item.name).exists():
            with suppress(FileNotFoundError):  # another process publishes the same run
                item.rename(folder / item.name)


def _display(thing: Any) -> None:
    """Rich output in a notebook, text elsewhere."""
    from IPython import get_ipython
    from IPython.display import display

    display(thing) if get_ipython() else print(thing)
