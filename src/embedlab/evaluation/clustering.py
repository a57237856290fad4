"""Compare k-means clusters of embeddings with labels, and project embeddings to two dimensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedlab.data.splits import seeded_order
from embedlab.errors import DataError, ParameterError

MAX_ITEMS = 4000  # items that are clustered


@dataclass(frozen=True, eq=False)
class Clustering:
    """Agreement of clusters with labels.

    Attributes:
        v_measures: one value per start of k-means (R,), 0 to 1.
        clusters: number of clusters, as many as labels.
        n: items clustered.
    """

    v_measures: np.ndarray
    clusters: int
    n: int

    @property
    def mean(self) -> float:
        """Mean over the starts."""
        return float(self.v_measures.mean())

    @property
    def spread(self) -> float:
        """Standard deviation over the starts: the randomness of k-means, not of the items."""
        return float(self.v_measures.std(ddof=1)) if len(self.v_measures) > 1 else float("nan")


def labelled_rows(ids: Sequence[str], labels: Mapping[str, str], *, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Select labelled items, at most 4,000 in seeded order.

    Args:
        ids: item ids in the order of their vectors.
        labels: item id -> label.
        seed: of the order.

    Returns:
        Rows (n,) in `ids`, and the n labels.

    Raises:
        DataError: there are fewer than two labels, or almost as many labels as items.
    """
    row_of = {item: row for row, item in enumerate(ids) if item in labels}
    sampled = seeded_order(row_of, seed)[:MAX_ITEMS]
    sizes = Counter(labels[item] for item in sampled)
    if len(sizes) < 2 or len(sizes) >= len(sampled):
        problem = f"{len(sampled)} labelled items have {len(sizes)} different labels, which form no groups"
        raise DataError(problem, remedy="Use labels with several items each", field="labels")
    return np.array([row_of[item] for item in sampled]), [labels[item] for item in sampled]


def cluster(vectors: np.ndarray, labels: Sequence[str], *, starts: int = 5, seed: int = 0) -> Clustering:
    """Compute the v-measure of k-means with as many clusters as labels, from several starts.

    It is the harmonic mean of homogeneity (one label per cluster) and completeness (one cluster per label):
    Rosenberg & Hirschberg, EMNLP 2007; the same k-means as mteb's clustering tasks (mini-batches, k-means++).

    Args:
        vectors: (n, d), unit length.
        labels: the n labels.
        starts: runs of k-means with different seeds.
        seed: of the first run.

    Raises:
        ParameterError: the numbers of vectors and labels differ, or starts is below 1.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import v_measure_score

    if len(vectors) != len(labels) or starts < 1:
        problem = f"Got {len(vectors)} vectors, {len(labels)} labels and {starts} starts"
        raise ParameterError(problem, remedy="Give one label per vector and at least one start", field="labels")
    clusters = len(set(labels))
    values = [
        v_measure_score(
            labels,
            MiniBatchKMeans(clusters, batch_size=512, n_init=1, random_state=seed + start).fit_predict(vectors),
        )
        for start in range(starts)
    ]
    return Clustering(np.array(values), clusters, len(labels))


def project(vectors: np.ndarray) -> np.ndarray:
    """Project vectors to their first two principal components; each axis has its largest loading positive.

    Args:
        vectors: (n, d).

    Returns:
        (n, 2).
    """
    from sklearn.decomposition import PCA

    return PCA(2, svd_solver="covariance_eigh").fit_transform(vectors)
