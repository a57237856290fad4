"""Measure several systems on one dataset: evaluate, record, compare, time and save them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab import progress
from embedlab.data.splits import evenly_spread
from embedlab.evaluation.diagnose.probe import Probe, fit_probe
from embedlab.evaluation.metrics import Evaluation, evaluate
from embedlab.evaluation.retrieval import evaluate_vectors
from embedlab.evaluation.significance import PairedDifference, bootstrap_ci, paired_difference
from embedlab.evaluation.static_share import SHARES, ShareScores, best_share, score_static_shares
from embedlab.models.cache import EmbeddingCache
from embedlab.models.encode import encode_by_role
from embedlab.models.truncation import truncation_of
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.exact import Ranking
from embedlab.search.funnel import rank_with
from embedlab.search.fusion import fuse_rrf
from embedlab.search.recall import recall_at_k
from embedlab.search.rescore import Searcher
from embedlab.search.vectors import Vectors, encode_split

if TYPE_CHECKING:
    import pandas as pd
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base import BaseModel

    from embedlab.data.dataset import Dataset
    from embedlab.evaluation.efficiency import Footprint
    from embedlab.runs.run import Run
    from embedlab.search.early_stop import StopRule

DEPTH = 100  # documents per ranking
SPEED_TEXTS = 256  # texts that encoding is timed on


class Leaderboard:
    """The systems of one notebook, measured on the test split and recorded in its run.

    Args:
        run: the run that records every value.
        data: dataset to measure on.
        metric: the metric of `compare`.

    Attributes:
        evaluations: system -> its evaluation on test, at full width.
        by_dim: system -> dimensions -> evaluation, where the model was truncated too.
        rankings: system -> its ranking of the test queries.
        models: system -> model, in the order in which they were added.
    """

    def __init__(self, run: Run, data: Dataset, *, metric: str = "ndcg@10") -> None:
        self.run, self.data, self.metric = run, data, metric
        self.evaluations: dict[str, Evaluation] = {}
        self.by_dim: dict[str, dict[int, Evaluation]] = {}
        self.rankings: dict[str, Ranking] = {}
        self.models: dict[str, SentenceTransformer] = {}
        self._details: dict[str, tuple[int | None, str]] = {}  # system -> dimensions and condition
        self._joined: list[tuple[SentenceTransformer, Callable[[Dataset, str], Vectors]]] = []  # see `concatenate`
        self._cache = EmbeddingCache()

    def encode(self, model: SentenceTransformer, texts: Sequence[str], *, queries: Collection[str] = ()) -> np.ndarray:
        """Encode texts and keep the vectors on disk for later runs.

        Args:
            model: any sentence-transformers model.
            texts: N texts.
            queries: those of them that get the model's query prompt; all others get its document prompt.

        Returns:
            float32 (N, d) unit vectors.
        """
        return encode_by_role(model, texts, queries, encode=self._cache.encode)

    def vectors(
        self,
        model: SentenceTransformer,
        split: str = "test",
        *,
        cached: bool = True,
        data: Dataset | None = None,
        corpus_vectors: np.ndarray | None = None,
    ) -> Vectors:
        """Encode the queries of a split and the corpus.

        Args:
            model: any sentence-transformers model.
            split: whose queries.
            cached: keep the vectors on disk for later runs; for models that later runs use again.
            data: another dataset than that of the leaderboard.
            corpus_vectors: the corpus (N, d), if it is already encoded.
        """
        encode = self._cache.encode if cached else None
        data = self.data if data is None else data
        if joined := next((join for combined, join in self._joined if combined is model), None):
            return joined(data, split)
        return encode_split(model, data, split, corpus_vectors=corpus_vectors, encode=encode)

    def add_bm25(self, system: str = "bm25", *, queries: Mapping[str, str] | None = None) -> Evaluation:
        """Evaluate BM25 on test and record it.

        Args:
            system: name in the record.
            queries: query id -> another wording of the test queries, such as an expansion.
        """
        texts = {query: (queries or {}).get(query, text) for query, text in self.data.split_queries("test").items()}
        own_documents = self.data.own_documents("test")
        ranking = bm25_ranking(self.data.corpus, texts, k=DEPTH, own_documents=own_documents)
        return self.add_ranking(system, ranking)

    def add_hybrid(self, of: str = "base") -> Evaluation:
        """Fuse the rankings of BM25 and of another system by reciprocal rank, evaluate the result and record it.

        Nothing is trained or chosen on dev. Compare a fine-tuned model with the hybrid of its base model: it is the
        cheapest improvement.

        Args:
            of: name of a system that was added; the result is called `hybrid` for `base`, else `NAME+bm25`.
        """
        ranking = fuse_rrf([self.rankings[of], self.rankings["bm25"]], DEPTH)
        return self.add_ranking("hybrid" if of == "base" else f"{of}+bm25", ranking)

    def add_linear_probe(self, model: SentenceTransformer, train: Vectors, *, seed: int = 0) -> Probe:
        """Train a linear map on a model's vectors, chosen on dev, evaluate it on test and record it.

        It takes seconds and needs no gradient of the model. A fine-tune that does not beat it has not used its pairs.

        Args:
            model: the model before training.
            train: its vectors of the training queries and the corpus, from `vectors`.
            seed: seed of the batches.

        Returns:
            The map; the identity if no other is better on dev.
        """
        probe = self.linear_map(model, train, seed=seed)
        test = self._with_corpus_of(train, model, "test")
        self.add_ranking("linear-probe", probe.apply(test).rank(DEPTH), dim=train.dim)
        return probe

    def linear_map(self, model: SentenceTransformer, train: Vectors, *, seed: int = 0) -> Probe:
        """Train a linear map on a model's vectors, chosen on dev; arguments and result as in `add_linear_probe`."""
        dev = self._with_corpus_of(train, model, "dev")
        return fit_probe(train, self.data.pairs("train"), dev, self.data.qrels["dev"], seed=seed)

    def _with_corpus_of(self, train: Vectors, model: SentenceTransformer, split: str) -> Vectors:
        """Encode the queries of a split; the corpus is already encoded in `train`."""
        return encode_split(model, self.data, split, corpus_vectors=train.corpus, encode=self._cache.encode)

    def add_model(
        self,
        system: str,
        model: SentenceTransformer,
        *,
        dims: Sequence[int] = (),
        condition: str = "",
        cached: bool = False,
        vectors: Vectors | None = None,
    ) -> Vectors:
        """Evaluate a model on test at its full width, and record it.

        Args:
            system: name in the record, see `embedlab.runs.systems`.
            model: any sentence-transformers model.
            dims: dimensions to truncate to and record besides the full width; those that are not smaller are skipped.
            condition: what else was varied, e.g. "3 layers".
            cached: see `vectors`.
            vectors: those of the test queries and the corpus, if they are already encoded.

        Returns:
            The vectors of the test queries and the corpus.
        """
        vectors = self.vectors(model, cached=cached) if vectors is None else vectors
        self.models[system] = model
        if system == "base":  # by which others recognise the model that a gain is measured against
            self.fingerprint(system)
        self.add_vectors(system, vectors, dims=dims, condition=condition)
        self._record_truncation(system, model, condition)
        return vectors

    def _record_truncation(self, system: str, model: SentenceTransformer, condition: str) -> None:
        """Record the share of documents and queries that the model reads only in part, if there are any."""
        for kind, count in truncation_of(model, self.data.corpus, self.data.split_queries("test")).items():
            if count.longer:
                labels: dict[str, Any] = {"system": system, "split": "test", "condition": condition, "n": count.counted}
                self.run.value(f"share of {kind} truncated", count.share, stage="footprint", **labels)

    def add_vectors(
        self, system: str, vectors: Vectors, *, dims: Sequence[int] = (), condition: str = ""
    ) -> dict[int, Evaluation]:
        """Evaluate vectors of the test queries and the corpus, and record them; see `add_model`.

        Returns:
            Dimensions -> evaluation, full width first.
        """
        full = self.add_ranking(system, vectors.rank(DEPTH), dim=vectors.dim, condition=condition)
        shorter = [dim for dim in dims if dim < vectors.dim]
        by_dim = evaluate_vectors(vectors, self.data.qrels["test"], dims=shorter) if shorter else {}
        for dim, evaluation in by_dim.items():
            self.run.metrics(evaluation, system=system, split="test", dim=dim, condition=condition)
        self.by_dim[system] = {vectors.dim: full} | by_dim
        return self.by_dim[system]

    def add_shallow(self, system: str, layers: int, dims: Sequence[int]) -> dict[int, Evaluation]:
        """Evaluate a model that was added, cut to its first layers, and record it under the condition "3 layers".

        Args:
            system: name of the model that was added.
            layers: number of layers to keep.
            dims: dimensions to evaluate at.

        Returns:
            Dimensions -> evaluation.
        """
        from embedlab.models.layers import keep_layers

        vectors = self.vectors(keep_layers(self.models[system], range(layers)), cached=False)
        by_dim = evaluate_vectors(vectors, self.data.qrels["test"], dims=dims, k=10)
        for dim, evaluation in by_dim.items():
            self.run.metrics(evaluation, system=system, split="test", dim=dim, condition=f"{layers} layers")
        return by_dim

    def compare_truncated(self, system: str) -> pd.DataFrame:
        """Record what truncation costs a system: paired differences to its full width, over the same queries.

        Returns:
            Columns system, dim, share of full (%), difference, ci_low, ci_high.
        """
        import pandas as pd

        full, *shorter = self.by_dim[system].items()
        rows, labels = [], {"split": "test", "condition": "truncated, against full width"}
        for dim, evaluation in shorter:
            difference = paired_difference(evaluation.of(self.metric), full[1].of(self.metric))
            against = {"metric": self.metric, "system": system, "against": system}
            self.run.difference(difference, **against, dim=dim, **labels)
            share = 100 * evaluation.mean(self.metric) / full[1].mean(self.metric)
            rows.append((system, dim, share, difference.mean, difference.low, difference.high))
        return pd.DataFrame(rows, columns=["system", "dim", "share of full (%)", "difference", "ci_low", "ci_high"])

    def search_table(
        self, searchers: Mapping[str, Searcher], vectors: Vectors, *, system: str = "", stage: str = "search"
    ) -> pd.DataFrame:
        """Evaluate ways to search the same vectors, and record them if a system is given.

        Args:
            searchers: name -> search over `vectors.corpus`; the first is exact search, the reference.
            vectors: vectors of the test queries and the corpus.
            system: name in the record; nothing is recorded without it. The name of the search is the condition.
            stage: stage in the record.

        Returns:
            Columns search, the metric with ci_low and ci_high, share of full (%), difference to the first search, and
            recall of full search (the documents of exact search that were found).
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []
        exact_scores, reference = None, None
        for name, searcher in searchers.items():
            ranking = rank_with(searcher, vectors)
            evaluation = evaluate(ranking, self.data.qrels["test"], [10])
            values = evaluation.of(self.metric)
            if reference is None or exact_scores is None:
                exact_scores, reference = ranking.scores, values
            recall = recall_at_k(ranking.indices, vectors.queries, vectors.corpus, exact_scores).mean()
            interval, difference = bootstrap_ci(values), paired_difference(values, reference)
            rows.append({"search": name, self.metric: interval.mean, "ci_low": interval.low, "ci_high": interval.high})
            rows[-1] |= {"share of full (%)": 100 * interval.mean / rows[0][self.metric]}
            rows[-1] |= {"difference": difference.mean, "recall of full search": recall}
            if system:
                labels: dict[str, Any] = {"system": system, "split": "test", "stage": stage, "condition": name}
                self.run.metrics(evaluation, **labels)
                self.run.value("recall of full search", recall, **labels)
                if len(rows) > 1:
                    labels["condition"] = f"{name}, against {rows[0]['search']}"
                    self.run.difference(difference, metric=self.metric, against=system, **labels)
        return pd.DataFrame(rows)

    def add_ranking(self, system: str, ranking: Ranking, *, dim: int | None = None, condition: str = "") -> Evaluation:
        """Evaluate a ranking of the test queries and record it.

        Args:
            system: name in the record.
            ranking: documents per query, of any system.
            dim: dimensions of its vectors; None when it has none.
            condition: what else was varied.
        """
        evaluation = evaluate(ranking, self.data.qrels["test"])
        self.rankings[system], self.evaluations[system] = ranking, evaluation
        self._details[system] = (dim, condition)
        self.run.metrics(evaluation, system=system, split="test", dim=dim, condition=condition)
        return evaluation

    def compare(self, system: str, against: str) -> PairedDifference | None:
        """Record the paired difference of two systems; None when one of them was not added."""
        if not {system, against} <= self.evaluations.keys():
            return None
        values = (self.evaluations[name].of(self.metric) for name in (system, against))
        difference = paired_difference(*values)
        dim, condition = self._details[system]
        labels: dict[str, Any] = {"split": "test", "dim": dim, "condition": condition}
        self.run.difference(difference, metric=self.metric, system=system, against=against, **labels)
        return difference

    def tune_early_stop(self, system: str, dim: int, *, tolerance: float) -> StopRule:
        """Tune on dev when a search at `dim` dimensions may stop, and record the threshold.

        Args:
            system: name of a model that was added.
            dim: dimensions of the cheap search.
            tolerance: the most that the metric may lose on dev.
        """
        from embedlab.search.early_stop import RANK, tune_stop_rule

        vectors, qrels = self.vectors(self.models[system], "dev", cached=False), self.data.qrels["dev"]
        by_dim = evaluate_vectors(vectors, qrels, dims=[dim, vectors.dim], k=RANK)
        cheap, full = (by_dim[width].of(self.metric) for width in (dim, vectors.dim))
        # The search that stops early sees all documents, so its margins are tuned on all of them.
        all_documents = replace(vectors.truncated(dim), own_documents=frozenset())
        rule = tune_stop_rule(all_documents.rank(RANK).scores, cheap, full, tolerance=tolerance)
        labels: dict[str, Any] = {"split": "dev", "stage": "search", "condition": f"{dim}, stop early"}
        self.run.value("threshold", rule.threshold, system=system, **labels)
        return rule

    def concatenate(
        self,
        transformer: SentenceTransformer,
        static: SentenceTransformer,
        *,
        shares: Sequence[float] = SHARES,
        narrow: bool = True,
        keep: Dataset | None = None,
        keep_vectors: np.ndarray | None = None,
        corpus_vectors: np.ndarray | None = None,
    ) -> SentenceTransformer:
        """Concatenate a transformer with a static model; `best_share` chooses the share on dev.

        Later, `vectors` and `add_model` join the vectors of the two parts, so the transformer encodes nothing twice.

        Args:
            transformer: model with d dimensions; left unchanged.
            static: static model with the tokenizer of the transformer, and e dimensions.
            shares: shares of the static model to choose from.
            narrow: project the result to d dimensions, if the corpus is large enough to compute the PCA on it; see
                `models.concatenation.has_enough_rows`.
            keep: a dataset on whose dev split a share may lose at most `FORGETTING_BUDGET` against the transformer.
            keep_vectors: the corpus of `keep` (M, d), if the transformer has already encoded it.
            corpus_vectors: the corpus (N, d), likewise.

        Returns:
            A model with d dimensions, or with d + e. The share is in the notes of the run.
        """
        from embedlab.models.concatenation import concat_static, has_enough_rows
        from embedlab.models.layers import pca_projection, project

        vectors, static_vectors = self._halves(self.data, transformer, static, corpus_vectors)
        on_dev = score_static_shares(vectors, static_vectors, self.data.qrels["dev"], metric=self.metric, shares=shares)
        elsewhere: dict[float, np.ndarray] = {}
        if keep is not None:
            halves = self._halves(keep, transformer, static, keep_vectors)
            elsewhere = score_static_shares(*halves, keep.qrels["dev"], metric=self.metric, shares=(0.0, *shares))
        share = best_share(on_dev, elsewhere)
        self.run.note(static_share=share, static_share_on_dev=_means(on_dev))
        if elsewhere:
            self.run.note(static_share_elsewhere=_means(elsewhere))
        combined, projection = concat_static(transformer, static, share), None
        if narrow:
            wide = vectors.concatenated(static_vectors, share)
            is_narrower = has_enough_rows(wide.corpus, vectors.dim)
            dim = vectors.dim if is_narrower else wide.dim  # a rotation, to truncate later
            projection = pca_projection(wide.corpus, dim)
            project(combined, projection)

        def joined(data: Dataset, split: str) -> Vectors:
            encoded = corpus_vectors if data is self.data else None
            both = Vectors.concatenated(*self._halves(data, transformer, static, encoded, split), share)
            return both if projection is None else both.mapped(projection.numpy())

        self._joined.append((combined, joined))
        return combined

    def _halves(
        self,
        data: Dataset,
        transformer: SentenceTransformer,
        static: SentenceTransformer,
        corpus_vectors: np.ndarray | None = None,
        split: str = "dev",
    ) -> tuple[Vectors, Vectors]:
        """The queries of a split and the corpus, encoded with both parts of a concatenation."""
        vectors = encode_split(transformer, data, split, corpus_vectors=corpus_vectors, encode=self._cache.encode)
        return vectors, encode_split(transformer, data, split, static=static)

    @contextmanager
    def training(self, system: str, condition: str = "") -> Iterator[None]:
        """Time the block, and record the seconds that training the system took.

        Args:
            system: name in the record.
            condition: as in `add_model`.
        """
        start, earlier = time.perf_counter(), progress.earlier_seconds()
        with self.run.timing(system):
            yield
        seconds = time.perf_counter() - start + progress.earlier_seconds() - earlier
        self.run.value("training_seconds", seconds, system=system, stage="footprint", condition=condition)

    def measure_speed(self, systems: Sequence[str] = ()) -> dict[str, Footprint]:
        """Measure parameters, megabytes and texts per second of the added models, and record them.

        Args:
            systems: which of them; all when not given.
        """
        from embedlab.evaluation.efficiency import measure_footprints

        texts = evenly_spread(self.data.corpus.values(), SPEED_TEXTS)
        footprints = measure_footprints({name: self.models[name] for name in systems or self.models}, texts)
        for system, footprint in footprints.items():
            condition = self._details[system][1]
            for name, value in footprint.as_dict().items():
                self.run.value(name, value, system=system, stage="footprint", condition=condition)
        return footprints

    def slices(self, system: str, against: str, fields: Sequence[str]) -> pd.DataFrame:
        """Compare two systems in the slices of every field that the test queries have.

        Args:
            system: name of a system that was added.
            against: name of the system to compare with.
            fields: fields of the queries, e.g. "seen" or "chapter".

        Returns:
            One row per field and slice, see `evaluation.slices.slice_differences`; empty if no query has a field.
        """
        import pandas as pd

        from embedlab.evaluation.slices import slice_differences

        available = {name for values in self.data.fields.values() for name in values}
        pair = (self.evaluations[system], self.evaluations[against])
        tables = {
            field: slice_differences(*pair, self.data.fields, by=field, metric=self.metric)
            for field in fields
            if field in available
        }
        return pd.concat(tables, names=["field"]).reset_index("field") if tables else pd.DataFrame()

    def overlap_slices(self, system: str, against: str) -> pd.DataFrame:
        """Compare two systems by how many words of the query occur in its answers: none, some or all.

        Returns:
            One row per slice, see `evaluation.slices.slice_differences`.
        """
        from embedlab.evaluation.lexical_overlap import FIELD, shared_words
        from embedlab.evaluation.slices import slice_differences

        fields = shared_words(self.data)
        pair = (self.evaluations[system], self.evaluations[against])
        return slice_differences(*pair, fields, by=FIELD, metric=self.metric)

    def examples(self, system: str, against: str, *, count: int = 3) -> pd.DataFrame:
        """Show the test queries that gain and lose most from one system to another.

        Returns:
            Columns query, answers, and the metric of both systems; the largest gains first, then the largest losses.
        """
        import pandas as pd

        pair = {name: self.evaluations[name].of(self.metric) for name in (against, system)}
        order = (pair[system] - pair[against]).argsort()
        rows = []
        for row in [*order[::-1][:count], *order[:count][::-1]]:
            query = self.evaluations[system].query_ids[row]
            answers = "; ".join(self.data.corpus.get(document, "") for document in self.data.qrels["test"][query])
            scores = {name: float(values[row]) for name, values in pair.items()}
            rows.append({"query": self.data.queries[query], "answers": answers, **scores})
        return pd.DataFrame(rows)

    def fingerprint(self, *systems: str) -> None:
        """Record the fingerprints of models that were added."""
        from embedlab.models.fingerprint import model_fingerprint

        self.run.fingerprint({system: model_fingerprint(self.models[system]) for system in systems})

    def save_model(self, model: BaseModel, name: str, system: str) -> None:
        """Save a model in the folder `model/NAME` of the run and record its fingerprint.

        Args:
            model: what to save.
            name: folder below `model`.
            system: name in the record.
        """
        self.run.save_model(system, model, f"model/{name}")


def _means(scores: ShareScores) -> dict[str, float]:
    """Share, as text for JSON -> mean over the queries."""
    return {str(share): float(np.nanmean(values)) for share, values in scores.items()}
