"""Static embeddings of word pieces, words, pairs of words and character n-grams.

The tokenizer's word pieces are joined to words again, so everything that is embedded follows from the token ids. The
file is saved with the models that use it, so it imports nothing from this package. They load with
`SentenceTransformer(folder, trust_remote_code=True)`.

A word of several pieces and a pair of neighbours have no embedding in a plain static model. Character n-grams give
words that share a stem similar embeddings (fastText, Bojanowski et al., TACL 2017).
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from torch import Tensor

SIZES = (3, 4, 5)  # characters of an n-gram, with < and > at the ends of the word
NGRAM, PAIR = "#", " "  # mark n-grams, and join the words of a pair: neither occurs inside a word
MOST_WORDS = 1 << 18  # kept with their features
STARTS = "▁Ġ"  # the first character of a word's first piece in SentencePiece and in byte-level BPE
FEATURES_FILE = "features.json"


class Encoding(NamedTuple):
    """What a tokenizer returns for one text."""

    ids: list[int]


class NGrams:
    """Find the features of a text in the ids of its word pieces.

    Args:
        pieces: the V word pieces in the order of their ids: WordPiece, or pieces that mark the start of a word (▁, Ġ).
        features: names of the features with an embedding, from `count_features`; they get the ids from V on.
    """

    def __init__(self, pieces: Sequence[str], features: Sequence[str]) -> None:
        wordpiece = any(piece.startswith("##") for piece in pieces)
        self._continues = [piece.startswith("##") if wordpiece else piece[:1] not in STARTS for piece in pieces]
        self._texts = [piece.removeprefix("##").lstrip(STARTS).replace(PAIR, "_") for piece in pieces]
        self._ids = {name: number for number, name in enumerate(features, start=len(pieces))}
        self._known: dict[tuple[int, ...], tuple[str, list[int]]] = {}  # pieces of a word -> the word, its feature ids

    def expand(self, pieces: Sequence[int]) -> list[int]:
        """Return the ids of the pieces of one text, followed by those of its features.

        Args:
            pieces: ids of the word pieces, without special tokens.
        """
        ids, previous = list(pieces), ""
        for word in self._words(pieces):
            text, features = self._known.get(word) or self._remember(word)
            ids += features
            if (pair := self._ids.get(f"{previous}{PAIR}{text}")) is not None:
                ids.append(pair)
            previous = text
        return ids

    def _remember(self, word: tuple[int, ...]) -> tuple[str, list[int]]:
        """Return a word and the ids of its features, and keep them; a server reads texts without end."""
        text, names = self._features_of(word)
        if len(self._known) >= MOST_WORDS:
            self._known.clear()
        self._known[word] = entry = text, [self._ids[name] for name in names if name in self._ids]
        return entry

    def expand_batch(self, pieces: Tensor, texts: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Expand the texts of a batch, see `expand`.

        Args:
            pieces: int (T,) ids of the word pieces, ordered by text.
            texts: int (T,) the text of each piece.
            count: number of texts, some of which may have no piece.

        Returns:
            Ids, and the text of each.
        """
        lengths = texts.cpu().bincount(minlength=count).tolist()
        rows = [self.expand(row.tolist()) for row in pieces.cpu().split(lengths)]
        ids = torch.tensor([number for row in rows for number in row], dtype=torch.long)
        text_of_id = torch.arange(count).repeat_interleave(torch.tensor([len(row) for row in rows]))
        return ids.to(pieces.device), text_of_id.to(pieces.device)

    def names(self, pieces: Sequence[int]) -> Iterator[str]:
        """Yield the names of all features of one text: words of several pieces, n-grams, pairs of words."""
        words = [self._features_of(word) for word in self._words(pieces)]
        for _, names in words:
            yield from names
        yield from (f"{left}{PAIR}{right}" for (left, _), (right, _) in pairwise(words) if left and right)

    def _words(self, pieces: Sequence[int]) -> list[tuple[int, ...]]:
        words: list[tuple[int, ...]] = []
        for piece in pieces:
            if words and self._continues[piece]:
                words[-1] += (piece,)
            else:
                words.append((piece,))
        return words

    def _features_of(self, word: tuple[int, ...]) -> tuple[str, list[str]]:
        """Return a word and the names of its features; an empty word for punctuation, which has none."""
        text = "".join(self._texts[piece] for piece in word)
        if not any(character.isalnum() for character in text):
            return "", []
        marked = f"<{text}>"
        ngrams = [marked[start : start + size] for size in SIZES for start in range(len(marked) - size + 1)]
        return text, [text] * (len(word) > 1) + [f"{NGRAM}{ngram}" for ngram in ngrams]


