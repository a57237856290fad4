"""mteb as a referee: the same numbers on the same run, its own tasks on local data, clear words without a hub."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.data.load import load_dataset
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.cross_lingual import quality_by_language
from embedlab.evaluation.local_tasks import local_task
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.mteb_tasks import cross_lingual_task, retrieval_task, run_task, task_by_name, with_data
from embedlab.evaluation.retrieval import evaluate_retrieval
from embedlab.search.exact import Ranking
from embedlab.search.vectors import encode_split
from tests.conftest import tiny_model

SHARED = os.environ.get("EMBEDLAB_SHARED_DATASETS", "")
needs_shared = pytest.mark.skipif(not SHARED, reason="EMBEDLAB_SHARED_DATASETS names no folder with stsb and banking77")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_our_metrics_are_mtebs_on_the_smoke_dataset():
    data, model = load_dataset("icd10cm:smoke"), tiny_model()
    official = run_task(model, retrieval_task(data))
    ours = evaluate(Ranking.from_scores(official.predictions), data.qrels["test"]).means()
    for name in ("ndcg", "map", "recall", "precision", "mrr"):
        for k in (1, 3, 5, 10, 100):
            assert official.scores[f"{name}_at_{k}"] == pytest.approx(ours[f"{name}@{k}"], abs=6e-6), (name, k)
    assert official.main_score == official.scores["ndcg_at_10"] and official.metric == "ndcg_at_10"
    assert official.predictions.keys() == data.qrels["test"].keys()
    # Encoded by us in other batches, scores differ in the seventh digit, which settles near-ties differently.
    assert evaluate_retrieval(model, data)[32].mean("ndcg@10") == pytest.approx(official.main_score, abs=1e-3)


def test_grades_and_queries_without_positives(tiny):
    corpus = {f"d{i}": text for i, text in enumerate(["fracture of arm", "cholera", "asthma", "pain in arm", ""])}
    queries = {"a": "broken arm", "b": "cholera", "c": "nothing"}
    data = Dataset(
        "x y/z", corpus, queries, {"test": {"a": {"d0": 3, "d3": 1, "d1": 0}, "b": {"d1": 1}, "c": {"d2": 0}}}
    )
    task = retrieval_task(data)
    assert task.metadata.name == "x-y-z"
    official, ours = run_task(tiny, task), evaluate_retrieval(tiny, data)[32]
    assert ours.n == 2
    assert official.main_score == pytest.approx(ours.mean("ndcg@10"), abs=2e-5)


def test_languages_are_subsets_with_our_numbers():
    """Queries in two languages search a corpus in both: mteb's value of every subset is ours of the language."""
    import mteb

    data, model = load_dataset("icd10multi:de+el-en+de:smoke"), tiny_model()
    task = cross_lingual_task(data)
    assert task.metadata.eval_langs == {
        "de-en+de": ["deu-Latn", "eng-Latn"],
        "el-en+de": ["ell-Grek", "eng-Latn", "deu-Latn"],
    }
    official, vectors = run_task(model, task), encode_split(model, data, "test")
    table = quality_by_language({"tiny": vectors.rank(100)}, data.qrels["test"], data.fields)
    for language, value in zip(table["slice"], table["mean"], strict=True):
        assert official.by_subset[f"{language}-en+de"] == pytest.approx(value, abs=1e-3), language
    whole = mteb.evaluate(model, cross_lingual_task(data), cache=None, show_progress_bar=False).task_results[0]
    assert official.main_score == pytest.approx(whole.get_score())


def test_languages_in_every_script_have_mteb_s_names():
    names = ["ru", "el", "ar", "he", "hi", "th", "ta", "zh", "ja", "ko", "pt_br"]
    data = Dataset(
        "names",
        corpus={"d": "a pump"},
        queries={name: f"pump in {name}" for name in names},
        qrels={"test": {name: {"d": 1} for name in names}},
        fields={name: {"language": name, "pair": f"{name}-en"} for name in names},
    )
    found = cross_lingual_task(data).metadata.eval_langs
    assert all(languages[1] == "eng-Latn" for languages in found.values())
    assert [found[f"{name}-en"][0] for name in names] == [
        *("rus-Cyrl", "ell-Grek", "ara-Arab", "heb-Hebr", "hin-Deva", "tha-Thai", "tam-Taml"),
        *("zho-Hans", "jpn-Jpan", "kor-Hang", "por-Latn"),
    ]


