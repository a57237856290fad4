"""Many records, quickly: what was read and proved once is kept in a small database among the caches.

A record with some hundred metric rows takes milliseconds to parse and to prove; ten thousand take most of a minute,
every time. The index keeps their proved content by metric, so that a table reads the few rows it shows. It follows
the files (inode, size, time of change) and is only a cache: remove it at any time, and what it cannot do is read from
the records themselves.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from embedlab import paths
from embedlab.runs import records
from embedlab.runs.records import MetricRow, Record

logger = logging.getLogger(__name__)

BATCH = 200  # records read before they are kept: a killed first reading is not lost
WAIT_S = 30.0  # for another process that is keeping records
FIELDS = tuple(MetricRow.model_fields)  # a row is kept as their values alone
SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (run_id TEXT PRIMARY KEY, stamp TEXT, head TEXT);
CREATE TABLE IF NOT EXISTS rows (run_id TEXT, metric TEXT, rows TEXT, PRIMARY KEY (run_id, metric));
"""


def indexed_records(
    metrics: Collection[str], run_ids: Collection[str] | None = None, folder: Path | None = None
) -> Iterator[Record]:
    """Committed records in order of their id, one at a time, with nothing but the rows of these metrics.

    Damaged records are set aside with a message; runs that a forced rerun has replaced do not count.

    Args:
        metrics: e.g. ("ndcg@10", "recall@10").
        run_ids: only these runs; all when not given.
        folder: where runs are kept; results/runs when not given.
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
        logger.warning("the index of records cannot be used (%s); every record is read", error)
        if type(error) is sqlite3.DatabaseError:  # its file is damaged, not merely locked
            _index_file(folder).unlink(missing_ok=True)
        yield from _thin((name for name in sorted(stamps) if name > last), folder, metrics)


def _stamps(folder: Path, run_ids: Collection[str] | None) -> Iterator[tuple[str, str]]:
    """(run id, what changes when its record is another file) of every run that has a record."""
    names = (path.name for path in folder.iterdir()) if run_ids is None and folder.is_dir() else run_ids or ()
    for name in names:
        try:
            found = (folder / name / records.FILE).stat()
        except OSError:
            continue
        if records.OLD not in name:
            yield name, f"{found.st_ino}-{found.st_size}-{found.st_ctime_ns}"


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
    """Read what is new or another than the index has; what is gone stays in it and is not asked for."""
    known = dict(index.execute("SELECT run_id, stamp FROM runs"))
    new = sorted(name for name, stamp in stamps.items() if known.get(name) != stamp)
    for start in range(0, len(new), BATCH):
        with index:
            for name in new[start : start + BATCH]:
                if record := records.read_or_quarantine(folder / name):
                    _keep(index, record, stamps[name])


def _keep(index: sqlite3.Connection, record: Record, stamp: str) -> None:
    content = record.content()
    by_metric: dict[str, list[list]] = {}
    for row in content.pop("metrics"):
        by_metric.setdefault(row["metric"], []).append([row[name] for name in FIELDS])
    index.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (record.run_id, stamp, json.dumps(content)))
    index.execute("DELETE FROM rows WHERE run_id = ?", (record.run_id,))
    rows = [(record.run_id, metric, json.dumps(rows)) for metric, rows in by_metric.items()]
    index.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)


def _read(index: sqlite3.Connection, stamps: dict[str, str], metrics: Collection[str]) -> Iterator[Record]:
    heads = index.execute("SELECT run_id, stamp, head FROM runs ORDER BY run_id")
    wanted = f"SELECT rows FROM rows WHERE run_id = ? AND metric IN ({', '.join('?' * len(metrics))})"
    for run_id, stamp, head in heads:
        if stamps.get(run_id) == stamp:
            rows = [row for (text,) in index.execute(wanted, (run_id, *metrics)) for row in json.loads(text)]
            yield Record(**json.loads(head), metrics=[dict(zip(FIELDS, row, strict=True)) for row in rows])


def _thin(run_ids: Iterable[str], folder: Path, metrics: Collection[str]) -> Iterator[Record]:
    for run_id in run_ids:
        if record := records.read_or_quarantine(folder / run_id):
            yield record.model_copy(update={"metrics": [row for row in record.metrics if row.metric in metrics]})
