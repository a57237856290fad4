"""The notebook on data sources: executed once at smoke size, its record and files read back."""

from __future__ import annotations

import pandas as pd
import pytest

from embedlab.runs.notebooks import find_notebook
from tests.notebooks.outcomes import run

SMOKE = {"dataset": "icd10cm:smoke", "max_steps": 3, "click_queries": 40, "sessions": [50, 200], "per_document": 3}
TRAINED = ("real", "synthetic, same documents", "synthetic, any document")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return run(find_notebook("02_data"), tmp_path_factory.mktemp("runs"), **SMOKE)


def values(outcome, metric, task):
    return {row.model: row for row in outcome.record.metrics if (row.metric, row.task) == (metric, task)}


@pytest.mark.notebook
class TestRecord:
    def test_every_model_on_the_same_real_test_queries(self, outcome):
        rows = values(outcome, "ndcg@10", "retrieval")
        differences = {f"{a} - base" for a in TRAINED} | {f"{a} - real" for a in TRAINED[1:]}
        assert set(rows) == {"bm25", "base", *TRAINED} | differences
        assert {row.n for row in rows.values()} == {63}
        assert all(row.ci_low <= row.value <= row.ci_high for row in rows.values())
        gain = rows["real"].value - rows["base"].value
        assert rows["real - base"].value == pytest.approx(gain, abs=1e-9)

    def test_clicks(self, outcome):
        taus = values(outcome, "kendall tau", "clicks")
        kinds = ("naive", "corrected", "true theta", "corrected - naive")
        assert set(taus) == {f"{kind}, {count} sessions" for kind in kinds for count in (50, 200)}
        assert all(-1 <= row.ci_low <= row.value <= row.ci_high <= 1 for row in taus.values())
        assert taus["true theta, 200 sessions"].value > taus["true theta, 50 sessions"].value
        positives = values(outcome, "true attraction of positive, mean", "clicks")
        negatives = values(outcome, "true attraction of negative, mean", "clicks")
        assert all(positives[name].value > 3 * negatives[name].value for name in ("naive", "corrected"))

    def test_rules_copy_and_people_do_not(self, outcome):
        copied = values(outcome, "query words in the document", "closeness")
        assert copied["crop"].value == copied["keywords"].value == 1
        assert copied["real"].value < 0.5 < copied["expand"].value < 1

    def test_planted_wrong_pairs_are_found_more_often_than_by_chance(self, outcome):
        assert values(outcome, "planted wrong pairs found", "noise")["base"].value > 0.15

    def test_the_size_warning_is_kept(self, outcome):
        assert any("training pairs are few" in warning for warning in outcome.record.notes["warnings"])


@pytest.mark.notebook
def test_files(outcome):
    files = {file.name for file in outcome.folder.iterdir()}
    assert {
        "examination.png",
        "click_order.png",
        "synthetic_worth.png",
        "review_sheet.csv",
        "train_log.csv",
        "per_query.parquet",
    } <= files
    places = pd.read_csv(outcome.folder / "examination.csv")
    assert places["true"].tolist() == pytest.approx([1 / place for place in range(1, 11)])
    assert places["200"].max() == pytest.approx(1)
