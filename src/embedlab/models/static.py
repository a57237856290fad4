"""Static embeddings: a table with one vector per word piece, and a text is the mean of its pieces' rows.

No layer runs, so that encoding costs a look-up and a sum. What such a model saves is a stock sentence-transformers
model (`StaticEmbedding`, `Normalize`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embedlab import progress
from embedlab.models.tokens import to_features
from embedlab.models.wordpiece_cache import WordPieces

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PIECES_AT_A_TIME = 2048
TEXTS_AT_A_TIME = 4096


@dataclass(frozen=True)
class TokenBags:
    """The token ids of N texts end to end, to cut batches from without tokenising again.

    Attributes:
        ids: (T,) token ids of all texts, in order.
        starts: (N + 1,) where each text begins in `ids`; the last entry is T.
    """

    ids: Tensor
    starts: Tensor

    @classmethod
    def of(cls, model: SentenceTransformer, texts: Sequence[str], pieces: WordPieces | None = None) -> TokenBags:
        """The texts as the static `model` tokenises them: no special tokens, no truncation.

        `pieces` of an earlier call know its words already.
        """
        ids = (WordPieces(model.tokenizer) if pieces is None else pieces).of(texts)
        starts = np.cumsum([0, *map(len, ids)])
        return cls(
            torch.from_numpy(np.fromiter(chain.from_iterable(ids), np.int64, starts[-1])), torch.from_numpy(starts)
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def features(self, rows: Tensor) -> dict[str, Tensor]:
        """What `StaticEmbedding.forward` takes for the texts numbered `rows` (B,): `input_ids` and `offsets`."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        offsets = lengths.cumsum(0) - lengths
        places = torch.arange(int(lengths.sum())) + (self.starts[rows] - offsets).repeat_interleave(lengths)
        return {"input_ids": self.ids[places], "offsets": offsets}

    def frequencies(self, vocabulary: int) -> Tensor:
        """Share of all tokens that each token id is, float32 (vocabulary,)."""
        return torch.bincount(self.ids, minlength=vocabulary) / max(1, len(self.ids))


class BagCollator:
    """Trainer collator for a static model: rows hold text numbers in `label`, batches hold their bags.

    Args:
        bags: number -> token ids.
        columns: one name per number in `label`, queries first.
    """

    valid_label_columns = ("label",)

    def __init__(self, bags: TokenBags, columns: Sequence[str]) -> None:
        self.bags, self.columns = bags, tuple(columns)

    def __call__(self, rows: list[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Features of every column under its name, and `label` (rows, columns)."""
        numbers = torch.tensor([row["label"] for row in rows])
        batch = {"label": numbers}
        for column, name in zip(numbers.T, self.columns, strict=True):
            batch |= {f"{name}_{key}": value for key, value in self.bags.features(column).items()}
        return batch


def static_student(teacher: SentenceTransformer, texts: Sequence[str], *, rarity: float = 1e-3) -> SentenceTransformer:
    """A static model that starts from what `teacher` makes of every word piece on its own.

    The row of piece w is `a / (a + p(w))` times the teacher's unit vector of the text [CLS] w [SEP], with p(w) the
    share of the tokens of `texts` that are w: frequent pieces, which tell texts apart least, weigh little (smooth
    inverse frequency, Arora, Liang & Ma, ICLR 2017). Nothing is trained yet.

    Args:
        teacher: a sentence-transformers model with a fast tokenizer.
        texts: give the frequencies.
        rarity: a above; smaller weighs frequent pieces less.

    Returns:
        `SentenceTransformer` of `StaticEmbedding` and `Normalize`, dimension d of the teacher.
    """
    rows = piece_vectors(teacher)
    model = static_model(teacher, rows)
    weights = rarity / (rarity + TokenBags.of(model, texts).frequencies(len(rows)))
    model[0].embedding.weight.data.mul_(weights[:, None])
    return model


def static_model(teacher: SentenceTransformer, rows: Tensor) -> SentenceTransformer:
    """A static model with the tokenizer of `teacher` and the given table (vocabulary, d)."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    # A copy, as StaticEmbedding switches padding off in the tokenizer it is given.
    tokenizer = Tokenizer.from_str(teacher.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, rows), Normalize()], device="cpu")


@torch.inference_mode()
def encode_static(model: SentenceTransformer, texts: Sequence[str]) -> np.ndarray:
    """What `model.encode` gives, float32 (len(texts), d) of unit length, with less work around the look-up.

    Words are cut into pieces once and then looked up, see `WordPieces`, and texts are not sorted.
    """
    pieces = WordPieces(model.tokenizer)
    vectors = np.empty((len(texts), model.get_embedding_dimension()), dtype=np.float32)
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        bags = TokenBags.of(model, texts[start : start + TEXTS_AT_A_TIME], pieces)
        embeddings = model({"input_ids": bags.ids, "offsets": bags.starts[:-1]})["sentence_embedding"]
        vectors[start : start + len(bags)] = F.normalize(embeddings, dim=-1).numpy()
    return vectors


@torch.no_grad()
def piece_vectors(teacher: SentenceTransformer) -> Tensor:
    """The teacher's unit vector of every word piece as a text of its own, float32 (vocabulary, d)."""
    teacher.eval()
    before, after = _special_tokens(teacher)
    pieces = range(len(teacher.tokenizer))
    chunks = [pieces[start : start + PIECES_AT_A_TIME] for start in range(0, len(pieces), PIECES_AT_A_TIME)]
    vectors = []
    for chunk in progress.track(chunks, "encode word pieces"):
        features = to_features(teacher, [[*before, piece, *after] for piece in chunk])
        features = {key: value.to(teacher.device) if hasattr(value, "to") else value for key, value in features.items()}
        vectors.append(F.normalize(teacher(features)["sentence_embedding"].float(), dim=-1).cpu())
    return torch.cat(vectors)


def _special_tokens(model: SentenceTransformer) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    encoding = model.tokenizer("a", return_special_tokens_mask=True)
    ids, first = encoding["input_ids"], encoding["special_tokens_mask"].index(0)
    last = len(ids) - encoding["special_tokens_mask"][::-1].index(0)
    return ids[:first], ids[last:]
