"""Maps from vectors to vectors, applied after a model: a linear map, with a small residual network on top if wanted.

Such a map is all that can be trained of a model behind an API. `training.adapters` fits one to labelled pairs, and
`deploy.adapter` fits one from a new model's space into an old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from embedlab.errors import DataError

NETWORK = ("inner", "bias", "outer")


@dataclass(frozen=True, eq=False)
class VectorMap:
    """`x -> x M + b`, plus `relu(x A + c) B` with a network; the result is scaled to unit length.

    Attributes:
        matrix: M, float32 (d, e).
        offset: b, float32 (e,).
        network: "inner" A (d, h), "bias" c (h,) and "outer" B (h, e); empty without one.
    """

    matrix: np.ndarray
    offset: np.ndarray
    network: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self._fits():
            shapes = {name: np.shape(array) for name, array in self.arrays().items()}
            problem = f"these arrays do not make a map of vectors: {shapes}"
            raise DataError(problem, remedy="Use the arrays of one adapter, and all of them")

    def _fits(self) -> bool:
        arrays = self.arrays()
        if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in arrays.values()):
            return False
        if self.matrix.ndim != 2 or self.offset.shape != self.matrix.shape[1:]:
            return False
        if not self.network:
            return True
        if set(self.network) != set(NETWORK):
            return False
        inner, bias, outer = (self.network[name] for name in NETWORK)
        (d, e), h = self.matrix.shape, bias.size
        return (inner.shape, bias.shape, outer.shape) == ((d, h), (h,), (h, e))

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Map vectors (n, d) to unit vectors float32 (n, e); a result of zeros stays zero."""
        rows = np.asarray(vectors, dtype=np.float32)
        mapped = rows @ self.matrix + self.offset
        if self.network:
            active = np.maximum(rows @ self.network["inner"] + self.network["bias"], 0)
            mapped = mapped + active @ self.network["outer"]
        lengths = np.linalg.norm(mapped, axis=1, keepdims=True)
        return (mapped / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name, to save them."""
        return {"matrix": self.matrix, "offset": self.offset, **self.network}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> VectorMap:
        """Create a map from what `arrays` returned.

        Raises:
            DataError: an array is missing, or their shapes do not fit.
        """
        if not {"matrix", "offset"} <= set(arrays):
            raise DataError(f"a map needs matrix and offset, got {sorted(arrays)}", remedy="Save the adapter again")
        network = {name: array for name, array in arrays.items() if name not in ("matrix", "offset")}
        return cls(arrays["matrix"], arrays["offset"], network)

    @property
    def parameters(self) -> int:
        """Number of weights that are stored."""
        return sum(array.size for array in self.arrays().values())