class NGramTokenizer:
    """A tokenizer whose ids are those of the word pieces, and after them those of the features of a text.

    Args:
        tokenizer: splits texts into word pieces.
        features: see `NGrams`.
    """

    def __init__(self, tokenizer: Tokenizer, features: Sequence[str]) -> None:
        self.tokenizer, self.features = tokenizer, list(features)
        self.ngrams = NGrams(pieces_of(tokenizer), self.features)

    def encode_batch(self, texts: Sequence[str], **options: Any) -> list[Encoding]:
        """Return the ids of every text, see `NGrams.expand`."""
        return [Encoding(self.ngrams.expand(text.ids)) for text in self.tokenizer.encode_batch(list(texts), **options)]

    def get_vocab(self) -> dict[str, int]:
        """Return piece or feature -> id."""
        first = len(pieces_of(self.tokenizer))
        features = {f"feature {name}": number for number, name in enumerate(self.features, start=first)}
        return features | self.tokenizer.get_vocab()

    def no_padding(self) -> None:
        """Switch padding off."""
        self.tokenizer.no_padding()


def pieces_of(tokenizer: Tokenizer) -> list[str]:
    """Return the word pieces in the order of their ids; an empty text for an id without one."""
    vocabulary = tokenizer.get_vocab()
    pieces = [""] * (max(vocabulary.values()) + 1)
    for piece, token_id in vocabulary.items():
        pieces[token_id] = piece
    return pieces


def count_features(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """Count in how many texts each feature occurs."""
    ngrams, counts = NGrams(pieces_of(tokenizer), []), Counter[str]()
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        counts.update(set(ngrams.names(encoding.ids)))
    return counts


class NGramStaticEmbedding(StaticEmbedding):
    """`StaticEmbedding` with further rows for the features of `NGramTokenizer`.

    Args:
        tokenizer: splits texts into word pieces.
        features: names of the F features.
        embedding_weights: (V + F, d), pieces first.
    """

    def __init__(self, tokenizer: Tokenizer, features: Sequence[str], embedding_weights: Tensor) -> None:
        super().__init__(tokenizer, embedding_weights)
        self.tokenizer: Any = NGramTokenizer(tokenizer, features)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save weights, tokenizer and features, and copy this file into the model folder."""
        folder, expanding = Path(output_path), self.tokenizer
        self.tokenizer = expanding.tokenizer
        try:
            super().save(output_path, *args, safe_serialization=safe_serialization, **kwargs)
        finally:
            self.tokenizer = expanding
        (folder / FEATURES_FILE).write_text(json.dumps(expanding.features, ensure_ascii=False), encoding="utf-8")
        shutil.copy(__file__, folder if self.save_in_root else folder.parent)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> NGramStaticEmbedding:
        """Load what `save` wrote."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        hub = {"subfolder": subfolder} | {name: kwargs[name] for name in names if name in kwargs}
        files = {
            name: cls.load_file_path(model_name_or_path, filename=name, **hub)
            for name in ("tokenizer.json", FEATURES_FILE, "model.safetensors")
        }
        features = json.loads(Path(files[FEATURES_FILE]).read_text(encoding="utf-8"))
        weights = load_file(files["model.safetensors"])["embedding.weight"]
        return cls(Tokenizer.from_file(files["tokenizer.json"]), features, weights)
