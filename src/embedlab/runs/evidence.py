"""The evidence of a saved model, from the record of its run; see `embedlab.models.evidence`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from embedlab.data.dataset import SPLITS, Dataset, split_fingerprint
from embedlab.data.splits import MIN_TEST_QUERIES
from embedlab.deploy.space import ModelEncoder
from embedlab.engine import EngineParams
from embedlab.errors import EmbedlabError
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.segments import derived_fields
from embedlab.evaluation.slices import slice_differences
from embedlab.evaluation.test_set_reuse import reuse_warning, runs_that_scored
from embedlab.models.api import ApiModel, is_api_name
from embedlab.models.card import write_card
from embedlab.models.evidence import (
    CARD,
    BaseFacts,
    DataFacts,
    Evidence,
    ModelFacts,
    Recipe,
    Score,
    SliceDifference,
    SplitUse,
    TaskDifference,
    hash_files,
    write,
)
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.folder import ModelFolder
from embedlab.models.load import BASE_MODEL, HUB_NAME, load_checked, load_model, model_path
from embedlab.runs import per_query, record_index
from embedlab.runs.inputs import absolute
from embedlab.runs.records import MetricRow, Record
from embedlab.scan import without_folders

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder

logger = logging.getLogger(__name__)

METRIC = "ndcg@10"  # of the slices, and the gain that the card names first
BASE = "base"  # system name of the base model
NOT_RECIPE = ("dataset", "model_name", "against", "seed", "output_dir")  # parameters that have their own field
SLICED_BY = ("seen", "length", "document length", "script")  # derived from the texts, so no value is a text itself
OTHER_STAGES = ("probe", "tasks", "forgetting")
FORGETTING, FORGETTING_TASK = "forgetting", "pydocs"  # as notebook 12_tune records it, see `tuning.limits`
PACKAGES = ("python", "embedlab", "torch", "transformers", "sentence-transformers")


@dataclass(frozen=True)
class Identity:
    """What distinguishes a model from every other one.

    Attributes:
        kind: class of sentence-transformers, or `ApiModel`.
        fingerprint: of the model.
        space: of its vector space; "" for other kinds than an embedding model.
        dimension: of its embeddings; None for other kinds than an embedding model.
        max_seq_length: tokens after which a text is truncated.
    """

    kind: str
    fingerprint: str
    space: str
    dimension: int | None
    max_seq_length: int | None


def identify(model: SentenceTransformer | CrossEncoder | SparseEncoder | MultiVectorEncoder | ApiModel) -> Identity:
    """Compute the fingerprints of a model."""
    from sentence_transformers import SentenceTransformer

    if isinstance(model, ApiModel):
        space = ModelEncoder(model).space
        return Identity("ApiModel", space.model, space.fingerprint, space.dimension, None)
    longest = model.max_seq_length or math.inf  # static models have no limit
    limit = int(longest) if math.isfinite(longest) else None
    if isinstance(model, SentenceTransformer):
        space = ModelEncoder(model).space
        return Identity("SentenceTransformer", space.model, space.fingerprint, space.dimension, limit)
    modules = SentenceTransformer(modules=list(model), device="cpu")  # the other kinds are lists of modules as well
    return Identity(model.model_type, model_fingerprint(modules), "", None, limit)


def identify_folder(folder: Path) -> Identity:
    """Load a model folder and compute its fingerprints.

    Raises:
        ModelError: the folder has no usable model.
    """
    from sentence_transformers import CrossEncoder, MultiVectorEncoder, SparseEncoder

    others = {kind.model_type: kind for kind in (CrossEncoder, MultiVectorEncoder, SparseEncoder)}
    if (kind := ModelFolder(folder, folder.name).kind()) in others:
        return identify(load_checked(others[kind], str(folder), device="cpu"))
    return identify(load_model(str(folder), device="cpu"))


def model_folders(run_folder: Path) -> list[Path]:
    """Return the model folders in a run's folder, without its attempts and temporary files."""
    folders = (path.parent for path in sorted(run_folder.rglob("modules.json")))
    return [path for path in folders if not {"attempts", "scratch"} & {*path.relative_to(run_folder).parts}]


