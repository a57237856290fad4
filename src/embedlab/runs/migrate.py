"""Convert records of schema 1 to schema 2: labels that had to be parsed become typed columns.

Schema 1 had one free text for what was measured ("tuned, 3 layers - base") and put the statistic into the metric's
name ("ndcg@10 relative"). The tables below say what each text of each notebook means. A text that they do not hold is
an error: the conversion never guesses, and it changes no number.

Run ids, the notebook's name and the parameters stay as they are. A label that names a role ("tuned", "teacher") stands
for the model that filled it, which follows from the parameters of the run, and of the run whose model they name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from embedlab import __version__
from embedlab.errors import RecordError
from embedlab.io import write_atomic
from embedlab.runs import per_query, records
from embedlab.runs.records import MetricRow, Record, digest_of, file_text
from embedlab.runs.run_id import RunId, topic_of
from embedlab.runs.systems import resolve_system

BASE, CONTRASTIVE, PRETRAINED = "base", "contrastive", "pretrained+contrastive"
BETWEEN = " - "  # stood between the two systems of a difference
STATISTICS = {" relative": "relative_difference", " p": "p_value"}
SCALING = re.compile(r"^[\d,]+ documents(, batches|, one by one)?$")
COMPARISON = re.compile(r"^(?P<role>.+): (?P<a>\S+) - (?P<b>\S+)$")
TRAINING_SECONDS = "training_seconds"
TRAINING_STAGES = ("train", "pretrain", "fine-tune")  # timings that count for every model of a run


class MigrationError(RecordError):
    """A record of schema 1 that cannot be converted without guessing."""


class Label(NamedTuple):
    """What a label of schema 1 stands for."""

    system: str
    condition: str = ""


Content = dict[str, Any]
Find = Callable[[RunId], Content]

# Labels that mean the same in every record of a notebook.
BASELINES = {"bm25": Label("bm25"), "base": Label(BASE), "hybrid": Label("hybrid")}
DIAGNOSE = {
    "prompts": Label("prompts"),
    "filter": Label("filter"),
    "chunking": Label("chunking"),
    "fine-tune": Label("linear-probe"),
}
CLICKS = {"naive": "clicks-naive", "corrected": "clicks-corrected", "true theta": "clicks-oracle"}
DATA = {
    "real": Label("real-pairs"),
    "synthetic, same documents": Label("synthetic-same-documents"),
    "synthetic, any document": Label("synthetic-any-document"),
    **{kind: Label(f"synthetic-{kind}") for kind in ("crop", "dropout", "expand", "keywords", "title")},
    **{label: Label(system) for label, system in CLICKS.items()},
}
RERANKER = {
    "cross-encoder": Label("reranker"),
    "cross-encoder and tuned": Label("reranker+contrastive"),
    "labelled": Label("distilled+labels"),
    "scored": Label("distilled+scores"),
}
MULTITASK = {
    "retrieval": Label("retrieval-only"),
    "multi-task": Label("multitask"),
    "layer decay": Label("layer-decay"),
    "replay": Label("replay"),
    "anchor": Label("anchor"),
    "table": Label("base+static"),
}
DEPLOY = {
    "old": Label(BASE),
    "new": Label(CONTRASTIVE),
    "new vs old": Label(CONTRASTIVE, "against the old model"),
    **{
        label: Label("mixed-index", label)
        for label in (
            "old queries, half the documents new",
            "new queries, half the documents new",
            "new queries, old documents",
        )
    },
    "no map": Label("mixed-index", "new queries, old documents"),
}
# (notebook, task of schema 1) -> stage, task and condition of schema 2; other tasks become a task of stage "retrieval".
STAGES: dict[tuple[str, str], tuple[str, str, str]] = {
    ("data", "clicks"): ("clicks", "clicks", ""),
    ("data", "closeness"): ("data", "query wording", ""),
    ("data", "noise"): ("data", "noise", ""),
    **{("domain_pretraining", objective): ("perplexity", "held-out text", "") for objective in ("tsdae", "mlm")},
    **{("domain_pretraining", objective): ("perplexity", "held-out text", "") for objective in ("simcse", "none")},
    ("contrastive", "size"): ("footprint", "retrieval", ""),
    ("contrastive", "pydocs"): ("probe", "pydocs", ""),
    ("matryoshka", "funnel"): ("search", "retrieval", ""),
    ("matryoshka", "quantised"): ("quantised", "retrieval", ""),
    ("distillation", "footprint"): ("footprint", "retrieval", ""),
    ("reranker", "footprint"): ("footprint", "retrieval", ""),
    ("multitask", "pydocs"): ("probe", "pydocs", ""),
    **{("multitask", task): ("tasks", task, "") for task in ("similarity", "classification", "clustering")},
    **{("multitask", task): ("tasks", task, "") for task in ("medquad", "stsb", "banking77", "clinc150")},
    ("evaluate", "neighbours"): ("tasks", "neighbours", ""),
    ("deploy", "index"): ("index", "retrieval", ""),
    ("deploy", "shadow"): ("shadow", "retrieval", ""),
    ("deploy", "drift"): ("drift", "drift", ""),
    ("deploy", "adapter"): ("adapter", "retrieval", ""),
    ("compare", "comparison"): ("comparison", "retrieval", ""),
}


@dataclass
class Report:
    """What a migration did.

    Attributes:
        migrated: ids of runs whose record was converted.
        current: ids of runs whose record has schema 2 already.
        failed: the reason for every record that stayed as it is.
    """

    migrated: list[str] = field(default_factory=list)
    current: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def migrate_folder(folder: Path) -> Report:
    """Convert every record below a folder of runs; it can be interrupted and called again.

    Args:
        folder: holds one folder per run, e.g. results/runs.

    Returns:
        What was converted. Damaged records and records with an unknown label stay untouched and are listed.
    """
    report = Report()
    for run_folder in sorted(path.parent for path in folder.glob(f"*/{records.FILE}")):
        if records.OLD in run_folder.name:
            continue
        try:
            (report.migrated if migrate_run(run_folder) else report.current).append(run_folder.name)
        except (RecordError, OSError) as error:
            report.failed.append(str(error))
    return report


def migrate_run(folder: Path) -> bool:
    """Convert the record and the per-query values of one run.

    Returns:
        Whether there was something to convert.

    Raises:
        DamagedRecord: the record is not what was written.
        MigrationError: it holds a label that the tables of this module do not.
    """
    path = folder / records.FILE
    raw = path.read_bytes()
    content = read_content(folder)
    if content.get("schema", 1) != 1:
        records.read(folder)  # refuses a newer schema
        return False
    find = _finder(folder.parent)
    record = converted(content, find, path, hashlib.sha256(raw).hexdigest())
    _convert_per_query(folder / per_query.FILE, content, find)  # first: the record marks the run as converted
    write_atomic(path, file_text(record.content()))
    return True


def read_content(folder: Path) -> Content:
    """The JSON of a record of any schema, checked against its own sha256 and the folder's name.

    Raises:
        DamagedRecord: it is not what was written.
    """
    path = folder / records.FILE
    try:
        text = path.read_bytes().decode()
        content: Content = json.loads(text)
        sha256 = content.pop("sha256")
        intact = digest_of(content) == sha256 and content["run_id"] == folder.name
        if "schema" not in content:
            intact = intact and text == _schema_1_text(content, sha256)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise records.DamagedRecord(f"the record is damaged ({error})", remedy="Run it again", file=path) from None
    if not intact:
        raise records.DamagedRecord("the record is damaged", remedy="Run it again", file=path)
    return content


def _schema_1_text(content: Content, sha256: str) -> str:
    return json.dumps({**content, "sha256": sha256}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _finder(folder: Path) -> Find:
    """Reads the record of another run, of either schema."""

    def find(run_id: RunId) -> Content:
        if not (folder / str(run_id) / records.FILE).is_file():
            problem = f"the parameters name {run_id}, which has no record in {folder}"
            raise MigrationError(problem, remedy="Put that run's folder back, then migrate again")
        return read_content(folder / str(run_id))

    return find


def converted(content: Content, find: Find, path: Path | None = None, sha256: str = "") -> Record:
    """A record of schema 1 in schema 2.

    Args:
        content: the old record, without its sha256.
        find: returns the content of another run's record.
        path: its file, for messages.
        sha256: of the old file, kept in the note about the migration.

    Raises:
        MigrationError: a label that the tables of this module do not hold.
    """
    labels = _Labels(content, find)
    try:
        rows = [_converted_row(row, labels) for row in content["metrics"]]
        derived = _training_seconds(content, rows, labels)
        fingerprints = _fingerprints(content["model_fingerprints"], labels)
    except MigrationError as error:
        raise MigrationError(error.problem, remedy=error.remedy, file=path) from None
    systems = {name: resolve_system(name).description for row in rows for name in (row.system, row.against) if name}
    systems |= {name: resolve_system(name).description for name in fingerprints}
    migrated = {"from": 1, "sha256": sha256, "by": f"embedlab {__version__}"}
    if derived:
        migrated["derived"] = f"{len(derived)} rows of {TRAINING_SECONDS}, from timings and notes"
    unchanged = {name: value for name, value in content.items() if name not in ("metrics", "model_fingerprints")}
    return Record(
        **unchanged, systems=systems, metrics=[*rows, *derived], model_fingerprints=fingerprints, migrated=migrated
    )


class _Labels:
    """What the labels of one record stand for."""

    def __init__(self, content: Content, find: Find) -> None:
        self.content, self.find = content, find
        self.topic: str = topic_of(content["notebook"])
        self.parameters: Content = content["parameters"]
        self.fixed = {**BASELINES, **_labels_of(self.topic, content, find)}

    def __getitem__(self, label: str) -> Label:
        if label in self.fixed:
            return self.fixed[label]
        problem = f"the label {label!r} of notebook {self.content['notebook']} has no meaning in schema 2"
        raise MigrationError(problem, remedy="Add it to the tables in embedlab/runs/migrate.py")


def _labels_of(topic: str, content: Content, find: Find) -> dict[str, Label]:
    parameters, notes = content["parameters"], content["notes"]
    if topic == "quickstart":
        return {"tuned": Label(CONTRASTIVE)}
    if topic == "diagnose":
        return DIAGNOSE
    if topic == "data":
        sessions = [f"{count} sessions" for count in parameters["sessions"]]
        return DATA | {f"{label}, {count}": Label(CLICKS[label], count) for label in CLICKS for count in sessions}
    if topic == "domain_pretraining":
        return _pretraining_labels(parameters)
    if topic == "contrastive":
        return {"tuned": Label(_fine_tuned(_model(parameters["model_name"], find)))}
    if topic == "matryoshka":
        return _matryoshka_labels(parameters, find)
    if topic == "distillation":
        return _distillation_labels(parameters, find)
    if topic == "multitask":
        merged = Label("merged+static" if notes.get("table_share") else "merged")
        return MULTITASK | {"tuned": _trained(parameters, find), "chosen mixture": merged, "chosen": merged}
    if topic == "evaluate":
        tuned = _trained({"tuned_model": parameters["model_name"]}, find)
        tuned = Label(CONTRASTIVE) if tuned.system == BASE else tuned  # a model that the run fine-tuned itself
        truncated = {
            f"{name} 64d": Label(system, "truncated") for name, system in (("base", BASE), ("tuned", tuned[0]))
        }
        return {"tuned": tuned, **truncated}
    if topic == "reranker":
        return RERANKER | {"tuned": _trained(parameters, find)}
    if topic == "deploy":
        ways = [
            f"{kind}, {pairs}"
            for kind in ("procrustes", "affine", "mlp")
            for pairs in ("documents", "documents + queries")
        ]
        mapped = {f"{start}{way}": Label("mapped-queries", way) for way in ways for start in ("", "new, mapped by ")}
        return DEPLOY | mapped
    return {"all": Label("all-runs")} if topic == "compare" else {}


def _pretraining_labels(parameters: Content) -> dict[str, Label]:
    objective = parameters["objective"]
    none = objective == "none"
    return {
        "pretrained": Label("pretrained", "objective none" if none else ""),
        "tuned": Label(CONTRASTIVE if none else PRETRAINED),
        "before": Label(BASE, objective),
        "after": Label("pretrained", objective),
        "word frequencies": Label("word-frequencies", objective),
    }


def _matryoshka_labels(parameters: Content, find: Find) -> dict[str, Label]:
    tuned = _trained(parameters, find)
    fitted = Label("matryoshka-adaptor", "" if tuned.system == CONTRASTIVE else f"on {tuned.system}")
    labels = {
        "tuned": tuned,
        "tuned, prefixes fitted": fitted,
        "tuned without MRL": Label("contrastive-full-width"),
        "tuned 2D": Label("matryoshka-2d"),
    }
    shallow = {
        f"{name}, {depth} layers": Label(labels[name].system, f"{depth} layers")
        for name in ("tuned", "tuned 2D")
        for depth in parameters["layers"]
    }
    return labels | shallow


def _distillation_labels(parameters: Content, find: Find) -> dict[str, Label]:
    teacher = _model(parameters["teacher"], find) if parameters["teacher"] else CONTRASTIVE
    layers = f"{parameters['student_layers']} layers"
    return {
        "teacher": Label(teacher, "teacher" if teacher == BASE else ""),
        "layers": Label("distilled", layers),
        "narrow": Label("distilled-narrow"),
        "static": Label("static"),
        "static, distilled only": Label("static-distilled"),
        "both": Label(f"{teacher}+static"),
        "labelled": Label("distilled+labels"),
        "scored": Label("distilled+scores"),
        "labels only": Label("labels-only"),
        "cross-encoder over scored": Label("reranker+distilled+scores"),
    }


def _trained(parameters: Content, find: Find) -> Label:
    """The fine-tuned model of a run: trained in it, or given as `tuned_model`."""
    return Label(_model(parameters["tuned_model"], find) if parameters["tuned_model"] else CONTRASTIVE)


def _fine_tuned(start: str) -> str:
    """The system that contrastive training makes of another."""
    return PRETRAINED if start == PRETRAINED else CONTRASTIVE


def _model(path: str, find: Find) -> str:
    """The system of a model that a parameter names: `results/runs/RUN/model/STUDENT`, or a model's name."""
    run_ids = RunId.find_all(path)
    if not run_ids:
        return BASE
    content = find(run_ids[-1])
    role = path.partition("/model")[2].strip("/").replace("static-distilled-only", "static, distilled only")
    role = role or ("chosen mixture" if run_ids[-1].topic == "multitask" else "tuned")
    labels = {**BASELINES, **_labels_of(run_ids[-1].topic, content, find)}
    if (label := labels.get(role) or labels.get(role.replace("-", " "))) is None:
        raise MigrationError(f"cannot tell which system {path} is", remedy="Add it to embedlab/runs/migrate.py")
    return label.system


