"""mteb in both directions: our datasets as its tasks, and its tasks on our models, with predictions per item.

mteb's own scores stay mteb's: the task is run by `mteb.evaluate`, without its cache, so that nothing is read from or
left in the home folder.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.metrics import CUTOFFS
from embedlab.models.api import ApiModel
from embedlab.models.sides import sides_of

if TYPE_CHECKING:
    from mteb import TaskMetadata
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from sentence_transformers import SentenceTransformer

SUBSET = "default"  # mteb's name for the only subset of a task
LANGUAGE = "eng-Latn"  # of local tasks: mteb needs one, and no score depends on it
LANGUAGES = {  # mteb's names of languages; others are called English
    **{"en": LANGUAGE, "de": "deu-Latn", "es": "spa-Latn", "fr": "fra-Latn", "pt": "por-Latn", "it": "ita-Latn"},
    **{"nl": "nld-Latn", "pl": "pol-Latn", "sv": "swe-Latn", "tr": "tur-Latn", "id": "ind-Latn", "vi": "vie-Latn"},
    **{"ru": "rus-Cyrl", "uk": "ukr-Cyrl", "el": "ell-Grek", "ar": "ara-Arab", "fa": "fas-Arab", "he": "heb-Hebr"},
    **{"hi": "hin-Deva", "bn": "ben-Beng", "ta": "tam-Taml", "th": "tha-Thai"},
    **{"zh": "zho-Hans", "zh_tw": "zho-Hant", "ja": "jpn-Jpan", "ko": "kor-Hang"},
}


@dataclass(frozen=True, eq=False)
class TaskResult:
    """Result of mteb on one split of a task.

    Attributes:
        main_score: the task's main score; `metric` is its name.
        metric: e.g. `ndcg_at_10`, `cosine_spearman`, `accuracy`, `v_measure`.
        scores: all scores of mteb.
        predictions: the model's predictions; their form depends on the task type.
        by_subset: subset, such as a pair of languages -> main score. `scores` and `predictions` are those of the first.
    """

    main_score: float
    metric: str
    scores: dict[str, Any]
    predictions: Any
    by_subset: dict[str, float]


def run_task(model: SentenceTransformer, task: AbsTask) -> TaskResult:
    """Run mteb on its task's first evaluation split.

    Args:
        model: any sentence-transformers model, or an API model.
        task: with its data loaded or reachable; use a new task for every model, because tasks draw random numbers.

    Raises:
        DataError: the task's data must come from the hub, which cannot be reached.
    """
    import mteb

    _load(task)
    with tempfile.TemporaryDirectory() as folder:
        encoder = _for_mteb(model) if isinstance(model, ApiModel) else model
        result = mteb.evaluate(
            encoder, task, cache=None, co2_tracker=False, prediction_folder=folder, show_progress_bar=False
        )
        path = Path(folder) / task.prediction_file_name
        predictions_file = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    split = task.eval_splits[0]
    subsets = result.task_results[0].scores[split]
    scores, by_subset = subsets[0], {subset["hf_subset"]: subset["main_score"] for subset in subsets}
    predictions = predictions_file.get(scores["hf_subset"], {}).get(split)
    main_score = sum(by_subset.values()) / len(by_subset)  # mteb's mean over subsets
    return TaskResult(main_score, task.metadata.main_score, scores, predictions, by_subset)


def _for_mteb(model: ApiModel) -> Any:
    """Return an API model with the interface of mteb's encoders."""
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta
    from mteb.types import PromptType

    class ApiEncoder(AbsEncoder):
        mteb_model_meta = ModelMeta.create_empty({"name": f"api/{model.fingerprint}", "revision": model.fingerprint})

        def encode(self, inputs: Any, *, prompt_type: PromptType | None = None, **_: Any) -> Any:
            query, document = sides_of(model)
            side = query if prompt_type is PromptType.query else document
            return side.model.encode([text for batch in inputs for text in batch["text"]], prompt=side.prompt)

    return ApiEncoder()


def task_by_name(name: str) -> AbsTask:
    """Return one of mteb's own tasks; its data is loaded from the hub when it is first needed.

    Raises:
        ParameterError: mteb has no task of that name.
    """
    import mteb

    try:
        return mteb.get_task(name)
    except KeyError as error:
        remedy = "mteb.get_tasks() lists them all"
        raise ParameterError(str(error.args[0]).partition(": ")[2] or str(error), remedy=remedy, field="task") from None


def retrieval_task(dataset: Dataset, split: str = "test") -> AbsTaskRetrieval:
    """Build an mteb retrieval task from a split of a dataset.

    Queries without a positive are left out, as in mteb. Scores are computed at the usual cutoffs. If a query is in the
    corpus under its own id, mteb leaves that document out.

    Args:
        dataset: queries, corpus and qrels.
        split: whose queries.

    Raises:
        ParameterError: no query of the split has a positive.
    """
    positives = _positives(dataset, split)
    return _retrieval_task(dataset, split, {SUBSET: positives}, [LANGUAGE])


