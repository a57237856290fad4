"""Commands that show and publish results: `embedlab table`, `diff`, `report`, `publish`, `headline`, `site`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from embedlab import paths
from embedlab.cli.console import err, out, print_frame
from embedlab.cli.options import output_file
from embedlab.errors import ParameterError
from embedlab.io import confined

if TYPE_CHECKING:
    import pandas as pd

MAX_PARAMETERS = 6  # columns of parameters that a terminal has room for
FORMATS = ("table", "csv", "md", "tex")
OutputDir = Annotated[str, typer.Option(help="folder of the runs; default results/runs")]


def table(
    where: Annotated[list[str] | None, typer.Option("--filter", help="column=value; also != > < >= <= ~")] = None,
    metric: Annotated[str, typer.Option(help="the metric to show; empty shows all")] = "ndcg@10",
    sort: Annotated[str, typer.Option(help="column to sort by, largest first")] = "value",
    format: Annotated[str, typer.Option(help="table, csv, md or tex")] = "table",
    rows: Annotated[str, typer.Option(help="pivot: columns that name a row, e.g. learning_rate,system")] = "",
    columns: Annotated[str, typer.Option(help="pivot: the column whose values become columns, e.g. dim")] = "",
    differences: Annotated[bool, typer.Option("--differences", help="show differences between systems too")] = False,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="also show, marked, what unfinished runs measured")
    ] = False,
    study: Annotated[bool, typer.Option("--study", help="show the runs of the committed study too")] = False,
    output_dir: OutputDir = "",
    output: Annotated[Path | None, typer.Option("-o", help="write to this file: .csv, .md, .parquet or .tex")] = None,
) -> None:
    """Show the results of your runs. No file is changed without -o.

    The runs of the committed study are shown too with --study or --filter, or if you have none of your own.
    """
    from embedlab.reporting import tables

    _check_table(format, rows, columns, output)
    with paths.runs_in(output_dir):
        selection, view = _selected(where or [], metric, sort, rows, columns, differences, incomplete, study)
    if output:
        out.print(f"wrote {paths.shown(tables.export(view, output))}", highlight=False)
    elif format != "table":
        typer.echo(tables.as_text(view, format), nl=False)
    elif rows and columns:
        print_frame(view.round(4), f"{len(view)} rows {metric}")
    else:
        varying = tables.varying_parameters(selection)
        few = len(varying) <= MAX_PARAMETERS
        narrow, common = tables.compact(selection, varying if few else ())
        print_frame(narrow, f"{len(selection)} rows {common}")
        if not few:
            err.print(f"{len(varying)} parameters differ between these runs: --format csv shows them", highlight=False)
    for warning in tables.mixtures(selection) if len(selection) else ():
        err.print(f"[yellow]{escape(warning)}[/yellow]")


def _check_table(format: str, rows: str, columns: str, output: Path | None) -> None:
    if format not in FORMATS:
        remedy = f"Choose one of {', '.join(FORMATS)}"
        raise ParameterError(f"unknown format {format!r}", remedy=remedy, field="--format")
    if bool(rows) != bool(columns):
        remedy = "Give both, for example --rows system --columns dim"
        raise ParameterError("a pivot needs --rows and --columns", remedy=remedy, field="--rows")
    output_file(output, "-o")


def _selected(
    where: Sequence[str],
    metric: str,
    sort: str,
    rows: str,
    columns: str,
    differences: bool,
    incomplete: bool,
    study: bool,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The metric rows that `table` shows, and the same rows, pivoted if asked."""
    from embedlab.reporting import tables
    from embedlab.reporting.publish import study_runs
    from embedlab.runs import failures, filters, record_index

    run_records = list(record_index.indexed_records([metric]) if metric else tables.all_records())
    if incomplete:
        run_records += failures.incomplete_records(metric=metric)
    study_ids = study_runs()
    frame = tables.mine_first(tables.runs_frame(run_records), study_ids)
    if not differences:
        frame = frame[frame["statistic"].isin(["value"])]
    if not where and not study and (my_rows := frame[frame["from"] == "mine"]).size:
        frame = my_rows
    matching = filters.where(frame, where)
    if len(frame) and matching.empty:
        raise _no_match(where, metric)
    selection = tables.mine_first(filters.select(matching, [], sort), study_ids)  # sorted within both
    return selection, tables.pivot(selection, rows.split(","), columns, metric) if rows and columns else selection


