"""What to label next: how many judgements show a gain, which pairs come first, and the sheet for the judges."""

from __future__ import annotations

import csv
import json
import math
from itertools import permutations

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.data.review import write_sheet
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.labelling.budget import expected_gain, label_budget
from embedlab.evaluation.labelling.priority import prioritise
from embedlab.evaluation.labelling.sheet import form_of, read_label_sheets, reason, write_label_sheet
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import minimum_detectable_effect
from embedlab.search.exact import Ranking


def ranking(**ranked: list[str]) -> Ranking:
    """Query=documents, best first."""
    return Ranking.from_scores({q: {d: -float(rank) for rank, d in enumerate(ds)} for q, ds in ranked.items()})


class TestBudget:
    DIFFERENCES = np.array([0.1, -0.1, 0.1, -0.1])  # sd = sqrt(0.04 / 3) = 0.11547

    def test_computed_by_hand(self):
        budget = label_budget(self.DIFFERENCES, 0.02, pairs_per_query=1.5)
        # z = 1.95996 + 0.84162 = 2.80159; 2.80159 * 0.11547 / 2 = 0.16175; (2.80159 * 0.11547 / 0.02)^2 = 261.6
        assert budget.detectable == pytest.approx(0.16175, abs=1e-5)
        assert (budget.queries, budget.queries_needed, budget.pairs_needed) == (4, 262, 393)
        assert (budget.missing_queries, budget.missing_pairs) == (258, 387)
        assert budget.expected is None

    @pytest.mark.parametrize("gain", [0.3, 0.1, 0.037, 0.01])
    def test_so_many_queries_show_the_gain_and_one_fewer_do_not(self, gain):
        budget = label_budget(self.DIFFERENCES, gain)
        spread = self.DIFFERENCES.std(ddof=1)

        def detectable(n):
            return budget.detectable * math.sqrt(budget.queries / n)

        assert detectable(budget.queries_needed) <= gain * (1 + 1e-9)
        assert budget.queries_needed == 2 or detectable(budget.queries_needed - 1) > gain
        assert budget.detectable == pytest.approx(2.801585 * spread / 2, rel=1e-6)

    def test_the_gain_that_is_detectable_needs_the_queries_there_are(self):
        differences = np.random.default_rng(0).normal(size=57)
        budget = label_budget(differences, minimum_detectable_effect(differences))
        assert (budget.queries_needed, budget.missing_queries, budget.missing_pairs) == (57, 0, 0)

    def test_more_queries_than_needed_are_enough(self):
        budget = label_budget(np.tile(self.DIFFERENCES, 100), 10)
        assert (budget.queries_needed, budget.missing_queries, budget.missing_pairs) == (2, 0, 0)

    def test_queries_without_a_value_do_not_count(self):
        with_gaps = np.append(self.DIFFERENCES, [np.nan, np.nan])
        assert label_budget(with_gaps, 0.02) == label_budget(self.DIFFERENCES, 0.02)

    @pytest.mark.parametrize("differences", [[], [0.1], [0.0, 0.0, 0.0], [np.nan, np.nan]])
    def test_too_little_to_say(self, differences):
        with pytest.raises(DataError, match="too few queries"):
            label_budget(np.array(differences), 0.02)

    @pytest.mark.parametrize("gain", [0.0, -0.1, math.nan, math.inf])
    def test_a_gain_is_positive(self, gain):
        with pytest.raises(ParameterError, match="above 0"):
            label_budget(self.DIFFERENCES, gain)


