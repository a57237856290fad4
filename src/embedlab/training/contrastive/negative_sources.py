"""Sources of hard negatives: the base model, the model being trained, BM25, a cross-encoder, expert triplets.

A source ranks the corpus for every training query. The filters of `mining` choose hard negatives from its candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import StringConstraints

from embedlab.data.dataset import Dataset
from embedlab.models.reranker import Score as TextScore
from embedlab.models.reranker import load_reranker
from embedlab.search.bm25 import bm25_ranking
from embedlab.training.contrastive.mining import Candidates, MiningReport, Negatives, Pair, mine_hard_negatives

# base: the base model · self: the model being trained, before every epoch · bm25 · cross-encoder:NAME reorders the base
# model's first candidates · expert: the dataset's triplets, which need no mining
Source = Annotated[str, StringConstraints(pattern=r"^(base|self|bm25|expert|cross-encoder:.+)$")]
EXPERT, CROSS_ENCODER = "expert", "cross-encoder:"
DEPTH = 100  # candidates per query
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
    def of(cls, dataset: Dataset, base: Searchable) -> Rankers:
        """Rankers of a dataset's training queries; BM25 and cross-encoders run only if a source needs them."""
        queries, own_documents = dataset.split_queries("train"), dataset.own_documents("train")
        return cls(base, lexical=partial(bm25_ranking, dataset.corpus, queries, DEPTH, own_documents=own_documents))


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
        guide = rankers.base.pair_scores([*pairs, *pairs_of(candidates)]) if guided else None
        negatives, reports[source] = mine_hard_negatives(
            dataset, candidates, score(pairs), per_pair=per_pair, guide=guide, **filters
        )
        by_source.append(negatives)
    return interleave(by_source, per_pair), reports


def _candidates(source: str, dataset: Dataset, rankers: Rankers) -> tuple[Candidates, PairScore]:
    """Return the candidates of a source and the function that scores them and the positives.

    BM25's candidates keep their order and get the scores of the base model, because a positive that shares no word
    with its query has no BM25 score to compare with. A cross-encoder has its own order and scores.
    """
    if source == "bm25":
        assert rankers.lexical is not None  # `Rankers.of` sets it
        return rescored(rankers.lexical().as_candidates(), rankers.base.pair_scores), rankers.base.pair_scores
    vectors = rankers.current or rankers.base if source == "self" else rankers.base
    candidates = vectors.rank(DEPTH).as_candidates()
    if not source.startswith(CROSS_ENCODER):
        return candidates, vectors.pair_scores
    score = _score_by_id(dataset, rankers.cross_encoder(source.removeprefix(CROSS_ENCODER)))
    return reordered(rescored({query: scored[:RESCORED] for query, scored in candidates.items()}, score)), score


def _score_by_id(dataset: Dataset, score: TextScore) -> PairScore:
    def by_id(pairs: Iterable[Pair]) -> dict[Pair, float]:
        pairs = list(dict.fromkeys(pairs))
        values = score([(dataset.queries[query], dataset.corpus[document]) for query, document in pairs])
        return dict(zip(pairs, np.asarray(values, dtype=float).reshape(-1).tolist(), strict=True))

    return by_id


def pairs_of(candidates: Candidates) -> list[Pair]:
    """Return (query id, document id) of every candidate."""
    return [(query, document) for query, scored in candidates.items() for document, _ in scored]


def rescored(candidates: Candidates, score: PairScore) -> Candidates:
    """Replace the scores of the candidates and keep their order."""
    scores = score(pairs_of(candidates))
    return {query: [(name, scores[query, name]) for name, _ in scored] for query, scored in candidates.items()}


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
