"""What retrieval is worth to a reader with little room: is the answer inside the context it is given?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.dataset import Qrels
from embedlab.errors import DataError, ParameterError
from embedlab.search.exact import ABSENT, Ranking

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def token_counts(model: SentenceTransformer, texts: Sequence[str]) -> np.ndarray:
    """Tokens of every whole text (N,), without special tokens and without the model's truncation."""
    ids = model.tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return np.array([len(row) for row in ids], dtype=np.int64)


def answer_in_context(ranking: Ranking, qrels: Qrels, lengths: np.ndarray, budget: int) -> np.ndarray:
    """1 where a document that answers the question is inside its context, 0 where not: (Q,).

    Documents enter the context whole, best first, until the next one no longer fits; what is cut in half answers
    nothing. NaN for questions without positives.

    Args:
        ranking: what was retrieved; search deep enough to fill the budget.
        qrels: question id -> {document id: grade}; grades from 1 on say that the document holds the answer.
        lengths: tokens of every document (N,), in the order of `ranking.corpus_ids`.
        budget: tokens of context.

    Raises:
        DataError: when there is not one length per document.
        ParameterError: when the budget is below 1.
    """
    if len(lengths) != len(ranking.corpus_ids):
        problem = f"{len(lengths)} lengths for {len(ranking.corpus_ids)} documents"
        raise DataError(problem, remedy="Count the tokens of every document of the corpus, in its order")
    if budget < 1:
        raise ParameterError(f"The budget is {budget} tokens", remedy="Give at least one", field="budget")
    found = ranking.indices != ABSENT
    inside = found & (np.where(found, np.asarray(lengths)[ranking.indices], 0).cumsum(1) <= budget)
    values = np.full(len(ranking.query_ids), np.nan)
    for row, query in enumerate(ranking.query_ids):
        if positives := {document for document, grade in qrels.get(query, {}).items() if grade > 0}:
            context = {ranking.corpus_ids[place] for place in ranking.indices[row, inside[row]]}
            values[row] = not positives.isdisjoint(context)
    return values
