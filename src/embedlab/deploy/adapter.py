"""Serve a new model before the corpus is re-embedded: map its query vectors into the old vector space.

Three maps, fitted on texts that both models have encoded: a rotation (orthogonal Procrustes, Schönemann 1966), the same
with a low-rank affine correction (reduced-rank ridge regression, Izenman 1975, on the rotation's residuals), and the
same with a residual network on top. Idea and families: Vejendla, Drift-Adapter, EMNLP 2025.

A map is a stopgap. It keeps the old corpus vectors usable, and you have to measure how much of the new model's quality
survives. The closest map is not always the best one: a map that reproduced the old model's query vectors exactly would
also reproduce the old model's answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from embedlab.data.dataset import Qrels
from embedlab.deploy.serve import Served
from embedlab.deploy.shadow import overlap_at_k
from embedlab.deploy.space import Encoder, Space, require_same
from embedlab.errors import DataError, EmbedlabError
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import bootstrap_ci
from embedlab.models.vector_map import VectorMap
from embedlab.progress import track
from embedlab.search.exact import Ranking

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["procrustes", "affine", "mlp"]
KINDS: tuple[Kind, ...] = ("procrustes", "affine", "mlp")
HIDDEN, EPOCHS = 256, 60  # of the residual network: its width, and passes over the texts
DEPTH = 100  # documents ranked per query


@dataclass(frozen=True, eq=False)
class Adapter:
    """A map from `source` into `target`.

    Attributes:
        kind: procrustes, affine or mlp.
        source: space of the new model.
        target: space of the served vectors.
        matrix: (d_new, d_old).
        offset: (d_old,).
        hidden: the residual network's weights, (d_new, h) and (h, d_old), and its bias (h,); empty without one.
    """

    kind: str
    source: Space
    target: Space
    matrix: np.ndarray
    offset: np.ndarray
    hidden: dict[str, np.ndarray] = field(default_factory=dict)

    def map(self, vectors: np.ndarray, space: Space) -> np.ndarray:
        """Map vectors of the source space into the target space.

        Args:
            vectors: (n, d_new).
            space: the space that the vectors are from.

        Returns:
            Unit vectors float32 (n, d_old).

        Raises:
            SpaceMismatch: the vectors are not of the source space.
        """
        require_same(self.source, space, action="adapting these vectors")
        return VectorMap(self.matrix, self.offset, self.hidden).apply(vectors)


class AdaptedEncoder:
    """A new model whose queries are answered by an old index. It encodes queries only, not documents.

    Args:
        encoder: the new model.
        adapter: from the model's space into that of the index.

    Raises:
        SpaceMismatch: the adapter was fitted for another model.
    """

    def __init__(self, encoder: Encoder, adapter: Adapter) -> None:
        require_same(adapter.source, encoder.space, action="adapting this model")
        self.encoder, self.adapter, self.space = encoder, adapter, adapter.target

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors float32 (len(texts), d_old) in the space of the index."""
        return self.adapter.map(self.encoder.encode_queries(texts), self.encoder.space)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Raise an error: a mapped document would belong to neither model's space.

        Raises:
            EmbedlabError: always.
        """
        remedy = "Embed documents with the old model, or re-embed the corpus with the new one"
        raise EmbedlabError("An adapted model does not embed documents", remedy=remedy)


def fit_adapter(
    kind: Kind,
    new: np.ndarray,
    old: np.ndarray,
    source: Space,
    target: Space,
    *,
    rank: int = 32,
    ridge: float = 0.1,
    seed: int = 0,
) -> Adapter:
    """Fit a map on texts that both models have encoded.

    Args:
        kind: procrustes (no settings), affine (`rank`, `ridge`) or mlp (those and `seed`).
        new, old: (n, d_new) and (n, d_old), the same texts in the same order.
        source, target: their spaces.
        rank: of the correction.
        ridge: penalty, as a share of the mean variance of the new vectors times n.
        seed: of the network.

    Raises:
        DataError: the two arrays are not vectors of the same texts.
    """
    if new.ndim != 2 or old.ndim != 2 or len(new) != len(old) or len(new) < 2:
        problem = f"The vectors have shapes {new.shape} and {old.shape}, so they are not of the same texts"
        raise DataError(problem, remedy="Encode one sample of two or more texts with both models")
    rotation = _rotation(new, old)
    if kind == "procrustes":
        return Adapter(kind, source, target, rotation, np.zeros(old.shape[1], np.float32))
    correction, offset = _low_rank(new, old - new @ rotation, rank, ridge)
    matrix = rotation + correction
    adapter = Adapter(kind, source, target, matrix, offset)
    if kind == "affine":
        return adapter
    return Adapter(kind, source, target, matrix, offset, _residual(adapter, new, old, seed))


def compare_adapters(
    served: Served,
    new: Encoder,
    samples: Mapping[str, tuple[np.ndarray, np.ndarray]],
    queries: Mapping[str, str],
    *,
    seed: int = 0,
) -> dict[str, Ranking]:
    """Answer queries of the new model from the old index, with every kind of map fitted on every sample.

    Args:
        served: the version with the old model's vectors.
        new: the new model.
        samples: name -> vectors (n, d_new) and (n, d_old) of the same texts.
        queries: query id -> text.
        seed: of the network.

    Returns:
        "kind, sample" -> ranking of 100 documents per query.
    """
    combinations = [(name, kind) for name in samples for kind in KINDS]
    rankings = {}
    for name, kind in track(combinations, "adapters"):
        adapter = fit_adapter(kind, *samples[name], new.space, served.space, seed=seed)
        rankings[f"{kind}, {name}"] = served.rank(AdaptedEncoder(new, adapter), queries, DEPTH)
    return rankings


def adapter_table(rankings: Mapping[str, Ranking], qrels: Qrels, *, k: int = 10) -> pd.DataFrame:
    """Compare adapters with the old model (first ranking) and with the re-embedded corpus (last ranking).

    Args:
        rankings: name -> ranking of the same queries; the first one is the baseline, the last one the goal.
        qrels: query id -> {document id: grade}.
        k: depth of the overlap.

    Returns:
        Columns name, value (nDCG@10), ci_low, ci_high, gain (over the first), overlap (of the first k answers with the
        last ranking).
    """
    import pandas as pd

    evaluations = {name: evaluate(ranking, qrels, [10]).of("ndcg@10") for name, ranking in rankings.items()}
    baseline, goal = next(iter(evaluations.values())), list(rankings.values())[-1]
    rows = []
    for name, values in evaluations.items():
        interval = bootstrap_ci(values)
        answers = zip(rankings[name].doc_ids, goal.doc_ids, strict=True)
        overlaps = [overlap_at_k(first, second, k) for first, second in answers]
        row = {"name": name, "value": interval.mean, "ci_low": interval.low, "ci_high": interval.high}
        rows.append({**row, "gain": float(np.nanmean(values - baseline)), "overlap": float(np.nanmean(overlaps))})
    return pd.DataFrame(rows)


def _rotation(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """argmin ‖new R - old‖ over R with orthonormal rows or columns: U V' of the singular vectors of new' old."""
    left, _, right = np.linalg.svd(new.T.astype(np.float64) @ old, full_matrices=False)
    return (left @ right).astype(np.float32)


def fit_ridge(source: np.ndarray, target: np.ndarray, ridge: float) -> VectorMap:
    """Fit a linear map with an offset by ridge regression.

    Args:
        source, target: (n, d) and (n, e), the same texts in the same order.
        ridge: penalty, as a share of the mean variance of the source vectors times n.
    """
    matrix, centre, centre_target = _ridge(source, target, ridge)
    return VectorMap(matrix.astype(np.float32), (centre_target - centre @ matrix).astype(np.float32))


def _ridge(source: np.ndarray, target: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrix (d, e) of the ridge regression between centred vectors, and both centres."""
    centre, centre_target = source.mean(axis=0, dtype=np.float64), target.mean(axis=0, dtype=np.float64)
    x = source - centre
    gram = x.T @ x
    penalty = ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.linalg.solve(gram + penalty, x.T @ (target - centre_target)), centre, centre_target


