"""Read many records quickly, through a small database in the cache folder.

Parsing and checking a record with a hundred metric rows takes milliseconds; ten thousand records take most of a minute.
The index stores their checked content by metric, and a table reads only the rows that it shows. It follows the files
(inode, size, time of change). It is only a cache: you can delete it at any time, and without it the records are read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from embedlab import paths
from embedlab.io import confined
from embedlab.runs import records
from embedlab.runs.records import MetricRow, Record

logger = logging.getLogger(__name__)

BATCH = 200  # records per transaction: a killed first reading keeps what it has read
WAIT_S = 30.0  # for another process that writes to the index
FIELDS = tuple(MetricRow.model_fields)  # a row is stored as the list of their values
SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (run_id TEXT PRIMARY KEY, stamp TEXT, head TEXT);
CREATE TABLE IF NOT EXISTS rows (run_id TEXT, metric TEXT, rows TEXT, PRIMARY KEY (run_id, metric));
"""


def indexed_records(
    metrics: Collection[str], run_ids: Collection[str] | None = None, folder: Path | None = None
) -> Iterator[Record]:
    """Committed records in order of their id, one at a time, with only the rows of these metrics.

    Damaged records are renamed with a warning. Runs that a forced rerun has replaced do not count.

    Args:
        metrics: e.g. ("ndcg@10", "recall@10").
        run_ids: only these runs; all when not given.
        folder: where runs are kept; results/runs when not given.

    Raises:
        OtherSchema: a record of an older or newer format.
    """
    folder = folder or paths.runs_dir()
    stamps = dict(_stamps(folder, run_ids))
    last = ""
    try:
        with closing(_open(folder)) as index:
            _follow(index, folder, stamps)
            for record in _read(index, stamps, metrics):
                yield record
                last = record.run_id
    except (sqlite3.Error, OSError) as error:
        logger.warning("cannot use the index of records (%s), reading every record instead", error)
        if type(error) is sqlite3.DatabaseError:  # the file is damaged, not only locked
            _index_file(folder).unlink(missing_ok=True)
        yield from _thin((name for name in sorted(stamps) if name > last), folder, metrics)


def _stamps(folder: Path, run_ids: Collection[str] | None) -> Iterator[tuple[str, str]]:
    """(run id, stamp of its record file) of every run that has a record; the stamp changes with the file."""
    checked_ids = [confined(folder, run_id, field="run").name for run_id in run_ids or ()]
    names = (path.name for path in folder.iterdir()) if run_ids is None and folder.is_dir() else checked_ids
    for name in names:
        try:
            status = (folder / name / records.FILE).stat()
        except OSError:
            continue
        if records.OLD not in name:
            yield name, f"{status.st_ino}-{status.st_size}-{status.st_ctime_ns}"


def _index_file(folder: Path) -> Path:
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return paths.cache_dir() / "records" / f"{name}-schema{records.SCHEMA}.sqlite"


def _open(folder: Path) -> sqlite3.Connection:
    path = _index_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    index = sqlite3.connect(path, timeout=WAIT_S)
    index.executescript(SCHEMA)
    return index


def _follow(index: sqlite3.Connection, folder: Path, stamps: dict[str, str]) -> None:
    """Read records that are new or changed; removed ones stay in the index and are never asked for."""
    indexed = dict(index.execute("SELECT run_id, stamp FROM runs"))
    new = sorted(name for name, stamp in stamps.items() if indexed.get(name) != stamp)
    for start in range(0, len(new), BATCH):
        with index:
            for name in new[start : start + BATCH]:
                if record := records.read_or_quarantine(folder / name):
                    _store(index, record, stamps[name])


def _store(index: sqlite3.Connection, record: Record, stamp: str) -> None:
    content = record.content()
    by_metric: dict[str, list[list[Any]]] = {}
    for row in content.pop("metrics"):
        by_metric.setdefault(row["metric"], []).append([row[name] for name in FIELDS])
    index.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (record.run_id, stamp, json.dumps(content)))
    index.execute("DELETE FROM rows WHERE run_id = ?", (record.run_id,))
    rows = [(record.run_id, metric, json.dumps(rows)) for metric, rows in by_metric.items()]
    index.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)


def _read(index: sqlite3.Connection, stamps: dict[str, str], metrics: Collection[str]) -> Iterator[Record]:
    heads = index.execute("SELECT run_id, stamp, head FROM runs ORDER BY run_id")
    query = f"SELECT rows FROM rows WHERE run_id = ? AND metric IN ({', '.join('?' * len(metrics))})"
    for run_id, stamp, head in heads:
        if stamps.get(run_id) == stamp:
            rows = [row for (text,) in index.execute(query, (run_id, *metrics)) for row in json.loads(text)]
            metrics_of_run = [dict(zip(FIELDS, row, strict=True)) for row in rows]
            yield Record.model_validate({**json.loads(head), "metrics": metrics_of_run})


def _thin(run_ids: Iterable[str], folder: Path, metrics: Collection[str]) -> Iterator[Record]:
    for run_id in run_ids:
        if record := records.read_or_quarantine(folder / run_id):
            yield record.model_copy(update={"metrics": [row for row in record.metrics if row.metric in metrics]})
