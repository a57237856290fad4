"""Models of any kind behind one face: a folder, a hub name, or an embeddings endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedlab.errors import ParameterError
from embedlab.models import api

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BETWEEN_PROMPTS = "||"


class Embed(Protocol):
    """Texts to unit vectors (n, d)."""

    def __call__(self, texts: Sequence[str], *, stage: str, prompt: str | None) -> np.ndarray: ...


@dataclass(frozen=True)
class Encoder:
    """What the diagnosis needs to know of a model; `encode_split(encoder, …, encode=Encoder.encode)` takes it.

    Attributes:
        name: as the person wrote it.
        embed: turns texts into unit vectors.
        prompts: what stands before every "query" and every "document".
        tokenizer: a fast tokenizer, where there is one on this machine; endpoints have none.
        limit: tokens read of each text; None where that is not known.
    """

    name: str
    embed: Embed
    prompts: Mapping[str, str] = field(default_factory=dict)
    tokenizer: PreTrainedTokenizerBase | None = None
    limit: int | None = None

    def encode(self, texts: Sequence[str], *, stage: str = "encode", prompt: str | None = None) -> np.ndarray:
        """float32 (len(texts), d), rows of unit length, `prompt` put before every text."""
        return self.embed(texts, stage=stage, prompt=prompt or None)

    @property
    def document_prompt(self) -> str:
        """What stands before every document; empty where nothing does."""
        return self.prompts.get("document") or self.prompts.get("passage") or ""

    def with_prompts(self, prompts: str) -> Encoder:
        """The same model with other prompts, written `QUERY PROMPT||DOCUMENT PROMPT`; either may be empty.

        Raises:
            ParameterError: the two are not told apart by one `||`.
        """
        if prompts.count(BETWEEN_PROMPTS) != 1:
            remedy = f"Write the query's prompt, {BETWEEN_PROMPTS}, the document's prompt; either may be empty"
            raise ParameterError(f"{prompts!r} is no pair of prompts", remedy=remedy, field="prompts")
        query, document = prompts.split(BETWEEN_PROMPTS)
        return replace(self, prompts={"query": query, "document": document})

    def part_read(self, document: str) -> str:
        """The beginning of `document` that the model reads; all of it where the limit is not known."""
        if self.tokenizer is None or self.limit is None:
            return document
        text = self.document_prompt + document
        encoded = self.tokenizer(text, truncation=True, max_length=self.limit, return_offsets_mapping=True)
        end = max((end for _, end in encoded["offset_mapping"]), default=0)
        return document[: max(0, end - len(self.document_prompt))]

    def pieces(self, word: str) -> list[str]:
        """The word pieces of `word`; none where there is no tokenizer."""
        return self.tokenizer.tokenize(word) if self.tokenizer is not None else []

    def is_unknown(self, word: str) -> bool:
        """Whether the vocabulary cannot spell `word` at all."""
        return self.tokenizer is not None and self.tokenizer.unk_token in self.pieces(word)


def open_encoder(name: str) -> Encoder:
    """The model called `name`: `openai:MODEL@URL`, or what `models.load.load_model` takes.

    Vectors of local models are cached on disk; an endpoint is asked anew in every run.

    Raises:
        ModelError: it cannot be found, loaded or reached.
    """
    if name.startswith(api.SCHEME):
        return Encoder(name, api.Endpoint.parse(name).encode)
    from embedlab.models.cache import EmbeddingCache
    from embedlab.models.load import load_model

    model = load_model(name)
    return Encoder(name, partial(EmbeddingCache().encode, model), model.prompts, *_tokenizer(model))


def _tokenizer(model: Any) -> tuple[PreTrainedTokenizerBase | None, int | None]:
    """The model's tokenizer, if it can say where in a text its tokens lie, and its limit in tokens."""
    tokenizer = getattr(model, "tokenizer", None)
    return (tokenizer, model.max_seq_length) if getattr(tokenizer, "is_fast", False) else (None, None)
