"""What can be tried before fine-tuning, each as a `Remedy` with its settings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pandas as pd

from embedlab.data.splits import seeded_order
from embedlab.evaluation.diagnose.chunking import Chunking, Chunks, rank_by_best_chunk
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

WEIGHTS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))  # the base model's share in score fusion
NEIGHBOURS = 20  # training queries that vote for a metadata value
VALUES_KEPT = (1, 2, 3)  # likeliest values that may pass a filter


def bm25(study: Study) -> Remedy:
    """BM25 alone."""
    return Remedy("bm25", [Candidate("", study.bm25.__getitem__)])


def hybrid(study: Study) -> Remedy:
    """BM25 and the base model fused: by reciprocal ranks, or by scores with a weight."""

    def by_scores(weight: float) -> Candidate:
        setting = f"score fusion, weight {weight} on the model"
        return Candidate(setting, lambda split: fuse_scores(study.rankings[split], study.bm25[split], weight))

    by_ranks = Candidate("reciprocal ranks", lambda split: fuse_rrf([study.rankings[split], study.bm25[split]], DEPTH))
    return Remedy("hybrid", [by_ranks, *map(by_scores, WEIGHTS)])


def model(study: Study, name: str) -> Remedy:
    """Another base model instead of this one."""
    return Remedy("model", [_dense(study, open_encoder(name), name)])


def prompts(study: Study, choices: Sequence[str]) -> Remedy:
    """Other prompts before queries and documents; `QUERY PROMPT||DOCUMENT PROMPT` each."""
    return Remedy("prompts", [_prompted(study, choice) for choice in choices])


def chunking(study: Study, specs: Sequence[str]) -> Remedy:
    """Documents in chunks, ranked by their best one; ways that cut no document are left out."""
    ways = [Chunking.parse(spec) for spec in specs]
    cut = [(way, Chunks.of(study.data.corpus, way)) for way in ways]
    candidates = [_chunked(study, way, chunks) for way, chunks in cut if len(chunks.texts) > len(study.data.corpus)]
    return Remedy("chunking", candidates)


def reranking(study: Study, score: Score, depth: int) -> Remedy:
    """A cross-encoder over the base model's first documents."""

    def rank(split: str) -> Ranking:
        queries = study.data.split_queries(split)
        return rerank(study.rankings[split], queries, study.data.corpus, score, depth)

    return Remedy("reranker", [Candidate(f"first {depth}", rank)])


def known_filter(study: Study, field: str) -> Remedy:
    """Only documents that have the query's own value of the field: as good as filters get, if it is known in time."""
    values = field_values(study.data, field)

    def rank(split: str) -> Ranking:
        vectors = study.vectors[split]
        own = [frozenset({values[query]}) if query in values else frozenset() for query in vectors.query_ids]
        return rank_among(vectors, own, values, DEPTH)

    return Remedy("filter", [Candidate(f"{field}, known", rank)])


def guessed_filter(study: Study, field: str) -> Remedy:
    """Only documents with one of the values that the nearest training queries' answers have."""
    values = field_values(study.data, field)
    answers = {
        query: [values[document] for document in grades if document in values]
        for query, grades in study.data.qrels["train"].items()
    }

    @cache
    def guesses(split: str) -> list[list[str]]:
        return guess_values(study.train_vectors, answers, study.vectors[split], NEIGHBOURS)

    def keeping(count: int) -> Candidate:
        def rank(split: str) -> Ranking:
            allowed = [frozenset(guess[:count]) for guess in guesses(split)]
            return rank_among(study.vectors[split], allowed, values, DEPTH)

        return Candidate(f"{field}, {count} likeliest", rank)

    return Remedy("filter", [keeping(count) for count in VALUES_KEPT])


def probe(study: Study, *, steps: int = STEPS, seed: int = 0, share: float = 1.0) -> Remedy:
    """A fine-tune tried in small, on a share of the training queries; see `probe.fit_probe`."""
    queries = seeded_order(study.data.qrels["train"], seed)
    kept = set(queries[: math.ceil(share * len(queries))])
    pairs = [(query, document) for query, document in study.data.pairs("train") if query in kept]
    dev = study.vectors["dev"]
    fitted = fit_probe(study.train_vectors, pairs, dev, study.data.qrels["dev"], steps=steps, seed=seed)
    setting = f"linear probe, step {fitted.step}"
    return Remedy("fine-tune", [Candidate(setting, lambda split: fitted.apply(study.vectors[split]).rank(DEPTH))])


def data_curve(study: Study, shares: Sequence[float], *, steps: int = STEPS, seed: int = 0) -> pd.DataFrame:
    """The probe's gain by the number of training queries: still rising at the end, more pairs would help further.

    The samples are nested; every point takes its best step on dev. A share of 1 is not fitted again where the study has
    compared the probe already.

    Returns:
        Columns queries, gain, gain_low, gain_high (nDCG@10 over the base model on test), one row per share.
    """
    rows, compared = [], [outcome for outcome in study.outcomes if outcome.finding.kind == "fine-tune"]
    for share in shares:
        known = compared[-1] if share == 1 and compared else None
        gain = (known or study.measure(probe(study, steps=steps, seed=seed, share=share))).finding.gain
        queries = math.ceil(share * len(study.data.qrels["train"]))
        rows.append({"queries": queries, "gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high})
    return pd.DataFrame(rows)


def applicable(study: Study, params: DiagnoseParams) -> Iterator[Remedy]:
    """Every remedy that the parameters ask for and the data allow, from the cheapest to the costliest."""
    if params.prompts:
        yield prompts(study, params.prompts)
    yield bm25(study)
    yield hybrid(study)
    cut = chunking(study, params.chunkings)
    if cut.candidates:
        yield cut
    field, trainable = params.filter_field or document_label(study.data), bool(study.data.pairs("train"))
    if field and (params.filter_known or trainable):
        yield known_filter(study, field) if params.filter_known else guessed_filter(study, field)
    for name in params.other_models:
        yield model(study, name)
    if params.reranker:
        yield reranking(study, load_reranker(params.reranker), params.rerank_depth)
    if trainable:
        yield probe(study, steps=params.probe_steps, seed=params.seed)


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
