"""Summary line -> body of the docstrings in the installed scientific packages: an out-of-domain probe.

It exists on every machine and has nothing in common with a training domain: a tuned model that loses much here
has paid for its gain. All of it is test.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from embedlab.data.dataset import Dataset
from embedlab.data.overlap import normalise
from embedlab.data.splits import seeded_order
from embedlab.data.textio import FINGERPRINT_LENGTH
from embedlab.errors import DataError

# Distribution name -> folders with well-documented public code. A list, not whatever is installed: the probe
# must be the same one on two machines with the same versions.
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
MAX_BODY_WORDS = 250  # beyond, bodies are mostly parameter lists and examples

_SKIPPED_FOLDERS = {"tests", "testing", "_examples"}


class Docstring(NamedTuple):
    """A public object's docstring, taken apart: the first line, and everything after the blank line below it."""

    name: str
    package: str
    summary: str
    body: str


def load(location: str, *, name: str) -> Dataset:
    """At most 2,000 docstrings, chosen by the hash of their names.

    Summaries shared by several docstrings are left out, as nobody could tell which body they ask for, and so are
    bodies that repeat their summary.
    """
    _require_bare(location)
    chosen = _choose([found for package in PACKAGES for found in _docstrings(package)])
    documents: dict[str, str] = {}  # body -> document id; inherited docstrings share a body
    for found in chosen:
        documents.setdefault(found.body, f"{found.name}#body")
    return Dataset(
        name=name,
        corpus={document: body for body, document in documents.items()},
        queries={found.name: found.summary for found in chosen},
        qrels={"train": {}, "dev": {}, "test": {found.name: {documents[found.body]: 1} for found in chosen}},
        groups={found.name: documents[found.body] for found in chosen},
        fields={found.name: {"package": found.package} for found in chosen},
    )


def source_fingerprint(location: str) -> str:
    """Hash of the packages and versions that are scanned."""
    _require_bare(location)
    versions = [f"{package}=={importlib.metadata.version(package)}" for package in PACKAGES if _root(package)]
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:FINGERPRINT_LENGTH]


def _require_bare(location: str) -> None:
    if location:
        raise DataError(f"pydocs has no option '{location}'", remedy="Write pydocs.", field="dataset")


def _choose(docstrings: list[Docstring]) -> list[Docstring]:
    asked = Counter(normalise(found.summary) for found in docstrings)
    usable = {found.name: found for found in docstrings if asked[normalise(found.summary)] == 1 and _tells_more(found)}
    return [usable[key] for key in sorted(seeded_order(usable)[:MAX_PAIRS])]


def _tells_more(found: Docstring) -> bool:
    return normalise(found.summary) not in normalise(found.body)


def _root(package: str) -> Path | None:
    """The folder an installed package lies in, found without importing it; None when it is not installed."""
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
        with warnings.catch_warnings(action="ignore"):  # other people's invalid escapes
            tree = ast.parse(path.read_bytes())
    except SyntaxError:  # templates and files for other Python versions
        return
    for name, node in _public(tree, module):
        summary, _, body = (ast.get_docstring(node) or "").partition("\n\n")
        kept = body.split()[:MAX_BODY_WORDS]
        # A summary of two lines is prose that runs on, not a title.
        if "\n" not in summary and len(summary.split()) >= MIN_SUMMARY_WORDS and len(kept) >= MIN_BODY_WORDS:
            yield Docstring(name, package, summary.strip(), " ".join(kept))


def _public(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Qualified name and node of the classes, functions and methods without a leading underscore."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield f"{prefix}.{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from _public(child, f"{prefix}.{child.name}")