def _no_match(where: Sequence[str], metric: str) -> ParameterError:
    texts = " and ".join(map(repr, where))
    if metric:
        problem, remedy = (
            f"no run with the metric {metric!r} matches the filter {texts}",
            "--metric '' shows all metrics",
        )
    else:
        problem, remedy = f"no run matches the filter {texts}", "embedlab table --study shows all runs"
    return ParameterError(problem, remedy=remedy, field="--filter")


def diff(
    run_a: Annotated[str, typer.Argument(help="a finished run")],
    run_b: Annotated[str, typer.Argument(help="another one; differences are the first minus this")],
    metric: Annotated[list[str] | None, typer.Option(help="repeat for more; default ndcg@10 and recall@10")] = None,
    systems: Annotated[str, typer.Option(help="A,B: compare system A of the first with B of the second")] = "",
    output_dir: OutputDir = "",
) -> None:
    """Compare two runs: how they were made, and their results, paired by query."""
    from embedlab.reporting import compare
    from embedlab.runs import records
    from embedlab.runs.summary import HEADLINE

    with paths.runs_in(output_dir):
        pair = [records.read(confined(paths.runs_dir(), run, field="run")) for run in (run_a, run_b)]
    first, comma, second = systems.partition(",")
    if systems and not (first and comma and second):
        remedy = "Write two, for example --systems contrastive,static"
        raise ParameterError(f"expected two systems, got {systems!r}", remedy=remedy, field="--systems")
    with paths.runs_in(output_dir):
        comparison = compare.diff(*pair, metrics=metric or HEADLINE, systems=(first, second) if systems else None)
    print_frame(comparison.facts, "what differs")
    print_frame(compare.readable(comparison.metrics), " - ".join(comparison.runs))
    for reason in comparison.reasons:
        err.print(f"[yellow]{escape(reason)}[/yellow]")


def report(
    names: Annotated[list[str] | None, typer.Argument(help="sweeps; default: all runs, by notebook")] = None,
    output: Annotated[Path, typer.Option("-o", help="the HTML file")] = Path("report.html"),
    metric: Annotated[str, typer.Option(help="the metric to compare by")] = "ndcg@10",
    all_dims: Annotated[bool, typer.Option("--all-dims", help="a row for every dimension measured")] = False,
    output_dir: OutputDir = "",
) -> None:
    """Write one self-contained HTML page: tables, figures, failures and the origin of every number."""
    from embedlab.reporting.html_report import write_report
    from embedlab.reporting.sweep_data import View

    output_file(output, "-o")
    view = View(metrics=tuple(dict.fromkeys((metric, "recall@10"))), all_dims=all_dims)
    with paths.runs_in(output_dir):
        written = write_report(output.resolve(), names or (), view=view)
    out.print(f"wrote {paths.shown(written)}", highlight=False)


def publish(
    run_id: Annotated[str, typer.Argument(help="a finished run; without one, all published ones")] = "",
    name: Annotated[str, typer.Argument(help="the name of its table and figures")] = "",
) -> None:
    """Write a run's table, figures and executed notebook to results/, and update README."""
    from embedlab.reporting.publish import publish_all, publish_run

    if bool(run_id) != bool(name):
        remedy = "Add one: embedlab publish RUN_ID NAME"
        raise ParameterError("a published run needs a name", remedy=remedy, field="name")
    for path in publish_run(run_id, name) if run_id else publish_all():
        out.print(f"  {paths.shown(path)}", highlight=False)


def headline() -> None:
    """Write the headline tables and figures from the runs that experiments/headline.yaml lists, and update README."""
    from embedlab.reporting.headline_views import write_headline

    for path in write_headline():
        out.print(f"  {paths.shown(path)}", highlight=False)


def site(
    output: Annotated[
        Path | None, typer.Option("-o", help="a new folder or an earlier site; default build/site")
    ] = None,
) -> None:
    """Build the website of executed notebooks and tables; it works without a network."""
    from embedlab.reporting.site import build_site

    out.print(f"wrote {paths.shown(build_site(output))}/index.html", highlight=False)
