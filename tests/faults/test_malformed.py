"""Malformed sweeps, notebooks and data: one clear line that names the file, never a traceback, nothing written."""

from __future__ import annotations

import json

import nbformat
import pytest

from embedlab.data.load import load_dataset
from embedlab.errors import EmbedlabError

BOMB = "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nnotebook: *b\n"
SWEEPS = {
    "tab": ("notebook: 01_tiny\n\tseeds: [1]\n", "s.yaml:2"),
    "open bracket": ("notebook: 01_tiny\nseeds: [1\n", "s.yaml:3"),
    "bad indent": ("notebook: 01_tiny\n  seeds: [1]\n", "s.yaml:2"),
    "duplicate key": ("notebook: 01_tiny\nseeds: [1]\nseeds: [2]\n", "s.yaml:3: 'seeds' appears twice"),
    "duplicate parameter": ("notebook: 01_tiny\nfixed: {x: 1.0, x: 2.0}\n", "s.yaml:2: 'x' appears twice"),
    "alias bomb": (BOMB, "s.yaml:2: aliases are not allowed"),
    "python tag": ("notebook: !!python/object/apply:os.system [ls]\n", "s.yaml:1"),
    "two documents": ("notebook: 01_tiny\n---\nnotebook: 01_tiny\n", "s.yaml:2"),
    "control character": ("notebook: 01_tiny\x07\n", "s.yaml"),
    "empty": ("", "must be a mapping"),
    "a list": ("- notebook: 01_tiny\n", "must be a mapping"),
    "a number": ("42\n", "must be a mapping"),
    "numbers as keys": ("1: 2\nnotebook: 01_tiny\n", "must be a mapping"),
    "no notebook": ("seeds: [1]\n", "[notebook]: Field required"),
    "unknown field": ("notebook: 01_tiny\nsedes: [1]\n", "[sedes]: Extra inputs"),
    "unknown notebook": ("notebook: 77_none\n", "there is no notebook '77_none'"),
    "notebook no text": ("notebook: 1\n", "[notebook]"),
    "empty grid": ("notebook: 01_tiny\ngrid: {x: []}\n", "the sweep has 0 runs"),
    "no seeds": ("notebook: 01_tiny\nseeds: []\n", "the sweep has 0 runs"),
    "ten million": (
        f"notebook: 01_tiny\ngrid: {{x: {list(range(5000))}}}\nseeds: {list(range(2000))}\n",
        "10,000,000 runs",
    ),
    "grid no list": ("notebook: 01_tiny\ngrid: {x: 1.0}\n", "[grid.x]"),
    "bool as number": ("notebook: 01_tiny\nfixed: {x: true}\n", "[x]: must be float, got True"),
    "text as number": ("notebook: 01_tiny\nfixed: {x: '1.0'}\n", "[x]: must be float, got '1.0'"),
    "nan": ("notebook: 01_tiny\nfixed: {x: .nan}\n", "[x]: must be float, got nan"),
    "bool as seed": ("notebook: 01_tiny\nseeds: [true]\n", "[seeds.0]"),
    "float as seed": ("notebook: 01_tiny\nseeds: [1.5]\n", "[seeds.0]"),
    "seed in grid": ("notebook: 01_tiny\ngrid: {seed: [1]}\n", "must not be a parameter of a sweep"),
    "misspelt name": ("notebook: 01_tiny\ngrid: {wath: [ok]}\n", "Did you mean 'what'?"),
    "skip no condition": ("notebook: 01_tiny\nskip: ['y > 1']\n", "[skip]: 'y > 1'"),
    "skips all": ("notebook: 01_tiny\nskip: ['x == 1']\n", "every run is skipped"),
    "negative memory": ("notebook: 01_tiny\nresources: {mem_gb: -1}\n", "[resources.mem_gb]"),
    "unknown cause": ("notebook: 01_tiny\nretries: {bad luck: 1}\n", "[retries.bad luck"),
    "search without range": ("notebook: 01_tiny\nsearch: {trials: 2, space: {x: {low: 1.0}}}\n", "low < high"),
    "search unknown name": (
        "notebook: 01_tiny\nsearch: {trials: 2, space: {y: {low: 1.0, high: 2.0}}}\n",
        "there is no parameter 'y'",
    ),
    "search wrong type": (
        "notebook: 01_tiny\nsearch: {trials: 2, space: {what: {low: 1, high: 2}}}\n",
        "[what]: must be str, got 1",
    ),
    "stage without name": ("stages: [{notebook: 01_tiny}]\n", "unique name"),
    "stages of one name": (
        "stages: [{name: a, notebook: 01_tiny}, {name: a, notebook: 01_tiny}]\n",
        "unique name",
    ),
    "stage from nowhere": (
        "stages: [{name: a, notebook: 02_later, fixed: {source: '{b.model}'}}]\n",
        "which must come before it",
    ),
    "parameter of a stage that has no such": (
        "stages: [{name: a, notebook: 01_tiny}, {name: b, notebook: 02_later, fixed: {factor: '{a.p.y}'}}]\n",
        "[factor]: there is no {a.p.y}. Name one of x, what",
    ),
    "parameter of a stage of another type": (
        "stages: [{name: a, notebook: 01_tiny}, {name: b, notebook: 02_later, fixed: {factor: '{a.p.what}'}}]\n",
        "[factor]: must be float, got 'ok'",
    ),
    "no stages": ("stages: []\n", "[stages]"),
}
RAW_SWEEPS = {
    "utf-16": "notebook: 01_tiny\n".encode("utf-16"),
    "latin-1": "notebook: Brünn\n".encode("latin-1"),
    "zero bytes": b"\x00" * 40,
}


