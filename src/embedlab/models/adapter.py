"""An adapter: what is trained on the vectors of a model whose own weights cannot be changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedlab.models.vector_map import VectorMap

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True, eq=False)
class VectorAdapter:
    """A map for queries, and one for documents.

    With a map for queries only, the document vectors of an index stay as they are.

    Attributes:
        kind: how it was made, such as "query-linear"; a name for people.
        query, document: the maps; None leaves the vectors as they are.
    """

    kind: str
    query: VectorMap | None
    document: VectorMap | None

    def for_role(self, role: str) -> VectorAdapter:
        """Return the adapter that maps every text as a query, or as a document."""
        role_map = getattr(self, role)
        return VectorAdapter(self.kind, role_map, role_map)

    @property
    def changes_documents(self) -> bool:
        """Whether the vectors of an index must be mapped, too."""
        return self.document is not None

    @property
    def parameters(self) -> int:
        """Number of weights; maps that queries and documents share count once."""
        maps = {id(role_map): role_map for role_map in (self.query, self.document) if role_map is not None}
        return sum(role_map.parameters for role_map in maps.values())

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the weights."""
        digest = hashlib.sha256()
        for role, role_map in (("query", self.query), ("document", self.document)):
            for name, array in sorted(role_map.arrays().items()) if role_map else ():
                digest.update(f"{role} {name} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def with_adapter(model: SentenceTransformer, adapter: VectorAdapter) -> SentenceTransformer:
    """Append an adapter to a local model, as stock modules of sentence-transformers.

    A map is a `Dense` layer. With a residual network it is two: the first computes relu([x, -x, x A + c]), from which
    the second computes x M + relu(x A + c) B + b, because x = relu(x) - relu(-x). Different maps for queries and
    documents are the routes of a `Router`; `encode_query` and `encode_document` choose theirs.

    Args:
        model: with d dimensions; a copy of it is used.
        adapter: of d dimensions.

    Returns:
        A model that `save_model` saves without any code.
    """
    import copy

    from sentence_transformers.base.modules import Normalize, Router

    adapted = copy.deepcopy(model)
    if not isinstance(adapted[-1], Normalize):
        adapted.append(Normalize())  # adapters are trained on unit vectors
    if adapter.query is adapter.document and adapter.query is not None:
        adapted.extend(_modules(adapter.query))
    else:
        adapted.append(Router.for_query_document(_modules(adapter.query), _modules(adapter.document)))
    return adapted.to(model.device)


def _modules(role_map: VectorMap | None) -> list[object]:
    """Return stock modules that compute a map and scale to unit length."""
    from sentence_transformers.base.modules import Normalize

    if role_map is None:
        return [Normalize()]
    if not role_map.network:
        return [_dense(role_map.matrix, role_map.offset), Normalize()]
    eye = np.eye(len(role_map.matrix), dtype=np.float32)
    inner, bias, outer = (role_map.network[name] for name in ("inner", "bias", "outer"))
    zeros = np.zeros(2 * len(eye), dtype=np.float32)
    first = _dense(np.hstack([eye, -eye, inner]), np.concatenate([zeros, bias]), relu=True)
    return [first, _dense(np.vstack([role_map.matrix, -role_map.matrix, outer]), role_map.offset), Normalize()]


def _dense(matrix: np.ndarray, bias: np.ndarray, *, relu: bool = False) -> object:
    import torch
    from sentence_transformers.base.modules import Dense

    return Dense(
        *matrix.shape,
        activation_function=torch.nn.ReLU() if relu else None,
        init_weight=torch.from_numpy(np.ascontiguousarray(matrix.T)),
        init_bias=torch.from_numpy(np.ascontiguousarray(bias)),
    )
