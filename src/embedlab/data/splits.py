"""Split queries into train, dev and test by groups, so that related queries stay in the same split."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import numpy as np

from embedlab.data.dataset import SPLITS, Dataset, GradedPair, Qrels, Triplet
from embedlab.data.overlap import near_duplicates
from embedlab.data.text_analysis import without_symbols
from embedlab.data.text_keys import digest, text_key
from embedlab.errors import DataError, ParameterError

SHARES = {"train": 0.75, "dev": 0.10, "test": 0.15}
# Queries of the splits that we make. More would take hours to evaluate and narrow the intervals very little.
LARGEST = {"dev": 5_000, "test": 10_000}
MIN_TEST_QUERIES = 50
SPREAD = 0.4  # usual standard deviation of nDCG@10 over queries
MORE_QUERIES = "Add queries about other documents."  # what helps if there are too few groups
SHARE_DOCUMENTS = " If only the queries are new and the documents stay the same, add ?split_by=query."

logger = logging.getLogger(__name__)

Example = TypeVar("Example")


def seeded_order(items: Iterable[str], seed: int = 0) -> list[str]:
    """Shuffle `items` in an order that depends only on their names and `seed`, and is the same on every machine.

    The first n items are a random sample. A larger sample contains every smaller one.

    Args:
        items: names, for example query ids.
        seed: another seed gives another order.
    """
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}:{item}".encode()).digest())


def evenly_spread(texts: Iterable[str], count: int) -> list[str]:
    """Return at most `count` texts at equal distances over the whole list, in their order, the first one included.

    >>> evenly_spread("abcdefgh", 5)
    ['a', 'b', 'd', 'e', 'g']
    """
    texts = list(texts)
    count = min(count, len(texts))
    return [texts[number * len(texts) // count] for number in range(count)]


def components(keys: Mapping[str, Iterable[Hashable]]) -> dict[str, str]:
    """Group items that share a key, directly or through other items (connected components).

    Args:
        keys: item -> its keys.

    Returns:
        Item -> group. A group has the name of its smallest item, so the order of `keys` does not matter.

    >>> components({"c": [1], "a": [1, 2], "b": [2], "d": [3]})
    {'a': 'a', 'b': 'a', 'c': 'a', 'd': 'd'}
    """
    links = _Links()
    for number, item_keys in enumerate(keys.values()):
        for key in item_keys:
            links.add(number, key)
    return links.groups(list(keys))


class _Links:
    """Items that share keys, as two arrays: a dict of sets of keys would take a kilobyte per item."""

    def __init__(self) -> None:
        self._items, self._keys = array("q"), array("q")
        self._numbers: dict[Hashable, int] = {}  # key -> number

    def add(self, item: int, key: Hashable) -> None:
        """Give an item a key."""
        self._items.append(item)
        self._keys.append(self._numbers.setdefault(key, len(self._numbers)))

    def has(self, key: Hashable) -> bool:
        """Whether an item has this key."""
        return key in self._numbers

    def groups(self, items: Sequence[str]) -> dict[str, str]:
        """Return item -> smallest item that is linked with it, for the names of the items."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        nodes = len(items) + len(self._numbers)
        ends = np.frombuffer(self._items, np.int64), np.frombuffer(self._keys, np.int64) + len(items)
        graph = coo_array((np.ones(len(self._items), dtype=np.int8), ends), shape=(nodes, nodes))
        labels = connected_components(graph, directed=False)[1][: len(items)].tolist() if nodes else []
        names: dict[int, str] = {}
        label_of = dict(zip(items, labels, strict=True))
        return {item: names.setdefault(label_of[item], item) for item in sorted(label_of)}


def _words_key(text: str) -> str | bytes:
    return digest(without_symbols(text))


