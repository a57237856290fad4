"""Embed and search corpora that are too large for one machine: Parquet files on any storage, Dask workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from embedlab.cli.console import ALARM, FAILED, err, out
from embedlab.cli.options import number, output_file
from embedlab.errors import ParameterError
from embedlab.models.load import BASE_MODEL

if TYPE_CHECKING:
    from embedlab.deploy.parts import Plan
    from embedlab.deploy.shards import Pool
    from embedlab.deploy.space import ModelEncoder
    from embedlab.deploy.storage import Storage

RECALL_QUERIES = 200  # documents that stand in for queries
PRELOADED = ("sentence_transformers", "pyarrow.parquet", "embedlab.deploy.search_shards", __name__)

app = typer.Typer(no_args_is_help=True, help=__doc__)

Target = Annotated[str, typer.Argument(help="folder or URL of the vectors")]
ModelName = Annotated[str, typer.Option("--model", help="folder or hub name")]
Workers = Annotated[
    int, typer.Option(help="processes on this machine: one per GPU or core", callback=number(at_least=1))
]
Scheduler = Annotated[str, typer.Option(help="address of a Dask scheduler whose workers do the work instead")]


@app.command()
def embed(
    source: Annotated[str, typer.Argument(help="folder or URL with *.parquet files, one document per row")],
    target: Target,
    model: ModelName = BASE_MODEL,
    workers: Workers = 1,
    scheduler: Scheduler = "",
    id_column: Annotated[str, typer.Option(help="column with the ids")] = "id",
    text_column: Annotated[str, typer.Option(help="column with the texts")] = "text",
    rows: Annotated[int, typer.Option(help="documents per piece of work", callback=number(at_least=1))] = 100_000,
) -> None:
    """Encode every document once. If interrupted, run it again to continue. Exits with 1 if a piece failed."""
    from embedlab.deploy.pieces import Columns
    from embedlab.deploy.shards import embed_shards
    from embedlab.deploy.storage import Storage

    documents, folder = Storage.at(source, field="source"), Storage.at(target, field="target")
    encoder = make_encoder(model)
    with _pool(workers, scheduler) as pool:
        columns = Columns(id_column, text_column)
        report = embed_shards(
            documents, folder, model, encoder, pool, make_encoder=make_worker_encoder, columns=columns, rows=rows
        )
    out.print(f"{report}; space {encoder.space.fingerprint}", highlight=False)
    for piece, error in report.failures.items():
        err.print(f"[red]{escape(f'{piece.file}, row groups {piece.first} to {piece.last}: {error}')}[/red]")
    if report.failures:
        raise typer.Exit(FAILED)


@app.command()
def search(
    target: Target,
    query: Annotated[str, typer.Option(help="one query")] = "",
    queries: Annotated[str, typer.Option(help="file with a column query, and optionally id")] = "",
    model: Annotated[str, typer.Option("--model", help="default: the model of the vectors")] = "",
    k: Annotated[int, typer.Option("-k", "--k", help="number of documents", callback=number(at_least=1))] = 10,
    output: Annotated[str, typer.Option(help="Parquet file for the rankings; a source of hard negatives")] = "",
    indexed: Annotated[bool, typer.Option("--index", help="through the index instead of exactly")] = False,
    workers: Workers = 1,
    scheduler: Scheduler = "",
) -> None:
    """Find the nearest documents of queries, exactly or through the index."""
    from embedlab.deploy.index_shards import read_shard_index, search_shard_index
    from embedlab.deploy.parts import all_parts
    from embedlab.deploy.search_shards import named, search_shards
    from embedlab.search.ranking_file import write_ranking

    if bool(query.strip()) == bool(queries):
        raise ParameterError("expected either --query or --queries", remedy="Give exactly one", field="--query")
    output_file(Path(output) if output else None, "--output")
    texts = _read_queries(Path(queries)) if queries else {"query": query}
    folder, plan, encoder = _open(target, model)
    with _pool(workers, scheduler) as pool:
        vectors, parts = encoder.encode_queries(list(texts.values())), all_parts(folder, plan)
        if indexed:
            top = search_shard_index(read_shard_index(folder, parts), parts, vectors, k, pool)
        else:
            top = search_shards(folder, plan, vectors, k, pool)
    ranking = named(top, list(texts), parts)
    if output:
        write_ranking(ranking, Path(output))
        out.print(f"{len(texts):,} queries in {output}", highlight=False)
        return
    table = Table("query", "score", "document")
    for row, name in enumerate(texts.values()):
        for document, score in zip(ranking.doc_ids[row], ranking.scores[row], strict=True):
            if document is not None:
                table.add_row(escape(name), f"{score:.3f}", escape(document))
    out.print(table)


@app.command()
def index(
    target: Target,
    model: Annotated[str, typer.Option("--model", help="default: the model of the vectors")] = "",
    lists: Annotated[int, typer.Option(help="inverted lists; 0 takes 4 √N", callback=number(at_least=0))] = 0,
    code_bytes: Annotated[int, typer.Option(help="bytes per document in the index", callback=number(at_least=1))] = 48,
    merged: Annotated[bool, typer.Option("--merged", help="one file of lists for one server; needs a disk")] = False,
    queries: Annotated[str, typer.Option(help="file with a column query, to measure recall; default: documents")] = "",
    k: Annotated[int, typer.Option("-k", "--k", help="depth of the recall", callback=number(at_least=1))] = 10,
    workers: Workers = 1,
    scheduler: Scheduler = "",
) -> None:
    """Build an IVF-PQ index on disk and measure its recall against exact search."""
    from embedlab.deploy.index_shards import build_shard_index, measure_recall
    from embedlab.deploy.indexes import IndexSpec
    from embedlab.deploy.parts import all_parts, sample_vectors
    from embedlab.deploy.search_shards import search_shards

    folder, plan, encoder = _open(target, model)
    parts, spec = all_parts(folder, plan), IndexSpec(kind="ivfpq", lists=lists, code_bytes=code_bytes)
    texts = list(_read_queries(Path(queries)).values()) if queries else []
    with _pool(workers, scheduler) as pool:
        built = build_shard_index(folder, plan, parts, spec, pool, merged=merged)
        total = sum(shard.piece.rows for shard in parts)
        out.print(f"{total:,} documents, {built.bytes / total:.0f} bytes each, {len(built.files)} files")
        if folder.local is None:
            out.print("Recall is not measured: scoring candidates again needs a local folder.")
            return
        vectors = encoder.encode_queries(texts) if texts else sample_vectors(parts, RECALL_QUERIES)
        exact = search_shards(folder, plan, vectors, k, pool)
        built = measure_recall(built, parts, vectors, exact, pool)
    for row in built.recall:
        out.print(f"nprobe {row.nprobe}: recall@{k} {row.recall:.3f}, {row.ms:.1f} ms per query", highlight=False)


@app.command()
def status(
    target: Target,
    verify: Annotated[
        bool, typer.Option("--verify", help="also compare all checksums, which reads every file")
    ] = False,
) -> None:
    """Show what is finished. Exits with 1 if a piece is missing or damaged."""
    from embedlab.deploy.parts import MANIFEST, Part, finished

    is_whole = True
    for folder, plan in _plans(target):
        manifests = [finished(folder, piece, plan.space) for piece in plan.pieces]
        parts = [Part(folder, p, m) for p, m in zip(plan.pieces, manifests, strict=True) if m]
        damaged = [shard for shard in parts if verify and shard.damage()]
        for shard in damaged:
            folder.remove(shard.piece.key + MANIFEST)  # so that the next `embed` does it again
        rows = sum(shard.piece.rows for shard in parts) - sum(shard.piece.rows for shard in damaged)
        total = sum(piece.rows for piece in plan.pieces)
        name = f"{plan.space.fingerprint} ({plan.model})"
        out.print(f"{name}: {rows:,} of {total:,} documents, {len(damaged)} pieces damaged", highlight=False)
        is_whole &= rows == total
    if not is_whole:
        raise typer.Exit(ALARM)


def make_encoder(model: str, device: str | None = None) -> ModelEncoder:
    """Open a model for encoding."""
    from embedlab.deploy.space import ModelEncoder
    from embedlab.models.load import open_model

    return ModelEncoder(open_model(model, device=device))


def make_worker_encoder(model: str) -> ModelEncoder:
    """Load a model in a worker, on the GPU of that worker."""
    from embedlab.sweeps.pools import worker_device

    return make_encoder(model, worker_device())


@contextmanager
def _pool(workers: int, scheduler: str) -> Iterator[Pool]:
    from embedlab.sweeps.pools import worker_pool

    with worker_pool(workers, scheduler or None, preload=PRELOADED) as pool:
        yield pool


def _plans(target: str) -> list[tuple[Storage, Plan]]:
    """Return the folder and the plan of every vector space in a target."""
    from embedlab.deploy.parts import read_plan
    from embedlab.deploy.storage import Storage

    root = Storage.at(target, field="target")
    folders = [root.within(name) for name in root.folders()]
    plans = [(folder, read_plan(folder)) for folder in folders]
    if not plans:
        remedy = "Embed documents there first: embedlab deploy shards embed"
        raise ParameterError(f"{target} has no vectors", remedy=remedy, field="target")
    return plans


def _open(target: str, model: str) -> tuple[Storage, Plan, ModelEncoder]:
    """Return the folder, the plan and the encoder of one vector space."""
    from embedlab.deploy.parts import read_plan
    from embedlab.deploy.space import require_same
    from embedlab.deploy.storage import Storage

    if model:
        encoder = make_encoder(model)
        folder = Storage.at(target, field="target").within(encoder.space.fingerprint)
        return folder, read_plan(folder), encoder
    plans = _plans(target)
    if len(plans) > 1:
        names = ", ".join(plan.model for _, plan in plans)
        raise ParameterError(f"{target} has vectors of {names}", remedy="Choose one with --model", field="--model")
    (folder, plan) = plans[0]
    encoder = make_encoder(plan.model)
    require_same(plan.space, encoder.space, action="searching these shards")
    return folder, plan, encoder


def _read_queries(path: Path) -> dict[str, str]:
    from embedlab.deploy.shadow import read_query_log

    return dict(read_query_log(path).queries)
