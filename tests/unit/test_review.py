"""Review sheets: out, filled in, and back, with every disagreement and every slip named."""

import csv
import json

import pytest

from embedlab.data.dataset import Dataset
from embedlab.data.review import COLUMNS, export_sheet, import_judgements, with_judgements
from embedlab.errors import DataError

DATA = Dataset(
    "toy",
    {f"d{i}": f"document {i}" for i in range(6)} | {"formula": "=1+1"},
    {"q1": 'a "quoted", question', "q2": "another\nquestion", "q3": "third"},
    {"train": {"q3": {"d5": 1}}, "test": {"q1": {"d0": 1}, "q2": {"d1": 1, "d2": 1}}},
)
POOL = {"q1": ["d0", "d1", "d2", "d3", "formula"], "q2": ["d0", "d1", "d2", "d3", "d4"]}


def rows_of(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def fill(path, grade, judge="ada"):
    rows = rows_of(path)
    filled = path.with_name(f"{judge}.csv")
    with filled.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "grade": grade(row["query_id"], row["document_id"]), "judge": judge} for row in rows)
    return filled


@pytest.fixture
def sheet(tmp_path):
    export_sheet(tmp_path / "sheet.csv", DATA, POOL)
    return tmp_path / "sheet.csv"


class TestExport:
    def test_every_pair_once_shuffled_with_instructions(self, sheet):
        rows = rows_of(sheet)
        pairs = [(row["query_id"], row["document_id"]) for row in rows]
        expected = [(q, d) for q, found in POOL.items() for d in found]
        assert sorted(pairs) == sorted(expected) and pairs != expected
        assert {row["query"] for row in rows} == {DATA.queries["q1"], DATA.queries["q2"]}
        assert all(row["grade"] == "" for row in rows)
        guide = " ".join(row["instructions"] for row in rows)
        assert "0 = the document does not answer" in guide and "3 = " in guide

    def test_a_sheet_shorter_than_its_instructions_has_them_all(self, tmp_path):
        assert export_sheet(tmp_path / "s.csv", DATA, {"q1": ["d0"]}) == 1
        assert "3 = " in rows_of(tmp_path / "s.csv")[0]["instructions"]

    def test_spreadsheets_get_the_byte_order_mark_and_no_formula(self, sheet):
        assert sheet.read_bytes().startswith(b"\xef\xbb\xbf")
        assert next(row["document"] for row in rows_of(sheet) if row["document_id"] == "formula") == "'=1+1"

    def test_unknown_ids_and_empty_pools(self, tmp_path):
        with pytest.raises(DataError, match="'d99' is not in the dataset"):
            export_sheet(tmp_path / "s.csv", DATA, {"q1": ["d99"]})
        with pytest.raises(DataError, match="nothing to judge"):
            export_sheet(tmp_path / "s.csv", DATA, {"q1": []})
        assert not list(tmp_path.iterdir())


class TestImport:
    def test_round_trip(self, sheet):
        truth = {("q1", "d0"): 3, ("q2", "d1"): 2, ("q2", "d4"): 1}
        judged = import_judgements([fill(sheet, lambda q, d: truth.get((q, d), 0))], DATA)
        assert judged.qrels == {"q1": {"d0": 3}, "q2": {"d1": 2, "d4": 1}}
        assert sum(len(grades) for grades in judged.grades.values()) == 10
        assert judged.conflicts == () and judged.open == 0 and judged.agreement is None

    def test_empty_grades_are_open_not_zero(self, sheet):
        judged = import_judgements([fill(sheet, lambda q, d: 0 if q == "q1" else "")], DATA)
        assert judged.open == 5 and list(judged.grades) == ["q1"] and judged.qrels == {}

    def test_conflicts_are_named_and_wait(self, sheet):
        ada = fill(sheet, lambda q, d: 2, "ada")
        bob = fill(sheet, lambda q, d: 0 if (q, d) == ("q1", "d3") else 2, "bob")
        judged = import_judgements([ada, bob], DATA)
        (conflict,) = judged.conflicts
        assert (conflict.query, conflict.document) == ("q1", "d3")
        assert "2 by ada (ada.csv:" in str(conflict) and "0 by bob (bob.csv:" in str(conflict)
        assert "d3" not in judged.grades["q1"] and judged.agreement == 0.9

    def test_lines_of_conflicts_are_right(self, tmp_path):
        lines = "query_id,document_id,grade\nq1,d0,1\nq1,d1,1\nq1,d0,2\n"
        (tmp_path / "s.csv").write_text(lines)
        (conflict,) = import_judgements([tmp_path / "s.csv"], DATA).conflicts
        assert [judgement.line for judgement in conflict.judgements] == [2, 4]

    @pytest.mark.parametrize("grade", ["4", "-1", "2.5", "yes"])
    def test_bad_grades_are_named(self, tmp_path, grade):
        (tmp_path / "s.csv").write_text(f"query_id,document_id,grade\nq1,d0,1\nq1,d1,{grade}\n")
        with pytest.raises(DataError, match=f"'{grade}'") as caught:
            import_judgements([tmp_path / "s.csv"], DATA)
        assert (caught.value.line, caught.value.field) == (3, "grade")

    def test_other_formats_and_numbers(self, tmp_path):
        rows = [{"query_id": "q1", "document_id": d, "grade": g} for d, g in (("d0", 0), ("d1", 2.0), ("d2", None))]
        (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "s.csv").write_text("query_id,document_id,grade\nq1,d0,0\nq1,d1,2.0\nq1,d2,\n")
        for path in tmp_path.iterdir():
            judged = import_judgements([path], DATA)
            assert judged.grades == {"q1": {"d0": 0, "d1": 2}} and judged.open == 1

    def test_missing_column_and_foreign_ids(self, tmp_path):
        (tmp_path / "s.csv").write_text("query_id,document_id\nq1,d0\n")
        with pytest.raises(DataError, match="'grade' is missing"):
            import_judgements([tmp_path / "s.csv"], DATA)
        (tmp_path / "s.csv").write_text("query_id,document_id,grade\nq1,d0,1\nq9,d0,1\n")
        with pytest.raises(DataError, match="'q9'") as caught:
            import_judgements([tmp_path / "s.csv"], DATA)
        assert (caught.value.line, caught.value.field) == (3, "query_id")


def test_people_override_what_is_there(sheet):
    truth = {("q1", "d3"): 3, ("q2", "d1"): 1}
    judged = import_judgements([fill(sheet, lambda q, d: truth.get((q, d), 0))], DATA)
    merged = with_judgements(DATA, judged)
    assert merged.qrels["test"] == {"q1": {"d3": 3}, "q2": {"d1": 1}}
    assert merged.qrels["train"] == DATA.qrels["train"]
    nobody = import_judgements([fill(sheet, lambda q, d: 0)], DATA)
    assert with_judgements(DATA, nobody).qrels["test"] == {}
