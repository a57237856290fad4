"""Every system that was measured on one dataset, beside BM25, the base model and their hybrid: from records alone.

A system is a model that a record names by its fingerprint. The same model in several records (trained in one run,
searched with few bits in another, evaluated in a third) is one system, called by the notebooks it went through, as the
parameters of its run and of the runs before tell them: "domain pretraining → contrastive → distillation: static".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd

from embedlab.evaluation.significance import bootstrap_ci, paired_difference
from embedlab.reporting.sweep_table import FLOAT32
from embedlab.runs.per_query import Measured as System
from embedlab.runs.per_query import mean_over_runs, query_values
from embedlab.runs.record_index import indexed_records
from embedlab.runs.records import MetricRow, Record
from embedlab.sweeps.spec import varying_where_known

METRIC, SPLIT = "ndcg@10", "test"
BASELINES = ("bm25", "base", "hybrid")
MEMORY, SPEED = "bytes in memory", "texts_per_second"
RETRIEVAL, QUANTISED = "retrieval", "quantised"
TUNED, TEACHER = "tuned", "teacher"
WHAT_TO_MAKE = "students"  # which of a run's systems were wanted; it says nothing about any of them
RUN = re.compile(r"\w+-[0-9a-f]{8}-s-?\d+")

KEY = ["system", "form", "dim"]
COLUMNS = [
    *KEY,
    "seeds",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "bytes",
    "texts_per_second",
    "runs",
]


def headline(dataset: str = "icd10cm:full", folder: Path | None = None) -> pd.DataFrame:
    """nDCG@10 on the test queries of `dataset`, of everything that records of uncut runs measured there.

    Args:
        dataset: the spec that the runs were given.
        folder: where runs are kept; results/runs when not given.

    Returns:
        One row per system, form ("" for plain vectors; "signs 384, rescored" and the like) and dimension, baselines
        first: seeds (runs behind the row); value, the mean over seeds and queries, with its 95 % interval over
        queries; n queries; difference from the base model, both at full width, paired by query, with interval and p;
        bytes that a document takes in memory; texts_per_second of encoding; runs (ids). What is not known is missing.
    """
    known = {record.run_id: record for record in indexed_records((METRIC, MEMORY, SPEED), folder=folder)}
    chains = {run_id: _chain(record, known) for run_id, record in known.items()}
    chosen = [record for record in known.values() if record.parameters.get("dataset") == dataset and _is_whole(record)]
    chosen.sort(key=lambda record: (record.finished, record.run_id), reverse=True)  # the newest of the same setting
    chosen.sort(key=lambda record: len(chains[record.run_id]))  # a model's own run comes first
    names = _names(chosen, chains)
    rows = pd.DataFrame(_measured(chosen, names), columns=[*KEY, "seed", "run_id", "task", "model", "noted", "bytes"])
    rows = _with_dims(rows).drop_duplicates([*KEY, "seed"])
    counted = [record for record in chosen if record.run_id in set(rows["run_id"])]
    return _aggregated(rows, _speeds(counted, names, chains), folder)


def _is_whole(record: Record) -> bool:
    """Whether the run saw all there is: one that was cut short belongs into the table of its sweep."""
    return not any(record.parameters.get(name) for name in ("max_examples", "max_steps"))


def _chain(record: Record, known: Mapping[str, Record]) -> list[Record]:
    """The run and those that its parameters name, earliest first."""
    texts = (value for value in record.parameters.values() if isinstance(value, str))
    named = [known[run_id] for text in texts for run_id in RUN.findall(text) if run_id in known]
    return [*(_chain(named[0], known) if named else ()), record]


def _setting(record: Record) -> dict[str, object]:
    """What was chosen for a run, but for earlier runs, which the chain tells."""
    named = {name for name, value in record.parameters.items() if isinstance(value, str) and RUN.search(value)}
    return {name: value for name, value in record.parameters.items() if name not in {*named, WHAT_TO_MAKE}}


def _names(chosen: Sequence[Record], chains: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    """Run id -> the notebooks it went through, with the settings that tell it from others of the same way."""
    names: dict[str, str] = {}
    for depth in sorted({len(chains[record.run_id]) for record in chosen}):
        ways: dict[str, list[Record]] = {}
        for record in chosen:
            if len(chains[record.run_id]) == depth:
                ways.setdefault(_way(chains[record.run_id], names), []).append(record)
        for way, records in ways.items():
            names |= _told_apart(way, records)
    return names


def _way(chain: Sequence[Record], names: Mapping[str, str]) -> str:
    """What the run before is called, and this run's topic."""
    *before, own = chain
    known = [names.get(before[-1].run_id) or " → ".join(map(_topic, before))] if before else []
    return " → ".join([*known, _topic(own)])


