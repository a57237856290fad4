"""Commands around sweeps: `embedlab sweep`, `watch`, `logs`, `cancel`."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from embedlab import paths
from embedlab.cli.console import CANCELLED, FAILED, err, name_value_pairs, out
from embedlab.cli.options import folder_or_new
from embedlab.errors import ParameterError
from embedlab.escaping import terminal

if TYPE_CHECKING:
    from embedlab.runs.attempts import Attempt
    from embedlab.runs.run_progress import ProgressFile
    from embedlab.sweeps.driver import Options, Result
    from embedlab.sweeps.engine import Engine
    from embedlab.sweeps.planning import Planned
    from embedlab.sweeps.spec import StagedSweep, SweepSpec

    Spec = SweepSpec | StagedSweep

WATCH_S = 0.5  # between two reads of the progress files

OutputDir = Annotated[str, typer.Option(help="folder for runs; default results/runs", callback=folder_or_new)]


def sweep(
    name: Annotated[str, typer.Argument(help="a name in experiments/sweeps, or a YAML file")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the runs, then stop")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="runs at a time; default 1 here, 64 in Slurm's queue")] = 0,
    engine: Annotated[str, typer.Option(help="local, dask or slurm")] = "local",
    scheduler: Annotated[str | None, typer.Option(help="address of a Dask scheduler: tcp://HOST:8786")] = None,
    shared_disk: Annotated[bool, typer.Option("--shared-disk", help="Dask workers see this project's folder")] = False,
    slurm: Annotated[list[str] | None, typer.Option(help="name=value for submitit, e.g. slurm_partition=gpu")] = None,
    only: Annotated[list[str] | None, typer.Option(help="name=value; only these runs; repeat to combine")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="repeat runs that failed")] = False,
    rerun_stale: Annotated[
        bool, typer.Option("--rerun-stale", help="repeat runs recorded by other code or packages")
    ] = False,
    output_dir: OutputDir = "",
) -> None:
    """Execute all runs of a sweep. Finished runs are skipped, so you can interrupt and repeat the command.

    Exit codes: 0 all runs finished, 1 some failed, 2 the sweep file has an error, 130 cancelled (143 by SIGTERM).
    """
    from embedlab.sweeps import driver
    from embedlab.sweeps.engine import make_engine
    from embedlab.sweeps.spec import find_sweep, read_sweep

    path = find_sweep(name)
    spec = read_sweep(path)
    options = driver.Options(output_dir, tuple(only or ()), retry_failed, rerun_stale)
    _show_plan(spec, path, options, jobs, listed=dry_run)
    if dry_run:
        return
    submitit_options = name_value_pairs(slurm or [], "--slurm")
    runner = make_engine(engine, jobs=jobs, scheduler=scheduler, shared=shared_disk, options=submitit_options)
    result = _drive(spec, path, runner, options)
    _finish(spec, path, result, output_dir)


def _show_plan(spec: Spec, path: Path, options: Options, jobs: int, *, listed: bool) -> None:
    """Check all stages; show how many runs there are and how long they may take."""
    from embedlab.sweeps import planning
    from embedlab.sweeps.spec import check_references, expand, varying

    expanded = [(stage, expand(stage, path)) for stage in spec.stages]
    check_references(spec, path)
    earlier: dict[str, dict[int, Planned]] = {}
    for stage, runs in expanded:
        if not planning.can_plan_ahead(stage, earlier):
            out.print(f"{stage.name or path.stem}: {stage.size()} runs, which depend on the results of earlier stages")
            continue
        values = planning.follow(runs, earlier)
        planned = planning.only(planning.plan_values(stage, values, options.output_dir), options.only)
        if all(item.record for item in planned) and planning.is_built_on(stage, spec.stages):
            earlier[stage.name] = planning.best(stage, planned)
        if listed:
            out.print(_plan_table(stage.name or path.stem, planned, varying(values)))
        out.print(_summary(planned, max(jobs, 1)), highlight=False)


def _plan_table(title: str, planned: Sequence[Planned], varying: Sequence[str]) -> Table:
    from embedlab.runs.notebooks import with_defaults

    # Run ids and states are for copying and must not be shortened.
    columns = Column("run", no_wrap=True), Column("values"), Column("state", no_wrap=True)
    table = Table(*columns, title=title, title_justify="left")
    for item, settings in zip(planned, with_defaults([item.plan.values for item in planned]), strict=True):
        values = ", ".join(f"{name} {settings[name]}" for name in (*varying, "seed"))
        table.add_row(item.plan.run_id, escape(values), escape(item.state()))
    return table


def _summary(planned: Sequence[Planned], jobs: int) -> str:
    from embedlab.sweeps import planning

    todo = sum(item.record is None for item in planned)
    older = sum(item.is_older for item in planned)
    note = f" ({older} by older code; --rerun-stale repeats them)" if older else ""
    text = f"{len(planned)} runs, {len(planned) - todo} finished{note}, {todo} to do"
    if not todo:
        return text
    seconds = planning.estimate_s(planned, jobs)
    if seconds is None:
        return f"{text}; no estimate of the time, since no similar run has been recorded"
    return f"{text}; about {seconds / 60:.0f} minutes, estimated from similar runs"


def _drive(spec: Spec, path: Path, engine: Engine, options: Options) -> Result:
    """Run the sweep on an engine, and close the engine."""
    from embedlab.sweeps import driver
    from embedlab.sweeps.progress_view import SweepView

    try:
        with SweepView(path.stem) as view:
            return driver.Driver(spec, engine, view, options, path).run()
    finally:
        engine.close()


def _finish(spec: Spec, path: Path, result: Result, output_dir: str) -> None:
    """Write the tables, report failures, and exit with the right code."""
    from embedlab.sweeps import planning

    finished = [outcome.run_id for outcome in result.outcomes.values() if outcome.record]
    recorded = [item.run_id for item in planning.all_planned(spec, path, output_dir) if item.record]
    written = _write_tables(path.stem, result, list(dict.fromkeys([*finished, *recorded])), output_dir)
    for outcome in result.failed:
        err.print(f"[red]{outcome.run_id} failed: {outcome.cause}[/red]", highlight=False)
        err.print(escape(outcome.detail), highlight=False)
    skipped = sum(outcome.skipped for outcome in result.outcomes.values() if outcome.record)
    out.print(f"{len(finished)} runs finished ({skipped} of them before), {len(result.failed)} failed", highlight=False)
    if result.cancelled:
        raise typer.Exit(CANCELLED)
    if result.failed or not written:
        raise typer.Exit(FAILED)


def _write_tables(name: str, result: Result, run_ids: list[str], output_dir: str) -> bool:
    """Write the sweep's table; return whether that was possible."""
    from embedlab.reporting import sweep_table
    from embedlab.reporting.sweep_data import COSTS, View
    from embedlab.runs import record_index

    try:
        if run_ids:
            folder, metrics = paths.runs_dir(output_dir), (*View().metrics, *COSTS)
            records = record_index.indexed_records(metrics, run_ids, folder)
            for path in sweep_table.write_sweep_table(name, records, run_ids=result.outcomes, folder=folder):
                out.print(f"  {paths.shown(path)}", highlight=False)
    except OSError as error:
        problem = f"cannot write the tables ({error.strerror or error})"
        err.print(f"[red]{problem}. Free some space, then run the same command again.[/red]", highlight=False)
        return False
    return True


