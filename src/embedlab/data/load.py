"""From a spec string to a validated dataset."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import ModuleType
from urllib.parse import parse_qsl

from embedlab.data.dataset import Dataset
from embedlab.data.leakage import guard
from embedlab.data.splits import cap_training, mark_seen
from embedlab.errors import DataError

# Scheme -> module of this package with load(location, *, name, **options) and source_fingerprint(location).
SCHEMES = {"icd10cm": "icd10cm", "pydocs": "pydocs", "beir": "beir", "pairs": "pairs", "clicks": "clicks", "hf": "hub"}
BUILT_IN = ("icd10cm", "pydocs")  # ours to repair; other people's data is theirs to decide on
# With 1,000 pairs of ICD-10-CM the gain of a fine-tune was established: +0.060 [+0.048, +0.071], log of 2026-11-21.
MIN_TRAIN_PAIRS = 1_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spec:
    """`scheme[:location][?option=value&…]` taken apart.

    Options: `repair=true` drops leaking training examples instead of refusing; `split_by=query`, where splits are not
    built in, says that documents may be shared by splits and only queries are held out.
    """

    scheme: str
    location: str = ""
    options: dict[str, str] = field(default_factory=dict)

    @property
    def module(self) -> ModuleType:
        """The module that reads this scheme."""
        return importlib.import_module(f"embedlab.data.{SCHEMES[self.scheme]}")


def load_dataset(spec: str, *, max_examples: int | None = None, repair: bool = False) -> Dataset:
    """Load, validate and guard a dataset.

    Args:
        spec: `icd10cm[:size[:split]]`, `pydocs`, `beir:FOLDER`, `pairs:FILE`, `clicks:FILE` or `hf:NAME[:CONFIG]`,
            with options as in `Spec`.
        max_examples: most training queries, as a seeded sample; triplets and graded pairs shrink by the same factor.
        repair: drop training examples that leak instead of refusing the data. The built-in datasets are always
            repaired; what was dropped is logged.

    Returns:
        The dataset; dev and test queries carry the field `seen` ("seen" or "unseen"), which says whether
        training shows one of their relevant texts.

    Raises:
        DataError: unknown spec or malformed data, with file, line and field.
        LeakageError: training data gives held-out queries away.
    """
    parsed = parse_spec(spec)
    options = dict(parsed.options)
    asked = options.pop("repair", "") == "true"
    mend = repair or asked or parsed.scheme in BUILT_IN
    dataset = parsed.module.load(parsed.location, name=spec, **options)
    dataset = guard(dataset, mend=mend, file=parsed.location or None)
    if advice := few_pairs_advice(len(dataset.pairs("train"))):
        _log.warning("%s: %s", spec, advice)
    if max_examples is not None:
        dataset = cap_training(dataset, max_examples)
    return mark_seen(dataset)


def source_fingerprint(spec: str) -> str:
    """16 hex characters that change when the bytes behind `spec` change; the data is not parsed."""
    parsed = parse_spec(spec)
    return parsed.module.source_fingerprint(parsed.location)


def parse_spec(spec: str) -> Spec:
    """Take a spec apart.

    Raises:
        DataError: unknown scheme or option, with the nearest valid name.
    """
    address, _, query = spec.partition("?")
    scheme, _, location = address.partition(":")
    if scheme not in SCHEMES:
        remedy = f"{_nearest(scheme, SCHEMES)} A file is read as pairs:FILE, a folder as beir:FOLDER."
        raise DataError(f"unknown dataset '{spec}'", remedy=remedy, field="dataset")
    parsed = Spec(scheme, location, dict(parse_qsl(query, keep_blank_values=True)))
    if not location and scheme not in BUILT_IN:
        raise DataError(f"'{spec}' names no place", remedy=f"Write {scheme}:WHERE.", field="dataset")
    _check_options(parsed)
    return parsed


def _check_options(parsed: Spec) -> None:
    known = {"repair": ("true", "false")}
    if "split_by" in inspect.signature(parsed.module.load).parameters:
        known["split_by"] = ("document", "query")
    for option, value in parsed.options.items():
        if option not in known:
            remedy = _nearest(option, known)
            raise DataError(f"{parsed.scheme} has no option '{option}'", remedy=remedy, field="dataset")
        if value not in known[option]:
            remedy = f"Write {option}={' or '.join(known[option])}."
            raise DataError(f"'{value}' is no value of {option}", remedy=remedy, field="dataset")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"Did you mean '{close[0]}'?" if close else f"Use one of {', '.join(known)}."


def few_pairs_advice(pairs: int) -> str:
    """What to do with fewer than `MIN_TRAIN_PAIRS` training pairs; empty when there are enough.

    Args:
        pairs: number of training pairs; 0 counts as enough, since such a dataset is not used for fine-tuning.
    """
    if not 0 < pairs < MIN_TRAIN_PAIRS:
        return ""
    return (
        f"{pairs:,} training pairs are few: fine-tuning usually takes {MIN_TRAIN_PAIRS:,} or more. Add pairs (real, "
        "clicks or synthetic), and trust a gain only if its interval excludes 0."
    )
