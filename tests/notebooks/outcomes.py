"""A notebook run once at smoke size, and its numbers read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedlab.runs.execute import Outcome, run_notebook
from embedlab.runs.records import MetricRow

SMOKE = {"dataset": "icd10cm:smoke", "max_steps": 2, "max_examples": 60}


def run(notebook: Path, folder: Path, **values: Any) -> Outcome:
    """What running `notebook` gave; the test fails where it left no record.

    Kernels are forked from one process with the imports behind it: importing takes longer than many a smoke run.
    """
    outcome = run_notebook(notebook, values, output_dir=str(folder), warm=True)
    assert outcome.record is not None, outcome.detail
    return outcome


def smoke_run(notebook: Path, folder: Path, **more: Any) -> Outcome:
    """The same at smoke size."""
    return run(notebook, folder, **SMOKE | more)


def rows(outcome: Outcome, metric: str, against: str = "", **fields: Any) -> dict[str, MetricRow]:
    """System -> its row of `metric`: values, or differences from the system `against`; `fields` select further."""
    statistic = "difference" if against else "value"
    selected = {"metric": metric, "statistic": statistic, "against": against, **fields}
    return {
        row.system: row
        for row in outcome.record.metrics
        if all(getattr(row, name) == value for name, value in selected.items())
    }
