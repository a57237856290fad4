"""Hostile texts in every medium: they are shown, they do nothing, and our own readers give them back."""

from __future__ import annotations

import csv
import io

import nbformat
import pandas as pd
import pytest
from rich.table import Table

from embedlab.cli.console import SafeConsole
from embedlab.data import review
from embedlab.data.dataset import Dataset
from embedlab.errors import ParameterError
from embedlab.escaping import (
    csv_cell,
    csv_frame,
    from_csv_cell,
    from_csv_frame,
    html,
    is_active_html,
    markdown,
    markdown_cell,
    terminal,
)
from embedlab.reporting import html_report, tables
from embedlab.reporting.notebook_outputs import without_active_parts

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "'=1",
    "''=1",
    "-",
    "=",
    "--1",
    "- item",
]
PLAIN = [
    "-5",
    "+0.25",
    "-1e-05",
    "+25.0%",
    "+0.100 [+0.050, +0.150]",
    "'quoted'",
    "a=b",
    "E11.9",
    "",
    "'",
    "1,000",
    "-inf",
]


class TestCsv:
    @pytest.mark.parametrize("text", FORMULAS)
    def test_formulas_are_guarded_and_come_back(self, text):
        assert csv_cell(text) == f"'{text}"
        assert from_csv_cell(csv_cell(text)) == text

    @pytest.mark.parametrize("text", PLAIN)
    def test_numbers_and_other_texts_stay(self, text):
        assert csv_cell(text) == text == from_csv_cell(text)

    def test_a_table_comes_back_from_its_file(self):
        frame = pd.DataFrame({"=id": FORMULAS, "value": range(len(FORMULAS)), "low": [-0.5] * len(FORMULAS)})
        frame["name"] = frame["=id"].astype("category")
        text = csv_frame(frame).to_csv(index=False)
        assert not any(row[0].startswith(tuple("=+-@\t\r\n")) for row in csv.reader(io.StringIO(text, newline="")))
        read = from_csv_frame(pd.read_csv(io.StringIO(text), dtype={"'=id": str, "name": str}, keep_default_na=False))
        assert read["=id"].tolist() == [text.replace("\r", "\n") for text in FORMULAS] == read["name"].tolist()
        assert read["value"].tolist() == list(range(len(FORMULAS))) and set(read["low"]) == {-0.5}

    def test_tables_and_files_of_tables_are_guarded(self):
        assert tables.as_text(pd.DataFrame({"p.x": ["=1+1"], "n": [-1]}), "csv") == "p.x,n\n'=1+1,-1\n"

    def test_a_review_sheet_guards_ids_and_texts_and_is_read_back(self, tmp_path):
        corpus = {"=HYPERLINK(1)": "@text", "-7": "plain"}
        data = Dataset("d", corpus, {"+q|x": "=query"}, {"test": {"+q|x": {"-7": 1}}}, ())
        path = tmp_path / "sheet.csv"
        review.export_sheet(path, data, {"+q|x": list(corpus)})
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert not any(cell.startswith(("=", "+", "@")) for cell in cells.to_numpy().ravel())
        assert set(cells["document_id"]) == {"'=HYPERLINK(1)", "-7"}
        cells.assign(grade="2", judge="'=ada").to_csv(path, index=False)
        assert review.import_judgements([path], data).grades == {"+q|x": {"=HYPERLINK(1)": 2, "-7": 2}}