def write_evidence(
    record: Record,
    run_folder: Path,
    data: Dataset | None,
    *,
    runs_folder: Path | None = None,
    saved: Mapping[Path, tuple[str, Identity]] | None = None,
) -> list[Path]:
    """Write card and evidence of every model in a run's folder that the record knows by its fingerprint.

    Args:
        record: of the run.
        run_folder: where its files are.
        data: the run's dataset; without it, the evidence has no slices and no report on leaks.
        runs_folder: where all runs are; the parent of the run's folder when not given.
        saved: folder -> system and identity, of models that do not have to be loaded. Adapters for API models are
            only known from here: to load one, its server would have to answer.

    Returns:
        The folders with evidence.

    Raises:
        ModelError: a model cannot be loaded.
    """
    written, saved, values = [], dict(saved or {}), None
    for folder in sorted({*model_folders(run_folder), *saved}):
        system, identity = saved.get(folder) or _by_fingerprint(record, folder)
        if not system:
            logger.warning("%s: the record has no model with the fingerprint %s", folder, identity.fingerprint)
            continue
        if values is None:
            values = per_query.query_values(run_folder.name, METRIC, folder=run_folder.parent)
        uses = _test_use(record, runs_folder or run_folder.parent)
        evidence = collect(record, system, identity, folder.relative_to(run_folder).as_posix(), data, values, uses)
        evidence = evidence.model_copy(
            update={"model": evidence.model.model_copy(update={"files": hash_files(folder)})}
        )
        write(evidence, folder)
        write_card(evidence, folder)
        written.append(folder)
    return written


def _by_fingerprint(record: Record, folder: Path) -> tuple[str, Identity]:
    identity = identify_folder(folder)
    systems = {fingerprint: name for name, fingerprint in record.model_fingerprints.items() if name != BASE}
    return systems.get(identity.fingerprint, ""), identity


def collect(
    record: Record,
    system: str,
    identity: Identity,
    folder: str,
    data: Dataset | None,
    values: Mapping[per_query.Measured, Any],
    test_use: SplitUse | None,
) -> Evidence:
    """Collect the evidence of one model; the hashes of its files are left out.

    Args:
        record: of the run that made it.
        system: its name in the record.
        identity: of the model.
        folder: its folder in the run's folder.
        data: the run's dataset, if it is known.
        values: nDCG@10 of every query, from `per_query.query_values`.
        test_use: how often the test split was scored.
    """
    width = _full_width(record.metrics, system)
    scores, base_scores = _scores(record.metrics, system, width), _scores(record.metrics, BASE, None)
    evidence = Evidence(
        run_id=record.run_id,
        record=record.digest(),
        model=ModelFacts(**vars(identity)),
        base=_base(record),
        data=_data(record, data),
        recipe=_recipe(record, system, width),
        scores=scores,
        base_scores=base_scores,
        gains=_gains(record.metrics, system, width),
        slices=_slices(values, system, width, data) if data else [],
        other_tasks=_other_tasks(record.metrics, system),
        test_use=test_use,
        truncated=_truncated(record.metrics, system),
        untrained=folder in record.notes.get("untrained", []),
        versions={name: record.versions[name] for name in PACKAGES if name in record.versions},
    )
    return evidence.model_copy(update={"limits": limits(evidence)})


@dataclass(frozen=True)
class _FullWidth:
    """Where the rows of a system at full width are: dimensions and condition."""

    dim: int | None
    condition: str


def _of_test(row: MetricRow, system: str) -> bool:
    return (row.system, row.stage, row.task, row.split) == (system, "retrieval", "retrieval", "test")


def _full_width(rows: Sequence[MetricRow], system: str) -> _FullWidth | None:
    """The first of the rows with the most dimensions; later ones are of other conditions, such as fewer layers."""
    measured = [row for row in rows if _of_test(row, system) and row.statistic == "value"]
    if not measured:
        return None
    widest = max(measured, key=lambda row: row.dim or 0)
    return _FullWidth(widest.dim, widest.condition)


def _scores(rows: Sequence[MetricRow], system: str, width: _FullWidth | None) -> list[Score]:
    """All metrics of a system at full width, a metric noted twice as it was noted last."""
    width = width or _full_width(rows, system)
    if width is None:
        return []
    return _by_metric(
        row
        for row in rows
        if _of_test(row, system)
        and row.statistic == "value"
        and (row.dim, row.condition) == (width.dim, width.condition)
        and "@" in row.metric
    )


def _by_metric(rows: Iterator[MetricRow]) -> list[Score]:
    return list({row.metric: Score(**_numbers(row)) for row in rows}.values())


def _numbers(row: MetricRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("metric", "value", "ci_low", "ci_high", "n")}