def _converted_row(row: Content, labels: _Labels) -> MetricRow:
    metric, statistic = _metric_and_statistic(row["metric"])
    stage, task, condition = _stage(labels, row["task"])
    left, right = _sides(row, stage, labels)
    if right is not None:
        statistic = "difference" if statistic == "value" else statistic
    if stage == "probe":
        metric = metric.removeprefix("probe ")
    if stage == "clicks" and (parts := metric.split(", "))[0].startswith("true attraction of "):
        verdict = parts[0].removeprefix("true attraction of ")
        metric, condition = "true attraction", f"{verdict}, {parts[1]}"
    conditions = [condition, left.condition, f"against {right.condition}" if right and right.condition else ""]
    numbers = {name: row[name] for name in ("dim", "n", "value", "ci_low", "ci_high")}
    return MetricRow(
        system=left.system,
        technique=resolve_system(left.system).technique,
        stage=stage,
        metric=metric,
        statistic=statistic,
        against=right.system if right else "",
        split=row["split"],
        task=task,
        condition=", ".join(filter(None, conditions)),
        **numbers,
    )


def _metric_and_statistic(metric: str) -> tuple[str, Any]:
    for suffix, statistic in STATISTICS.items():
        if metric.endswith(suffix):
            return metric.removesuffix(suffix), statistic
    return metric, "value"


