"""Every malformed file gives one DataError that names the place."""

import gzip
import json

import pytest

from embedlab.data import textio
from embedlab.errors import DataError

GOOD = b'{"query": "a", "positive": "b"}\n'


@pytest.mark.parametrize(
    ("name", "content", "line", "problem"),
    [
        ("x.jsonl", GOOD + b"{oops}\n", 2, "invalid JSON"),
        ("x.jsonl", GOOD + b"\n[1, 2]\n", 3, "not a JSON object"),
        ("x.jsonl", b"", None, "no rows"),
        ("x.jsonl", b"\n\n", None, "no rows"),
        ("x.jsonl", GOOD * 2 + '{"query": "é"}'.encode("latin-1"), 3, "not UTF-8"),
        ("x.jsonl", '{"query": "a"}'.encode("utf-16"), 1, "not UTF-8"),
        ("x.jsonl.gz", GOOD, 1, "damaged gzip"),
        ("x.jsonl.gz", gzip.compress(GOOD * 50, mtime=0)[:-9], None, "damaged gzip"),
        ("x.csv", b"query,positive\na,b\nc\n", 3, "expected 2 cells as in the header, got 1"),
        ("x.csv", b'query,positive\n"a\nb",c\nd,e,f\n', 4, "got 3"),
        ("x.csv", b'query,positive\n"a,b\n', 2, "invalid CSV"),
        ("x.csv", b"query,query\na,b\n", 1, "occurs twice"),
        ("x.csv", b"query,positive\n", None, "no rows"),
        ("x.parquet", b"PAR1 but not really PAR1", None, "damaged Parquet"),
        ("x.xlsx", b"", None, "damaged Excel file"),
        ("x.csv", gzip.compress(GOOD, mtime=0), None, "not a text file but a gzip file"),
        ("x.csv", b"PK\x03\x04\xff\xff", None, "not a text file but an Excel or ZIP file"),
        ("x.jsonl", b"PAR1\x15\n\xff\xff", None, "not a text file but a Parquet file"),
        ("x.csv", "query,positive\nä,b\n".encode("cp1252"), 2, "not UTF-8.*or as .xlsx"),
        ("x.csv", b"query;positive\na;b\n", 1, "separated by semicolons.*or as .xlsx"),
        ("x.parquet.gz", gzip.compress(GOOD, mtime=0), None, "compressed .parquet file is not read. Unpack"),
        ("x.xlsx.gz", gzip.compress(GOOD, mtime=0), None, "compressed .xlsx file is not read. Unpack"),
        ("x.ods", b"", None, "unsupported file type '.ods'"),
    ],
)
def test_malformed_file(tmp_path, name, content, line, problem):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        textio.read_rows(path)
    assert caught.value.file == path
    assert caught.value.remedy
    if line is not None:
        assert caught.value.line == line


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="file does not exist") as caught:
        textio.read_rows(tmp_path / "absent.csv")
    assert caught.value.file == tmp_path / "absent.csv"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", b'{"a": "1", "b": "x y"}\n{"a": "2", "b": "z"}\n'),
        ("x.jsonl", b'\xef\xbb\xbf{"a": "1", "b": "x y"}\r\n\r\n{"a": "2", "b": "z"}'),
        ("x.jsonl.gz", gzip.compress(b'{"a": "1", "b": "x y"}\n{"a": "2", "b": "z"}\n', mtime=0)),
        ("x.csv", b"a,b\n1,x y\n2,z\n"),
        ("x.csv", b'\xef\xbb\xbfa, b\r\n1,"x y"\r\n\r\n2,z'),
        ("x.csv", b"a,b\n1,x y\n,\n2,z\n , \n  \n"),
        ("x.tsv", b"a\tb\n1\tx y\n2\tz\n"),
    ],
)
def test_formats_agree(tmp_path, name, content):
    """BOM, CRLF, blank lines, empty rows, quoting and compression do not change the records."""
    (tmp_path / name).write_bytes(content)
    rows = textio.read_rows(tmp_path / name)
    assert [row.values for row in rows] == [{"a": "1", "b": "x y"}, {"a": "2", "b": "z"}]


def test_line_of_a_record_after_a_quoted_line_break(tmp_path):
    (tmp_path / "x.csv").write_bytes(b'a,b\n"one\ntwo",x\nthree,y\n')
    rows = textio.read_rows(tmp_path / "x.csv")
    assert [(row.line, row.values["a"]) for row in rows] == [(2, "one\ntwo"), (4, "three")]


def test_gzipped_neighbour_is_found(tmp_path):
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(GOOD))
    assert textio.read_rows(tmp_path / "x.jsonl")[0].values == {"query": "a", "positive": "b"}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"other": "x"}, "'text' is missing"),
        ({"text": "  "}, "'text' is empty"),
        ({"text": None}, "'text' is empty"),
        ({"text": ["x"]}, "must be a string"),
        (json.loads('{"text": "\\ud800"}'), "surrogate"),
    ],
)
def test_unusable_text(tmp_path, values, problem):
    with pytest.raises(DataError, match=problem) as caught:
        textio.text_of(textio.Row(7, values), "text", tmp_path)
    assert (caught.value.file, caught.value.line, caught.value.field) == (tmp_path, 7, "text")


def test_metadata_is_flat_text():
    row = textio.Row(1, {"_id": "1", "year": 1999, "tags": ["a"], "none": None, "metadata": {"source": "x"}})
    assert textio.metadata_of(row, ("_id", "metadata")) == {"year": "1999", "source": "x"}


def test_fingerprint_follows_bytes_and_file_borders(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"

    def of(first, second):
        a.write_bytes(first)
        b.write_bytes(second)
        return textio.fingerprint([a, b])

    assert of(b"xy", b"z") == of(b"xy", b"z")
    assert len({of(b"xy", b"z"), of(b"x", b"yz"), of(b"xy", b"w")}) == 3
    assert len(of(b"", b"")) == 16