class TestExpectedGain:
    def test_two_points_double_the_pairs(self):
        budget = label_budget(TestBudget.DIFFERENCES, 0.02, curve={100: 0.3, 200: 0.4}, more_pairs=200)
        assert budget.expected.value == pytest.approx(0.1)
        assert math.isnan(budget.expected.low) and math.isnan(budget.expected.high)

    def test_three_points_by_hand(self):
        # In steps of ln 2: slope 0.1, residuals -1/150, 2/150, -1/150, so se = sqrt(6 / 22500 / 2) = 0.011547
        expected = expected_gain({400: 0.5, 100: 0.3, 200: 0.42}, 400)
        assert expected.value == pytest.approx(0.1)
        assert expected.high - expected.value == pytest.approx(12.7062 * 0.011547, rel=1e-4)
        assert expected.value - expected.low == pytest.approx(12.7062 * 0.011547, rel=1e-4)

    def test_the_next_thousand_pairs_gain_less_than_the_last(self):
        assert expected_gain({1000: 0.3, 2000: 0.4}, 1000).value == pytest.approx(0.1 * math.log(1.5) / math.log(2))

    @pytest.mark.parametrize("curve", [{}, {100: 0.3}, {0: 0.1, 100: 0.3}, {100: math.nan, 200: 0.3}])
    def test_a_curve_has_two_points(self, curve):
        with pytest.raises(ParameterError, match="two numbers of pairs"):
            expected_gain(curve, 100)

    def test_more_pairs_are_more(self):
        with pytest.raises(ParameterError, match="more_pairs must be 1 or more"):
            expected_gain({100: 0.3, 200: 0.4}, 0)


A, B = ranking(q=["d1", "d2", "d3"]), ranking(q=["d3", "d1", "d4"])


class TestPriority:
    def test_computed_by_hand(self):
        found = {c.document: c for c in prioritise([A, B], {}, k=3)}
        # discounts 1, 0.63093, 0.5; d1 has 1 and 0.63093, d2 0.63093 and 0, d3 0.5 and 1, d4 0 and 0.5
        assert {d: c.effect for d, c in found.items()} == pytest.approx(
            {"d1": 0.36907, "d2": 0.63093, "d3": 0.5, "d4": 0.5}, abs=1e-5
        )
        votes = {"d1": 0.815465, "d2": 0.315465, "d3": 0.75, "d4": 0.25}
        assert {d: c.relevance for d, c in found.items()} == pytest.approx(votes, abs=1e-5)
        assert list(found) == ["d3", "d1", "d2", "d4"]
        assert found["d2"].priority == pytest.approx(0.19904, abs=1e-5)
        assert found["d1"].ranks == (1, 2) and found["d2"].ranks == (2, None)

    def test_a_query_with_a_positive_has_a_larger_ideal(self):
        effects = {c.document: c.effect for c in prioritise([A, B], {"q": {"elsewhere": 1}}, k=3)}
        assert effects["d2"] == pytest.approx(0.63093 / 1.63093, abs=1e-5)

    def test_the_ideal_has_the_best_grades_first_and_stops_at_k(self):
        effects = {c.document: c.effect for c in prioritise([A, B], {"q": {"x": 1, "y": 0, "z": 3}}, k=2)}
        # the ideal of 3, 1 and the new 1 at k = 2 is 3 + 0.63093; d2 has the discounts 0.63093 and 0
        assert effects["d2"] == pytest.approx(0.63093 / 3.63093, abs=1e-5)

    def test_three_systems_count_by_their_mean_distance(self):
        third = ranking(q=["d2", "d4", "d5"])
        effects = {c.document: c.effect for c in prioritise([A, B, third], {}, k=3)}
        assert effects["d5"] == pytest.approx(2 * 0.5 / 3)  # discounts 0, 0, 0.5
        assert effects["d2"] == pytest.approx((0.63093 + 1 + 0.36907) / 3, abs=1e-5)  # 0.63093, 0, 1

    @pytest.mark.parametrize("document", ["d1", "d2", "d3", "d4"])
    def test_the_effect_is_what_the_judgement_does_to_the_difference(self, document):
        (effect,) = (c.effect for c in prioritise([A, B], {}, k=3) if c.document == document)
        values = [evaluate(system, {"q": {document: 1}}, [3]).mean("ndcg@3") for system in (A, B)]
        assert effect == pytest.approx(abs(values[0] - values[1]))

    def test_judged_pairs_are_left_out(self):
        found = prioritise([A, B], {"q": {"d1": 1, "d2": 0}}, rejected={"q": {"d3"}}, k=3)
        assert [c.document for c in found] == ["d4"]

    def test_the_order_of_the_systems_does_not_matter(self):
        systems = [A, B, ranking(q=["d4", "d2", "d1"])]
        orders = [
            [(c.document, round(c.priority, 12)) for c in prioritise(order, {}, k=3)] for order in permutations(systems)
        ]
        assert all(dict(order) == dict(orders[0]) for order in orders)

    def test_systems_that_agree_leave_nothing_worth_judging(self):
        assert [c.priority for c in prioritise([A, A], {}, k=3)] == [0, 0, 0]

    def test_only_the_first_k_are_candidates(self):
        assert {c.document for c in prioritise([A, B], {}, k=1)} == {"d1", "d3"}

    def test_a_ranking_that_says_nothing_is_left_out(self):
        silent = Ranking(("q",), ("d1",), np.array([[-1]]), np.array([[-np.inf]]), measurable=False)
        assert prioritise([A, silent, B], {}, k=3) == prioritise([A, B], {}, k=3)
        with pytest.raises(DataError, match="two systems are needed"):
            prioritise([A, silent], {}, k=3)

    def test_rankings_of_other_queries_and_impossible_depths(self):
        with pytest.raises(DataError, match="not of the same queries"):
            prioritise([A, ranking(p=["d1"])], {}, k=1)
        deep = Ranking(("q",), ("d1", "d2"), np.array([[0]]), np.array([[1.0]]))
        for k in (0, 2):
            with pytest.raises(ParameterError, match="k must be from 1"):
                prioritise([deep, deep], {}, k=k)


