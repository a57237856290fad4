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
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab import paths, progress
from embedlab.data.load import source_fingerprint
from embedlab.errors import RecordError
from embedlab.experiments import notebooks, provenance, records
from embedlab.experiments.records import MetricRow, Record
from embedlab.params import Params

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from embedlab.evaluation.metrics import Evaluation
    from embedlab.evaluation.significance import PairedDifference

ATTEMPT_VARIABLE = "EMBEDLAB_ATTEMPT"  # the driver names the attempt, so that it finds it after a kill
HEADLINE = ("ndcg@10", "recall@10")


def run_id(path: Path, values: Mapping[str, Any]) -> str:
    """`<notebook>-<8 hex>-s<seed>`: the same code, parameters and data give the same id on every machine.

    A notebook knows its id when it starts, and a driver knows it before: both hash the values of the parameters cell.
    The seed stands apart, and where a run is kept does not change its numbers.

    Args:
        path: the notebook.
        values: every parameter of its parameters cell, as resolved.
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
    """
    path = notebooks.find_notebook(notebook)
    run = Run(run_id(path, params.set_values()), path, params)
    print(f"run {run.id}")
    return run


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
        """Keep anything JSON-able in the record beside the metrics."""
        self._notes |= notes

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
        """Write train_log.csv."""
        import pandas as pd

        pd.DataFrame(history).to_csv(self.artefact("train_log.csv"), index=False)

    def headline(self, metrics: Sequence[str] = HEADLINE) -> None:
        """Show model x metric with intervals, as far as the run has come."""
        from embedlab.experiments.tables import headline

        _display(headline(self.rows, metrics))

    def finish(self) -> Record:
        """Commit the record and publish the attempt's files beside it.

        Raises:
            RecordError: another attempt at the same run committed first; its record stands.
        """
        if self._per_query:
            import pandas as pd

            pd.concat(self._per_query).to_parquet(self.artefact("per_query.parquet"), index=False)
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
            item.rename(folder / item.name)


def _display(thing: Any) -> None:
    """Rich output in a notebook, text elsewhere."""
    from IPython import get_ipython
    from IPython.display import display

    display(thing) if get_ipython() else print(thing)