def _stage(labels: _Labels, task: str) -> tuple[str, str, str]:
    """Stage, task and condition that a task of schema 1 stands for."""
    topic = labels.topic
    if task == "retrieval":
        return "retrieval", "retrieval", ""
    if (topic, task) in STAGES:
        return STAGES[topic, task]
    if topic == "matryoshka" and SCALING.match(task):
        return "search", "scaling", task
    if topic == "evaluate" and task in labels.parameters["probes"]:
        return "probe", task, ""
    if topic == "evaluate" and task == f"{labels.parameters['token_budget']} tokens":
        return "context", "retrieval", task
    if topic == "evaluate" and task.startswith("clustering by "):
        return "tasks", "clustering", task.removeprefix("clustering ")
    problem = f"the task {task!r} of notebook {labels.content['notebook']} has no meaning in schema 2"
    raise MigrationError(problem, remedy="Add it to the tables in embedlab/runs/migrate.py")


def _sides(row: Content, stage: str, labels: _Labels) -> tuple[Label, Label | None]:
    """What a row measured, and for a difference what it was compared with."""
    label: str = row["model"]
    if stage in ("search", "quantised"):  # labels of these stages are ways to search the fine-tuned model's vectors
        tuned = labels["tuned"].system
        left, between, right = label.partition(BETWEEN)
        return Label(tuned, left), Label(tuned, right) if between else None
    if stage in ("index", "drift"):  # and these are indexes or samples
        condition = {"new": "no drift, repeated", "first 64 numbers, rescored": "first 64 dimensions, rescored"}
        return Label(labels["new"].system, condition.get(label, label)), None
    if stage == "comparison" and (match := COMPARISON.match(label)):
        sides = [_Labels(labels.find(RunId.parse(match[side])), labels.find)[match["role"]] for side in "ab"]
        return Label(sides[0].system, match["a"]), Label(sides[1].system, match["b"])
    if label.endswith(", cut - whole"):
        full = labels[label.removesuffix(", cut - whole")]
        return Label(full.system, ", ".join(filter(None, (full.condition, "truncated")))), full._replace(
            condition="full width"
        )
    left, between, right = label.partition(BETWEEN)
    if stage == "clicks" and between:  # "corrected - naive, 50 sessions"
        count = right.partition(", ")[2]
        return labels[f"{left}, {count}"], labels[right]._replace(condition="")
    return labels[left], labels[right] if between else None


