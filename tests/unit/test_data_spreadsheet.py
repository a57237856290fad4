"""Excel files: a cell is read as text, and the sheet that has rows is read."""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import replace
from datetime import date, datetime

import openpyxl
import pytest

from embedlab.data import textio
from embedlab.data.load import load_dataset
from embedlab.errors import DataError

HEADER = ["query", "positive"]


def save(path, *sheets):
    """Write each list of rows as a sheet of a new book; the sheets are named s1, s2 and so on."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets, start=1):
        sheet = book.create_sheet(f"s{number}")
        for row in rows:
            sheet.append(row)
    book.save(path)


class TestCells:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            *((4711, "4711"), (-3, "-3"), (4006381333931, "4006381333931")),
            *((0.5, "0.5"), (0.1 + 0.2, "0.3"), (1234.5678, "1234.5678"), (1e-7, "1E-07")),
            *((True, "True"), (False, "False")),
            *((date(2024, 1, 31), "2024-01-31"), (datetime(2024, 1, 31, 9, 30), "2024-01-31 09:30:00")),
        ],
    )
    def test_numbers_dates_and_truth_values_are_texts(self, tmp_path, value, shown):
        save(tmp_path / "x.xlsx", [["query"], [value]])
        row = textio.read_rows(tmp_path / "x.xlsx")[0]
        assert row.values == {"query": shown}
        assert textio.text_of(row, "query", tmp_path) == shown

    def test_a_code_that_has_lost_digits_is_refused(self, tmp_path):
        """Excel stores 900000000000207008 as 9.00000000000207E+17, and its neighbours too."""
        save(tmp_path / "x.xlsx", [["query"], [9.00000000000207e17]])
        with pytest.raises(DataError, match=r"x\.xlsx.*cell A2 holds a number of more than 15 digits"):
            textio.read_rows(tmp_path / "x.xlsx")

    def test_a_whole_number_may_be_stored_as_a_decimal(self, tmp_path):
        save(tmp_path / "x.xlsx", [["query", 4711], [4711, 0]])
        with zipfile.ZipFile(tmp_path / "x.xlsx") as old, zipfile.ZipFile(tmp_path / "y.xlsx", "w") as new:
            for name in old.namelist():
                new.writestr(name, old.read(name).replace(b"<v>4711</v>", b"<v>4711.0</v>"))
        assert textio.read_rows(tmp_path / "y.xlsx")[0].values == {"query": "4711", "4711": "0"}

    def test_the_format_of_zeros_pads_a_code(self, tmp_path):
        book = openpyxl.Workbook()
        for row in (["query"], [471], [0.5]):
            book.active.append(row)
        book.active["A2"].number_format = book.active["A3"].number_format = "00000"
        book.save(tmp_path / "x.xlsx")
        assert [row.values["query"] for row in textio.read_rows(tmp_path / "x.xlsx")] == ["00471", "0.5"]


GROUPS = [[f"{n}", f"about {n}", n // 2 + 0.5, n] for n in range(20)]
TABLES = {
    "pairs:{}": [["query", "positive", "group", "number"], *([int(q), p, g, n] for q, p, g, n in GROUPS)],
    "pairs:{}?split_by=query": [["query", "positive", "score"], *([n, n + 1000, n % 2] for n in range(40))],
    "glossary:{}": [["id", "term", "synonyms", "parents"], *([n, n + 100, n + 200, 0] for n in range(20))],
    "parallel:{}?languages=de-en": [["id", "de", "en", "group"], *([n, n + 100, n + 200, n] for n in range(20))],
    "clicks:{}": [
        ["query", "document_id", "document", "impressions", "clicks"],
        *([n, 100 + n + wrong, 200 + n + wrong, 100, 0 if wrong else 60] for n in range(20) for wrong in (0, 50)),
    ],
    "docs:{}": [["title", "text"], *([n, n + 100] for n in range(3))],
}


@pytest.mark.parametrize("spec", TABLES)
def test_every_table_is_read_like_a_csv_file(tmp_path, spec):
    save(tmp_path / "x.xlsx", TABLES[spec])
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows(TABLES[spec])
    excel, plain = (
        load_dataset(spec.format(tmp_path / name), training=False, queries=False) for name in ("x.xlsx", "x.csv")
    )
    if spec == "docs:{}":  # ids and sources have the name of the file, and places that of the format
        assert list(excel.corpus.values()) == list(plain.corpus.values())
    else:
        assert replace(excel, name="") == replace(plain, name="")


class TestSheets:
    def read(self, tmp_path, *sheets):
        save(tmp_path / "x.xlsx", *sheets)
        return [(row.line, row.values["query"]) for row in textio.read_rows(tmp_path / "x.xlsx")]

    @pytest.mark.parametrize("empty", [[], [[]], [["", None]], [HEADER], [[], HEADER, [None, ""]]])
    def test_the_only_sheet_with_rows_is_read(self, tmp_path, caplog, empty):
        filled = [[], HEADER, ["q", "p"]]
        assert self.read(tmp_path, empty, filled, empty) == [(3, "q")]
        assert "x.xlsx: read the sheet 's2', the only one with rows" in caplog.text
        caplog.clear()
        assert self.read(tmp_path, filled, empty) == [(3, "q")]
        assert not caplog.text

    def test_the_first_of_several_is_read(self, tmp_path, caplog):
        filled = [[HEADER, [f"q{number}", "p"]] for number in range(3)]
        assert self.read(tmp_path, *filled) == [(2, "q0")]
        assert "only the sheet 's1' is read, not s2, s3" in caplog.text
        assert self.read(tmp_path, [HEADER], *filled) == [(2, "q0")]
        assert "only the sheet 's2' is read, not s3, s4" in caplog.text

    def test_without_rows_the_error_says_so_of_all_sheets(self, tmp_path):
        with pytest.raises(DataError, match="x.xlsx: no sheet has rows. Add at least one record"):
            self.read(tmp_path, [], [HEADER])


@pytest.mark.parametrize("value", [4711, 0.5, True])
def test_json_says_to_write_a_number_in_quotes(tmp_path, value):
    written = json.dumps(value)
    (tmp_path / "x.jsonl").write_text(f'{{"query": {written}, "positive": "p"}}\n')
    with pytest.raises(DataError, match=f'must be a string, got {value}. Write it in quotes: "{written}"'):
        load_dataset(f"pairs:{tmp_path / 'x.jsonl'}")


def test_parquet_says_to_store_the_column_as_text(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"query": [4711], "positive": ["p"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="must be a string, got 4711. Store the column as text"):
        load_dataset(f"pairs:{tmp_path / 'x.parquet'}")
