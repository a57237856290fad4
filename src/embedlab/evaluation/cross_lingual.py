"""Measure search across languages: quality by language, and whether a model prefers the query's language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from embedlab.data.dataset import Dataset, Qrels
from embedlab.errors import ParameterError
from embedlab.evaluation.metrics import Evaluation, evaluate
from embedlab.evaluation.significance import NAN, PairedDifference, bootstrap_ci, paired_difference
from embedlab.evaluation.slices import UNKNOWN, Fields, slice_means
from embedlab.search.exact import ABSENT, Ranking
from embedlab.search.vectors import Vectors, encode_split

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BY = "language"
DEPTH = 100


def quality_by_language(
    rankings: Mapping[str, Ranking], qrels: Qrels, fields: Fields, metric: str = "ndcg@10"
) -> pd.DataFrame:
    """Evaluate systems for the queries of every language, with 95 % intervals.

    A system that finds nothing for any query of a language, such as BM25 without a common word, has no value there.

    Args:
        rankings: system -> ranking of the same queries.
        qrels: their judgements.
        fields: query id -> fields, with `language`.
        metric: e.g. `ndcg@10`.

    Returns:
        Columns system, slice (the language), n, mean, ci_low, ci_high.
    """
    tables = {}
    for name, ranking in rankings.items():
        table = slice_means(evaluate(ranking, qrels), fields, BY, metric)
        has_answer = (ranking.indices != ABSENT).any(axis=1)
        answered = {
            fields.get(query, {}).get(BY, UNKNOWN) for query in np.array(ranking.query_ids)[has_answer].tolist()
        }
        table.loc[~table["slice"].isin(answered), ["mean", "ci_low", "ci_high"]] = NAN
        tables[name] = table
    return pd.concat(tables, names=["system"]).reset_index("system").reset_index(drop=True)


def language_bias(ranking: Ranking, fields: Fields, k: int = 10) -> pd.DataFrame:
    """Compare the languages of the top documents with those of the corpus, for the queries of every language.

    Args:
        ranking: of a corpus in two languages or more.
        fields: query or document id -> fields, with `language`.
        k: documents of a query to look at; empty ranks do not count.

    Returns:
        Columns language, n (queries), own_share (share of the top k in the query's own language), ci_low, ci_high,
        corpus_share (share of the corpus in that language) and preference (own_share - corpus_share: 0 for a model
        that does not look at the language, above 0 for one that prefers its own).

    Raises:
        ParameterError: the corpus has one language only, or queries or documents lack the field.
    """
    query_languages = np.array([fields.get(query, {}).get(BY, "") for query in ranking.query_ids])
    of_documents = np.array([fields.get(document, {}).get(BY, "") for document in ranking.corpus_ids])
    if "" in query_languages or "" in of_documents or len(set(of_documents)) < 2:
        problem = "language bias needs the field 'language' for all texts, and a corpus in two languages or more"
        raise ParameterError(problem, remedy="Use a corpus such as icd10multi:de-en+de", field="fields")
    top = ranking.indices[:, :k]
    own = (of_documents[top] == query_languages[:, None]) & (top != ABSENT)
    ranked_count = (top != ABSENT).sum(axis=1)
    shares = np.divide(own.sum(axis=1), ranked_count, out=np.full(len(ranked_count), np.nan), where=ranked_count > 0)
    rows = []
    for language in dict.fromkeys(query_languages.tolist()):
        interval = bootstrap_ci(shares[query_languages == language])
        in_corpus = float((of_documents == language).mean())
        rows.append(
            {
                "language": language,
                "n": interval.n,
                "own_share": interval.mean,
                "ci_low": interval.low,
                "ci_high": interval.high,
                "corpus_share": in_corpus,
                "preference": interval.mean - in_corpus,
            }
        )
    return pd.DataFrame(rows)


def evaluate_queries(
    model: SentenceTransformer,
    dataset: Dataset,
    queries: Mapping[str, str],
    split: str = "test",
    *,
    corpus_vectors: np.ndarray | None = None,
) -> Evaluation:
    """Evaluate a model on other wordings of queries, such as code-mixed ones.

    Args:
        model: any sentence-transformers model.
        dataset: its corpus and judgements are used.
        queries: query id -> text; ids of queries in the split.
        split: name of the split.
        corpus_vectors: the corpus (N, d), if the model has already encoded it.

    Raises:
        ParameterError: there are no queries.
    """
    qrels = {split: {query: dataset.qrels[split][query] for query in queries}}
    reworded = replace(dataset, queries=queries, qrels=qrels)
    return evaluate(encode_split(model, reworded, split, corpus_vectors=corpus_vectors).rank(DEPTH), qrels[split])


def evaluate_systems(vectors: Mapping[str, Vectors], dataset: Dataset, split: str = "test") -> dict[str, Evaluation]:
    """Evaluate systems on another dataset, for example one in English.

    Args:
        vectors: system -> vectors of the queries of the split and of the corpus.
        dataset: gives the judgements.
        split: name of the split.
    """
    return {name: evaluate(found.rank(DEPTH), dataset.qrels[split]) for name, found in vectors.items()}


def compare_systems(
    evaluations: Mapping[str, Evaluation], system: str, against: str, metric: str = "ndcg@10"
) -> PairedDifference:
    """Compare two systems query by query: does one lose in a language what it gained in others?

    Args:
        evaluations: from `evaluate_systems`.
        system, against: two of its systems; the difference is `system` minus `against`.
        metric: e.g. `ndcg@10`.
    """
    return paired_difference(evaluations[system].of(metric), evaluations[against].of(metric))
