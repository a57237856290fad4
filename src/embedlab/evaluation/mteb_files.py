"""Test scores as a result file of mteb, so that mteb's own tools and leaderboards read them."""

from __future__ import annotations

from pathlib import Path

from embedlab.errors import ModelError
from embedlab.evaluation.mteb_tasks import SUBSET, task_metadata
from embedlab.models.evidence import Evidence

MAIN = "ndcg@10"
SPLIT = "test"


def write_mteb_result(evidence: Evidence, cache_folder: Path, *, name: str = "") -> Path:
    """Write the scores of a model where `mteb.ResultCache(cache_folder)` finds them.

    The values are those of the record. mteb's own metrics give the same values for the same ranking.

    Args:
        evidence: of the model.
        cache_folder: a result cache of mteb; created if needed.
        name: of the model, as `OWNER/NAME`; `embedlab/RUN_ID` when not given.

    Returns:
        The file. Its model has the fingerprint as revision, and its dataset the fingerprint of the test split.

    Raises:
        ModelError: the evidence has no nDCG@10 on test.
    """
    from mteb import ResultCache
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult

    values = {score.metric: score.value for score in evidence.scores if score.value is not None}
    if MAIN not in values:
        raise ModelError(f"the evidence has no {MAIN} on test", remedy="Score the model with embedlab verify")
    scores = {metric.replace("@", "_at_"): value for metric, value in values.items()}
    metadata = task_metadata(evidence.data.name, "Retrieval", "ndcg_at_10", SPLIT)
    task = type("LocalRetrieval", (AbsTaskRetrieval,), {"metadata": metadata})
    by_split = {SPLIT: {SUBSET: {**scores, "main_score": values[MAIN]}}}
    result = TaskResult.from_task_results(task, by_split, evaluation_time=None)
    revision = evidence.data.test_fingerprint or evidence.data.fingerprint
    result = result.model_copy(update={"dataset_revision": revision})
    meta = ModelMeta.create_empty(
        {"name": name or f"embedlab/{evidence.run_id}", "revision": evidence.model.fingerprint}
    )
    cache = ResultCache(cache_folder)
    cache.save_to_cache(result, meta)
    return Path(cache.get_task_result_path(result.task_name, meta))
