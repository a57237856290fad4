"""How large a dev evaluation may be, so that its cost follows that of the training.

The work is counted in characters that the model reads. A training step costs about three times as much for each
character as encoding: the backward pass takes twice the time of the forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from embedlab.data.dataset import Dataset
from embedlab.training.fit import FitSettings, steps_per_epoch, total_steps

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SHARE = 0.1  # of the work of the training
TRAINING_WORK = 3  # of a character, relative to encoding it
DOCUMENTS_PER_QUERY = 4  # searched; fewer make dev too easy to tell models apart
FEWEST_QUERIES, MOST_DOCUMENTS = 30, 3_000
CHARACTERS_PER_TOKEN = 4  # of English text; only used to cut long texts


def dev_size(
    model: SentenceTransformer,
    dataset: Dataset,
    rows: Iterable[Sequence[str]],
    settings: FitSettings,
    *,
    share: float = SHARE,
) -> dict[str, int]:
    """Choose how many dev queries and documents the evaluations of a training use.

    All evaluations together, with the one before the first step, cost about `share` of the training.

    Args:
        model: the model to train. It cuts longer texts at its `max_seq_length`.
        dataset: its split dev is searched.
        rows: training rows of texts.
        settings: epochs, steps, batch size and number of evaluations.
        share: of the work of the training. At least 30 queries with their documents are used, even if they cost more.

    Returns:
        The arguments `max_queries` and `max_docs` of `DevEvaluator`.
    """
    longest = CHARACTERS_PER_TOKEN * (model.max_seq_length or math.inf)

    def work(texts: Iterable[str]) -> float:
        return sum(min(len(text), longest) for text in texts)

    rows = list(rows)
    epochs = total_steps(settings, len(rows)) / steps_per_epoch(settings, len(rows))
    training = TRAINING_WORK * epochs * sum(work(row) for row in rows)
    affordable = share * training / (settings.evaluations + 1)

    queries = dataset.split_queries("dev")
    per_query = work(queries.values()) / max(1, len(queries))
    per_document = work(dataset.corpus.values()) / max(1, len(dataset.corpus))
    query_count = int(affordable / max(1, per_query + DOCUMENTS_PER_QUERY * per_document))
    query_count = max(1, min(len(queries), max(FEWEST_QUERIES, query_count)))
    document_count = int((affordable - query_count * per_query) / max(1, per_document))
    document_count = min(MOST_DOCUMENTS, max(DOCUMENTS_PER_QUERY * FEWEST_QUERIES, document_count))
    return {"max_queries": query_count, "max_docs": document_count}