@pytest.fixture
def refused(command, home):
    """Calls a command that must end with exit code 2 and one line; returns that line."""

    def call(*arguments):
        code, _, error = command(*arguments)
        assert code == 2 and "Traceback" not in error
        assert len(error.strip().splitlines()) == 1
        assert not (home / "results").exists()
        return error

    return call


@pytest.mark.parametrize("name", SWEEPS)
def test_malformed_sweep(home, refused, name):
    text, message = SWEEPS[name]
    (home / "experiments" / "sweeps" / "s.yaml").write_text(text)
    assert message in refused("sweep", "s")


@pytest.mark.parametrize("name", RAW_SWEEPS)
def test_sweep_that_is_no_text(home, refused, name):
    (home / "experiments" / "sweeps" / "s.yaml").write_bytes(RAW_SWEEPS[name])
    assert "s.yaml" in refused("sweep", "s")


def test_bom_and_windows_line_ends_are_read(home, command):
    text = "\ufeffnotebook: 01_tiny\r\nseeds: [1]\r\n"
    (home / "experiments" / "sweeps" / "s.yaml").write_text(text, newline="")
    code, out, _ = command("sweep", "s", "--dry-run")
    assert code == 0 and "1 runs" in out


def notebook_json(**changes):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x: float = 1.0  # x")])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    return json.dumps({**notebook, **changes})


def with_parameters(source, tags=("parameters",)):
    cell = nbformat.v4.new_code_cell(source)
    cell.metadata["tags"] = list(tags)
    return nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))


NOTEBOOKS = {
    "empty file": ("", "03_bad.ipynb"),
    "no JSON": ("{not json", "does not appear to be JSON"),
    "JSON that is no notebook": ('{"a": 1}', "is not a notebook"),
    "a list": ("[1, 2]", "is not a notebook"),
    "cells no list": (notebook_json(cells=3), "is not a notebook"),
    "no parameters cell": (with_parameters("x: float = 1.0", ()), "has 0 cells tagged 'parameters'"),
    "no Python": (with_parameters("x: float = = 1.0"), "is not valid Python"),
    "untyped": (with_parameters("x = 1.0"), "Write name: type = value"),
    "unknown type": (with_parameters("x: dict = {}"), "Write name: type = value"),
    "derived value": (with_parameters("x: float = 1.0 / 3"), "Write name: type = value"),
    "default of another type": (with_parameters("x: int = 'a'"), "the default must be int, got 'a'"),
    "name twice": (with_parameters("x: int = 1\nx: int = 2"), "defined twice in the parameters cell"),
}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_malformed_notebook(home, refused, name):
    text, message = NOTEBOOKS[name]
    (home / "notebooks" / "03_bad.ipynb").write_text(text)
    assert message in refused("run", "03")
    (home / "experiments" / "sweeps" / "s.yaml").write_text("notebook: 03_bad\n")
    assert message in refused("sweep", "s")


def test_notebook_in_utf_16(home, refused):
    (home / "notebooks" / "03_bad.ipynb").write_bytes(with_parameters("x: int = 1").encode("utf-16"))
    assert "is not UTF-8" in refused("run", "03")


PAIRS = {
    "empty": ("p.jsonl", b"", "p.jsonl"),
    "broken line": ("p.jsonl", b'{"query": "a", "positive": "b"}\n{"query": \n', "p.jsonl:2"),
    "no positive": ("p.jsonl", b'{"query": "a"}\n', "positive"),
    "number for text": ("p.jsonl", b'{"query": 1, "positive": "b"}\n', "p.jsonl:1"),
    "blank query": ("p.jsonl", b'{"query": " ", "positive": "b"}\n', "p.jsonl:1"),
    "a list": ("p.jsonl", b"[1]\n", "p.jsonl:1"),
    "utf-16": ("p.jsonl", '{"query": "a", "positive": "b"}\n'.encode("utf-16"), "p.jsonl"),
    "csv without columns": ("p.csv", b"a,b\n1,2\n", "p.csv"),
    "csv ragged": ("p.csv", b"query,positive\na,b,c,d\n", "p.csv"),
    "broken parquet": ("p.parquet", b"PAR1 is not enough PAR1", "p.parquet"),
    "unknown ending": ("p.xlsx", b"x", "p.xlsx"),
    "missing": ("p.jsonl", None, "p.jsonl"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_malformed_pairs(tmp_path, name):
    file, content, message = PAIRS[name]
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(EmbedlabError) as caught:
        load_dataset(f"pairs:{tmp_path / file}")
    assert message in str(caught.value) and "\n" not in str(caught.value)
