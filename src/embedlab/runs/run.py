"""The API of a run for its notebook: start, keep results and figures, finish.

The same calls work in JupyterLab, under plain papermill and under `embedlab run`, and write the same record.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab import paths, progress
from embedlab.engine import EngineParams
from embedlab.errors import ParameterError, RecordError
from embedlab.escaping import csv_frame
from embedlab.io import confined, write_atomic
from embedlab.params import Params
from embedlab.redaction import shareable, shareable_value
from embedlab.runs import measured, notebooks, per_query, provenance, records
from embedlab.runs.causes import ERROR_IN_CELL
from embedlab.runs.inputs import data_fingerprint, input_digests
from embedlab.runs.processes import ATTEMPT_VARIABLE, NOTEBOOK_VARIABLE, RUN_ID_VARIABLE
from embedlab.runs.reading import describe_difference
from embedlab.runs.records import MetricRow, Record
from embedlab.runs.run_id import RunId
from embedlab.runs.summary import HEADLINE, format_row, summarise
from embedlab.runs.systems import SYSTEMS, System, resolve_system
from embedlab.training.outcome import NOTHING_LEARNED, by_training, judge_training

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base import BaseModel

    from embedlab.evaluation.metrics import Evaluation
    from embedlab.evaluation.significance import PairedDifference
    from embedlab.models.adapter import VectorAdapter
    from embedlab.models.api import ApiModel
    from embedlab.models.static_table import StaticTable
    from embedlab.runs.evidence import Identity

logger = logging.getLogger(__name__)

FAILED = "failed.json"  # in the folder of an attempt that failed
TRAIN_LOG = "train_log.csv"


def compute_run_id(path: Path, values: Mapping[str, Any]) -> str:
    """`<notebook>-<8 hex>-s<seed>`: the same code, parameters and data give the same id on every machine.

    The data are the dataset and the content of every file and folder that a parameter names, such as a model. The
    driver and the notebook compute the same id, because both hash the values of the parameters cell. The seed is not
    hashed, and neither are the folder that the run is kept in and entries of `engine` that change no result.

    Args:
        path: the notebook.
        values: every parameter of its parameters cell, from `notebooks.resolved`.
    """
    identity = {name: value for name, value in values.items() if name not in ("seed", "output_dir", "engine")}
    if engine := EngineParams.checked(values.get("engine", {})).deciding():
        identity["engine"] = engine
    data = data_fingerprint(values.get("dataset", ""))
    inputs = input_digests(values, paths.runs_dir(values.get("output_dir", "")))
    parts = [path.stem, notebooks.source_hash(path), identity, data, *([inputs] if inputs else [])]
    content = json.dumps(parts, sort_keys=True)
    return str(RunId(path.stem, hashlib.sha256(content.encode()).hexdigest()[:8], values.get("seed", 0)))


def start_run(notebook: str, params: Params) -> Run:
    """Start a run of a notebook with these parameters.

    Args:
        notebook: stem of the notebook, e.g. "00_quickstart".
        params: its resolved parameters.

    Raises:
        ParameterError: the parameters cell and the class of `params` do not have the same names or types, or this
            machine cannot do what `engine` asks for.
    """
    path = _notebook_file(notebook)
    cell, values = notebooks.parameters(path), params.set_values()
    if differing := ", ".join(sorted({parameter.name for parameter in cell} ^ values.keys())):
        problem = f"the parameters cell and {type(params).__name__} differ in {differing}"
        remedy = "Use the same names in both, save the notebook and restart its kernel"
        raise ParameterError(problem, remedy=remedy, file=path)
    if values.get("engine"):
        from embedlab.training.engine import require_usable

        require_usable(EngineParams.checked(values["engine"]))
    identifier = compute_run_id(path, notebooks.resolved(cell, values))
    _check_id(identifier, path)
    run = Run(identifier, path, params)
    finished = records.read_or_quarantine(run.folder) is not None
    print(
        f"run {run.id}"
        + (", finished before: its record stays as it is, this attempt is not recorded" if finished else "")
    )
    _mark_failure(run)
    return run


def _check_id(identifier: str, path: Path) -> None:
    """Compare with the id that the driver computed when it planned the run, which may have been hours ago."""
    planned = os.environ.get(RUN_ID_VARIABLE, identifier)
    if planned != identifier and os.environ.get(NOTEBOOK_VARIABLE) == str(path):
        problem = f"the run was planned as {planned}, and is {identifier} now: a file that its parameters name changed"
        raise ParameterError(problem, remedy="Run it again when the file no longer changes", field="run id")


def _notebook_file(stem: str) -> Path:
    """The notebook file that the driver runs; without a driver, the file with this name in notebooks/."""
    driven = Path(os.environ.get(NOTEBOOK_VARIABLE, ""))
    return driven if driven.stem == stem else notebooks.find_notebook(stem)


def _truncated_texts() -> dict[str, Any]:
    """Take what the trainings since the last call have reported, see `training.truncated`."""
    trainings = sys.modules.get("embedlab.training.truncated")  # not imported where nothing was trained
    return trainings.take_counts() if trainings else {}


def _mark_failure(run: Run) -> None:
    """In a notebook: register a hook that marks the attempt as failed when a cell fails."""
    from IPython import get_ipython

    def after_cell(result: Any) -> None:
        if (error := result.error_in_exec) is not None and run.attempt_folder.is_dir():
            write_failure(run.attempt_folder, run.id, ERROR_IN_CELL, f"{type(error).__name__}: {error}")

    if shell := get_ipython():
        shell.events.register("post_run_cell", after_cell)


def write_failure(attempt_folder: Path, identifier: str, cause: str, detail: str) -> None:
    """Write down why an attempt failed; later attempts are not affected."""
    content = {"run_id": identifier, "attempt": attempt_folder.name, "cause": cause, "detail": shareable(detail)}
    write_atomic(attempt_folder / FAILED, json.dumps(content, indent=1))  # a full disk must not leave half of it


def new_attempt_name(run_folder: Path) -> str:
    """A name that sorts after those of all earlier attempts, even if a clock was wrong when they began."""
    numbers = [path.name.partition("-")[0] for path in run_folder.glob("attempts/*")]
    later_than_all = [int(number) + 1 for number in numbers if number.isdecimal()]
    return f"{max([int(time.time()), *later_than_all])}-{uuid.uuid4().hex[:8]}"


class Run:
    """One attempt at a run.

    Attributes:
        id: the run's id.
        folder: where the run is kept once it is committed.
        attempt_folder: where this attempt writes until then.
        rows: the metric rows so far.
    """

    def __init__(self, identifier: str, path: Path, params: Params) -> None:
        self.id, self.notebook, self.params = identifier, path.stem, params
        self.folder = paths.runs_dir(params.output_dir) / identifier
        self.attempt = os.environ.get(ATTEMPT_VARIABLE) or new_attempt_name(self.folder)
        self.attempt_folder = self.folder / "attempts" / self.attempt
        self.attempt_folder.mkdir(parents=True, exist_ok=True)
        self.rows: list[MetricRow] = []
        self._per_query: list[pd.DataFrame] = []
        self._timings: dict[str, float] = {}
        self._notes: dict[str, Any] = {}
        self._models: dict[str, str] = {}
        self._declared: dict[str, System] = dict(SYSTEMS)
        self._systems: dict[str, str] = {}
        self._history: list[Mapping[str, float]] = []
        self._saved: dict[Path, tuple[str, Identity]] = {}
        self._source, self._started = notebooks.source_hash(path), provenance.now()
        values = params.set_values()
        self._inputs, self._data = (
            input_digests(values, self.folder.parent),
            data_fingerprint(values.get("dataset", "")),
        )
        self._log = measured.Log(self.attempt_folder)
        _truncated_texts()  # those of an earlier run in this process
        progress.report("start", run_id=identifier, attempt_folder=str(self.attempt_folder))

    @property
    def scratch(self) -> str:
        """A folder for temporary files; it is deleted after the run."""
        return str(self.attempt_folder / "scratch")

    def artefact(self, name: str) -> Path:
        """The path for a file or folder that the run keeps."""
        return confined(self.attempt_folder, name, field="name", single=False)

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Measure the seconds that the block takes, with those of earlier attempts, and report the stage."""
        began, earlier = time.perf_counter(), progress.earlier_seconds()
        progress.report(stage)
        yield
        seconds = time.perf_counter() - began + progress.earlier_seconds() - earlier
        self._timings[stage] = round(seconds, 3)

    def note(self, **notes: Any) -> None:
        """Keep other values in the record: numbers, texts, lists and dicts. Keys and this machine's folders go out.

        Raises:
            ParameterError: a value cannot be stored as JSON.
        """
        try:
            self._notes |= shareable_value(json.loads(json.dumps(notes)))
        except (TypeError, ValueError) as error:
            remedy = "Use plain numbers, texts, lists and dicts"
            problem = f"cannot be stored as JSON ({error})"
            raise ParameterError(problem, remedy=remedy, field=", ".join(notes)) from None

    def declare_system(self, name: str, technique: str, description: str) -> None:
        """Name a system that `embedlab.runs.systems` does not declare.

        Args:
            name: as it will stand in the `system` column.
            technique: the family it belongs to, e.g. "contrastive".
            description: one line for a reader who does not know the name.

        Raises:
            ParameterError: the name is declared already, with another meaning.
        """
        system = System(technique, description)
        if self._declared.get(name, system) != system:
            problem = f"the system {name!r} is declared already: {self._declared[name].description}"
            raise ParameterError(problem, remedy="Choose another name", field="system")
        self._declared[name] = system

    def fingerprint(self, models: Mapping[str, str] | None = None, /, **more: str) -> None:
        """Keep the fingerprints of the models that were measured, by system name.

        Args:
            models: system -> fingerprint; for names that are not identifiers, such as "contrastive+static".
            more: the same, as keywords.

        Raises:
            ParameterError: a system that is not declared.
        """
        fingerprints = {**(models or {}), **more}
        for system in fingerprints:
            self._use(system)
        self._models |= fingerprints

    def save_model(self, system: str, model: BaseModel, folder: str = "model") -> Path:
        """Save a model with the run and keep its fingerprint.

        A model that no training step improved is saved too, because later notebooks read the folder. Its card and the
        record's notes (`untrained`) say that it has the base model's weights. `finish` adds the evidence to the folder,
        see `embedlab.models.evidence`.

        Args:
            system: the declared name of what the model was measured as.
            model: any model; see `embedlab.save_model` for how it loads without this package.
            folder: its name in the run's folder.

        Returns:
            The folder in this attempt; `finish` moves it next to the record.
        """
        from embedlab.models.save import mark_untrained, save_model
        from embedlab.runs.evidence import identify

        path = self.artefact(folder)
        save_model(model, path, facts=self.model_facts(system))
        identity, findings = identify(model), self._notes.get("training", {})
        self._saved[path] = system, identity
        has_base_weights = identity.fingerprint == self._models.get("base")
        if has_base_weights or NOTHING_LEARNED in findings.get(system, findings.get("", {})):
            mark_untrained(path)
            self._notes.setdefault("untrained", []).append(folder)
        self.fingerprint({system: identity.fingerprint})
        return path

    def save_adapter(
        self,
        system: str,
        model: SentenceTransformer | ApiModel,
        adapter: VectorAdapter,
        folder: str,
        *,
        static: StaticTable | None = None,
    ) -> Path:
        """Save an adapter with the run, see `models.adapter_folder.save_adapter`, and keep its fingerprint.

        Args:
            system: the declared name of what was measured.
            model: that the adapter was trained for.
            adapter: its maps.
            folder: its name in the run's folder.
            static: stands next to an API model.

        Returns:
            The folder in this attempt; `finish` adds the evidence and moves it next to the record.
        """
        from embedlab.models.adapter_folder import save_adapter
        from embedlab.runs.evidence import identify

        path = self.artefact(folder)
        identity = identify(save_adapter(model, adapter, path, self.model_facts(system), static=static))
        self._saved[path] = system, identity
        self.fingerprint({system: identity.fingerprint})
        return path

    def model_facts(self, system: str) -> dict[str, str]:
        """Return what the card of a saved model says: run, system, and the metric on test and its gain, if measured."""
        facts = {"Run": self.id, "System": system}
        labels = {"metric": "ndcg@10", "system": system, "split": "test", "stage": "retrieval"}
        measured = [row for row in self.rows if all(getattr(row, name) == value for name, value in labels.items())]
        titles = {("value", ""): "nDCG@10 on the test queries", ("difference", "base"): "Gain over the base model"}
        for kind, title in titles.items():
            rows = (row for row in measured if (row.statistic, row.against) == kind and row.value is not None)
            if row := next(rows, None):
                facts[title] = f"{format_row(row)}, n = {row.n}"
        return facts

    def metrics(
        self,
        evaluation: Evaluation,
        *,
        system: str,
        split: str,
        dim: int | None = None,
        task: str = "retrieval",
        stage: str = "retrieval",
        condition: str = "",
    ) -> None:
        """Keep every metric of an evaluation with its bootstrap interval, and the value of every query.

        Args:
            evaluation: as `evaluate_vectors` and its relatives return it.
            system: what was measured, a declared name; see `embedlab.runs.systems`.
            split: e.g. "test".
            dim: dimensions of the vectors; None without vectors.
            task: the dataset or task.
            stage: the part of the run that measured it.
            condition: what else was varied, for people to read.

        Raises:
            ParameterError: a system that is not declared.
        """
        from embedlab.evaluation.significance import bootstrap_ci

        labels = {"stage": stage, "split": split, "task": task, "condition": condition, "dim": dim}
        for metric, values in evaluation.values.items():
            interval = bootstrap_ci(values)
            bounds: dict[str, Any] = {"n": interval.n, "ci_low": interval.low, "ci_high": interval.high}
            self._add(metric, interval.mean, system=system, **labels, **bounds)
        self._per_query.append(evaluation.frame().assign(system=system, **labels))

    def difference(
        self,
        difference: PairedDifference,
        *,
        metric: str,
        system: str,
        against: str,
        split: str,
        dim: int | None = None,
        task: str = "retrieval",
        stage: str = "retrieval",
        condition: str = "",
    ) -> None:
        """Keep a paired difference between two systems: its mean with interval, the relative gain and the p-value.

        Args:
            difference: system minus against, query by query, from `paired_difference`.
            metric: e.g. "ndcg@10".
            system, against: declared names.
            split, dim, task, stage, condition: as in `metrics`.

        Raises:
            ParameterError: a system that is not declared.
        """
        self._use(against)
        labels: dict[str, Any] = {"system": system, "against": against, "stage": stage, "split": split, "task": task}
        labels |= {"condition": condition, "dim": dim, "n": difference.n}
        bounds: dict[str, Any] = {"ci_low": difference.low, "ci_high": difference.high}
        self._add(metric, difference.mean, statistic="difference", **labels, **bounds)
        self._add(metric, difference.relative, statistic="relative_difference", **labels)
        self._add(metric, difference.p_value, statistic="p_value", **labels)

    def value(
        self,
        metric: str,
        value: float | None,
        *,
        system: str,
        split: str = "",
        dim: int | None = None,
        task: str = "retrieval",
        stage: str = "retrieval",
        condition: str = "",
        n: int | None = None,
        ci_low: float | None = None,
        ci_high: float | None = None,
    ) -> None:
        """Keep one number that is not an evaluation: a loss, bytes, seconds.

        Args:
            metric: its name, with the unit where it has one, e.g. "queries per second".
            value: None when it could not be measured.
            system: a declared name.
            split, dim, task, stage, condition: as in `metrics`.
            n, ci_low, ci_high: what the interval is over, and its ends.

        Raises:
            ParameterError: a system that is not declared.
        """
        labels: dict[str, Any] = {"split": split, "dim": dim, "task": task, "stage": stage, "condition": condition}
        self._add(metric, value, system=system, **labels, n=n, ci_low=ci_low, ci_high=ci_high)

    def _add(self, metric: str, value: float | None, *, system: str, **labels: Any) -> None:
        technique = self._use(system).technique
        self.rows.append(MetricRow(system=system, technique=technique, metric=metric, value=value, **labels))
        if not self._log.is_open:
            self._log.open(self._record("incomplete"))
        self._log.add(self.rows[-1])

    def _use(self, name: str) -> System:
        """The declaration of a system, which the record will describe."""
        system = resolve_system(name, self._declared)
        self._systems[name] = system.description
        return system

    def figure(self, figure: Figure, name: str, table: pd.DataFrame) -> None:
        """Save a figure and the table it was drawn from, and show the figure in the notebook."""
        from IPython.display import Image

        path = self.artefact(f"{name}.png")
        figure.savefig(path)
        csv_frame(table).to_csv(path.with_suffix(".csv"), index=False)
        _display(Image(filename=str(path)))

    def log_history(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write train_log.csv, unless nothing was trained, and note what went wrong in the training.

        Args:
            history: rows of step, loss and dev. Where a run trains several models, `stage` or `system` names the model.
        """
        import pandas as pd

        if history:
            self._judge(history)
            pd.DataFrame(history).to_csv(self.artefact(TRAIN_LOG), index=False)

    def _judge_own_log(self) -> None:
        """Note what went wrong in trainings whose log the notebook wrote itself, with `artefact`."""
        import pandas as pd

        path = self.attempt_folder / TRAIN_LOG
        if self._history or not path.exists():
            return
        frame = pd.read_csv(path)
        history = frame.astype(object).where(frame.notna(), None).to_dict("records")
        self._judge([{str(name): value for name, value in row.items()} for row in history])

    def _judge(self, history: Sequence[Mapping[str, float]]) -> None:
        self._history = list(history)
        self._notes["training"] = {name: judge_training(rows) for name, rows in by_training(history).items()}

    def headline(self, metrics: Sequence[str] = HEADLINE) -> None:
        """Show the results so far: a row per system, a column per metric, with 95 % intervals."""
        _display(summarise(self.rows, metrics))

    def reading(
        self,
        system: str,
        against: str = "base",
        metric: str = "ndcg@10",
        split: str = "test",
        task: str = "retrieval",
    ) -> str:
        """What this run shows, in two or three sentences: the gain with its interval, and one line of advice.

        Args:
            system, against: what was compared; their difference must have been kept with `difference`.
            metric, split, task: of that difference.

        Raises:
            ParameterError: this run has not compared the two.
        """
        self._judge_own_log()
        other_systems = self._systems.keys() - {system}  # their training says nothing about this system
        trainings = by_training(self._history)
        history = [row for name, rows in trainings.items() if name not in other_systems for row in rows]
        return describe_difference(self.rows, system, against, metric=metric, split=split, task=task, history=history)

    def finish(self) -> Record:
        """Commit the record and move the files of this attempt to the run's folder.

        Raises:
            RecordError: another attempt at the same run committed first; its record stays.
        """
        if self._per_query:
            import pandas as pd

            per_query.write(pd.concat(self._per_query), self.artefact(per_query.FILE))
        self._judge_own_log()
        if counts := _truncated_texts():
            self._notes["truncated"] = counts
        (self.attempt_folder / FAILED).unlink(missing_ok=True)  # of a cell that failed and then passed
        self._log.remove()
        record = self._record()
        self._write_evidence(record)
        if not records.commit(record, self.folder):
            remedy = "Use that record, or delete its folder and run again"
            raise RecordError("another attempt at this run committed first", remedy=remedy, file=self.folder)
        publish(self.folder, record)
        if trainings := sys.modules.get("embedlab.training.finished"):  # not imported where nothing was trained
            trainings.forget()
        progress.report("finished", run_id=self.id)
        print(f"committed {paths.shown(self.folder / records.FILE)}")
        return record

    def _write_evidence(self, record: Record) -> None:
        """Write card and evidence of every saved model; a failure costs the evidence, which can be written later."""
        if not self._saved and not any(self.attempt_folder.rglob("modules.json")):
            return
        from embedlab.data.load import dataset_in_use
        from embedlab.runs.evidence import write_evidence

        try:
            data = dataset_in_use(str(record.parameters.get("dataset") or ""))
            write_evidence(record, self.attempt_folder, data, runs_folder=self.folder.parent, saved=self._saved)
        except Exception as error:  # whatever it is, the record of the run must not be lost
            logger.warning("%s The evidence is missing. Write it with: embedlab evidence %s", error, self.id)

    def _record(self, status: records.Status = "ok") -> Record:
        commit, dirty = provenance.code_version()
        values = self.params.all_values()
        return Record(
            run_id=self.id,
            status=status,
            notebook=self.notebook,
            parameters={name: value for name, value in values.items() if name != "output_dir"},
            inputs=self._inputs,
            systems=self._systems,
            metrics=self.rows,
            timings=self._timings,
            data_fingerprint=self._data,
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
    """Move the files of the committed attempt to the run's folder; an interrupted call can be repeated."""
    if not record.attempt:
        return
    attempt = confined(folder, f"attempts/{record.attempt}", field="attempt", single=False)
    for item in sorted(attempt.iterdir()) if attempt.is_dir() else ():
        if item.name != "scratch" and not (folder / item.name).exists():
            with suppress(FileNotFoundError):  # another process publishes the same run
                item.rename(folder / item.name)


def _display(output: Any) -> None:
    """Rich output in a notebook, text elsewhere."""
    from IPython import get_ipython
    from IPython.display import display

    display(output) if get_ipython() else print(output)
