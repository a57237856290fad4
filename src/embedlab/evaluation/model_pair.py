"""A candidate against the model in use, on one split: encode and search once, then compare the pair in several ways."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.data.review import export_sheet, import_judgements, with_judgements
from embedlab.evaluation.budgets import Budgets
from embedlab.evaluation.clustering import Clustering, cluster, labelled_rows, project
from embedlab.evaluation.comparison import compare_systems, metric_table
from embedlab.evaluation.context import answer_in_context, token_counts
from embedlab.evaluation.gate import Gate, difference_checks, judge, slice_checks
from embedlab.evaluation.human_review.agreement import Agreement, agreement, unjudged
from embedlab.evaluation.human_review.browser import write_browser
from embedlab.evaluation.human_review.cases import Case, counts, pooled, side_by_side
from embedlab.evaluation.metrics import Evaluation, evaluate
from embedlab.evaluation.mteb_tasks import retrieval_task, run_task
from embedlab.evaluation.neighbours import evaluate_neighbours, item_groups
from embedlab.evaluation.probes import compare_probes
from embedlab.evaluation.segments import derived_fields
from embedlab.evaluation.significance import Interval, PairedDifference, bootstrap_ci, paired_difference
from embedlab.evaluation.slices import slice_differences
from embedlab.finding import Finding, finding
from embedlab.models.cache import EmbeddingCache
from embedlab.models.fingerprint import model_fingerprint
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.exact import Ranking
from embedlab.search.vectors import Encode, encode_split

if TYPE_CHECKING:
    import pandas as pd
    from sentence_transformers import SentenceTransformer

    from embedlab.search.vectors import Vectors

DEPTH = 100  # documents ranked per query
SHORT_DIM = 64  # a second, truncated evaluation
SLICED_BY = ("seen", "length", "document length", "script", "frequency", "risk")
SHOWN_METRICS = ("ndcg@10", "recall@10", "precision@10", "mrr@10", "map@10")
COMPARED_METRICS = ("ndcg@10", "mrr@10")
MAX_CASES = 50  # in a sheet for reviewers


@dataclass(frozen=True, eq=False)
class ModelPair:
    """Two models on one split of a dataset; differences are candidate - base.

    Attributes:
        models: the candidate and the base model.
        names: their system names.
        data: queries, corpus and qrels.
        metric: what decides, e.g. `ndcg@10`.
        seed: of intervals and tests.
        vectors: system name -> vectors of the queries and the corpus.
        rankings: system name -> ranking; BM25 is "bm25".
        evaluations: (system name, dimensions) -> evaluation; BM25 has the dimensions None.
        split: the split of the queries.
        encoders: what encodes with each of the models in place of `embedlab.models.encode.encode`.
    """

    models: tuple[SentenceTransformer, SentenceTransformer]
    names: tuple[str, str]
    data: Dataset
    metric: str
    seed: int
    vectors: dict[str, Vectors]
    rankings: dict[str, Ranking]
    evaluations: dict[tuple[str, int | None], Evaluation]
    split: str = "test"
    encoders: tuple[Encode | None, Encode | None] = (None, None)

    @property
    def candidate(self) -> Evaluation:
        """The candidate at its full dimension."""
        return self._full(self.names[0])

    @property
    def base(self) -> Evaluation:
        """The base model at its full dimension."""
        return self._full(self.names[1])

    def _full(self, name: str) -> Evaluation:
        return self.evaluations[name, self.vectors[name].dim]

    def gain(self) -> PairedDifference:
        """Return the paired difference candidate - base of the deciding metric."""
        return paired_difference(self.candidate.of(self.metric), self.base.of(self.metric), seed=self.seed)

    def reading(self) -> str:
        """Say in one line whether the candidate is better or worse than the base model, on how many queries."""
        gain, (candidate, base) = self.gain(), self.names
        numbers = (
            f"{self.metric} on {gain.n:,} {self.split} queries: {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]."
        )
        shown = {
            Finding.TOO_FEW: "These are too few queries to show a difference.",
            Finding.LOSS: f"{candidate} is worse than {base}: do not ship it.",
            Finding.GAIN: f"{candidate} is better than {base} on these queries.",
            Finding.NEITHER: f"These queries show no difference between {candidate} and {base}.",
        }
        return f"{numbers} {shown[finding(gain.low, gain.high, gain.n)]}"

    @property
    def fingerprints(self) -> dict[str, str]:
        """System name -> fingerprint of its model."""
        return {name: model_fingerprint(model) for name, model in zip(self.names, self.models, strict=True)}

    def per_query_differences(self) -> np.ndarray:
        """Return candidate - base per query (Q,) without the queries that have no positive."""
        differences = self.candidate.of(self.metric) - self.base.of(self.metric)
        return differences[~np.isnan(differences)]

    def metric_table(self, metrics: Sequence[str] = SHOWN_METRICS) -> pd.DataFrame:
        """Return the means of all systems: one row per system, one column per metric."""
        table = metric_table(self._labelled(), metrics)
        return table.pivot(index="system", columns="metric", values="value")[list(metrics)]

    def comparison(self, metrics: Sequence[str] = COMPARED_METRICS) -> pd.DataFrame:
        """Compare every other system with the base model; see `comparison.compare_systems`."""
        base = _label(self.names[1], self.vectors[self.names[1]].dim)
        compared = {label: evaluation for label, evaluation in self._labelled().items() if label != base}
        return compare_systems(compared, self.base, metrics, seed=self.seed)

    def _labelled(self) -> dict[str, Evaluation]:
        return {_label(name, dim): evaluation for (name, dim), evaluation in self.evaluations.items()}

    def fields(self, kind: str = "", high_risk: Collection[str] = ()) -> dict[str, dict[str, str]]:
        """Return the fields of the queries: the dataset's own, length, rare and risky kinds.

        Args:
            kind: field that distinguishes kinds of queries; "" for none.
            high_risk: values of `kind` where a mistake costs most.
        """
        return derived_fields(self.data, self.split, kind=kind or None, high_risk=high_risk)

    def slices(
        self, fields: dict[str, dict[str, str]], kind: str = "", by: Sequence[str] = ()
    ) -> dict[str, pd.DataFrame]:
        """Compare the pair in every slice of each field.

        Args:
            fields: query id -> {field name: value}.
            kind: see `fields`.
            by: fields to slice by; default: every field, `kind` included, that has two values or more.

        Returns:
            Field -> table of `slices.slice_differences`.
        """
        usable = [name for name in (*SLICED_BY, kind) if len({values.get(name) for values in fields.values()}) > 1]
        names = list(dict.fromkeys(by or usable))
        return {name: slice_differences(self.candidate, self.base, fields, name, self.metric) for name in names}

    def probes(
        self, probes: Sequence[str], *, max_queries: int | None = None
    ) -> tuple[pd.DataFrame, dict[str, PairedDifference]]:
        """Compare both models on probes of other domains; see `probes.compare_probes`."""
        return compare_probes(*self.models, probes, max_queries=max_queries, encoders=self.encoders)

    def gate(
        self,
        fields: dict[str, dict[str, str]],
        by: Collection[str],
        probe_changes: dict[str, PairedDifference],
        budgets: Budgets,
    ) -> Gate:
        """Check the mean, every slice and every probe against its budget.

        Args:
            fields: query id -> {field name: value}.
            by: fields to slice by.
            probe_changes: probe -> difference.
            budgets: tolerated drops.
        """
        checks = [
            difference_checks({"overall": self.gain()}, budgets.overall),
            slice_checks(self.candidate, self.base, fields, list(by), self.metric, budgets),
            difference_checks(probe_changes, budgets.probe),
        ]
        return judge(checks, alpha=budgets.alpha)

    def clusters(self) -> tuple[dict[str, Clustering], pd.DataFrame]:
        """Cluster the documents of both models with k-means, and project the candidate's to two dimensions.

        Returns:
            System -> clustering, empty if the dataset has no label with two values or more; and columns first, second,
            label of the projection.
        """
        import pandas as pd

        labels = next(iter(self.data.labels.values()), {})
        if len(set(labels.values())) < 2:
            return {}, pd.DataFrame()
        rows, names = labelled_rows(self.vectors[self.names[1]].corpus_ids, labels, seed=self.seed)
        results = {name: cluster(self.vectors[name].corpus[rows], names, seed=self.seed) for name in self.names}
        plane = project(self.vectors[self.names[0]].corpus[rows])
        return results, pd.DataFrame(plane, columns=["first", "second"]).assign(label=names)

    def neighbours(self) -> dict[str, Evaluation]:
        """Score how many of a document's nearest neighbours are related to it: system -> evaluation."""
        groups = item_groups(self.data)
        return {
            name: evaluate_neighbours(vectors.corpus_ids, vectors.corpus, groups, seed=self.seed)
            for name, vectors in self.vectors.items()
        }

    def answers_in_context(self, tokens: int) -> dict[str, Interval]:
        """Return the share of questions whose answer fits into a context of `tokens` tokens: system -> interval."""
        lengths = token_counts(self.models[1], list(self.data.corpus.values()))
        return {
            name: bootstrap_ci(answer_in_context(ranking, self.data.qrels[self.split], lengths, tokens))
            for name, ranking in self.rankings.items()
        }

    def mteb_values(self) -> dict[str, tuple[float, float]]:
        """Score the candidate with mteb itself: metric -> (mteb's value, ours of the same ranking)."""
        official = run_task(self.models[0], retrieval_task(self.data))
        own_values = evaluate(Ranking.from_scores(official.predictions), self.data.qrels["test"]).means()
        names = ("ndcg", "map", "recall", "precision", "mrr")
        return {name: (official.scores[f"{name}_at_10"], own_values[f"{name}@10"]) for name in names}

    def cases(self, fields: dict[str, dict[str, str]]) -> list[Case]:
        """Return wins, ties and losses with the documents that both models rank highest."""
        rankings = self.rankings[self.names[0]], self.rankings[self.names[1]]
        evaluations = self.candidate, self.base
        return side_by_side(self.data, self.split, rankings, evaluations, metric=self.metric, fields=fields)

    def export_review(
        self, cases: Sequence[Case], page: Path | None, sheet: Path | None, *, max_cases: int | None = MAX_CASES
    ) -> str:
        """Write wins and losses as an HTML page, and a sheet for reviewers that hides which model ranked what.

        Args:
            cases: from `cases`.
            page: the HTML file; None for none.
            sheet: the CSV file; None for none.
            max_cases: most cases in the sheet; None for all.

        Returns:
            One line: wins, ties and losses, and the share of shown documents that nobody judged.
        """
        if page:
            write_browser(cases, page, names=self.names, title=self.data.name)
        if sheet:
            sheet.parent.mkdir(parents=True, exist_ok=True)
            export_sheet(sheet, self.data, pooled(cases[:max_cases]), seed=self.seed)
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts(cases).items())
        return f"{outcomes}; {unjudged(cases, self.data.qrels[self.split]):.0%} of the shown documents are not judged"

    def lenient_review(self, sheet: Path, filled_sheet: Path) -> tuple[Agreement, PairedDifference]:
        """Fill in a review sheet by rule (relatives of the answer are relevant) and compute the gain with it.

        Args:
            sheet: from `export_review`.
            filled_sheet: where the filled sheet is written.

        Returns:
            Agreement of the qrels with the rule, and the gain with the rule's judgements added.
        """
        import pandas as pd

        qrels, families = self.data.qrels[self.split], item_groups(self.data)
        relatives = {query: {families.get(answer, answer) for answer in grades} for query, grades in qrels.items()}
        rows = pd.read_csv(sheet, dtype=str, keep_default_na=False)
        rows["grade"] = [
            int(families.get(document, document) in relatives[query])
            for query, document in zip(rows["query_id"], rows["document_id"], strict=True)
        ]
        rows.to_csv(filled_sheet, index=False)
        lenient = import_judgements([filled_sheet], self.data)
        strict = {
            query: {document: qrels[query].get(document, 0) for document in grades}
            for query, grades in lenient.grades.items()
        }
        wider = with_judgements(self.data, lenient).qrels[self.split]
        values = [evaluate(self.rankings[name], wider).of(self.metric) for name in self.names]
        return agreement(strict, lenient.grades), paired_difference(*values, seed=self.seed)