def _low_rank(new: np.ndarray, residuals: np.ndarray, rank: int, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of the residuals on `new`, limited to the `rank` directions that predict most."""
    matrix, centre, centre_residuals = _ridge(new, residuals, ridge)
    _, _, directions = np.linalg.svd((new - centre) @ matrix, full_matrices=False)
    directions = directions[:rank]
    matrix = matrix @ directions.T @ directions
    return matrix.astype(np.float32), (centre_residuals - centre @ matrix).astype(np.float32)


def _residual(adapter: Adapter, new: np.ndarray, old: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Train a network with one hidden layer on the residuals of the affine map; the loss is 1 - cosine."""
    import torch

    torch.manual_seed(seed)
    x, y = torch.from_numpy(np.ascontiguousarray(new)), torch.from_numpy(np.ascontiguousarray(old))
    base = x @ torch.from_numpy(adapter.matrix) + torch.from_numpy(adapter.offset)
    inner = torch.nn.Linear(x.shape[1], HIDDEN)
    outer = torch.nn.Linear(HIDDEN, y.shape[1], bias=False)
    torch.nn.init.zeros_(outer.weight)  # starts as the affine map
    optimiser = torch.optim.AdamW([*inner.parameters(), *outer.parameters()], lr=1e-3, weight_decay=1e-2)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(256):
            mapped = base[rows] + outer(inner(x[rows]).relu())
            loss = 1 - torch.cosine_similarity(mapped, y[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    weights = {"inner": inner.weight.T, "bias": inner.bias, "outer": outer.weight.T}
    return {name: weight.detach().numpy().copy() for name, weight in weights.items()}
