"""Commands around sweeps: `embedlab sweep`, `watch`, `logs`, `cancel`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from embedlab import paths
from embedlab.cli.console import CANCELLED, FAILED, err, name_value_pairs, out
from embedlab.errors import ParameterError

WATCH_S = 0.5

OutputDir = Annotated[str, typer.Option(help="where runs are kept; results/runs when not given")]


def sweep(
    name: Annotated[str, typer.Argument(help="a stem in experiments/sweeps, or a YAML file")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the runs and stop")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="runs side by side; 0: one here, 64 in Slurm's queue")] = 0,
    engine: Annotated[str, typer.Option(help="local, dask or slurm")] = "local",
    scheduler: Annotated[str | None, typer.Option(help="address of a Dask scheduler, tcp://HOST:8786")] = None,
    shared_disk: Annotated[bool, typer.Option("--shared-disk", help="Dask workers see this project's folder")] = False,
    slurm: Annotated[list[str] | None, typer.Option(help="name=value for submitit, e.g. slurm_partition=gpu")] = None,
    only: Annotated[list[str] | None, typer.Option(help="name=value; run only those, as often as needed")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="run again what failed before")] = False,
    rerun_stale: Annotated[bool, typer.Option("--rerun-stale", help="run again what other code recorded")] = False,
    output_dir: OutputDir = "",
) -> None:
    """Execute every run of a sweep that is not finished; the same command again goes on where it ended.

    Exit code 0: all runs have a record; 1: some failed; 2: the sweep cannot be; 130: cancelled.
    """
    from embedlab.sweeps import driver
    from embedlab.sweeps.spec import find_sweep, read_sweep

    path = find_sweep(name)
    spec = read_sweep(path)
    options = driver.Options(output_dir, tuple(only or ()), retry_failed, rerun_stale)
    _show_plan(spec, path, options, jobs, listed=dry_run)
    if dry_run:
        return
    from embedlab.sweeps.engine import make_engine

    chosen = make_engine(
        engine, jobs=jobs, scheduler=scheduler, shared=shared_disk, options=name_value_pairs(slurm or [], "--slurm")
    )
    result = _drive(spec, path, chosen, options)
    _finish(spec, path, result, output_dir)


def _show_plan(spec: Any, path: Any, options: Any, jobs: int, *, listed: bool) -> None:
    """Check all stages; list the runs that can be named now, with an estimate."""
    from embedlab.sweeps import planning
    from embedlab.sweeps.spec import check_references, expand, varying

    expanded = [(stage, expand(stage, path)) for stage in spec.stages]
    check_references(spec, path)
    earlier: dict[str, Any] = {}
    for stage, runs in expanded:
        if not planning.can_plan_ahead(stage, earlier):
            out.print(f"{stage.name or path.stem}: {stage.size()} runs, named when what they build on is known")
            continue
        values = planning.follow(runs, earlier)
        planned = planning.only(planning.plan_values(stage, values, options.output_dir), options.only)
        if all(item.record for item in planned) and planning.is_built_on(stage, spec.stages):
            earlier[stage.name] = planning.best(stage, planned)
        if listed:
            out.print(_plan_table(stage.name or path.stem, planned, varying(values)))
        out.print(_summary(planned, max(jobs, 1)), highlight=False)


def _plan_table(title: str, planned: list[Any], varying: list[str]) -> Table:
    names = Column("run", no_wrap=True)  # an id that is cut short cannot be asked for
    table = Table(names, "values", Column("state", no_wrap=True), title=title, title_justify="left")
    for item in planned:
        values = ", ".join(f"{name} {item.plan.values[name]}" for name in (*varying, "seed"))
        table.add_row(item.plan.run_id, escape(values), escape(item.state()))
    return table


def _summary(planned: list[Any], jobs: int) -> str:
    from embedlab.sweeps import planning

    todo = sum(item.record is None for item in planned)
    older = sum(item.is_older for item in planned)
    note = f" ({older} by older code; --rerun-stale runs them again)" if older else ""
    text = f"{len(planned)} runs, {len(planned) - todo} finished{note}, {todo} to do"
    seconds = planning.estimate_s(planned, jobs) if todo else 0
    if seconds is None:
        return f"{text}; no such run is on record, so there is no estimate of the time"
    return f"{text}; about {seconds / 60:.0f} minutes, judged by past runs" if todo else text


def _drive(spec: Any, path: Any, engine: Any, options: Any) -> Any:
    import signal

    from embedlab.sweeps import driver
    from embedlab.sweeps.progress_view import SweepView

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        with SweepView(path.stem) as view:
            return driver.Driver(spec, engine, view, options, path).run()
    finally:
        engine.close()
        signal.signal(signal.SIGTERM, before)


def _finish(spec: Any, path: Any, result: Any, output_dir: str) -> None:
    from embedlab.sweeps import planning

    finished = [outcome.run_id for outcome in result.outcomes.values() if outcome.record]
    others = [item.run_id for item in planning.all_planned(spec, path, output_dir) if item.record]
    tabled = _write_tables(path.stem, result, list(dict.fromkeys([*finished, *others])), output_dir)
    for outcome in result.failed:
        err.print(f"[red]{outcome.run_id} failed: {outcome.cause}[/red]", highlight=False)
        err.print(escape(outcome.detail), highlight=False)
    skipped = sum(outcome.skipped for outcome in result.outcomes.values() if outcome.record)
    out.print(f"{len(finished)} runs finished ({skipped} of them before), {len(result.failed)} failed", highlight=False)
    if result.cancelled:
        raise typer.Exit(CANCELLED)
    if result.failed or not tabled:
        raise typer.Exit(FAILED)


def _write_tables(name: str, result: Any, finished: list[str], output_dir: str) -> bool:
    """Write the sweep's table; returns False where it could not be written, then the old one stays."""
    from embedlab.reporting import sweep_data, sweep_table
    from embedlab.runs import record_index

    try:
        if finished:
            runs, metrics = paths.runs_dir(output_dir), (*sweep_data.View().metrics, *sweep_data.COSTS)
            records = record_index.indexed_records(metrics, finished, runs)
            for path in sweep_table.write_sweep_table(name, records, run_ids=result.outcomes, folder=runs):
                out.print(f"  {paths.shown(path)}", highlight=False)
    except OSError as error:
        problem = (
            f"the tables cannot be written ({error.strerror or error}); make room, then run the same command again"
        )
        err.print(f"[red]{problem}[/red]", highlight=False)
        return False
    return True


