"""Splits that keep what belongs together on one side."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace

from embedlab.data.dataset import SPLITS, Dataset, GradedPair, Qrels, Triplet
from embedlab.data.overlap import near_duplicates, normalise
from embedlab.errors import DataError, ParameterError

SHARES = {"train": 0.75, "dev": 0.10, "test": 0.15}

logger = logging.getLogger(__name__)


def seeded_order(items: Iterable[str], seed: int = 0) -> list[str]:
    """`items` in a shuffled order that depends on their names and `seed` alone, on every machine.

    The first n are a sample, and a larger n only adds to it.
    """
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}:{item}".encode()).digest())


def components(keys: Mapping[str, Iterable[Hashable]]) -> dict[str, str]:
    """Item -> group, where items that share a key, directly or through others, share the group.

    A group is named after its smallest item, so that the order of `keys` does not matter.

    >>> components({"c": [1], "a": [1, 2], "b": [2], "d": [3]})
    {'a': 'a', 'b': 'a', 'c': 'a', 'd': 'd'}
    """
    from scipy.cluster.hierarchy import DisjointSet

    forest = DisjointSet()
    for item, its_keys in keys.items():
        forest.add(("item", item))
        for key in its_keys:
            forest.add(("key", key))
            forest.merge(("item", item), ("key", key))
    names: dict[Hashable, str] = {}
    return {item: names.setdefault(forest["item", item], item) for item in sorted(keys)}


def group_queries(
    queries: Mapping[str, str],
    qrels: Qrels,
    corpus: Mapping[str, str],
    *,
    split_by: str = "document",
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Query id -> group of the queries judged in `qrels`; whole groups can be held out without leakage.

    Queries are joined when their texts are the same or nearly so, when one's text is another's relevant document,
    when `given` puts them into one group, and, for `split_by="document"`, when they share a relevant document.
    """
    judged = {query: queries[query] for query in qrels}
    keys: dict[str, set[Hashable]] = {query: {normalise(text)} for query, text in judged.items()}
    query_texts = {normalise(text) for text in judged.values()}
    document_texts = {d: normalise(corpus[d]) for grades in qrels.values() for d in grades}
    for query, grades in qrels.items():
        texts = {document_texts[document] for document in grades}
        keys[query] |= texts if split_by == "document" else texts & query_texts
    for query, other in near_duplicates(judged, judged):
        keys[query].add(("near", other))
    for query, group in (given or {}).items():
        keys[query].add(("given", group))
    return components(keys)


