"""Find training examples that leak held-out queries, and drop them.

Texts are compared in normal form (see `overlap`) and queries also by their sets of words. A held-out query may equal a
document of the corpus, which every retriever sees, as long as no training example uses that document.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

from embedlab.data.dataset import Dataset
from embedlab.data.overlap import near_duplicates
from embedlab.data.splits import drop_queries
from embedlab.data.text_analysis import normalise
from embedlab.data.text_keys import text_key
from embedlab.errors import LeakageError

IDENTICAL, NEAR_IDENTICAL = "identical query", "near-identical query"
TRAINING_TEXT, SHARED_DOCUMENT, SHARED_GROUP = "held-out query as training text", "shared document", "shared group"
KINDS = (IDENTICAL, NEAR_IDENTICAL, TRAINING_TEXT, SHARED_DOCUMENT, SHARED_GROUP)

logger = logging.getLogger(__name__)


class ExampleId(NamedTuple):
    """Identifies an example: `source` is train, dev, triplets or graded_pairs, `key` a query id or an index."""

    source: str
    key: str | int


class Leak(NamedTuple):
    """An example (`text`) that reveals a held-out text.

    Attributes:
        kind: one of `KINDS`.
        example: which example.
        text: its query, or its document if it has no query.
        held_out: the held-out text it reveals.
    """

    kind: str
    example: ExampleId
    text: str
    held_out: str

    def __str__(self) -> str:
        source, key = self.example
        return f"{self.kind}: {source} {key} '{self.text[:80]}' reveals held-out '{self.held_out[:80]}'"


@dataclass(frozen=True)
class LeakageReport:
    """All leaking examples, each listed once under the first of `KINDS` that applies."""

    leaks: tuple[Leak, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether there are no leaks."""
        return not self.leaks

    @cached_property
    def counts(self) -> dict[str, int]:
        """Kind -> number of leaking examples, 0 for kinds that do not occur."""
        occurrences = Counter(leak.kind for leak in self.leaks)
        return {kind: occurrences[kind] for kind in KINDS}

    def __str__(self) -> str:
        if self.clean:
            return "no leaks"
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count)
        return f"{len(self.leaks)} leaking examples ({kinds}), for example {self.leaks[0]}"


class _Example(NamedTuple):
    """The texts of an example of training or model selection."""

    query: str | None
    positives: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    group: str | None = None


Examples = Iterator[tuple[ExampleId, _Example]]


def check(dataset: Dataset) -> LeakageReport:
    """Find training examples that reveal dev or test queries, and dev queries that reveal test queries."""
    leaks = list(_leaks(dataset, lambda: _training_examples(dataset), ("dev", "test")))
    leaks += _leaks(dataset, lambda: _queries(dataset, "dev"), ("test",))
    return LeakageReport(tuple(leaks))


def repair(dataset: Dataset) -> tuple[Dataset, LeakageReport]:
    """Drop every leaking example of train and dev. The test split never changes.

    Returns:
        The clean dataset, and the report of what was dropped.
    """
    report = check(dataset)
    if report.clean:
        return dataset, report
    leaking = {leak.example for leak in report.leaks}
    drop = {split: {str(example.key) for example in leaking if example.source == split} for split in ("train", "dev")}
    triplets = (t for i, t in enumerate(dataset.triplets) if ExampleId("triplets", i) not in leaking)
    graded_pairs = (p for i, p in enumerate(dataset.graded_pairs) if ExampleId("graded_pairs", i) not in leaking)
    return drop_queries(dataset, drop, triplets=triplets, graded_pairs=graded_pairs), report


def repair_against(dataset: Dataset, other: Dataset) -> tuple[Dataset, LeakageReport]:
    """Drop the training examples of a dataset that reveal dev or test queries of another dataset.

    A training example with a code of a held-out query (see `Dataset.codes`), or with the text of its document as query,
    counts as one that shares the document.

    Returns:
        The dataset without them, and the report of what was dropped.

    Raises:
        LeakageError: no training query would be left.
    """
    repaired, report = repair(_with_held_out_of(dataset, other))
    if report.clean:
        return dataset, report
    drop = set(dataset.qrels["train"]) - repaired.qrels["train"].keys()
    if drop and not repaired.qrels["train"]:
        problem = f"every training query of {dataset.name} reveals a dev or test query of {other.name}: {report}"
        raise LeakageError(problem, remedy="Choose other data to train on", field="dataset")
    return drop_queries(
        dataset, {"train": drop}, triplets=repaired.triplets, graded_pairs=repaired.graded_pairs
    ), report