def watch(
    once: Annotated[bool, typer.Option("--once", help="show what runs now and stop")] = False,
    output_dir: OutputDir = "",
) -> None:
    """Follow all runs that are on, whoever started them; Ctrl-C stops watching, not the runs."""
    from embedlab.runs import attempts
    from embedlab.sweeps.progress_view import SweepView

    files: dict[Any, Any] = {}
    try:
        with SweepView("watch") as view:
            while found := attempts.running(output_dir):
                for run_id, report in attempts.reports(found, files):
                    view.show(run_id, report)
                if once:
                    break
                time.sleep(WATCH_S)
    except KeyboardInterrupt:
        return
    if not files:
        out.print("nothing runs")


def logs(
    run_id: Annotated[str, typer.Argument(help="a run id, or its beginning")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the run ends")] = False,
    output_dir: OutputDir = "",
) -> None:
    """Print what the last attempt at a run wrote, and how it ended."""
    from embedlab.runs import attempts
    from embedlab.sweeps import planning

    attempt = attempts.latest(run_id, output_dir)
    for line in attempts.log_lines(attempt, follow):
        typer.echo(line)
    for name in ("record.json", "executed.ipynb"):
        for folder in (attempt.folder.parents[1], attempt.folder):
            if (folder / name).exists():
                out.print(f"  {paths.shown(folder / name)}", highlight=False)
    if cause := planning.last_failure(attempt.folder.parents[1]):
        err.print(f"[red]last failure: {escape(cause)}[/red]")


def cancel(
    run_id: Annotated[str, typer.Argument(help="a run id, its beginning, or `all`")], output_dir: OutputDir = ""
) -> None:
    """End a run that is on; its attempt is kept, marked as cancelled."""
    from embedlab.runs import attempts

    found = [item for item in attempts.running(output_dir) if run_id == "all" or item.run_id.startswith(run_id)]
    if not found:
        raise ParameterError("no such run is on", remedy="`embedlab watch` lists those that are", field=run_id)
    for attempt in found:
        attempt.cancel()
        out.print(f"asked {attempt.run_id} to end", highlight=False)
