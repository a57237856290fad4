"""From runs to what readers see: tables, figures and executed notebooks in results/, and the tables in README.

Every published number is written by this module from a record; a test writes it again and compares. The file
experiments/published.yaml lists what is published: runs by name, and sweeps with their runs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.escaping import csv_frame
from embedlab.io import confined
from embedlab.reporting import arena_report, notebook_outputs, redraw, sweep_figures, tables
from embedlab.reporting.sweep_data import COSTS, View
from embedlab.reporting.sweep_figures import varying_costs
from embedlab.reporting.sweep_table import sweep_table, write_sweep_table
from embedlab.runs import records
from embedlab.runs.record_index import indexed_records
from embedlab.runs.records import MetricRow, Record
from embedlab.runs.summary import summarise

BLOCK = re.compile(r"(<!-- table (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
METRICS = ("ndcg@10", "recall@10", "recall@100")
RELATIVE = "relative ndcg@10"
HEAD = """# What `embedlab publish` writes to results/tables and results/figures.
# runs: a name's table and figures come from its run. sweeps: the runs behind a sweep's table.
# arena: the runs behind the leaderboard of recipes.
"""


class Published(BaseModel):
    """The content of experiments/published.yaml.

    Attributes:
        runs: name of the tables and figures -> run id.
        sweeps: sweep -> the runs behind its committed table.
        arena: the runs of notebook 16_arena behind the leaderboard.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: dict[str, str] = {}
    sweeps: dict[str, tuple[str, ...]] = {}
    arena: tuple[str, ...] = ()


def _file() -> Path:
    return paths.experiments_dir() / "published.yaml"


def read_published() -> Published:
    """Read experiments/published.yaml; nothing is published where it does not exist.

    Raises:
        ParameterError: the file cannot be read.
    """
    if not _file().is_file():
        return Published()
    try:
        return Published(**(yaml.safe_load(_file().read_text(encoding="utf-8")) or {}))
    except (yaml.YAMLError, TypeError, ValidationError) as error:
        remedy = "Write runs: {name: run id}, sweeps: {name: [run id]} and arena: [run id]"
        raise ParameterError(f"cannot read the file ({error})", remedy=remedy, file=_file()) from None


def _remember(name: str, run_id: str) -> Path:
    """Note in experiments/published.yaml that a run is published under a name."""
    published = read_published()
    runs = dict(sorted({**published.runs, name: run_id}.items()))
    sweeps = {sweep: list(run_ids) for sweep, run_ids in published.sweeps.items()}
    content = {"runs": runs, "sweeps": sweeps, "arena": list(published.arena)}
    _file().parent.mkdir(parents=True, exist_ok=True)
    _file().write_text(HEAD + yaml.safe_dump(content, sort_keys=False, width=120), encoding="utf-8")
    return _file()