DATA = Dataset(
    "toy",
    {"d1": "first", "d2": "=2+3", "d3": "third", "d4": "fourth"},
    {"q": "a query"},
    {"train": {}, "dev": {}, "test": {"q": {"d1": 1}}},
)


def fill(path, name, grades):
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    target = path.with_name(name)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "relevant": grades.get(row["document_id"], "")} for row in rows)
    return target


@pytest.fixture
def sheet(tmp_path):
    write_label_sheet(tmp_path / "sheet.csv", DATA, prioritise([A, B], DATA.qrels["test"], k=3))
    return tmp_path / "sheet.csv"


class TestSheet:
    def test_rows_texts_and_the_empty_column(self, sheet):
        with sheet.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        assert [row["document_id"] for row in rows] == ["d3", "d2", "d4"]
        assert [row["document"] for row in rows] == ["third", "'=2+3", "fourth"]
        assert {row["query"] for row in rows} == {"a query"} and {row["relevant"] for row in rows} == {""}
        assert "1 if the document answers" in rows[0]["instructions"]

    def test_the_reason_names_neither_system_nor_rank(self):
        text = reason(prioritise([A, B], {}, k=3)[0])
        assert text == (
            "in the first 10 of 2 of 2 systems; if it is relevant, it changes the difference of their nDCG@10 on this "
            "query by 0.50"
        )

    def test_a_filled_sheet_is_never_overwritten(self, sheet):
        before = sheet.read_bytes()
        with pytest.raises(DataError, match="this file exists"):
            write_label_sheet(sheet, DATA, prioritise([A, B], {}, k=3))
        assert sheet.read_bytes() == before

    def test_nothing_left_to_judge(self, tmp_path):
        with pytest.raises(DataError, match="is judged"):
            write_label_sheet(tmp_path / "s.csv", DATA, [])

    def test_a_reason_is_no_formula_either(self, tmp_path):
        write_sheet(tmp_path / "s.csv", DATA, [("q", "d1")], reasons=["=1"])
        assert "'=1" in (tmp_path / "s.csv").read_text(encoding="utf-8-sig")

    def test_the_scale_is_that_of_the_data(self):
        graded = Dataset("g", DATA.corpus, DATA.queries, {"test": {"q": {"d1": 4}}})
        unjudged = Dataset("u", DATA.corpus, DATA.queries, {"test": {"q": {}}})
        assert [form_of(data).highest for data in (DATA, graded, unjudged)] == [1, 4, 1]
        assert "from 0 (does not answer the query) to 4" in form_of(graded).instructions[0]


