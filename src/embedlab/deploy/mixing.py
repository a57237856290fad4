"""What happens if vectors of two models are mixed: the quality that an unguarded deployment would serve."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embedlab.deploy.shadow import Side
from embedlab.errors import DataError
from embedlab.search.exact import Ranking, search

DEPTH = 100  # documents ranked per query
NEW_QUERIES = "new queries, old documents"
HALF_OLD = "old queries, half of the documents re-embedded"
HALF_NEW = "new queries, half of the documents re-embedded"


def mixed_rankings(old: Side, new: Side, queries: Mapping[str, str], *, seed: int = 0) -> dict[str, Ranking]:
    """Search with mixed vectors, past the check that normally prevents it.

    Args:
        old, new: two versions of the same documents, each with its encoder.
        queries: query id -> text.
        seed: decides which half of the documents is re-embedded.

    Returns:
        Three mixtures -> ranking: `NEW_QUERIES`, `HALF_OLD`, `HALF_NEW`.

    Raises:
        DataError: the versions hold different documents, or their dimensions differ.
    """
    if old.served.ids != new.served.ids or old.served.space.dimension != new.served.space.dimension:
        problem = "The versions differ in documents or dimensions, so their vectors cannot be mixed"
        raise DataError(problem, remedy="Build both versions from the same corpus, with models of the same dimension")
    texts = list(queries.values())
    old_queries, new_queries = old.encoder.encode_queries(texts), new.encoder.encode_queries(texts)
    re_embedded = np.random.default_rng(seed).random(len(old.served.ids))[:, None] < 0.5
    half = np.where(re_embedded, new.served.index.vectors, old.served.index.vectors)
    results = {
        NEW_QUERIES: old.served.index.search(new_queries, DEPTH),
        HALF_OLD: search(old_queries, half, DEPTH),
        HALF_NEW: search(new_queries, half, DEPTH),
    }
    return {name: Ranking.from_search(list(queries), old.served.ids, *result) for name, result in results.items()}
