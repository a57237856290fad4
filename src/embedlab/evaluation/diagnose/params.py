"""Parameters of a diagnosis, the same in the notebook and on the command line."""

from __future__ import annotations

from embedlab.evaluation.diagnose.probe import STEPS
from embedlab.evaluation.diagnose.verdict import Thresholds
from embedlab.params import Count, CountOrNone, Share, TrainingParams

CHUNKINGS = ["128", "128+32", "128+32 sentences", "64+16 sentences"]
ENRICH_CHARACTERS = 3_000_000  # a few minutes of one CPU core with a small model
PROMPTS = ["Represent this sentence for searching relevant passages: ||", "query: ||passage: "]


class DiagnoseParams(TrainingParams):
    """Parameters of a diagnosis.

    Attributes:
        max_steps: maximum number of probe steps; 0 = no maximum.
        max_examples: maximum number of training queries; 0 = all.
        max_docs: maximum number of documents to search, always including all answers of dev and test; 0 = all.
        other_models: models to compare with `model_name`: folders, hub names or `openai:MODEL@URL`.
        prompts: list of `QUERY PROMPT||DOCUMENT PROMPT`.
        chunkings: ways to split documents, see `chunking.Chunking`.
        reranker: folder or hub name of a cross-encoder; empty = none.
        rerank_depth: documents that the reranker scores per query.
        filter_field: metadata field to filter by; empty = the first label of the dataset.
        filter_known: the field is known when a query arrives; otherwise it is predicted from training queries.
        enrich_characters: maximum number of characters of enriched documents to encode; 0 = no enrichment.
        good_enough: see `verdict.Thresholds`.
    """

    max_docs: CountOrNone = 0
    other_models: list[str] = []
    prompts: list[str] = PROMPTS
    chunkings: list[str] = CHUNKINGS
    reranker: str = ""
    rerank_depth: Count = 50
    filter_field: str = ""
    filter_known: bool = False
    enrich_characters: CountOrNone = ENRICH_CHARACTERS
    good_enough: Share = Thresholds().good_enough

    @property
    def probe_steps(self) -> int:
        """Number of optimiser steps of the probe."""
        return min(STEPS, self.max_steps) if self.max_steps else STEPS

    def thresholds(self) -> Thresholds:
        """Return the thresholds of the verdict: the defaults, with `good_enough` from the parameters."""
        return Thresholds(good_enough=self.good_enough)