def _fingerprints(fingerprints: Mapping[str, str], labels: _Labels) -> dict[str, str]:
    systems = {label: labels[label].system for label in fingerprints}
    if len(set(systems.values())) < len(systems):
        raise MigrationError(f"two models would become one system: {systems}", remedy="Report it as a bug")
    return {systems[label]: fingerprint for label, fingerprint in fingerprints.items()}


def _training_seconds(content: Content, rows: Iterable[MetricRow], labels: _Labels) -> list[MetricRow]:
    """Rows for what schema 1 left to a convention of names: the seconds that training each system took."""
    names = dict.fromkeys(
        row["model"] for row in content["metrics"] if row["task"] == "retrieval" and BETWEEN not in row["model"]
    )
    if any(row.metric == TRAINING_SECONDS for row in rows):
        return []
    derived = []
    for name in names:
        label = labels[name]
        untrained = label.system in ("bm25", BASE, "mixed-index", "mapped-queries")
        seconds = None if untrained else _seconds(content, name)
        if seconds is not None:
            technique = resolve_system(label.system).technique
            where: dict[str, Any] = {"stage": "footprint", "condition": label.condition}
            derived.append(
                MetricRow(system=label.system, technique=technique, metric=TRAINING_SECONDS, value=seconds, **where)
            )
    return derived


