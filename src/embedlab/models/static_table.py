"""A static model as a tokenizer and an array, to stand next to the vectors of a model behind an API.

Numpy and tokenizers compute it, so the client that is saved with an adapter can do the same without torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from embedlab.errors import DataError, ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer


TOKENIZER = "tokenizer.json"  # the file of its tokenizer


@dataclass(frozen=True, eq=False)
class StaticTable:
    """One vector per token. The vector of a text is the sum of its tokens', scaled to unit length.

    Attributes:
        tokenizer: configuration of the tokenizer, the content of a `tokenizer.json`.
        weights: float32 (V, e), one row per token.
        share: weight of the static cosine next to the other model's, from 0 to 1; see `concatenation.concatenate`.
    """

    tokenizer: str
    weights: np.ndarray
    share: float

    def __post_init__(self) -> None:
        weights, remedy = self.weights, "Save the static model again"
        if weights.ndim != 2 or weights.dtype != np.float32 or not np.isfinite(weights).all():
            problem = f"expected finite float32 vectors of tokens, got {weights.dtype} {weights.shape}"
            raise DataError(problem, remedy=remedy)
        if not 0 <= self.share <= 1:
            raise DataError(f"the share must be between 0 and 1, got {self.share}", remedy=remedy)
        if (tokens := self._tokenizer.get_vocab_size()) > len(weights):
            raise DataError(f"{tokens:,} tokens have {len(weights):,} vectors", remedy=remedy)

    @classmethod
    def of(cls, static: SentenceTransformer, share: float) -> StaticTable:
        """Take the tokenizer and the vectors of a static model.

        Raises:
            ModelError: it also has vectors of words and n-grams.
        """
        from embedlab.models.static import is_expanding, plain_tokenizer

        if is_expanding(static):
            problem = "a static model with vectors of words and n-grams cannot be saved next to an API model"
            raise ModelError(problem, remedy="Train a static model of word pieces alone")
        weights = static[0].embedding.weight.detach().float().cpu().numpy()
        return cls(plain_tokenizer(static).to_str(), weights, share)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # the library raises nothing more specific
            problem = f"the tokenizer cannot be read ({str(error)[:200]})"
            raise DataError(problem, remedy="Save the static model again") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @property
    def fingerprint(self) -> str:
        """16 hex digits over tokenizer, vectors and share."""
        facts = f"{self.tokenizer} {self.weights.shape} {self.share}".encode()
        return hashlib.sha256(facts + np.ascontiguousarray(self.weights).tobytes()).hexdigest()[:16]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors float32 (len(texts), e); zeros for a text without tokens."""
        vectors = np.zeros((len(texts), self.weights.shape[1]), dtype=np.float32)
        for row, encoding in enumerate(self._tokenizer.encode_batch(list(texts), add_special_tokens=False)):
            vectors[row] = self.weights[encoding.ids].sum(axis=0)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)

    def concatenated(self, vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Append the static vectors of the texts to another model's unit vectors (N, d): unit vectors (N, d + e)."""
        from embedlab.models.concatenation import concatenate

        return concatenate(vectors, self.encode(texts), self.share)
