"""Remove what drivers that were killed left on this machine: temporary folders, and attempts without a word."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from embedlab.runs import heartbeat
from embedlab.runs.causes import INFRASTRUCTURE
from embedlab.runs.run import FAILED, write_failure

PREFIX = "embedlab-"  # of all temporary folders
KEPT = ("driver.log",)  # from the scratch folder of an attempt


def clean(run_folder: Path) -> None:
    """Remove temporary folders of dead drivers, and note in the attempts at this run that their driver died.

    Only folders that a dead process of this machine claimed are touched, see `heartbeat.claim`.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/"):
        with suppress(OSError):
            if folder.stat().st_uid == os.getuid() and heartbeat.is_alive(folder) is False:
                shutil.rmtree(folder, ignore_errors=True)
    for scratch in run_folder.glob("attempts/*/scratch/"):
        if heartbeat.is_alive(scratch) is False:
            with suppress(OSError):
                _close(scratch.parent, run_folder.name)


def _close(attempt: Path, run_id: str) -> None:
    if not (attempt / FAILED).exists():
        write_failure(attempt, run_id, INFRASTRUCTURE, "The process that drove this run was killed.")
    for name in KEPT:
        if (attempt / "scratch" / name).exists():
            shutil.copy(attempt / "scratch" / name, attempt)
    shutil.rmtree(attempt / "scratch", ignore_errors=True)