def cross_lingual_task(dataset: Dataset, split: str = "test") -> AbsTaskRetrieval:
    """Build an mteb retrieval task with a subset for every pair of languages, such as `de-en`.

    All subsets search the whole corpus. Otherwise it is like `retrieval_task`.

    Args:
        dataset: its queries have the field `pair`, as those of `icd10multi` and `parallel` have.
        split: whose queries.

    Raises:
        ParameterError: a query has no pair of languages, or no query of the split has a positive.
    """
    pairs: dict[str, dict[str, dict[str, int]]] = {}
    for query, grades in _positives(dataset, split).items():
        pair = dataset.fields.get(query, {}).get("pair", "")
        if not pair:
            problem, remedy = f"query '{query}' has no field 'pair'", "Use icd10multi:de-en or parallel:FILE"
            raise ParameterError(problem, remedy=remedy, field="fields")
        pairs.setdefault(pair, {})[query] = grades
    languages = {pair: list(dict.fromkeys(_language(name) for name in re.split(r"[-+]", pair))) for pair in pairs}
    return _retrieval_task(dataset, split, pairs, languages)


def _language(name: str) -> str:
    """mteb's name of a language such as `de` or `pt_br`."""
    return LANGUAGES.get(name) or LANGUAGES.get(name.partition("_")[0], LANGUAGE)


def _positives(dataset: Dataset, split: str) -> dict[str, dict[str, int]]:
    """Query id -> its positives, of the queries that have any."""
    positives = {q: {d: g for d, g in grades.items() if g > 0} for q, grades in dataset.qrels.get(split, {}).items()}
    positives = {query: grades for query, grades in positives.items() if grades}
    if not positives:
        raise ParameterError(f"{dataset.name} has no {split} queries with positives", remedy="Name another split")
    return positives


def _retrieval_task(
    dataset: Dataset,
    split: str,
    subsets: Mapping[str, dict[str, dict[str, int]]],
    languages: list[str] | dict[str, list[str]],
) -> AbsTaskRetrieval:
    """Build an mteb retrieval task of subsets: name -> query id -> positives."""
    from datasets import Dataset as Table
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    metadata = task_metadata(dataset.name, "Retrieval", "ndcg_at_10", split, languages=languages)
    task = type("LocalRetrieval", (AbsTaskRetrieval,), {"metadata": metadata, "k_values": CUTOFFS})()
    task.ignore_identical_ids = bool(dataset.own_documents(split))
    corpus = Table.from_dict({"id": list(dataset.corpus), "text": list(dataset.corpus.values())})
    data = {}
    for name, positives in subsets.items():
        queries = Table.from_dict({"id": list(positives), "text": [dataset.queries[query] for query in positives]})
        data[name] = {split: {"corpus": corpus, "queries": queries, "relevant_docs": positives, "top_ranked": None}}
    return with_data(task, data)


def with_data(task: AbsTask, data: Any) -> AbsTask:
    """Give a task its data instead of the hub's: subset -> split -> rows, or split -> rows, as its type expects."""
    task.dataset, task.data_loaded = data, True
    return task


def task_metadata(
    name: str, kind: str, metric: str, split: str, *, languages: list[str] | dict[str, list[str]] | None = None
) -> TaskMetadata:
    """Build the metadata of a task that exists only on this machine.

    Args:
        name: of the data; characters that do not belong in a file name become hyphens.
        kind: mteb's task type, e.g. "Retrieval".
        metric: mteb's name of the main score.
        split: the split to evaluate.
        languages: mteb's names of the languages, or subset -> names; English when None.
    """
    from mteb import TaskMetadata

    return TaskMetadata(
        name=re.sub(r"\W+", "-", name).strip("-") or "local",
        description=f"{kind} on {name}",
        dataset={"path": "local", "revision": "local"},
        type=kind,
        category="t2c" if kind in ("Classification", "Clustering") else "t2t",
        eval_splits=[split],
        eval_langs=[LANGUAGE] if languages is None else languages,
        main_score=metric,
        is_public=False,
    )


def _load(task: AbsTask) -> None:
    """Load what is not there yet; without a hub this fails here, with a remedy, and not deep inside."""
    if task.data_loaded:
        return
    name = task.metadata.name
    try:
        task.load_data()
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise DataError(
            f"the data of mteb's {name} cannot be loaded ({reason})",
            remedy="Connect to the model hub, or use a file: sts:FILE, classification:FILE, clustering:FILE",
            field="task",
        ) from error
