"""Measure search across languages: quality by language, and whether a model prefers the query's language."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from embedlab.data.dataset import Dataset, Qrels
from embedlab.data.leakage import codes_of
from embedlab.data.load import load_dataset
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.metrics import Evaluation, evaluate
from embedlab.evaluation.retrieval import sample_corpus
from embedlab.evaluation.significance import NAN, PairedDifference, bootstrap_ci, paired_difference
from embedlab.evaluation.slices import UNKNOWN, Fields, slice_means
from embedlab.search.exact import ABSENT, Ranking
from embedlab.search.vectors import Vectors, encode_split

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)

BY = "language"
DEPTH = 100
DIRECTION_DOCUMENTS = 1_500  # searched in every direction: with equally many, languages compare


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
    evaluations = {name: evaluate(ranking, qrels) for name, ranking in rankings.items()}
    table = quality_by_field(evaluations, fields, metric)
    for name, ranking in rankings.items():
        has_answer = (ranking.indices != ABSENT).any(axis=1)
        answered = {
            fields.get(query, {}).get(BY, UNKNOWN) for query in np.array(ranking.query_ids)[has_answer].tolist()
        }
        unanswered = (table["system"] == name) & ~table["slice"].isin(answered)
        table.loc[unanswered, ["mean", "ci_low", "ci_high"]] = NAN
    return table


def quality_by_field(
    evaluations: Mapping[str, Evaluation], fields: Fields, metric: str = "ndcg@10", *, by: str = BY
) -> pd.DataFrame:
    """Tabulate systems for the queries of every slice, with 95 % intervals; see `slice_means`.

    Args:
        evaluations: system -> evaluation of the same queries.
        fields: query id -> fields.
        metric: e.g. `ndcg@10`.
        by: the field.

    Returns:
        Columns system, slice, n, mean, ci_low, ci_high.
    """
    tables = {name: slice_means(evaluation, fields, by, metric) for name, evaluation in evaluations.items()}
    if not tables:
        return pd.DataFrame(columns=["system", "slice", "n", "mean", "ci_low", "ci_high"])
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
    in_own_language = (of_documents[top] == query_languages[:, None]) & (top != ABSENT)
    ranked_count = (top != ABSENT).sum(axis=1)
    unranked = np.full(len(ranked_count), np.nan)
    shares = np.divide(in_own_language.sum(axis=1), ranked_count, out=unranked, where=ranked_count > 0)
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


@dataclass(frozen=True, eq=False)
class Direction:
    """One direction of search.

    Attributes:
        kind: what it has in common with others: `X to en`, `en to X` or `X to X`.
        name: such as `de-en`; the spec of a dataset that has no pair of languages.
        data: its test queries and its corpus.
    """

    kind: str
    name: str
    data: Dataset


def directions(
    dataset: Dataset, same_language: Iterable[str] = (), *, max_docs: int = DIRECTION_DOCUMENTS
) -> list[Direction]:
    """Split a dataset of translations into directions: X to English, English to X, and X to X.

    In the first direction the names in X search the documents, in the second the documents of the test queries search
    all names in X. Search within a language needs other data, because a name must not search for itself.

    Args:
        dataset: its queries are translations of its documents, and both have the field `language`.
        same_language: specs of datasets for search within one language, such as `icd10ja`. In `icd10multi:{}-{}`, `{}`
            becomes every language of the dataset; a warning names those that the spec does not have. Only their
            queries about held-out diseases are kept.
        max_docs: documents to search in every direction; see `sample_corpus`.

    Raises:
        ParameterError: a query or document has no language, or no query of a spec is about a held-out disease.
        DataError: a spec is wrong.
    """
    query_languages, document_languages = (
        _languages(dataset, keys) for keys in (dataset.qrels["test"], dataset.corpus)
    )
    to = "+".join(document_languages)
    all_directions: list[Direction] = []
    for language in query_languages:
        all_directions.append(Direction(f"X to {to}", f"{language}-{to}", _asked_in(dataset, language)))
    for language in query_languages:
        pair = f"{to}-{language}"
        all_directions.append(Direction(f"{to} to X", pair, _reversed(dataset, language, pair)))
    for spec in same_language:
        for language in dict.fromkeys((*query_languages, *document_languages)) if "{}" in spec else [""]:
            try:
                data = load_dataset(spec.replace("{}", language), training=False)
            except DataError as error:
                if not language:
                    raise
                _log.warning("search within '%s' is left out: %s", language, error)
                continue
            name = f"{language}-{language}" if language else spec
            all_directions.append(Direction("X to X", name, _about_held_out(data, dataset)))
    return [replace(direction, data=sample_corpus(direction.data, "test", max_docs)) for direction in all_directions]


def _languages(dataset: Dataset, keys: Iterable[str]) -> list[str]:
    languages = list(dict.fromkeys(dataset.fields.get(key, {}).get(BY, "") for key in keys))
    if "" in languages:
        problem = "the directions of a dataset need the field 'language' for all queries and documents"
        raise ParameterError(problem, remedy="Use icd10multi:all-en or parallel:FILE", field="dataset")
    return sorted(languages)


def _asked_in(dataset: Dataset, language: str) -> Dataset:
    """The dataset with the test queries in one language only."""
    test = {q: grades for q, grades in dataset.qrels["test"].items() if dataset.fields[q][BY] == language}
    return replace(dataset, qrels={"test": test})


def _reversed(dataset: Dataset, language: str, pair: str) -> Dataset:
    """The documents of the test queries in a language search the queries of all splits in this language."""
    names = {q: text for q, text in dataset.queries.items() if dataset.fields[q][BY] == language}
    judged: dict[str, dict[str, int]] = {}
    in_language = _asked_in(dataset, language)
    for query, document in in_language.pairs("test"):
        judged.setdefault(document, {})[query] = in_language.qrels["test"][query][document]
    texts = {document: dataset.corpus[document] for document in judged}
    fields = {**dataset.fields, **{document: {**dataset.fields[document], "pair": pair} for document in judged}}
    qrels = {"test": judged}
    return replace(dataset, corpus=names, queries=texts, qrels=qrels, fields=fields, triplets=(), groups={})


def _about_held_out(dataset: Dataset, trained: Dataset) -> Dataset:
    """The test queries about codes of the test split that a model was trained with; all of them without codes."""
    held_out = {code for q, grades in trained.qrels["test"].items() for code in codes_of(trained, q, grades)}
    if not held_out or not dataset.codes:
        return dataset
    about_held_out: dict[str, Mapping[str, int]] = {}
    for query, grades in dataset.qrels["test"].items():
        codes = codes_of(dataset, query, grades)
        if codes and held_out.issuperset(codes):
            about_held_out[query] = grades
    if not about_held_out:
        problem = f"no test query of {dataset.name} is about a disease of the test split of {trained.name}"
        raise ParameterError(problem, remedy="Use a larger size of the dataset, or leave it out", field="same_language")
    return replace(dataset, qrels={"test": about_held_out})


def quality_by_direction(
    tasks: Iterable[Direction], evaluations: Mapping[str, Mapping[str, Evaluation]], metric: str = "ndcg@10"
) -> pd.DataFrame:
    """Tabulate systems and directions, with 95 % intervals.

    Args:
        tasks: from `directions`.
        evaluations: name of a direction -> system -> evaluation.
        metric: e.g. `ndcg@10`.

    Returns:
        Columns kind, direction, texts (documents searched), system, n (queries), mean, ci_low, ci_high.
    """
    rows = []
    for direction in tasks:
        for system, evaluation in evaluations[direction.name].items():
            interval = bootstrap_ci(evaluation.of(metric))
            bounds = {"n": interval.n, "mean": interval.mean, "ci_low": interval.low, "ci_high": interval.high}
            names = {"kind": direction.kind, "direction": direction.name, "texts": len(direction.data.corpus)}
            rows.append({**names, "system": system, **bounds})
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
    return {name: evaluate(of_system.rank(DEPTH), dataset.qrels[split]) for name, of_system in vectors.items()}


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