def _gains(rows: Sequence[MetricRow], system: str, width: _FullWidth | None) -> list[Score]:
    """Paired differences to the base model at full width, nDCG@10 first."""
    gains = _by_metric(
        row
        for row in rows
        if _of_test(row, system)
        and (row.statistic, row.against) == ("difference", BASE)
        and (width is None or (row.dim, row.condition) == (width.dim, width.condition))
    )
    return sorted(gains, key=lambda gain: gain.metric != METRIC)


def _other_tasks(rows: Sequence[MetricRow], system: str) -> list[TaskDifference]:
    """What changed on probes and other tasks, negative where the model has forgotten something."""
    differences = {
        (row.task, row.metric): TaskDifference(task=row.task, **_numbers(row))
        for row in rows
        if row.stage in OTHER_STAGES and (row.system, row.statistic, row.against) == (system, "difference", BASE)
    }
    for row in rows:
        if (row.system, row.metric) == (system, FORGETTING) and row.value is not None:
            change = TaskDifference(task=FORGETTING_TASK, metric=METRIC, value=0.0 - row.value)
            differences.setdefault((FORGETTING_TASK, METRIC), change)
    return list(differences.values())


def _truncated(rows: Sequence[MetricRow], system: str) -> dict[str, float]:
    shares = {}
    for row in rows:
        for kind in ("documents", "queries"):
            if (row.system, row.metric) == (system, f"share of {kind} truncated") and row.value is not None:
                shares[kind] = row.value
    return shares


def _base(record: Record) -> BaseFacts:
    named = [record.parameters.get("against"), record.parameters.get("model_name"), record.notes.get("closed_model")]
    written = str(next(filter(None, named), ""))
    path, _, options = written.partition("?")
    engine = EngineParams.checked(record.parameters.get("engine") or {})
    options = "&".join(filter(None, [options, *_text_options(engine)]))
    name = without_folders(path) + (f"?{options}" if options else "")
    hub = HUB_NAME if path.removeprefix("sentence-transformers/") == BASE_MODEL else _hub_name(path)
    return BaseFacts(
        name=name,
        hub_name=hub,
        fingerprint=record.model_fingerprints.get(BASE, ""),
        licence=licence_of(path),
    )


def _text_options(engine: EngineParams) -> list[str]:
    """How the run read texts, as options of a model name."""
    return [f"{name}={quote(str(value), safe='')}" for name, value in engine.texts().items() if value is not None]


def _hub_name(name: str) -> str:
    is_folder = is_api_name(name) or absolute(name).exists() or name.count("/") > 1 or name.startswith((".", "/", "~"))
    return "" if is_folder else name


def licence_of(name: str) -> str:
    """Return the licence in the card of a model on this machine; "" if it is not known.

    Args:
        name: short name, folder or hub name, without options.
    """
    from huggingface_hub import metadata_load, try_to_load_from_cache

    try:
        folder = absolute(model_path(name)) if name else Path()
        card = folder / CARD if name and folder.is_dir() else try_to_load_from_cache(name, CARD)
        if not isinstance(card, str | Path) or not Path(card).is_file():
            return ""
        licence = (metadata_load(card) or {}).get("license", "")
    except Exception:  # a hub name of the wrong form, or a card of any form
        return ""
    return " ".join(str(licence).split())[:80] if isinstance(licence, str) else ""


def _data(record: Record, data: Dataset | None) -> DataFacts:
    name = without_folders(str(record.parameters.get("dataset") or ""))
    facts = DataFacts(name=name, fingerprint=record.data_fingerprint)
    if data is None:
        return facts
    scripts = {values["script"] for values in derived_fields(data, "test").values()}
    return facts.model_copy(
        update={
            "test_fingerprint": split_fingerprint(data, "test"),
            "documents": len(data.corpus),
            "queries": {split: len(data.qrels[split]) for split in SPLITS if data.qrels.get(split)},
            "leaks": dict(data.leaks),
            "scripts": sorted(scripts),
        }
    )


def _recipe(record: Record, system: str, width: _FullWidth | None) -> Recipe:
    parameters = {name: value for name, value in record.parameters.items() if name not in NOT_RECIPE}
    technique = next((row.technique for row in record.metrics if row.system == system), "")
    return Recipe(
        notebook=record.notebook,
        system=system,
        technique=technique,
        description=record.systems.get(system, ""),
        settings=_settings(record, width.condition if width else ""),
        seed=int(record.parameters.get("seed") or 0),
        parameters=_public(parameters),
    )


