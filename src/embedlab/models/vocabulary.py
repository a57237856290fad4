"""Fit a model's vocabulary to other languages and scripts: measure what it lacks, and add word pieces.

A word that the vocabulary lacks is cut into many short pieces, and a character that it lacks becomes the unknown token:
then all words of a script have the same vector.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from embedlab.data.text_analysis import words
from embedlab.errors import ModelError, ParameterError
from embedlab.models.sides import is_static, require_one_encoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

CONTINUATION = "##"  # starts a piece of BERT's WordPiece that is not at the start of a word


class Coverage(NamedTuple):
    """How well a vocabulary fits texts.

    Attributes:
        unknown: share of the tokens that are the unknown token, from 0 to 1.
        tokens_per_word: tokens for each word, see `text_analysis.words`; about 1 for a vocabulary that fits.
    """

    unknown: float
    tokens_per_word: float


def coverage(model: SentenceTransformer, texts: Sequence[str]) -> Coverage:
    """Measure how well a model's vocabulary fits texts.

    Args:
        model: a transformer or a static model.
        texts: one text or more.

    Raises:
        ParameterError: the texts have no words.
    """
    require_one_encoder(model)
    tokenizer: Any = model.tokenizer
    backend = tokenizer if is_static(model) else tokenizer.backend_tokenizer
    unknown = backend.token_to_id(getattr(backend.model, "unk_token", None) or "[UNK]")
    rows = [encoding.ids for encoding in backend.encode_batch(list(texts), add_special_tokens=False)]
    tokens, counted = sum(map(len, rows)), sum(len(words(text)) for text in texts)
    if not counted or not tokens:
        raise ParameterError("the texts have no words", remedy="Pass texts with letters", field="texts")
    return Coverage(sum(row.count(unknown) for row in rows) / tokens, tokens / counted)


def extend_vocabulary(
    model: SentenceTransformer, texts: Iterable[str], size: int, *, keep: Iterable[str] = ()
) -> SentenceTransformer:
    """Copy a model and add word pieces for the words and scripts of `texts`.

    The pieces are learned with WordPiece (`tokenizers.trainers.WordPieceTrainer`). A run of Chinese characters becomes
    a word, while BERT cuts it into characters. A new piece starts with the mean of the input embeddings of its old
    pieces; if the old vocabulary did not know any of them, it starts with a random one of the usual length. The other
    weights stay, so the model must be trained before the new pieces mean something.

    Args:
        model: a sentence-transformers model with a WordPiece tokenizer of BERT's kind; left unchanged.
        texts: the texts to learn pieces from.
        size: the most pieces to add, the most frequent first.
        keep: texts whose tokens must not change. A piece that changes them is not added.

    Returns:
        The extended copy. Texts in `keep` have the same embedding as before.

    Raises:
        ModelError: the tokenizer is of another kind.
    """
    require_one_encoder(model)
    tokenizer: Any = model.tokenizer
    if is_static(model) or not _is_wordpiece(tokenizer):
        problem = f"cannot add word pieces to {type(tokenizer).__name__}"
        raise ModelError(problem, remedy="Use a model with BERT's tokenizer (WordPiece)", field="model_name")
    pieces = _without_changes(tokenizer, _learned_pieces(tokenizer, texts, size), list(keep))
    extended = copy.deepcopy(model)
    extended[0].processor = _with_pieces(tokenizer, pieces)
    network: Any = extended[0].model
    old = network.get_input_embeddings().weight.detach().clone()
    network.resize_token_embeddings(len(tokenizer) + len(pieces), mean_resizing=False)
    with torch.no_grad():
        network.get_input_embeddings().weight[len(tokenizer) :] = _first_vectors(tokenizer, pieces, old)
    return extended


def _is_wordpiece(tokenizer: Any) -> bool:
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    return (
        backend is not None and isinstance(backend.model, WordPiece) and isinstance(backend.normalizer, BertNormalizer)
    )


def _learned_pieces(tokenizer: Any, texts: Iterable[str], size: int) -> list[str]:
    """Pieces that `texts` need and the tokenizer lacks, in the order in which WordPiece finds them."""
    from tokenizers import Tokenizer, models, trainers

    backend, texts = tokenizer.backend_tokenizer, list(texts)
    learner = Tokenizer(models.WordPiece(unk_token=tokenizer.unk_token))
    learner.normalizer, learner.pre_tokenizer = _whole_runs(backend.normalizer), backend.pre_tokenizer
    characters = _characters(learner, texts)
    known_pieces = tokenizer.get_vocab()
    # The trainer numbers characters in the order of a hash table, which differs from run to run and decides ties.
    # Special tokens have fixed numbers. Some of the learned pieces are known: learn as many more.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size + len(known_pieces),
        special_tokens=[tokenizer.unk_token, *characters],
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    return [piece for piece, _ in learned if piece not in known_pieces][:size]


def _characters(learner: Tokenizer, texts: Sequence[str]) -> list[str]:
    """The pieces of one character, at the start of a word and inside, the most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        for word, _ in learner.pre_tokenizer.pre_tokenize_str(learner.normalizer.normalize_str(text)):
            counts.update([word[0], *(CONTINUATION + character for character in word[1:])])
    return sorted(counts, key=lambda piece: (-counts[piece], piece))


