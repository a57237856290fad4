"""What a model costs, who is on the front, and where query and answer share words."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.evaluation import efficiency as module
from embedlab.evaluation.efficiency import Footprint, measure_footprints
from embedlab.evaluation.lexical_overlap import FIELD, shared_words
from embedlab.evaluation.metrics import Evaluation
from embedlab.models.static import static_student
from embedlab.reporting.pareto import pareto_figure, pareto_table
from tests.conftest import TEXTS


def evaluation(values):
    return Evaluation(tuple(map(str, range(len(values)))), {"ndcg@10": np.array(values)}, 0)


def test_table_puts_quality_beside_cost():
    costs = {"a": Footprint(10, 1.5, 100.0, 90.0, 110.0), "b": Footprint(5, 0.5, 50.0, 40.0, 60.0)}
    table = pareto_table({"a": evaluation([0.2, 0.4]), "b": evaluation([0.1, 0.3]), "c": evaluation([1.0])}, costs)
    assert table["system"].tolist() == ["a", "b"] and table["front"].tolist() == [True, False]
    assert table["value"].tolist() == pytest.approx([0.3, 0.2]) and table["n"].tolist() == [2, 2]
    texts = {text.get_text() for text in pareto_figure(table, bm25=0.1).axes[0].texts}
    assert texts == {"BM25", "a: 0 M, 2 MB", "b: 0 M, 0 MB", "a is both the best (0.300) and the fastest."}


@pytest.mark.parametrize(("speed", "times"), [(250.0, "2.5"), (1040.0, "10"), (1000.0, "10"), (990.0, "9.9")])
def test_finding_says_how_much_faster_the_fastest_is(speed, times):
    costs = {"a": Footprint(10, 1.5, 100.0, 90.0, 110.0), "b": Footprint(5, 0.5, speed, speed, speed)}
    table = pareto_table({"a": evaluation([0.2, 0.4]), "b": evaluation([0.1, 0.3])}, costs)
    texts = {text.get_text() for text in pareto_figure(table).axes[0].texts}
    finding = f"a has the best ndcg@10 (0.300). b encodes {times} times as fast and reaches 0.200."
    assert finding in texts and "BM25" not in texts


def test_footprint_counts_what_is_there(tiny, monkeypatch):
    """With a clock that ticks one second per reading, every pass takes one second."""
    ticks = iter(range(100))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(ticks)))
    cost = measure_footprints({"tiny": tiny}, TEXTS)["tiny"]
    assert cost.parameters == sum(parameter.numel() for parameter in tiny.parameters())
    assert cost.megabytes == pytest.approx(4 * cost.parameters / 1e6, rel=0.5)  # weights, tokenizer, configuration
    assert cost.texts_per_second == cost.slowest == cost.fastest == len(TEXTS)


def test_models_are_timed_in_turns_and_a_static_pass_counts_every_repeat(tiny, monkeypatch):
    """Passes of 1, 2, 3, ... seconds: the first model takes 1, 3 and 5 of them, the second 2, 4 and 6."""
    readings = iter([reading for second in range(1, 7) for reading in (0.0, float(second))])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(readings))
    costs = measure_footprints({"static": static_student(tiny, TEXTS), "tiny": tiny}, TEXTS)
    texts = len(TEXTS) * module.STATIC_PASSES
    cost = costs["static"]
    assert (cost.fastest, cost.texts_per_second, cost.slowest) == pytest.approx((texts, texts / 3, texts / 5))
    assert costs["tiny"].texts_per_second == pytest.approx(len(TEXTS) / 4)


def test_shared_words():
    corpus = {"d1": "Fracture of the left hip", "d2": "Broken bone"}
    queries = {
        "all": "Hip, fracture",
        "some": "fracture of the femur",
        "none": "cracked femur of the leg",
        "either": "bone hip",
    }
    qrels = {"test": {"all": {"d1": 1}, "some": {"d1": 1}, "none": {"d1": 1}, "either": {"d1": 1, "d2": 1}}}
    kinds = shared_words(Dataset(name="toy", corpus=corpus, queries=queries, qrels=qrels))
    assert {query: fields[FIELD] for query, fields in kinds.items()} == {
        "all": "all",
        "some": "some",
        "none": "none",
        "either": "all",
    }


@pytest.mark.parametrize(
    ("query", "document", "kind"),
    [
        ("Entzündung der Leber", "Die akute Entzündung der Milz und des Herzens", "some"),  # "der" is a stop word
        ("Schmerzen der Hand", "Die Entzündung der Milz, wenn es nicht besser wird und sich ausbreitet", "none"),
        ("急性肝炎", "慢性肝炎", "some"),
        ("हिन्दी", "हिंदू", "none"),
        ("???", "???", "(unknown)"),
    ],
)
def test_shared_words_in_other_languages(query, document, kind):
    data = Dataset("x", {"d": document}, {"q": query}, {"test": {"q": {"d": 1}}})
    assert shared_words(data)["q"][FIELD] == kind
