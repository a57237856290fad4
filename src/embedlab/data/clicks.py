"""`clicks:FILE`: training pairs and hard negatives from a click log; its columns are those of `click_log`."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from embedlab.data import textio
from embedlab.data.click_log import CORPUS, ClickLog, read_log
from embedlab.data.click_model import judge
from embedlab.data.dataset import Dataset, Qrels, Triplet
from embedlab.data.splits import complete
from embedlab.errors import DataError

logger = logging.getLogger(__name__)


def load(location: str, *, name: str, split_by: str = "document") -> Dataset:
    """The log as a dataset: positives and hard negatives as `click_model.judge` finds them with its defaults.

    Raises:
        DataError: with file, line and field of whatever is malformed; no document is clearly clicked more than others.
    """
    path = Path(location).expanduser()
    log = read_log(path)
    return to_dataset(log, judge(log), name=name, split_by=split_by, file=path)


def source_fingerprint(location: str) -> str:
    """Hash of the log and, if there is one, of the corpus beside it."""
    path = textio.existing(Path(location).expanduser())
    beside = path.parent / CORPUS
    return textio.fingerprint([path, *([beside] if beside.is_file() else [])])


def to_dataset(
    log: ClickLog,
    verdicts: pd.DataFrame,
    *,
    name: str,
    split_by: str = "document",
    hard_negatives: int = 3,
    file: Path | None = None,
) -> Dataset:
    """Verdicts as a dataset with splits made by groups.

    Args:
        log: gives the texts.
        verdicts: from `click_model.judge`.
        name: the dataset's.
        split_by: see `Dataset`.
        hard_negatives: most triplets per positive, those shown most often first.
        file: what errors point at.

    Raises:
        DataError: no verdict is "positive".
    """
    positives = _by_query(verdicts, "positive", by="relevance")
    if not positives:
        remedy = (
            "Gather more impressions, judge with fewer min_impressions or a lower level, or drop the column 'position' "
            "where pages never vary and their places cannot be told apart."
        )
        raise DataError("no document is clearly clicked more often than the average", remedy=remedy, file=file)
    judged: Qrels = {query: dict.fromkeys(documents, 1) for query, documents in positives.items()}
    qrels, groups = complete({"train": judged}, log.queries, log.documents, split_by=split_by)
    negatives = _by_query(verdicts, "negative", by="impressions")
    logger.info("%s: %s", name, verdicts["verdict"].replace("", "undecided").value_counts().to_dict())
    return Dataset(
        name=name,
        corpus=log.documents,
        queries={query: log.queries[query] for part in qrels.values() for query in part},
        qrels=qrels,
        triplets=tuple(
            Triplet(log.queries[query], log.documents[positive], log.documents[negative])
            for query, grades in qrels["train"].items()
            for positive in grades
            for negative in negatives.get(query, ())[:hard_negatives]
        ),
        groups=groups,
        split_by=split_by,
    )


def _by_query(verdicts: pd.DataFrame, verdict: str, by: str) -> dict[str, list[str]]:
    """Query id -> document ids with this verdict, largest `by` first."""
    chosen = verdicts[verdicts["verdict"] == verdict].sort_values(by, ascending=False, kind="stable")
    return chosen.groupby("query", sort=False)["document"].agg(list).to_dict()
