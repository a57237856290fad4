"""Load a dataset from a spec string such as `icd10cm:small` or `pairs:FILE`, and validate it."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qsl
from weakref import WeakValueDictionary

from embedlab.data import extra, textio
from embedlab.data.dataset import SPLITS, Dataset
from embedlab.data.formats.registry import BY_NAME, is_beir
from embedlab.data.leakage import guard
from embedlab.data.splits import cap_training, mark_seen, size_warnings
from embedlab.errors import DataError

# Scheme -> module of this package with load(location, *, name, **options) and source_fingerprint(location).
SCHEMES = {
    **{"icd10cm": "icd10cm", "pydocs": "pydocs", "beir": "beir", "pairs": "pairs", "clicks": "clicks", "hf": "hub"},
    **{"docs": "documents", "glossary": "glossary", "icd10multi": "icd10multi", "icd10ja": "icd10ja"},
    "parallel": "parallel",
}
BUILT_IN = ("icd10cm", "pydocs", "icd10multi", "icd10ja")  # always repaired; for your own data, you decide
# With 1,000 pairs of ICD-10-CM the gain of a fine-tune was established: +0.060 [+0.048, +0.071], log of 2026-11-21.
MIN_TRAIN_PAIRS = 1_000
CLOSE = 0.6  # similarity of two names that makes one a suggestion for the other, as in difflib
FREE_OPTIONS = ("chunk", "column", "language", "languages", "positive", "query")  # options of a spec that take any text

_log = logging.getLogger(__name__)
_in_use: WeakValueDictionary[str, Dataset] = (
    WeakValueDictionary()
)  # spec -> dataset, as long as something else holds it


@dataclass(frozen=True)
class Spec:
    """The parts of a spec string `scheme[:location][?option=value&…]`.

    Options:
        `repair=true`: drop training examples that leak, and what else `load_dataset` repairs, instead of raising an
            error.
        `split_by=query`: hold out queries only, so splits may share documents. The built-in datasets do not take this.
        `divide=false`: keep dev and test whole in a dataset without a train split.
        `chunk=128+32`, `column=NAME`: see `documents`.
        `extra=glossary:FILE`, `extra=pairs:FILE` or `extra=icd10cm:full`: more pairs to train on, see
            `embedlab.data.extra`.
        `language=en`: of the labels of a SKOS glossary.
        `languages=de-en`: queries and documents of a file of translations, see `translations`.
        `format=NAME`: read a file of pairs in this format instead of the one that its content shows.
        `query=COLUMN`, `positive=COLUMN`: the columns of a file of pairs, if they have other names.
    """

    scheme: str
    location: str = ""
    options: dict[str, str] = field(default_factory=dict)

    @property
    def module(self) -> ModuleType:
        """The module that reads this scheme."""
        return importlib.import_module(f"embedlab.data.{SCHEMES[self.scheme]}")


def load_dataset(
    spec: str,
    *,
    max_examples: int | None = None,
    repair: bool = False,
    training: bool = True,
    queries: bool = True,
) -> Dataset:
    """Load a dataset, validate it and check it for leakage.

    Args:
        spec: `icd10cm[:size[:split]]`, `icd10multi:QUERIES-DOCUMENTS[:size]`, `icd10ja[:size]`, `pydocs`,
            `beir:FOLDER`, `pairs:FILE`, `clicks:FILE`, `docs:FOLDER`, `parallel:FILE` or `hf:NAME[:CONFIG]`, with
            options as in `Spec`.
        max_examples: maximum number of training queries, drawn as a seeded sample. Triplets and graded pairs are
            reduced by the same factor.
        repair: drop training examples that leak, and log them, instead of raising an error; also accept judgements of
            unknown documents (see `beir`) and drop hard negatives that are positives (see `pairs`). The built-in
            datasets are always repaired.
        training: whether train and dev are needed. If so, a dataset with only a test split is divided; if not, all of
            it is test. The option `divide` of the spec has priority.
        queries: whether queries are needed; if not, documents alone are a dataset.

    Returns:
        The dataset. Dev and test queries have the field `seen`: "seen" if one of their relevant texts is a positive in
        training, otherwise "unseen".

    Raises:
        DataError: the spec is unknown, the data is malformed (names file, line and field), or there are no queries
            although they are needed.
        LeakageError: training examples reveal held-out queries.
        ParameterError: `max_examples` is below 1.
    """
    parsed = parse_spec(spec)
    options = dict(parsed.options)
    drop_leaks = options.pop("repair", "") == "true" or repair or parsed.scheme in BUILT_IN
    extra_pairs = options.pop("extra", "")
    divide = options.pop("divide", str(training).lower()) == "true"
    dataset = _load(parsed, spec, options, repair=drop_leaks, divide=divide)
    built_in = parsed.scheme in BUILT_IN
    dataset = guard(
        dataset,
        drop_leaks=drop_leaks,
        file=parsed.location or None,
        expected=built_in,
        needs_training=training,
        can_share="split_by" in _taken_by(parsed),
    )
    for warning in [] if built_in else [*size_warnings(dataset), *own_document_notices(dataset)]:
        _log.warning("%s: %s", spec, warning)
    if queries and not any(dataset.qrels.values()) and not dataset.graded_pairs:
        raise _without_queries(dataset, parsed)
    if advice := few_pairs_advice(len(dataset.pairs("train"))):
        _log.warning("%s: %s", spec, advice)
    if max_examples is not None:
        dataset = cap_training(dataset, max_examples)
    if extra_pairs:
        dataset = _with_extra(dataset, extra_pairs)
    dataset = mark_seen(dataset)
    if training:  # without it, the test split may be another one
        _in_use[spec] = dataset
    return dataset


def _with_extra(dataset: Dataset, spec: str) -> Dataset:
    """Add the pairs of a file, or the training pairs of another dataset."""
    if extra.is_file(spec):
        return extra.add(dataset, spec)
    return extra.add_dataset(dataset, load_dataset(spec))


def dataset_in_use(spec: str) -> Dataset | None:
    """Return the dataset that was last loaded from a spec for training; None if nobody holds it any more."""
    return _in_use.get(spec)


def _load(parsed: Spec, name: str, options: dict[str, str], **switches: bool) -> Dataset:
    """Load with the options of the spec, and those switches that the loader has."""
    taken_switches = {switch: on for switch, on in switches.items() if switch in _taken_by(parsed)}
    dataset: Dataset = parsed.module.load(parsed.location, name=name, **options, **taken_switches)
    return dataset


def _taken_by(parsed: Spec) -> Collection[str]:
    """The names of the options and switches that the loader of a spec has."""
    return inspect.signature(parsed.module.load).parameters


def _without_queries(dataset: Dataset, parsed: Spec) -> DataError:
    """The error for documents without queries where a model is to be trained or compared."""
    spec = f"{parsed.scheme}:{parsed.location}"
    problem = f"{len(dataset.corpus):,} documents and no queries: without queries, nothing can be trained or measured"
    remedy = f"Let a language model write some: embedlab synthesise '{spec}' pairs.jsonl; then use pairs:pairs.jsonl. "
    remedy += f"Or write some yourself and judge their answers: embedlab label next '{spec}' --queries FILE."
    return DataError(problem, remedy=remedy, file=parsed.location, field="dataset")


def own_document_notices(dataset: Dataset) -> list[str]:
    """Say how many queries are in the corpus under their own id; empty if there are none."""
    counts = {split: len(dataset.own_documents(split)) for split in SPLITS}
    if not any(counts.values()):
        return []
    splits = ", ".join(f"{count} {split}" for split, count in counts.items() if count)
    return [
        f"{splits} queries have a document with the same id in the corpus. It is left out of the query's results, as "
        "in BEIR and mteb, unless it is judged relevant."
    ]


def source_fingerprint(spec: str) -> str:
    """Hash the files behind a spec, without parsing them.

    Args:
        spec: as for `load_dataset`.

    Returns:
        16 hex digits.

    Raises:
        DataError: the spec is unknown or a file is missing.
    """
    parsed = parse_spec(spec)
    fingerprint = str(parsed.module.source_fingerprint(parsed.location))
    if "extra" not in parsed.options:
        return fingerprint
    more = parsed.options["extra"]
    joined = f"{fingerprint} {extra.source_fingerprint(more) if extra.is_file(more) else source_fingerprint(more)}"
    return hashlib.sha256(joined.encode()).hexdigest()[: textio.FINGERPRINT_LENGTH]


def parse_spec(spec: str) -> Spec:
    """Parse a spec string.

    Args:
        spec: as for `load_dataset`.

    Raises:
        DataError: the scheme or an option is unknown; suggests the closest valid name.
    """
    scheme, _, _ = spec.partition("?")[0].partition(":")
    address, query = _without_options(spec)
    location = address.removeprefix(scheme).removeprefix(":")
    if scheme not in SCHEMES:
        usual = f"{_suggestion(scheme, SCHEMES)} For your own data, write pairs:FILE, beir:FOLDER or docs:FOLDER."
        remedy = _path_remedy(spec) or usual
        raise DataError(f"unknown dataset '{spec}'", remedy=remedy, field="dataset")
    parsed = Spec(scheme, location, _options(query))
    if not location and scheme not in BUILT_IN:
        remedy = f"Write {scheme}:NAME." if scheme == "hf" else f"Write {scheme}:PATH."
        raise DataError(f"'{spec}' does not say what to load", remedy=remedy, field="dataset")
    _check_options(parsed)
    return parsed


def _options(query: str) -> dict[str, str]:
    """The options of a spec. As in a file name, a plus is a plus."""
    pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"the option '{twice}' is given twice", remedy="Keep one of the two.", field="dataset")
    return dict(pairs)


def _path_remedy(spec: str) -> str:
    """What to write for the path of a file or folder that has no scheme in front; empty if there is no such path."""
    path = Path(spec)
    if not spec or not textio.path_exists(path):
        return ""
    if not path.expanduser().is_dir():
        return f"Write pairs:{spec} for a table of queries and documents that answer them."
    return f"Write beir:{spec}." if is_beir(path) else f"Write docs:{spec} for a folder of documents."


def _without_options(spec: str) -> tuple[str, str]:
    """The spec without its options, and the options. A file name may contain question marks."""
    address, _, query = spec.rpartition("?")
    if not address:
        return spec, ""
    location = spec.partition(":")[2]
    if location and textio.path_exists(Path(location)):
        return spec, ""
    file, mark, first = address.partition(":")[2].partition("?")
    if mark and "=" in first and textio.path_exists(Path(file)) and not textio.path_exists(Path(f"{file}?{first}")):
        remedy = f"Write ?{first}&{query}."
        raise DataError("two question marks: options are separated by &", remedy=remedy, field="dataset")
    return address, query


def _check_options(parsed: Spec) -> None:
    parameters = _taken_by(parsed)
    choices = {"split_by": ("document", "query"), "divide": ("true", "false"), "format": tuple(BY_NAME)}
    allowed: dict[str, tuple[str, ...]] = {"repair": ("true", "false")}
    allowed |= {option: values for option, values in choices.items() if option in parameters}
    free = ["extra", *(name for name in FREE_OPTIONS if name in parameters)]
    for option, value in parsed.options.items():
        if option in free and value:
            continue
        if option not in allowed:
            remedy = _suggestion(option, [*allowed, *free])
            if parsed.scheme not in BUILT_IN:
                remedy += " If the question mark belongs to the name, check the path: there is no such file."
            raise DataError(f"{parsed.scheme} has no option '{option}'", remedy=remedy, field="dataset")
        if value not in allowed[option]:
            problem = f"{option} must be {' or '.join(allowed[option])}, got '{value}'"
            closest = difflib.get_close_matches(value.lower(), allowed[option], n=1, cutoff=0)[0]
            raise DataError(problem, remedy=f"Write {option}={closest}.", field="dataset")


def _suggestion(name: str, valid: Iterable[str]) -> str:
    similarity = {other: difflib.SequenceMatcher(None, name.lower(), other).ratio() for other in valid}
    closest = max(similarity, key=lambda other: similarity[other])  # of equal ones, the one declared first
    return f"Did you mean '{closest}'?" if similarity[closest] >= CLOSE else f"Use one of {', '.join(similarity)}."


def few_pairs_advice(pairs: int) -> str:
    """Advice for datasets with fewer than `MIN_TRAIN_PAIRS` training pairs; empty if there are enough.

    Args:
        pairs: number of training pairs; 0 counts as enough, since such a dataset is not used for fine-tuning.
    """
    if not 0 < pairs < MIN_TRAIN_PAIRS:
        return ""
    return (
        f"{pairs:,} training pairs are few: fine-tuning usually takes {MIN_TRAIN_PAIRS:,} or more. Add pairs (real, "
        "clicks or synthetic), and trust a gain only if its interval excludes 0."
    )
