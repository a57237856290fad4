"""Serve a new model before the corpus is re-embedded: map its query vectors into the old space.

Three maps, fitted on texts that both models have encoded: a rotation (orthogonal Procrustes, Schönemann 1966); the
same with an affine correction of low rank (reduced-rank ridge regression, Izenman 1975, on what the rotation misses);
and with a residual network on top. The idea and the families: Vejendla, Drift-Adapter, EMNLP 2025.

A map is a stopgap: it keeps the old corpus vectors usable; how much of the new model's quality survives has to be
measured. The closest map need not be the best: one that reproduced the old model's queries exactly would bring the old
model's answers back.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from embedlab.deploy.files import storage_errors
from embedlab.deploy.space import Encoder, Space, require_same
from embedlab.errors import DataError, EmbedlabError, StorageError
from embedlab.io import write_atomic

Kind = Literal["procrustes", "affine", "mlp"]
KINDS: tuple[Kind, ...] = ("procrustes", "affine", "mlp")


@dataclass(frozen=True, eq=False)
class Adapter:
    """A map from `source` into `target`.

    Attributes:
        kind: procrustes, affine or mlp.
        source: space of the new model.
        target: space of the vectors that are served.
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
        """Vectors (n, d_new) of the source space as unit vectors float32 (n, d_old) of the target space.

        Raises:
            SpaceMismatch: the vectors are not of the source space.
        """
        require_same(self.source, space, what="adapting these vectors")
        mapped = vectors @ self.matrix + self.offset
        if self.hidden:
            active = np.maximum(vectors @ self.hidden["inner"] + self.hidden["bias"], 0)
            mapped = mapped + active @ self.hidden["outer"]
        return (mapped / np.linalg.norm(mapped, axis=1, keepdims=True)).astype(np.float32)


class AdaptedEncoder:
    """A new model whose queries are answered by an old index: queries alone, documents are re-embedded properly.

    Args:
        encoder: the new model.
        adapter: from its space into that of the index.
    """

    def __init__(self, encoder: Encoder, adapter: Adapter) -> None:
        require_same(adapter.source, encoder.space, what="adapting this model")
        self.encoder, self.adapter, self.space = encoder, adapter, adapter.target

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (len(texts), d_old), rows of unit length."""
        return self.adapter.map(self.encoder.encode_queries(texts), self.encoder.space)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Refused: a mapped document would be neither model's."""
        remedy = "Embed documents with the old model, or re-embed the corpus with the new one"
        raise EmbedlabError("an adapted model does not embed documents", remedy=remedy)


def fit_adapter(
    kind: Kind,
    new: np.ndarray,
    old: np.ndarray,
    source: Space,
    target: Space,
    *,
    rank: int = 32,
    ridge: float = 0.1,
    hidden: int = 256,
    epochs: int = 60,
    seed: int = 0,
) -> Adapter:
    """Fit a map on texts that both models have encoded.

    Args:
        kind: procrustes (nothing to set), affine (`rank`, `ridge`), mlp (those and `hidden`, `epochs`, `seed`).
        new, old: (n, d_new) and (n, d_old), the same texts in the same order.
        source, target: their spaces.
        rank: of the correction.
        ridge: penalty, as a share of the mean variance of the new vectors times n.
        hidden: width of the residual network.
        epochs: passes over the n texts.
        seed: of the network.

    Raises:
        DataError: the two sides do not fit together.
    """
    if new.ndim != 2 or old.ndim != 2 or len(new) != len(old) or len(new) < 2:
        problem = f"vectors {new.shape} and {old.shape} are not of the same texts"
        raise DataError(problem, remedy="Encode one sample of two texts or more with both models")
    rotation = _rotation(new, old)
    if kind == "procrustes":
        return Adapter(kind, source, target, rotation, np.zeros(old.shape[1], np.float32))
    correction, offset = _low_rank(new, old - new @ rotation, rank, ridge)
    matrix = rotation + correction
    adapter = Adapter(kind, source, target, matrix, offset)
    if kind == "affine":
        return adapter
    return Adapter(kind, source, target, matrix, offset, _residual(adapter, new, old, hidden, epochs, seed))


def save_adapter(adapter: Adapter, path: Path) -> None:
    """Write an adapter to one .npz file, in one step."""
    buffer = io.BytesIO()
    notes = json.dumps({"kind": adapter.kind, "source": asdict(adapter.source), "target": asdict(adapter.target)})
    np.savez(buffer, matrix=adapter.matrix, offset=adapter.offset, notes=np.array(notes), **adapter.hidden)
    with storage_errors(path):
        write_atomic(path, buffer.getvalue())


def load_adapter(path: Path) -> Adapter:
    """Read what `save_adapter` wrote.

    Raises:
        StorageError: it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            notes = json.loads(str(file["notes"]))
            hidden = {name: file[name] for name in ("inner", "bias", "outer") if name in file.files}
            spaces = Space(**notes["source"]), Space(**notes["target"])
            return Adapter(notes["kind"], *spaces, file["matrix"], file["offset"], hidden)
    except Exception as error:  # noqa: BLE001 - a damaged archive fails in many ways
        raise StorageError(f"no adapter ({type(error).__name__})", remedy="Fit it again", file=path) from error


def _rotation(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """argmin ‖new R - old‖ over R with orthonormal rows or columns: U V' of the singular vectors of new' old."""
    left, _, right = np.linalg.svd(new.T.astype(np.float64) @ old, full_matrices=False)
    return (left @ right).astype(np.float32)


def _low_rank(new: np.ndarray, missed: np.ndarray, rank: int, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of `missed` on `new`, kept to the `rank` directions that carry most of what it predicts."""
    centre_new, centre_missed = new.mean(axis=0, dtype=np.float64), missed.mean(axis=0, dtype=np.float64)
    x, y = new - centre_new, missed - centre_missed
    gram = x.T @ x
    matrix = np.linalg.solve(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y)
    _, _, directions = np.linalg.svd(x @ matrix, full_matrices=False)
    kept = directions[:rank]
    matrix = matrix @ kept.T @ kept
    return matrix.astype(np.float32), (centre_missed - centre_new @ matrix).astype(np.float32)


def _residual(
    adapter: Adapter, new: np.ndarray, old: np.ndarray, hidden: int, epochs: int, seed: int
) -> dict[str, np.ndarray]:
    """A network of one hidden layer that learns what the affine map misses; loss is 1 - cosine."""
    import torch

    torch.manual_seed(seed)
    x, y = torch.from_numpy(np.ascontiguousarray(new)), torch.from_numpy(np.ascontiguousarray(old))
    base = x @ torch.from_numpy(adapter.matrix) + torch.from_numpy(adapter.offset)
    inner = torch.nn.Linear(x.shape[1], hidden)
    outer = torch.nn.Linear(hidden, y.shape[1], bias=False)
    torch.nn.init.zeros_(outer.weight)  # starts as the affine map
    optimiser = torch.optim.AdamW([*inner.parameters(), *outer.parameters()], lr=1e-3, weight_decay=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(256):
            mapped = base[rows] + outer(inner(x[rows]).relu())
            loss = 1 - torch.cosine_similarity(mapped, y[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    weights = {"inner": inner.weight.T, "bias": inner.bias, "outer": outer.weight.T}
    return {name: weight.detach().numpy().copy() for name, weight in weights.items()}
