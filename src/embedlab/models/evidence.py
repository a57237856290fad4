"""What is known about a model, in its folder: `evidence.json`, which belongs to exactly these files.

The file has its own SHA-256, the hash of every file of the model, and the fingerprints of the model, its vector space
and the data. Evidence that was edited, or copied to another model, is noticed when it is read or checked. The hashes
protect against mistakes, not against somebody who computes them again: to be sure, score the model again with
`embedlab verify`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedlab.errors import ModelError
from embedlab.io import sha256_of, sha256_of_json, write_atomic

FILE = "evidence.json"
CARD = "README.md"
SCHEMA: Final = 1
Kind = Literal["SentenceTransformer", "CrossEncoder", "SparseEncoder", "MultiVectorEncoder", "ApiModel"]
SCORED = ("SentenceTransformer", "ApiModel")  # one vector per text: what `embedlab verify` scores again
NOT_HASHED = (FILE, CARD)  # they change without changing an embedding


class Part(BaseModel):
    """A part of the evidence: frozen, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Score(Part):
    """A mean over the test queries with its 95 % interval.

    Attributes:
        metric: e.g. "ndcg@10".
        value: the mean; None if it is missing.
        ci_low, ci_high: ends of the interval; None if there is none.
        n: number of queries.
    """

    metric: str
    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None

    @property
    def has_interval(self) -> bool:
        """Whether the score has a value and both ends of the interval."""
        return None not in (self.value, self.ci_low, self.ci_high)

    def contains(self, value: float) -> bool:
        """Whether a value is inside the interval."""
        return self.ci_low is not None and self.ci_high is not None and self.ci_low <= value <= self.ci_high


class TaskDifference(Score):
    """What the fine-tuning changed on another task or domain: fine-tuned model minus base model.

    Attributes:
        task: the dataset or task.
    """

    task: str


class SliceDifference(Score):
    """The paired gain on a part of the test queries; `value` is fine-tuned model minus base model.

    Attributes:
        field: what the queries are divided by, e.g. "length".
        name: the part, e.g. "1-3 words".
        model, base: mean of either model.
        is_regression: whether the loss is significant, corrected for the number of slices.
    """

    field: str
    name: str
    model: float | None
    base: float | None
    is_regression: bool = False


class BaseFacts(Part):
    """The base model.

    Attributes:
        name: short name or hub name, with options; of a folder, only its own name.
        hub_name: its name on the hub; "" for a folder, so that others must be told where the base model is.
        fingerprint: `models.fingerprint.model_fingerprint`; "" if it is not known.
        licence: as its model card says; "" if it is not known.
    """

    name: str
    hub_name: str = ""
    fingerprint: str = ""
    licence: str = ""


class DataFacts(Part):
    """The data that the model was trained and tested on.

    Attributes:
        name: dataset spec without folders.
        fingerprint: hash of the source files.
        test_fingerprint: hash of the test queries, their judgements and the corpus; "" if it is not known.
        documents: number of documents; None if it is not known.
        queries: split -> number of queries.
        leaks: training examples that were dropped because they reveal held-out queries: kind -> number; None if it is
            not known.
        scripts: writing systems of the test queries.
    """

    name: str
    fingerprint: str = ""
    test_fingerprint: str = ""
    documents: int | None = None
    queries: dict[str, int] = Field(default_factory=dict)
    leaks: dict[str, int] | None = None
    scripts: list[str] = Field(default_factory=list)


class ModelFacts(Part):
    """The model that the evidence belongs to.

    Attributes:
        kind: class of sentence-transformers; `ApiModel` for what was trained for a model behind an API.
        fingerprint: `models.fingerprint.model_fingerprint`.
        space: fingerprint of its vector space, see `deploy.space`; "" for other kinds than an embedding model.
        dimension: of the embeddings; None for other kinds than an embedding model.
        max_seq_length: tokens after which a text is truncated.
        files: path in the folder -> SHA-256.
    """

    kind: Kind = "SentenceTransformer"
    fingerprint: str
    space: str = ""
    dimension: int | None = None
    max_seq_length: int | None = None
    files: dict[str, str] = Field(default_factory=dict)


class Recipe(Part):
    """How the model was made.

    Attributes:
        notebook: the notebook that trained it.
        system: its name in the record.
        technique: the family of the system, e.g. "contrastive".
        description: one line for a reader who does not know the system.
        settings: what the notebook chose itself; "" if nothing.
        seed: of the run.
        parameters: the other parameters of the notebook.
    """

    notebook: str
    system: str
    technique: str
    description: str
    settings: str = ""
    seed: int = 0
    parameters: dict[str, Any] = Field(default_factory=dict)


class SplitUse(Part):
    """How often the test split was scored when the evidence was written.

    Attributes:
        runs: runs that scored it, this one included.
        systems: systems that this run scored on it.
    """

    runs: int
    systems: int


