"""One HTML page about many runs: tables, figures, failures and where every number comes from.

The page holds everything in itself (styles, figures as inline SVG) and asks the network for nothing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.reporting import sweep_figures
from embedlab.reporting.sweep_data import COSTS, View
from embedlab.reporting.sweep_table import SweepTable, caption, readable, sweep_table
from embedlab.runs import provenance, records
from embedlab.runs.failures import failures
from embedlab.runs.record_index import indexed_records
from embedlab.runs.records import Record
from embedlab.sweeps import planning
from embedlab.sweeps.spec import find_sweep, read_sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = "report_page.html"
RUN_FOLDER = re.compile(r"^(?P<notebook>.+)-[0-9a-f]{8}-s-?\d+$")
SIZE = (5.2, 3.4)  # inches; small enough that text stays readable on a phone


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
    """The runs of each named sweep; without names, all runs there are, by notebook.

    Raises:
        ParameterError: there is no such sweep.
    """
    if names:
        return [Group(name, _sweep_runs(name, folder)) for name in names]
    folder, by_notebook = folder or paths.runs_dir(), {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := RUN_FOLDER.match(path.name):
            by_notebook.setdefault(match["notebook"], []).append(path.name)
    return [Group(notebook, run_ids) for notebook, run_ids in by_notebook.items()]


def _sweep_runs(name: str, folder: Path | None) -> list[str]:
    """What the sweep's file asks for, as far as its runs can be named, and what its table has."""
    path = find_sweep(name)
    planned = planning.all_planned(read_sweep(path), path, str(folder or ""))
    return list(dict.fromkeys([*_tabled(path.stem, folder), *(item.plan.run_id for item in planned)]))


def _tabled(name: str, folder: Path | None) -> list[str]:
    """Runs in the sweep's table: the values of a search are known only there."""
    path = paths.tables_dir(folder) / f"sweep-{name}.parquet"
    found = pd.read_parquet(path, columns=["runs"])["runs"] if path.is_file() else ()
    return [run_id for run_ids in found for run_id in run_ids.split()]


def read_runs(run_ids: Iterable[str], folder: Path | None = None) -> Iterator[Record]:
    """Their records, one at a time; runs without one are left out."""
    for identifier in run_ids:
        if record := records.read_or_quarantine((folder or paths.runs_dir()) / identifier):
            yield record


def write_report(
    path: Path,
    names: Sequence[str] = (),
    *,
    view: View | None = None,
    folder: Path | None = None,
    paired: bool = True,
) -> Path:
    """Write the page about the named sweeps, or about all runs; returns `path`.

    Args:
        path: the HTML file.
        names: sweeps; a section each.
        view: metrics and split to show.
        folder: where runs are kept; results/runs when not given.
        paired: compare with the base model query by query, which reads a file per run.

    Raises:
        ParameterError: there is no such sweep, or no run at all.
    """
    chosen = groups(names, folder)
    if not chosen:
        remedy = "Run a notebook first: embedlab run 00_quickstart"
        raise ParameterError("there are no runs to report", remedy=remedy, file=folder or paths.runs_dir())
    sections = [section(group, view, folder=folder, paired=paired) for group in chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(", ".join(names) or "All runs", sections), encoding="utf-8")
    return path


def page(title: str, sections: Sequence[dict[str, object]]) -> str:
    """The whole page; everything but our own figures is escaped."""
    from jinja2 import Environment, StrictUndefined

    source = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    count = sum(len(one["runs"]) for one in sections)
    summary = f"{count:,} runs, tabled {provenance.now()} from their records."
    return environment.from_string(source).render(title=title, summary=summary, sections=sections)


def section(
    group: Group, view: View | None = None, *, folder: Path | None = None, paired: bool = True
) -> dict[str, object]:
    """What the page's template shows of one group."""
    view = view or View()
    table = sweep_table(
        indexed_records((*view.metrics, *COSTS), group.run_ids, folder), view, folder=folder, paired=paired
    )
    lost = failures(group.run_ids, folder)
    baselines = table.frame.index.difference(table.combinations.index)
    return {
        "name": group.name,
        "notes": table.notes,
        "table": readable(table).astype(object).fillna(""),
        "baselines": set(baselines),
        "caption": caption(table),
        "figures": list(_figures(table, folder)) if len(table.frame) else [],
        "failures": lost.astype(object).fillna("") if len(lost) else None,
        "runs": [*_provenance(table.source.runs)],
    }


def _figures(table: SweepTable, folder: Path | None) -> Iterator[dict[str, str]]:
    for parameter in table.parameters:
        figure, _ = sweep_figures.quality_by_parameter(table, parameter)
        yield {"svg": svg(figure), "caption": f"Every combination by {parameter}; bars: one sd over seeds."}
    for cost in sweep_figures.varying_costs(table):
        figure, _ = sweep_figures.quality_by_cost(table, cost)
        yield {"svg": svg(figure), "caption": f"Quality against {cost}; dashed: baselines, which do not compete."}
    if table.source.runs["seed"].nunique() > 1:
        figure, _ = sweep_figures.spread_over_seeds(table)
        yield {"svg": svg(figure), "caption": "A dot per run, a bar per mean over seeds."}
    if histories := _histories(table, folder):
        figure, _ = sweep_figures.learning_curves(histories)
        shown = min(len(histories), sweep_figures.MAX_LINES)
        yield {"svg": svg(figure), "caption": f"{shown} of {len(histories)} combinations, one seed each."}


def _histories(table: SweepTable, folder: Path | None) -> dict[str, pd.DataFrame]:
    """Label -> train_log.csv of the first seed of every combination that kept one."""
    found = {}
    for row in table.combinations.drop_duplicates("runs").to_dict("records"):
        identifier = row["runs"].split()[0]
        log = (folder or paths.runs_dir()) / identifier / "train_log.csv"
        if log.is_file():
            values = [f"{name}={row[f'p.{name}']}" for name in table.parameters]
            found[", ".join(values) or identifier] = pd.read_csv(log)
    return found


def _provenance(runs: pd.DataFrame) -> Iterator[str]:
    """A line per run: what made it, without a link anywhere."""
    for row in runs.to_dict("records"):
        state = f"{row['commit'] or 'no commit'}{', uncommitted changes' if row['dirty'] is True else ''}"
        threads = f"{row['threads']:.0f} threads" if pd.notna(row["threads"]) else "threads unknown"
        machine = f"{row['environment']}; {row['cpu'] or 'processor unknown'}, {threads}"
        yield f"{row['run_id']}: code {row['code'] or '?'} ({state}); data {row['data'] or '?'}; {machine}"


def svg(figure: Figure) -> str:
    """The figure as an SVG element that stands inside a page, black following the page's text colour."""
    import matplotlib

    figure.set_size_inches(*SIZE)
    written = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "embedlab"}):
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    text = written.getvalue()[written.getvalue().index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # HTML knows both namespaces; their addresses would only look like requests.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"|(<svg[^>]*?) height="[^"]*"', r"\1\2", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return re.sub(r"#000000|\bblack\b", "currentColor", text)
