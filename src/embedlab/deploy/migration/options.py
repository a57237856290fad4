"""The ways from an old model to a new one. Each is the vectors that it searches with, and what it re-embeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from embedlab.data.dataset import Qrels
from embedlab.evaluation.metrics import evaluate
from embedlab.models.vector_map import VectorMap
from embedlab.search.vectors import Vectors

METRIC, K = "ndcg@10", 10
STAY, QUERY_ADAPTER, DOCUMENT_ADAPTER, PARTLY, RE_EMBED = (
    "stay",
    "query adapter",
    "document adapter",
    "partly re-embedded",
    "re-embed",
)
OLD, NEW = "old", "new"


@dataclass(frozen=True, eq=False)
class Spaces:
    """The same queries and documents in the space of every model.

    Attributes:
        old, new: vectors of the old and the new model.
        tuned: name of the option -> vectors of a model that was tuned for it.
    """

    old: Vectors
    new: Vectors
    tuned: Mapping[str, Vectors] = field(default_factory=dict)


class Judged(NamedTuple):
    """The queries of one split, encoded by every model, and the documents that are relevant to them."""

    spaces: Spaces
    qrels: Qrels

    def values(self, option: Option) -> np.ndarray:
        """Return nDCG@10 of an option for every query (Q,)."""
        return ndcg(option.vectors(self.spaces), self.qrels)


class Maps(NamedTuple):
    """Maps between the two spaces.

    Attributes:
        query: new model -> old model, for queries that search the old index.
        document: old model -> new model, for the documents of the old index.
    """

    query: VectorMap
    document: VectorMap


@dataclass(frozen=True, eq=False)
class Option:
    """One way to go on.

    Attributes:
        name: short name.
        meaning: what is done, for people.
        vectors: the vectors that this way searches with.
        model: the model that encodes queries and re-embedded documents: `OLD`, `NEW` or the name of a tuned one.
        share: of the documents that `model` encodes for the index, from 0 to 1.
        fits_map: whether a sample of the documents is encoded to fit a map.
    """

    name: str
    meaning: str
    vectors: Callable[[Spaces], Vectors]
    model: str
    share: float
    fits_map: bool = False


def ndcg(vectors: Vectors, qrels: Qrels) -> np.ndarray:
    """Search exactly and return nDCG@10 of every query (Q,)."""
    return evaluate(vectors.rank(K), qrels, [K]).of(METRIC)


def query_adapted(spaces: Spaces, query_map: VectorMap) -> Vectors:
    """Return the new model's queries, mapped into the old space, and the old documents."""
    return replace(spaces.new, queries=query_map.apply(spaces.new.queries), corpus=spaces.old.corpus)


def documents_adapted(spaces: Spaces, document_map: VectorMap) -> Vectors:
    """Return the new model's queries and the old documents, mapped into the new space."""
    return replace(spaces.new, corpus=document_map.apply(spaces.old.corpus))


def partly_re_embedded(spaces: Spaces, document_map: VectorMap, share: float, seed: int) -> Vectors:
    """Return the new model's queries; a random share of the documents re-embedded, the others mapped."""
    is_new = np.random.default_rng(seed).random(len(spaces.new.corpus))[:, None] < share
    return replace(spaces.new, corpus=np.where(is_new, spaces.new.corpus, document_map.apply(spaces.old.corpus)))


def all_options(maps: Maps, tuned: Mapping[str, str], *, share: float = 0.5, seed: int = 0) -> list[Option]:
    """List the options, the one that changes least first.

    Args:
        maps: between the two spaces.
        tuned: name of an option -> what it means; `Spaces.tuned` holds the vectors.
        share: of the documents that `PARTLY` re-embeds.
        seed: decides which documents these are.
    """
    mixed = f"re-embed {share:.0%} of the documents and map the others into the new space"
    return [
        Option(STAY, "stay with the old model", lambda spaces: spaces.old, OLD, 0.0),
        Option(
            QUERY_ADAPTER,
            "map the new model's query vectors into the old index",
            lambda spaces: query_adapted(spaces, maps.query),
            NEW,
            0.0,
            fits_map=True,
        ),
        Option(
            DOCUMENT_ADAPTER,
            "map the old document vectors into the new model's space",
            lambda spaces: documents_adapted(spaces, maps.document),
            NEW,
            0.0,
            fits_map=True,
        ),
        Option(
            PARTLY,
            mixed,
            lambda spaces: partly_re_embedded(spaces, maps.document, share, seed),
            NEW,
            share,
            fits_map=True,
        ),
        Option(RE_EMBED, "re-embed all documents with the new model", lambda spaces: spaces.new, NEW, 1.0),
        *(_tuned_option(name, meaning) for name, meaning in tuned.items()),
    ]


def _tuned_option(name: str, meaning: str) -> Option:
    return Option(name, meaning, lambda spaces: spaces.tuned[name], name, 1.0)
