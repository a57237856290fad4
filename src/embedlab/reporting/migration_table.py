"""The table of a migration: what every option reaches, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from embedlab.reporting.pareto import pareto_front

HEADER = (
    "option",
    "nDCG@10 on test",
    "against staying",
    "share of re-embedding",
    "change on the probe",
    "documents to encode",
    "hours",
    "mixed days",
    "index, MB",
    "Pareto front",
)
QUALITY = 5  # the first columns; the others are costs
UNKNOWN = "–"


def table_rows(rows: Sequence[Mapping[str, Any]], recommended: str = "") -> list[list[str]]:
    """Return the cells of all options, under `HEADER`.

    An option is on the Pareto front if no other one is as good in nDCG@10 on test, change on the probe, documents to
    encode and mixed days, and better in one of them.

    Args:
        rows: the rows of `Comparison.as_json`.
        recommended: the recommended option; it gets a mark.
    """
    costs = pd.DataFrame(
        {
            "test": row["test"]["mean"],
            "probe": row["forgetting"]["mean"] if row["forgetting"] else None,
            "documents": row["cost"]["documents"],
            "mixed_days": row["cost"]["mixed_days"],
        }
        for row in rows
    ).astype(float)
    front = pareto_front(costs, larger=["test", "probe"], smaller=["documents", "mixed_days"])
    return [_cells(row, on_front, recommended) for row, on_front in zip(rows, front, strict=True)]


def _cells(row: Mapping[str, Any], on_front: object, recommended: str) -> list[str]:
    cost = row["cost"]
    return [
        f"→ {row['option']}" if row["option"] == recommended else row["option"],
        _with_interval(row["test"], "{:.3f}"),
        _with_interval(row["to_stay"], "{:+.3f}"),
        _with_interval(row["share_kept"], "{:.3f}"),
        _with_interval(row["forgetting"], "{:+.3f}"),
        f"{cost['documents']:,}",
        _number(cost["hours"]),
        _number(cost["mixed_days"]),
        f"{cost['index_bytes'] / 1e6:,.0f}",
        UNKNOWN if on_front is pd.NA else "yes" if on_front else "",
    ]


def _with_interval(value: Mapping[str, float | None] | None, pattern: str) -> str:
    if value is None or value["mean"] is None:
        return UNKNOWN
    ends = [pattern.format(end) for end in (value["low"], value["high"]) if end is not None]
    return pattern.format(value["mean"]) + (f" [{', '.join(ends)}]" if ends else "")


def _number(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return "0" if not value else f"{value:.3g}" if value >= 0.01 else "< 0.01"
