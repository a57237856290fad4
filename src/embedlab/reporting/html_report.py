"""One HTML page about many runs: tables, figures, failures and the origin of every number.

The page is self-contained (styles, figures as inline SVG) and loads nothing from the network. Each section is about one
dataset, so baselines and Pareto marks never mix datasets.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from embedlab import paths
from embedlab.errors import DataError, ParameterError
from embedlab.io import confined
from embedlab.reporting import sweep_figures
from embedlab.reporting.figures import MAX_SERIES
from embedlab.reporting.sweep_data import COSTS, View
from embedlab.reporting.sweep_table import SweepTable, caption, readable, sweep_table
from embedlab.runs import provenance, records
from embedlab.runs.failures import failures
from embedlab.runs.record_index import indexed_records
from embedlab.runs.records import Record
from embedlab.runs.run_id import RunId
from embedlab.sweeps import planning
from embedlab.sweeps.spec import find_sweep, read_sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = "report_page.html"
MARK = '<meta name="generator" content="embedlab">'


@dataclass(frozen=True)
class Group:
    """Runs that belong in one table.

    Attributes:
        name: the sweep, or the notebook.
        run_ids: all that should be there, finished or not.
    """

    name: str
    run_ids: Sequence[str]


def groups(names: Sequence[str] = (), folder: Path | None = None) -> list[Group]:
    """Collect the runs of each named sweep; without names, all runs by notebook.

    Raises:
        ParameterError: there is no such sweep.
    """
    if names:
        return [Group(name, sweep_runs(name, folder)) for name in names]
    folder = folder or paths.runs_dir()
    by_notebook: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with suppress(ParameterError):  # not a run
            by_notebook.setdefault(RunId.parse(path.name).notebook, []).append(path.name)
    return [Group(notebook, run_ids) for notebook, run_ids in by_notebook.items()]


def sweep_runs(name: str, folder: Path | None) -> list[str]:
    """List the runs that a sweep plans, as far as their ids are known, and those in its table.

    Raises:
        DataError: the sweep has no table, and the data that its run ids depend on is not here.
    """
    path = find_sweep(name)
    in_table = _tabled(path.stem, folder)
    try:
        planned = planning.all_planned(read_sweep(path), path, str(folder or ""))
    except DataError:  # such as a file of pairs that is not part of the project
        if not in_table:
            raise
        planned = []
    return list(dict.fromkeys([*in_table, *(item.run_id for item in planned)]))


def _tabled(name: str, folder: Path | None) -> list[str]:
    """Runs in the sweep's table, your own or the committed one: only there are the values of a search known."""
    places = (paths.my_tables_dir(folder), *(() if folder else (paths.tables_dir(),)))
    files = [table_folder / f"sweep-{name}.parquet" for table_folder in places]
    runs = [text for file in files if file.is_file() for text in pd.read_parquet(file, columns=["runs"])["runs"]]
    return [run_id for run_ids in runs for run_id in run_ids.split()]


def read_runs(run_ids: Iterable[str], folder: Path | None = None) -> Iterator[Record]:
    """Read the records of runs, one at a time; runs without a record are left out."""
    for run_id in run_ids:
        if record := records.read_or_quarantine(confined(folder or paths.runs_dir(), run_id, field="run")):
            yield record


def write_report(path: Path, names: Sequence[str] = (), *, view: View | None = None) -> Path:
    """Write the page about the named sweeps, or about all runs; returns `path`.

    Args:
        path: the HTML file.
        names: sweeps; a section for each of their datasets.
        view: metrics and split to show.

    Raises:
        ParameterError: there is no such sweep, or no run at all.
    """
    selection = groups(names)
    if not selection:
        remedy = "Run a notebook first: embedlab run 00_quickstart"
        raise ParameterError("there are no runs to report", remedy=remedy, file=paths.runs_dir())
    _require_report(path)
    content = [section for group in selection for section in sections(group, view)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(", ".join(names) or "All runs", content), encoding="utf-8")
    return path


def _require_report(path: Path) -> None:
    """Check that the file is new, or a report of an earlier call."""
    if path.suffix.lower() not in (".html", ".htm"):
        remedy = "Write -o report.html"
        raise ParameterError("a report is an HTML file", remedy=remedy, file=path, field="-o")
    if path.is_file() and MARK not in path.read_text(encoding="utf-8", errors="replace")[:2_000]:
        problem = "embedlab did not write this file, so it stays as it is"
        raise ParameterError(problem, remedy="Choose another name", file=path, field="-o")


