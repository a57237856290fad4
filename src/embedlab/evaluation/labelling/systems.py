"""Rank a split with BM25 and with every model."""

from __future__ import annotations

from collections.abc import Sequence

from embedlab.data.dataset import Dataset
from embedlab.models.encoders import Encoder, open_encoder
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.encoded import judged_queries
from embedlab.search.exact import Ranking
from embedlab.search.vectors import encode_split

BM25 = "bm25"


def rank_systems(dataset: Dataset, models: Sequence[str], split: str, k: int) -> dict[str, Ranking]:
    """Rank the queries of a split with each model and with BM25.

    Args:
        dataset: queries and corpus.
        models: folders, hub names or `openai:MODEL@URL`.
        split: the split of the queries.
        k: documents per query.

    Returns:
        System -> ranking, models first; without BM25 where it is not measurable, see `bm25_ranking`.

    Raises:
        ModelError: a model cannot be loaded or reached.
        ParameterError: the split has no queries.
    """
    queries = judged_queries(dataset, split)
    rankings = {}
    for name in dict.fromkeys(models):
        encoder = open_encoder(name)
        rankings[name] = encode_split(encoder, dataset, split, encode=Encoder.encode).rank(k)
    lexical = bm25_ranking(dataset.corpus, queries, k, own_documents=dataset.own_documents(split))
    return {**rankings, BM25: lexical} if lexical.measurable else rankings
