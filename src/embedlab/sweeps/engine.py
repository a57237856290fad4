"""An engine executes the runs of a sweep: on this machine, on a Dask cluster, or through Slurm.

An engine may execute a run more than once, for example after a lost worker. Its results still count once, because only
the first attempt can commit the record (see `records.commit`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from embedlab.errors import ParameterError
from embedlab.runs.execute import Outcome
from embedlab.sweeps.job import Job

KINDS = ("local", "dask", "slurm")


class Engine(Protocol):
    """What a sweep needs from an engine.

    Attributes:
        jobs: how many runs share this machine; 0 if they run elsewhere.
        gpus: number of GPUs that the runs share; None if unknown.
    """

    jobs: int
    gpus: int | None

    def submit(self, job: Job) -> None:
        """Queue a run."""
        ...

    def poll(self) -> Iterator[Outcome]:
        """Yield the runs that have ended since the last call."""
        ...

    def reports(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield (run id, progress report) of everything reported since the last call."""
        ...

    def cancel(self, run_id: str) -> None:
        """Stop a run, or remove it from the queue."""
        ...

    def close(self) -> None:
        """Release the engine's resources; cancel what still runs."""
        ...


def make_engine(
    kind: str,
    *,
    jobs: int = 0,
    scheduler: str | None = None,
    shared: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Engine:
    """Create the engine for `embedlab sweep --engine KIND`.

    Args:
        kind: "local", "dask" or "slurm".
        jobs: runs at a time on this machine (default 1), or in Slurm's queue (default 64).
        scheduler: address of the Dask scheduler.
        shared: whether Dask workers share a disk with this process.
        options: submitit's parameters for Slurm.

    Raises:
        ParameterError: an unknown kind, or options that belong to another kind.
        EmbedlabError: the packages of a cluster engine are not installed.
    """
    if kind not in KINDS:
        raise ParameterError(f"unknown engine {kind!r}", remedy=f"Choose one of {', '.join(KINDS)}", field="--engine")
    if (kind == "dask") != (scheduler is not None):
        problem = "--engine dask and --scheduler must be used together"
        raise ParameterError(problem, remedy="For example: --engine dask --scheduler tcp://HOST:8786")
    if kind == "dask":
        from embedlab.sweeps.dask import DaskEngine

        return DaskEngine(str(scheduler), shared=shared)
    if kind == "slurm":
        from embedlab.sweeps.slurm import SlurmEngine

        return SlurmEngine(jobs=jobs, options=options)
    from embedlab.runs.limits import visible_gpus
    from embedlab.sweeps.local import LocalEngine

    return LocalEngine(jobs or 1, gpus=visible_gpus())
