"""From a run to what readers see: its table, figures and executed notebook, and the tables inside README.

Every published number is written by this module from a record; a test writes it again and compares.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd

from embedlab import paths
from embedlab.reporting import notebook_outputs, tables
from embedlab.runs import records
from embedlab.runs.records import Record

BLOCK = re.compile(r"(<!-- table (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
METRICS = ("ndcg@10", "recall@10", "recall@100")


def run_table(record: Record) -> pd.DataFrame:
    """One row per model and dimension: metrics with their 95 % intervals, and the run they come from.

    Rows of paired differences, whose metrics are not all there, carry the relative gain too.
    """
    wide = tables.headline(record.metrics, METRICS)
    relative = {(row.model, f"{row.dim}"): row.value for row in record.metrics if row.metric == "ndcg@10 relative"}
    gains = [relative.get((model, dim)) for model, dim in zip(wide["model"], wide["dim"], strict=True)]
    wide["relative ndcg@10"] = [f"{gain:+.1%}" if gain is not None else "" for gain in gains]
    return wide.assign(run=record.run_id)


def publish_run(run_id: str, name: str) -> list[Path]:
    """Publish a committed run under a short name; returns what was written.

    Raises:
        RecordError: there is no such run, or its record is damaged.
    """
    folder = paths.runs_dir() / run_id
    record = records.read(folder)
    written = [tables.write_table(run_table(record), name, hide=("run",), caption=f"Run `{run_id}`.")]
    paths.figures_dir().mkdir(parents=True, exist_ok=True)
    for figure in sorted(folder.glob("*.png")):
        for file in (figure, figure.with_suffix(".csv")):
            written.append(Path(shutil.copy(file, paths.figures_dir() / f"{name}_{file.name}")))
    if (ran := folder / "executed.ipynb").exists():
        written.append(notebook_outputs.write_copy(ran, record.notebook))
    return [*written, *refresh(), *tables.rebuild_tables()]


def refresh() -> list[Path]:
    """Bring README's tables and the prose of executed copies up to date."""
    return [refresh_readme(), *notebook_outputs.refresh_copies()]


def refresh_readme() -> Path:
    """Put the current tables between the markers of README."""
    path = paths.project_root() / "README.md"
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
    return path


def with_tables(text: str) -> str:
    """`text` with results/tables/NAME.md between every `<!-- table NAME -->` and the next `<!-- end -->`."""

    def fill(match: re.Match[str]) -> str:
        table = (paths.tables_dir() / f"{match['name']}.md").read_text(encoding="utf-8").strip()
        return f"{match[1]}{table}\n{match[3]}"

    return BLOCK.sub(fill, text)
