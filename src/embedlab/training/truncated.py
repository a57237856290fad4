"""Count the training texts that are longer than a model's limit: it does not learn from the rest of them."""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

_counts: dict[str, dict[str, Any]] = {}  # stage -> what the record holds, of this process


class Cut(NamedTuple):
    """Number of texts, and of those among them that are truncated."""

    texts: int
    truncated: int


def cut_of(collator: Any) -> Cut | None:
    """Add up what the collators of a training have truncated.

    Args:
        collator: has an attribute `cut`, or `collators` by task that have one.

    Returns:
        None if nothing is known, as for a static model, which has no limit.
    """
    cuts = [cut_of(of_task) for of_task in getattr(collator, "collators", {}).values()]
    cuts = [cut for cut in cuts or [getattr(collator, "cut", None)] if cut is not None]
    return Cut(*map(sum, zip(*cuts, strict=True))) if cuts else None


def report_cut(stage: str, cut: Cut | None, limit: float | None) -> None:
    """Log what share of the texts is truncated, and keep it for the record of the run.

    Args:
        stage: name of the training.
        cut: from `cut_of`; None reports nothing.
        limit: the model's limit in tokens.
    """
    if cut is None or not cut.texts or limit is None or math.isinf(limit):  # infinite: a side of a Router is static
        return
    share = cut.truncated / cut.texts
    _counts[stage] = {**cut._asdict(), "share": round(share, 4), "limit": int(limit)}
    if cut.truncated:
        logger.warning(
            "%s: %d of %d training texts (%.1f %%) exceed %d tokens, and the rest of them is not read. "
            "Set engine.max_seq_length, or train on chunks",
            stage,
            cut.truncated,
            cut.texts,
            100 * share,
            limit,
        )


def take_counts() -> dict[str, dict[str, Any]]:
    """Return what was reported since the last call: stage -> texts, truncated, share, limit."""
    counts = dict(_counts)
    _counts.clear()
    return counts