def group_split(
    groups: Mapping[str, str], sizes: Mapping[str, int], *, rest: str = "train", seed: int = 0
) -> dict[str, list[str]]:
    """Split name -> items, whole groups only, in the order of `groups`.

    Args:
        groups: item -> group.
        sizes: split -> most items it may take; groups are drawn in seeded order, and one that no longer fits
            is passed over. A split in which nothing fits takes the smallest group there is.
        rest: the split of everything else.
        seed: another seed draws other groups.

    Raises:
        DataError: fewer groups than splits.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for item, group in groups.items():
        members[group].append(item)
    if len(members) <= len(sizes):
        raise DataError(
            f"{len(groups)} queries form {len(members)} unrelated groups, too few for {len(sizes) + 1} splits",
            remedy="Add queries about other documents or say yourself which record is in which split.",
        )
    free, split_of = seeded_order(members, seed), dict.fromkeys(members, rest)
    for position, (split, size) in enumerate(sizes.items()):
        most = len(free) - (len(sizes) - position)  # every later split, and the rest, must get a group
        taken = _fill(free, members, size)[:most] or [min(free, key=lambda group: len(members[group]))]
        split_of |= dict.fromkeys(taken, split)
        free = [group for group in free if split_of[group] == rest]
    parts: dict[str, list[str]] = {split: [] for split in (rest, *sizes)}
    for item, group in groups.items():
        parts[split_of[group]].append(item)
    return parts


def _fill(free: list[str], members: Mapping[str, list[str]], size: int) -> list[str]:
    taken = []
    for group in free:
        if len(members[group]) <= size:
            taken.append(group)
            size -= len(members[group])
    return taken


def complete(
    qrels: Mapping[str, Qrels],
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    *,
    split_by: str = "document",
    given: Mapping[str, str] | None = None,
) -> tuple[dict[str, Qrels], dict[str, str]]:
    """All three splits and the groups, from whichever splits there are.

    A split that is there stays as it is, except for the one (train, else dev, else test) the missing ones are
    cut from, in the proportions of `SHARES`.
    """
    present = {split: qrels[split] for split in SPLITS if qrels.get(split)}
    missing = [split for split in reversed(SPLITS) if split not in present]
    groups: dict[str, str] = {}
    for part in present.values():
        inside = {query: group for query, group in (given or {}).items() if query in part}
        groups |= group_queries(queries, part, corpus, split_by=split_by, given=inside)
    if not missing:
        return present, _named(groups, given)
    donor, grades = next(iter(present.items()))
    total = SHARES[donor] + sum(SHARES[split] for split in missing)
    sizes = {split: round(len(grades) * SHARES[split] / total) for split in missing}
    parts = group_split({query: groups[query] for query in grades}, sizes, rest=donor)
    logger.info("split %s cut from %s by groups: %s", missing, donor, {k: len(v) for k, v in parts.items()})
    made = {split: {query: grades[query] for query in members} for split, members in parts.items()}
    return {split: {**present, **made}[split] for split in SPLITS}, _named(groups, given)


def _named(groups: Mapping[str, str], given: Mapping[str, str] | None) -> dict[str, str]:
    """Groups under the name they were given; the guard then sees a given group that crosses splits."""
    return {**groups, **{query: group for query, group in (given or {}).items() if query in groups}}


def restrict(
    dataset: Dataset,
    drop: Mapping[str, set[str]],
    *,
    triplets: Iterable[Triplet] | None = None,
    graded_pairs: Iterable[GradedPair] | None = None,
) -> Dataset:
    """`dataset` without the queries in `drop` (split -> query ids), with other triplets or graded pairs if given."""
    qrels = {
        split: {query: grades for query, grades in part.items() if query not in drop.get(split, ())}
        for split, part in dataset.qrels.items()
    }
    judged = {query for part in qrels.values() for query in part}
    return replace(
        dataset,
        qrels=qrels,
        queries={query: text for query, text in dataset.queries.items() if query in judged},
        groups={query: group for query, group in dataset.groups.items() if query in judged},
        triplets=dataset.triplets if triplets is None else tuple(triplets),
        graded_pairs=dataset.graded_pairs if graded_pairs is None else tuple(graded_pairs),
    )


def cap_training(dataset: Dataset, max_examples: int, seed: int = 0) -> Dataset:
    """At most `max_examples` training queries; triplets and graded pairs shrink by the same factor.

    A larger cap keeps what a smaller one kept, so that points of a learning curve are nested. Dev and test stay.
    """
    if max_examples < 1:
        raise ParameterError(f"{max_examples} training queries", remedy="Ask for 1 or more.", field="max_examples")
    train = dataset.qrels.get("train", {})
    share = min(1.0, max_examples / len(train)) if train else 1.0
    return restrict(
        dataset,
        {"train": set(seeded_order(train, seed)[max_examples:])},
        triplets=_sample(dataset.triplets, share, seed),
        graded_pairs=_sample(dataset.graded_pairs, share, seed),
    )


def _sample(examples: tuple, share: float, seed: int) -> list:
    kept = seeded_order(map(str, range(len(examples))), seed)[: round(share * len(examples))]
    return [examples[i] for i in sorted(map(int, kept))]


def mark_seen(dataset: Dataset) -> Dataset:
    """Field `seen` for every dev and test query: "seen" when training shows one of its relevant texts as a positive."""
    trained = {dataset.corpus[document] for _, document in dataset.pairs("train")}
    trained |= {triplet.positive for triplet in dataset.triplets}
    fields = dict(dataset.fields)
    for split in ("dev", "test"):
        for query, grades in dataset.qrels.get(split, {}).items():
            seen = any(dataset.corpus[document] in trained for document in grades)
            fields[query] = {**fields.get(query, {}), "seen": "seen" if seen else "unseen"}
    return replace(dataset, fields=fields)
