"""Convert a file or folder from one format to another, and say what could not be kept."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedlab.data import textio
from embedlab.data.collection import Collection
from embedlab.data.formats import registry, table, trec
from embedlab.data.formats.base import Export, Format, Negative, Source, check_new
from embedlab.data.formats.export import export_of
from embedlab.errors import DataError

FEATURES = {
    "grades": "grades",
    "splits": "splits",
    "groups": "groups",
    "fields": "metadata",
    "negatives": "hard negatives",
}
RUN_DEPTH = 100  # documents of a run that are looked at


def convert(
    source: Path, target: Path, to: str = "", *, format_name: str = "", run: Path | None = None, negatives: int = 5
) -> list[str]:
    """Convert a file or folder.

    Args:
        source: the file or folder to read.
        target: the file or folder to write; it must not exist.
        to: name of the target's format; empty for a table, or BEIR if `target` has no suffix.
        format_name: name of the source's format; empty for the one that the content shows.
        run: TREC run over the source's ids. Its best documents that are not positives become hard negatives.
        negatives: hard negatives per query from the run.

    Returns:
        One line each: what was read, what was written, and what could not be kept.

    Raises:
        DataError: the source is malformed, or the target exists or cannot hold it.
    """
    check_new(target)
    _refuse_spec(source)
    if (ids := _convert_ids(source, target)) is not None:
        return ids
    writer = registry.named(to, "--to") if to else default_format(target)
    reader, contents = registry.read(source, format_name)
    collection = Collection.from_rows(
        contents.rows, source, documents=contents.documents, contradiction="Remove it, or remove the positive."
    )
    lines = [registry.description(reader, contents, collection)]
    export = export_of(collection)
    if run is not None:
        export, added = _with_run(export, run, negatives, collection.merged)
        lines.append(f"{run}: added {added:,} hard negatives")
    if export.similarities and "similarities" not in writer.holds:
        able = ", ".join(format_.name for format_ in registry.FORMATS if "similarities" in format_.holds)
        problem = f"{writer.title} cannot hold similarities of two texts"
        raise DataError(problem, remedy=f"Use --to with one of {able}.", file=target)
    lost = [*not_held(export, writer), *writer.write(export, target)]
    count = len(export.similarities) or len(export.examples)
    lines.append(f"wrote {target} as {writer.title}: {count:,} {'pairs' if export.similarities else 'queries'}")
    return lines + ([f"not kept: {', '.join(lost)}"] if lost else [])


def _refuse_spec(source: Path) -> None:
    """Raise an error for `pairs:FILE`, which all other commands take."""
    scheme, mark, path = str(source).partition(":")
    if scheme in ("pairs", "beir") and mark and not textio.path_exists(source):
        raise DataError("this is the spec of a dataset", remedy=f"Write the path alone: {path}.", file=source)


def default_format(target: Path) -> Format:
    """Return the format of a new file or folder whose format nobody named: a table, or BEIR without a suffix."""
    if target.suffix == ".qrels":
        return registry.named("trec")
    return table.PAIRS if target.suffix else registry.named("beir")


def not_held(export: Export, writer: Format) -> list[str]:
    """Return what the format cannot hold, in a few words each."""
    present = {
        "grades": export.graded,
        "splits": any(example.split for example in export.examples),
        "groups": any(example.group for example in export.examples),
        "fields": any(example.fields for example in export.examples),
        "negatives": any(example.negatives for example in export.examples),
    }
    lost = [name for feature, name in FEATURES.items() if present[feature] and feature not in writer.holds]
    named = {document.id for example in export.examples for document in example.documents("negatives" in writer.holds)}
    unnamed = len(export.documents) - len(named)
    return lost + ([f"{unnamed:,} documents of no query"] if unnamed and "documents" not in writer.holds else [])


def _with_run(export: Export, run: Path, count: int, merged: Mapping[str, Mapping[str, str]]) -> tuple[Export, int]:
    """The export with hard negatives from a run, and their number; `merged` are ids that the export no longer has."""
    queries, documents = merged.get("queries", {}), merged.get("documents", {})
    lines = trec.read(textio.find_file(run))
    if lines.kind != "run":
        raise DataError("this is not a TREC run", remedy="Write 'query Q0 document rank score tag'.", file=run, line=1)
    ranked: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in lines.rows:
        if row.values["rank"] <= RUN_DEPTH:
            query, document = row.values["query-id"], row.values["corpus-id"]
            ranked[queries.get(query, query)].append((row.values["rank"], documents.get(document, document)))
    unknown = Counter(document for best in ranked.values() for _, document in best if document not in export.documents)
    if unknown or not any(example.id in ranked for example in export.examples):
        first = next(iter(unknown), next(iter(ranked)))
        problem = f"'{first}' is not an id of the data that is converted"
        raise DataError(problem, remedy="Use the run of the same queries and documents.", file=run)
    examples = []
    for example in export.examples:
        own_ids = {document.id for document in example.documents()}
        best = dict.fromkeys(document for _, document in sorted(ranked.get(example.id, [])))
        new = [document for document in best if document not in own_ids][:count]
        added = tuple(Negative(document, export.documents[document]) for document in new)
        examples.append(replace(example, negatives=(*example.negatives, *added)))
    total = sum(len(new.negatives) - len(old.negatives) for new, old in zip(examples, export.examples, strict=True))
    return replace(export, examples=tuple(examples)), total


def _convert_ids(source: Path, target: Path) -> list[str] | None:
    """Convert judgements or a run, which have ids only, between TREC's format and tables; None for other files."""
    if source.is_dir():
        return None
    file = textio.find_file(source)
    kind = trec.kind_of(file) if textio.format_of(source) in (*trec.SUFFIXES, ".tsv") else ""
    if kind:
        records = [row.values for row in trec.read(file).rows]
        if kind == "qrels":
            records = [{**record, "score": int(record["score"])} for record in records]
    elif target.suffix in trec.SUFFIXES and (kind := _kind_of_table(source)):
        rows = [textio.rename_columns(row, {}, source) for row in textio.read_rows(source)]
        records = [_record(row, kind, source) for row in rows]
    else:
        return None
    if target.suffix in trec.SUFFIXES:
        trec.write(records, kind, target)
    else:
        table.write_records(records, target)
    name = {"qrels": "judgements", "run": "lines of a run"}[kind]
    return [f"read {len(records):,} {name}", f"wrote {target}"]


def _kind_of_table(source: Path) -> str:
    names = {str(name).strip().lower() for name in Source(source).columns}
    if not {"query-id", "corpus-id", "score"} <= names:
        return ""
    return "run" if "rank" in names else "qrels"


def _record(row: textio.Row, kind: str, path: Path) -> dict[str, Any]:
    """A record of a table as TREC needs it."""
    record: dict[str, Any] = {name: textio.id_of(row, name, path) for name in ("query-id", "corpus-id")}
    number = textio.number_of(row.values.get("score"))
    if number is None or (kind == "qrels" and not number.is_integer()):
        problem = f"the score must be a {'whole ' if kind == 'qrels' else ''}number, got {row.values.get('score')!r}"
        raise textio.error_at(row, "score", path, problem, "Correct it or remove the row.")
    record["score"] = int(number) if kind == "qrels" else number
    if kind == "run":
        rank = textio.number_of(row.values.get("rank"))
        if rank is None or not rank.is_integer():
            raise textio.error_at(row, "rank", path, "the rank must be a whole number", "Correct it or remove the row.")
        record |= {"rank": int(rank), "tag": str(row.values.get("tag") or "embedlab")}
    return record
