"""Tasks other than retrieval: similarity, classification and clustering, made from the tree of ICD-10-CM.

A task has training examples and a probe with held-out texts. The probe is a file in the format that
`embedlab.evaluation.probes` reads, which is also the format for your own files.
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
from embedlab.data.splits import group_split, seeded_order
from embedlab.data.text_analysis import normalise

Kind = Literal["retrieval", "similarity", "classification", "clustering"]
Pair = tuple[str, str]  # query, positive

TEST_PAIRS = 1_000  # number of draws, at most four per held-out code; pairs of equal texts are skipped
GENERAL_WORDS = 64  # documents of another domain are truncated, so that they cost no more than the domain's own


class Labelled(NamedTuple):
    """A text and its class."""

    text: str
    label: str


@dataclass(frozen=True)
class Task:
    """The training examples of one objective, and the probe that evaluates it.

    Attributes:
        name: unique within a training run, e.g. `similarity` or `stsb`.
        kind: the type of the task.
        train: (query, positive) texts for retrieval, `GradedPair` for similarity, `Labelled` for the others.
        probe: a spec for `embedlab.evaluation.probes.open_probe`; contains no training texts.
    """

    name: str
    kind: Kind
    train: tuple[Pair, ...] | tuple[GradedPair, ...] | tuple[Labelled, ...]
    probe: str

    def capped(self, most: int, seed: int = 0) -> Task:
        """Reduce the task to a random sample of its training examples, in their original order.

        Args:
            most: maximum number of examples.
            seed: determines the sample.
        """
        indices = seeded_order(map(str, range(len(self.train))), seed)[:most]
        sample = tuple(self.train[index] for index in sorted(map(int, indices)))
        return replace(self, train=sample)  # type: ignore[arg-type] # all of one kind, like self.train


def code_tree_tasks(dataset: Dataset, folder: Path) -> list[Task]:
    """Make similarity, classification and clustering tasks from the tree of ICD-10-CM.

    - Similarity: two descriptions, scored by `icd10cm.code_similarity`.
    - Classification: a description or term, labelled with its chapter (or with its block if the dataset has only one
      chapter).
    - Clustering: the same texts, labelled with the level below.

    The training examples contain neither the codes that held-out queries ask for nor the texts of held-out queries. The
    probes consist of these codes: pairs of their descriptions, and the test queries with the class of their code.

    Args:
        dataset: loaded from `icd10cm`.
        folder: where to write the files of the probes.

    Returns:
        Three tasks; none if the dataset is not ICD-10-CM.
    """
    if dataset.name.partition(":")[0] != "icd10cm":
        return []
    levels = _levels(dataset.corpus)
    train, test = _training_texts(dataset), _texts(dataset, "test")
    test_codes = {code: dataset.corpus[code] for _, code in dataset.pairs("test")}
    tested = [_record(pair) for pair in graded_pairs(test_codes, min(TEST_PAIRS, 4 * len(test_codes)))]
    similarity = Task("similarity", "similarity", dataset.graded_pairs, f"sts:{_write(folder / 'sts.jsonl', tested)}")
    kinds: tuple[Kind, ...] = ("classification", "clustering")
    return [similarity] + [
        _labelled_task(kind, groups, train, test, folder) for kind, groups in zip(kinds, levels, strict=False)
    ]


def _labelled_task(
    kind: Kind,
    groups: Mapping[str, str],
    train: Sequence[Pair],
    test: Sequence[Pair],
    folder: Path,
) -> Task:
    """A task whose classes are groups of codes (code -> group); `train` and `test` are (text, code)."""
    labelled = tuple(Labelled(text, groups[code]) for text, code in train)
    splits = {"train": labelled, "test": [Labelled(text, groups[code]) for text, code in test]}
    records = [{**row._asdict(), "split": split} for split, rows in splits.items() for row in rows]
    return Task(kind, kind, labelled, f"{kind}:{_write(folder / f'{kind}.jsonl', records)}")


def _levels(codes: Iterable[str]) -> list[dict[str, str]]:
    """Code -> group at the highest level of the tree with several groups, and at the level below."""
    import simple_icd_10_cm as icd

    paths = {code: (*reversed(icd.get_ancestors(code)), code) for code in codes}  # chapter, block, category, …
    levels = [{code: path[min(level, len(path) - 1)] for code, path in paths.items()} for level in range(4)]
    first = next(level for level, groups in enumerate(levels) if len({*groups.values()}) > 1)
    return levels[first : first + 2]


def _training_texts(dataset: Dataset) -> list[Pair]:
    """(text, code) allowed in training: training terms, and descriptions of codes that are not held out."""
    hidden_codes = {code for split in ("dev", "test") for _, code in dataset.pairs(split)}
    hidden = {normalise(text) for split in ("dev", "test") for text in dataset.split_queries(split).values()}
    hidden |= {normalise(dataset.corpus[code]) for code in hidden_codes}
    described = [(text, code) for code, text in dataset.corpus.items() if code not in hidden_codes]
    return [(text, code) for text, code in (*_texts(dataset, "train"), *described) if normalise(text) not in hidden]


def _texts(dataset: Dataset, split: str) -> list[Pair]:
    """(query text, its first relevant code)."""
    return [(dataset.queries[query], next(iter(grades))) for query, grades in dataset.qrels.get(split, {}).items()]


def _record(pair: GradedPair) -> dict[str, Any]:
    return {"sentence1": pair.text1, "sentence2": pair.text2, "score": pair.score}


def _write(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")
    return path


class General(NamedTuple):
    """Texts of another domain, to measure catastrophic forgetting and to reduce it by replay.

    Attributes:
        replay: (query, positive) training texts.
        probe: a dataset with dev and test queries only; it shares no document with `replay`.
    """

    replay: list[Pair]
    probe: Dataset


def general_texts(dataset: Dataset, *, max_queries: int = 200) -> General:
    """Divide a dataset of another domain into training pairs for replay and a probe.

    A dataset with all three splits keeps them. Otherwise about half of the queries become dev and test. Queries with
    the same value of the field `package` stay together: if packages of the probe were also replayed, the probe would
    measure what was learnt from them instead of what was forgotten.

    Args:
        dataset: for example `pydocs`.
        max_queries: maximum number of test queries; dev gets half as many. A few hundred are enough to detect
            forgetting.
    """
    corpus = {document: " ".join(text.split()[:GENERAL_WORDS]) for document, text in dataset.corpus.items()}
    dataset = replace(dataset, corpus=corpus)
    if not all(dataset.qrels.get(split) for split in SPLITS):
        dataset = guard(_with_splits(dataset), drop_leaks=True)
    replay = [(dataset.queries[query], dataset.corpus[document]) for query, document in dataset.pairs("train")]
    trained = {text for _, text in replay}
    corpus = {document: text for document, text in dataset.corpus.items() if text not in trained}
    sampled = {
        split: {query: dataset.qrels[split][query] for query in seeded_order(dataset.qrels[split])[:most]}
        for split, most in (("dev", max_queries // 2), ("test", max_queries))
    }
    return General(replay, replace(dataset, corpus=corpus, qrels={"train": {}, **sampled}))


def _with_splits(dataset: Dataset) -> Dataset:
    judged = {query: grades for judgements in dataset.qrels.values() for query, grades in judgements.items()}
    groups = {query: dataset.groups.get(query, query) for query in judged}
    packages = {query: dataset.fields.get(query, {}).get("package") or groups[query] for query in judged}
    halves = group_split(packages, {"test": len(judged) // 2})
    held_out = {query: groups[query] for query in halves["test"]}
    members = {"train": halves["train"], **group_split(held_out, {"dev": len(held_out) // 3}, rest="test")}
    return replace(dataset, qrels={split: {query: judged[query] for query in members[split]} for split in SPLITS})
