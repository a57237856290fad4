"""Sources of hard negatives: the base model, the model being trained, BM25, a cross-encoder, a file, expert triplets.

A source ranks the corpus for every training query. The filters of `mining` choose hard negatives from its candidates.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import StringConstraints

from embedlab.blocks import blocks
from embedlab.data import textio
from embedlab.data.dataset import Dataset
from embedlab.errors import DataError
from embedlab.models.reranker import Score as TextScore
from embedlab.models.reranker import load_reranker
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.ranking_file import read_ranking
from embedlab.search.vectors import Vectors
from embedlab.training.contrastive.mining import Candidates, MiningReport, Negatives, Pair, mine_hard_negatives

# base: the base model · self: the model being trained, before every epoch · bm25 · cross-encoder:NAME reorders the base
# model's first candidates · ranking:FILE: what another system ranked · expert: the dataset's triplets, which need no
# mining
_MINED = r"base|self|bm25|cross-encoder:.+|ranking:.+"
Retriever = Annotated[str, StringConstraints(pattern=rf"^({_MINED})$")]
Source = Annotated[str, StringConstraints(pattern=rf"^({_MINED}|expert)$")]
EXPERT, CROSS_ENCODER, RANKING = "expert", "cross-encoder:", "ranking:"
DEPTH = 100  # candidates per query
FEWEST = 10_000  # documents that a search uses at least
QUERIES_PER_CALL = 4096  # whose candidates are scored together
# Dot products of a search: two minutes on two cores at 384 dimensions. With more, it searches a sample of documents.
PRODUCTS = 10**10
RESCORED = 20  # candidates per query that a cross-encoder scores


class Ranked(Protocol):
    """A ranking that returns candidates, such as `search.exact.Ranking`."""

    def as_candidates(self) -> Mapping[str, Sequence[tuple[str, float]]]:
        """Return query id -> [(document id, score), …], best first."""


class Searchable(Protocol):
    """Vectors of the training queries and the corpus, such as `search.vectors.Vectors`."""

    def rank(self, k: int) -> Ranked:
        """Return the k nearest documents of every query."""

    def pair_scores(self, pairs: Iterable[Pair]) -> Mapping[Pair, float]:
        """Return the score of every (query id, document id)."""


logger = logging.getLogger(__name__)

PairScore = Callable[[Iterable[Pair]], Mapping[Pair, float]]


@dataclass(frozen=True)
class Rankers:
    """The rankers behind the sources.

    Attributes:
        base: vectors under the base model.
        current: vectors under the model being trained; None before training.
        lexical: returns BM25's ranking of the training queries.
        cross_encoder: name -> scoring function of (query, document) texts.
    """

    base: Searchable
    current: Searchable | None = None
    lexical: Callable[[], Ranked] | None = None
    cross_encoder: Callable[[str], TextScore] = load_reranker

    @classmethod
    def of(cls, dataset: Dataset, base: Vectors, current: Vectors | None = None) -> Rankers:
        """Rankers of a dataset's training queries; BM25 and cross-encoders run only if a source needs them.

        With so many queries and documents that a search takes more than `PRODUCTS` dot products, all rankers search
        the same random sample of documents, at least `FEWEST` of them. The best documents of a sample are farther from
        the positive than those of the corpus, and less often relevant without a label.

        Args:
            dataset: its training queries and corpus are used.
            base: both under the base model.
            current: both under the model being trained; None before training.
        """
        queries, own_documents = dataset.split_queries("train"), dataset.own_documents("train")
        corpus = dataset.corpus
        if (count := max(FEWEST, PRODUCTS // max(1, len(queries)))) < len(corpus):
            rows = np.sort(np.random.default_rng(0).choice(len(corpus), count, replace=False))
            names = list(corpus)
            corpus = {names[row]: corpus[names[row]] for row in rows}
            base, current = base.searching(rows), current and current.searching(rows)
            logger.warning("mining searches a sample of %d of %d documents", count, len(names))
        lexical = partial(bm25_ranking, corpus, queries, DEPTH, own_documents=own_documents)
        return cls(base, current, lexical)


def mine_sources(
    dataset: Dataset,
    sources: Sequence[str],
    rankers: Rankers,
    *,
    per_pair: int = 1,
    guided: bool = False,
    **filters: Any,
) -> tuple[Negatives, dict[str, MiningReport]]:
    """Mine hard negatives from each source and interleave them.

    Args:
        dataset: its training pairs, texts and `related` documents are used.
        sources: names as in `Source`. `expert` is ignored here: its triplets need no mining.
        rankers: the rankers behind the sources.
        per_pair: hard negatives per pair; fewer if the filters leave fewer.
        guided: also exclude candidates that the base model ranks above the positive.
        **filters: margins and ranks of `mine_hard_negatives`.

    Returns:
        (query id, positive id) -> hard negative ids, and source -> report.
    """
    by_source, reports, pairs = [], {}, dataset.pairs("train")
    for source in sources:
        if source == EXPERT:
            continue
        candidates, score = _candidates(source, dataset, rankers)
        guide = _Guide(rankers.base.pair_scores, pairs, candidates) if guided else None
        negatives, reports[source] = mine_hard_negatives(
            dataset, candidates, score(pairs), per_pair=per_pair, guide=guide, **filters
        )
        by_source.append(negatives)
    return interleave(by_source, per_pair), reports


def _candidates(source: str, dataset: Dataset, rankers: Rankers) -> tuple[Candidates, PairScore]:
    """Return the candidates of a source and the function that scores them and the positives.

    The candidates of BM25 and of a file keep their order and get the scores of the base model, because the positive
    may have no score there to compare with. A cross-encoder has its own order and scores.
    """
    if source.startswith(RANKING):
        ranked = _candidates_of_file(source.removeprefix(RANKING), dataset)
        return Rescored(ranked, rankers.base.pair_scores), rankers.base.pair_scores
    if source == "bm25":
        assert rankers.lexical is not None  # `Rankers.of` sets it
        return Rescored(rankers.lexical().as_candidates(), rankers.base.pair_scores), rankers.base.pair_scores
    vectors = rankers.current or rankers.base if source == "self" else rankers.base
    candidates = vectors.rank(DEPTH).as_candidates()
    if not source.startswith(CROSS_ENCODER):
        return candidates, vectors.pair_scores
    score = _score_by_id(dataset, rankers.cross_encoder(source.removeprefix(CROSS_ENCODER)))
    first = {query: candidates[query][:RESCORED] for query in candidates}
    return reordered(Rescored(first, score)), score


def _candidates_of_file(location: str, dataset: Dataset) -> Candidates:
    """Read the ranking of another system, such as `embedlab deploy shards search --output` over many machines.

    Raises:
        DataError: it ranks documents that are not in the corpus, or lacks training queries.
    """
    path = textio.location_path(location)
    ranking = read_ranking(path)
    if unknown := [name for name in ranking.corpus_ids if name not in dataset.corpus]:
        problem = f"{len(unknown):,} ranked documents are not in the corpus, for example {unknown[0]!r}"
        raise DataError(problem, remedy="Rank the corpus of this dataset", file=path, field="documents")
    candidates = ranking.as_candidates()
    if missing := [query for query, _ in dataset.pairs("train") if query not in candidates]:
        problem = f"it lacks {len(dict.fromkeys(missing)):,} training queries, for example {missing[0]!r}"
        raise DataError(problem, remedy="Rank all training queries, under their ids", file=path, field="query")
    return candidates


def _score_by_id(dataset: Dataset, score: TextScore) -> PairScore:
    def by_id(pairs: Iterable[Pair]) -> dict[Pair, float]:
        pairs = list(dict.fromkeys(pairs))
        values = score([(dataset.queries[query], dataset.corpus[document]) for query, document in pairs])
        return dict(zip(pairs, np.asarray(values, dtype=float).reshape(-1).tolist(), strict=True))

    return by_id


class Rescored(Mapping[str, list[tuple[str, float]]]):
    """Candidates in their order with other scores, which are kept in one array.

    Args:
        candidates: query id -> [(document id, score), …].
        score: computes the scores of (query id, document id) pairs; called with the pairs of many queries at a time.
    """

    def __init__(self, candidates: Candidates, score: PairScore) -> None:
        self._candidates, scores, counts = candidates, array("d"), [0]
        for queries in blocks(candidates, QUERIES_PER_CALL):
            pairs = [(query, document) for query in queries for document, _ in candidates[query]]
            scored = score(pairs)
            scores.extend(scored[pair] for pair in pairs)
            counts += (len(candidates[query]) for query in queries)
        self._scores, self._ends = scores, np.cumsum(counts)
        self._rows = {query: row for row, query in enumerate(candidates)}

    def __getitem__(self, query: str) -> list[tuple[str, float]]:
        row = self._rows[query]
        scores = self._scores[self._ends[row] : self._ends[row + 1]]
        return [(document, score) for (document, _), score in zip(self._candidates[query], scores, strict=True)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class _Guide(Mapping[Pair, float]):
    """The scores that a guide gives to training pairs and candidates; of one query at a time as a dict."""

    def __init__(self, score: PairScore, pairs: Sequence[Pair], candidates: Candidates) -> None:
        self._positives, self._candidates = score(pairs), Rescored(candidates, score)
        self._query: str | None = None
        self._of_query: dict[str, float] = {}

    def __getitem__(self, pair: Pair) -> float:
        if pair in self._positives:
            return self._positives[pair]
        query, document = pair
        if query != self._query:
            self._query, self._of_query = query, dict(self._candidates[query])
        return self._of_query[document]

    def __iter__(self) -> Iterator[Pair]:
        yield from self._positives
        yield from ((query, document) for query in self._candidates for document, _ in self._candidates[query])

    def __len__(self) -> int:
        return sum(1 for _ in self)


def reordered(candidates: Candidates) -> Candidates:
    """Sort the candidates of every query by score, best first; equal scores keep their order."""
    return {query: sorted(scored, key=lambda item: -item[1]) for query, scored in candidates.items()}


def interleave(by_source: Sequence[Negatives], per_pair: int) -> Negatives:
    """Take the first negative of every source, then the second of every source, without duplicates.

    Args:
        by_source: per source (query id, positive id) -> hard negative ids.
        per_pair: maximum per pair.

    >>> interleave([{("q", "p"): ("a", "b")}, {("q", "p"): ("a", "c")}], 3)
    {('q', 'p'): ('a', 'b', 'c')}
    """
    if not by_source:
        return {}
    turns = {
        pair: chain.from_iterable(zip_longest(*(negatives[pair] for negatives in by_source))) for pair in by_source[0]
    }
    distinct = {pair: dict.fromkeys(name for name in names if name is not None) for pair, names in turns.items()}
    return {pair: tuple(names)[:per_pair] for pair, names in distinct.items()}
