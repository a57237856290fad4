"""Judge a version, when it is built and again whenever there is fresh data, and keep every answer.

A check is one JSON line in `<build>.checks.jsonl` beside the version, which itself never changes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from embedlab.data.dataset import Dataset
from embedlab.deploy.files import storage_errors
from embedlab.deploy.serve import Served, open_version
from embedlab.deploy.space import Encoder
from embedlab.deploy.versions import Judged, version_folder
from embedlab.errors import ParameterError, StorageError
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import bootstrap_ci
from embedlab.io import append_line

K = 10


class Check(BaseModel):
    """One line of the checks of a version.

    Attributes:
        version: what was judged.
        found: what it scores now.
        stored: what it scored when it was built; None when it was not judged then.
        data_fingerprint: of the fresh data.
        missing_documents: documents of the fresh data that the version does not hold.
        gone_documents: documents of the version that the fresh data no longer has.
        worse: the whole interval of now lies below the value of then.
        time: UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: str
    found: Judged
    stored: Judged | None
    data_fingerprint: str = ""
    missing_documents: int = 0
    gone_documents: int = 0
    worse: bool = False
    time: str = ""


def judge(served: Served, encoder: Encoder, dataset: Dataset, split: str = "test") -> Judged:
    """nDCG@10 of the version as it is served, its index's losses included, with a bootstrap interval over queries.

    Raises:
        SpaceMismatch: the encoder works in another space.
        ParameterError: the dataset has no such queries.
    """
    queries = dataset.split_queries(split)
    if not queries:
        raise ParameterError(f"{dataset.name} has no {split} queries", remedy="Choose another split", field="split")
    evaluation = evaluate(served.rank(encoder, queries, K), dataset.qrels[split], [K])
    interval = bootstrap_ci(evaluation.of(f"ndcg@{K}"))
    value, low, high = (None if number != number else number for number in (interval.mean, interval.low, interval.high))
    return Judged(
        dataset=dataset.name, split=split, metric=f"ndcg@{K}", value=value, ci_low=low, ci_high=high, n=interval.n
    )


def recheck(
    root: Path, encoder: Encoder, dataset: Dataset, *, version: str | None = None, data_fingerprint: str = ""
) -> Check:
    """Make the stored evaluation again on fresh data, and write the line.

    Args:
        root: folder of all versions.
        encoder: of the version's space.
        dataset: the data as it is now; the split is the one judged when the version was built, or test.
        version: the served one when not given.
        data_fingerprint: of the data, for the line.

    Raises:
        SpaceMismatch: the encoder works in another space.
        StorageError: the version is damaged, or the line cannot be written.
    """
    served = open_version(root, version)
    stored = served.manifest.judged
    found = judge(served, encoder, dataset, stored.split if stored else "test")
    served_ids = set(served.ids)
    check = Check(
        version=served.manifest.version,
        found=found,
        stored=stored,
        data_fingerprint=data_fingerprint,
        missing_documents=len(dataset.corpus.keys() - served_ids),
        gone_documents=len(served_ids - dataset.corpus.keys()),
        worse=_is_worse(found, stored),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path = checks_file(root, check.version)
    with storage_errors(path):
        append_line(path, check.model_dump_json())
    return check


def checks_file(root: Path, version: str) -> Path:
    """Where the checks of a version are kept."""
    folder = version_folder(root, version)
    return folder.with_name(f"{folder.name}.checks.jsonl")


def read_checks(root: Path, version: str) -> list[Check]:
    """Every check of a version, oldest first.

    Raises:
        StorageError: a line is damaged.
    """
    path, checks = checks_file(root, version), []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), start=1):
        try:
            checks.append(Check.model_validate_json(line))
        except ValidationError:
            raise StorageError("the line is damaged", remedy="Remove it", file=path, line=number) from None
    return checks


def _is_worse(current: Judged, stored: Judged | None) -> bool:
    if stored is None or stored.value is None or current.ci_high is None:
        return False
    return current.ci_high < stored.value
