"""Tokenise word by word and remember every word: BERT's tokenizer treats each word on its own.

The tokenizer takes most of the time of a static model, and the texts of a domain repeat the same words. The cache is
used only where the result is certain to be the same: printable ASCII text and tokenizers of BERT's kind. All other
text goes to the tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ASCII_WORD = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9\s]")  # BERT splits at white space and around every ASCII symbol


class WordPieceCache(dict[str, list[int]]):
    """Word -> its token ids, filled from `tokenizer` when a word first occurs.

    Args:
        tokenizer: a fast tokenizer, without truncation and padding.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        kinds = (tokenizer.normalizer, BertNormalizer), (tokenizer.pre_tokenizer, BertPreTokenizer)
        self._is_bert = all(isinstance(*kind) for kind in (*kinds, (tokenizer.model, WordPiece)))
        added = [re.escape(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
        self._added = re.compile("|".join(added) or r"(?!)", re.IGNORECASE)  # matched before the text is split

    def __missing__(self, word: str) -> list[int]:
        self[word] = self._tokenizer.encode(word, add_special_tokens=False).ids
        return self[word]

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of every text, exactly as the tokenizer gives them without special tokens."""
        ids_of_texts = [self._from_words(text) for text in texts]
        missing = [text for text, ids in zip(texts, ids_of_texts, strict=True) if ids is None]
        encodings = iter(self._tokenizer.encode_batch_fast(missing, add_special_tokens=False))
        return [next(encodings).ids if ids is None else ids for ids in ids_of_texts]

    def _from_words(self, text: str) -> list[int] | None:
        """Join the ids of the words; None where splitting at `ASCII_WORD` might differ from the tokenizer."""
        if not (self._is_bert and text.isascii() and text.isprintable()) or self._added.search(text):
            return None
        return [token for word in ASCII_WORD.findall(text) for token in self[word]]
