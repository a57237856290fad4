"""Static embeddings: one vector per token, and a text is the mean of the vectors of its tokens.

No transformer layer runs, so encoding is a lookup and a sum. A saved model is a stock sentence-transformers model
(`StaticEmbedding`, `Normalize`), unless it also embeds words and n-grams (`with_ngrams`): then it comes with its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from embedlab import progress
from embedlab.errors import ModelError
from embedlab.models.packing import on_device
from embedlab.models.sides import is_static, require_one_encoder
from embedlab.models.static_ngrams import NGramStaticEmbedding, count_features
from embedlab.models.tokens import to_features
from embedlab.models.wordpiece_cache import WordPieceCache

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TOKENS_PER_BATCH = 2048
TEXTS_PER_BATCH = 4096
LEAST, MOST = 2, 200_000  # texts that a feature occurs in, and features: 300 MB at 384 dimensions
SIF_COEFFICIENT = 1e-3  # a smaller value weighs frequent tokens less


@dataclass(frozen=True)
class TokenBags:
    """The token ids of N texts in one flat array, to cut batches from without tokenising again.

    Attributes:
        ids: (T,) token ids of all texts, in order.
        starts: (N + 1,) where each text begins in `ids`; the last entry is T.
    """

    ids: Tensor
    starts: Tensor

    @classmethod
    def tokenise(
        cls, model: SentenceTransformer, texts: Sequence[str], cache: WordPieceCache | None = None
    ) -> TokenBags:
        """Tokenise `texts` as the static `model` does: no special tokens, no truncation.

        Args:
            model: a static model.
            texts: N texts.
            cache: words already split by an earlier call.
        """
        tokenizer: Any = model.tokenizer
        ids = (WordPieceCache(plain_tokenizer(model)) if cache is None else cache).tokenise(texts)
        if is_expanding(model):
            ids = [tokenizer.ngrams.expand(row) for row in ids]
        starts = np.cumsum([0, *map(len, ids)])
        flat_ids = np.fromiter(chain.from_iterable(ids), np.int64, starts[-1])
        return cls(torch.from_numpy(flat_ids), torch.from_numpy(starts))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def features(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the input of `StaticEmbedding.forward` for the texts `rows` (B,): `input_ids` and `offsets`."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        offsets = lengths.cumsum(0) - lengths
        positions = torch.arange(int(lengths.sum())) + (self.starts[rows] - offsets).repeat_interleave(lengths)
        return {"input_ids": self.ids[positions], "offsets": offsets}

    def frequencies(self, vocab_size: int) -> Tensor:
        """Return the relative frequency of every token id, float32 (vocab_size,)."""
        return torch.bincount(self.ids, minlength=vocab_size) / max(1, len(self.ids))


class BagCollator:
    """Collate batches for a static model: rows hold text indices in `label`, batches hold token bags.

    Args:
        bags: the tokenised texts.
        columns: one name per index in `label`, queries first.
    """

    valid_label_columns = ("label",)

    def __init__(self, bags: TokenBags, columns: Sequence[str]) -> None:
        self.bags, self.columns = bags, tuple(columns)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the features of every column under its name, and `label` (rows, columns)."""
        labels = torch.tensor([row["label"] for row in rows])
        batch = {"label": labels}
        for text_indices, name in zip(labels.T, self.columns, strict=True):
            batch |= {f"{name}_{key}": value for key, value in self.bags.features(text_indices).items()}
        return batch


def static_student(teacher: SentenceTransformer, texts: Sequence[str]) -> SentenceTransformer:
    """Build a static model whose token embeddings are the teacher's embeddings of single tokens, weighted by rarity.

    The vector of token w is `a / (a + p(w))` times the teacher's unit vector of the text [CLS] w [SEP], with a = 0.001
    and p(w) the relative frequency of w in `texts`: frequent tokens say least about a text (smooth inverse frequency,
    Arora, Liang & Ma, ICLR 2017; Model2Vec does the same). Nothing is trained here.

    Args:
        teacher: a sentence-transformers model with a fast tokenizer and d dimensions.
        texts: token frequencies are counted on these.

    Returns:
        `SentenceTransformer` of `StaticEmbedding` and `Normalize`, with d dimensions.
    """
    embeddings = token_vectors(teacher)
    model = static_model(teacher, embeddings)
    weights = SIF_COEFFICIENT / (SIF_COEFFICIENT + TokenBags.tokenise(model, texts).frequencies(len(embeddings)))
    model[0].embedding.weight.data.mul_(weights[:, None])
    return model