def watch(
    once: Annotated[bool, typer.Option("--once", help="show the current state, then stop")] = False,
    output_dir: OutputDir = "",
) -> None:
    """Follow all runs in progress, also those of other commands. Ctrl-C stops watching, not the runs."""
    from embedlab.runs import attempts
    from embedlab.sweeps.progress_view import SweepView

    files: dict[Path, ProgressFile] = {}
    if once:
        _show_running(attempts.running(output_dir, certain=True), output_dir)
        return
    try:
        with SweepView("watch") as view:
            while running := attempts.running(output_dir):
                for run_id, report in attempts.reports(running, files):
                    view.show(run_id, report)
                time.sleep(WATCH_S)
    except KeyboardInterrupt:
        return
    if not files:
        out.print(_nothing_runs(output_dir), highlight=False, soft_wrap=True)


def _show_running(running: Sequence[Attempt], output_dir: str) -> None:
    """Print one line per run in progress to standard output."""
    from embedlab.runs import attempts
    from embedlab.runs.run_progress import LiveView

    for attempt in running:
        title = f"{attempt.run_id} on {attempt.host}" if attempt.host else attempt.run_id
        view, line = LiveView(title), f"{title} · starting"
        for _, report in attempts.reports([attempt], {}):
            line = view.line(report)
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if not running:
        out.print(_nothing_runs(output_dir), highlight=False, soft_wrap=True)


def _nothing_runs(output_dir: str) -> str:
    """Say where runs were looked for: those of another machine without a shared disk are not there."""
    return f"no runs in progress on this disk ({paths.runs_dir(output_dir)} of {socket.gethostname()})"


def logs(
    run_id: Annotated[str, typer.Argument(help="a run id, or its beginning")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="keep printing until the run ends")] = False,
    output_dir: OutputDir = "",
) -> None:
    """Print the log of a run's last attempt, and how it ended."""
    from embedlab.runs import attempts
    from embedlab.sweeps import planning

    attempt = attempts.latest(run_id, output_dir)
    for line in attempts.log_lines(attempt, follow):
        typer.echo(terminal(line))
    run_folder = attempt.folder.parents[1]
    for name in ("record.json", "executed.ipynb"):
        for folder in (run_folder, attempt.folder):
            if (folder / name).exists():
                out.print(f"  {paths.shown(folder / name)}", highlight=False)
    if cause := planning.last_failure(run_folder):
        err.print(f"[red]last failure: {escape(cause)}[/red]")


def cancel(
    run_id: Annotated[str, typer.Argument(help="a run id, its beginning, or `all`")], output_dir: OutputDir = ""
) -> None:
    """Stop a run in progress. What it wrote so far is kept and marked as cancelled."""
    from embedlab.runs import attempts

    running = attempts.running(output_dir, certain=True)
    matches = [item for item in running if run_id == "all" or item.run_id.startswith(run_id)]
    if not run_id or not matches:  # every run id begins with the empty text
        remedy = "`embedlab watch` lists the runs in progress. Call it on the machine that has them on its disk"
        problem = f"{_nothing_runs(output_dir)} that begin with {run_id!r}"
        raise ParameterError(problem, remedy=remedy, field=run_id)
    for attempt in matches:
        attempt.cancel()
        out.print(f"asked {attempt.run_id} to stop", highlight=False)
