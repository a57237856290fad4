"""From texts to the features a model's forward takes, with the token ids made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedlab.models.packing import is_packed

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TokenIds = list[list[int]]


def token_ids(model: SentenceTransformer, texts: Sequence[str], prompt: str | None = None) -> TokenIds:
    """Token ids of every text with special tokens, truncated as the model does, its prompt in front."""
    prompted = [(prompt or "") + text for text in texts]
    return model.tokenizer(prompted, truncation=True, max_length=model.max_seq_length)["input_ids"]


def prompt_length(model: SentenceTransformer, prompt: str | None) -> int | None:
    """Tokens of the prompt, for pooling that leaves it out; counted as sentence-transformers counts them."""
    return model[0]._get_prompt_length(prompt) if prompt else None


def to_features(model: SentenceTransformer, ids: TokenIds, prompt: str | None = None) -> dict[str, Any]:
    """What `model.preprocess` gives for the texts behind `ids`: packed for a packed model, padded otherwise."""
    transformer = model[0]
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
