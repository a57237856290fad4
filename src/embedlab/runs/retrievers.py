"""Measure retrievers of different shapes on one dataset: quality, bytes, milliseconds per query, texts per second.

Speeds are measured at the end, all systems in turns: if the machine slows down, it slows down for all of them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.data.splits import evenly_spread
from embedlab.deploy.indexes import IndexSpec, VectorIndex
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import paired_difference
from embedlab.models.encode import encode
from embedlab.models.late_interaction import encode_tokens
from embedlab.models.sides import Side, is_static, sides_of
from embedlab.models.sparse import encode_sparse
from embedlab.models.static import encode_static
from embedlab.search.exact import Ranking, cut, search
from embedlab.search.fusion import fuse_rrf
from embedlab.search.late_interaction import max_sim

if TYPE_CHECKING:
    import pandas as pd
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder

    from embedlab.runs.leaderboard import Leaderboard
    from embedlab.search.late_interaction import TokenIndex
    from embedlab.search.sparse import SparseVectors
    from embedlab.search.vectors import Vectors

DEPTH = 100  # documents per ranking
PROBED = 8  # inverted lists of tokens that are read per query token

TIMED_QUERIES = 40  # timed one at a time; the first few warm up
WARM_UP = 5
TIMED_DOCUMENTS, WARM_UP_DOCUMENTS = 200, 32  # encoded together, to measure texts per second
PASSES = 3  # timed passes over them
TOP = 10  # documents per timed query
FLOAT_BYTES = 4

Answer = Callable[[str], Any]  # encodes and searches one query
Encode = Callable[[list[str]], Any]  # encodes documents


def _dense_encode(side: Side) -> Encode:
    """Return the fastest way to encode texts with one side of a dense model."""
    if is_static(side.model):
        return partial(encode_static, side.model)
    return partial(encode, side.model, prompt=side.prompt)


class Retrievers:
    """The systems of notebook 15_retrievers, each measured on test and recorded.

    Args:
        board: where quality is recorded.
        against: systems that every later one is compared with, where they were added.
    """

    def __init__(self, board: Leaderboard, against: Sequence[str] = ()) -> None:
        self.board, self.against = board, tuple(against)
        self._queries = evenly_spread(board.data.split_queries("test").values(), TIMED_QUERIES)
        self._documents = evenly_spread(board.data.corpus.values(), TIMED_DOCUMENTS)
        self._rows: dict[str, dict[str, Any]] = {}
        self._answers: dict[str, Answer] = {}
        self._encoders: dict[str, Encode] = {}

    def add(
        self,
        system: str,
        ranking: Ranking,
        *,
        bytes_per_document: float | None = None,
        answer: Answer | None = None,
        encode: Encode | None = None,
        seconds: float = 0.0,
        dim: int | None = None,
    ) -> None:
        """Evaluate a ranking of the test queries, compare it and record what it costs.

        Args:
            system: a declared name.
            ranking: of the test queries.
            bytes_per_document: size of a document in the index; None if it is not known.
            answer: encodes and searches one query, for `measure_speeds`.
            encode: encodes documents, for `measure_speeds`.
            seconds: of all trainings behind it; `Leaderboard.training` records the last one.
            dim: dimensions of a vector, if there is one per text.
        """
        evaluation = self.board.add_ranking(system, ranking, dim=dim)
        costs: dict[str, float] = {"training_seconds_in_all": seconds}
        if bytes_per_document is not None:
            costs["bytes_per_document"] = bytes_per_document
        if answer is not None:
            self._answers[system] = answer
        if encode is not None:
            self._encoders[system] = encode
        self._record(system, costs)
        row: dict[str, Any] = {"nDCG@10": evaluation.mean(self.board.metric)}
        for other in self.against:
            gain = None if other == system else self.board.compare(system, other)
            row |= {f"vs {other}": gain and gain.mean}
            row |= {f"vs {other} low": gain and gain.low, f"vs {other} high": gain and gain.high}
        self._rows[system] = row | costs

    def measure_speeds(self) -> None:
        """Time all systems in turns: every query with each of them, and every pass over the documents.

        A model must not change after it was added, or the changed model is timed.
        """
        for system, value in milliseconds_in_turns(self._answers, self._queries).items():
            self._rows[system] |= self._record(system, {"milliseconds_per_query": value})
        for system, value in texts_per_second_in_turns(self._encoders, self._documents).items():
            self._rows[system] |= self._record(system, {"texts_per_second": value})

    def _record(self, system: str, costs: dict[str, float]) -> dict[str, float]:
        for name, value in costs.items():
            self.board.run.value(name, value, system=system, stage="footprint")
        return costs

    def add_dense(self, system: str, model: SentenceTransformer, vectors: Vectors, *, seconds: float = 0.0) -> None:
        """Measure a model with one vector per text, searched exactly; see `add`.

        Args:
            system: a declared name.
            model: encodes the queries; with a Router, its side for queries is timed.
            vectors: of the test queries and the corpus.
            seconds: of the training.
        """
        self.board.models[system] = model
        if system == "base":  # by which others recognise the model that a gain is measured against
            self.board.fingerprint(system)
        size = float(FLOAT_BYTES * vectors.dim)
        work: dict[str, Any] = {"answer": self.dense_answer(model, vectors.corpus)}
        work["encode"] = _dense_encode(sides_of(model).document)
        self.add(system, vectors.rank(DEPTH), bytes_per_document=size, **work, seconds=seconds, dim=vectors.dim)

    def add_linear_map(self, model: SentenceTransformer, *, seed: int = 0) -> None:
        """Train a linear map on a model's vectors and measure the model with this map at its end; see `add`.

        Args:
            model: the model before training; left unchanged.
            seed: of the batches.
        """
        import torch

        from embedlab.models.layers import project

        start = time.perf_counter()
        with self.board.training("linear-probe"):
            probe = self.board.linear_map(model, self.board.vectors(model, "train"), seed=seed)
        seconds = time.perf_counter() - start
        mapped = project(copy.deepcopy(model), torch.from_numpy(probe.matrix))
        self.add_dense("linear-probe", mapped, self.board.vectors(mapped), seconds=seconds)

    def add_fused(self, system: str, first: str, second: str) -> None:
        """Fuse the rankings of two systems that were added by reciprocal rank, and measure the result; see `add`."""
        ranking = fuse_rrf([self.board.rankings[first], self.board.rankings[second]], DEPTH)
        seconds = sum(self._rows[name]["training_seconds_in_all"] for name in (first, second))
        self.add(system, ranking, seconds=seconds)

    def add_sparse(self, system: str, model: SparseEncoder, vectors: SparseVectors, *, seconds: float = 0.0) -> None:
        """Measure a sparse model, searched with an inverted index; see `add`.

        Args:
            system: a declared name.
            model: encodes the queries.
            vectors: of the test queries and the corpus.
            seconds: of the training.
        """

        def answer(query: str) -> Any:
            return vectors.index.search(encode_sparse(model, [query], "query"), TOP)

        self.board.run.value("terms_per_document", vectors.terms_per_document, system=system, stage="footprint")
        work: dict[str, Any] = {"answer": answer, "encode": partial(encode_sparse, model, role="document")}
        size = vectors.index.bytes_per_document
        self.add(system, vectors.rank(DEPTH), bytes_per_document=size, **work, seconds=seconds)

    def add_late_interaction(
        self, system: str, model: MultiVectorEncoder, index: TokenIndex, *, seconds: float = 0.0
    ) -> None:
        """Measure a late-interaction model whose MaxSim reads all documents; see `add`.

        Args:
            system: a declared name.
            model: encodes the queries.
            index: token vectors of the test queries and the corpus.
            seconds: of the training.
        """

        def answer(query: str) -> Any:
            return max_sim(encode_tokens(model, [query], "query").vectors, index.corpus)

        self.board.run.value("tokens_per_document", index.tokens_per_document, system=system, stage="footprint")
        work: dict[str, Any] = {"answer": answer, "encode": partial(encode_tokens, model, role="document")}
        size = index.bytes_per_document
        self.add(system, index.rank(DEPTH), bytes_per_document=size, **work, seconds=seconds)

    def add_shortlists(
        self, system: str, index: TokenIndex, depth: int, *, of: Sequence[str] = (), per_token: int = 64
    ) -> pd.DataFrame:
        """Measure MaxSim over shortlists: of the tokens themselves, and of systems that were added.

        The tokens are searched with FAISS's inverted lists, see `deploy.indexes`. The name of the first stage is the
        condition in the record.

        Args:
            system: the late-interaction model, which was added before.
            index: token vectors of the test queries and the corpus.
            depth: documents of a shortlist.
            of: systems whose first documents are shortlists.
            per_token: tokens to find for each token of a query.

        Returns:
            Columns first stage, nDCG@10 of MaxSim, difference to MaxSim over all documents with ci_low and ci_high, and
            milliseconds per query of MaxSim over the shortlist.
        """
        import pandas as pd

        every_token = index.corpus.vectors.astype(np.float32)
        lists = VectorIndex.build(IndexSpec(kind="ivf", nprobe=PROBED), every_token)
        stages = {"tokens (FAISS)": index.token_shortlist(per_token, depth, lists.search)}
        stages |= {name: cut(self.board.rankings[name], depth) for name in of}
        exact = self.board.evaluations[system].of(self.board.metric)
        rows = []
        for name, first in stages.items():
            start = time.perf_counter()
            ranking = index.rerank(first, min(DEPTH, first.depth))
            milliseconds = 1000 * (time.perf_counter() - start) / len(ranking.query_ids)
            evaluation = evaluate(ranking, self.board.data.qrels["test"], [TOP])
            difference = paired_difference(evaluation.of(self.board.metric), exact)
            labels: dict[str, Any] = {"system": system, "stage": "search", "condition": f"first {depth} of {name}"}
            self.board.run.metrics(evaluation, split="test", **labels)
            self.board.run.value("milliseconds_of_max_sim", milliseconds, **labels)
            interval = (difference.mean, difference.low, difference.high)
            rows.append((name, evaluation.mean(self.board.metric), *interval, milliseconds))
        columns = ["first stage", self.board.metric, "difference", "ci_low", "ci_high", "ms of MaxSim"]
        return pd.DataFrame(rows, columns=columns)

    @staticmethod
    def dense_answer(model: SentenceTransformer, corpus: np.ndarray, depth: int = TOP) -> Answer:
        """Return a function that encodes one query and searches the vectors (N, d) of the corpus."""
        encode_query = _dense_encode(sides_of(model).query)

        def answer(query: str) -> Any:
            return search(encode_query([query]), corpus, depth)

        return answer

    def table(self) -> pd.DataFrame:
        """Return one row per system: quality, gains with intervals, and costs."""
        import pandas as pd

        frame = pd.DataFrame.from_dict(self._rows, orient="index")
        return frame.rename_axis("system").reset_index()


def milliseconds_in_turns(answers: Mapping[str, Answer], queries: Sequence[str]) -> dict[str, float]:
    """Return for each system the median milliseconds of one query, encoded and searched alone."""
    for query in queries[:WARM_UP]:
        for answer in answers.values():
            answer(query)
    times = [{system: _seconds(answer, query) for system, answer in answers.items()} for query in queries]
    return {system: 1000 * float(np.median([turn[system] for turn in times])) for system in answers}


def texts_per_second_in_turns(encoders: Mapping[str, Encode], documents: list[str]) -> dict[str, float]:
    """Return for each system how many documents it encodes per second, with tokenisation: the median of the passes."""
    for encoder in encoders.values():
        encoder(documents[:WARM_UP_DOCUMENTS])
    times = [{system: _seconds(encoder, documents) for system, encoder in encoders.items()} for _ in range(PASSES)]
    return {system: len(documents) / float(np.median([turn[system] for turn in times])) for system in encoders}


def _seconds(work: Callable[[Any], Any], subject: Any) -> float:
    start = time.perf_counter()
    work(subject)
    return time.perf_counter() - start
