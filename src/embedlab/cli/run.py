"""Commands around one run: `embedlab run`, `params`, `doctor`, `version`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from embedlab import __version__, paths
from embedlab.cli.console import CANCELLED, FAILED, err, name_value_pairs, out, print_frame
from embedlab.cli.options import folder_or_new

if TYPE_CHECKING:
    from embedlab.runs.execute import Outcome
    from embedlab.runs.records import Record

KEPT_SUFFIXES = (".json", ".ipynb", ".html", ".md", ".png")  # files of a run that are worth listing


def run(
    notebook: Annotated[str, typer.Argument(help="a path, a name (00_quickstart) or a number (00)")],
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value; repeat for more parameters")] = None,
    output_dir: Annotated[str, typer.Option(help="folder for runs; default results/runs", callback=folder_or_new)] = "",
    force: Annotated[bool, typer.Option("--force", help="run again even if the run is finished")] = False,
    html: Annotated[bool, typer.Option("--html", help="also save the executed notebook as HTML")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="stop the run after this many minutes; 0: no limit")] = 0,
    mem_gb: Annotated[float, typer.Option(min=0, help="stop the run above this much memory in GiB; 0: no limit")] = 0,
    cpus: Annotated[int, typer.Option(min=0, help="number of threads; 0: all cores")] = 0,
) -> None:
    """Run a notebook and record its results. A finished run is not repeated."""
    from embedlab.runs import execute, inputs, notebooks
    from embedlab.runs.limits import Limits

    path = notebooks.find_notebook(notebook)
    values = notebooks.parse_values(notebooks.parameters(path), name_value_pairs(parameter or [], "-p"))
    values = {name: inputs.from_current_folder(name, value) for name, value in values.items()}
    limits = Limits(wall_min=timeout, mem_gb=mem_gb, cpus=cpus)
    outcome = execute.run_notebook(path, values, output_dir=output_dir, force=force, html=html, limits=limits)
    if outcome.record is None:
        err.print(f"[red]{outcome.run_id} failed: {outcome.cause}[/red]")
        err.print(escape(outcome.detail), highlight=False, soft_wrap=True)
        err.print(f"Its log and notebook are in {paths.shown(outcome.folder / 'attempts')}", highlight=False)
        raise typer.Exit(CANCELLED if outcome.cause == "cancelled" else FAILED)
    _show_outcome(outcome, outcome.record)


def _show_outcome(outcome: Outcome, record: Record) -> None:
    from embedlab.runs.reading import describe_interval, telling_differences
    from embedlab.runs.summary import format_row, summarise

    state = "already finished (--force runs it again)" if outcome.skipped else "finished"
    print_frame(summarise(record.metrics), f"{record.run_id}: {state}")
    for row in telling_differences(record.metrics):
        comparison = f"{row.system} − {row.against}: {format_row(row)} ndcg@10"
        out.print(f"{comparison}. {describe_interval(row, row.system, row.against)}", markup=False)
    for training, findings in (record.notes.get("training") or {}).items():
        for advice in findings.values():
            out.print(f"{training}: {advice}" if training else advice, style="yellow", markup=False)
    for file in sorted(outcome.folder.iterdir()):
        if file.suffix in KEPT_SUFFIXES or file.name == "model":
            out.print(f"  {paths.shown(file)}", highlight=False)


def params(notebook: Annotated[str, typer.Argument(help="a path, a name or a number")]) -> None:
    """List a notebook's parameters: name, type, default and meaning."""
    from embedlab.runs import notebooks

    path = notebooks.find_notebook(notebook)
    table = Table("name", "type", "default", "meaning", title=path.stem, title_justify="left")
    for parameter in notebooks.parameters(path):
        cells = parameter.name, parameter.type_name, repr(parameter.default), parameter.help
        table.add_row(*map(escape, cells))
    out.print(table)


def doctor() -> None:
    """Check the installation: what is missing and how to get it."""
    from embedlab.cli.doctor import checks

    results = checks()
    table = Table("", "what", "status", "what to do", title="embedlab doctor", title_justify="left")
    for check in results:
        mark = {True: "[green]ok[/green]", False: "[red]missing[/red]", None: ""}[check.ok]
        table.add_row(mark, check.name, escape(check.status), check.remedy)
    out.print(table)
    if any(check.ok is False for check in results):
        raise typer.Exit(FAILED)


def version() -> None:
    """Print the version."""
    typer.echo(__version__)