class TestReading:
    def test_two_judges_agree_and_differ(self, sheet):
        ada = fill(sheet, "ada.csv", {"d2": "1", "d3": "0", "d4": "1"})
        bob = fill(sheet, "bob.csv", {"d2": "1", "d3": "0", "d4": "0"})
        judgements, (compared,) = read_label_sheets([ada, bob], DATA)
        assert judgements.grades == {"q": {"d2": 1, "d3": 0}}
        (conflict,) = judgements.conflicts
        assert (conflict.query, conflict.document) == ("q", "d4")
        # equal 2 of 3; expected by chance (2/3)(1/3) + (1/3)(2/3) = 4/9; kappa = (2/3 - 4/9) / (5/9) = 0.4
        assert compared.agreement.kappa == pytest.approx(0.4) and compared.agreement.n == 3
        assert str(compared) == "ada.csv and bob.csv: 67% equal grades in 3 rows, Cohen's kappa 0.40"

    def test_one_grade_for_everything_has_no_kappa(self, sheet):
        sheets = [fill(sheet, name, {"d2": "1"}) for name in ("a.csv", "b.csv")]
        assert "kappa not defined" in str(read_label_sheets(sheets, DATA)[1][0])

    def test_judges_who_share_the_work_are_not_compared(self, sheet):
        sheets = [fill(sheet, "a.csv", {"d2": "1"}), fill(sheet, "b.csv", {"d3": "0"})]
        judgements, compared = read_label_sheets(sheets, DATA)
        assert judgements.grades == {"q": {"d2": 1, "d3": 0}} and compared == [] and judgements.open == 4

    @pytest.mark.parametrize("grade", ["2", "-1", "0.5", "yes", "true", "nan", "1e400", "=1"])
    def test_a_bad_grade_is_one_error_with_its_place(self, sheet, grade):
        filled = fill(sheet, "bad.csv", {"d3": "1", "d2": grade})
        with pytest.raises(DataError, match="relevant must be a whole number from 0 to 1") as caught:
            read_label_sheets([filled], DATA)
        error = caught.value
        assert (error.file, error.line, error.field) == (
            filled,
            3,
            "relevant",
        ) and "leave the cell empty" in error.remedy

    @pytest.mark.parametrize("field", ["document", "query"])
    def test_an_id_that_now_means_another_text(self, sheet, field):
        filled = fill(sheet, "old.csv", {"d2": "1", "d3": "1"})
        corpus = {**DATA.corpus, "d3": "another"} if field == "document" else DATA.corpus
        changed = Dataset("toy", corpus, DATA.queries if field == "document" else {"q": "another"}, DATA.qrels)
        with pytest.raises(DataError, match=f"the {field} is not the one that the dataset has") as caught:
            read_label_sheets([filled], changed)
        assert (caught.value.line, caught.value.field) == (2, field)

    @pytest.mark.parametrize(("shown", "accepted"), [(32_767, True), (31_000, False)])
    def test_white_space_and_the_end_of_a_long_text_may_change(self, sheet, shown, accepted):
        text = "some words\n" * 4_000
        long = Dataset("toy", {**DATA.corpus, "d3": text}, DATA.queries, DATA.qrels)
        path = sheet.with_name("long.jsonl")
        row = {"query_id": "q", "query": " a  query", "document_id": "d3", "document": text[:shown], "relevant": 1}
        path.write_text(json.dumps(row))
        if accepted:
            assert read_label_sheets([path], long)[0].grades == {"q": {"d3": 1}}
        else:
            with pytest.raises(DataError, match="the document is not the one"):
                read_label_sheets([path], long)

    def test_empty_twice_missing(self, sheet):
        with pytest.raises(DataError, match="no row has a judgement"):
            read_label_sheets([sheet], DATA)
        with pytest.raises(DataError, match="given twice"):
            read_label_sheets([sheet, sheet.parent / ".." / sheet.parent.name / sheet.name], DATA)
        (sheet.parent / "c.csv").write_text("query_id,document_id,grade\nq,d2,1\n")
        with pytest.raises(DataError, match="the column 'relevant' is missing"):
            read_label_sheets([sheet.parent / "c.csv"], DATA)
