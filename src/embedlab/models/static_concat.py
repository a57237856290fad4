"""A table of word pieces beside a transformer: one module, after pooling, that puts both vectors of a text end to end.

The file travels with the models that use it, so it imports nothing of this package: they load with
`SentenceTransformer(folder, trust_remote_code=True)`.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers.base.modules import Module
from torch import Tensor, nn


class ConcatStaticEmbedding(Module):
    """Turns the unit vector u of a text into `[sqrt(1 - w) u, sqrt(w) v]`, v the unit sum of its word pieces' rows.

    The dot product of two such vectors is `(1 - w) cos(u, u') + w cos(v, v')`.

    Args:
        vocabulary: rows of the table (V).
        dim: numbers per row (e).
        before: dimension (d) of what comes in as `sentence_embedding`.
        share: w, from 0 to 1.
        without: token ids that have no row: what the tokenizer adds to every text.
    """

    config_keys = ["vocabulary", "dim", "before", "share", "without"]

    def __init__(self, vocabulary: int, dim: int, before: int, share: float, without: list[int]) -> None:
        super().__init__()
        self.vocabulary, self.dim, self.before, self.share, self.without = vocabulary, dim, before, share, without
        self.table = nn.Embedding(vocabulary, dim)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Replaces `sentence_embedding` (B, d) by (B, d + e); `input_ids` may be padded or packed."""
        unit = F.normalize(features["sentence_embedding"], dim=-1)
        ids, text = _tokens(features)
        kept = torch.isin(ids, torch.tensor(self.without, device=ids.device), invert=True)
        sums = torch.zeros(len(unit), self.dim, dtype=unit.dtype, device=unit.device)
        sums = sums.index_add(0, text[kept], self.table(ids[kept]).to(unit.dtype))
        parts = [math.sqrt(1 - self.share) * unit, math.sqrt(self.share) * F.normalize(sums, dim=-1)]
        return features | {"sentence_embedding": torch.cat(parts, dim=-1)}

    def get_embedding_dimension(self) -> int:
        """d + e."""
        return self.before + self.dim

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Configuration and weights; and this file in the model's folder, where loading looks for it."""
        shutil.copy(__file__, Path(output_path).parent)
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> ConcatStaticEmbedding:
        """What `save` wrote."""
        places = ("token", "cache_folder", "revision", "local_files_only")
        hub = {"subfolder": subfolder} | {name: kwargs[name] for name in places if name in kwargs}
        module = cls(**cls.load_config(model_name_or_path, **hub))
        return cls.load_torch_weights(model_name_or_path, model=module, **hub)


def _tokens(features: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The ids of all real tokens (T,), and the number of the text that each belongs to."""
    if "cu_seq_lens_q" in features:  # packed: the texts end to end in one row
        bounds = features["cu_seq_lens_q"]
        texts = torch.arange(len(bounds) - 1, device=bounds.device)
        return features["input_ids"].flatten(), texts.repeat_interleave(bounds.diff())
    real = features["attention_mask"].bool()
    return features["input_ids"][real], real.nonzero()[:, 0]
