"""Unsupervised SimCSE: a text is its own positive, with different dropout (Gao, Yao and Chen, EMNLP 2021).

Only the rows are special: each text is encoded twice in one forward pass with different dropout, and the two
embeddings must match among the other texts of the batch. Loss, masks and collator are those of contrastive training.
"""

from __future__ import annotations

from collections.abc import Iterable

from embedlab.training.examples import TrainingRows, number_rows


def simcse_rows(texts: Iterable[str]) -> TrainingRows:
    """Build rows of (text, the same text) from the distinct texts."""
    return number_rows((text, text) for text in dict.fromkeys(texts))
