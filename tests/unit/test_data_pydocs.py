"""The docstring probe: rules on hand-made modules, and facts about the installed packages."""

import pytest

from embedlab.data import pydocs
from embedlab.data.load import load_dataset, source_fingerprint
from embedlab.data.text_analysis import normalise
from embedlab.errors import DataError

BODY = "It takes the numbers one by one and adds them up until there is none left. " * 5


def found(tmp_path, source):
    path = tmp_path / "module.py"
    path.write_text(source, "utf-8")
    return list(pydocs._module_docstrings(path, "pkg.module", "pkg"))


def function(name, docstring, indent=""):
    return f'{indent}def {name}():\n{indent}    """{docstring}"""\n\n'


def test_taken_apart(tmp_path):
    source = function("total", f"Return the sum of all elements.\n\n    {BODY}")
    source += "class Tree:\n" + function("grow", f"Let the tree grow a branch.\n\n        {BODY}", "    ")
    total, grow = found(tmp_path, source)
    assert total == ("pkg.module.total", "pkg", "Return the sum of all elements.", BODY.strip())
    assert (grow.name, grow.summary) == ("pkg.module.Tree.grow", "Let the tree grow a branch.")


@pytest.mark.parametrize(
    "source",
    [
        function("_hidden", f"Return the sum of all elements.\n\n{BODY}"),
        function("short", f"Add up.\n\n{BODY}"),
        function("bare", "Return the sum of all elements.\n\nToo little."),
        function("runs_on", f"Return the sum of\nall the elements.\n\n{BODY}"),
        "def broken(:",
        "x = 1",
    ],
)
def test_left_out(tmp_path, source):
    assert found(tmp_path, source) == []


def test_ambiguous_and_repeating_docstrings_are_not_chosen():
    def docstring(name, summary, body="something else"):
        return pydocs.Docstring(name, "p", summary, body)

    good = docstring("c", "Return the sum of it")
    asked_twice = [docstring("a", "Fit the model."), docstring("b", "fit the model")]
    repeats = docstring("d", "Return a copy.", "To return  a copy, call it.")
    assert pydocs._select([*asked_twice, good, repeats]) == [good]


class TestKept:
    """The selection stays in the cache."""

    @pytest.fixture
    def file(self, monkeypatch, tmp_path):
        monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path))
        docstrings = [pydocs.Docstring("a", "p", "Return the sum of it", BODY)]
        monkeypatch.setattr(pydocs, "_docstrings", lambda package: docstrings if package == "numpy" else [])
        assert list(pydocs.load("", name="x").queries) == ["a"]
        (file,) = tmp_path.rglob("*.json")
        return file

    def test_is_read_the_second_time(self, monkeypatch, file):
        before = pydocs.load("", name="x")
        monkeypatch.setattr(pydocs, "_docstrings", None)
        assert pydocs.load("", name="x") == before

    @pytest.mark.parametrize(
        "damage", ["", "[[", "[1]", '[["a"]]', "{}1", "{}", "[]", '["abcd"]', '[["a", "p", "s", 1]]']
    )
    def test_a_damaged_file_is_made_again(self, file, damage):
        whole = file.read_text()
        file.write_text(damage)
        assert list(pydocs.load("", name="x").queries) == ["a"] and file.read_text() == whole

    def test_other_packages_are_read_again(self, monkeypatch, file):
        monkeypatch.setattr(pydocs.importlib.metadata, "version", lambda _package: "0.0")
        other = [pydocs.Docstring("b", "p", "Return the sum of it", BODY)]
        monkeypatch.setattr(pydocs, "_docstrings", lambda package: other if package == "numpy" else [])
        assert list(pydocs.load("", name="x").queries) == ["b"]

    def test_a_cache_that_cannot_be_written_costs_nothing(self, monkeypatch, file):
        monkeypatch.setenv("EMBEDLAB_CACHE", str(file))
        assert list(pydocs.load("", name="x").queries) == ["a"]


@pytest.fixture(scope="module")
def probe():
    return load_dataset("pydocs")


def test_installed_packages_give_a_test_split(probe):
    assert 500 < len(probe.queries) <= pydocs.MAX_PAIRS
    assert list(probe.qrels["test"]) == list(probe.queries)
    assert not probe.qrels["train"] and not probe.qrels["dev"]
    assert {fields["package"] for fields in probe.fields.values()} <= set(pydocs.PACKAGES)


def test_no_summary_in_its_body_and_no_text_twice(probe):
    for query, document in probe.pairs("test"):
        assert normalise(probe.queries[query]) not in normalise(probe.corpus[document])
        assert len(probe.corpus[document].split()) >= pydocs.MIN_BODY_WORDS
    assert len({normalise(text) for text in probe.queries.values()}) == len(probe.queries)
    assert len(set(probe.corpus.values())) == len(probe.corpus)


def test_fingerprint_follows_the_versions(monkeypatch):
    before = source_fingerprint("pydocs")
    assert before == source_fingerprint("pydocs")
    monkeypatch.setattr(pydocs.importlib.metadata, "version", lambda package: "0.0")
    assert source_fingerprint("pydocs") != before


def test_no_options():
    with pytest.raises(DataError, match="no location or size, got 'big'"):
        load_dataset("pydocs:big")
