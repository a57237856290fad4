"""How close the vectors of an export are to those of its model, and the gate that decides on it.

- **fp32** passes if the lowest cosine of all texts is 0.99999 or more. Only the order of additions differs.
- **int8** with a dataset follows `evaluation.gate`: the paired difference in nDCG@10, export - model, fails if the drop
  exceeds the budget and is significant, passes if its whole 95 % interval lies above minus the budget, and is unsure
  otherwise: there are too few queries.
- **int8** without a dataset passes if the mean cosine is 0.99 or more. That says less: what matters is the ranking.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.evaluation.gate import FAIL, PASS, difference_checks, judge
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.retrieval import DevEvaluator
from embedlab.evaluation.significance import PairedDifference, paired_difference
from embedlab.models.encode import encode
from embedlab.models.sides import sides_of
from embedlab.search.vectors import Encode, Vectors, encode_split

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.data.dataset import Dataset
    from embedlab.deploy.onnx_folder import ExportedEncoder

LEAST_COSINE = 0.99999  # of fp32
LEAST_MEAN_COSINE = 0.99  # of int8 without a dataset
BUDGET = 0.01  # largest tolerated drop of nDCG@10
MAX_DOCS = 10_000  # documents that are encoded twice
METRIC = "ndcg@10"
# Lengths from nothing to more than any limit, scripts, and what tokenizers treat specially.
UNUSUAL = (
    "",
    " ",
    "a",
    "ß",
    "Ünïcödé",
    "東京都",
    "кириллица",
    "עברית",
    "☃ 🙂",
    "[SEP] [MASK]",
    "<s> </s>",
    "a\tb\nc",
    "x" * 300,
)
SAMPLE = 200  # documents of the sample without a dataset, and as many queries


@dataclass(frozen=True)
class Comparison:
    """On what an export is compared with its model.

    Attributes:
        data: judged queries; a fixed sample of texts, without quality, if None.
        split: of the queries.
        max_docs: most documents to search in; the positives and those that BM25 finds are kept first.
        budget: largest tolerated drop of nDCG@10, for int8.
        encode: encodes with the model, e.g. a cache's.
        threads: of onnxruntime; 0 for one per core.
    """

    data: Dataset | None = None
    split: str = "dev"
    max_docs: int = MAX_DOCS
    budget: float = BUDGET
    encode: Encode = encode
    threads: int = 0


@dataclass(frozen=True)
class Retrieval:
    """Quality of the model and of its export on the same queries.

    Attributes:
        dataset, split: where the queries come from.
        documents, queries: how many there are.
        model, export: mean nDCG@10.
        difference: export - model, paired.
        queries_only: the same with the export for queries and the model for documents; None if the export has one side.
    """

    dataset: str
    split: str
    documents: int
    queries: int
    model: float
    export: float
    difference: PairedDifference
    queries_only: PairedDifference | None


@dataclass(frozen=True)
class Parity:
    """What was measured, and the verdict.

    Attributes:
        texts: texts that both encoded.
        cosine_min, cosine_mean: of the two vectors of a text.
        retrieval: None without a dataset.
        verdict: "pass", "unsure" or "fail".
        reason: the rule and the value in one sentence.
    """

    texts: int
    cosine_min: float
    cosine_mean: float
    retrieval: Retrieval | None
    verdict: str
    reason: str

    def record(self) -> dict[str, Any]:
        """Return all values, ready for JSON; a value that is not known is None."""
        values: dict[str, Any] = _without_nan(asdict(self))
        return values


def measure(model: SentenceTransformer, exported: ExportedEncoder, comparison: Comparison) -> Parity:
    """Encode the same texts with a model and its export, compare them, and apply the gate.

    Args:
        model: the whole model, both sides of a `Router` included.
        exported: its export.
        comparison: on what.

    Raises:
        ParameterError: the dataset has no such split.
    """
    retrieval = None
    if comparison.data is None:
        cosines = _cosines_of_sample(model, exported, comparison.encode)
    else:
        split = comparison.split
        data = DevEvaluator(comparison.data, split, max_docs=comparison.max_docs).dataset
        of_model = encode_split(model, data, split, encode=comparison.encode)
        of_export = _encode_exported(exported, data, of_model)
        cosines = np.concatenate([cosine_of_rows(*pair) for pair in _same_sides(exported, of_model, of_export)])
        retrieval = _compare(data, split, of_model, of_export, exported.card.side)
    verdict, reason = decide(exported.card.precision, cosines, retrieval, comparison.budget)
    return Parity(len(cosines), float(cosines.min()), float(cosines.mean()), retrieval, verdict, reason)


def cosine_of_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each row of `a` (n, d) with the same row of `b` (n, d), float64 (n,).

    Two rows of zeros count as equal (1), a row of zeros and another one as 0. NaN counts as -1.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_empty = ~a.any(axis=1) & ~b.any(axis=1)
    cosines = np.einsum("nd,nd->n", a, b) / np.where(lengths > 0, lengths, 1)
    return np.where(both_empty, 1.0, np.nan_to_num(cosines, nan=-1.0))


def decide(precision: str, cosines: np.ndarray, retrieval: Retrieval | None, budget: float) -> tuple[str, str]:
    """Apply the rule for a precision; see the module.

    Args:
        precision: "fp32" or "int8".
        cosines: of all texts (n,).
        retrieval: the measured quality; None if there is no dataset.
        budget: largest tolerated drop of nDCG@10.

    Returns:
        "pass", "unsure" or "fail", and the rule and the value in one sentence.
    """
    if precision == "fp32":
        lowest = float(cosines.min())
        return _pass_if(lowest >= LEAST_COSINE), f"lowest cosine {lowest:.6f}, required {LEAST_COSINE}"
    if retrieval is None:
        mean = float(cosines.mean())
        reason = f"mean cosine {mean:.4f}, required {LEAST_MEAN_COSINE}; --dataset checks the ranking"
        return _pass_if(mean >= LEAST_MEAN_COSINE), reason
    difference = retrieval.difference
    checked = judge([difference_checks({METRIC: difference}, budget)]).table.iloc[0]
    reason = f"nDCG@10 changes by {difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    return str(checked["verdict"]), f"{reason}, largest tolerated drop {budget:g}"


def _pass_if(holds: bool) -> str:
    return PASS if holds else FAIL


def _encode_exported(exported: ExportedEncoder, data: Dataset, of_model: Vectors) -> Vectors:
    """Return the vectors of the export; the side that it does not have keeps the model's."""
    queries, corpus, side = of_model.queries, of_model.corpus, exported.card.side
    if side != "document":
        queries = exported.encode_queries([data.queries[name] for name in of_model.query_ids])
    if side != "query":
        corpus = exported.encode_documents([data.corpus[name] for name in of_model.corpus_ids])
    return replace(of_model, queries=queries, corpus=corpus)


