"""What keeps a fine-tune from forgetting: texts of another domain in the mix, with or without labels.

Smaller and layer-wise learning rates are settings of every training (`FitSettings.layer_decay`), the pull back to the
base model is `multitask.anchor`, and mixing the weights afterwards is `models.merging`.
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
from embedlab.training.losses import info_nce
from embedlab.training.multitask.train import Objective, anchor, retrieval

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Pair = tuple[str, str]

REPLAY_WORDS = 32  # of a text: ten times the domain's length would make a batch ten times as dear


def share_of_rows(pairs: Sequence[Pair], domain_rows: int, share: float, seed: int = 0) -> list[Pair]:
    """As many pairs as make up `share` of all rows beside `domain_rows` others, in seeded order.

    share / (1 - share) * domain_rows, rounded up; where there are fewer, they come again.

    Raises:
        DataError: no pairs.
    """
    if not pairs:
        raise DataError("there is nothing to replay", remedy="Give pairs of another domain", field="replay")
    wanted = math.ceil(domain_rows * share / (1 - share) - 1e-9)
    order = random.Random(seed).sample(list(pairs), len(pairs))
    return [order[place % len(order)] for place in range(wanted)]


def first_words(text: str, count: int = REPLAY_WORDS) -> str:
    """The text's first `count` words, with single spaces."""
    return " ".join(text.split()[:count])


def with_replay(
    model: SentenceTransformer, domain: Objective, pairs: Sequence[Pair], share: float, *, seed: int = 0
) -> dict[str, Objective]:
    """The domain's objective, and retrieval on pairs of another domain for `share` of the rows.

    Experience replay: Chaudhry et al., On Tiny Episodic Memories in Continual Learning, 2019. Under proportional
    sampling the share of the batches is that of the rows. Replayed pairs are batches of their own: as negatives in the
    domain's batches they would be too easy to teach anything.
    """
    chosen = share_of_rows(_short(pairs), len(domain.rows), share, seed)
    return {"domain": domain, "replay": retrieval(model, chosen)}


def with_anchor(
    model: SentenceTransformer, domain: Objective, pairs: Sequence[Pair], share: float, *, seed: int = 0
) -> dict[str, Objective]:
    """The domain's objective, and `multitask.anchor` on texts of another domain for `share` of the rows.

    Call it with the model as it is before the training: its own vectors are what it is held to.
    """
    chosen = share_of_rows(_short(pairs), len(domain.rows), share, seed)
    prompts = [prompt or "" for prompt in prompts_of(model)]
    texts = [prompts[place % 2] + pair[place % 2] for place, pair in enumerate(chosen)]  # queries, documents, by turns
    return {"domain": domain, "anchor": anchor(model, texts, encode(model, texts, stage="anchor"))}


def _short(pairs: Sequence[Pair]) -> list[Pair]:
    return [(first_words(query), first_words(document)) for query, document in pairs]


def example_loss(model: SentenceTransformer, pairs: Sequence[Pair], *, temperature: float = 0.05) -> float:
    """InfoNCE of `model` on a few (query, positive) texts, as LM-Cocktail weighs models by."""
    sides = zip(map(list, zip(*pairs, strict=True)), prompts_of(model), strict=True)
    queries, documents = (torch.from_numpy(encode(model, texts, prompt=prompt)) for texts, prompt in sides)
    return info_nce(queries, documents, temperature).item()