def is_expanding(model: SentenceTransformer) -> bool:
    """Whether a static model embeds words and n-grams besides word pieces, see `static_ngrams`."""
    return hasattr(model.tokenizer, "ngrams")


def plain_tokenizer(model: SentenceTransformer) -> Tokenizer:
    """Return the tokenizer of a static model that splits texts into word pieces."""
    tokenizer: Any = model.tokenizer
    return tokenizer.tokenizer if is_expanding(model) else tokenizer


def with_ngrams(
    model: SentenceTransformer, texts: Sequence[str], *, least: int = LEAST, most: int = MOST
) -> SentenceTransformer:
    """Add rows for words, pairs of words and character n-grams to a static model; they start at zero.

    So the embeddings do not change before training.

    Args:
        model: a static model of word pieces; a copy of it is used.
        texts: the texts that features are counted in, usually the corpus and the training queries.
        least: texts that a feature must occur in.
        most: maximum number of features, the most frequent ones.

    Returns:
        `SentenceTransformer` of `NGramStaticEmbedding` and `Normalize`.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize

    tokenizer = Tokenizer.from_str(plain_tokenizer(model).to_str())
    counts = count_features(tokenizer, dict.fromkeys(texts))
    # Ties in alphabetical order, so that the same texts always give the same model.
    frequent = sorted(
        (name for name, count in counts.items() if count >= least), key=lambda name: (-counts[name], name)
    )
    features, pieces = frequent[:most], model[0].embedding.weight.data
    rows = torch.cat([pieces, pieces.new_zeros(len(features), pieces.shape[1])])
    return SentenceTransformer(modules=[NGramStaticEmbedding(tokenizer, features, rows), Normalize()], device="cpu")


def static_model(teacher: SentenceTransformer, embeddings: Tensor) -> SentenceTransformer:
    """Build a static model from token embeddings.

    Args:
        teacher: its tokenizer is copied.
        embeddings: (V, d), one row per token of the vocabulary.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    if not hasattr(teacher.tokenizer, "backend_tokenizer"):
        problem = f"a static model needs a fast tokenizer, not {type(teacher.tokenizer).__name__}"
        raise ModelError(problem, remedy="Use a model that has a tokenizer.json", field="model_name")
    # A copy, because StaticEmbedding turns off padding in the tokenizer it is given.
    tokenizer = Tokenizer.from_str(teacher.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embeddings), Normalize()], device="cpu")


@torch.inference_mode()
def encode_static(model: SentenceTransformer, texts: Sequence[str]) -> np.ndarray:
    """Encode `texts` with a static model, faster than `model.encode`: words are tokenised once, texts not sorted.

    Returns:
        float32 (len(texts), d), unit vectors equal to those of `model.encode`.
    """
    cache = WordPieceCache(plain_tokenizer(model))
    vectors = np.empty((len(texts), model.get_embedding_dimension()), dtype=np.float32)
    for start in range(0, len(texts), TEXTS_PER_BATCH):
        bags = TokenBags.tokenise(model, texts[start : start + TEXTS_PER_BATCH], cache)
        embeddings = model({"input_ids": bags.ids, "offsets": bags.starts[:-1]})["sentence_embedding"]
        vectors[start : start + len(bags)] = F.normalize(embeddings, dim=-1).numpy()
    return vectors


@torch.no_grad()
def token_vectors(teacher: SentenceTransformer) -> Tensor:
    """Encode every token of the vocabulary as a text of its own.

    Returns:
        float32 (V, d), unit vectors.
    """
    require_one_encoder(teacher)
    if is_static(teacher):
        remedy = "Continue its training with notebook 03, or use a teacher with a transformer"
        raise ModelError("the teacher is a static model already", remedy=remedy, field="model_name")
    teacher.eval()
    prefix, suffix = _special_tokens(teacher)
    token_ids = range(len(teacher.tokenizer))
    batches = [token_ids[start : start + TOKENS_PER_BATCH] for start in range(0, len(token_ids), TOKENS_PER_BATCH)]
    vectors = []
    for batch in progress.track(batches, "encode tokens"):
        features = to_features(teacher, [[*prefix, token, *suffix] for token in batch])
        features = on_device(features, teacher.device)
        vectors.append(F.normalize(teacher(features)["sentence_embedding"].float(), dim=-1).cpu())
    return torch.cat(vectors)


def _special_tokens(model: SentenceTransformer) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer adds at the start and at the end of a text."""
    encoding = model.tokenizer("a", return_special_tokens_mask=True)
    ids, first = encoding["input_ids"], encoding["special_tokens_mask"].index(0)
    last = len(ids) - encoding["special_tokens_mask"][::-1].index(0)
    return ids[:first], ids[last:]
