"""Remedies to try before fine-tuning, each with its candidate settings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pandas as pd

from embedlab.data.chunks import Chunking
from embedlab.data.load import load_dataset
from embedlab.data.splits import seeded_order
from embedlab.evaluation.diagnose.chunking import Chunks, rank_by_best_chunk
from embedlab.evaluation.diagnose.filters import document_label, field_values, guess_values, rank_among
from embedlab.evaluation.diagnose.params import DiagnoseParams
from embedlab.evaluation.diagnose.probe import STEPS, fit_probe
from embedlab.evaluation.diagnose.reranking import rerank
from embedlab.evaluation.diagnose.study import DEPTH, Candidate, Remedy, Study, held_out_vectors
from embedlab.models.encoders import Encoder, open_encoder
from embedlab.models.reranker import Score, load_reranker
from embedlab.search.exact import Ranking
from embedlab.search.fusion import fuse_rrf, fuse_scores
from embedlab.search.vectors import Vectors

WEIGHTS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))  # weight of the base model in score fusion
NEIGHBOURS = 20  # training queries that vote for a metadata value
ALLOWED_VALUES = (1, 2, 3)  # numbers of most likely values that a filter allows


def bm25(study: Study) -> Remedy:
    """Use BM25 only."""
    return Remedy("bm25", [Candidate("", study.bm25.__getitem__)])


def hybrid(study: Study) -> Remedy:
    """Fuse BM25 and the base model, by reciprocal ranks or by weighted scores."""

    def by_scores(weight: float) -> Candidate:
        setting = f"score fusion, weight {weight} on the model"
        return Candidate(setting, lambda split: fuse_scores(study.rankings[split], study.bm25[split], weight))

    by_ranks = Candidate("reciprocal ranks", lambda split: fuse_rrf([study.rankings[split], study.bm25[split]], DEPTH))
    return Remedy("hybrid", [by_ranks, *map(by_scores, WEIGHTS)])


def model(study: Study, name: str) -> Remedy:
    """Use another base model."""
    return Remedy("model", [_dense(study, open_encoder(name), name)])


def prompts(study: Study, choices: Sequence[str]) -> Remedy:
    """Use other prompts, given as `QUERY PROMPT||DOCUMENT PROMPT`."""
    return Remedy("prompts", [_prompted(study, choice) for choice in choices])


def chunking(study: Study, specs: Sequence[str]) -> Remedy:
    """Split documents into chunks and rank by the best chunk; settings that split no document are left out."""
    chunked = [(way, Chunks.of(study.data.corpus, way)) for way in map(Chunking.parse, specs)]
    candidates = [_chunked(study, way, chunks) for way, chunks in chunked if len(chunks.texts) > len(study.data.corpus)]
    return Remedy("chunking", candidates)


def reranking(study: Study, score: Score, depth: int) -> Remedy:
    """Reorder the base model's first `depth` documents with a cross-encoder."""

    def rank(split: str) -> Ranking:
        queries = study.data.split_queries(split)
        return rerank(study.rankings[split], queries, study.data.corpus, score, depth)

    return Remedy("reranker", [Candidate(f"first {depth}", rank)])


def known_filter(study: Study, field: str) -> Remedy:
    """Search only documents with the query's value of the field, assuming that it is known when the query arrives."""
    values = field_values(study.data, field)

    def rank(split: str) -> Ranking:
        vectors = study.vectors[split]
        allowed = [frozenset({values[query]}) if query in values else frozenset() for query in vectors.query_ids]
        return rank_among(vectors, allowed, values, DEPTH)

    return Remedy("filter", [Candidate(f"{field}, known", rank)])


def guessed_filter(study: Study, field: str) -> Remedy:
    """Search only documents with a predicted value of the field; see `filters.guess_values`."""
    values = field_values(study.data, field)
    answers = {
        query: [values[document] for document in grades if document in values]
        for query, grades in study.data.qrels["train"].items()
    }

    @cache
    def guesses(split: str) -> list[list[str]]:
        return guess_values(study.train_vectors, answers, study.vectors[split], NEIGHBOURS)

    def allowing(count: int) -> Candidate:
        def rank(split: str) -> Ranking:
            allowed = [frozenset(guess[:count]) for guess in guesses(split)]
            return rank_among(study.vectors[split], allowed, values, DEPTH)

        return Candidate(f"{field}, {count} most likely", rank)

    return Remedy("filter", [allowing(count) for count in ALLOWED_VALUES])