def _settings(record: Record, condition: str) -> str:
    """What a tuning run chose, from its notes; else the condition of the rows."""
    candidates = record.notes.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else []:
        if isinstance(candidate, dict) and condition and candidate.get("candidate") == condition:
            return f"{condition} ({candidate.get('settings', '')})"
    return condition


def _public(value: Any) -> Any:
    """A value of a parameter without the folders of this machine."""
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, dict):
        return {name: _public(item) for name, item in value.items()}
    return [_public(item) for item in value] if isinstance(value, list) else value


def _slices(
    values: Mapping[per_query.Measured, Any], system: str, width: _FullWidth | None, data: Dataset
) -> list[SliceDifference]:
    """The gain in parts of the test queries; empty without the values of every query."""
    model = values.get(per_query.Measured(system, width.condition, width.dim)) if width else None
    bases = [series for key, series in values.items() if key.system == BASE and not key.condition]
    if model is None or not bases or not model.index.equals(bases[0].index):
        return []
    pair = [Evaluation(tuple(series.index), {METRIC: series.to_numpy()}, 0) for series in (model, bases[0])]
    fields = derived_fields(data, "test")
    parts = []
    for field in SLICED_BY:
        if len({fields.get(query, {}).get(field) for query in model.index}) < 2:
            continue
        for row in slice_differences(pair[0], pair[1], fields, field, METRIC).to_dict("records"):
            parts.append(
                SliceDifference(
                    field=field,
                    name=str(row["slice"]),
                    metric=METRIC,
                    value=_finite(row["difference"]),
                    ci_low=_finite(row["ci_low"]),
                    ci_high=_finite(row["ci_high"]),
                    n=int(row["n"]),
                    model=_finite(row["mean_a"]),
                    base=_finite(row["mean_b"]),
                    is_regression=bool(row["regression"]),
                )
            )
    return parts


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _test_use(record: Record, runs_folder: Path) -> SplitUse:
    """Count the runs that scored this test split, this one included, and the systems of this run."""
    try:
        records = list(record_index.indexed_records([METRIC], folder=runs_folder))
        dataset = str(record.parameters.get("dataset") or "")
        earlier = set(runs_that_scored(records, dataset, record.data_fingerprint)) if record.data_fingerprint else set()
    except EmbedlabError as error:  # one record of another version must not cost the evidence
        logger.warning("cannot count the earlier runs: %s", error)
        earlier = set()
    systems = {row.system for row in record.metrics if row.split == "test" and row.statistic == "value"}
    return SplitUse(runs=len(earlier | {record.run_id}), systems=len(systems))


def limits(evidence: Evidence) -> list[str]:
    """Say what the evidence does not show, one sentence each.

    Args:
        evidence: everything but the limits.
    """
    gain, sentences = evidence.gain, []
    n = next((score.n for score in evidence.scores if score.n is not None), None)
    if not evidence.scores:
        sentences.append("The model was not scored on the test queries.")
    elif n is not None and n < MIN_TEST_QUERIES:
        sentences.append(f"{n} test queries are few: the intervals are wide.")
    if gain is None:
        sentences.append("There is no paired comparison with the base model.")
    elif gain.ci_low is not None and gain.ci_low <= 0:
        sentences.append("The interval of the gain includes 0 or lies below it.")
    if len(evidence.data.scripts) == 1:
        script = evidence.data.scripts[0]
        sentences.append(f"All test queries are written in {script} script: other languages were not tested.")
    sentences += [
        f"{share:.1%} of the {kind} are longer than the {evidence.model.max_seq_length} tokens that the model reads."
        for kind, share in evidence.truncated.items()
        if share > 0
    ]
    worse = [f"{change.field} {change.name}" for change in evidence.slices if change.is_regression]
    if worse:
        sentences.append(f"It is significantly worse than the base model on: {', '.join(worse)}.")
    if not evidence.other_tasks:
        sentences.append("Forgetting on other domains was not measured.")
    if evidence.data.leaks is None:
        sentences.append("It is not known here whether training examples reveal test queries.")
    if evidence.test_use and (warning := reuse_warning(evidence.test_use.runs)):
        sentences.append(warning)
    seed = evidence.recipe.seed
    sentences.append(f"One training (seed {seed}): the intervals are over queries, not over repeated trainings.")
    return sentences
