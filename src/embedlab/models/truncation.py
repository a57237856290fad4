"""Count the texts that are longer than a model's limit: the model does not read the rest of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from embedlab.models.prompts import prompts_of
from embedlab.models.sides import sides_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

SAMPLE = 2000  # texts that are counted, spread evenly; more would cost a second tokenisation of a large corpus
_datasets_warned: set[tuple[object, ...]] = set()  # one warning per process: a dataset is encoded many times


@dataclass(frozen=True)
class Truncation:
    """How many texts a model truncates.

    Attributes:
        texts: number of texts.
        counted: those of them that were counted, all or a sample.
        longer: of the counted texts, those with more tokens than the limit.
        limit: the model's limit in tokens; None if there is none.
        median: of the number of tokens of the longer texts, prompt and special tokens included.
    """

    texts: int
    counted: int
    longer: int
    limit: int | None
    median: float

    @property
    def share(self) -> float:
        """Share of the texts that are longer than the limit, from 0 to 1."""
        return self.longer / self.counted if self.counted else 0.0

    def sentence(self, kind: str) -> str:
        """Say how many texts are truncated; empty if none is.

        Args:
            kind: "documents" or "queries".
        """
        if not self.longer:
            return ""
        of = f"{self.longer:,} of {self.texts:,} {kind}"
        if self.counted < self.texts:
            of = f"{self.share:.0%} of the {kind} (in a sample of {self.counted:,})"
        return f"{of} exceed the model's {self.limit} tokens (median {self.median:.0f})."


def count_truncated(model: Any, texts: Sequence[str], prompt: str | None = None) -> Truncation:
    """Count the texts with more tokens than the model reads.

    Only texts that have enough characters are tokenised, so this costs nothing for short texts.

    Args:
        model: any sentence-transformers model; anything else has no known limit.
        texts: the texts.
        prompt: put before every text.
    """
    limit = _limit(model)
    if limit is None:
        return Truncation(len(texts), len(texts), 0, None, 0.0)
    step = max(1, -(-len(texts) // SAMPLE))
    sample = [(prompt or "") + text for text in texts[::step]]
    # A token has at least one byte, and two special tokens are usual.
    long = [text for text in sample if len(text.encode()) + 2 > limit]
    lengths = [len(ids) for ids in model.tokenizer(long, truncation=False, verbose=False)["input_ids"]] if long else []
    over = [length for length in lengths if length > limit]
    return Truncation(len(texts), len(sample), len(over), limit, median(over) if over else 0.0)


def truncation_of(model: Any, documents: Mapping[str, str], queries: Mapping[str, str]) -> dict[str, Truncation]:
    """Count truncated documents and queries, with the model's prompts.

    Args:
        model: see `count_truncated`.
        documents, queries: id -> text.

    Returns:
        "documents" and "queries" -> what is truncated.
    """
    sides = sides_of(model)
    return {
        "documents": count_truncated(sides.document.model, list(documents.values()), sides.document.prompt),
        "queries": count_truncated(sides.query.model, list(queries.values()), sides.query.prompt),
    }


def tell_truncation(
    model: SentenceTransformer, name: str, *, documents: Mapping[str, str], queries: Mapping[str, str]
) -> None:
    """Warn about truncated texts, once per dataset, limit and prompts.

    Args:
        model: the model that will encode them.
        name: of the dataset.
        documents, queries: id -> text.
    """
    limits = [_limit(side.model) for side in sides_of(model)]
    key = (name, *limits, *prompts_of(model))
    if key in _datasets_warned or not any(limits):
        return
    _datasets_warned.add(key)
    counts = truncation_of(model, documents, queries)
    sentences = [sentence for kind, count in counts.items() if (sentence := count.sentence(kind))]
    if sentences:
        folder = name.partition("?")[0]
        chunks = f"smaller chunks, such as {folder}?chunk=96+16" if folder.startswith("docs:") else "chunks"
        remedy = f"The rest of each text is not read. Use a longer limit, MODEL?max_seq_length=N, or {chunks}"
        logger.warning("%s: %s %s", name, " ".join(sentences), remedy)


def _limit(model: Any) -> int | None:
    """Return the model's limit in tokens; None without a limit or a tokenizer that can be called to count."""
    if not callable(getattr(model, "tokenizer", None)):
        return None
    limit = model.max_seq_length if hasattr(model, "max_seq_length") else getattr(model, "limit", None)
    return limit if isinstance(limit, int) else None
