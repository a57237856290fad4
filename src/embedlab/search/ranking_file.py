"""A ranking as a Parquet file: one row per query, with its documents and scores, best first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedlab.errors import DataError
from embedlab.io import atomic_path
from embedlab.search.exact import ABSENT, Ranking

COLUMNS = ("query", "documents", "scores")
ROWS = 8_192  # queries written at a time


def write_ranking(ranking: Ranking, path: Path) -> None:
    """Write a ranking; empty ranks are left out."""
    import pyarrow
    import pyarrow.parquet

    names = np.array(ranking.corpus_ids, dtype=object)
    kinds = (pyarrow.string(), pyarrow.list_(pyarrow.string()), pyarrow.list_(pyarrow.float32()))
    schema = pyarrow.schema(zip(COLUMNS, kinds, strict=True))
    with atomic_path(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(ranking.query_ids), ROWS):
            rows = slice(start, start + ROWS)
            filled_rows = [row[row != ABSENT] for row in ranking.indices[rows]]
            columns = {
                "query": list(ranking.query_ids[rows]),
                "documents": [names[row].tolist() for row in filled_rows],
                "scores": [scores[: len(row)] for scores, row in zip(ranking.scores[rows], filled_rows, strict=True)],
            }
            writer.write_table(pyarrow.table(columns, schema=schema))


def read_ranking(path: Path) -> Ranking:
    """Read what `write_ranking` wrote; it gives candidates for hard negatives (`as_candidates`).

    Raises:
        DataError: it is not such a file, or a row does not have as many scores as documents.
    """
    import pyarrow
    import pyarrow.parquet

    remedy = "Write it with `embedlab deploy shards search --output`"
    try:
        table = pyarrow.parquet.read_table(path, columns=list(COLUMNS)).combine_chunks()
    except (OSError, pyarrow.ArrowException) as error:
        cause = str(error).splitlines()[0][:200]
        raise DataError(f"cannot be read as a ranking ({cause})", remedy=remedy, file=path) from None
    queries, documents, scores = (table.column(name).combine_chunks() for name in COLUMNS)
    counts = documents.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    if (counts != scores.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)).any():
        raise DataError("a query has another number of scores than of documents", remedy=remedy, file=path)
    coded = documents.flatten().dictionary_encode()
    shape = (len(table), int(counts.max(initial=0)))
    indices, values = np.full(shape, ABSENT, dtype=np.int64), np.full(shape, -np.inf, dtype=np.float32)
    filled = np.arange(shape[1]) < counts[:, None]
    indices[filled] = coded.indices.to_numpy(zero_copy_only=False)
    values[filled] = scores.flatten().to_numpy(zero_copy_only=False)
    return Ranking(tuple(queries.to_pylist()), tuple(coded.dictionary.to_pylist()), indices, values)
