"""Extra training pairs for a dataset, from a glossary or another file: `icd10cm:small?extra=glossary:terms.csv`.

They are triplets, so they are neither documents of the corpus nor queries. The leakage guard drops those that reveal a
held-out query or its answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
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
    checked, report = leakage.repair(replace(dataset, triplets=extra))
    # The dataset itself has been checked: its own queries stay as they are.
    extended = replace(dataset, triplets=(*dataset.triplets, *checked.triplets))
    dropped = "" if report.clean else f", dropped {len(extra) - len(checked.triplets):,} that reveal held-out queries"
    example = "" if report.clean else f", for example: {report.leaks[0]}"
    logger.warning(
        "%s: added %s of %s pairs%s%s", spec, f"{len(checked.triplets):,}", f"{len(extra):,}", dropped, example
    )
    return extended


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
    order = [export.documents[key] for key in seeded_order(export.documents)]
    collected: list[Triplet] = []
    for number, example in enumerate(export.examples):
        if example.split in ("dev", "test"):
            continue
        right = {example.query, *(positive.text for positive in example.positives)}
        candidates = (order[(number + step) % len(order)] for step in range(len(order)))
        other = next((text for text in candidates if text not in right), None)
        negatives = [negative.text for negative in example.negatives] or ([] if other is None else [other])
        collected += [Triplet(example.query, p.text, n) for p in example.positives for n in negatives[:1]]
    return tuple(collected)


def source_fingerprint(spec: str) -> str:
    """Hash the files of a source: 16 hex digits."""
    _, path = _source(spec)
    return textio.fingerprint(registry.files_of(path))


def _source(spec: str) -> tuple[Callable[[Path], Collection], Path]:
    scheme, _, location = spec.partition(":")
    if scheme in SOURCES and location:
        path = glossary_files.path_of(location) if scheme == "glossary" else textio.location_path(location)
        return SOURCES[scheme], path
    remedy = "Write extra=glossary:FILE or extra=pairs:FILE."
    raise DataError(f"unknown source of extra pairs '{spec}'", remedy=remedy, field="dataset")
