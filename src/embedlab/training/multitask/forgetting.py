"""Reduce catastrophic forgetting: train on texts of another domain too, with labels (replay) or without (anchor).

Two more recipes live elsewhere: lower learning rates for lower layers (`FitSettings.layer_decay`) and weight averaging
after the training (`models.merging`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from embedlab.errors import DataError
from embedlab.models.encode import encode
from embedlab.models.prompts import prompts_of
from embedlab.models.sides import require_one_encoder, sides_of
from embedlab.params import TEMPERATURE
from embedlab.training.losses import info_nce
from embedlab.training.multitask.train import Objective, anchor, retrieval

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Pair = tuple[str, str]  # query, positive

REPLAY_WORDS = 32  # of a text: texts ten times as long as the domain's would make a batch ten times as expensive


def share_of_rows(pairs: Sequence[Pair], domain_rows: int, share: float, seed: int = 0) -> list[Pair]:
    """Sample as many pairs as make up `share` of all rows when `domain_rows` other rows are trained on.

    The number is share / (1 - share) * domain_rows, rounded up. If there are fewer pairs, they are repeated.

    Args:
        pairs: (query, positive) texts of the other domain.
        domain_rows: number of rows of the domain.
        share: of all rows, between 0 and 1.
        seed: of the order.

    Raises:
        DataError: there are no pairs.
    """
    if not pairs:
        raise DataError("There are no pairs to replay", remedy="Give pairs of another domain", field="replay")
    count = math.ceil(domain_rows * share / (1 - share) - 1e-9)
    order = random.Random(seed).sample(list(pairs), len(pairs))
    return [order[row % len(order)] for row in range(count)]


def first_words(text: str) -> str:
    """Return the first words of a text, as many as are replayed, with single spaces between them."""
    return " ".join(text.split()[:REPLAY_WORDS])


def with_replay(
    model: SentenceTransformer, domain: Objective, pairs: Sequence[Pair], share: float, *, seed: int = 0
) -> dict[str, Objective]:
    """Add experience replay: retrieval on pairs of another domain for `share` of the rows.

    Chaudhry et al., On Tiny Episodic Memories in Continual Learning, 2019. Under proportional sampling the share of the
    batches equals that of the rows. Replayed pairs form batches of their own: as negatives in the domain's batches they
    would be too easy to teach the model anything.

    Args:
        model: the model to train.
        domain: objective of the domain.
        pairs: (query, positive) texts of another domain.
        share: of all rows, between 0 and 1.
        seed: of the sample.
    """
    sample = share_of_rows(_shortened(pairs), len(domain.rows), share, seed)
    return {"domain": domain, "replay": retrieval(model, sample)}


def with_anchor(
    model: SentenceTransformer, domain: Objective, pairs: Sequence[Pair], share: float, *, seed: int = 0
) -> dict[str, Objective]:
    """Add an anchor: texts of another domain must keep their embeddings, for `share` of the rows.

    Call it before the training: the model's own current embeddings are the targets.

    Args:
        model: the model to train.
        domain: objective of the domain.
        pairs: (query, positive) texts of another domain; queries and documents are used in turn.
        share: of all rows, between 0 and 1.
        seed: of the sample.
    """
    sample = share_of_rows(_shortened(pairs), len(domain.rows), share, seed)
    require_one_encoder(model)
    prompts = [prompt or "" for prompt in prompts_of(model)]
    texts = [prompts[row % 2] + pair[row % 2] for row, pair in enumerate(sample)]
    return {"domain": domain, "anchor": anchor(model, texts, encode(model, texts, stage="anchor"))}


def _shortened(pairs: Sequence[Pair]) -> list[Pair]:
    return [(first_words(query), first_words(document)) for query, document in pairs]


def example_loss(model: SentenceTransformer, pairs: Sequence[Pair]) -> float:
    """Compute the InfoNCE loss of a model on a few (query, positive) texts; LM-Cocktail weighs models by it.

    Args:
        model: the model to score.
        pairs: (query, positive) texts, all in one batch.
    """
    columns = zip(map(list, zip(*pairs, strict=True)), sides_of(model), strict=True)
    queries, documents = (torch.from_numpy(encode(side.model, texts, prompt=side.prompt)) for texts, side in columns)
    return info_nce(queries, documents, TEMPERATURE).item()
