"""Commands that show and publish results: `embedlab table`, `diff`, `report`, `publish`, `headline`, `site`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from embedlab import paths
from embedlab.cli.console import err, out, print_frame
from embedlab.errors import ParameterError


def table(
    where: Annotated[list[str] | None, typer.Option("--filter", help="column=value; also != > < >= <= ~")] = None,
    metric: Annotated[str, typer.Option(help="the metric to show; empty shows all")] = "ndcg@10",
    sort: Annotated[str, typer.Option(help="column to sort by, largest first")] = "value",
    format: Annotated[str, typer.Option(help="table, csv, md or tex")] = "table",
    rows: Annotated[str, typer.Option(help="pivot: columns that name a row, e.g. learning_rate,model")] = "",
    columns: Annotated[str, typer.Option(help="pivot: the column whose values become columns, e.g. dim")] = "",
    output: Annotated[Path | None, typer.Option("-o", help="write to this file: .csv, .md, .parquet or .tex")] = None,
) -> None:
    """Show what all runs found, rebuilt from their records (experiments/runs.csv and metrics.csv are rewritten too)."""
    from embedlab.reporting import tables, views
    from embedlab.runs import record_index

    tables.rebuild_tables()
    found = record_index.indexed_records([metric]) if metric else tables.all_records()
    chosen = tables.select(views.where(tables.runs_frame(found), where or []), [], sort)
    shown = views.pivot(chosen, rows.split(","), columns, metric) if rows and columns else chosen
    if output:
        out.print(f"wrote {paths.shown(views.export(shown, output))}", highlight=False)
    elif format != "table":
        typer.echo(views.as_text(shown, format), nl=False)
    else:
        narrow, common = (shown.round(4), metric) if rows and columns else tables.compact(chosen)
        print_frame(narrow, f"{len(shown)} rows {common}")
    for warning in tables.mixtures(chosen) if len(chosen) else ():
        err.print(f"[yellow]{escape(warning)}[/yellow]")


def diff(
    run_a: Annotated[str, typer.Argument(help="a finished run")],
    run_b: Annotated[str, typer.Argument(help="another one; differences are the first minus this")],
    metric: Annotated[list[str] | None, typer.Option(help="as often as needed; ndcg@10 and recall@10")] = None,
    models: Annotated[str, typer.Option(help="A,B: compare model A of the first with model B of the second")] = "",
) -> None:
    """Say what differs between two runs: how they were made, and what they found, paired by query."""
    from embedlab.reporting import compare
    from embedlab.runs import records
    from embedlab.runs.run import HEADLINE

    pair = [records.read(paths.runs_dir() / run) for run in (run_a, run_b)]
    named = tuple(models.split(",")) if models else None
    if named and len(named) != 2:
        raise ParameterError(f"{models!r} is no pair", remedy="Write --models tuned,student", field="--models")
    found = compare.diff(*pair, metrics=metric or HEADLINE, models=named)
    print_frame(found.facts, "what differs")
    print_frame(compare.readable(found.metrics), " - ".join(found.runs))
    for reason in found.reasons:
        err.print(f"[yellow]{escape(reason)}[/yellow]")


def report(
    names: Annotated[list[str] | None, typer.Argument(help="sweeps; all runs by notebook when not given")] = None,
    output: Annotated[Path, typer.Option("-o", help="the HTML file")] = Path("report.html"),
    metric: Annotated[str, typer.Option(help="what is compared")] = "ndcg@10",
    all_dims: Annotated[bool, typer.Option("--all-dims", help="a row for every dimension kept")] = False,
) -> None:
    """Write one self-contained HTML page: tables, figures, failures and where every number comes from."""
    from embedlab.reporting.html_report import write_report
    from embedlab.reporting.sweep_data import View

    view = View(metrics=tuple(dict.fromkeys((metric, "recall@10"))), all_dims=all_dims)
    out.print(f"wrote {paths.shown(write_report(output.resolve(), names or (), view=view))}", highlight=False)


def publish(
    run_id: Annotated[str, typer.Argument(help="a finished run")],
    name: Annotated[str, typer.Argument(help="what its table and figures are called")],
) -> None:
    """Write a run's table, figures and executed notebook to results/, and refresh README."""
    from embedlab.reporting.publish import publish_run

    for path in publish_run(run_id, name):
        out.print(f"  {paths.shown(path)}", highlight=False)


def headline(
    dataset: Annotated[str, typer.Argument(help="what the runs were given as dataset")] = "icd10cm:full",
) -> None:
    """Write the headline table, its figures and README's block: every system measured on a dataset, from records."""
    from embedlab.reporting.headline_views import write_headline

    for path in write_headline(dataset):
        out.print(f"  {paths.shown(path)}", highlight=False)


def site(
    output: Annotated[Path | None, typer.Option("-o", help="a folder, emptied first; else build/site")] = None,
) -> None:
    """Build the browsable site of executed notebooks and tables; it needs no network."""
    from embedlab.reporting.site import build_site

    out.print(f"wrote {paths.shown(build_site(output))}/index.html", highlight=False)
