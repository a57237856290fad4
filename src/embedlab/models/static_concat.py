"""Concatenate a transformer's embedding with a static embedding: one module after pooling.

The file is saved with the models that use it, so it imports nothing from this package but its neighbour. They load
with `SentenceTransformer(folder, trust_remote_code=True)`.
"""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers.base.modules import Module
from torch import Tensor, nn

from .static_ngrams import NGrams


class ConcatStaticEmbedding(Module):
    """Replace the unit embedding u of a text by `[sqrt(1 - w) u, sqrt(w) v]`, with v its static embedding.

    v is the sum of the token embeddings, without those of the prompt, scaled to unit length. The dot product of two
    results is `(1 - w) cos(u, u') + w cos(v, v')`.

    Args:
        vocab_size: tokens with a static embedding (V).
        static_dim: dimensions of the static embedding (e).
        transformer_dim: dimensions of the incoming `sentence_embedding` (d).
        static_share: w, from 0 to 1.
        special_tokens: token ids to skip: those that the tokenizer adds to every text.
        pieces: the word pieces in the order of their ids, to find the words; None without features.
        features: names of the F features with an embedding, see `NGrams`; None without any.
    """

    config_keys = [
        *("vocab_size", "static_dim", "transformer_dim", "static_share", "special_tokens"),
        *("pieces", "features"),
    ]

    def __init__(
        self,
        vocab_size: int,
        static_dim: int,
        transformer_dim: int,
        static_share: float,
        special_tokens: list[int],
        pieces: list[str] | None = None,
        features: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size, self.static_dim, self.transformer_dim = vocab_size, static_dim, transformer_dim
        self.static_share, self.special_tokens = static_share, special_tokens
        self.pieces, self.features = pieces, features
        self.ngrams = NGrams(pieces or [], features) if features else None
        self.embedding = nn.Embedding(vocab_size, static_dim)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Replace `sentence_embedding` (B, d) by (B, d + e); `input_ids` may be padded or packed."""
        unit = F.normalize(features["sentence_embedding"], dim=-1)
        ids, text, position = _token_ids(features)
        keep = torch.isin(ids, torch.tensor(self.special_tokens, device=ids.device), invert=True)
        keep &= position >= _prompt_length(features)
        ids, text = ids[keep], text[keep]
        if self.ngrams is not None:
            ids, text = self.ngrams.expand_batch(ids, text, len(unit))
        sums = torch.zeros(len(unit), self.static_dim, dtype=unit.dtype, device=unit.device)
        sums = sums.index_add(0, text, self.embedding(ids).to(unit.dtype))
        static = F.normalize(sums, dim=-1)
        weighted = [math.sqrt(1 - self.static_share) * unit, math.sqrt(self.static_share) * static]
        return features | {"sentence_embedding": torch.cat(weighted, dim=-1)}

    def get_embedding_dimension(self) -> int:
        """Return d + e."""
        return self.transformer_dim + self.static_dim

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save configuration and weights, and copy the code into the model folder, where loading expects it."""
        for module in (type(self).__module__, NGrams.__module__):
            shutil.copy(str(sys.modules[module].__file__), Path(output_path).parent)
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> ConcatStaticEmbedding:
        """Load what `save` wrote."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        hub = {"subfolder": subfolder} | {name: kwargs[name] for name in names if name in kwargs}
        module = cls(**cls.load_config(model_name_or_path, **hub))
        return cls.load_torch_weights(model_name_or_path, model=module, **hub)


def _token_ids(features: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ids of all tokens without padding (T,), and for each the row and the position in its text (T,)."""
    if "cu_seq_lens_q" in features:  # packed: all texts in one row
        bounds = features["cu_seq_lens_q"]
        texts = torch.arange(len(bounds) - 1, device=bounds.device).repeat_interleave(bounds.diff())
        ids = features["input_ids"].flatten()
        return ids, texts, torch.arange(len(ids), device=ids.device) - bounds[texts]
    mask = features["attention_mask"].bool()
    positions = mask.long().cumsum(1) - 1  # also right when the padding is on the left
    return features["input_ids"][mask], mask.nonzero()[:, 0], positions[mask]


def _prompt_length(features: dict[str, Any]) -> int:
    """Return the number of tokens that the prompt takes at the start of every text, special tokens included."""
    length = features.get("prompt_length")
    if length is None:
        return 0
    return int(length.flatten()[0]) if isinstance(length, Tensor) else int(length)