def _with_held_out_of(dataset: Dataset, other: Dataset) -> Dataset:
    """The training examples of a dataset with dev and test of another one, whose ids start with its name."""
    new_id = {key: f"{other.name} {key}" for key in (*other.corpus, *other.queries)}
    held_out: dict[str, None] = {}
    by_code: dict[str, dict[str, None]] = defaultdict(dict)
    by_text: dict[str | bytes, dict[str, None]] = defaultdict(dict)
    for query, document in (pair for split in ("dev", "test") for pair in other.pairs(split)):
        held_out[document] = by_text[text_key(other.corpus[document])][new_id[document]] = None
        for code in codes_of(other, query, [document]):
            by_code[code][new_id[document]] = None

    def judged(query: str, grades: Mapping[str, int]) -> dict[str, int]:
        with_code = (document for code in codes_of(dataset, query, grades) for document in by_code.get(code, ()))
        return dict.fromkeys((*grades, *with_code, *by_text.get(text_key(dataset.queries[query]), ())), 1)

    train = {query: judged(query, grades) for query, grades in dataset.qrels.get("train", {}).items()}
    held_out_qrels = {
        split: {
            new_id[query]: {new_id[document]: 1 for document in grades if document in held_out}
            for query, grades in other.qrels.get(split, {}).items()
        }
        for split in ("dev", "test")
    }
    return Dataset(
        name=dataset.name,
        corpus={**dataset.corpus, **{new_id[document]: other.corpus[document] for document in held_out}},
        queries={**dataset.queries, **{new_id[query]: text for query, text in other.queries.items()}},
        qrels={"train": train, **held_out_qrels},
        triplets=dataset.triplets,
        graded_pairs=dataset.graded_pairs,
        split_by=other.split_by,
    )


def codes_of(dataset: Dataset, query: str, documents: Iterable[str]) -> tuple[str, ...]:
    """Return the codes of a query; if it has none, those of its documents.

    Args:
        dataset: gives the codes, see `Dataset.codes`.
        query: its id.
        documents: ids of its relevant documents.
    """
    of_documents = (code for document in documents for code in dataset.codes.get(document, ()))
    return dataset.codes.get(query) or tuple(of_documents)


def guard(
    dataset: Dataset,
    *,
    drop_leaks: bool,
    file: str | None = None,
    expected: bool = True,
    needs_training: bool = False,
    can_share: bool = True,
) -> Dataset:
    """Return a dataset without leaks.

    Args:
        dataset: the dataset to check.
        drop_leaks: drop leaking examples and log them; if False, leaks raise an error.
        file: the file that the error names.
        expected: log dropped examples without a warning, for datasets that are known to have some.
        needs_training: raise an error if no training query is left.
        can_share: whether the dataset's spec takes split_by=query.

    Raises:
        LeakageError: the dataset leaks and `drop_leaks` is False, or nothing would be left to train on.
    """
    repaired, report = repair(dataset)
    if report.clean:
        return dataset
    if not drop_leaks:
        raise LeakageError(str(report), remedy=" ".join(_remedies(dataset, repaired, can_share)), file=file)
    if needs_training and dataset.qrels.get("train") and not repaired.qrels["train"]:
        remedy = "Split the data again: no text of dev or test may occur in train."
        raise LeakageError(f"without the leaking examples, train has no query left: {report}", remedy=remedy, file=file)
    level = logging.INFO if expected else logging.WARNING
    logger.log(level, "%s: dropped %s. Left: %s", dataset.name, report, _sizes(repaired))
    for split in _emptied(dataset, repaired):
        logger.warning("%s: every %s query leaks, so none is left. Split the data again", dataset.name, split)
    return replace(repaired, leaks={kind: count for kind, count in report.counts.items() if count})


def _emptied(dataset: Dataset, repaired: Dataset) -> list[str]:
    """Splits that have queries before the repair and none after it."""
    return [split for split, queries in dataset.qrels.items() if queries and not repaired.qrels[split]]


def _remedies(dataset: Dataset, repaired: Dataset, can_share: bool) -> Iterator[str]:
    """What each way to go on would leave of `dataset`, whose leaks are dropped in `repaired`; sentences."""
    yield "Split the data again, or choose one of these datasets."
    if can_share and dataset.split_by == "document":
        shared, report = repair(replace(dataset, split_by="query"))
        options = {"split_by": "query", **({} if report.clean else {"repair": "true"})}
        spec = _with_options(dataset.name, options)
        yield f"'{spec}' lets splits share documents and keeps {_sizes(shared, dataset)}{_warning(dataset, shared)}."
    spec = _with_options(dataset.name, {"repair": "true"})
    yield f"'{spec}' drops the leaks and keeps {_sizes(repaired, dataset)}{_warning(dataset, repaired)}."