def group_queries(
    queries: Mapping[str, str],
    qrels: Qrels,
    corpus: Mapping[str, str],
    *,
    split_by: str = "document",
    user_groups: Mapping[str, str] | None = None,
    ignore_symbols: bool = False,
) -> dict[str, str]:
    """Group the queries in `qrels`, so that whole groups can be held out without leakage.

    Two queries are in the same group if their texts are equal or near-identical, if one text is a relevant document of
    the other query, if `user_groups` puts them together, or, for `split_by="document"`, if they share a relevant
    document.

    Args:
        queries: query id -> text.
        qrels: query id -> {document id: grade}.
        corpus: document id -> text.
        split_by: see `Dataset`.
        user_groups: query id -> group, from the data.
        ignore_symbols: compare words only, so that "HER2+" and "HER2-" are equal.

    Returns:
        Query id -> group.
    """
    key_of = lru_cache(1 << 16)(_words_key if ignore_symbols else text_key)  # texts of a document often recur
    numbers = {query: number for number, query in enumerate(qrels)}
    links = _Links()
    for query, number in numbers.items():
        links.add(number, key_of(queries[query]))
    for query, grades in qrels.items():
        for key in (key_of(corpus[document]) for document in grades if document in corpus):
            if split_by == "document" or links.has(key):
                links.add(numbers[query], key)
    texts = {number: queries[query] for query, number in numbers.items()}
    for number, other in near_duplicates(texts, texts, ignore_symbols=ignore_symbols):
        if number < other:
            links.add(number, key_of(texts[other]))
    for query, group in (user_groups or {}).items():
        links.add(numbers[query], ("user group", group))
    return links.groups(list(numbers))