def _told_apart(way: str, records: Sequence[Record]) -> dict[str, str]:
    """Run id -> name: the setting with most runs bears the plain one, the others say what differs."""
    settings = [_setting(record) for record in records]
    differing = varying_where_known(settings)
    details = [
        ", ".join(f"{name} {_shown(setting[name])}" for name in differing if name in setting) for setting in settings
    ]
    (usual, runs), *others = Counter(details).most_common(2)
    plain = usual if not others or runs > others[0][1] else ""
    named = [way if detail in ("", plain) else f"{way} ({detail})" for detail in details]
    return {record.run_id: name for record, name in zip(records, named, strict=True)}


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _topic(record: Record) -> str:
    """A run's notebook in words; a fine-tune behind a pre-training is part of what was measured, and is said."""
    topic, pairs = record.notebook.partition("_")[2].replace("_", " "), record.parameters.get("fine_tune_pairs")
    return topic if pairs is None else f"{topic}, then {f'{pairs:,}' if pairs else 'all'} pairs"


def _measured(chosen: Sequence[Record], names: Mapping[str, str]) -> Iterator[tuple]:
    """Rows of `headline` for single runs; a model that was seen before keeps the name it had then."""
    by_fingerprint: dict[str, str] = {}
    for record in chosen:
        memory = {row.model: row.value for row in record.metrics if row.metric == MEMORY}
        for row in record.metrics:
            if found := _system(row, record, names[record.run_id], by_fingerprint):
                bytes_ = memory.get(row.model) if row.task == QUANTISED else None
                seed = record.parameters.get("seed")
                yield *found, row.dim, seed, record.run_id, row.task, row.model, row.value, bytes_


def _system(row: MetricRow, record: Record, name: str, by_fingerprint: dict[str, str]) -> tuple[str, str] | None:
    """(system, form) of a metric row; None when it is no system's score."""
    if (row.metric, row.split) != (METRIC, SPLIT) or row.task not in (RETRIEVAL, QUANTISED) or " - " in row.model:
        return None
    if row.model in BASELINES:
        touched = row.model != BASELINES[0] and RUN.search(str(record.parameters.get("model_name")))
        return None if touched or row.task != RETRIEVAL else (row.model, "")
    model, form = _model_and_form(row, record.model_fingerprints)
    if not model:
        return None
    own = name if model == TUNED else f"{name}: {model}"
    return by_fingerprint.setdefault(record.model_fingerprints[model], own), form


def _model_and_form(row: MetricRow, fingerprints: Mapping[str, str]) -> tuple[str, str]:
    """Which of a record's models was measured, and how it was cut; ("", "") when it names none by fingerprint."""
    if row.task == QUANTISED:
        return (TUNED, row.model) if TUNED in fingerprints else ("", "")
    head, _, tail = row.model.partition(", ")
    return next(((name, form) for name, form in ((row.model, ""), (head, tail)) if name in fingerprints), ("", ""))


def _with_dims(rows: pd.DataFrame) -> pd.DataFrame:
    """A row without dimension is its system's widest, where another record tells that."""
    plain = rows["task"].eq(RETRIEVAL) & rows["form"].eq("")
    widest = rows["dim"].where(plain).astype(float).groupby(rows["system"]).transform("max")
    return rows.assign(dim=rows["dim"].astype(float).where(~plain | rows["dim"].notna(), widest))


