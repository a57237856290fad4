"""A notebook run once at smoke size, its numbers read back, and its files scanned for training texts and keys."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from embedlab.data.load import load_dataset
from embedlab.runs.execute import Outcome, run_notebook
from embedlab.runs.records import FILE, MetricRow
from embedlab.scan import KEY, TEXT, Texts, scan_file

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


@cache
def training_texts() -> Texts:
    """The texts of the smoke dataset: documents and training queries."""
    data = load_dataset(SMOKE["dataset"])
    return Texts([*data.corpus.values(), *data.split_queries("train").values()])


def leaks(folder: Path) -> list[str]:
    """Training texts and keys in the record and the models of a run, and keys in its notebook.

    The notebook shows examples of the data, because its reader needs them.
    """
    files = [folder / FILE, *(path for path in (folder / "model").rglob("*") if path.is_file())]
    found = [hit for file in files for hit in scan_file(file, folder, training_texts()) if hit.kind in (KEY, TEXT)]
    found += [hit for hit in scan_file(folder / "executed.ipynb", folder) if hit.kind == KEY]
    return [str(hit) for hit in found]


def rows(outcome: Outcome, metric: str, against: str = "", **fields: Any) -> dict[str, MetricRow]:
    """System -> its row of `metric`: values, or differences from the system `against`; `fields` select further."""
    statistic = "difference" if against else "value"
    selected = {"metric": metric, "statistic": statistic, "against": against, **fields}
    return {
        row.system: row
        for row in outcome.record.metrics
        if all(getattr(row, name) == value for name, value in selected.items())
    }