def compare_models(
    candidate: SentenceTransformer,
    base: SentenceTransformer,
    data: Dataset,
    *,
    names: tuple[str, str] = ("contrastive", "base"),
    metric: str = "ndcg@10",
    seed: int = 0,
    split: str = "test",
    encode: Encode | None = None,
) -> ModelPair:
    """Encode and search one split with both models and BM25, and score all of them.

    Args:
        candidate: the model that may be released.
        base: the model in use.
        data: queries, corpus and qrels.
        names: system names of the two.
        metric: what decides.
        seed: of intervals and tests.
        split: the split of the queries.
        encode: encodes with the candidate in place of `embedlab.models.encode.encode`, e.g. a cache's.

    Returns:
        The pair; both models also at 64 dimensions.
    """
    encoders = encode, EmbeddingCache().encode
    vectors = {
        names[1]: encode_split(base, data, split, encode=encoders[1]),
        names[0]: encode_split(candidate, data, split, encode=encoders[0]),
    }
    rankings = {name: encoded.rank(DEPTH) for name, encoded in vectors.items()}
    rankings["bm25"] = bm25_ranking(
        data.corpus, data.split_queries(split), k=DEPTH, own_documents=data.own_documents(split)
    )
    qrels = data.qrels[split]
    evaluations: dict[tuple[str, int | None], Evaluation] = {("bm25", None): evaluate(rankings["bm25"], qrels)}
    for name, encoded in vectors.items():
        evaluations[name, encoded.dim] = evaluate(rankings[name], qrels)
        if encoded.dim > SHORT_DIM:
            evaluations[name, SHORT_DIM] = evaluate(encoded.truncated(SHORT_DIM).rank(DEPTH), qrels)
    return ModelPair((candidate, base), names, data, metric, seed, vectors, rankings, evaluations, split, encoders)


def _label(name: str, dim: int | None) -> str:
    return name if dim is None else f"{name}, {dim}-dim"