def group_split(
    groups: Mapping[str, str],
    sizes: Mapping[str, int],
    *,
    rest: str = "train",
    seed: int = 0,
    remedy: str = MORE_QUERIES,
) -> dict[str, list[str]]:
    """Divide items into splits without dividing a group.

    Args:
        groups: item -> group.
        sizes: split -> maximum number of items. Groups are drawn in seeded order, and groups that no longer fit are
            skipped. If no group fits, the split gets the smallest group.
        rest: the split that gets all remaining items.
        seed: determines which groups are drawn.
        remedy: what the error advises.

    Returns:
        Split -> items, in the order of `groups`.

    Raises:
        DataError: there are fewer groups than splits.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for item, group in groups.items():
        members[group].append(item)
    if len(members) <= len(sizes):
        problem = f"{len(groups)} queries form {len(members)} unrelated groups, too few for {len(sizes) + 1} splits"
        raise DataError(problem, remedy=remedy)
    free, split_of = seeded_order(members, seed), dict.fromkeys(members, rest)
    for position, (split, size) in enumerate(sizes.items()):
        most = len(free) - (len(sizes) - position)  # leave a group for every later split and for `rest`
        drawn_groups = _fill(free, members, size)[:most] or [min(free, key=lambda group: len(members[group]))]
        split_of |= dict.fromkeys(drawn_groups, split)
        free = [group for group in free if split_of[group] == rest]
    parts: dict[str, list[str]] = {split: [] for split in (rest, *sizes)}
    for item, group in groups.items():
        parts[split_of[group]].append(item)
    return parts


def _fill(free: list[str], members: Mapping[str, list[str]], size: int) -> list[str]:
    """Groups that fit into `size` items, in the order of `free`."""
    fitting = []
    for group in free:
        if len(members[group]) <= size:
            fitting.append(group)
            size -= len(members[group])
    return fitting


def complete_splits(
    qrels: Mapping[str, Qrels],
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    *,
    split_by: str = "document",
    user_groups: Mapping[str, str] | None = None,
    divide: bool = True,
    remedy: str = MORE_QUERIES,
) -> tuple[dict[str, Qrels], dict[str, str]]:
    """Add missing splits, by groups.

    Missing splits are taken from train (if there is no train split, from dev, otherwise from test), in the proportions
    of `SHARES` and with at most `LARGEST` queries. The other splits stay as they are. If dev or test was divided, or a
    split missed its share, a warning says so.

    Args:
        qrels: split -> query id -> {document id: grade}, for at least one split.
        queries: query id -> text.
        corpus: document id -> text.
        split_by: see `Dataset`.
        user_groups: query id -> group, from the data.
        divide: divide dev or test if there is no train split; False leaves the missing splits empty.
        remedy: what helps if there are too few groups, a sentence for the user of this kind of data.

    Returns:
        The qrels of all three splits, and query id -> group.

    Raises:
        DataError: there are fewer groups than splits.
    """
    present = {split: qrels[split] for split in SPLITS if qrels.get(split)}
    missing = [split for split in reversed(SPLITS) if split not in present]
    groups: dict[str, str] = {}

    def grouped(grades: Qrels, split_by: str) -> dict[str, str]:
        inside = {query: group for query, group in (user_groups or {}).items() if query in grades}
        return group_queries(queries, grades, corpus, split_by=split_by, user_groups=inside)

    for grades in present.values():
        groups |= grouped(grades, split_by)
    donor, grades = next(iter(present.items()))
    if not missing or (donor != "train" and not divide):
        return {split: present.get(split, {}) for split in SPLITS}, _with_user_names(groups, user_groups)
    total = SHARES[donor] + sum(SHARES[split] for split in missing)
    shares = {split: round(len(grades) * SHARES[split] / total) for split in missing}
    sizes = {split: min(size, LARGEST.get(split, size)) for split, size in shares.items()}
    if sizes != shares:
        logger.info("%s instead of %s queries: see LARGEST in data/splits.py", sizes, shares)
    donated = {query: groups[query] for query in grades}
    if split_by == "document" and _is_coarse(donated, sizes) and not _is_coarse(grouped(grades, "query"), sizes):
        remedy += SHARE_DOCUMENTS
    members = group_split(donated, sizes, rest=donor, remedy=remedy)
    _report_division(members, sizes, donated, remedy)
    divided = {split: {query: grades[query] for query in ids} for split, ids in members.items()}
    return {split: {**present, **divided}[split] for split in SPLITS}, _with_user_names(groups, user_groups)


def _is_coarse(groups: Mapping[str, str], sizes: Mapping[str, int]) -> bool:
    """Whether there are too few groups for the splits, or one is larger than what the made splits leave."""
    largest = max(Counter(groups.values()).values(), default=0)
    return len({*groups.values()}) <= len(sizes) or largest > len(groups) - sum(sizes.values())


def _report_division(
    members: Mapping[str, Sequence[str]], sizes: Mapping[str, int], groups: Mapping[str, str], remedy: str
) -> None:
    """Log how a split was divided: a warning if it was dev or test, or if a split missed its share.

    Args:
        members: split -> its queries; the split that was divided comes first.
        sizes: made split -> wanted number of queries.
        groups: query id -> group.
        remedy: what helps if a split missed its share.
    """
    donor = next(iter(members))
    planned_sizes = {donor: len(groups) - sum(sizes.values()), **sizes}
    divided = ", ".join(f"{len(members[split])} {split}" for split in SPLITS if split in members)
    if donor == "train":
        logger.info("divided train by groups: %s", divided)
    else:
        logger.warning(
            "There is no train split: %s was divided: %s. Add ?divide=false to keep it whole.", donor, divided
        )
    if any(abs(len(members[split]) - planned_sizes[split]) > max(1, planned_sizes[split] / 2) for split in members):
        planned = ", ".join(f"{planned_sizes[split]} {split}" for split in SPLITS if split in planned_sizes)
        largest = max(Counter(groups.values()).values())
        logger.warning(
            "The splits have %s queries, wanted were %s. The largest group of related queries has %d of %d queries and "
            "stays in one split. %s",
            *(divided, planned, largest, len(groups), remedy),
        )


def size_warnings(dataset: Dataset) -> list[str]:
    """Say what dev and test are too small for; empty if they are large enough or there are none.

    Args:
        dataset: with its final splits.
    """
    warnings = []
    if len(dataset.qrels.get("dev", {})) == 1:
        warnings.append("dev has one query, and training steps and weights are chosen on it. Add queries.")
    test = len(dataset.qrels.get("test", {}))
    if 0 < test < MIN_TEST_QUERIES:
        half_width = min(1.0, 1.96 * SPREAD / test**0.5)
        warnings.append(
            f"test has {test} {'query' if test == 1 else 'queries'}: expect 95 % intervals of about ±{half_width:.2f}. "
            f"Use {MIN_TEST_QUERIES} or more to see differences."
        )
    return warnings


def _with_user_names(groups: Mapping[str, str], user_groups: Mapping[str, str] | None) -> dict[str, str]:
    """`groups` under the names in the data, so that the leakage check sees a user's group in two splits."""
    return {**groups, **{query: group for query, group in (user_groups or {}).items() if query in groups}}


