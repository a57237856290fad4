"""The measures of `tools/house.py`: each on a tiny example, then on the project itself."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import house  # noqa: E402

CODE = '''
class Index:
    """An index."""

    def add(self, vector: list[float], /) -> None:
        """Add one vector."""

    def remove(self, row):
        return row


def _private(*, size: int) -> int:
    return size
'''


def measure(results: list[house.Measure], name: str) -> house.Measure:
    return next(result for result in results if name in result.name)


def text(content: str) -> house.Text:
    return house.Text("page.md", 1, content)


def test_public_functions_with_docstring():
    documented = measure(house.source_measures({"a.py": ast.parse(CODE)}), "docstring")
    assert documented.value == 50
    assert [finding.text for finding in documented.findings] == ["remove, 2 lines"]
    assert not documented.passes


def test_annotated_arguments_leave_out_self():
    annotated = measure(house.source_measures({"a.py": ast.parse(CODE)}), "annotated")
    assert annotated.value == pytest.approx(100 * 2 / 3)
    assert annotated.findings == [house.Finding("a.py:8", "remove(row)")]


def test_length_of_a_function_leaves_out_its_docstring():
    lengths = [house.length(node) for node in house.public_functions(ast.parse(CODE))]
    assert lengths == [1, 2]


def test_contentless_names_are_counted_among_all_assigned_names():
    tree = ast.parse("found = 1\nfor row in rows:\n    total = row\ndef f(scores): pass")
    names = house.names_measure({"a.py": tree})
    assert names.value == 25
    assert names.findings == [house.Finding("a.py:1", "'found' does not say what it holds")]


def test_left_is_a_good_name_where_there_is_a_right():
    assert house.names_measure({"a.py": ast.parse("left, right = 1, 2")}).findings == []
    assert len(house.names_measure({"a.py": ast.parse("left = 1")}).findings) == 1


@pytest.mark.parametrize(
    "phrase",
    ["Mend that line.", "the table of words beside it", "it need\nnot be", "'x' is no number", "cut to 384 numbers"],
)
def test_dialect(phrase):
    assert house.dialect_in(text(phrase))


@pytest.mark.parametrize(
    "phrase", ["Besides, look-alike texts", "there is no run with this id", "is no longer needed", "ten numbers"]
)
def test_ordinary_english_is_not_dialect(phrase):
    assert house.dialect_in(text(phrase)) == []


def test_dialect_is_reported_with_its_line_and_share():
    result = house.dialect_measure([text("one\ntwo hardly three")])
    assert [finding.where for finding in result.findings] == ["page.md:2"]
    assert result.value == 2_500


def test_texts_of_code_are_docstrings_strings_and_comments():
    texts = house.code_texts('def f():\n    """Doc."""\n    return f"a {value} b" "c"  # why\n', "a.py")
    assert [(piece.line, piece.text) for piece in texts] == [(2, "Doc."), (3, "a _ bc"), (3, "# why")]


def test_readme():
    words, decimals = house.readme_measures("Two words 0.5\n```sh\nmake\n```\n1.25 and 3")
    assert (words.value, decimals.value) == (3, 2)


def test_imports_of_a_notebook():
    code = (
        "import embedlab as el\nfrom embedlab.data.load import load_dataset\nimport numpy as np\nel.encode(np.ones(2))"
    )
    assert house.own_names(code, "embedlab") == {"load_dataset", "encode"}


def test_texts_of_a_notebook(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": "x = 1  # comment"},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    assert [piece.text for piece in house.notebook_texts(path, "a.ipynb")] == ["# Title\ntext", "# comment"]


def test_repository(tmp_path):
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_bytes(b"x" * 500_000)
    git("add", "file")
    megabytes, subject = house.repository_measures(tmp_path)
    assert megabytes.value == 0.5
    assert subject.value is None  # the first measured commit does not exist there
    assert subject.passes


def test_table_marks_what_is_worse():
    lines = house.table([house.Measure("size", 3, most=2), house.Measure("share", 90.5, least=90)]).splitlines()
    assert lines[1].split() == ["worse", "3", "≤", "2", "size"]
    assert lines[2].split() == ["90.50", "≥", "90", "share"]


def test_the_project_meets_its_limits():
    results = [result for result in house.measures() if "commit subject" not in result.name]
    worse = [f"{result.name}: {result.value}" for result in results if not result.passes]
    assert not worse, f"run `python tools/house.py --list` to see each place: {worse}"


def test_commit_subjects_are_short():
    subjects = measure(house.repository_measures(ROOT), "commit subject")
    assert subjects.passes, subjects.findings
