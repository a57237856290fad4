"""Centre a vector space: remove the mean of its vectors, and the directions that most of them share.

The result is a `VectorMap`, so `models.adapter.with_adapter` appends it to a model as stock modules.
"""

from __future__ import annotations

import numpy as np

from embedlab.errors import ParameterError
from embedlab.models.vector_map import VectorMap

SAMPLE = 50_000  # vectors that give the directions, spread evenly; more change them little
SHORTEST_MEAN = 1e-6  # of unit vectors; a shorter mean is rounding error and has no direction


def mean_projection(vectors: np.ndarray) -> VectorMap:
    """Remove the component along the mean u of `vectors`: x - (x·u) u / |u|².

    Liang, Ren and Sun, "Correcting Mean Bias in Text Embeddings" (arXiv 2511.11041, 2025), variant R2.

    Args:
        vectors: (n, d), normally the corpus.

    Returns:
        A map of d dimensions; the identity if the mean is zero.
    """
    mean = _mean(vectors)
    matrix, length = np.eye(len(mean)), float(np.linalg.norm(mean))
    if length > SHORTEST_MEAN:
        matrix -= np.outer(mean, mean) / length**2
    return VectorMap(matrix.astype(np.float32), np.zeros(len(mean), dtype=np.float32))


def all_but_the_top(vectors: np.ndarray, directions: int) -> VectorMap:
    """Subtract the mean of `vectors`, then remove their first principal components.

    Mu and Viswanath, "All-but-the-Top: Simple and Effective Postprocessing for Word Representations" (ICLR 2018).

    Args:
        vectors: (n, d), normally the corpus.
        directions: number of principal components to remove; 0 only subtracts the mean.

    Returns:
        A map of d dimensions.

    Raises:
        ParameterError: `directions` is negative, or d or more.
    """
    dim = vectors.shape[1]
    if not 0 <= directions < dim:
        problem = f"the number of directions must be between 0 and {dim - 1}, got {directions}"
        raise ParameterError(problem, remedy=f"Choose 0 to {dim - 1}", field="directions")
    mean, projection = _mean(vectors), np.eye(dim)
    if directions:
        from embedlab.models.layers import pca_projection

        rows = np.linspace(0, len(vectors) - 1, min(SAMPLE, len(vectors))).astype(np.int64)
        top = pca_projection(vectors[rows] - mean, directions).numpy().astype(np.float64)  # (d, directions)
        projection -= top @ top.T
    return VectorMap(projection.astype(np.float32), (-mean @ projection).astype(np.float32))


def _mean(vectors: np.ndarray) -> np.ndarray:
    """Return the mean of all rows, float64 (d,)."""
    mean: np.ndarray = vectors.mean(axis=0, dtype=np.float64)
    return mean
