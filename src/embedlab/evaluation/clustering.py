"""Do the vectors fall into the groups that people made? K-means against labels, and a picture in two dimensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedlab.data.splits import seeded_order
from embedlab.errors import DataError, ParameterError


@dataclass(frozen=True, eq=False)
class Clustering:
    """How well clusters agree with labels.

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
        """Standard deviation over the starts: the chance in k-means, not that in the items."""
        return float(self.v_measures.std(ddof=1)) if len(self.v_measures) > 1 else float("nan")


def labelled_rows(
    ids: Sequence[str], labels: Mapping[str, str], *, max_items: int = 4000, seed: int = 0
) -> tuple[np.ndarray, list[str]]:
    """Rows (n,) of `ids` that carry a label, at most `max_items` of them in seeded order, and their labels.

    Raises:
        DataError: when fewer than two labels occur, or every label but one stands alone.
    """
    row_of = {item: row for row, item in enumerate(ids) if item in labels}
    kept = seeded_order(row_of, seed)[:max_items]
    sizes = Counter(labels[item] for item in kept)
    if len(sizes) < 2 or len(sizes) >= len(kept):
        problem = f"{len(kept)} labelled items carry {len(sizes)} different labels"
        raise DataError(problem, remedy="Use labels that part the items into two or more groups", field="labels")
    return np.array([row_of[item] for item in kept]), [labels[item] for item in kept]


def cluster(vectors: np.ndarray, labels: Sequence[str], *, starts: int = 5, seed: int = 0) -> Clustering:
    """V-measure of k-means with as many clusters as labels, from several starts.

    The harmonic mean of homogeneity (a cluster holds one label) and completeness (a label lies in one cluster):
    Rosenberg & Hirschberg, EMNLP 2007; the same k-means as mteb's clustering tasks (mini-batches, k-means++).

    Args:
        vectors: (n, d), unit length.
        labels: the n labels.
        starts: k-means runs with other seeds.
        seed: of the first.

    Raises:
        ParameterError: when there is no label per vector, or no start.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import v_measure_score

    if len(vectors) != len(labels) or starts < 1:
        problem = f"{len(vectors)} vectors, {len(labels)} labels, {starts} starts"
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


def project(vectors: np.ndarray, *, onto: np.ndarray | None = None) -> np.ndarray:
    """The first two principal components of vectors (n, d): (n, 2), each axis with its largest loading positive.

    Args:
        vectors: what to draw.
        onto: take the axes from these vectors (m, d) instead, to draw two sets in one frame.
    """
    from sklearn.decomposition import PCA

    return PCA(2, svd_solver="covariance_eigh").fit(vectors if onto is None else onto).transform(vectors)
