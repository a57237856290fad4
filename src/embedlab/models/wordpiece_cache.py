"""Word pieces by looking words up: BERT's tokenizer treats every word alone, so a word is cut once and remembered.

The tokenizer is most of what a static model costs, and a domain uses the same words over and over. Only what is
certain to come out the same takes this way: printable ASCII, for tokenizers of BERT's kind. Everything else goes to the
tokenizer.
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

ASCII_WORD = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9\s]")  # BERT cuts at white space and around every ASCII symbol


class WordPieces(dict[str, list[int]]):
    """Word -> its token ids, filled by asking `tokenizer` for every word when it first comes up.

    Args:
        tokenizer: a fast tokenizer, without truncation and padding.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        kinds = (tokenizer.normalizer, BertNormalizer), (tokenizer.pre_tokenizer, BertPreTokenizer)
        self._by_word = all(isinstance(*kind) for kind in (*kinds, (tokenizer.model, WordPiece)))
        added = [re.escape(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
        self._added = re.compile("|".join(added) or r"(?!)", re.IGNORECASE)  # found before the text is cut into words

    def __missing__(self, word: str) -> list[int]:
        self[word] = self._tokenizer.encode(word, add_special_tokens=False).ids
        return self[word]

    def of(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of every text, as the tokenizer gives them without special tokens."""
        found = [self._look_up(text) for text in texts]
        left = [place for place, ids in enumerate(found) if ids is None]
        encodings = self._tokenizer.encode_batch_fast([texts[place] for place in left], add_special_tokens=False)
        for place, encoding in zip(left, encodings, strict=True):
            found[place] = encoding.ids
        return found

    def _look_up(self, text: str) -> list[int] | None:
        """Word by word; None where the words of `text` may not be cut as `ASCII_WORD` does."""
        if not (self._by_word and text.isascii() and text.isprintable()) or self._added.search(text):
            return None
        return [piece for word in ASCII_WORD.findall(text) for piece in self[word]]
