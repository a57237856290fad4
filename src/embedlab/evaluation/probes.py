"""Measure catastrophic forgetting: out-of-domain probes, compared item by item.

One string names a probe:

- any dataset spec, e.g. `pydocs`, `beir:FOLDER`: retrieval on its test queries, nDCG@10;
- `sts:FILE`, `classification:FILE`, `clustering:FILE`: the mteb task of that kind over a local file;
- `mteb:NAME`: one of mteb's own tasks, with its data from the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.data.load import load_dataset
from embedlab.data.splits import seeded_order
from embedlab.errors import DataError
from embedlab.evaluation.local_tasks import local_task
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.mteb_tasks import SUBSET, TaskResult, run_task, task_by_name
from embedlab.evaluation.retrieval import evaluate_retrieval, sample_corpus
from embedlab.evaluation.significance import NAN, PairedDifference, paired_difference
from embedlab.models.cache import EmbeddingCache
from embedlab.progress import track
from embedlab.search.exact import Ranking
from embedlab.search.vectors import Encode

if TYPE_CHECKING:
    import pandas as pd
    from mteb.abstasks.abstask import AbsTask
    from sentence_transformers import SentenceTransformer

KINDS = ("sts", "classification", "clustering")
DEFAULT_PROBES = ("pydocs",)
Scorer = Callable[..., "ProbeScore"]  # called with a model and optionally a function that replaces `encode`
SAMPLES = 999  # resamples of a correlation, which costs more than a mean
BLOCK = 1_000_000  # values resampled at a time


@dataclass(frozen=True, eq=False)
class ProbeScore:
    """One model on one probe.

    Attributes:
        metric: name of the score.
        value: the score.
        items: one value per item (n,), whose mean is `value`: nDCG@10 of a query, the share of mteb's ten classifiers
            that were right about a text, the v-measure of one clustering. For a similarity probe, the similarity of
            each pair. Empty if mteb keeps none.
        gold: human score of each pair (n,); only for a similarity probe.
    """

    metric: str
    value: float
    items: np.ndarray
    gold: np.ndarray | None = None


def open_probe(probe: str, *, max_queries: int | None = None) -> Scorer:
    """Read a probe's data once and return a function that scores a model on it.

    Args:
        probe: name of the probe, see above.
        max_queries: for a dataset spec: at most so many test queries, in seeded order, among at most twice as many
            documents. Such a probe is cheap and still detects severe forgetting.

    Raises:
        EmbedlabError: the probe is unknown or its data malformed. An unreachable hub raises when the model is scored.
    """
    kind, _, location = probe.partition(":")
    if kind in KINDS:
        check_files([probe])
        return lambda model, encode=None: _score_task(model, local_task(kind, location))
    if kind == "mteb":
        return lambda model, encode=None: _score_task(model, task_by_name(location))
    data = shrunk(load_dataset(probe, training=False), max_queries)
    return lambda model, encode=None: score_dataset(model, data, encode)


def check_files(probes: Iterable[str]) -> None:
    """Read the files of probes, so that malformed data is named before a model is scored.

    Args:
        probes: names of probes; those without a file of their own are not read.

    Raises:
        DataError: a file is missing or malformed.
    """
    for kind, _, location in (probe.partition(":") for probe in probes):
        if kind in KINDS:
            local_task(kind, location)


def compare_probe(a: ProbeScore, b: ProbeScore) -> PairedDifference:
    """Compare two models on the same probe; the interval is NaN if mteb kept no items.

    Args:
        a, b: scores of the two models; the difference is a - b.

    Raises:
        DataError: the scores are not of the same items.
    """
    if a.items.shape != b.items.shape:
        remedy = "Score both models on the same probe"
        raise DataError(f"{len(a.items)} and {len(b.items)} probe items", remedy=remedy)
    if not len(a.items):
        relative = (a.value - b.value) / b.value if b.value else NAN
        return PairedDifference(a.value - b.value, NAN, NAN, relative, NAN, 0, 0, 0, 0)
    if a.gold is None or b.gold is None:
        return paired_difference(a.items, b.items)
    return correlation_difference(a.gold, a.items, b.items)


def correlation_difference(
    gold: np.ndarray, a: np.ndarray, b: np.ndarray, *, samples: int = SAMPLES, seed: int = 0
) -> PairedDifference:
    """Compute the difference of two models' Spearman correlations with the same human scores.

    The interval is a percentile bootstrap over pairs. For the p-value, the models' ranks of a pair are swapped at
    random, which changes nothing if the models are equally good. The model whose rank is closer to the human rank wins
    a pair.

    Args:
        gold: (n,) human scores.
        a, b: (n,) similarities of the two models.
        samples: bootstrap and permutation samples.
        seed: of both.
    """
    from scipy.stats import rankdata

    rng, n = np.random.default_rng(seed), len(gold)
    truth, of_a, of_b = (rankdata(values) for values in (gold, a, b))
    base = float(_spearman(truth, of_b))
    observed = float(_spearman(truth, of_a) - base)
    resampled_blocks, swapped_blocks = [], []
    for start in range(0, samples, block := max(1, BLOCK // n)):
        shape = min(block, samples - start), n
        rows, flip = rng.integers(0, n, shape), rng.random(shape) < 0.5
        resampled_blocks.append(_spearman(gold[rows], a[rows]) - _spearman(gold[rows], b[rows]))
        swapped_blocks.append(
            _spearman(truth, np.where(flip, of_b, of_a)) - _spearman(truth, np.where(flip, of_a, of_b))
        )
    resampled, swapped = np.concatenate(resampled_blocks), np.concatenate(swapped_blocks)
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    p_value = (1 + np.sum(np.abs(swapped) >= abs(observed) - 1e-12)) / (samples + 1)
    gain = np.abs(of_b - truth) - np.abs(of_a - truth)
    counts = (int((gain > 0).sum()), int((gain == 0).sum()), int((gain < 0).sum()))
    return PairedDifference(
        observed, float(low), float(high), observed / base if base else NAN, float(p_value), n, *counts
    )


def compare_probes(
    tuned: SentenceTransformer,
    base: SentenceTransformer,
    probes: Iterable[str] = DEFAULT_PROBES,
    *,
    max_queries: int | None = None,
    encoders: tuple[Encode | None, Encode | None] | None = None,
) -> tuple[pd.DataFrame, dict[str, PairedDifference]]:
    """Score both models on every probe.

    Args:
        tuned, base: the models.
        probes: names of probes, see above.
        max_queries: see `open_probe`.
        encoders: for each of the two models, what replaces `embedlab.models.encode.encode`, e.g. a cache's. By default
            the base model's vectors of a dataset stay in the cache, because later runs use them again.

    Returns:
        Columns probe, metric, n, base, tuned, difference, ci_low, ci_high, p_value; and
        probe -> difference for the gate.
    """
    import pandas as pd

    rows, differences = [], {}
    encode_tuned, encode_base = encoders or (None, EmbeddingCache().encode)
    scorers = [(probe, open_probe(probe, max_queries=max_queries)) for probe in probes]  # read before any is scored
    for probe, score in track(scorers, "probes"):
        of_tuned, of_base = score(tuned, encode_tuned), score(base, encode_base)
        outcome = differences[probe] = compare_probe(of_tuned, of_base)
        numbers = {"difference": outcome.mean, "ci_low": outcome.low, "ci_high": outcome.high}
        scores = {"n": outcome.n, "base": of_base.value, "tuned": of_tuned.value}
        rows.append({"probe": probe, "metric": of_tuned.metric, **scores, **numbers, "p_value": outcome.p_value})
    return pd.DataFrame(rows), differences


def shrunk(data: Dataset, max_queries: int | None) -> Dataset:
    """Return a dataset with at most so many test queries, and at most twice as many documents; see `open_probe`."""
    if max_queries is None:
        return data
    sampled = seeded_order(data.qrels.get("test", {}))[:max_queries]
    fewer = replace(data, qrels={"test": {query: data.qrels["test"][query] for query in sampled}})
    return sample_corpus(fewer, "test", 2 * max_queries)


def score_dataset(model: SentenceTransformer, data: Dataset, encode: Encode | None = None) -> ProbeScore:
    """Score a model on the test queries of a dataset, see `shrunk`.

    Args:
        model: any sentence-transformers model.
        data: a dataset with test queries.
        encode: replaces `embedlab.models.encode.encode`.
    """
    evaluation = evaluate_retrieval(model, data, "test", k=10, encode=encode)
    return _mean_score("ndcg@10", next(iter(evaluation.values())).of("ndcg@10"))


def score_ranking(ranking: Ranking, data: Dataset) -> ProbeScore:
    """Score a ranking of the test queries of a dataset, for models that `score_dataset` cannot search with."""
    return _mean_score("ndcg@10", evaluate(ranking, data.qrels["test"], [10]).of("ndcg@10"))


def _score_task(model: SentenceTransformer, task: AbsTask) -> ProbeScore:
    result = run_task(model, task)
    readers = {"STS": _similarities, "Classification": _correctness, "Clustering": _v_measures, "Retrieval": _ndcg}
    if (reader := readers.get(task.metadata.type)) is None or result.predictions is None:
        return ProbeScore(result.metric, result.main_score, np.array([]))
    return reader(task, result)


def _rows(task: AbsTask) -> Mapping[str, Any]:
    """The rows of the evaluated split, whether the task's data has a subset level or not."""
    subsets = task.dataset.get(SUBSET, task.dataset)
    return subsets[task.eval_splits[0]]


