"""The command line: `embedlab run 00_quickstart`, `embedlab table`, `embedlab doctor`."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embedlab import __version__, paths
from embedlab.cli import sweep
from embedlab.cli.deploy import app as deploy_app
from embedlab.cli.diagnose import diagnose
from embedlab.cli.evaluate import evaluate
from embedlab.errors import EmbedlabError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out, err = Console(), Console(stderr=True)

FAILED, BAD_INPUT, CANCELLED = 1, 2, 130
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="a path, a stem (00_quickstart) or a number (00)")],
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value, as often as needed")] = None,
    output_dir: Annotated[str, typer.Option(help="where runs are kept; results/runs when not given")] = "",
    force: Annotated[bool, typer.Option("--force", help="run again although it is finished")] = False,
    html: Annotated[bool, typer.Option("--html", help="keep an HTML copy of the executed notebook")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="end the run after so many minutes; 0 = never")] = 0,
    mem_gb: Annotated[float, typer.Option(min=0, help="end the run above so many GiB; 0 = never")] = 0,
    cpus: Annotated[int, typer.Option(min=0, help="threads to compute with; 0 = all")] = 0,
) -> None:
    """Execute a notebook as a run, unless that run is finished already."""
    from embedlab.reporting import tables
    from embedlab.runs import execute, notebooks
    from embedlab.runs import limits as guard

    path = notebooks.find_notebook(notebook)
    values = notebooks.parse_values(notebooks.parameters(path), _pairs(parameter or []))
    limits = guard.Limits(wall_min=timeout, mem_gb=mem_gb, cpus=cpus)
    outcome = execute.run_notebook(path, values, output_dir=output_dir, force=force, html=html, limits=limits)
    if outcome.record is None:
        err.print(f"[red]{outcome.run_id} failed: {outcome.cause}[/red]")
        err.print(escape(outcome.detail), highlight=False)
        err.print(f"What it left: {paths.shown(outcome.folder / 'attempts')}", highlight=False)
        raise typer.Exit(CANCELLED if outcome.cause == "cancelled" else FAILED)
    _show_outcome(outcome)
    if outcome.folder.parent == paths.runs_dir():
        tables.rebuild_tables()


def _pairs(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise EmbedlabError(f"{text!r} is no name=value", remedy="Write -p name=value", field="-p")
    return dict(text.split("=", 1) for text in texts)


def _show_outcome(outcome: object) -> None:
    from embedlab.reporting.tables import headline
    from embedlab.runs.run import HEADLINE

    record = outcome.record
    state = "finished before, nothing to do (--force runs it again)" if outcome.skipped else "finished"
    _print_frame(headline(record.metrics, HEADLINE), f"{record.run_id}: {state}")
    for row in record.metrics:
        if row.metric == "ndcg@10" and " - " in row.model and row.ci_low is not None:
            verdict = "excludes" if row.ci_low > 0 or row.ci_high < 0 else "includes"
            interval = f"[{row.ci_low:+.3f}, {row.ci_high:+.3f}]"
            out.print(f"{row.model}: {row.value:+.3f} ndcg@10, 95 % interval {interval} {verdict} 0", markup=False)
    for file in sorted(outcome.folder.iterdir()):
        if file.suffix in (".json", ".ipynb", ".html", ".png") or file.name == "model":
            out.print(f"  {paths.shown(file)}", highlight=False)


def _print_frame(frame: object, title: str) -> None:
    table = Table(*map(str, frame.columns), title=title, title_justify="left")
    for row in frame.astype(object).where(frame.notna(), "").itertuples(index=False):
        table.add_row(*(escape(str(cell)) for cell in row))
    out.print(table)


@app.command()
def params(notebook: Annotated[str, typer.Argument(help="a path, a stem or a number")]) -> None:
    """List a notebook's parameters with types, defaults and meaning."""
    from embedlab.runs import notebooks

    path = notebooks.find_notebook(notebook)
    table = Table("name", "type", "default", "meaning", title=path.stem, title_justify="left")
    for parameter in notebooks.parameters(path):
        table.add_row(
            parameter.name, escape(parameter.type_name), escape(repr(parameter.default)), escape(parameter.help)
        )
    out.print(table)


@app.command()
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
        _print_frame(narrow, f"{len(shown)} rows {common}")
    for warning in tables.mixtures(chosen) if len(chosen) else ():
        err.print(f"[yellow]{escape(warning)}[/yellow]")


@app.command()
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
        raise EmbedlabError(f"{models!r} is no pair", remedy="Write --models tuned,student", field="--models")
    found = compare.diff(*pair, metrics=metric or HEADLINE, models=named)
    _print_frame(found.facts, "what differs")
    _print_frame(compare.readable(found.metrics), " - ".join(found.runs))
    for reason in found.reasons:
        err.print(f"[yellow]{escape(reason)}[/yellow]")


@app.command()
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


@app.command()
def publish(
    run_id: Annotated[str, typer.Argument(help="a finished run")],
    name: Annotated[str, typer.Argument(help="what its table and figures are called")],
) -> None:
    """Write a run's table, figures and executed notebook to results/, and refresh README."""
    from embedlab.reporting.publish import publish_run

    for path in publish_run(run_id, name):
        out.print(f"  {paths.shown(path)}", highlight=False)


@app.command()
def headline(
    dataset: Annotated[str, typer.Argument(help="what the runs were given as dataset")] = "icd10cm:full",
) -> None:
    """Write the headline table, its figures and README's block: every system measured on a dataset, from records."""
    from embedlab.reporting.headline_views import write_headline

    for path in write_headline(dataset):
        out.print(f"  {paths.shown(path)}", highlight=False)


@app.command()
def site(
    output: Annotated[Path | None, typer.Option("-o", help="a folder, emptied first; else build/site")] = None,
) -> None:
    """Build the browsable site of executed notebooks and tables; it needs no network."""
    from embedlab.reporting.site import build_site

    out.print(f"wrote {paths.shown(build_site(output))}/index.html", highlight=False)


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing and how to get it."""
    from embedlab.cli.doctor import checks

    found = checks()
    table = Table("", "what", "found", "what to do", title="embedlab doctor", title_justify="left")
    for check in found:
        mark = {True: "[green]ok[/green]", False: "[red]missing[/red]", None: ""}[check.ok]
        table.add_row(mark, check.name, escape(check.found), check.remedy)
    out.print(table)
    if any(check.ok is False for check in found):
        raise typer.Exit(FAILED)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


sweep.add_to(app)
app.command()(diagnose)
app.command()(evaluate)
app.add_typer(deploy_app, name="deploy")


def main() -> None:
    """Entry point: an error that a person can mend is one line, not a traceback."""
    try:
        app()
    except EmbedlabError as error:
        err.print(f"[red]{escape(str(error))}[/red]", highlight=False, soft_wrap=True)
        raise SystemExit(BAD_INPUT) from None
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        problem = f"{error.filename or 'a file'} cannot be written ({error.strerror})"
        err.print(
            f"[red]{escape(problem)}; records stand. Make room, run it again[/red]", highlight=False, soft_wrap=True
        )
        raise SystemExit(FAILED) from None


if __name__ == "__main__":
    main()
