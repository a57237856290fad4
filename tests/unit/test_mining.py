"""Hard negatives: the filters by hand, and the margin for negative scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedlab.data.dataset import Dataset, Triplet
from embedlab.training.contrastive.mining import mine_hard_negatives, score_ceiling
from embedlab.training.examples import contrastive_rows, number_rows

DATASET = Dataset(
    name="by hand",
    corpus={d: f"text of {d}" for d in ("pos", "parent", "close", "hard", "easy")},
    queries={"q": "a query"},
    qrels={"train": {"q": {"pos": 1}}},
    triplets=(Triplet("expert query", "text of easy", "text of hard"),),
    related={"pos": frozenset({"parent"})},
)
CANDIDATES = {"q": [("parent", 0.95), ("pos", 0.9), ("close", 0.88), ("hard", 0.6), ("easy", 0.1)]}
SCORES = {("q", "pos"): 0.9}


def test_filters_by_hand():
    """parent is related, pos is the positive, close (0.88) lies above 0.95 * 0.9 = 0.855."""
    negatives, report = mine_hard_negatives(DATASET, CANDIDATES, SCORES, per_pair=1)
    assert negatives == {("q", "pos"): ("hard",)}
    assert (report.is_related, report.is_positive, report.too_close) == (1, 1, 1)
    assert (report.pairs, report.full) == (1, 1)


def test_margin_of_one_lets_the_close_one_in():
    negatives, _ = mine_hard_negatives(DATASET, CANDIDATES, SCORES, per_pair=2, relative_margin=1.0)
    assert negatives["q", "pos"] == ("close", "hard")


def test_a_score_at_the_ceiling_is_allowed():
    candidates = {"q": [("close", 0.9), ("hard", 0.6)]}
    negatives, report = mine_hard_negatives(DATASET, candidates, SCORES, per_pair=1, relative_margin=1.0)
    assert negatives["q", "pos"] == ("close",) and report.too_close == 0


def test_relatives_of_every_positive_of_the_query_are_excluded():
    """`hard` is related to the query's other positive, `close`."""
    dataset = replace(DATASET, qrels={"train": {"q": {"pos": 1, "close": 1}}}, related={"close": frozenset({"hard"})})
    scores = {("q", "pos"): 0.9, ("q", "close"): 0.88}
    negatives, report = mine_hard_negatives(dataset, {"q": [("hard", 0.6), ("easy", 0.1)]}, scores)
    assert negatives == {("q", "pos"): ("easy",), ("q", "close"): ("easy",)}
    assert report.is_related == 2


def test_rank_range_and_shortfall():
    negatives, report = mine_hard_negatives(DATASET, CANDIDATES, SCORES, per_pair=3, skip_first=4)
    assert negatives["q", "pos"] == ("easy",)
    assert report.full == 0


@pytest.mark.parametrize("score", [0.8, 0.01, 0.0, -0.01, -0.8])
def test_ceiling_never_rises_above_the_positive(score):
    """The usual `margin * score` is above the score when it is negative."""
    ceiling = score_ceiling(np.float64(score), 0.95)
    assert ceiling <= score
    assert score_ceiling(np.float64(score), 1.0) == pytest.approx(score)


def test_ceiling_by_hand():
    assert score_ceiling(np.float64(0.8), 0.95) == pytest.approx(0.76)
    assert score_ceiling(np.float64(-0.8), 0.95) == pytest.approx(-0.84)
    assert score_ceiling(0.8, 1.0, 0.1) == pytest.approx(0.7)
    assert score_ceiling(-0.8, 1.0, 0.1) == pytest.approx(-0.9)
    assert score_ceiling(-0.8, 0.95, 0.1) == pytest.approx(-0.94)


@pytest.mark.parametrize(
    "margin, expected", [(0.01, ("close", "hard")), (0.1, ("hard", "easy")), (0.5, ("easy",)), (0.9, ())]
)
def test_absolute_margin_by_hand(margin, expected):
    """Below 0.9 - margin: close has 0.88, hard 0.6, easy 0.1."""
    margins = {"relative_margin": 1.0, "absolute_margin": margin}
    negatives, _ = mine_hard_negatives(DATASET, CANDIDATES, SCORES, per_pair=2, **margins)
    assert negatives["q", "pos"] == expected


@pytest.mark.parametrize(
    "first, last, expected, mean_rank",
    [
        (0, None, ("close", "hard", "easy"), 4),
        (3, 4, ("hard",), 4),
        (0, 3, ("close",), 3),
        (3, None, ("hard", "easy"), 4.5),
        (5, 9, (), None),
    ],
)
def test_rank_range_by_hand(first, last, expected, mean_rank):
    """Ranks count from 1: parent, pos, close, hard, easy. `skip_first=3, last_rank=4` looks at rank 4 alone."""
    ranks = {"skip_first": first, "last_rank": last}
    negatives, report = mine_hard_negatives(DATASET, CANDIDATES, SCORES, per_pair=9, relative_margin=1.0, **ranks)
    assert negatives["q", "pos"] == expected
    assert (report.mined, report.mean_rank) == (len(expected), mean_rank)


def test_guide_drops_what_it_ranks_above_the_positive():
    """The guide takes `hard` for the better answer, scores `easy` as high as the positive, and knows nothing else."""
    guide = {("q", d): s for d, s in {"pos": 0.5, "parent": 0.9, "close": 0.1, "hard": 0.6, "easy": 0.5}.items()}
    negatives, report = mine_hard_negatives(DATASET, CANDIDATES, SCORES, per_pair=2, guide=guide)
    assert negatives["q", "pos"] == ("easy",)
    assert (report.above_guide, report.too_close, report.full) == (1, 1, 0)
    assert "1 above the positive for the guide" in str(report)


def test_report_counts_every_candidate_looked_at():
    negatives, report = mine_hard_negatives(DATASET, CANDIDATES, SCORES, per_pair=2)
    assert negatives["q", "pos"] == ("hard", "easy")
    assert report.mined + report.is_positive + report.is_related + report.too_close + report.above_guide == 5
    assert report.mean_rank == 4.5
    assert mine_hard_negatives(DATASET, {"q": []}, SCORES)[1].mean_rank is None


def test_rows_carry_mined_expert_and_random_negatives():
    rows = contrastive_rows(DATASET, {("q", "pos"): ("hard",)}, hard_negatives=1)
    assert rows == [("a query", "text of pos", "text of hard"), ("expert query", "text of easy", "text of hard")]
    wide = contrastive_rows(DATASET, {("q", "pos"): ("hard",)}, hard_negatives=3)
    assert all(len(row) == 5 and len(set(row)) == 5 for row in wide)
    assert wide == contrastive_rows(DATASET, {("q", "pos"): ("hard",)}, hard_negatives=3)


def test_rows_without_hard_negatives_are_pairs():
    rows = contrastive_rows(DATASET, {("q", "pos"): ("hard",)}, hard_negatives=0)
    assert rows == [("a query", "text of pos"), ("expert query", "text of easy")]
    assert contrastive_rows(DATASET, use_triplets=False, hard_negatives=0) == rows[:1]


def test_labels_are_equal_exactly_for_equal_texts():
    rows = number_rows([("q1", "a", "b"), ("q2", "b", "c")])
    assert rows.columns == ["query", "positive", "negative_1"]
    assert rows.texts == ["q1", "a", "b", "q2", "c"]
    first, second = rows.dataset["label"]
    assert first[2] == second[1]
    assert len({*first, *second}) == 5
