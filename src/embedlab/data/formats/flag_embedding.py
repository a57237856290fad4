"""FlagEmbedding (BGE): one JSON line per query, `{"query": "…", "pos": ["…"], "neg": ["…"]}`.

`pos_scores` and `neg_scores`, a teacher's scores, are not read; `prompt` becomes metadata.
"""

from __future__ import annotations

from pathlib import Path

from embedlab.data import textio
from embedlab.data.formats.base import Contents, Export, Format, Source, list_of_texts, write_json_lines
from embedlab.data.textio import Row

SCORES = ("pos_scores", "neg_scores")


def _matches(source: Source) -> bool:
    return {"query", "pos"} <= source.columns and source.suffix in (".jsonl", ".json", ".parquet")


def _read(source: Source) -> Contents:
    scored = [name for name in SCORES if any(row.values.get(name) for row in source.rows)]
    notes = (f"{' and '.join(scored)} not read",) if scored else ()
    return Contents([_row(row, source.path) for row in source.rows], notes=notes)


def _row(row: Row, path: Path) -> Row:
    values = {key: value for key, value in row.values.items() if key not in ("pos", "neg", *SCORES)}
    if "pos" not in row.values:
        raise textio.error_at(row, "pos", path, "'pos' is missing", 'Write "pos": ["…"], the documents that answer.')
    # Some public data sets hold a text where the documentation asks for a list.
    row = row._replace(
        values={**row.values, **{key: [row.values[key]] for key in ("pos", "neg") if _is_text(row, key)}}
    )
    positives, negatives = (list_of_texts(row, key, path) for key in ("pos", "neg"))
    if not positives:
        raise textio.error_at(row, "pos", path, "'pos' is empty", "Add a document that answers, or remove the line.")
    return row._replace(values={**values, "positive": positives, "negatives": negatives})


def _is_text(row: Row, key: str) -> bool:
    return isinstance(row.values.get(key), str)


def _write(export: Export, path: Path) -> list[str]:
    records = [
        {
            "query": example.query,
            "pos": [positive.text for positive in example.positives],
            "neg": [negative.text for negative in example.negatives],
        }
        for example in export.examples
    ]
    write_json_lines(records, path, "FlagEmbedding")
    return []


NAMES = {"positive": "pos", "negatives": "neg"}
FORMAT = Format("flagembedding", "FlagEmbedding", _matches, _read, _write, frozenset({"negatives"}), NAMES)
