"""Notice vectors that cannot work: zeros, and a model that gives all texts nearly the same vector."""

from __future__ import annotations

import logging

import numpy as np

logger = logging.getLogger(__name__)

TOO_CLOSE = 0.98  # mean cosine of different texts; untrained encoders reach 0.9
MIN_TEXTS = 10  # fewer may well be similar
SAMPLE = 5000  # rows that are looked at


def warn_about_vectors(vectors: np.ndarray, name: str) -> None:
    """Log a warning if vectors are all nearly the same, or if some are zero.

    Args:
        vectors: (n, d), unit length; an array or a memory map.
        name: what the vectors are of, for the message, e.g. "document vectors".
    """
    for problem in vector_problems(vectors):
        logger.warning("%s: %s", name, problem)


def vector_problems(vectors: np.ndarray) -> list[str]:
    """Return what is wrong with vectors (n, d) of different texts, one sentence each; empty if nothing is."""
    step = max(1, len(vectors) // SAMPLE)
    sample = np.asarray(vectors[::step], dtype=np.float32)
    zero = int((~sample.any(axis=1)).sum())
    problems = []
    if zero:
        problem = f"{zero} of {len(sample)} vectors are all zeros. The model knows no word of these texts."
        problems.append(problem)
    cosine = mean_cosine(sample)
    if len(sample) >= MIN_TEXTS and cosine > TOO_CLOSE:
        cause = "Check the model's weights and tokenizer, or train with a smaller learning rate."
        problems.append(f"the vectors of different texts are nearly the same (mean cosine {cosine:.3f}). {cause}")
    return problems


def mean_cosine(vectors: np.ndarray) -> float:
    """Return the mean cosine of all pairs of different rows (n, d) of unit length; NaN for fewer than two."""
    n = len(vectors)
    if n < 2:
        return float("nan")
    total = float(np.square(vectors.sum(axis=0, dtype=np.float64)).sum())
    return (total - float(np.square(vectors, dtype=np.float64).sum())) / (n * (n - 1))