def _similarities(task: AbsTask, result: TaskResult) -> ProbeScore:
    gold = np.array(_rows(task)["score"], dtype=float)
    return ProbeScore(result.metric, result.main_score, np.array(result.predictions["cosine_scores"]), gold)


def _correctness(task: AbsTask, result: TaskResult) -> ProbeScore:
    labels = np.array(_rows(task)[task.label_column_name])
    return _mean_score(result.metric, (np.array(result.predictions) == labels).mean(0))


def _v_measures(task: AbsTask, result: TaskResult) -> ProbeScore:
    values = result.scores.get("v_measures", [])
    flat = [v for level in values.values() for v in level] if isinstance(values, dict) else values
    return ProbeScore(result.metric, result.main_score, np.array(flat, dtype=float))


def _ndcg(task: AbsTask, result: TaskResult) -> ProbeScore:
    evaluation = evaluate(Ranking.from_scores(result.predictions), _rows(task)["relevant_docs"], [10])
    return ProbeScore(result.metric, result.main_score, evaluation.of("ndcg@10"))


def _mean_score(metric: str, items: np.ndarray) -> ProbeScore:
    scored = items[~np.isnan(items)]
    return ProbeScore(metric, float(scored.mean()) if len(scored) else NAN, items)


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation along the last axis; scipy's takes one pair at a time. NaN where all values are equal."""
    from scipy.stats import rankdata

    ranks_a, ranks_b = (rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2 for values in (a, b))
    with np.errstate(invalid="ignore"):
        return (ranks_a * ranks_b).sum(-1) / np.sqrt((ranks_a**2).sum(-1) * (ranks_b**2).sum(-1))
