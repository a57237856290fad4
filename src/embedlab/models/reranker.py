"""Cross-encoders: models that read a query and a document together and score the pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from embedlab.errors import ModelError
from embedlab.models.save import is_own_code

Score = Callable[[Sequence[tuple[str, str]]], np.ndarray]
"""(query, document) texts, n pairs -> relevance (n,), larger is better."""


def load_reranker(name: str) -> Score:
    """Load a cross-encoder and return its scoring function.

    Nogueira and Cho, Passage Re-ranking with BERT, 2019.

    Args:
        name: a folder or a hub name.

    Raises:
        ModelError: it cannot be loaded, or it returns several scores per pair.
    """
    from sentence_transformers import CrossEncoder

    try:
        model = CrossEncoder(name, trust_remote_code=is_own_code(name))
    except (OSError, ValueError) as error:
        problem = f"cannot load the reranker {name!r} ({str(error).strip().splitlines()[0]:.160})"
        remedy = "Use a folder saved by sentence-transformers, or a hub name if you have a connection"
        raise ModelError(problem, remedy=remedy, field="reranker") from error
    if model.num_labels != 1:
        problem = f"expected one score per pair, {name!r} returns {model.num_labels}"
        raise ModelError(problem, remedy="Use a cross-encoder trained for ranking", field="reranker")
    return lambda pairs: model.predict(list(pairs), show_progress_bar=False)