def _same_sides(
    exported: ExportedEncoder, of_model: Vectors, of_export: Vectors
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if exported.card.side != "document":
        yield of_model.queries, of_export.queries
    if exported.card.side != "query":
        yield of_model.corpus, of_export.corpus


def _compare(data: Dataset, split: str, of_model: Vectors, of_export: Vectors, side: str | None) -> Retrieval:
    qrels = data.qrels[split]

    def ndcg(vectors: Vectors) -> np.ndarray:
        return evaluate(vectors.rank(10), qrels, [10]).of(METRIC)

    model, export = ndcg(of_model), ndcg(of_export)
    mixed = None if side else paired_difference(ndcg(replace(of_export, corpus=of_model.corpus)), model)
    difference = paired_difference(export, model)
    return Retrieval(
        data.name,
        split,
        documents=len(of_model.corpus_ids),
        queries=difference.n,
        model=float(np.nanmean(model)),
        export=float(np.nanmean(export)),
        difference=difference,
        queries_only=mixed,
    )


def _cosines_of_sample(model: SentenceTransformer, exported: ExportedEncoder, model_encode: Encode) -> np.ndarray:
    """Compare both on texts of another domain that every machine has, and on unusual ones."""
    queries, documents = sample_texts()
    sides, cosines = sides_of(model), []
    if exported.card.side != "document":
        vectors = model_encode(sides.query.model, queries, prompt=sides.query.prompt)
        cosines.append(cosine_of_rows(vectors, exported.encode_queries(queries)))
    if exported.card.side != "query":
        vectors = model_encode(sides.document.model, documents, prompt=sides.document.prompt)
        cosines.append(cosine_of_rows(vectors, exported.encode_documents(documents)))
    return np.concatenate(cosines)


def sample_texts() -> tuple[Sequence[str], Sequence[str]]:
    """Return texts as queries and as documents: unusual ones, and summaries and bodies of docstrings (`pydocs`)."""
    from embedlab.data.load import load_dataset

    data = load_dataset("pydocs", training=False)
    queries, documents = list(data.queries.values())[:SAMPLE], list(data.corpus.values())[:SAMPLE]
    return [*UNUSUAL, *queries], [*UNUSUAL, *documents, "\n".join(documents[:20])]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
