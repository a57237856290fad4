"""Turn texts into the features of a model's forward pass, tokenizing each text only once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embedlab.models.packing import is_packed
from embedlab.models.sides import is_static, require_one_encoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CHUNK = 4096  # texts per call of the tokenizer, whose own results take about 200 bytes per token


class TokenIds:
    """Token ids of N texts in one array, 4 bytes per token.

    Args:
        ids: int32 (T,) token ids of all texts, in order.
        starts: int64 (N + 1,) where each text begins in `ids`; the last entry is T.
        truncated: number of texts that were longer than the model's limit.
    """

    def __init__(self, ids: np.ndarray, starts: np.ndarray, truncated: int = 0) -> None:
        self.ids, self.starts, self.truncated = ids, starts, truncated

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, text: int) -> np.ndarray:
        """Return the token ids of one text, int32 (tokens,)."""
        return self.ids[self.starts[text] : self.starts[text + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[text] for text in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of every text, int64 (N,)."""
        return np.diff(self.starts)


def token_ids(model: SentenceTransformer, texts: Sequence[str], prompt: str | None = None) -> TokenIds:
    """Tokenize texts as the model does: with special tokens and truncation, or without both for a static model.

    Args:
        model: gives the tokenizer and the maximum length.
        texts: N texts.
        prompt: text in front of each.

    Returns:
        The token ids of N texts.
    """
    require_one_encoder(model)
    parts, lengths, truncated = [np.empty(0, np.int32)], [0], 0
    for start in range(0, len(texts), CHUNK):
        rows, longer = _tokenize(model, [(prompt or "") + text for text in texts[start : start + CHUNK]])
        lengths += map(len, rows)
        truncated += longer
        parts.append(np.fromiter(chain.from_iterable(rows), np.int32, sum(map(len, rows))))
    return TokenIds(np.concatenate(parts), np.cumsum(lengths), truncated)


def count_overflowing(encoded: Any) -> int:
    """Count the truncated texts in the result of a tokenizer; 0 for a slow tokenizer, which does not say."""
    return sum(bool(encoding.overflowing) for encoding in encoded.encodings or ())


def _tokenize(model: SentenceTransformer, texts: list[str]) -> tuple[list[list[int]], int]:
    if is_static(model):
        return [encoding.ids for encoding in model.tokenizer.encode_batch(texts, add_special_tokens=False)], 0
    only_ids = {"return_attention_mask": False, "return_token_type_ids": False}
    encoded = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length, **only_ids)
    rows: list[list[int]] = encoded["input_ids"]
    return rows, count_overflowing(encoded)


def prompt_length(model: SentenceTransformer, prompt: str | None) -> int | None:
    """Number of prompt tokens, for pooling that excludes them; None without a prompt."""
    return model[0]._get_prompt_length(prompt) if prompt and not is_static(model) else None


def to_features(
    model: SentenceTransformer, ids: Iterable[Sequence[int] | np.ndarray], prompt: str | None = None
) -> dict[str, Any]:
    """Build the features that `model.preprocess` returns for the same texts.

    Args:
        model: decides whether the features are packed or padded.
        ids: token ids of each text, from `token_ids`.
        prompt: the prompt that `ids` were made with.

    Returns:
        Feature name -> tensor; `input_ids` is (1, tokens) if packed, (batch, length) if padded, and (tokens,) with
        `offsets` (batch,) for a static model.
    """
    require_one_encoder(model)
    transformer = model[0]
    if is_static(model):
        lengths = torch.tensor([0, *[len(row) for row in ids][:-1]])
        flat = torch.from_numpy(np.concatenate([np.asarray(row, dtype=np.int64) for row in ids]))
        return {"input_ids": flat, "offsets": lengths.cumsum(0)}
    if is_packed(model):
        features = transformer.data_collator([{"input_ids": row} for row in ids])
        features.pop("labels")
        features["position_ids"] = features["position_ids"] + transformer._flatten_position_offset
    else:
        features = dict(
            transformer.tokenizer.pad({"input_ids": [list(map(int, row)) for row in ids]}, return_tensors="pt")
        )
    features["modality"] = "text"
    if length := prompt_length(model, prompt):
        features["prompt_length"] = length
    return features