def drop_queries(
    dataset: Dataset,
    drop: Mapping[str, set[str]],
    *,
    triplets: Iterable[Triplet] | None = None,
    graded_pairs: Iterable[GradedPair] | None = None,
) -> Dataset:
    """Drop queries from a dataset.

    Args:
        dataset: the dataset.
        drop: split -> ids of the queries to drop.
        triplets: replace the dataset's triplets.
        graded_pairs: replace the dataset's graded pairs.
    """
    qrels = {
        split: {query: grades for query, grades in judgements.items() if query not in drop.get(split, ())}
        for split, judgements in dataset.qrels.items()
    }
    judged = {query for judgements in qrels.values() for query in judgements}
    return replace(
        dataset,
        qrels=qrels,
        queries={query: text for query, text in dataset.queries.items() if query in judged},
        groups={query: group for query, group in dataset.groups.items() if query in judged},
        triplets=dataset.triplets if triplets is None else tuple(triplets),
        graded_pairs=dataset.graded_pairs if graded_pairs is None else tuple(graded_pairs),
    )


def cap_training(dataset: Dataset, max_examples: int, seed: int = 0) -> Dataset:
    """Reduce a dataset to a sample of its training queries. Dev and test stay.

    A larger sample contains every smaller one, so the points of a learning curve are nested.

    Args:
        dataset: the dataset.
        max_examples: maximum number of training queries. Triplets and graded pairs are reduced by the same factor.
        seed: determines the sample.

    Raises:
        ParameterError: `max_examples` is below 1.
    """
    if max_examples < 1:
        problem = f"max_examples must be 1 or more, got {max_examples}"
        raise ParameterError(problem, remedy="Set max_examples=1000, for example.", field="max_examples")
    train = dataset.qrels.get("train", {})
    share = min(1.0, max_examples / len(train)) if train else 1.0
    return drop_queries(
        dataset,
        {"train": set(seeded_order(train, seed)[max_examples:])},
        triplets=_sample(dataset.triplets, share, seed),
        graded_pairs=_sample(dataset.graded_pairs, share, seed),
    )


def _sample(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    indices = seeded_order(map(str, range(len(examples))), seed)[: round(share * len(examples))]
    return [examples[i] for i in sorted(map(int, indices))]


def mark_seen(dataset: Dataset) -> Dataset:
    """Add the field `seen` to dev and test queries.

    The value is "seen" if one of the query's relevant texts is a positive in training, otherwise "unseen".
    """
    trained = {dataset.corpus[document] for _, document in dataset.pairs("train")}
    trained |= {triplet.positive for triplet in dataset.triplets}
    fields = dict(dataset.fields)
    for split in ("dev", "test"):
        for query, grades in dataset.qrels.get(split, {}).items():
            seen = any(dataset.corpus.get(document) in trained for document in grades)
            fields[query] = {**fields.get(query, {}), "seen": "seen" if seen else "unseen"}
    return replace(dataset, fields=fields)