def page(title: str, content: Sequence[dict[str, Any]]) -> str:
    """Render the page; everything but our own figures is escaped."""
    from jinja2 import Environment, StrictUndefined

    source = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    count = sum(len(section["runs"]) for section in content)
    summary = f"{count:,} runs, tabulated {provenance.now()} from their records."
    return environment.from_string(source).render(title=title, summary=summary, sections=content)


def sections(group: Group, view: View | None = None) -> Iterator[dict[str, object]]:
    """Prepare what the page's template shows of one group: a section per dataset.

    Failed runs have no record and so no dataset; they are listed in the group's first section.
    """
    view = view or View()
    by_dataset: dict[str, list[str]] = {}
    for record in indexed_records((), group.run_ids):
        by_dataset.setdefault(str(record.parameters.get("dataset") or ""), []).append(record.run_id)
    failed = failures(group.run_ids)
    for dataset, run_ids in (by_dataset or {"": []}).items():
        measured = indexed_records((*view.metrics, *COSTS), run_ids)
        table = sweep_table(measured, view)
        yield _section(f"{group.name} on {dataset}" if dataset else group.name, table, failed)
        failed = failed.iloc[:0]


def _section(name: str, table: SweepTable, failed: pd.DataFrame) -> dict[str, object]:
    return {
        "name": name,
        "notes": table.notes,
        "table": readable(table).astype(object).fillna(""),
        "baselines": set(table.frame.index.difference(table.combinations.index)),
        "caption": caption(table),
        "figures": list(_figures(table)) if len(table.frame) else [],
        "failures": failed.astype(object).fillna("") if len(failed) else None,
        "runs": [*_provenance(table.source.runs)],
    }


def _figures(table: SweepTable) -> Iterator[dict[str, str]]:
    for parameter in table.parameters:
        figure, points = sweep_figures.quality_by_parameter(table, parameter)
        if len(points):
            yield {"svg": svg(figure), "caption": f"Combinations that differ in {parameter} alone; bars: one sd."}
    for cost in sweep_figures.varying_costs(table):
        figure, _ = sweep_figures.quality_by_cost(table, cost)
        yield {"svg": svg(figure), "caption": f"Quality against {cost}; dashed: baselines, which do not compete."}
    if table.source.runs["seed"].nunique() > 1:
        figure, _ = sweep_figures.spread_over_seeds(table)
        yield {"svg": svg(figure), "caption": "A dot per run, a bar per mean over seeds."}
    if histories := _histories(table):
        figure, _ = sweep_figures.learning_curves(histories)
        count = min(len(histories), MAX_SERIES)
        yield {"svg": svg(figure), "caption": f"{count} of {len(histories)} combinations, one seed each."}


def _histories(table: SweepTable) -> dict[str, pd.DataFrame]:
    """Label -> train_log.csv of the first seed of every combination that kept one."""
    histories = {}
    for row in table.combinations.drop_duplicates("runs").to_dict("records"):
        run_id = row["runs"].split()[0]
        log = paths.runs_dir() / run_id / "train_log.csv"
        if log.is_file():
            values = [f"{name}={row[f'p.{name}']}" for name in table.parameters]
            histories[", ".join(values) or run_id] = pd.read_csv(log)
    return histories


def _provenance(runs: pd.DataFrame) -> Iterator[str]:
    """A line per run: code, data, environment and machine."""
    for row in runs.to_dict("records"):
        state = f"{row['commit'] or 'no commit'}{', uncommitted changes' if row['dirty'] is True else ''}"
        threads = f"{row['threads']:.0f} threads" if pd.notna(row["threads"]) else "threads unknown"
        machine = f"{row['environment']}; {row['cpu'] or 'processor unknown'}, {threads}"
        yield f"{row['run_id']}: code {row['code'] or '?'} ({state}); data {row['data'] or '?'}; {machine}"


def svg(figure: Figure) -> str:
    """Return the figure as an SVG element for a page; black becomes the page's text colour."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "embedlab"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # HTML knows both namespaces. Their addresses would look like network requests.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"|(<svg[^>]*?) height="[^"]*"', r"\1\2", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = text.replace("fill: #ffffff", "fill: none")  # the page may be dark
    return re.sub(r"#000000|\bblack\b", "currentColor", text)