def study_runs() -> frozenset[str]:
    """Return the ids of the runs that are committed to git: the study. All other runs are your own."""
    command = ["git", "-C", str(paths.runs_dir()), "ls-files", f"*/{records.FILE}"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return frozenset()
    return frozenset(Path(line).parent.name for line in listed.splitlines())


def run_table(record: Record) -> pd.DataFrame:
    """Tabulate a run: one row per system, condition and dimension, with metrics and their 95 % intervals.

    Rows of paired differences carry the relative gain too.
    """
    wide = summarise(record.metrics, METRICS)
    keys = [name for name in ("stage", "task", "split", "system", "condition", "dim") if name in wide]
    gains = {tuple(_texts(row)[key] for key in keys): row.value for row in record.metrics if _is_relative(row)}
    values = [gains.get(key) for key in wide[keys].itertuples(index=False, name=None)]
    wide[RELATIVE] = ["" if value is None else f"{value:+.1%}" for value in values]
    return wide.assign(run=record.run_id)


def _is_relative(row: MetricRow) -> bool:
    return row.statistic == "relative_difference" and row.metric == METRICS[0]


def _texts(row: MetricRow) -> dict[str, str]:
    """A difference's columns as `summarise` shows them."""
    dim = "" if row.dim is None else str(row.dim)
    texts = {name: str(getattr(row, name)) for name in ("stage", "task", "split", "condition")}
    return {**texts, "system": f"{row.system} − {row.against}", "dim": dim}


def publish_run(run_id: str, name: str) -> list[Path]:
    """Publish a run under a short name: table, figures, executed notebook, README; returns what was written.

    Raises:
        RecordError: there is no such run, or its record is damaged.
    """
    folder = confined(paths.runs_dir(), run_id, field="run")
    record = records.read(folder)
    written = [*_write_run(record, name), _remember(name, run_id)]
    if (executed := folder / "executed.ipynb").exists():
        written.append(notebook_outputs.write_copy(executed, record.notebook))
    return [*written, *refresh()]


def publish_all() -> list[Path]:
    """Write everything that experiments/published.yaml lists, from the records; returns what was written.

    Raises:
        RecordError: a run is missing, or its record is damaged.
    """
    published = read_published()
    written = [
        path
        for name, run_id in published.runs.items()
        for path in _write_run(records.read(confined(paths.runs_dir(), run_id, field="run")), name)
    ]
    for name, run_ids in published.sweeps.items():
        measured = indexed_records((*View().metrics, *COSTS), run_ids)
        written += write_sweep_table(name, measured, tables_folder=paths.tables_dir())
    written += arena_report.write(published.arena) if published.arena else []
    return [*written, *refresh()]


def _write_run(record: Record, name: str) -> list[Path]:
    """A run's table, and its figures with their tables."""
    folder = paths.runs_dir() / record.run_id
    confined(paths.figures_dir(), name, field="name")
    paths.figures_dir().mkdir(parents=True, exist_ok=True)
    written = [tables.write_table(run_table(record), name, hide=("run",), caption=f"Run `{record.run_id}`.")]
    if run_ids := read_published().sweeps.get(str(record.parameters.get("sweep", ""))):
        return [*written, *_write_sweep_figures(name, run_ids)]
    for table in sorted(folder.glob("*.csv")):
        copies = [paths.figures_dir() / f"{name}_{table.stem}{ending}" for ending in (".png", ".csv")]
        if not redraw.redraw(table, copies[0], record):
            if not table.with_suffix(".png").is_file():
                continue  # not a figure, or one that only its notebook can draw
            shutil.copy(table.with_suffix(".png"), copies[0])
            shutil.copy(table, copies[1])
        written += copies
    return written


def _write_sweep_figures(name: str, run_ids: Sequence[str]) -> list[Path]:
    """The figures of a comparison of runs, drawn from the records; a figure without any point is left out."""
    table = sweep_table(indexed_records((*View().metrics, *COSTS), run_ids))
    figures = {f"quality_by_{name}": sweep_figures.quality_by_parameter(table, name) for name in table.parameters}
    figures |= {f"quality_by_{cost}": sweep_figures.quality_by_cost(table, cost) for cost in varying_costs(table)}
    if table.source.runs["seed"].nunique() > 1:
        figures["spread_over_seeds"] = sweep_figures.spread_over_seeds(table)
    written = []
    for stem, (figure, points) in figures.items():
        picture = paths.figures_dir() / f"{name}_{stem}.png"
        if points.empty:
            continue
        figure.savefig(picture, metadata={"Software": None})
        csv_frame(points).to_csv(picture.with_suffix(".csv"), index=False, lineterminator="\n")
        written += [picture, picture.with_suffix(".csv")]
    return written


def refresh() -> list[Path]:
    """Bring README's tables and the prose of executed copies up to date."""
    return [refresh_readme(), *notebook_outputs.refresh_copies()]


def refresh_readme() -> Path:
    """Put the current tables between the markers of README."""
    path = paths.project_root() / "README.md"
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
    return path


def with_tables(text: str) -> str:
    """Fill every block of a Markdown text between `<!-- table NAME -->` and the next `<!-- end -->`.

    A block takes results/tables/readme-NAME.md where that exists (a short form), else NAME.md.
    """

    def fill(match: re.Match[str]) -> str:
        short, full = (paths.tables_dir() / f"{prefix}{match['name']}.md" for prefix in ("readme-", ""))
        table = (short if short.is_file() else full).read_text(encoding="utf-8").strip()
        return f"{match[1]}{table}\n{match[3]}"

    return BLOCK.sub(fill, text)