def _whole_runs(normalizer: Any) -> Any:
    """A copy of BERT's normalizer that does not cut Chinese text into characters."""
    from tokenizers.normalizers import BertNormalizer

    return BertNormalizer(
        clean_text=normalizer.clean_text,
        handle_chinese_chars=False,
        strip_accents=normalizer.strip_accents,
        lowercase=normalizer.lowercase,
    )


def _with_pieces(tokenizer: Any, pieces: Sequence[str]) -> PreTrainedTokenizerBase:
    vocabulary = tokenizer.get_vocab()
    vocabulary |= {piece: len(vocabulary) + number for number, piece in enumerate(pieces)}
    options = {**tokenizer.init_kwargs, "tokenize_chinese_chars": False}
    for name in ("vocab_file", "name_or_path", "added_tokens_decoder", "is_local", "local_files_only", "backend"):
        options.pop(name, None)
    extended: PreTrainedTokenizerBase = type(tokenizer)(vocab=vocabulary, **options)
    return extended


def _without_changes(tokenizer: Any, pieces: list[str], keep: list[str]) -> list[str]:
    """Leave out pieces until all texts in `keep` have their old tokens.

    Cutting a word takes the longest piece first, so only a new piece in its tokens can have changed them.
    """
    if not keep:
        return pieces
    old = tokenizer.backend_tokenizer.encode_batch_fast(keep, add_special_tokens=False)
    while True:
        vocabulary = tokenizer.get_vocab()
        extended = _with_pieces(tokenizer, pieces).backend_tokenizer
        new = extended.encode_batch_fast(keep, add_special_tokens=False)
        changed = [text for text, before, after in zip(keep, old, new, strict=True) if before.ids != after.ids]
        used = {token for text in changed for token in extended.encode(text).tokens} - vocabulary.keys()
        if not used:
            return pieces
        pieces = [piece for piece in pieces if piece not in used]


def _first_vectors(tokenizer: Any, pieces: Sequence[str], old: torch.Tensor) -> torch.Tensor:
    """Input embeddings of new pieces (P, d), from those of the old vocabulary (V, d)."""
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(len(pieces), old.shape[1], generator=random) * old.std(dim=0)
    backend, unknown = tokenizer.backend_tokenizer, tokenizer.unk_token_id
    for row, piece in enumerate(pieces):
        ids = backend.encode(piece.removeprefix(CONTINUATION), add_special_tokens=False).ids
        if known_ids := [token for token in ids if token != unknown]:
            vectors[row] = old[known_ids].mean(dim=0)
    return vectors
