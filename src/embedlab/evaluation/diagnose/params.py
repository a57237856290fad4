"""Parameters of a diagnosis, the same in the notebook and on the command line."""

from __future__ import annotations

from embedlab.evaluation.diagnose.probe import STEPS
from embedlab.evaluation.diagnose.verdict import Thresholds
from embedlab.params import Count, CountOrNone, Share, TrainingParams

CHUNKINGS = ["128", "128+32", "128+32 sentences", "64+16 sentences"]
PROMPTS = ["Represent this sentence for searching relevant passages: ||", "query: ||passage: "]


class DiagnoseParams(TrainingParams):
    """What a diagnosis takes.

    Attributes:
        max_steps: cap on the probe's steps; 0 = none.
        max_examples: cap on training queries; 0 = all.
        max_docs: search at most so many documents, all answers of dev and test among them; 0 = all.
        other_models: models to compare with `model_name`: folders, hub names or `openai:MODEL@URL`.
        prompts: `QUERY PROMPT||DOCUMENT PROMPT`, one per try.
        chunkings: ways to cut documents, see `chunking.Chunking`.
        reranker: a cross-encoder; empty = none.
        rerank_depth: documents it reads per query.
        filter_field: metadata field to filter by; empty = the dataset's first label, if it has one.
        filter_known: whether the field is known when a query arrives; otherwise it is guessed from training data.
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
    good_enough: Share = Thresholds().good_enough

    @property
    def probe_steps(self) -> int:
        """Optimiser steps of the probe."""
        return min(STEPS, self.max_steps) if self.max_steps else STEPS

    def thresholds(self) -> Thresholds:
        """The thresholds of the verdict, the defaults except for `good_enough`."""
        return Thresholds(good_enough=self.good_enough)
