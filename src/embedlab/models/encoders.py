"""One interface for all models: a folder, a hub name, or an embeddings endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedlab.errors import ParameterError
from embedlab.models.api import ApiModel
from embedlab.models.prompts import prompts_of
from embedlab.models.sides import require_one_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BETWEEN_PROMPTS = "||"


class Embed(Protocol):
    """Texts to unit vectors (n, d)."""

    def __call__(self, texts: Sequence[str], *, stage: str, prompt: str | None) -> np.ndarray: ...


@dataclass(frozen=True)
class Encoder:
    """A model for the diagnosis; pass it as `encode_split(encoder, …, encode=Encoder.encode)`.

    Attributes:
        name: as the user wrote it.
        embed: turns texts into unit vectors.
        prompts: prompt name ("query", "document") -> text prepended.
        tokenizer: a fast tokenizer; None for endpoints.
        limit: longest input in tokens; None if unknown.
        embed_query: the same for queries where a server must know which texts are queries; None for `embed`.
    """

    name: str
    embed: Embed
    prompts: Mapping[str, str] = field(default_factory=dict)
    tokenizer: PreTrainedTokenizerBase | None = None
    limit: int | None = None
    embed_query: Embed | None = None

    def for_role(self, role: str) -> Encoder:
        """Return what encodes queries (role "query"), or documents."""
        return replace(self, embed=self.embed_query) if self.embed_query and role == "query" else self

    def encode(self, texts: Sequence[str], *, stage: str = "encode", prompt: str | None = None) -> np.ndarray:
        """Encode texts to float32 (len(texts), d), rows of unit length, with `prompt` prepended to every text."""
        return self.embed(texts, stage=stage, prompt=prompt or None)

    @property
    def document_prompt(self) -> str:
        """The prompt of documents; empty if there is none."""
        return prompts_of(self).document or ""

    def with_prompts(self, prompts: str) -> Encoder:
        """Return the same model with other prompts, written `QUERY PROMPT||DOCUMENT PROMPT`; either may be empty.

        Raises:
            ParameterError: there is not exactly one `||`.
        """
        if prompts.count(BETWEEN_PROMPTS) != 1:
            remedy = f"Write the query's prompt, {BETWEEN_PROMPTS}, the document's prompt; either may be empty"
            raise ParameterError(f"expected two prompts, got {prompts!r}", remedy=remedy, field="prompts")
        query, document = prompts.split(BETWEEN_PROMPTS)
        return replace(self, prompts={"query": query, "document": document})

    def part_read(self, document: str) -> str:
        """Return the beginning of `document` that fits into the model's input; all of it if the limit is unknown."""
        if self.tokenizer is None or self.limit is None:
            return document
        text = self.document_prompt + document
        encoded = self.tokenizer(text, truncation=True, max_length=self.limit, return_offsets_mapping=True)
        end = max((end for _, end in encoded["offset_mapping"]), default=0)
        return document[: max(0, end - len(self.document_prompt))]

    def pieces(self, word: str) -> list[str]:
        """Return the word pieces of `word`; none without a tokenizer."""
        return self.tokenizer.tokenize(word) if self.tokenizer is not None else []

    def is_unknown(self, word: str) -> bool:
        """Return whether the vocabulary has no pieces for `word`."""
        return self.tokenizer is not None and self.tokenizer.unk_token in self.pieces(word)


def open_encoder(name: str) -> Encoder:
    """Open an API model, such as `openai:MODEL@URL`, or any name that `models.load.load_model` takes.

    Vectors are cached on disk.

    Raises:
        ModelError: the model cannot be found or loaded.
    """
    from embedlab.models.cache import EmbeddingCache
    from embedlab.models.load import open_model

    model = open_model(name)
    if isinstance(model, ApiModel):
        query, document = (model.for_role(role).encode for role in ("query", "document"))
        return Encoder(name, document, model.prompts, embed_query=query)
    require_one_encoder(model)
    return Encoder(name, partial(EmbeddingCache().encode, model), model.prompts, *_tokenizer(model))


def _tokenizer(model: Any) -> tuple[PreTrainedTokenizerBase | None, int | None]:
    """Return the model's tokenizer, if it reports character offsets, and the longest input in tokens."""
    tokenizer = getattr(model, "tokenizer", None)
    return (tokenizer, model.max_seq_length) if getattr(tokenizer, "is_fast", False) else (None, None)