def _speeds(chosen: Sequence[Record], names: Mapping[str, str], chains: Mapping[str, Sequence[Record]]) -> pd.Series:
    """System -> texts encoded per second, the median over runs.

    Other machines, and other work on the same one, slow all models of a run alike: so a run says how many times as fast
    as the base model a system is, and that is given at the base model's own median. A given teacher is the model of
    the run before.
    """
    rows = []
    for record in chosen:
        name, before = names[record.run_id], [names.get(one.run_id) for one in chains[record.run_id][:-1]]
        own = {"base": "base", TUNED: name} | ({TEACHER: before[-1]} if before else {})
        found = {row.model: row.value for row in record.metrics if row.metric == SPEED}
        rows += [(own.get(model, f"{name}: {model}"), value, found.get("base")) for model, value in found.items()]
    table = pd.DataFrame(rows, columns=["system", "value", "base"]).astype({"value": float, "base": float})
    usual = table.loc[table["system"] == "base", "value"].median()
    return (table["value"] * (usual / table["base"]).fillna(1)).groupby(table["system"]).median()


def _aggregated(rows: pd.DataFrame, speeds: pd.Series, folder: Path | None) -> pd.DataFrame:
    @lru_cache(maxsize=64)
    def values_of(run_id: str, task: str) -> dict[System, pd.Series]:
        return query_values(run_id, METRIC, split=SPLIT, task=task, folder=folder)

    def per_query(group: pd.DataFrame) -> pd.Series | None:
        """Mean over seeds of each query's value; None where a run did not keep them."""
        found = [_pick(values_of(row.run_id, row.task), row.model, row.dim) for row in group.itertuples()]
        return None if any(one is None for one in found) else mean_over_runs(found)

    groups = dict(iter(rows.groupby(KEY, sort=False, dropna=False)))
    widths = {dim: group for (system, _, dim), group in groups.items() if system == "base"}
    base = per_query(widths[max(widths, key=lambda dim: 0 if pd.isna(dim) else dim)]) if widths else None
    full = rows[rows["form"] == ""].groupby("system")["dim"].max().fillna(0)
    compared = {key: base for key in groups if key[1] == "" and full[key[0]] in (key[2], 0)}
    found = [_row(key, group, per_query(group), compared.get(key)) for key, group in groups.items()]
    table = pd.DataFrame(found, columns=COLUMNS)
    order = table["system"].map({name: place for place, name in enumerate(BASELINES)}).fillna(len(BASELINES))
    table = table.assign(order=order, depth=-table["dim"].fillna(0))
    table = table.sort_values(["order", "system", "form", "depth"], ignore_index=True)
    widest = (table["form"] == "") & ~table.duplicated(["system", "form"])
    table["texts_per_second"] = table["system"].map(speeds).where(widest)
    return table[COLUMNS].astype({"dim": "Int64", "n": "Int64"})


def _pick(values: Mapping[System, pd.Series], model: str, dim: float) -> pd.Series | None:
    """A model's values at a dimension; where it was noted without one, those."""
    return values.get((model, None if pd.isna(dim) else int(dim)), values.get((model, None)))


def _row(key: tuple, group: pd.DataFrame, values: pd.Series | None, base: pd.Series | None) -> dict[str, object]:
    system, _, dim = key
    interval = bootstrap_ci(values.to_numpy()) if values is not None else None
    row = {
        **dict(zip(KEY, key, strict=True)),
        "seeds": group["seed"].nunique(),
        "value": interval.mean if interval else group["noted"].astype(float).mean(),
        "ci_low": interval.low if interval else None,
        "ci_high": interval.high if interval else None,
        "n": interval.n if interval else None,
        "bytes": dim * FLOAT32 if group["bytes"].isna().all() else group["bytes"].astype(float).mean(),
        "runs": " ".join(group["run_id"]),
    }
    if system == "base" or values is None or base is None or not values.index.equals(base.index):
        return row
    gain = paired_difference(values.to_numpy(), base.to_numpy())
    return row | {"difference": gain.mean, "difference_low": gain.low, "difference_high": gain.high, "p": gain.p_value}