def probe(study: Study, *, steps: int = STEPS, seed: int = 0, share: float = 1.0) -> Remedy:
    """Train a linear probe, a cheap proxy for fine-tuning; see `probe.fit_probe`.

    Args:
        study: dataset and base model.
        steps: optimiser steps.
        seed: seed of the sample of training queries and of the batches.
        share: share of the training queries to train on.
    """
    queries = seeded_order(study.data.qrels["train"], seed)
    sample = set(queries[: math.ceil(share * len(queries))])
    pairs = [(query, document) for query, document in study.data.pairs("train") if query in sample]
    dev = study.vectors["dev"]
    fitted = fit_probe(study.train_vectors, pairs, dev, study.data.qrels["dev"], steps=steps, seed=seed)
    setting = f"linear probe, step {fitted.step}"

    def rank(split: str) -> Ranking:
        return fitted.apply(study.vectors[split]).rank(DEPTH)

    return Remedy("fine-tune", [Candidate(setting, rank, unchanged=fitted.step == 0)])


def data_curve(study: Study, shares: Sequence[float], *, steps: int = STEPS, seed: int = 0) -> pd.DataFrame:
    """Measure the probe's gain by number of training queries. If it still rises at the end, more pairs would help.

    The samples are nested, and every point uses its best step on dev. For a share of 1, a probe that the study has
    already compared is reused.

    Args:
        study: dataset and base model.
        shares: shares of the training queries.
        steps: optimiser steps.
        seed: seed of the samples and batches.

    Returns:
        One row per share: queries, gain, gain_low, gain_high (nDCG@10 over the base model on test).
    """
    rows, compared = [], [outcome for outcome in study.outcomes if outcome.finding.kind == "fine-tune"]
    for share in shares:
        full = compared[-1] if share == 1 and compared else None
        gain = (full or study.measure(probe(study, steps=steps, seed=seed, share=share))).finding.gain
        queries = math.ceil(share * len(study.data.qrels["train"]))
        rows.append({"queries": queries, "gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high})
    return pd.DataFrame(rows)


def applicable(study: Study, params: DiagnoseParams) -> Iterator[Remedy]:
    """Yield every remedy that the parameters request and the data allow, from the cheapest to the most expensive."""
    if params.prompts:
        yield prompts(study, params.prompts)
    yield bm25(study)
    yield hybrid(study)
    chunked = chunking(study, params.chunkings)
    if chunked.candidates:
        yield chunked
    field, trainable = params.filter_field or document_label(study.data), bool(study.data.pairs("train"))
    if field and (params.filter_known or trainable):
        yield known_filter(study, field) if params.filter_known else guessed_filter(study, field)
    for name in params.other_models:
        yield model(study, name)
    if params.reranker:
        yield reranking(study, load_reranker(params.reranker), params.rerank_depth)
    if trainable:
        yield probe(study, steps=params.probe_steps, seed=params.seed)


def open_study(params: DiagnoseParams) -> Study:
    """Load the dataset and the base model of `params`."""
    data = load_dataset(params.dataset, max_examples=params.max_examples or None, training=False)
    return Study(data, open_encoder(params.model_name), params.max_docs)


def _dense(study: Study, encoder: Encoder, setting: str, corpus: np.ndarray | None = None) -> Candidate:
    @cache
    def vectors() -> dict[str, Vectors]:
        return held_out_vectors(encoder, study.data, corpus)

    return Candidate(setting, lambda split: vectors()[split].rank(DEPTH))


def _prompted(study: Study, choice: str) -> Candidate:
    encoder = study.base.with_prompts(choice)
    same_documents = encoder.document_prompt == study.base.document_prompt
    return _dense(study, encoder, choice, study.corpus_vectors if same_documents else None)


def _chunked(study: Study, way: Chunking, chunks: Chunks) -> Candidate:
    @cache
    def vectors() -> np.ndarray:
        return study.base.encode(chunks.texts, stage=f"encode chunks of {way}", prompt=study.base.document_prompt)

    return Candidate(f"{way} words", lambda split: rank_by_best_chunk(study.vectors[split], chunks, vectors(), DEPTH))
