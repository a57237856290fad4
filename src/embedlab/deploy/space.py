"""Vector spaces: which vectors may be compared with each other.

Vectors of two models with the same dimension can be multiplied without an error, but the result means nothing. So a
`Space` is stored with every set of vectors, and adding to or searching it from another space raises an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embedlab.errors import EmbedlabError
from embedlab.io import sha256_of_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

STORED_AS = ("float32", "float16")
MEANING = {
    "model": "weights, tokenizer, pooling, normalisation or truncation differ",
    "dimension": "dimensions differ",
    "document_prompt": "document prompts differ",
    "query_prompt": "query prompts differ",
    "quantisation": "stored number types differ",
}


class SpaceMismatch(EmbedlabError):
    """Vectors of one space were used in another."""


@dataclass(frozen=True)
class Space:
    """Everything that determines the vector of a text.

    Attributes:
        model: `models.fingerprint.model_fingerprint`: weights, tokenizer and its truncation, pooling, normalisation,
            the model's own prompts, truncation dimension.
        dimension: of the vectors.
        document_prompt, query_prompt: texts put before every document and every query.
        quantisation: number type the vectors are stored in, float32 or float16.
    """

    model: str
    dimension: int
    document_prompt: str = ""
    query_prompt: str = ""
    quantisation: str = "float32"

    def __post_init__(self) -> None:
        if self.quantisation not in STORED_AS:
            remedy = f"Choose {' or '.join(STORED_AS)}; smaller types belong to the index, not to the vectors"
            raise EmbedlabError(f"Vectors are not stored as {self.quantisation!r}", remedy=remedy, field="quantisation")

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all attributes; names the folder of every version in this space."""
        return sha256_of_json(asdict(self))[:16]

    def differences(self, other: Space) -> list[str]:
        """List the differences in words; empty for the same space."""
        mine, offered = asdict(self), asdict(other)
        return [f"{MEANING[name]} ({mine[name]!r}, {offered[name]!r})" for name in mine if mine[name] != offered[name]]


def require_same(stored: Space, offered: Space, *, action: str) -> None:
    """Check that two vector spaces are the same.

    Args:
        stored: the space of the stored vectors.
        offered: the space of the other vectors.
        action: what was about to happen, for the message, e.g. "searching this version".

    Raises:
        SpaceMismatch: the spaces differ; the message names every difference.
    """
    if differing := stored.differences(offered):
        spaces = f"space {offered.fingerprint} is not {stored.fingerprint}"
        problem = f"{action} refused: {spaces}: {'; '.join(differing)}"
        raise SpaceMismatch(problem, remedy="Use the model and prompts of that space, or re-embed the corpus")


class Encoder(Protocol):
    """Anything that maps texts into one space."""

    @property
    def space(self) -> Space:
        """The space that the vectors lie in."""

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (len(texts), d), rows of unit length."""

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (len(texts), d), rows of unit length."""


class ModelEncoder:
    """A sentence-transformers model as an `Encoder`.

    Its weights are fingerprinted once, here: make a new one after training.

    Args:
        model: any sentence-transformers model, on the packed fast path where it has been set to it.
        document_prompt, query_prompt: the model's own prompts when None; "" for none.
        quantisation: number type that a store keeps its vectors in.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        document_prompt: str | None = None,
        query_prompt: str | None = None,
        quantisation: str = "float32",
    ) -> None:
        from embedlab.models.encode import dimension
        from embedlab.models.fingerprint import model_fingerprint
        from embedlab.models.sides import sides_of

        sides = sides_of(model)
        documents = (sides.document.prompt or "") if document_prompt is None else document_prompt
        queries = (sides.query.prompt or "") if query_prompt is None else query_prompt
        self.model, self._sides = model, sides
        self.space = Space(model_fingerprint(model), dimension(model), documents, queries, quantisation)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (len(texts), d), rows of unit length."""
        return self._encode(self._sides.document.model, texts, self.space.document_prompt, "encode documents")

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (len(texts), d), rows of unit length."""
        return self._encode(self._sides.query.model, texts, self.space.query_prompt, "encode queries")

    @staticmethod
    def _encode(model: SentenceTransformer, texts: Sequence[str], prompt: str, stage: str) -> np.ndarray:
        from embedlab.models.encode import encode

        return encode(model, texts, stage=stage, prompt=prompt or None)