def test_languages_need_their_field():
    with pytest.raises(ParameterError, match="no field 'pair'"):
        cross_lingual_task(load_dataset("icd10cm:smoke"))


def test_a_split_without_positives_is_refused():
    with pytest.raises(ParameterError, match="no dev queries with positives"):
        retrieval_task(Dataset("x", {"d": "t"}, {"q": "t"}, {"dev": {"q": {"d": 0}}}), "dev")


def test_a_task_by_name_fails_clearly_without_a_hub(tiny, monkeypatch):
    task = task_by_name("STSBenchmark")
    monkeypatch.setattr("mteb.abstasks.abstask.load_dataset", unreachable)
    with pytest.raises(DataError, match="STSBenchmark cannot be loaded .*offline.*sts:FILE"):
        run_task(tiny, task)


def unreachable(*args, **kwargs):
    raise ConnectionError("offline")


def test_an_unknown_task_is_named():
    with pytest.raises(ParameterError, match="NoSuchTask"):
        task_by_name("NoSuchTask")


@needs_shared
@pytest.mark.slow
def test_the_published_stsbenchmark_score_of_the_base_model():
    from embedlab.models.load import load_model

    local = local_task("sts", Path(SHARED) / "stsb" / "test.csv")
    result = run_task(load_model(), with_data(task_by_name("STSBenchmark"), local.dataset))
    assert 100 * result.main_score == pytest.approx(82.03, abs=0.05)
    assert len(result.predictions["cosine_scores"]) == 1379


@needs_shared
@pytest.mark.long
def test_the_published_banking77_score_of_the_base_model():
    from embedlab.models.load import load_model

    local = local_task("classification", Path(SHARED) / "banking77")
    result = run_task(load_model(), with_data(task_by_name("Banking77Classification"), local.dataset))
    assert 100 * result.main_score == pytest.approx(80.04, abs=0.3)
    assert np.array(result.predictions).shape == (10, 3080)


def test_a_result_file_is_what_mteb_writes_and_reads(tmp_path):
    """The scores of a record, as a file in mteb's cache: equal to those that mteb computes and stores itself."""
    import mteb

    from embedlab.evaluation.mteb_files import write_mteb_result
    from embedlab.models.evidence import Score
    from tests.unit.test_evidence import collected

    data, model = load_dataset("icd10cm:smoke"), tiny_model()
    official = mteb.evaluate(model, retrieval_task(data), cache=None, show_progress_bar=False).task_results[0]
    means = evaluate_retrieval(model, data)[32].means()
    scores = [Score(metric=metric, value=value) for metric, value in means.items()]
    evidence = collected()
    facts = evidence.data.model_copy(update={"name": "icd10cm:smoke"})
    file = write_mteb_result(evidence.model_copy(update={"scores": scores, "data": facts}), tmp_path, name="me/model")
    cache = mteb.ResultCache(tmp_path)
    loaded = cache.load_task_result("icd10cm-smoke", "me/model", evidence.model.fingerprint)
    assert file == cache.get_task_result_path("icd10cm-smoke", "me/model", evidence.model.fingerprint)
    assert loaded.task_name == official.task_name and loaded.dataset_revision == facts.test_fingerprint
    assert loaded.main_score == loaded.scores["test"][0]["ndcg_at_10"]
    (ours,), (theirs,) = loaded.scores["test"], official.scores["test"]
    assert set(ours) <= set(theirs) and (ours["hf_subset"], ours["languages"]) == ("default", ["eng-Latn"])
    for name in (name for name in ours if "_at_" in name):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-3), name


def test_a_result_file_needs_the_main_score(tmp_path):
    from embedlab.errors import ModelError
    from embedlab.evaluation.mteb_files import write_mteb_result
    from tests.unit.test_evidence import collected

    with pytest.raises(ModelError, match="no ndcg@10 on test"):
        write_mteb_result(collected().model_copy(update={"scores": []}), tmp_path)
