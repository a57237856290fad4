"""`clicks:FILE`: training pairs and hard negatives from a click log; `click_log` describes the columns."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from embedlab.data import textio
from embedlab.data.click_log import CORPUS, ClickLog, read_log
from embedlab.data.click_model import judge
from embedlab.data.dataset import Dataset, Qrels, Triplet
from embedlab.data.splits import complete_splits
from embedlab.errors import DataError

HARD_NEGATIVES = 3  # triplets per positive
MORE_QUERIES = "Collect clicks on other documents."

logger = logging.getLogger(__name__)


def load(location: str, *, name: str, split_by: str = "document") -> Dataset:
    """Read a click log as a dataset, with positives and hard negatives from `click_model.judge`.

    Args:
        location: the file.
        name: the dataset's name.
        split_by: see `Dataset`.

    Raises:
        DataError: the file is malformed (names file, line and field), or no document is clicked clearly more often
            than the average.
    """
    path = textio.location_path(location)
    log = read_log(path)
    with textio.naming(path):
        return to_dataset(log, judge(log), name=name, split_by=split_by, file=path)


def source_fingerprint(location: str) -> str:
    """Hash the log and, if there is one, the `corpus.jsonl` in the same folder.

    Args:
        location: the file.

    Returns:
        16 hex digits.
    """
    path = textio.find_file(textio.location_path(location))
    corpus = path.parent / CORPUS
    return textio.fingerprint([path, *([corpus] if corpus.is_file() else [])])


def to_dataset(
    log: ClickLog,
    verdicts: pd.DataFrame,
    *,
    name: str,
    split_by: str = "document",
    file: Path | None = None,
) -> Dataset:
    """Turn verdicts into a dataset, with splits made by groups.

    Each positive of the train split gives up to three triplets, with the hard negatives that have most impressions.

    Args:
        log: gives the texts.
        verdicts: from `click_model.judge`.
        name: the dataset's name.
        split_by: see `Dataset`.
        file: the file that error messages name.

    Raises:
        DataError: no verdict is "positive".
    """
    positives = _by_query(verdicts, "positive", by="relevance")
    if not positives:
        remedy = (
            "Collect more impressions, or call judge with a smaller min_impressions or level. If a query always shows "
            "its documents in the same order, position bias cannot be estimated: remove the column 'position'."
        )
        raise DataError("no document is clicked clearly more often than the average", remedy=remedy, file=file)
    judged: Qrels = {query: dict.fromkeys(documents, 1) for query, documents in positives.items()}
    qrels, groups = complete_splits(
        {"train": judged}, log.queries, log.documents, split_by=split_by, remedy=MORE_QUERIES
    )
    negatives = _by_query(verdicts, "negative", by="impressions")
    logger.info("%s: %s", name, verdicts["verdict"].replace("", "undecided").value_counts().to_dict())
    return Dataset(
        name=name,
        corpus=log.documents,
        queries={query: log.queries[query] for judgements in qrels.values() for query in judgements},
        qrels=qrels,
        triplets=tuple(
            Triplet(log.queries[query], log.documents[positive], log.documents[negative])
            for query, grades in qrels["train"].items()
            for positive in grades
            for negative in negatives.get(query, ())[:HARD_NEGATIVES]
        ),
        groups=groups,
        split_by=split_by,
    )


def _by_query(verdicts: pd.DataFrame, verdict: str, by: str) -> dict[str, list[str]]:
    """Query id -> document ids with this verdict, largest `by` first."""
    selected = verdicts[verdicts["verdict"] == verdict].sort_values(by, ascending=False, kind="stable")
    documents: dict[str, list[str]] = selected.groupby("query", sort=False)["document"].agg(list).to_dict()
    return documents
