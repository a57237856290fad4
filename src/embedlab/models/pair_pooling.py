"""How a joint reading of query and document is scored: each part's tokens pooled apart, then compared.

The file travels with the models that use it, so it imports nothing of this package: they load with
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
    """Turns the tokens of `[CLS] query [SEP] document [SEP]` into the product, number by number, of two unit vectors.

    One is the mean of the tokens up to the first separator, the other that of the rest. The product's sum is their
    cosine: with equal weights behind it, a transformer that embeds well ranks as a cross-encoder before it is trained
    as one, where a fresh head on the mean of all tokens begins with noise.

    Args:
        separator: token id that ends the query and the document.
        dim: of a token's vector (d).
    """

    config_keys = ["separator", "dim"]

    def __init__(self, separator: int, dim: int) -> None:
        super().__init__()
        self.separator, self.dim = separator, dim

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds `sentence_embedding` (B, d) to `token_embeddings` that are padded (B, L, d) or packed (1, T, d)."""
        ids, tokens, text = _real(features)
        ends, length = (ids == self.separator).long(), text.bincount()
        before = ends.cumsum(0) - ends  # separators so far; RoBERTa has two between query and document
        starts = length.cumsum(0) - length
        segment = 2 * text + (before > before[starts][text])
        sums = tokens.new_zeros(2 * len(length), self.dim).index_add(0, segment, tokens)
        query, document = F.normalize(sums, dim=-1).unflatten(0, (-1, 2)).unbind(1)
        return features | {"sentence_embedding": query * document}

    def get_embedding_dimension(self) -> int:
        """d."""
        return self.dim

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """The configuration; and this file in the model's folder, where loading looks for it."""
        shutil.copy(__file__, Path(output_path).parent)
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> PairProductPooling:
        """What `save` wrote."""
        places = ("token", "cache_folder", "revision", "local_files_only")
        hub = {"subfolder": subfolder} | {name: kwargs[name] for name in places if name in kwargs}
        return cls(**cls.load_config(model_name_or_path, **hub))


def _real(features: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (T,) and vectors (T, d) of all real tokens, text after text, and the number of the text of each."""
    ids, tokens = features["input_ids"], features["token_embeddings"]
    if "cu_seq_lens_q" in features:  # packed: there is no padding
        lengths = features["cu_seq_lens_q"].diff()
        texts = torch.arange(len(lengths), device=ids.device).repeat_interleave(lengths)
        return ids.flatten(), tokens.flatten(0, -2), texts
    real = features["attention_mask"].bool()
    return ids[real], tokens[real], real.nonzero()[:, 0]
