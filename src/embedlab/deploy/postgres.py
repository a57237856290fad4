"""Export a version to PostgreSQL with the extension pgvector, search it there, and take vectors back.

The table is named after the vector space, and the table `embedlab_spaces` states the space of every export. Vectors of
another model raise an error. An export is one transaction: until it is complete, the table before it stays.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.deploy.exported import Imported, Points, columns_of, import_points, name_of, no_vectors, rows_of
from embedlab.deploy.serve import Served
from embedlab.deploy.space import Encoder, Space, require_same
from embedlab.deploy.store import VectorStore
from embedlab.errors import DataError, EmbedlabError, ParameterError, StorageError
from embedlab.redaction import HIDDEN, redacted
from embedlab.search.exact import require_depth

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

SCHEMES = ("postgresql://", "postgres://")
SPACES = "embedlab_spaces"
BATCH = 1024  # points read at a time
TIMEOUT_S = 30  # for a connection
EXAMPLE = "postgresql://user@host:5432/database"


def is_postgres(target: str) -> bool:
    """Return whether a target is the address of a PostgreSQL server."""
    return target.lower().startswith(SCHEMES)


def shown_address(target: str) -> str:
    """Return an address without user and password, for messages.

    Args:
        target: such as `postgresql://user:password@host/database`.

    Raises:
        ParameterError: it is not a valid address; the message does not show it.
        EmbedlabError: psycopg is not installed.
    """
    parts = _parts(target)
    port = f":{parts['port']}" if "port" in parts else ""
    return redacted(f"postgresql://{parts.get('host', '')}{port}/{parts.get('dbname', '')}")


def export_postgres(
    served: Served, target: str, texts: Mapping[str, str], fields: Mapping[str, Mapping[str, str]] | None = None
) -> int:
    """Write every document of a version into a table, replacing one of the same space.

    Args:
        served: the version.
        target: the address of a database; libpq's variables such as `PGPASSWORD` are read.
        texts: document id -> text.
        fields: document id -> metadata, in the column `metadata` (jsonb).

    Returns:
        How many rows the table has.

    Raises:
        DataError: a document has no text or one that PostgreSQL cannot hold, or a metadata name is taken.
        StorageError: the database cannot be written, or has no pgvector.
        EmbedlabError: psycopg is not installed.
    """
    fields = fields or {}
    columns_of(served, texts, fields)
    for document in served.ids:
        _require_storable(document, texts[document], fields.get(document, {}))
    name = name_of(served.space)
    with _connected(target) as connection:
        _require_extension(connection, target)
        new, live = f"{name}_new", name  # the old one can be searched until the end
        columns = "(id text PRIMARY KEY, text text NOT NULL, metadata jsonb NOT NULL, vector vector({size}) NOT NULL)"
        connection.execute(_statement(f"CREATE TABLE {{table}} {columns}", table=new, size=served.space.dimension))
        _fill(connection, new, served, texts, fields)
        connection.execute(_statement("CREATE INDEX ON {table} USING gin (metadata jsonb_path_ops)", table=new))
        connection.execute(_statement("DROP TABLE IF EXISTS {table}", table=live))
        connection.execute(_statement("ALTER TABLE {table} RENAME TO {live}", table=new, live=live))
        _state_space(connection, served)
        return _count(connection, live)


def search_postgres(
    target: str, queries: np.ndarray, space: Space, k: int, *, where: Mapping[str, str | None] | None = None
) -> list[list[tuple[str, float]]]:
    """The k nearest documents of every query vector (Q, d), exactly, among those with the given metadata.

    Args:
        target: the address of a database.
        queries: unit vectors.
        space: that they lie in.
        k: documents per query.
        where: metadata name -> value; None for documents without that metadata.

    Returns:
        Per query (document id, cosine), best first.

    Raises:
        SpaceMismatch: the database holds no vectors of this space.
        StorageError: the database cannot be read, or what it states is damaged.
        ParameterError: `k` is below 1.
    """
    require_depth(k)
    conditions, values = _conditions(where or {})
    with _connected(target, read_only=True) as connection:
        table = _checked_table(connection, space, target)
        # An expression, because an HNSW or IVFFlat index would answer `vector <=> q`: roughly, and filtering too late.
        text = "SELECT id, 1 - (vector <=> %s::vector) AS cosine FROM {table}"
        statement = _statement(f"{text} {conditions} ORDER BY cosine DESC, id LIMIT %s", table=table)
        results = [connection.execute(statement, (_as_text(query), *values, k)).fetchall() for query in queries]
        return [[(str(document), float(cosine)) for document, cosine in rows] for rows in results]


def import_postgres(target: str, encoder: Encoder, store: VectorStore) -> Imported:
    """Take the vectors of a table into a store; see `exported.import_points`.

    Args:
        target: the address of a database.
        encoder: the model of the space.
        store: of the same space.

    Raises:
        SpaceMismatch: the database holds no vectors of this space, or vectors that this model does not give.
        StorageError: the database cannot be read, or it is damaged.
    """
    with _connected(target, read_only=True) as connection:
        table = _checked_table(connection, encoder.space, target)
        return import_points(partial(_points, connection, table), BATCH, encoder, store, shown_address(target))


def _points(connection: Connection, table: str, batch: int) -> Generator[Points, None, None]:
    """Yield the texts and vectors of all rows, without ever holding all of them."""
    with connection.cursor(name="points", binary=True) as cursor:
        cursor.execute(_statement("SELECT text, vector::real[] FROM {table}", table=table))
        while rows := cursor.fetchmany(batch):
            yield Points([text for text, _ in rows], np.array([vector for _, vector in rows], dtype=np.float32))


def _fill(
    connection: Connection,
    table: str,
    served: Served,
    texts: Mapping[str, str],
    fields: Mapping[str, Mapping[str, str]],
) -> None:
    from psycopg.types.json import Jsonb

    copying = _statement("COPY {table} (id, text, metadata, vector) FROM STDIN", table=table)
    with connection.cursor() as cursor, cursor.copy(copying) as copy:
        for ids, vectors in rows_of(served):
            for document, vector in zip(ids, vectors, strict=True):
                metadata = Jsonb(dict(fields.get(document, {})))
                copy.write_row((document, texts[document], metadata, _as_text(vector)))


def _state_space(connection: Connection, served: Served) -> None:
    from psycopg.types.json import Jsonb

    columns = "(name text PRIMARY KEY, space jsonb NOT NULL, version text NOT NULL)"
    connection.execute(_statement(f"CREATE TABLE IF NOT EXISTS {{table}} {columns}", table=SPACES))
    row = name_of(served.space), Jsonb(asdict(served.space)), served.manifest.version
    replacing = "ON CONFLICT (name) DO UPDATE SET space = excluded.space, version = excluded.version"
    connection.execute(_statement(f"INSERT INTO {{table}} VALUES (%s, %s, %s) {replacing}", table=SPACES), row)


def _checked_table(connection: Connection, space: Space, target: str) -> str:
    """Return the name of the table of a space after a comparison with the space that the database states."""
    name, stated = name_of(space), dict[str, Any]()
    if connection.execute("SELECT to_regclass(%s)", (SPACES,)).fetchone() != (None,):
        existing = "SELECT name, space FROM {table} WHERE to_regclass(quote_ident(name)) IS NOT NULL"
        stated = dict(connection.execute(_statement(existing, table=SPACES)).fetchall())
    if name not in stated:
        raise no_vectors(space, stated, shown_address(target))
    require_same(Space(**stated[name]), space, action="using this table")
    return name


def _require_extension(connection: Connection, target: str) -> None:
    """Create pgvector in this database unless it has it."""
    import psycopg

    if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
        return
    try:
        connection.execute("CREATE EXTENSION vector")
    except psycopg.Error as error:
        problem = f"the database has no extension vector ({_said(error, target)})"
        remedy = "Install pgvector on the server, then let its administrator run: CREATE EXTENSION vector"
        raise StorageError(problem, remedy=remedy, file=shown_address(target)) from None


def _require_storable(document: str, text: str, metadata: Mapping[str, str]) -> None:
    for value in (document, text, *metadata, *metadata.values()):
        if "\0" in value or not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            problem = f"document {document!r} has a character that PostgreSQL cannot hold: NUL or half of a pair"
            raise DataError(problem, remedy="Remove it from the data")


def _conditions(where: Mapping[str, str | None]) -> tuple[str, list[Any]]:
    """Return the conditions on the metadata with their values."""
    from psycopg.types.json import Jsonb

    tests, values = [], list[Any]()
    for name, value in where.items():
        tests.append("NOT metadata ? %s" if value is None else "metadata @> %s")
        values.append(name if value is None else Jsonb({name: value}))
    return ("WHERE " + " AND ".join(tests) if tests else ""), values


def _statement(text: str, *, size: int = 0, **names: str) -> Composed:
    """Return a statement with quoted names of tables; values are parameters, or `size`, a number."""
    from psycopg import sql

    identifiers = {key: sql.Identifier(name) for key, name in names.items()}
    return sql.SQL(text).format(size=sql.Literal(size), **identifiers)


def _count(connection: Connection, table: str) -> int:
    ((count,),) = connection.execute(_statement("SELECT count(*) FROM {table}", table=table)).fetchall()
    return int(count)


def _as_text(vector: np.ndarray) -> str:
    """Return a vector as pgvector reads it; float32 comes back without a change."""
    return json.dumps(vector.tolist())


@contextmanager
def _connected(target: str, *, read_only: bool = False) -> Iterator[Any]:
    """Open one transaction, which is committed at the end. Every failure is a StorageError without the password."""
    parts, address = _parts(target), shown_address(target)
    psycopg = _psycopg()
    try:
        # Poolers in front of a server often have no prepared statements.
        options = {"connect_timeout": str(TIMEOUT_S), **parts, "prepare_threshold": None}
        with psycopg.connect(**options) as connection:
            connection.read_only = read_only
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ if read_only else None
            yield connection
    except EmbedlabError:
        raise
    except Exception as error:  # of the server, or of what was read
        problem = f"PostgreSQL failed ({type(error).__name__}: {_said(error, target)})"
        raise StorageError(problem, remedy="Check the address and the rights", file=address) from None


def _said(error: Exception, target: str) -> str:
    """Return the message of an error in one line without passwords."""
    text = redacted(" ".join(str(error).split()))
    for name, value in _parts(target).items():
        if "password" in name and value:
            text = text.replace(value, HIDDEN)
    return text[:300]


def _parts(target: str) -> dict[str, str]:
    """Return the parts of an address as libpq reads them.

    A password with an unescaped @ or / would become part of the host or port, and so of messages. Such an address
    raises an error.

    Raises:
        ParameterError: it is not a valid address; the message does not show it.
    """
    psycopg = _psycopg()
    remedy = f"Write it like {EXAMPLE}, with @ / : as %40 %2F %3A in a password, or put that into PGPASSWORD"
    wrong = ParameterError("the address of the database is not valid", remedy=remedy, field="target")
    try:
        parts = {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(target).items()}
    except (psycopg.Error, ValueError):
        raise wrong from None
    ports = parts.get("port", "").replace(",", "")
    texts = parts.get("host", ""), parts.get("dbname", "")
    if not is_postgres(target) or (ports and not ports.isdigit()) or any("@" in text for text in texts):
        raise wrong
    return parts


def _psycopg() -> Any:
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError:
        remedy = "Install it: pip install 'embedlab[deploy]'"
        raise EmbedlabError("psycopg is not installed", remedy=remedy) from None
    return psycopg
