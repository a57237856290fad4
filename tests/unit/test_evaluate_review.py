"""Side by side, on paper and back: cases, the HTML file, the pool for review, agreement."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.data.review import export_sheet, import_judgements, with_judgements
from embedlab.errors import DataError
from embedlab.evaluation.human_review.agreement import agreement, unjudged
from embedlab.evaluation.human_review.browser import write_browser
from embedlab.evaluation.human_review.cases import counts, pooled, side_by_side
from embedlab.evaluation.metrics import evaluate
from embedlab.search.exact import Ranking

NASTY = '</script><img src=x onerror=alert(1)> <!-- "quoted" \u2028 Ünï'


@pytest.fixture
def data():
    corpus = {"a": "alpha", "b": NASTY, "c": "", "d": "delta"}
    queries = {"win": "first?", "loss": "second?", "tie": "third?", "none": "nobody knows", "big": "largest win"}
    qrels = {"win": {"b": 2, "a": 1}, "loss": {"a": 1}, "tie": {"a": 1}, "none": {"a": 0}, "big": {"a": 1}}
    return Dataset("x", corpus, queries, {"test": qrels}, fields={"win": {"chapter": "I"}})


@pytest.fixture
def cases(data, monkeypatch):
    monkeypatch.setattr("embedlab.evaluation.human_review.cases.TOP", 2)
    return side_by_side(data, "test", *systems(data), metric="mrr@3")


def systems(data):
    of_a = {"win": "bac", "loss": "bca", "tie": "abc", "none": "abc", "big": "abc"}
    of_b = {"win": "cba", "loss": "abc", "tie": "abc", "none": "cba", "big": "bcd"}
    rankings = tuple(
        Ranking.from_search(
            list(run),
            list(data.corpus),
            np.tile([3.0, 2, 1], (5, 1)),
            [["abcd".index(d) for d in found] for found in run.values()],
        )
        for run in (of_a, of_b)
    )
    return rankings, tuple(evaluate(ranking, data.qrels["test"], [3]) for ranking in rankings)


class TestCases:
    def test_largest_differences_first_and_queries_without_positives_left_out(self, cases):
        assert [(case.query, case.outcome) for case in cases] == [
            ("big", "win"),
            ("loss", "loss"),
            ("win", "win"),
            ("tie", "tie"),
        ]
        assert counts(cases) == {"win": 2, "tie": 1, "loss": 1}

    def test_what_both_found_with_its_grade(self, cases):
        case = next(case for case in cases if case.query == "win")
        assert [(found.document, found.grade) for found in case.found_a] == [("b", 2), ("a", 1)]
        assert [(found.document, found.grade) for found in case.found_b] == [("c", None), ("b", 2)]
        assert [found.document for found in case.answers] == ["b", "a"]
        assert (case.of_a, case.of_b) == (1.0, 0.5) and case.fields == {"chapter": "I"}

    def test_at_most_so_many_of_each(self, data, monkeypatch):
        monkeypatch.setattr("embedlab.evaluation.human_review.cases.PER_OUTCOME", 1)
        few = side_by_side(data, "test", *systems(data), metric="mrr@3")
        assert [case.query for case in few] == ["big", "loss", "tie"]

    def test_other_queries_are_refused(self, data):
        rankings, evaluations = systems(data)
        fewer = Ranking(
            rankings[0].query_ids[:2], rankings[0].corpus_ids, rankings[0].indices[:2], rankings[0].scores[:2]
        )
        with pytest.raises(DataError, match="not of the evaluated queries"):
            side_by_side(data, "test", (fewer, rankings[1]), evaluations, metric="mrr@3")

    def test_share_nobody_judged(self, cases, data):
        # shown: big a b c, loss b c a, win b a c, tie a b = 11 pairs; unjudged: big b c, loss b c, win c, tie b
        assert unjudged(cases, data.qrels["test"]) == pytest.approx(6 / 11)
        assert math.isnan(unjudged([], {}))


class TestBrowser:
    def test_the_texts_survive_and_cannot_run(self, cases, tmp_path):
        page = write_browser(cases, tmp_path / "deep" / "page.html", names=("tuned", "base")).read_text(
            encoding="utf-8"
        )
        content = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1)
        data = json.loads(content)
        assert data["names"] == ["tuned", "base"] and data["title"] == "tuned against base"
        assert data["cases"][2]["found_a"][0]["text"] == NASTY
        assert data["cases"][2]["found_b"][0] == {"document": "c", "text": "", "grade": None}
        assert "<" not in content
        assert page.count("</script>") == 2 and "innerHTML" not in page

    def test_texts_run_in_their_own_direction(self, cases, tmp_path):
        page = write_browser(cases, tmp_path / "page.html", names=("a", "b")).read_text(encoding="utf-8")
        (made,) = re.findall(r"function make\(.*?\n  }", page, re.S)
        assert 'element.dir = "auto"' in made
        assert page.count("document.createElement") == made.count("document.createElement") == 1

    def test_it_needs_nothing_from_outside(self, cases, tmp_path):
        page = write_browser(cases, tmp_path / "page.html", names=("a", "b")).read_text(encoding="utf-8")
        assert not re.search(r'(src|href)="|https?://|@import|url\(', page.replace(json.dumps(NASTY), ""))


DOM = """
const page = require("fs").readFileSync(process.argv[1], "utf8");
const scripts = [...page.matchAll(/<script[^>]*>([\\s\\S]*?)<\\/script>/g)].map(match => match[1]);
class Element {
  constructor() { this.kids = []; this.value = ""; this.textContent = ""; this.on = {} }
  append(...kids) { this.kids.push(...kids) }
  replaceChildren(...kids) { this.kids = kids }
  addEventListener(name, action) { this.on[name] = action }
  text() { return this.textContent + this.kids.map(kid => kid instanceof Element ? kid.text() : kid).join("") }
}
const known = {}, get = name => known[name] ??= new Element();
global.document = { getElementById: get, querySelector: get, createElement: () => new Element() };
get("data").textContent = scripts[0];
(0, eval)(scripts[1]);
const shown = (id, value) => {
  get(id).value = value; get(id).on.input();
  const text = get("main").kids.map(kid => kid.text()); get(id).value = ""; return text;
};
const all = shown("outcome", ""), losses = shown("outcome", "loss"), words = shown("words", "ALPHA");
const slice = shown("slice", "chapter: I"), slices = get("slice").kids.map(kid => kid.text());
console.log(JSON.stringify({ all, losses, words, slice, slices, count: get("count").textContent }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_filters_what_it_shows(cases, tmp_path):
    page = write_browser(cases, tmp_path / "page.html", names=("tuned", "base"))
    found = subprocess.run(["node", "-e", DOM, str(page)], check=True, capture_output=True, text=True, timeout=60)
    shown = json.loads(found.stdout)
    assert len(shown["all"]) == 4 and shown["all"][0].startswith("largest win")
    assert len(shown["losses"]) == 1 and "second?" in shown["losses"][0]
    assert len(shown["slice"]) == 1 and NASTY in shown["slice"][0] and "(no text)" in shown["slice"][0]
    assert shown["slices"] == ["chapter: I"] and len(shown["words"]) == 4 and shown["count"] == "1 of 4"


class TestSheet:
    def test_every_document_either_system_found_once(self, cases):
        assert pooled(cases) == {
            "big": ["a", "b", "c"],
            "loss": ["b", "c", "a"],
            "win": ["b", "a", "c"],
            "tie": ["a", "b"],
        }

    def test_judgements_come_back_and_change_the_metric(self, data, cases, tmp_path):
        import pandas as pd

        path = tmp_path / "sheet.csv"
        assert export_sheet(path, data, pooled(cases)) == 11
        frame = pd.read_csv(path, dtype=str)
        frame["grade"] = ((frame.query_id == "big") & (frame.document_id == "b")).astype(int)
        frame.to_csv(path, index=False)
        judged = with_judgements(data, import_judgements([path], data))
        assert judged.qrels["test"]["big"] == {"b": 1}
        rankings, evaluations = systems(data)
        after = evaluate(rankings[1], judged.qrels["test"], [3])
        row = rankings[1].query_ids.index("big")
        assert (evaluations[1].of("mrr@3")[row], after.of("mrr@3")[row]) == (0, 1)


class TestAgreement:
    def test_the_textbook_table(self):
        # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed 0.7, expected 0.5 * 0.6 + 0.5 * 0.4 = 0.5
        pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
        one, other = ({"q": {str(n): pair[side] for n, pair in enumerate(pairs)}} for side in (0, 1))
        found = agreement(one, other)
        assert (found.kappa, found.observed, found.n) == (pytest.approx(0.4), 0.7, 50)

    def test_only_shared_pairs_count(self):
        found = agreement({"q": {"a": 1, "b": 0}, "r": {"a": 1}}, {"q": {"a": 1, "b": 1, "c": 0}})
        assert found.n == 2 and found.observed == 0.5
        with pytest.raises(DataError, match="judged no pair in common"):
            agreement({"q": {"a": 1}}, {"q": {"b": 1}})

    def test_one_grade_for_everything_defines_no_kappa(self):
        found = agreement({"q": {"a": 1, "b": 1}}, {"q": {"a": 1, "b": 1}})
        assert math.isnan(found.kappa) and found.observed == 1
