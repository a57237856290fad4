"""Documents in Parquet files, cut into pieces: some row groups of one file, the unit of work and of a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedlab.deploy.storage import Storage
from embedlab.errors import DataError, StorageError
from embedlab.io import sha256_of_json
from embedlab.redaction import redacted

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

ROWS = 100_000  # of a piece, if the row groups are small enough
TAIL_BYTES = 1 << 16  # the end of a Parquet file identifies it: offsets and statistics of every column
REMEDY = "Write the documents again as Parquet, for example with pandas or polars"


@dataclass(frozen=True)
class Piece:
    """Consecutive row groups of one file.

    Attributes:
        file: name in the source folder.
        first, last: row groups, both included.
        start: number of the piece's first document, counted over all files in the order of their names.
        rows: number of documents.
        key: 16 hex digits that change with the content of the file and with the row groups.
    """

    file: str
    first: int
    last: int
    start: int
    rows: int
    key: str


@dataclass(frozen=True)
class Columns:
    """Names of the columns with the ids (texts or integers) and the texts of the documents."""

    ids: str = "id"
    texts: str = "text"


def find_pieces(source: Storage, columns: Columns, *, rows: int = ROWS) -> list[Piece]:
    """Cut every `.parquet` file of a folder into pieces. Only the ends of the files are read.

    Args:
        source: the folder.
        columns: must be in every file.
        rows: documents per piece; a larger row group is a piece of its own.

    Raises:
        DataError: there is no document, a file cannot be read, or a column is missing or has another type.
    """
    pieces: list[Piece] = []
    for name in source.names(".parquet"):
        start = pieces[-1].start + pieces[-1].rows if pieces else 0
        pieces += _pieces_of(source, name, columns, rows, start)
    if not pieces:
        remedy = "Give a folder with *.parquet files that have one document per row"
        raise DataError("there are no documents", remedy=remedy, file=source.path_of(""))
    return pieces


def _pieces_of(source: Storage, name: str, columns: Columns, rows: int, start: int) -> Iterator[Piece]:
    state = hashlib.sha256(source.read(name, tail=TAIL_BYTES) or b"").hexdigest()
    with parquet(source, name) as file:
        _check_columns(file.schema_arrow, columns, source.path_of(name))
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    for first, last in spans(sizes, rows):
        count = sum(sizes[first : last + 1])
        identity = [name, source.size(name), state, first, last, columns.ids, columns.texts]
        yield Piece(name, first, last, start, count, sha256_of_json(identity)[:16])
        start += count


def spans(sizes: list[int], rows: int) -> Iterator[tuple[int, int]]:
    """Group consecutive row groups up to a number of rows: first and last row group, both included.

    Args:
        sizes: rows of every row group.
        rows: the most rows of a span of more than one row group.

    >>> list(spans([40, 50, 20, 300, 10], 100))
    [(0, 1), (2, 2), (3, 3), (4, 4)]
    """
    first, count = 0, 0
    for number, size in enumerate(sizes):
        if count and count + size > rows:
            yield first, number - 1
            first, count = number, 0
        count += size
    if count:
        yield first, len(sizes) - 1


def read_piece(source: Storage, piece: Piece, columns: Columns, block: int) -> Iterator[tuple[list[str], list[str]]]:
    """Yield ids and texts of a piece in blocks.

    Raises:
        DataError: an id or a text is missing, or the file has changed or cannot be read.
    """
    row, path = 0, source.path_of(piece.file)
    with parquet(source, piece.file) as file:
        groups = range(piece.first, piece.last + 1)
        names = [columns.ids, columns.texts]
        for batch in file.iter_batches(block, row_groups=groups, columns=names, use_threads=False):
            ids, texts = (batch.column(batch.schema.get_field_index(name)) for name in names)
            _check_filled(ids, columns.ids, path, piece.start + row)
            _check_filled(texts, columns.texts, path, piece.start + row)
            row += len(batch)
            yield [str(name) for name in ids.to_pylist()], texts.to_pylist()
    if row != piece.rows:
        remedy = "Run the same command again: the new content is a new piece"
        raise DataError(f"expected {piece.rows} documents, got {row}", remedy=remedy, file=path)


@contextmanager
def parquet(source: Storage, name: str) -> Iterator[pyarrow.parquet.ParquetFile]:
    """Open a Parquet file.

    Raises:
        DataError: it is not one, or it is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with source.reading(name) as file, pyarrow.parquet.ParquetFile(file) as opened:
            yield opened
    except StorageError:
        raise
    except pyarrow.ArrowException as error:
        cause = redacted(str(error)).splitlines()[0][:200]
        raise DataError(f"cannot be read as Parquet ({cause})", remedy=REMEDY, file=source.path_of(name)) from None


def _check_columns(schema: pyarrow.Schema, columns: Columns, path: str) -> None:
    import pyarrow.types as types

    for name in (columns.ids, columns.texts):
        if name not in schema.names:
            remedy = f"The columns are {', '.join(schema.names)[:200]}; name them with --id-column and --text-column"
            raise DataError("the column is missing", remedy=remedy, file=path, field=name)
        kind = schema.field(name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        if not (is_text or (name == columns.ids and types.is_integer(kind))):
            raise DataError(f"expected text, got {kind}", remedy="Choose another column", file=path, field=name)


def _check_filled(values: pyarrow.Array, name: str, path: str, start: int) -> None:
    if values.null_count:
        row = start + values.is_null().to_pylist().index(True)
        remedy = "Fill it or leave the document out"
        raise DataError(f"document {row} has no value", remedy=remedy, file=path, field=name)
