"""`parallel:FILE?languages=de-en`: your own translations as a task of search across languages.

The file is a table with one column per language, a translation memory (TMX 1.4) or a gettext PO file. The pairs of
languages and what is relevant are those of `translations`.

| column | meaning |
|---|---|
| en, de, pt_br, … | the text in this language: a code of two or three letters, perhaps with a region; may be empty |
| id | of the term; the row number if absent |
| parent | id of a broader term, for `de-de` |
| group | terms of the same group stay in the same split |
| split | train, dev or test; without this column, splits are made by groups |

Other columns become metadata.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from embedlab.data import pair_rows, po_files, textio
from embedlab.data.dataset import Dataset
from embedlab.data.splits import SHARES, group_split
from embedlab.data.textio import Row
from embedlab.data.translations import Term, dataset, parse_languages, term_groups, with_splits
from embedlab.errors import DataError

RESERVED = ("id", "parent", "group", "split")
MORE_TERMS = "Add terms. In a table, a column 'split' lets you choose the splits yourself."

_LANGUAGE = re.compile(r"[a-z]{2,3}(_[a-z0-9]{2,8})*")
_XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def load(location: str, *, name: str, languages: str = "") -> Dataset:
    """Read a file of translations.

    Args:
        location: the file: CSV, TSV, JSONL, JSON, Parquet, Excel, TMX or PO.
        name: the dataset's name.
        languages: `QUERIES-DOCUMENTS`, such as `de-en` or `all-en`; empty if the file has two languages, which are
            then taken in the order of the file.

    Raises:
        DataError: the file is missing or malformed, or does not have these languages; names file, line and field.
    """
    path = textio.location_path(location)
    terms = read(path)
    available = list(dict.fromkeys(language for term in terms for language in term.names))
    if len(available) < 2:
        problem = f"the file has {len(available)} languages: {', '.join(available) or 'none'}"
        raise DataError(problem, remedy="Name one column per language, for example de and en.", file=path)
    if not languages and len(available) > 2:
        problem = f"the file has the languages {', '.join(available)}"
        remedy = f"Choose queries and documents, for example ?languages={available[1]}-{available[0]}."
        raise DataError(problem, remedy=remedy, file=path, field="languages")
    with textio.naming(path):
        pair = parse_languages(languages or "-".join(available), available)
        return dataset(_split(terms), pair, name=name)


def source_fingerprint(location: str) -> str:
    """Hash the file.

    Args:
        location: the file.

    Returns:
        16 hex digits.
    """
    return textio.fingerprint([textio.find_file(textio.location_path(location))])


def read(path: Path) -> list[Term]:
    """Read the terms of a file; a split is empty if the file names none.

    Raises:
        DataError: see `load`.
    """
    suffix = textio.format_of(path)
    if suffix == ".tmx":
        terms = list(_tmx_terms(path))
    elif suffix == ".po":
        terms = list(_po_terms(path))
    else:
        rows = textio.read_rows(path)
        terms = [_from_row(row, path) for row in rows]
    if not terms:
        raise DataError("the file has no translations", remedy="Add at least one.", file=path)
    twice = [key for key, count in Counter(term.id for term in terms).items() if count > 1]
    if twice:
        raise DataError(
            f"the id '{twice[0]}' occurs twice", remedy="Give every term its own id.", file=path, field="id"
        )
    unsplit = [term.id for term in terms if not term.split]
    if 0 < len(unsplit) < len(terms):
        problem, remedy = (
            f"the term '{unsplit[0]}' has no split, but others have one",
            "Fill it in, or remove the column.",
        )
        raise DataError(problem, remedy=remedy, file=path, field="split")
    return terms


def _split(terms: list[Term]) -> list[Term]:
    if terms[0].split:
        return terms
    sizes = {split: round(SHARES[split] * len(terms)) for split in ("test", "dev")}
    return with_splits(terms, group_split(term_groups(terms), sizes, remedy=MORE_TERMS))


def _from_row(row: Row, path: Path) -> Term:
    values = {_column(str(column)): value for column, value in row.values.items()}
    if len(values) < len(row.values):
        remedy = "Remove or rename one of them."
        raise textio.error_at(row, "", path, "two columns have the same name", remedy)
    row = row._replace(values=values)
    languages = [column for column in values if _LANGUAGE.fullmatch(column) and column not in RESERVED]
    names = {
        language: textio.text_of(row, language, path) for language in languages if not textio.is_empty(values[language])
    }
    present = {column for column in RESERVED if not textio.is_empty(values.get(column))}
    return Term(
        id=textio.id_of(row, "id", path) if "id" in present else str(row.line),
        names=names,
        parent=textio.id_of(row, "parent", path) if "parent" in present else "",
        split=pair_rows.split_of(row, path),
        group=textio.name_of(row, "group", path) if "group" in present else "",
        fields=textio.metadata_of(row, (*RESERVED, *languages)),
    )


def _column(name: str) -> str:
    """A column name in lower case; a language such as `pt-BR` is written with an underscore."""
    key = name.strip().lower()
    return key.replace("-", "_") if _LANGUAGE.fullmatch(key.replace("-", "_")) else key


def _tmx_terms(path: Path) -> Iterator[Term]:
    file = textio.find_file(path)
    try:
        for number, (_, element) in enumerate(_units(file), start=1):
            names: dict[str, str] = {}
            for variant in element.iter("tuv"):
                language = _column(variant.get(_XML_LANGUAGE) or variant.get("lang") or "")
                segment = variant.find("seg")
                text = "".join(segment.itertext()).strip() if segment is not None else ""
                if text and _LANGUAGE.fullmatch(language):
                    names.setdefault(language, text)
            key = element.get("tuid") or str(number)
            element.clear()  # a translation memory may be larger than the memory
            yield Term(key, names)
    except ElementTree.ParseError as error:
        remedy = "Save it as TMX 1.4 in UTF-8."
        raise DataError(f"this is not a translation memory: {error}", remedy=remedy, file=path) from error


def _units(file: Path) -> Iterator[tuple[str, Any]]:
    return ((event, element) for event, element in ElementTree.iterparse(file) if element.tag == "tu")


def _po_terms(path: Path) -> Iterator[Term]:
    """The messages of a PO file: English, and the language that the header names."""
    language = _column(po_files.language(path))
    for number, message in enumerate(po_files.messages(path), start=1):
        if message.translation:
            yield Term(
                message.context or str(message.line or number), {"en": message.source, language: message.translation}
            )
