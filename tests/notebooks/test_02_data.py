"""The notebook on data sources: executed once at smoke size, its record and files read back."""

from __future__ import annotations

import pandas as pd
import pytest

from embedlab.runs.notebooks import find_notebook
from tests.notebooks.outcomes import rows, run

SMOKE = {"dataset": "icd10cm:smoke", "max_steps": 3, "click_queries": 40, "sessions": [50, 200], "per_document": 3}
TRAINED = {"real-pairs", "synthetic-same-documents", "synthetic-any-document"}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return run(find_notebook("02_data"), tmp_path_factory.mktemp("runs"), **SMOKE)


@pytest.mark.notebook
class TestRecord:
    def test_every_model_on_the_same_real_test_queries(self, outcome):
        values, gains = rows(outcome, "ndcg@10"), rows(outcome, "ndcg@10", "base")
        assert set(values) == {"bm25", "base", *TRAINED} and set(gains) == TRAINED
        against_real = rows(outcome, "ndcg@10", "real-pairs")
        assert set(against_real) == TRAINED - {"real-pairs"}
        for row in [*values.values(), *gains.values(), *against_real.values()]:
            assert row.n == 63 and row.ci_low <= row.value <= row.ci_high
        gain = values["real-pairs"].value - values["base"].value
        assert gains["real-pairs"].value == pytest.approx(gain, abs=1e-9)

    def test_clicks(self, outcome):
        taus = {count: rows(outcome, "kendall tau", condition=f"{count} sessions") for count in (50, 200)}
        for by_system in taus.values():
            assert set(by_system) == {"clicks-naive", "clicks-corrected", "clicks-oracle"}
            assert all(-1 <= row.ci_low <= row.value <= row.ci_high <= 1 for row in by_system.values())
        assert taus[200]["clicks-oracle"].value > taus[50]["clicks-oracle"].value
        assert rows(outcome, "kendall tau", "clicks-naive", condition="200 sessions").keys() == {"clicks-corrected"}
        positives = rows(outcome, "true attraction", condition="positive, mean")
        negatives = rows(outcome, "true attraction", condition="negative, mean")
        for system in ("clicks-naive", "clicks-corrected"):
            assert positives[system].value > 3 * negatives[system].value

    def test_rules_copy_and_people_do_not(self, outcome):
        copied = rows(outcome, "query words in the document")
        assert copied["synthetic-crop"].value == copied["synthetic-keywords"].value == 1
        assert copied["real-pairs"].value < 0.5 < copied["synthetic-expand"].value < 1

    def test_planted_wrong_pairs_are_found_more_often_than_by_chance(self, outcome):
        assert rows(outcome, "planted wrong pairs found")["base"].value > 0.15

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
    positions = pd.read_csv(outcome.folder / "examination.csv")
    assert positions["true"].tolist() == pytest.approx([1 / rank for rank in range(1, 11)])
    assert positions["200"].max() == pytest.approx(1)
