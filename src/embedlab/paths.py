"""Every path of the project, built here and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """The folder that holds notebooks/, experiments/ and results/.

    `EMBEDLAB_HOME` wins; then the nearest parent of the working folder with a `notebooks` and an
    `experiments` folder; then the checkout this package was installed from.
    """
    if home := os.environ.get("EMBEDLAB_HOME"):
        return Path(home).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "experiments").is_dir():
            return folder
    return Path(__file__).resolve().parents[2]


def notebooks_dir() -> Path:
    return project_root() / "notebooks"


def experiments_dir() -> Path:
    return project_root() / "experiments"


def sweeps_dir() -> Path:
    return experiments_dir() / "sweeps"


def runs_csv() -> Path:
    return experiments_dir() / "runs.csv"


def metrics_csv() -> Path:
    return experiments_dir() / "metrics.csv"


def results_dir() -> Path:
    return project_root() / "results"


def runs_dir(output_dir: str = "") -> Path:
    """Where run folders live: `output_dir` when one is given, else results/runs."""
    return Path(output_dir).resolve() if output_dir else results_dir() / "runs"


def tables_dir(runs: Path | None = None) -> Path:
    """Where tables lie: beside results/runs, or with the `runs` that are kept elsewhere."""
    return results_dir() / "tables" if runs in (None, runs_dir()) else runs / "tables"


def figures_dir() -> Path:
    return results_dir() / "figures"


def benchmarks_dir() -> Path:
    return results_dir() / "benchmarks"


def index_dir() -> Path:
    """Where deployed versions of indexes live."""
    return results_dir() / "index"


def executed_notebooks_dir() -> Path:
    return results_dir() / "notebooks"


def cache_dir() -> Path:
    """Embeddings and other things that can be computed again; `EMBEDLAB_CACHE` moves it."""
    return Path(os.environ.get("EMBEDLAB_CACHE", project_root() / ".cache"))


def shown(path: Path) -> str:
    """A path as people read it: from the project's root where it lies inside."""
    root = project_root()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
