"""Turn texts into the features of a model's forward pass, tokenizing each text only once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from embedlab.models.packing import is_packed

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TokenIds = list[list[int]]


def token_ids(model: SentenceTransformer, texts: Sequence[str], prompt: str | None = None) -> TokenIds:
    """Tokenize texts as the model does: with special tokens and truncation, or without both for a static model.

    Args:
        model: gives the tokenizer and the maximum length.
        texts: N texts.
        prompt: text in front of each.

    Returns:
        N lists of token ids, of different lengths.
    """
    prompted = [(prompt or "") + text for text in texts]
    if is_static(model):
        return [encoding.ids for encoding in model.tokenizer.encode_batch(prompted, add_special_tokens=False)]
    return model.tokenizer(prompted, truncation=True, max_length=model.max_seq_length)["input_ids"]


def prompt_length(model: SentenceTransformer, prompt: str | None) -> int | None:
    """Number of prompt tokens, for pooling that excludes them; None without a prompt."""
    return model[0]._get_prompt_length(prompt) if prompt and not is_static(model) else None


def is_static(model: SentenceTransformer) -> bool:
    """Whether `model` looks up token embeddings (`StaticEmbedding`) and runs no transformer."""
    return type(model[0]).__name__ == "StaticEmbedding"


def to_features(model: SentenceTransformer, ids: TokenIds, prompt: str | None = None) -> dict[str, Any]:
    """Build the features that `model.preprocess` returns for the same texts.

    Args:
        model: decides whether the features are packed or padded.
        ids: token ids from `token_ids`.
        prompt: the prompt that `ids` were made with.

    Returns:
        Feature name -> tensor; `input_ids` is (1, tokens) if packed, (batch, length) if padded, and (tokens,) with
        `offsets` (batch,) for a static model.
    """
    transformer = model[0]
    if is_static(model):
        lengths = torch.tensor([0, *map(len, ids[:-1])])
        flat = torch.tensor(list(chain.from_iterable(ids)), dtype=torch.long)
        return {"input_ids": flat, "offsets": lengths.cumsum(0)}
    if is_packed(model):
        features = transformer.data_collator([{"input_ids": row} for row in ids])
        features.pop("labels")
        features["position_ids"] = features["position_ids"] + transformer._flatten_position_offset
    else:
        features = dict(transformer.tokenizer.pad({"input_ids": ids}, return_tensors="pt"))
    features["modality"] = "text"
    if length := prompt_length(model, prompt):
        features["prompt_length"] = length
    return features