class TestMarkdown:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("a|b\nc", r"a\|b c"),
            ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
            ("<img src=x onerror=y>", "&lt;img src=x onerror=y>"),
            ("[click](javascript:x)", r"[click\](javascript:x)"),
            ("`code`", r"\`code\`"),
            ("\\|", r"\\\|"),
            ("&lt;b>", "&amp;lt;b>"),
            ("0.250 [0.200, 0.300]", "0.250 [0.200, 0.300]"),
            ("p < 0.01 & x", "p < 0.01 & x"),
            ("\x1b[31m", r"\\x1b[31m".replace("\\\\", "\\")),
        ],
    )
    def test_cells(self, text, expected):
        assert markdown_cell(text) == expected

    def test_a_table_keeps_its_shape(self):
        frame = pd.DataFrame({"a|b\n": ["x|y\n\nz", "<b>"], "n": [1, 2]})
        lines = tables.markdown(frame).splitlines()
        assert lines == [r"| a\|b | n |", "| --- | ---: |", r"| x\|y z | 1 |", "| &lt;b> | 2 |"]

    def test_prose_keeps_its_code(self):
        assert markdown("run `x`: <script>") == "run `x`: &lt;script>"


class TestTerminal:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("a\x1b[2Jb", r"a\x1b[2Jb"), ("\x9b31m", r"\x9b31m"), ("\u202egnp.exe", r"\u202egnp.exe"),
            ("a\rb", r"a\rb"), ("\x07", r"\x07"), ("a\tb\nc é 中", "a\tb\nc é 中"), ("\u2066x", r"\u2066x"),
        ],
    )  # fmt: skip
    def test_control_characters_are_shown(self, text, shown):
        assert terminal(text) == shown

    def test_nothing_that_a_command_prints_controls_the_terminal(self):
        output = io.StringIO()
        console = SafeConsole(file=output, force_terminal=False, width=80)
        table = Table("h\x1b[2J", title="t\x1b]0;x\x07")
        table.add_row("c\x1b[2J\u202e")
        console.print("text\x1b[2J", "\x9b2J", markup=False)
        console.print(table)
        assert not set("\x1b\x07\x9b\u202e") & set(output.getvalue())
        assert r"text\x1b[2J" in output.getvalue() and r"c\x1b[2J\u202e" in output.getvalue()


class TestHtml:
    def test_a_text_is_a_text(self):
        assert html("<b title='\"'>&\x1b") == r"&lt;b title=&#x27;&quot;&#x27;&gt;&amp;\x1b"

    @pytest.mark.parametrize(
        "text",
        [
            "<script>1</script>", "<SCRIPT src=x>", "<img src=x onerror=alert(1)>", "<a href='javascript:x'>y</a>",
            "<a href=' java\nscript:x'>y</a>", "<iframe srcdoc=x>", "<svg onload=x>", "<form action=x>",
            "<object data=x>", "<a href='data:text/html,x'>", "<img src=VBScript:x>",
            "<p><ScRiPt\n>", "<meta http-equiv=refresh>", "<svg/onload=x>",
        ],
    )  # fmt: skip
    def test_active_html_is_noticed(self, text):
        assert is_active_html(text)
        output = nbformat.v4.new_output("display_data", {"text/html": text, "text/plain": "x"})
        assert without_active_parts(output).data == {"text/plain": "x"}

    @pytest.mark.parametrize(
        "text", ["<table><tr><td>1 &lt; 2</td></tr></table>", "a < b", "<style scoped>td{}</style>"]
    )
    def test_tables_stay(self, text):
        assert not is_active_html(text)
        output = nbformat.v4.new_output("display_data", {"text/html": text, "application/javascript": "x"})
        assert without_active_parts(output).data == {"text/html": text}

    def test_a_report_is_written_over_reports_only(self, tmp_path, monkeypatch):
        monkeypatch.setattr(html_report, "sections", lambda group, view: [])
        monkeypatch.setattr(html_report, "groups", lambda names: [html_report.Group("g", [])])
        path = tmp_path / "report.html"
        assert html_report.write_report(html_report.write_report(path)) == path
        path.write_text("<html>my thesis</html>")
        with pytest.raises(ParameterError, match="embedlab did not write this file"):
            html_report.write_report(path)
        with pytest.raises(ParameterError, match="a report is an HTML file"):
            html_report.write_report(tmp_path / "thesis.docx")
        assert path.read_text() == "<html>my thesis</html>"