class Evidence(Part):
    """Everything that a reader needs to judge a model, without training texts.

    Attributes:
        schema_version: of this format; `schema` in the file.
        run_id: the run that made the model.
        record: SHA-256 of the run's record.
        model, base, data, recipe, test_use: see there.
        scores, base_scores: of the fine-tuned model and of the base model on test, at full width.
        gains: paired differences, fine-tuned model minus base model, on test.
        slices: the gain of the first metric in parts of the test queries.
        other_tasks: changes on other domains and tasks; negative values are forgetting.
        truncated: "documents" or "queries" -> share that is longer than the model reads.
        untrained: whether no training step improved the base model.
        limits: what the evidence does not show, one sentence each.
        versions: package -> version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    schema_version: Literal[1] = Field(default=SCHEMA, alias="schema")
    run_id: str
    record: str = ""
    model: ModelFacts
    base: BaseFacts
    data: DataFacts
    recipe: Recipe
    scores: list[Score]
    base_scores: list[Score] = Field(default_factory=list)
    gains: list[Score] = Field(default_factory=list)
    slices: list[SliceDifference] = Field(default_factory=list)
    other_tasks: list[TaskDifference] = Field(default_factory=list)
    test_use: SplitUse | None = None
    truncated: dict[str, float] = Field(default_factory=dict)
    untrained: bool = False
    limits: list[str] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def gain(self) -> Score | None:
        """The gain that decides; None if the model was not compared with the base model."""
        return next((gain for gain in self.gains if gain.value is not None), None)

    def content(self) -> dict[str, Any]:
        """Return what stands in the file, apart from the SHA-256."""
        return self.model_dump(mode="json", by_alias=True)


def write(evidence: Evidence, folder: Path) -> Path:
    """Write the evidence of a model to its folder and return the file."""
    content = evidence.content()
    text = json.dumps({**content, "sha256": sha256_of_json(content)}, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / FILE, f"{text}\n")
    return folder / FILE


def read(folder: Path) -> Evidence:
    """Read the evidence of a model folder.

    Raises:
        ModelError: there is no folder or no evidence, it was changed after it was written, or a newer version of
            embedlab wrote it.
    """
    file = folder / FILE
    if not folder.is_dir():
        raise ModelError("there is no such model folder", remedy="Check the path", file=folder)
    try:
        content = json.loads(file.read_bytes())
        sha256 = content.pop("sha256")
        schema = content.get("schema")
    except FileNotFoundError:
        remedy = "Write it from the record of the run: embedlab evidence RUN_ID"
        raise ModelError("the model has no evidence", remedy=remedy, file=file) from None
    except OSError as error:
        problem = f"the evidence cannot be read ({error.strerror})"
        raise ModelError(problem, remedy="Check its permissions", file=file) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged(file, "it is not JSON with a SHA-256") from None
    if isinstance(schema, int) and schema > SCHEMA:
        problem = f"a newer version of embedlab wrote this evidence (schema {schema}, this version reads {SCHEMA})"
        raise ModelError(problem, remedy="Update embedlab", file=file)
    if sha256_of_json(content) != sha256:
        raise _damaged(file, "its SHA-256 does not match")
    try:
        return Evidence.model_validate(content)
    except ValidationError as error:
        raise _damaged(file, f"the field {'.'.join(map(str, error.errors()[0]['loc']))} has a wrong value") from None


def _damaged(file: Path, reason: str) -> ModelError:
    remedy = "Copy it again from where the model was made, or write it from the record: embedlab evidence RUN_ID"
    return ModelError(f"the evidence was changed or is damaged ({reason})", remedy=remedy, file=file)


def hash_files(folder: Path) -> dict[str, str]:
    """Return path -> SHA-256 of the files of a model folder, without the card, the evidence and hidden files."""
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in sorted(_files(folder))}


def _files(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        path = file.relative_to(folder)
        is_hidden = any(name.startswith(".") or name == "__pycache__" for name in path.parts)
        if file.is_file() and not is_hidden and path.as_posix() not in NOT_HASHED:
            yield file


def require_same_files(evidence: Evidence, folder: Path) -> None:
    """Check that the files of a model folder are those that the evidence was written for; more files may be there.

    Raises:
        ModelError: a file is missing or differs.
    """
    hashes = hash_files(folder)
    changed = [name for name, sha256 in evidence.model.files.items() if hashes.get(name) != sha256]
    if changed:
        state = "differs from" if changed[0] in hashes else "is missing, but is in"
        more = f" ({len(changed)} files differ)" if len(changed) > 1 else ""
        problem = f"the evidence belongs to another model: {changed[0]} {state} the model of {evidence.run_id}{more}"
        raise ModelError(problem, remedy="Use the model and the evidence of the same run", file=folder)


def require_same_model(evidence: Evidence, fingerprint: str, folder: Path) -> None:
    """Check the fingerprint of a loaded model.

    Raises:
        ModelError: the evidence is of another model.
    """
    if evidence.model.fingerprint != fingerprint:
        problem = f"the model's fingerprint is {fingerprint}, and that of the evidence is {evidence.model.fingerprint}"
        raise ModelError(problem, remedy="Use the model and the evidence of the same run", file=folder)
