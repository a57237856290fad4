"""Extra training pairs for a dataset, from a file or another dataset.

`icd10cm:small?extra=glossary:terms.csv` adds all pairs of a file. `icd10multi:all-en?extra=icd10cm:full` adds the
training pairs of another dataset.

They are triplets, so they are neither documents of the corpus nor queries. The leakage guard drops those that reveal a
held-out query or its answer. Another dataset has dev and test queries too: they stay held out from everything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from embedlab.data import glossary, glossary_files, leakage, textio
from embedlab.data.collection import Collection
from embedlab.data.dataset import Dataset, Triplet
from embedlab.data.formats import registry
from embedlab.data.formats.export import export_of
from embedlab.data.splits import seeded_order
from embedlab.errors import DataError

SOURCES: dict[str, Callable[[Path], Collection]] = {"glossary": glossary.collect, "pairs": registry.collect}

logger = logging.getLogger(__name__)


def add(dataset: Dataset, spec: str) -> Dataset:
    """Add the pairs of another source to the training triplets of a dataset, without those that leak.

    Args:
        dataset: the dataset; its dev and test splits decide what leaks.
        spec: `glossary:FILE` or `pairs:FILE`, of which the rows of dev and test are not used.

    Raises:
        DataError: the spec has another form, or the file is malformed.
    """
    extra = triplets(spec)
    return _added(dataset, extra, len(extra), spec)


def add_dataset(dataset: Dataset, other: Dataset) -> Dataset:
    """Add the training pairs of another dataset to the training triplets of a dataset.

    Both keep honest test splits: what reveals a dev or test query of the one is dropped from the training examples of
    the other, see `leakage.repair_against`.

    Args:
        dataset: the dataset.
        other: gives the pairs; its corpus and its queries are not added.

    Raises:
        DataError: the other dataset has no training pairs.
        LeakageError: nothing would be left to train on.
    """
    pairs = other.pairs("train")
    if not pairs:
        problem, remedy = f"{other.name} has no training pairs", "Name a dataset with a train split"
        raise DataError(problem, remedy=remedy, field="extra")
    rest, report = leakage.repair_against(dataset, other)
    if not report.clean:
        logger.warning("%s: dropped what reveals held-out queries of %s: %s", dataset.name, other.name, report)
        leaks = {kind: dataset.leaks.get(kind, 0) + count for kind, count in report.counts.items()}
        rest = replace(rest, leaks={kind: count for kind, count in leaks.items() if count})
    safe, _ = leakage.repair_against(replace(other, triplets=(), graded_pairs=()), dataset)
    documents = [other.corpus[key] for key in seeded_order(other.corpus)]
    extra: list[Triplet] = []
    for number, (query, document) in enumerate(safe.pairs("train")):
        right = {
            other.queries[query],
            *(other.corpus[key] for key in other.qrels["train"][query] if key in other.corpus),
        }
        extra += [
            Triplet(other.queries[query], other.corpus[document], text) for text in _another(documents, number, right)
        ]
    return _added(rest, tuple(extra), len(pairs), other.name)


def _added(dataset: Dataset, extra: tuple[Triplet, ...], total: int, spec: str) -> Dataset:
    """Add triplets that do not leak; `total` pairs were in the source."""
    # The dataset itself has been checked: its own queries stay as they are.
    checked, report = leakage.repair(replace(dataset, triplets=extra, qrels={**dataset.qrels, "train": {}}))
    extended = replace(dataset, triplets=(*dataset.triplets, *checked.triplets))
    added = len(checked.triplets)
    dropped = "" if added == total else f", dropped {total - added:,} that reveal held-out queries"
    example = "" if report.clean else f", for example: {report.leaks[0]}"
    logger.warning("%s: added %s of %s pairs%s%s", spec, f"{added:,}", f"{total:,}", dropped, example)
    return extended


def _another(texts: Sequence[str], number: int, right: Container[str]) -> list[str]:
    """A text that is not among the right ones, searched from a number on, as a list; empty if there is none."""
    candidates = (texts[(number + step) % len(texts)] for step in range(len(texts)))
    return list(islice((text for text in candidates if text not in right), 1))


def triplets(spec: str) -> tuple[Triplet, ...]:
    """Return the training pairs of a source, each with a hard negative.

    Args:
        spec: as for `add`. A pair without a hard negative gets another document of the file.

    Raises:
        DataError: as for `add`.
    """
    collect, path = _source(spec)
    export = export_of(collect(path))
    if not export.examples:
        remedy = "Use a file of queries and answers, or a glossary."
        raise DataError("this file has similarities and no queries", remedy=remedy, file=path, field="extra")
    documents = [export.documents[key] for key in seeded_order(export.documents)]
    collected: list[Triplet] = []
    for number, example in enumerate(export.examples):
        if example.split in ("dev", "test"):
            continue
        right = {example.query, *(positive.text for positive in example.positives)}
        negatives = [negative.text for negative in example.negatives[:1]] or _another(documents, number, right)
        collected += [Triplet(example.query, p.text, n) for p in example.positives for n in negatives]
    return tuple(collected)


def is_file(spec: str) -> bool:
    """Whether a spec names a file of pairs, all of which are added, and not a dataset with splits."""
    return spec.partition(":")[0] in SOURCES


def source_fingerprint(spec: str) -> str:
    """Hash the files of a source: 16 hex digits."""
    _, path = _source(spec)
    return textio.fingerprint(registry.files_of(path))


def _source(spec: str) -> tuple[Callable[[Path], Collection], Path]:
    scheme, _, location = spec.partition(":")
    if scheme in SOURCES and location:
        path = glossary_files.path_of(location) if scheme == "glossary" else textio.location_path(location)
        return SOURCES[scheme], path
    remedy = "Write extra=glossary:FILE, extra=pairs:FILE or extra=DATASET, such as extra=icd10cm:full."
    raise DataError(f"unknown source of extra pairs '{spec}'", remedy=remedy, field="dataset")
