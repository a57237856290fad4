"""Runs without a record, and why they have none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from embedlab import paths
from embedlab.io import confined
from embedlab.runs import measured, records
from embedlab.runs.records import Record
from embedlab.runs.run import FAILED

COLUMNS = ("run_id", "attempts", "cause", "detail")
NOT_STARTED, UNKNOWN = "not started", "unknown: killed, or still running"


def failures(run_ids: Iterable[str] | None = None, folder: Path | None = None) -> pd.DataFrame:
    """Runs without a record: run_id, attempts (how many), cause and detail of the last attempt.

    Args:
        run_ids: the runs to check; every run folder when not given.
        folder: where runs are kept; results/runs when not given.
    """
    folder = folder or paths.runs_dir()
    names = sorted(set(run_ids)) if run_ids is not None else _run_folders(folder)
    folders = [confined(folder, run_id, field="run") for run_id in names]
    rows = [_failure(run_folder) for run_folder in folders if not (run_folder / records.FILE).is_file()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _run_folders(folder: Path) -> list[str]:
    folders = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in folders if records.OLD not in path.name and (path / "attempts").is_dir())


def _failure(run_folder: Path) -> dict[str, object]:
    attempts = sorted((run_folder / "attempts").glob("*/")) if run_folder.is_dir() else []
    cause, detail = _cause(attempts[-1]) if attempts else (NOT_STARTED, "")
    return {"run_id": run_folder.name, "attempts": len(attempts), "cause": cause, "detail": detail}


def _cause(attempt: Path) -> tuple[str, str]:
    """Cause and detail that an attempt wrote down."""
    try:
        content = json.loads((attempt / FAILED).read_text(encoding="utf-8"))
        return str(content["cause"]), str(content["detail"])
    except (OSError, ValueError, KeyError, TypeError):  # no file, or an incomplete one
        return UNKNOWN, ""


def incomplete_records(folder: Path | None = None, metric: str = "") -> Iterator[Record]:
    """What unfinished runs measured in their last attempt that measured anything; the run id names why it ended.

    Args:
        folder: where runs are kept; results/runs when not given.
        metric: only rows of this metric; all when empty.
    """
    folder = folder or paths.runs_dir()
    for run_folder in sorted(folder.glob("*/")):
        if (run_folder / records.FILE).exists() or records.OLD in run_folder.name:
            continue
        for attempt in sorted(run_folder.glob(f"attempts/*/{measured.FILE}"), reverse=True):
            if record := measured.read(attempt.parent):
                cause, _ = _cause(attempt.parent)
                rows = [row for row in record.metrics if metric in ("", row.metric)]
                yield record.model_copy(update={"run_id": f"{record.run_id} (incomplete: {cause})", "metrics": rows})
                break
