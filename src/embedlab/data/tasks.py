"""Tasks beside retrieval: graded similarity, classification and clustering, cut from a code tree.

A task has examples to train on and a probe that judges it on texts held out from training. The probe is a file in the
form that `embedlab.evaluation.probes` reads, so that a task from the code tree is judged as anybody's own files are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from embedlab.data.dataset import SPLITS, Dataset, GradedPair
from embedlab.data.icd10cm import graded_pairs
from embedlab.data.leakage import guard
from embedlab.data.overlap import normalise
from embedlab.data.splits import group_split, seeded_order

Kind = Literal["retrieval", "similarity", "classification", "clustering"]
Pair = tuple[str, str]  # query, positive

TEST_PAIRS = 1_000  # drawn, and at most four for every code asked for; those of equal texts are left out
GENERAL_WORDS = 64


class Labelled(NamedTuple):
    """A text and the class it belongs to."""

    text: str
    label: str


@dataclass(frozen=True)
class Task:
    """What one objective is trained on, and what judges it.

    Attributes:
        name: of its own in a training, e.g. `similarity` or `stsb`.
        kind: what the examples are.
        train: (query, positive) texts for retrieval, `GradedPair` for similarity, `Labelled` for the others.
        probe: what `embedlab.evaluation.probes.open_probe` takes; it holds none of the training texts.
    """

    name: str
    kind: Kind
    train: tuple[Pair, ...] | tuple[GradedPair, ...] | tuple[Labelled, ...]
    probe: str

    def capped(self, most: int, seed: int = 0) -> Task:
        """The task with at most so many training examples, a seeded sample in their order."""
        kept = seeded_order(map(str, range(len(self.train))), seed)[:most]
        return replace(self, train=tuple(self.train[place] for place in sorted(map(int, kept))))


def code_tree_tasks(dataset: Dataset, folder: Path) -> list[Task]:
    """Similarity, classification and clustering from the tree of ICD-10-CM; empty for any other dataset.

    - Similarity: two descriptions and how near their codes are in the tree (`icd10cm.code_similarity`).
    - Classification: a description or term and its group at the highest level of the tree that has several: the
      chapter, or the block where the dataset is one chapter alone.
    - Clustering: the same texts by the level below.

    Training sees no code that a held-out query asks for, and no text that reads like one. The probes are of those
    codes: pairs of their descriptions, and the test queries by the group of the code they ask for.

    Args:
        dataset: loaded from `icd10cm`.
        folder: where the probes' files are written.
    """
    if dataset.name.partition(":")[0] != "icd10cm":
        return []
    levels = _levels(dataset.corpus)
    known, held_out = _known_texts(dataset), _texts(dataset, "test")
    asked = {code: dataset.corpus[code] for _, code in dataset.pairs("test")}
    tested = [_record(pair) for pair in graded_pairs(asked, min(TEST_PAIRS, 4 * len(asked)))]
    similarity = Task("similarity", "similarity", dataset.graded_pairs, f"sts:{_write(folder / 'sts.jsonl', tested)}")
    return [similarity] + [
        _grouping(kind, groups, known, held_out, folder)
        for kind, groups in zip(("classification", "clustering"), levels, strict=False)
    ]


def _grouping(
    kind: Literal["classification", "clustering"],
    groups: Mapping[str, str],
    known: Sequence[Pair],
    held_out: Sequence[Pair],
    folder: Path,
) -> Task:
    """A task of telling groups of codes apart, from (text, code)."""
    train = tuple(Labelled(text, groups[code]) for text, code in known)
    splits = {"train": train, "test": [Labelled(text, groups[code]) for text, code in held_out]}
    records = [{**row._asdict(), "split": split} for split, rows in splits.items() for row in rows]
    return Task(kind, kind, train, f"{kind}:{_write(folder / f'{kind}.jsonl', records)}")


def _levels(codes: Iterable[str]) -> list[dict[str, str]]:
    """Code -> group at the highest level with several groups, and at the level below."""
    import simple_icd_10_cm as icd

    paths = {code: (*reversed(icd.get_ancestors(code)), code) for code in codes}  # chapter, block, category, …
    levels = [{code: path[min(level, len(path) - 1)] for code, path in paths.items()} for level in range(4)]
    first = next(level for level, groups in enumerate(levels) if len({*groups.values()}) > 1)
    return levels[first : first + 2]


def _known_texts(dataset: Dataset) -> list[Pair]:
    """(text, code) that training may see: terms of the training split, and descriptions of codes nobody asks for."""
    hidden = {code for split in ("dev", "test") for _, code in dataset.pairs(split)}
    unsaid = {normalise(text) for split in ("dev", "test") for text in dataset.split_queries(split).values()}
    unsaid |= {normalise(dataset.corpus[code]) for code in hidden}
    described = [(text, code) for code, text in dataset.corpus.items() if code not in hidden]
    return [(text, code) for text, code in (*_texts(dataset, "train"), *described) if normalise(text) not in unsaid]


def _texts(dataset: Dataset, split: str) -> list[Pair]:
    """(query text, the first code it asks for)."""
    return [(dataset.queries[query], next(iter(grades))) for query, grades in dataset.qrels.get(split, {}).items()]


def _record(pair: GradedPair) -> dict[str, Any]:
    return {"sentence1": pair.text1, "sentence2": pair.text2, "score": pair.score}


def _write(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")
    return path


class General(NamedTuple):
    """Texts of another domain, to see what a model forgets and to keep it from forgetting.

    Attributes:
        replay: (query, positive) texts to train on.
        probe: a dataset with dev and test queries alone; it shares no document with `replay`.
    """

    replay: list[Pair]
    probe: Dataset


def general_texts(
    dataset: Dataset, *, by: str = "package", max_queries: int = 200, max_words: int = GENERAL_WORDS
) -> General:
    """Part a dataset of another domain into what may be replayed and what judges.

    A dataset with all three splits is taken as it is. Otherwise about half of the queries are kept for dev and test,
    in whole values of the field `by` where they carry it: a probe whose own packages are replayed would show what was
    learnt from them and not what was kept.

    Args:
        dataset: e.g. `pydocs`.
        by: field of its queries.
        max_queries: most queries of test, in seeded order, and half as many of dev; a shallow probe still feels a model
            that has come apart.
        max_words: documents are cut to so many, as long ones would cost more than the domain itself.
    """
    cut = {document: " ".join(text.split()[:max_words]) for document, text in dataset.corpus.items()}
    dataset = replace(dataset, corpus=cut)
    if not all(dataset.qrels.get(split) for split in SPLITS):
        dataset = guard(_parted(dataset, by), mend=True)
    replay = [(dataset.queries[query], dataset.corpus[document]) for query, document in dataset.pairs("train")]
    taught = {text for _, text in replay}
    corpus = {document: text for document, text in dataset.corpus.items() if text not in taught}
    kept = {
        split: {query: dataset.qrels[split][query] for query in seeded_order(dataset.qrels[split])[:most]}
        for split, most in (("dev", max_queries // 2), ("test", max_queries))
    }
    return General(replay, replace(dataset, corpus=corpus, qrels={"train": {}, **kept}))


def _parted(dataset: Dataset, by: str) -> Dataset:
    judged = {query: grades for part in dataset.qrels.values() for query, grades in part.items()}
    own = {query: dataset.groups.get(query, query) for query in judged}
    kinds = {query: dataset.fields.get(query, {}).get(by) or own[query] for query in judged}
    halves = group_split(kinds, {"test": len(judged) // 2})
    judging = {query: own[query] for query in halves["test"]}
    parts = {"train": halves["train"], **group_split(judging, {"dev": len(judging) // 3}, rest="test")}
    return replace(dataset, qrels={split: {query: judged[query] for query in parts[split]} for split in SPLITS})
