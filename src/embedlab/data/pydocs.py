"""`pydocs`: find a docstring's body by its summary line, in the installed scientific packages.

An out-of-domain probe for catastrophic forgetting. It is available on every machine and unrelated to the training
domain, so a large drop of a fine-tuned model shows what its gain has cost. All queries are in the test split.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter

from embedlab import paths
from embedlab.data import splits, text_analysis
from embedlab.data.dataset import Dataset
from embedlab.data.splits import seeded_order
from embedlab.data.text_analysis import without_symbols
from embedlab.data.textio import FINGERPRINT_LENGTH
from embedlab.errors import DataError
from embedlab.io import sha256_of, write_atomic

# Distribution name -> folders with well-documented public code. The list is fixed, so that the probe is the same on
# two machines with the same package versions.
PACKAGES = {
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "pandas": ("pandas",),
    "scikit-learn": ("sklearn",),
    "torch": ("torch/nn", "torch/optim", "torch/distributions"),
}
MAX_PAIRS = 2_000
MIN_SUMMARY_WORDS = 5
MIN_BODY_WORDS = 60  # a few sentences
MAX_BODY_WORDS = 250  # after that, docstrings are mostly parameter lists and examples

_SKIPPED_FOLDERS = {"tests", "testing", "_examples"}


class Docstring(NamedTuple):
    """The docstring of a public object: `summary` is its first line, `body` everything after the first blank line."""

    name: str
    package: str
    summary: str
    body: str


_KEPT = TypeAdapter(Annotated[list[Docstring], Field(min_length=1)])


def load(location: str, *, name: str) -> Dataset:
    """Read at most 2,000 docstrings, selected by the hash of their names.

    We leave out summaries that several docstrings share, since they do not identify a body, and bodies that repeat
    their summary.

    Args:
        location: must be empty.
        name: the dataset's name.

    Raises:
        DataError: `location` is not empty.
    """
    _require_no_location(location)
    docstrings = _selected()
    documents: dict[str, str] = {}  # body -> document id; inherited docstrings share a body
    for docstring in docstrings:
        documents.setdefault(docstring.body, f"{docstring.name}#body")
    answers = {docstring.name: documents[docstring.body] for docstring in docstrings}
    return Dataset(
        name=name,
        corpus={document: body for body, document in documents.items()},
        queries={docstring.name: docstring.summary for docstring in docstrings},
        qrels={"train": {}, "dev": {}, "test": {query: {document: 1} for query, document in answers.items()}},
        groups=answers,
        fields={docstring.name: {"package": docstring.package} for docstring in docstrings},
    )


def source_fingerprint(location: str) -> str:
    """Hash the names and versions of the packages that are read.

    Args:
        location: must be empty.

    Returns:
        16 hex digits.

    Raises:
        DataError: `location` is not empty.
    """
    _require_no_location(location)
    versions = [f"{package}=={importlib.metadata.version(package)}" for package in PACKAGES if _root(package)]
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:FINGERPRINT_LENGTH]


def _require_no_location(location: str) -> None:
    if location:
        problem = f"pydocs takes no location or size, got '{location}'"
        raise DataError(problem, remedy="Write pydocs.", field="dataset")


def _selected() -> list[Docstring]:
    """The docstrings of the dataset. Parsing the packages takes ten seconds, so the result stays in the cache."""
    code = [sha256_of(Path(str(module.__file__))) for module in (sys.modules[__name__], splits, text_analysis)]
    made_by = "\n".join([source_fingerprint(""), sys.version, *code])
    file = paths.cache_dir() / "pydocs" / f"{hashlib.sha256(made_by.encode()).hexdigest()[:FINGERPRINT_LENGTH]}.json"
    with contextlib.suppress(OSError, ValueError):  # none yet, or damaged
        return _KEPT.validate_json(file.read_bytes())
    docstrings = _select([docstring for package in PACKAGES for docstring in _docstrings(package)])
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
        write_atomic(file, json.dumps(docstrings))
    return docstrings


def _select(docstrings: list[Docstring]) -> list[Docstring]:
    count = Counter(without_symbols(docstring.summary) for docstring in docstrings)
    usable = {
        docstring.name: docstring
        for docstring in docstrings
        if count[without_symbols(docstring.summary)] == 1 and not _repeats_summary(docstring)
    }
    return [usable[key] for key in sorted(seeded_order(usable)[:MAX_PAIRS])]


def _repeats_summary(docstring: Docstring) -> bool:
    return without_symbols(docstring.summary) in without_symbols(docstring.body)


def _root(package: str) -> Path | None:
    """The folder that contains an installed package, without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(PACKAGES[package][0].partition("/")[0])
    return Path(spec.origin).parent.parent if spec is not None and spec.origin is not None else None


def _docstrings(package: str) -> Iterator[Docstring]:
    if (root := _root(package)) is None:
        return
    for path in sorted(path for folder in PACKAGES[package] for path in (root / folder).rglob("*.py")):
        module = path.relative_to(root).with_suffix("").parts
        if not _SKIPPED_FOLDERS & set(module):
            yield from _module_docstrings(path, ".".join(module), package)


def _module_docstrings(path: Path, module: str, package: str) -> Iterator[Docstring]:
    try:
        with warnings.catch_warnings(action="ignore"):  # some packages contain invalid escapes
            tree = ast.parse(path.read_bytes())
    except SyntaxError:  # templates and files for other Python versions
        return
    for name, node in _public(tree, module):
        summary, _, body = (ast.get_docstring(node) or "").partition("\n\n")
        body_words = body.split()[:MAX_BODY_WORDS]
        # A first paragraph of two lines is ordinary prose, not a summary.
        if "\n" not in summary and len(summary.split()) >= MIN_SUMMARY_WORDS and len(body_words) >= MIN_BODY_WORDS:
            yield Docstring(name, package, summary.strip(), " ".join(body_words))


def _public(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Qualified name and node of the classes, functions and methods without a leading underscore."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield f"{prefix}.{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from _public(child, f"{prefix}.{child.name}")
