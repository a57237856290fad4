"""Derived slice fields: ranges of length, scripts, rare and risky kinds."""

from __future__ import annotations

from collections import Counter

import pytest

from embedlab.data.dataset import Dataset
from embedlab.errors import ParameterError
from embedlab.evaluation import segments
from embedlab.evaluation.segments import derived_fields, length_slices


def dataset(kinds=None, queries=None, **more):
    queries = queries or {f"q{i}": "word " * (i % 5 + 1) for i in range(len(kinds))}
    fields = {query: {"kind": kind} for query, kind in zip(queries, kinds or [], strict=False) if kind}
    qrels = {"test": {query: {"d": 1} for query in queries}}
    return Dataset("x", {"d": "one two"}, queries, qrels, fields=fields, **more)


def test_length_ranges_cover_every_text_and_do_not_overlap():
    texts = {str(n): "w " * n for n in range(1, 10)}
    assert length_slices(texts) == {
        str(n): name
        for n, name in zip(range(1, 10), ["1-3 words"] * 3 + ["4-6 words"] * 3 + ["7-9 words"] * 3)  # noqa: B905
    }


def test_equal_lengths_form_one_range():
    assert set(length_slices({"a": "x y", "b": "z w", "c": "u v"}).values()) == {"2 words"}
    assert length_slices({"a": ""}) == {"a": "0 words"}
    assert length_slices({}) == {}


def test_skewed_lengths_make_fewer_ranges_but_lose_nobody():
    slices = length_slices({**{str(i): "w" for i in range(10)}, "long": "a b c d"})
    assert (
        slices["0"] == "1 words" and set(slices.values()) <= {"1 words", "2-4 words"} or slices["long"] != slices["0"]
    )
    assert len(slices) == 11


def test_words_and_scripts_outside_latin_script():
    queries = {"a": "急性肝炎", "b": "急性ウイルス性肝炎の診断", "c": "ｆｅｖｅｒ", "d": "12"}
    fields = derived_fields(dataset(queries=queries))
    assert [fields[query]["script"] for query in queries] == ["CJK", "Japanese", "Latin", "(unknown)"]
    assert len({fields[query]["length"] for query in "ab"}) == 2  # 3 and 11 pairs of characters


def test_rare_kinds_are_those_below_the_share(monkeypatch):
    monkeypatch.setattr(segments, "RARE_SHARE", 0.15)
    fields = derived_fields(dataset(["A"] * 16 + ["B"] * 3 + ["C"]), kind="kind")
    assert Counter(values["frequency"] for values in fields.values()) == {"common": 19, "rare": 1}
    monkeypatch.setattr(segments, "RARE_SHARE", 0.151)
    fields = derived_fields(dataset(["A"] * 16 + ["B"] * 3 + ["C"]), kind="kind")
    assert Counter(values["frequency"] for values in fields.values()) == {"common": 16, "rare": 4}
    assert "risk" not in fields["q0"]


def test_high_risk_kinds():
    fields = derived_fields(dataset(["A", "B", None]), kind="kind", high_risk=["B"])
    assert [fields[q].get("risk") for q in ("q0", "q1", "q2")] == ["other", "high-risk", None]
    assert fields["q1"]["kind"] == "B"


def test_own_fields_win_over_derived_ones_and_the_dataset_stays_as_it_is():
    data = dataset(["A"])
    data.fields["q0"]["length"] = "mine"
    assert derived_fields(data)["q0"]["length"] == "mine"
    assert "script" not in data.fields["q0"]


def test_queries_without_positives_and_documents_without_text():
    data = Dataset("x", {"d": ""}, {"a": "x", "b": "y"}, {"test": {"a": {}, "b": {"d": 1}}})
    fields = derived_fields(data)
    assert "document length" not in fields["a"] and fields["b"]["document length"] == "0 words"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"kind": "colour"}, "No query has the field 'colour'"),
        ({"kind": "kind", "high_risk": ["Z"]}, "No query has the kind 'Z'"),
        ({"high_risk": ["A"]}, "need a field"),
    ],
)
def test_typos_are_named(options, problem):
    with pytest.raises(ParameterError, match=problem):
        derived_fields(dataset(["A", "B"]), **options)
