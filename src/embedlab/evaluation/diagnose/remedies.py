"""Remedies to try before fine-tuning, each with its candidate settings."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pandas as pd

from embedlab.data.chunks import Chunking
from embedlab.data.load import load_dataset
from embedlab.data.splits import seeded_order
from embedlab.evaluation.diagnose.chunking import Chunks, rank_by_best_chunk
from embedlab.evaluation.diagnose.enrichment import Enrichment, affordable, enrichments
from embedlab.evaluation.diagnose.filters import document_label, field_values, guess_values, rank_among
from embedlab.evaluation.diagnose.params import DiagnoseParams
from embedlab.evaluation.diagnose.probe import STEPS, fit_probe
from embedlab.evaluation.diagnose.reranking import rerank
from embedlab.evaluation.diagnose.study import DEPTH, Candidate, Remedy, Study, held_out_vectors
from embedlab.models.adapter import VectorAdapter
from embedlab.models.centring import all_but_the_top, mean_projection
from embedlab.models.encoders import Encoder, open_encoder
from embedlab.models.reranker import Score, load_reranker
from embedlab.models.vector_map import VectorMap
from embedlab.search.exact import Ranking
from embedlab.search.feedback import with_feedback
from embedlab.search.fusion import fuse_rrf, fuse_scores
from embedlab.search.vectors import Vectors

WEIGHTS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))  # weight of the base model in score fusion
DIRECTIONS = (0, 1, 2, 4, 8)  # principal components that centring removes
FEEDBACK_DOCUMENTS = (1, 3, 10)  # first documents that feedback takes as relevant
FEEDBACK_WEIGHTS = (0.1, 0.2, 0.4, 0.8)  # their weight; the query itself has 1
NEIGHBOURS = 20  # training queries that vote for a metadata value
ALLOWED_VALUES = (1, 2, 3)  # numbers of most likely values that a filter allows


def centring(study: Study) -> Remedy:
    """Remove the mean and the main directions of the corpus from queries and documents; see `models.centring`."""

    def centred(setting: str, role_map: VectorMap) -> Candidate:
        adapter = VectorAdapter(setting, role_map, role_map)
        return Candidate(setting, lambda split: study.vectors[split].adapted(adapter).rank(DEPTH))

    corpus = study.corpus_vectors
    removed = [
        centred(_removed(directions), all_but_the_top(corpus, directions))
        for directions in DIRECTIONS
        if directions < corpus.shape[1]
    ]
    return Remedy("centring", [centred("mean projection", mean_projection(corpus)), *removed])


def enrichment(study: Study, ways: Sequence[Enrichment]) -> Remedy:
    """Put headings or metadata in front of the documents and encode them again."""
    return Remedy("enrichment", [_enriched(study, way) for way in ways])


def feedback(study: Study) -> Remedy:
    """Search twice: the second time with queries moved towards the first documents; see `search.feedback`."""

    def moved(documents: int, weight: float) -> Candidate:
        def rank(split: str) -> Ranking:
            return with_feedback(study.vectors[split], study.rankings[split], documents, weight).rank(DEPTH)

        return Candidate(f"first {documents}, weight {weight}", rank)

    return Remedy("feedback", [moved(*setting) for setting in product(FEEDBACK_DOCUMENTS, FEEDBACK_WEIGHTS)])


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
    """Yield every remedy that the parameters request and the data allow, from the cheapest to the most expensive.

    What the data do not allow is named in `study.left_out`, with the reason.
    """
    study.evaluations  # noqa: B018  the time of the base model is not the time of the first remedy
    start = time.perf_counter()
    for remedy in _applicable(study, params):
        yield replace(remedy, preparation=time.perf_counter() - start)
        start = time.perf_counter()


def _applicable(study: Study, params: DiagnoseParams) -> Iterator[Remedy]:
    yield centring(study)
    if params.prompts:
        yield prompts(study, params.prompts)
    yield from _affordable_enrichment(study, params.enrich_characters)
    yield bm25(study)
    yield feedback(study)
    yield hybrid(study)
    if params.chunkings:
        chunked = chunking(study, params.chunkings)
        if chunked.candidates:
            yield chunked
        else:
            study.left_out["chunking"] = "no document is longer than a chunk"
    field, trainable = params.filter_field or document_label(study.data), bool(study.data.pairs("train"))
    if field and (params.filter_known or trainable):
        yield known_filter(study, field) if params.filter_known else guessed_filter(study, field)
    else:
        study.left_out["filter"] = (
            "no training query tells its value" if field else "the documents have no label that tells them apart"
        )
    for name in params.other_models:
        yield model(study, name)
    if params.reranker:
        yield reranking(study, load_reranker(params.reranker), params.rerank_depth)
    if trainable:
        yield probe(study, steps=params.probe_steps, seed=params.seed)
    else:
        study.left_out["fine-tune"] = "there are no training pairs whose document is searched"


def open_study(params: DiagnoseParams) -> Study:
    """Load the dataset and the base model of `params`."""
    data = load_dataset(params.dataset, max_examples=params.max_examples or None, training=False)
    return Study(data, open_encoder(params.model_name), params.max_docs)


def _removed(directions: int) -> str:
    """Name the setting of centring that removes the mean and so many principal components."""
    if not directions:
        return "mean removed"
    return f"mean and {directions} direction{'s' if directions > 1 else ''} removed"


def _affordable_enrichment(study: Study, characters: int) -> Iterator[Remedy]:
    """Yield the enrichment, or say in `study.left_out` why there is none."""
    if not characters:
        return
    ways = enrichments(study.data)
    if tried := affordable(ways, study.data.corpus, characters):
        yield enrichment(study, tried)
    elif ways:
        needed = min(way.characters(study.data.corpus) for way in ways)
        study.left_out["enrichment"] = (
            f"it would encode {needed:,} characters, more than enrich_characters={characters:,}; "
            "set max_docs, or raise enrich_characters on the command line"
        )
    else:
        study.left_out["enrichment"] = "the documents have no headings or metadata that say more than their text"


def _enriched(study: Study, way: Enrichment) -> Candidate:
    @cache
    def corpus() -> np.ndarray:
        texts = way.texts(study.data.corpus)
        encoded = study.base.encode(
            list(texts.values()), stage=f"encode documents with {way.setting}", prompt=study.base.document_prompt
        )
        vectors, row_of = np.array(study.corpus_vectors), {d: row for row, d in enumerate(study.data.corpus)}
        vectors[[row_of[document] for document in texts]] = encoded
        return vectors

    return Candidate(way.setting, lambda split: replace(study.vectors[split], corpus=corpus()).rank(DEPTH))


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
