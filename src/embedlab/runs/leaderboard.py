"""Measure several systems on one dataset: evaluate, record, compare, time and save them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedlab.evaluation.metrics import Evaluation, evaluate
from embedlab.evaluation.retrieval import evaluate_vectors
from embedlab.evaluation.significance import PairedDifference, paired_difference
from embedlab.models.cache import EmbeddingCache
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.exact import Ranking
from embedlab.search.vectors import Vectors, encode_split

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from sentence_transformers import CrossEncoder, SentenceTransformer

    from embedlab.data.dataset import Dataset
    from embedlab.evaluation.efficiency import Footprint
    from embedlab.runs.run import Run

DEPTH = 100  # documents per ranking
SPEED_TEXTS = 500  # texts that encoding is timed on


class Leaderboard:
    """The systems of one notebook, measured on the test split and recorded in its run.

    Args:
        run: the run that records every value.
        data: dataset to measure on.
        metric: the metric of `compare`.

    Attributes:
        evaluations: system -> its evaluation on test, at full width.
        rankings: system -> its ranking of the test queries.
        models: system -> model, in the order in which they were added.
    """

    def __init__(self, run: Run, data: Dataset, *, metric: str = "ndcg@10") -> None:
        self.run, self.data, self.metric = run, data, metric
        self.evaluations: dict[str, Evaluation] = {}
        self.rankings: dict[str, Ranking] = {}
        self.models: dict[str, SentenceTransformer] = {}
        self._details: dict[str, tuple[int | None, str]] = {}  # system -> dimensions and condition
        self._cache = EmbeddingCache()

    def encode(self, model: SentenceTransformer, texts: Sequence[str]) -> np.ndarray:
        """Encode texts and keep the vectors on disk for later runs: float32 (len(texts), d)."""
        return self._cache.encode(model, texts)

    def vectors(self, model: SentenceTransformer, split: str = "test", *, cached: bool = True) -> Vectors:
        """Encode the queries of a split and the corpus.

        Args:
            model: any sentence-transformers model.
            split: whose queries.
            cached: keep the vectors on disk for later runs; for models that later runs use again.
        """
        return encode_split(model, self.data, split, encode=self._cache.encode if cached else None)

    def add_bm25(self) -> Evaluation:
        """Evaluate BM25 on test and record it."""
        queries = self.data.split_queries("test")
        return self.add_ranking("bm25", bm25_ranking(self.data.corpus, queries, k=DEPTH))

    def add_model(
        self,
        system: str,
        model: SentenceTransformer,
        *,
        dims: Sequence[int] = (),
        condition: str = "",
        cached: bool = False,
    ) -> Evaluation:
        """Evaluate a model on test at its full width, and record it.

        Args:
            system: name in the record, see `embedlab.runs.systems`.
            model: any sentence-transformers model.
            dims: dimensions to truncate to and record besides the full width; those that are not smaller are skipped.
            condition: what else was varied, e.g. "3 layers".
            cached: see `vectors`.
        """
        vectors = self.vectors(model, cached=cached)
        self.models[system] = model
        evaluation = self.add_ranking(system, vectors.rank(DEPTH), dim=vectors.dim, condition=condition)
        shorter = [dim for dim in dims if dim < vectors.dim]
        if shorter:
            for dim, truncated in evaluate_vectors(vectors, self.data.qrels["test"], dims=shorter).items():
                self.run.metrics(truncated, system=system, split="test", dim=dim, condition=condition)
        return evaluation

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
        labels = {"split": "test", "dim": dim, "condition": condition}
        self.run.difference(difference, metric=self.metric, system=system, against=against, **labels)
        return difference

    def concatenate(self, transformer: SentenceTransformer, static: SentenceTransformer) -> SentenceTransformer:
        """Concatenate a transformer with a static model, as wide as the transformer; the share is chosen on dev.

        Args:
            transformer: model with d dimensions; left unchanged.
            static: static model with the tokenizer of the transformer.

        Returns:
            A model with d dimensions; the PCA is computed on the corpus. The share is in the notes of the run.
        """
        from embedlab.evaluation.static_share import score_static_shares
        from embedlab.models.concatenation import concat_static_pca

        vectors, static_vectors = self.vectors(transformer, "dev"), self.vectors(static, "dev", cached=False)
        on_dev = score_static_shares(vectors, static_vectors, self.data.qrels["dev"], metric=self.metric)
        share = max(on_dev, key=on_dev.__getitem__)
        self.run.note(static_share=share, static_share_on_dev={str(name): value for name, value in on_dev.items()})
        corpus = vectors.concatenated(static_vectors, share).corpus
        return concat_static_pca(transformer, static, share, corpus, vectors.dim)

    def measure_speed(self, systems: Sequence[str] = ()) -> dict[str, Footprint]:
        """Measure parameters, megabytes and texts per second of the added models, and record them.

        Args:
            systems: which of them; all when not given.
        """
        from embedlab.evaluation.efficiency import measure_footprints

        texts = list(self.data.corpus.values())[:: max(1, len(self.data.corpus) // SPEED_TEXTS)]
        footprints = measure_footprints({name: self.models[name] for name in systems or self.models}, texts)
        for system, footprint in footprints.items():
            condition = self._details[system][1]
            for name, value in footprint.as_dict().items():
                self.run.value(name, value, system=system, stage="footprint", condition=condition)
        return footprints

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
            answers = "; ".join(self.data.corpus[document] for document in self.data.qrels["test"][query])
            scores = {name: float(values[row]) for name, values in pair.items()}
            rows.append({"query": self.data.queries[query], "answers": answers, **scores})
        return pd.DataFrame(rows)

    def save_model(self, model: SentenceTransformer | CrossEncoder, name: str, system: str) -> None:
        """Save a model in the folder `model/NAME` of the run and record its fingerprint.

        Args:
            model: what to save.
            name: folder below `model`.
            system: name in the record.
        """
        from sentence_transformers import SentenceTransformer

        from embedlab.models.fingerprint import model_fingerprint
        from embedlab.models.save import save_model

        save_model(model, self.run.artefact("model") / name)
        if not isinstance(model, SentenceTransformer):  # a cross-encoder is a list of modules as well
            model = SentenceTransformer(modules=list(model), device="cpu")
        self.run.fingerprint({system: model_fingerprint(model)})
