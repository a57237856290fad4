"""The project's folders and files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_runs_folder: ContextVar[str] = ContextVar("runs_folder", default="")


def project_root() -> Path:
    """Return the project folder, which holds notebooks/, experiments/ and results/.

    It is `EMBEDLAB_HOME` if set, else the nearest parent of the current folder (or that folder itself) with a
    `notebooks` and an `experiments` folder, else the current folder.
    """
    if home := os.environ.get("EMBEDLAB_HOME"):
        return Path(home).resolve()
    current = Path.cwd().resolve()
    for folder in (current, *current.parents):
        if is_project(folder):
            return folder
    return current


def is_project(folder: Path) -> bool:
    """Return whether a folder has the two folders that mark a project."""
    return (folder / "notebooks").is_dir() and (folder / "experiments").is_dir()


def notebooks_dir() -> Path:
    """Folder of the notebooks."""
    return project_root() / "notebooks"


def experiments_dir() -> Path:
    """Folder of sweeps, and of the CSV files with all results."""
    return project_root() / "experiments"


def recipes_dir() -> Path:
    """Folder of the arena's recipes."""
    return experiments_dir() / "arena" / "recipes"


def recipe_file(name: str) -> Path:
    """File of a recipe, which has underscores where its name has hyphens."""
    return recipes_dir() / f"{name.replace('-', '_')}.py"


def sweeps_dir() -> Path:
    """Folder of the sweep files."""
    return experiments_dir() / "sweeps"


def results_dir() -> Path:
    """Folder of everything that runs produce."""
    return project_root() / "results"


def runs_dir(output_dir: str = "") -> Path:
    """Folder of the run folders: `output_dir` if given, else that of `runs_in`, else results/runs."""
    folder = output_dir or _runs_folder.get()
    return Path(folder).resolve() if folder else results_dir() / "runs"


@contextmanager
def runs_in(output_dir: str) -> Iterator[None]:
    """Read runs from another folder than results/runs during the block; with an empty text nothing changes."""
    token = _runs_folder.set(output_dir)
    try:
        yield
    finally:
        _runs_folder.reset(token)


def tables_dir() -> Path:
    """Where the committed tables are; only `make tables`, `embedlab headline` and `embedlab publish` write there."""
    return results_dir() / "tables"


def my_tables_dir(runs: Path | None = None) -> Path:
    """Where the tables of your own sweeps are, ignored by git; next to the runs where those are kept elsewhere."""
    return results_dir() / "mine" / "tables" if runs in (None, runs_dir()) else runs / "tables"


def figures_dir() -> Path:
    """Folder of the published figures."""
    return results_dir() / "figures"


def benchmarks_dir() -> Path:
    """Folder of the benchmark results."""
    return results_dir() / "benchmarks"


def index_dir() -> Path:
    """Folder of the deployed index versions."""
    return results_dir() / "index"


def executed_notebooks_dir() -> Path:
    """Folder of the published executed notebooks."""
    return results_dir() / "notebooks"


def cache_dir() -> Path:
    """Folder of files that can be computed again, such as embeddings: `EMBEDLAB_CACHE`, else .cache in the project."""
    return Path(os.environ.get("EMBEDLAB_CACHE", project_root() / ".cache"))


def shown(path: Path) -> str:
    """Return a path for messages and parameters: relative to the project if it is inside."""
    root = project_root()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
