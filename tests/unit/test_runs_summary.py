"""What a run prints about itself: the headline table, and a reading computed from its own rows."""

from __future__ import annotations

import math

import pytest

from embedlab.errors import ParameterError
from embedlab.runs.reading import describe_difference, describe_interval, telling_differences
from embedlab.runs.records import MetricRow
from embedlab.runs.summary import format_value, summarise
from embedlab.runs.systems import SYSTEMS, System, resolve_system


def row(system: str, value: float | None, low=None, high=None, **fields) -> MetricRow:
    fields = {"split": "test", "metric": "ndcg@10", "n": 200, **fields}
    return MetricRow(system=system, technique="t", value=value, ci_low=low, ci_high=high, **fields)


def compared(mean: float, low: float, high: float) -> list[MetricRow]:
    gain = {"against": "base", "statistic": "difference"}
    return [
        row("base", 0.424, 0.4, 0.45, dim=384),
        row("contrastive", 0.424 + mean, 0.5, 0.6, dim=384),
        row("contrastive", mean, low, high, **gain),
        row("contrastive", mean / 0.424, against="base", statistic="relative_difference"),
        row("contrastive", 0.001, against="base", statistic="p_value"),
    ]


def test_summary_has_a_row_per_system_and_signed_differences():
    table = summarise(compared(0.141, 0.127, 0.155))
    assert list(table.columns) == ["system", "dim", "ndcg@10"]
    assert table["system"].tolist() == ["base", "contrastive", "contrastive − base"]
    assert table["ndcg@10"].tolist()[::2] == ["0.424 [0.400, 0.450]", "+0.141 [+0.127, +0.155]"]


def test_summary_shows_what_varies():
    rows = [
        row("distilled", 0.5, condition="3 layers"),
        row("base", 0.4),
        row("base", 0.9, task="pydocs", stage="probe"),
    ]
    table = summarise(rows)
    assert list(table.columns) == ["stage", "task", "system", "condition", "dim", "ndcg@10"]
    assert summarise([row("base", 0.4, metric="perplexity")]).empty


@pytest.mark.parametrize(("value", "text"), [(None, "missing"), (math.nan, "missing"), (0.5, "0.500")])
def test_a_value_without_interval(value, text):
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("interval", "history", "advice"),
    [
        ((0.141, 0.127, 0.155), [], "established"),
        ((0.01, -0.01, 0.03), [], "do not show a difference"),
        ((-0.05, -0.07, -0.03), [], "contrastive is worse than base. Do not replace base by it"),
        ((0.01, -0.01, 0.03), [(0, 0.7), (10, 0.6)], "No training step beat the start"),
        ((0.141, 0.127, 0.155), [(0, 0.5), (10, 0.6), (20, 0.7)], "train longer"),
        ((0.141, 0.127, 0.155), [(0, 0.5), (10, 0.7), (20, 0.6)], "established on these queries."),
    ],
)
def test_reading_gives_the_numbers_of_this_run_and_one_line_of_advice(interval, history, advice):
    log = [{"step": step, "dev": dev} for step, dev in history] + [{"step": 5, "loss": 1.0}]
    text = describe_difference(compared(*interval), "contrastive", "base", history=log)
    assert text.endswith(advice) or advice in text
    assert text.startswith("ndcg@10 on 200 test queries: base 0.424, contrastive")
    assert f"{interval[0]:+.3f} [{interval[1]:+.3f}, {interval[2]:+.3f}]" in text


@pytest.mark.parametrize(("queries", "is_evidence"), [(5, False), (6, True)])
def test_five_queries_show_nothing_even_if_they_agree(queries, is_evidence):
    difference = row("contrastive", 0.2, 0.1, 0.3, against="base", statistic="difference", n=queries)
    text = describe_interval(difference, "contrastive", "base")
    assert ("established" in text) == is_evidence
    assert is_evidence or text == "5 queries are too few to show a difference. Collect more test queries."


def test_a_search_with_a_shortlist_is_not_the_value_that_was_compared():
    shortlist = row("contrastive", 0.5, stage="search", condition="first 100 of bm25")
    text = describe_difference([*compared(0.141, 0.127, 0.155), shortlist], "contrastive", "base")
    assert "base 0.424, contrastive 0.565" in text


def test_reading_what_was_not_compared_names_what_was():
    with pytest.raises(ParameterError, match=r"no difference of static against base.*contrastive against base"):
        describe_difference(compared(0.1, 0.05, 0.2), "static", "base")


def test_an_undeclared_system_is_an_error_with_similar_names():
    with pytest.raises(ParameterError, match=r"'contrastiv' is not declared.*Did you mean contrastive.*declare_system"):
        resolve_system("contrastiv")
    assert resolve_system("mine", {"mine": System("t", "d")}) == System("t", "d")


def test_every_declared_system_has_a_technique_and_one_line():
    for name, system in SYSTEMS.items():
        assert name == name.strip() and system.technique and system.description
        assert "\n" not in system.description and not system.description.endswith(".")


@pytest.mark.parametrize(("statistic", "against"), [("value", "base"), ("difference", "")])
def test_a_difference_names_the_other_system_and_a_value_does_not(statistic, against):
    with pytest.raises(ValueError, match="does not go with"):
        row("contrastive", 0.1, statistic=statistic, against=against)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.01, -0.01, 0.03), "contrastive does not beat hybrid, which is much cheaper: a difference of +0.010"),
        ((-0.02, -0.03, -0.01), "contrastive is worse than hybrid, which is much cheaper: a difference of -0.020"),
        ((0.02, 0.01, 0.03), ""),
    ],
)
def test_cheaper_systems_that_are_not_beaten_are_named(interval, words):
    hybrid = [row.model_copy(update={"against": "hybrid"}) for row in compared(*interval) if row.against]
    text = describe_difference([*compared(0.1, 0.05, 0.2), *hybrid], "contrastive", "base")
    assert words in text and ("hybrid" in text) is bool(words)


@pytest.mark.parametrize(("hybrid", "shown"), [(0.4, ["base"]), (0.6, ["base", "hybrid"])])
def test_a_gain_over_a_system_below_the_base_model_is_not_shown(hybrid, shown):
    """The gain over base is what counts: 0.5 to 0.55. Base has a second value, truncated to 64 dimensions."""
    where = {"technique": "", "stage": "retrieval", "metric": "ndcg@10", "split": "test", "task": "retrieval"}
    values = [("base", 384, 0.5), ("base", 64, 0.1), ("hybrid", None, hybrid), ("contrastive", 384, 0.55)]
    rows = [MetricRow(**where, system=system, dim=dim, value=value, statistic="value") for system, dim, value in values]
    for against in ("base", "hybrid"):
        difference = {"statistic": "difference", "value": 0.1, "ci_low": 0.01, "ci_high": 0.2}
        rows.append(MetricRow(**where, system="contrastive", against=against, **difference))
    assert [row.against for row in telling_differences(rows)] == shown
    only = [row for row in rows if row.against != "base"]
    assert [row.against for row in telling_differences(only)] == ["hybrid"]
