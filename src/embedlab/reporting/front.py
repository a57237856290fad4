"""Which rows of a table are not beaten in everything at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def pareto_front(frame: pd.DataFrame, larger: Sequence[str] = (), smaller: Sequence[str] = ()) -> pd.Series:
    """Whether each row is on the Pareto front: no other row is as good in every column and better in one.

    Args:
        frame: one row per candidate.
        larger: columns of which more is better.
        smaller: columns of which less is better.

    Returns:
        Nullable booleans. A column without any value is left out of the comparison; a row that lacks one of the
        other values cannot be judged: it is missing, and beats nobody.
    """
    costs = pd.concat([-frame[list(larger)], frame[list(smaller)]], axis=1).astype(float).dropna(axis=1, how="all")
    known = costs.notna().all(axis=1).to_numpy() & bool(len(costs.columns))
    values = costs.to_numpy()[known]  # (m, k)
    marks = pd.array([None] * len(frame), dtype="boolean")
    marks[known] = [not _beaten(row, values) for row in values]
    return pd.Series(marks, index=frame.index)


def _beaten(row: np.ndarray, others: np.ndarray) -> bool:
    return bool(((others <= row).all(axis=1) & (others < row).any(axis=1)).any())
