"""Score a (query, document) pair by pooling the two parts separately and comparing them.

The file is saved with the models that use it, so it imports nothing from this package. They load with
`CrossEncoder(folder, trust_remote_code=True)`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers.base.modules import Module
from torch import Tensor


class PairProductPooling(Module):
    """Turn the tokens of `[CLS] query [SEP] document [SEP]` into the elementwise product of two unit vectors.

    The first vector is the mean of the tokens up to the first separator, the second the mean of the others. The sum
    of the product is their cosine. With equal weights on top, a transformer that embeds well already ranks as a
    cross-encoder before any training; a fresh head on the mean of all tokens starts from noise.

    Args:
        separator: token id that ends the query and the document.
        dim: dimensions of a token vector (d).
    """

    config_keys = ["separator", "dim"]

    def __init__(self, separator: int, dim: int) -> None:
        super().__init__()
        self.separator, self.dim = separator, dim

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding` (B, d) to `token_embeddings` that are padded (B, L, d) or packed (1, T, d)."""
        ids, tokens, text = _unpadded(features)
        is_separator, length = (ids == self.separator).long(), text.bincount()
        separators_before = is_separator.cumsum(0) - is_separator
        starts = length.cumsum(0) - length
        in_document = separators_before > separators_before[starts][text]  # RoBERTa has two separators in the middle
        sums = tokens.new_zeros(2 * len(length), self.dim).index_add(0, 2 * text + in_document, tokens)
        query, document = F.normalize(sums, dim=-1).unflatten(0, (-1, 2)).unbind(1)
        return features | {"sentence_embedding": query * document}

    def get_embedding_dimension(self) -> int:
        """Return d."""
        return self.dim

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save the configuration, and copy this file into the model folder, where loading expects it."""
        shutil.copy(__file__, Path(output_path).parent)
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> PairProductPooling:
        """Load what `save` wrote."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        hub = {"subfolder": subfolder} | {name: kwargs[name] for name in names if name in kwargs}
        return cls(**cls.load_config(model_name_or_path, **hub))


def _unpadded(features: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ids (T,) and vectors (T, d) of all tokens without padding, and for each the row of its text (T,)."""
    ids, tokens = features["input_ids"], features["token_embeddings"]
    if "cu_seq_lens_q" in features:  # packed: there is no padding
        lengths = features["cu_seq_lens_q"].diff()
        texts = torch.arange(len(lengths), device=ids.device).repeat_interleave(lengths)
        return ids.flatten(), tokens.flatten(0, -2), texts
    mask = features["attention_mask"].bool()
    return ids[mask], tokens[mask], mask.nonzero()[:, 0]
