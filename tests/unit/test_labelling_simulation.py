"""The simulated judge of `experiments.labelling`: estimates by hand, and what they must agree with."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.evaluation.metrics import evaluate
from embedlab.search.exact import Ranking
from experiments.labelling.simulate import (
    ORDERS,
    Pool,
    error_curve,
    errors,
    estimates,
    labels_needed,
    needs,
)

DOCUMENTS = [f"d{i}" for i in range(12)]


def rankings(queries=30, seed=0):
    """Two systems that rank the relevant document, d0, at different depths."""
    rng = np.random.default_rng(seed)
    runs = []
    for strength in (1.0, 2.5):
        scores = rng.normal(size=(queries, len(DOCUMENTS)))
        scores[:, 0] += strength
        runs.append({f"q{q}": dict(zip(DOCUMENTS, map(float, row), strict=True)) for q, row in enumerate(scores)})
    return [Ranking.from_scores(run, 10) for run in runs]


QRELS = {f"q{q}": {"d0": 1} for q in range(30)}


@pytest.fixture(scope="module")
def pool():
    return Pool.of(rankings(), QRELS)


def tiny():
    """Query 0 has a pair of grade 1 and one of grade 2, query 1 a pair of grade 0."""
    weights = np.array([[1.0, 0.0], [0.5, 1.0], [1.0, 1.0]])
    return Pool(
        2, np.array([0, 0, 1]), np.array([1, 2, 0]), weights, np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0]), k=2
    )


def test_estimates_by_hand():
    values = estimates(tiny(), np.array([2, 0, 1]))
    # Nothing; a zero changes nothing; grade 1 alone is the ideal: 1 and 0; then DCG 1 + 2 * 0.5 and 2 of 2 + 0.63093.
    last = [2 / 2.63093 / 2, 2 / 2.63093 / 2]
    assert values == pytest.approx(np.array([[0, 0], [0, 0], [0.5, 0], last]), abs=1e-5)
    assert errors(values, values[-1]) == pytest.approx([0, 0, 0.5, 0])


def test_the_last_answer_outside_counts():
    error = np.array([0.3, 0.005, 0.2, 0.01, 0.0])
    assert [labels_needed(error, tolerance) for tolerance in (0.5, 0.25, 0.1, 0.001)] == [0, 1, 3, 4]


def test_the_last_estimate_is_the_metric(pool):
    """With one positive per query that both systems may miss, all answers give what `evaluate` gives."""
    values = estimates(pool, np.arange(pool.size))[-1]
    assert values == pytest.approx([evaluate(ranking, QRELS, [10]).mean("ndcg@10") for ranking in rankings()])


@pytest.mark.parametrize("name", ORDERS)
def test_every_order_asks_for_every_pair_once_and_ends_at_the_truth(pool, name):
    assert sorted(ORDERS[name](pool, np.random.default_rng(3))) == list(range(pool.size))
    curve = error_curve(pool, name, np.random.default_rng(3))
    assert curve.shape == (pool.size + 1,) and curve[-1] == pytest.approx(0, abs=1e-12)


def test_orders_by_hand():
    rng = np.random.default_rng(0)
    assert list(ORDERS["priority"](tiny(), rng)) == [0, 1, 2] and list(ORDERS["effect"](tiny(), rng)) == [2, 1, 0]
    # mean discounts 0.5, 0.75 and 1, so 4 m (1 - m) is 1, 0.75 and 0, times the effects 1, 2 and 3
    assert list(ORDERS["disagreement"](tiny(), rng)) == [1, 0, 2]


def test_a_known_positive_makes_the_rest_of_its_query_wait(monkeypatch):
    monkeypatch.setattr("experiments.labelling.simulate.ROUND", 1)
    # After the first answer, grade 1, the ideal of query 0 is 1.63093: its second pair has 2 / 1.63093 = 1.23 < 1.5.
    waiting = tiny()
    waiting.priority[2] = 1.5
    assert list(ORDERS["priority, in rounds"](waiting, np.random.default_rng(0))) == [0, 2, 1]


def test_resampling_keeps_queries_whole(pool):
    sample = pool.resampled(np.random.default_rng(1))
    sizes = {tuple(sorted(pool.priority[pool.row == query])) for query in range(pool.queries)}
    assert sample.queries == pool.queries == len(np.unique(sample.row))
    assert all(tuple(sorted(sample.priority[sample.row == query])) in sizes for query in range(sample.queries))


def test_needs_are_reproducible_and_ratios_are_to_the_random_order(pool):
    table = needs(pool, [0.02], seeds=3, samples=8)
    assert table == needs(pool, [0.02], seeds=3, samples=8)
    by_order = {need.order: need for need in table}
    assert by_order["random"].of_random == 1
    assert by_order["priority"].of_random == pytest.approx(by_order["priority"].labels / by_order["random"].labels)
    assert by_order["priority"].labels < by_order["random"].labels
    assert all(need.low <= need.high for need in table)


def test_the_command_prints_and_writes_the_table(tmp_path, capsys, monkeypatch):
    import pandas as pd

    from experiments.labelling import __main__ as command

    monkeypatch.setattr(
        command, "rank_systems", lambda data, models, split, k: dict(zip(("a", "b"), fixed(data), strict=True))
    )
    out = tmp_path / "new" / "needs.csv"
    command.main(["icd10cm:smoke", "--seeds", "2", "--samples", "3", "--tolerance", "0.05", "-o", str(out)])
    text = capsys.readouterr().out
    assert "| 0.05 | priority, in rounds |" in text and "error after 10%" in text and "a 1.0000, b 0.6309" in text
    assert list(pd.read_csv(out)["order"]) == list(ORDERS)


def fixed(data):
    """One system ranks the answer first, the other second."""
    other = next(iter(data.corpus))
    runs = [
        {q: {next(iter(grades)): 1.0, other: second} for q, grades in data.qrels["test"].items()}
        for second in (0.5, 2.0)
    ]
    return [Ranking.from_scores(run, 10) for run in runs]
