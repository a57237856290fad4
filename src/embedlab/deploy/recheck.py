"""Evaluate a version when it is built, and again on new data; every result is kept.

A check is one JSON line in `<build>.checks.jsonl` next to the version. The version itself never changes.
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
    """One check of a version.

    Attributes:
        version: the version.
        found: its score now.
        stored: its score when it was built; None if it was not evaluated then.
        data_fingerprint: of the new data.
        missing_documents: documents of the new data that the version does not have.
        gone_documents: documents of the version that the new data does not have.
        worse: the whole interval of the new score is below the stored value.
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
    """Compute nDCG@10 of the version as it is served, including losses of the index, with a bootstrap interval.

    Args:
        served: the open version.
        encoder: the model of its space.
        dataset: queries and qrels.
        split: whose queries.

    Raises:
        SpaceMismatch: the encoder has another space.
        ParameterError: the split has no queries.
    """
    queries = dataset.split_queries(split)
    if not queries:
        raise ParameterError(f"{dataset.name} has no {split} queries", remedy="Choose another split", field="split")
    depth = K + bool(dataset.own_documents(split))  # `evaluate` leaves a query's own document out
    evaluation = evaluate(served.rank(encoder, queries, depth), dataset.qrels[split], [K])
    interval = bootstrap_ci(evaluation.of(f"ndcg@{K}"))
    value, low, high = (None if number != number else number for number in (interval.mean, interval.low, interval.high))
    return Judged(
        dataset=dataset.name, split=split, metric=f"ndcg@{K}", value=value, ci_low=low, ci_high=high, n=interval.n
    )


def recheck(
    root: Path, encoder: Encoder, dataset: Dataset, *, version: str | None = None, data_fingerprint: str = ""
) -> Check:
    """Repeat the stored evaluation on new data and append the result to the checks.

    Args:
        root: folder of all versions.
        encoder: the model of the version's space.
        dataset: the new data; the split is that of the stored evaluation, or test.
        version: the served version by default.
        data_fingerprint: of the new data.

    Raises:
        SpaceMismatch: the encoder has another space.
        StorageError: the version is damaged, or the check cannot be written.
    """
    served = open_version(root, version)
    stored = served.manifest.judged
    current = judge(served, encoder, dataset, stored.split if stored else "test")
    served_ids = set(served.ids)
    check = Check(
        version=served.manifest.version,
        found=current,
        stored=stored,
        data_fingerprint=data_fingerprint,
        missing_documents=len(dataset.corpus.keys() - served_ids),
        gone_documents=len(served_ids - dataset.corpus.keys()),
        worse=_is_worse(current, stored),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path = checks_file(root, check.version)
    with storage_errors(path):
        append_line(path, check.model_dump_json())
    return check


def checks_file(root: Path, version: str) -> Path:
    """Return the file with the checks of a version."""
    folder = version_folder(root, version)
    return folder.with_name(f"{folder.name}.checks.jsonl")


def read_checks(root: Path, version: str) -> list[Check]:
    """Read all checks of a version, oldest first.

    Raises:
        StorageError: a line is damaged.
    """
    path, checks = checks_file(root, version), []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), start=1):
        try:
            checks.append(Check.model_validate_json(line))
        except ValidationError:
            raise StorageError("The line is damaged", remedy="Remove the line", file=path, line=number) from None
    return checks


def _is_worse(current: Judged, stored: Judged | None) -> bool:
    if stored is None or stored.value is None or current.ci_high is None:
        return False
    return current.ci_high < stored.value
