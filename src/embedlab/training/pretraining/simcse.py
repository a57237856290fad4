"""Unsupervised SimCSE: a text is its own positive, and dropout makes the difference (Gao, Yao and Chen, EMNLP 2021).

Nothing is new but the rows: encoded twice in one forward, with other units dropped each time, a text must be told from
the other texts of its batch. The loss, the masking of equal texts and the collator are those of contrastive training.
"""

from __future__ import annotations

from collections.abc import Iterable

from embedlab.training.examples import TrainingRows, number_rows


def simcse_rows(texts: Iterable[str]) -> TrainingRows:
    """Rows of (text, the same text), every different text once."""
    return number_rows((text, text) for text in dict.fromkeys(texts))
