"""`embedlab migrate`: convert records of an older version of embedlab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedlab import paths
from embedlab.cli.console import FAILED, err, out
from embedlab.errors import ParameterError


def migrate(
    folder: Annotated[Path | None, typer.Argument(help="folder of runs; default results/runs")] = None,
) -> None:
    """Convert records of an older version. No value changes, and you can repeat the command."""
    from embedlab.runs.migrate import migrate_folder

    if folder and not folder.is_dir():
        raise ParameterError(f"there is no folder {folder}", remedy="Give a folder with records", field="folder")
    report = migrate_folder(folder or paths.runs_dir())
    out.print(f"converted {len(report.migrated)} records; {len(report.current)} were up to date", highlight=False)
    for reason in report.failed:
        err.print(reason, markup=False, highlight=False, soft_wrap=True)
    if report.failed:
        raise typer.Exit(FAILED)
