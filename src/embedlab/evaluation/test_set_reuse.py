"""How often were the test queries looked at? Every look that guides a choice wears them out.

Choosing the best of m runs by its test value favours luck: with equal models and a standard error s the best of m looks
about s * sqrt(2 ln m) better than it is. Dev is there to choose by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

DEFAULT_LIMIT = 20


class RunRecord(Protocol):
    """What is read of a run's record."""

    run_id: str
    parameters: Mapping[str, Any]
    data_fingerprint: str
    metrics: Sequence[Any]


def looks_at(records: Iterable[RunRecord], dataset: str, data_fingerprint: str, split: str = "test") -> list[str]:
    """Ids of the runs that scored something on `split` of this data.

    Args:
        records: runs; their metric rows carry `split`.
        dataset: the spec the runs were made with; one source may hold several datasets.
        data_fingerprint: of the bytes behind it.
        split: the split that should stay unseen.
    """
    return [
        record.run_id
        for record in records
        if record.data_fingerprint == data_fingerprint
        and record.parameters.get("dataset") == dataset
        and any(row.split == split for row in record.metrics)
    ]


def optimism(looks: int, standard_error: float) -> float:
    """How much better the best of `looks` equal runs is expected to look: at most standard_error * sqrt(2 ln looks).

    The bound on the expected maximum of `looks` normal variables; 0 for up to one look.
    """
    return standard_error * float(np.sqrt(2 * np.log(max(looks, 1))))


def warning_for(looks: int, limit: int = DEFAULT_LIMIT) -> str | None:
    """One sentence when the split was looked at more than `limit` times, else None."""
    if looks <= limit:
        return None
    return (
        f"These test queries were looked at in {looks} runs, more than {limit}: a best value chosen among them is "
        "partly luck. Choose on dev, and confirm the choice once on queries nobody has scored yet."
    )