def _warning(dataset: Dataset, repaired: Dataset) -> str:
    """Say which splits a remedy would empty; nothing if it empties none."""
    emptied = _emptied(dataset, repaired)
    return f", which leaves {' and '.join(emptied)} empty" if emptied else ""


def _with_options(spec: str, options: Mapping[str, str]) -> str:
    """`spec` with options, each once. Its other options stay as they were written.

    >>> _with_options("pairs:why?.csv", {"repair": "true"})
    'pairs:why?.csv?repair=true'
    >>> _with_options("pairs:faq.csv?query=a question", {"repair": "true"})
    'pairs:faq.csv?query=a question&repair=true'
    """
    address, mark, query = spec.rpartition("?")
    if not mark or "=" not in query:  # the question mark of a file name
        address, query = spec, ""
    kept = [option for option in query.split("&") if option and option.partition("=")[0] not in options]
    return f"{address}?{'&'.join([*kept, *(f'{name}={value}' for name, value in options.items())])}"


def _sizes(dataset: Dataset, of: Dataset | None = None) -> str:
    """Sizes of train, dev and test, if `of` is given with its sizes: "30 of 40 train, 4 of 4 dev, 6 of 6 test"."""
    sizes = {split: f"{len(queries):,}" for split, queries in dataset.qrels.items()}
    totals = {split: f" of {len(queries):,}" for split, queries in of.qrels.items()} if of else {}
    return ", ".join(f"{size}{totals.get(split, '')} {split}" for split, size in sizes.items()) + " queries"


def _leaks(dataset: Dataset, examples: Callable[[], Examples], held_out: tuple[str, ...]) -> Iterator[Leak]:
    """At most one leak per example. Dev is not trained on, so its documents may equal a test query.

    The examples are made twice, because all of them together would take a kilobyte per training pair.
    """
    queries = {q: text for split in held_out for q, text in dataset.split_queries(split).items()}
    query_texts = {text_key(text): text for text in queries.values()}
    document_texts = _relevant_texts(dataset, held_out) if dataset.split_by == "document" else {}
    groups = {dataset.groups[q]: text for q, text in queries.items() if q in dataset.groups}
    with_query = {number: e.query for number, (_, e) in enumerate(examples()) if e.query is not None}
    near = {number: queries[q] for number, q in near_duplicates(with_query, queries)}
    key_of = lru_cache(1 << 16)(text_key)  # examples of the same document often follow each other
    for number, (key, example) in enumerate(examples()):
        positives = tuple(map(key_of, example.positives))
        trained = () if key.source == "dev" else (*positives, *map(key_of, example.negatives))
        matches = {
            IDENTICAL: query_texts.get(text_key(example.query)) if example.query is not None else None,
            NEAR_IDENTICAL: near.get(number),
            TRAINING_TEXT: _first_match(query_texts, trained),
            SHARED_DOCUMENT: _first_match(document_texts, positives),
            SHARED_GROUP: groups.get(example.group) if example.group is not None else None,
        }
        for kind, match in matches.items():
            if match is not None:
                yield Leak(kind, key, example.query or normalise(example.positives[0]), match)
                break


def _first_match(held_out: Mapping[str | bytes, str], keys: Iterable[str | bytes]) -> str | None:
    return next((held_out[key] for key in keys if key in held_out), None)


def _relevant_texts(dataset: Dataset, splits: Iterable[str]) -> dict[str | bytes, str]:
    relevant = {document for split in splits for _, document in dataset.pairs(split)}
    return {text_key(dataset.corpus[document]): dataset.corpus[document] for document in sorted(relevant)}


def _training_examples(dataset: Dataset) -> Examples:
    yield from _queries(dataset, "train")
    for i, triplet in enumerate(dataset.triplets):
        yield ExampleId("triplets", i), _Example(triplet.query, (triplet.positive,), (triplet.negative,))
    for i, pair in enumerate(dataset.graded_pairs):
        yield ExampleId("graded_pairs", i), _Example(None, (pair.text1, pair.text2))


def _queries(dataset: Dataset, split: str) -> Examples:
    for query, grades in dataset.qrels.get(split, {}).items():
        positives = tuple(dataset.corpus[document] for document in grades if document in dataset.corpus)
        yield ExampleId(split, query), _Example(dataset.queries[query], positives, group=dataset.groups.get(query))
