"""Where hard negatives come from: the base model, the model being trained, BM25, a cross-encoder, experts.

A source ranks the corpus for every training query; the filters of `training.mining` choose from its candidates. The
rankers themselves are handed in, as searching belongs to `evaluation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import StringConstraints

from embedlab.data.dataset import Dataset
from embedlab.training.contrastive.mining import Candidates, MiningReport, Negatives, Pair, mine_hard_negatives

# base: the base model · self: the model itself, again before every epoch · bm25 · cross-encoder:NAME puts the base
# model's first candidates into its own order · expert: the dataset's triplets, which need no mining
Source = Annotated[str, StringConstraints(pattern=r"^(base|self|bm25|expert|cross-encoder:.+)$")]
EXPERT, CROSS_ENCODER = "expert", "cross-encoder:"
DEPTH = 100  # candidates of a query
RESCORED = 20  # of them a cross-encoder reads


class Ranked(Protocol):
    """A ranking that can be read as candidates: `evaluation.search.Ranking`."""

    def as_candidates(self) -> Mapping[str, Sequence[tuple[str, float]]]:
        """Query id -> [(document id, score), …], best first."""


class Searchable(Protocol):
    """A model's vectors of the training queries and the corpus: `evaluation.retrieval.Vectors`."""

    def rank(self, k: int) -> Ranked:
        """The k nearest documents of every query."""

    def pair_scores(self, pairs: Iterable[Pair]) -> Mapping[Pair, float]:
        """The score of every (query id, document id)."""


Score = Callable[[Iterable[Pair]], Mapping[Pair, float]]
TextScore = Callable[[Sequence[tuple[str, str]]], np.ndarray]  # (query, document) texts -> (n,)


@dataclass(frozen=True)
class Rankers:
    """What the sources ask.

    Attributes:
        base: the base model's vectors.
        own: those of the model as it is by now; the base model's when None, as before training.
        lexical: BM25's ranking of the training queries.
        cross_encoder: name -> scoring function of texts, e.g. `load_reranker`.
    """

    base: Searchable
    own: Searchable | None = None
    lexical: Callable[[], Ranked] | None = None
    cross_encoder: Callable[[str], TextScore] | None = None


def mine_sources(
    dataset: Dataset,
    sources: Sequence[str],
    rankers: Rankers,
    *,
    per_pair: int = 1,
    guided: bool = False,
    **filters: Any,
) -> tuple[Negatives, dict[str, MiningReport]]:
    """Hard negatives for every training pair, mined from each source and then taken from them in turn.

    Args:
        dataset: gives training pairs, texts and `related`.
        sources: as in `Source`; `expert` is passed over here, and without any other no pair gets a hard negative.
        rankers: asked only where a source needs them.
        per_pair: how many to choose; fewer where the filters leave fewer.
        guided: let the base model object to candidates that it ranks above the positive.
        **filters: the margins and ranks of `mine_hard_negatives`.

    Returns:
        The chosen ids by pair, and every source's report.
    """
    found, reports, pairs = [], {}, dataset.pairs("train")
    for source in sources:
        if source == EXPERT:
            continue
        candidates, score = _ask(source, dataset, rankers)
        guide = rankers.base.pair_scores([*pairs, *pairs_of(candidates)]) if guided else None
        negatives, reports[source] = mine_hard_negatives(
            dataset, candidates, score(pairs), per_pair=per_pair, guide=guide, **filters
        )
        found.append(negatives)
    return take_in_turn(found, per_pair), reports


def _ask(source: str, dataset: Dataset, rankers: Rankers) -> tuple[Candidates, Score]:
    """A source's candidates, and what scores them and the positives.

    BM25's candidates keep its order and get the base model's scores: a positive that shares no word with its query
    has no BM25 score to stay below. A cross-encoder brings its own order and its own scores.
    """
    if source == "bm25":
        return rescored(rankers.lexical().as_candidates(), rankers.base.pair_scores), rankers.base.pair_scores
    vectors = rankers.own or rankers.base if source == "self" else rankers.base
    candidates = vectors.rank(DEPTH).as_candidates()
    if not source.startswith(CROSS_ENCODER):
        return candidates, vectors.pair_scores
    score = _by_text(dataset, rankers.cross_encoder(source.removeprefix(CROSS_ENCODER)))
    return reordered(rescored({query: scored[:RESCORED] for query, scored in candidates.items()}, score)), score


def _by_text(dataset: Dataset, score: TextScore) -> Score:
    def by_id(pairs: Iterable[Pair]) -> dict[Pair, float]:
        pairs = list(dict.fromkeys(pairs))
        values = score([(dataset.queries[query], dataset.corpus[document]) for query, document in pairs])
        return dict(zip(pairs, np.asarray(values, dtype=float).reshape(-1).tolist(), strict=True))

    return by_id


def pairs_of(candidates: Candidates) -> list[Pair]:
    """(query id, document id) of every candidate."""
    return [(query, document) for query, scored in candidates.items() for document, _ in scored]


def rescored(candidates: Candidates, score: Score) -> Candidates:
    """The same candidates in the same order, with other scores."""
    scores = score(pairs_of(candidates))
    return {query: [(name, scores[query, name]) for name, _ in scored] for query, scored in candidates.items()}


def reordered(candidates: Candidates) -> Candidates:
    """The same candidates, best first; equal scores keep their order."""
    return {query: sorted(scored, key=lambda item: -item[1]) for query, scored in candidates.items()}


def take_in_turn(found: Sequence[Negatives], per_pair: int) -> Negatives:
    """The first of every source, then the second of every source, none twice, at most `per_pair`.

    >>> take_in_turn([{("q", "p"): ("a", "b")}, {("q", "p"): ("a", "c")}], 3)
    {('q', 'p'): ('a', 'b', 'c')}
    """
    if not found:
        return {}
    turns = {pair: chain.from_iterable(zip_longest(*(negatives[pair] for negatives in found))) for pair in found[0]}
    distinct = {pair: dict.fromkeys(name for name in names if name is not None) for pair, names in turns.items()}
    return {pair: tuple(names)[:per_pair] for pair, names in distinct.items()}
