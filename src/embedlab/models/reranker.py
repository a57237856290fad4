"""Cross-encoders: models that read a query and a document together and score the pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from embedlab.errors import ModelError
from embedlab.models.load import load_checked

Score = Callable[[Sequence[tuple[str, str]]], np.ndarray]
"""(query, document) texts, n pairs -> relevance (n,), larger is better."""


def load_reranker(name: str, *, trust_remote_code: bool = False) -> Score:
    """Load a cross-encoder and return its scoring function.

    Nogueira and Cho, Passage Re-ranking with BERT, 2019.

    Args:
        name: a folder or a hub name.
        trust_remote_code: run the Python code that comes with the model; see `models.load.load_model`.

    Raises:
        ModelError: it cannot be loaded, is not a cross-encoder, or returns several scores per pair.
    """
    from sentence_transformers import CrossEncoder

    model = load_checked(CrossEncoder, name, trust_remote_code=trust_remote_code, field="reranker")
    if model.num_labels != 1:
        problem = f"expected one score per pair, {name!r} returns {model.num_labels}"
        raise ModelError(problem, remedy="Use a cross-encoder trained for ranking", field="reranker")
    return lambda pairs: model.predict(list(pairs), show_progress_bar=False)