def _seconds(content: Content, label: str) -> float | None:
    """Seconds of the stages that trained a model, by the names of their timings; None when no timing is its own.

    Stages were called `train`, `pretrain` or `fine-tune` where a run trained one model, and `LABEL`, `LABEL, part` or
    `train LABEL` where it trained several. A note `STAGE_seconds` holds the time of a stage that came from a cache.
    """
    timings, notes = content["timings"], content["notes"]
    family = label.partition(",")[0]
    shared = TRAINING_STAGES[:-1] if label == "pretrained" else TRAINING_STAGES
    exact = {label, f"train {label}"} & timings.keys()
    parts = {stage for stage in timings if stage == f"train {family}" or stage.partition(",")[0] == family}
    stages = [stage for stage in timings if stage in (exact or parts) or stage in shared]
    seconds = [notes.get(f"{stage}_seconds", timings[stage]) for stage in stages]
    return sum(seconds) if seconds else None


def _convert_per_query(path: Path, content: Content, find: Find) -> None:
    """Give the per-query values the columns of schema 2; the values stay as they are."""
    if not path.is_file():
        return
    import pandas as pd

    frame = pd.read_parquet(path)
    if "system" in frame:  # an interrupted migration got this far
        return
    labels = _Labels(content, find)
    keys = frame[["task", "model"]].drop_duplicates()
    columns = {(row.task, row.model): _per_query_columns(row.task, row.model, labels) for row in keys.itertuples()}
    pairs = list(zip(frame["task"], frame["model"], strict=True))
    for name in ("system", "stage", "task", "condition"):
        frame[name] = [columns[pair][name] for pair in pairs]
    per_query.write(frame.drop(columns="model"), path)


def _per_query_columns(task: str, model: str, labels: _Labels) -> dict[str, str]:
    row = {"task": task, "model": model, "metric": "", "split": "", "dim": None, "n": None, "value": None}
    converted_row = _converted_row({**row, "ci_low": None, "ci_high": None}, labels)
    return {name: getattr(converted_row, name) for name in ("system", "stage", "task", "condition")}
