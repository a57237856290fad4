"""Measure whether the answer fits into a small context, for example that of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.dataset import Qrels
from embedlab.errors import DataError, ParameterError
from embedlab.models.api import ApiModel
from embedlab.models.spending import estimated_tokens
from embedlab.search.exact import ABSENT, Ranking

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def token_counts(model: SentenceTransformer | ApiModel, texts: Sequence[str]) -> np.ndarray:
    """Count the tokens of every text (N,), without special tokens and without truncation.

    Those of an API model, whose tokenizer is not here, are estimated: a token per three bytes.
    """
    if isinstance(model, ApiModel):
        return np.array([estimated_tokens([text]) for text in texts], dtype=np.int64)
    ids = model.tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return np.array([len(row) for row in ids], dtype=np.int64)


def answer_in_context(ranking: Ranking, qrels: Qrels, lengths: np.ndarray, budget: int) -> np.ndarray:
    """Return 1 for questions whose context contains an answer, 0 for others, NaN without positives: (Q,).

    Whole documents enter the context, best first, until the next one no longer fits.

    Args:
        ranking: retrieved documents; search deep enough to fill the budget.
        qrels: question id -> {document id: grade}; a grade of 1 or more means that the document has the answer.
        lengths: tokens of every document (N,), in the order of `ranking.corpus_ids`.
        budget: tokens of context.

    Raises:
        DataError: there is not one length per document.
        ParameterError: the budget is below 1.
    """
    if len(lengths) != len(ranking.corpus_ids):
        problem = f"Expected one length per document, got {len(lengths)} for {len(ranking.corpus_ids)} documents"
        raise DataError(problem, remedy="Count the tokens of every document of the corpus, in its order")
    if budget < 1:
        raise ParameterError(
            f"The budget must be at least 1 token, got {budget}", remedy="Set it to 256", field="budget"
        )
    retrieved = ranking.indices != ABSENT
    inside = retrieved & (np.where(retrieved, np.asarray(lengths)[ranking.indices], 0).cumsum(1) <= budget)
    values = np.full(len(ranking.query_ids), np.nan)
    for row, query in enumerate(ranking.query_ids):
        if positives := {document for document, grade in qrels.get(query, {}).items() if grade > 0}:
            context = {ranking.corpus_ids[row_of_document] for row_of_document in ranking.indices[row, inside[row]]}
            values[row] = not positives.isdisjoint(context)
    return values
