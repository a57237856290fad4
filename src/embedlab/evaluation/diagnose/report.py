"""Format the table of a study for display."""

from __future__ import annotations

import pandas as pd


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """Format `Study.table()` as text, with intervals.

    Returns:
        Columns system, setting, ndcg@10, recall@10, gain, better-worse (queries that gain and lose) and seconds (to
        try all settings).
    """
    cells = {
        "system": table["system"],
        "setting": table["setting"],
        "ndcg@10": [_cell(*row) for row in table[["ndcg@10", "ci_low", "ci_high"]].itertuples(index=False)],
        "recall@10": [_cell(value) for value in table["recall@10"]],
    }
    if "gain" in table:
        gains = table[["gain", "gain_low", "gain_high"]].itertuples(index=False)
        cells["gain"] = [_cell(*row, sign="+") for row in gains]
        wins = zip(table["wins"], table["losses"], strict=True)
        cells["better-worse"] = ["" if pd.isna(won) else f"{won}-{lost}" for won, lost in wins]
        cells["seconds"] = ["" if pd.isna(seconds) else f"{seconds:.1f}" for seconds in table["seconds"]]
    return pd.DataFrame(cells)


def _cell(value: float, low: float = float("nan"), high: float = float("nan"), *, sign: str = "") -> str:
    if pd.isna(value):
        return ""
    return f"{value:{sign}.3f}" + ("" if pd.isna(low) else f" [{low:{sign}.3f}, {high:{sign}.3f}]")
