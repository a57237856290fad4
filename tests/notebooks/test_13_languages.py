"""The notebook on languages at smoke size: every technique by language, the cost in English, the language bias."""

from __future__ import annotations

import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from embedlab import paths
from embedlab.models.load import load_model
from tests.notebooks.outcomes import rows, smoke_run

SYSTEMS = {"static-old-vocabulary", "static-contrastive", "static-distilled", "static", "base+static"}
LANGUAGES = {"de", "es", "fr", "pt", "zh", "ja", "vi", "el"}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    specs = {"mixed_dataset": "icd10multi:de-en+de:smoke", "english_dataset": "icd10cm:smoke"}
    specs |= {"same_language": ["icd10multi:{}-{}:smoke"]}
    path = paths.notebooks_dir() / "13_languages.ipynb"
    values = {"dataset": "icd10multi:all-en:smoke?extra=icd10cm:smoke", "max_examples": 200, "pieces": 300, **specs}
    return smoke_run(path, tmp_path_factory.mktemp("runs"), **values)


@pytest.mark.notebook
class TestLanguages:
    def test_every_system_is_recorded_with_its_interval(self, outcome):
        values, gains = (rows(outcome, "ndcg@10", against, task="retrieval") for against in ("", "base"))
        expected = {"bm25", "bm25+glossary", "character-n-grams", "base", "vocabulary-extended"} | SYSTEMS
        assert set(values) == expected and set(gains) - {"base"} >= expected - {"base"}
        for row in [*values.values(), *gains.values()]:
            assert row.ci_low <= row.value <= row.ci_high and row.n == 232

    def test_the_parts_by_language_add_up(self, outcome):
        overall = rows(outcome, "ndcg@10", task="retrieval")
        for system in ("base", "base+static", "bm25+glossary"):
            parts = [rows(outcome, "ndcg@10", task=f"{name} queries", stage="language")[system] for name in LANGUAGES]
            total = sum(part.n * part.value for part in parts)
            assert sum(part.n for part in parts) == 232
            assert total / 232 == pytest.approx(overall[system].value)

    def test_english_bias_and_code_mixed_queries_are_measured(self, outcome):
        (english,) = [row for row in outcome.record.metrics if row.stage == "English" and row.statistic == "difference"]
        assert english.system == "base+static" and english.task == "icd10cm:smoke"
        bias = rows(outcome, "preference", stage="mixed corpus")
        assert set(bias) == {"base", "base+static"} and all(-1 < row.value < 1 for row in bias.values())
        assert set(rows(outcome, "ndcg@10", stage="code-mixed")) == {"base", "base+static"}

    def test_the_vocabulary_is_the_reason(self, outcome):
        unknown = {row["language"]: row["unknown"] for row in outcome.record.notes["vocabulary"]}
        assert unknown["zh"] > 0.5 > unknown["es"]
        assert outcome.record.notes["static_share"] in (0.3, 0.5, 0.7, 0.9)

    def test_files(self, outcome):
        assert {"train_log.csv", "quality_by_language.png", "model"} <= {f.name for f in outcome.folder.iterdir()}
        table = pd.read_csv(outcome.folder / "quality_by_language.csv")
        assert set(table["slice"]) == LANGUAGES

    def test_the_saved_model_is_one_model_with_the_new_vocabulary(self, outcome):
        model = SentenceTransformer(str(outcome.folder / "model" / "combined"), device="cpu", trust_remote_code=True)
        added = len(model.tokenizer) - len(load_model("all-MiniLM-L6-v2").tokenizer)
        assert 0 < added <= 300 and model.encode(["貧血"]).shape == (1, 768)
