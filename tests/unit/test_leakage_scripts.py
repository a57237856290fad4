"""The same leak in a file of pairs is refused in all twelve scripts, by the function that everybody loads data with."""

from __future__ import annotations

import csv
import unicodedata

import pytest

from embedlab.data.load import load_dataset
from embedlab.errors import LeakageError
from tests.unit.test_text_analysis import SCRIPTS

WIDE = {letter: letter + 0xFEE0 for letter in range(0x21, 0x7F)}  # ASCII -> full width
VARIANTS = {
    "the same": lambda query, typed: query,
    "typed differently": lambda query, typed: typed,
    "capitals": lambda query, typed: query.upper(),
    "capitals without accents": lambda query, typed: capitals(query),
    "decomposed": lambda query, typed: unicodedata.normalize("NFD", query),
    "compatibility form": lambda query, typed: unicodedata.normalize("NFKD", typed),
    "full width": lambda query, typed: query.translate(WIDE),
    "spaces and punctuation": lambda query, typed: f"  «{query}» ！",
    "invisible characters": lambda query, typed: f"\ufeff{query[:2]}\u00ad{query[2:]}\u200e",
}


def capitals(text):
    """Greek as it is written in capitals: without accents."""
    accent = "\u0301"
    plain = "".join(c for c in unicodedata.normalize("NFD", text.upper()) if c != accent or "Α" not in text.upper())
    return unicodedata.normalize("NFC", plain)


def write(path, train, test, *, answer="An answer of its own"):
    """A file of pairs with one training query and one test query of interest among others."""
    other = [(f"question number {n} about {word}", f"reply {n} {word}") for n, word in enumerate(["ink", "oak", "ape"])]
    rows = [(train, answer, "train"), (test, "Another reply", "test"), (*other[0], "dev"), (*other[1], "train")]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("query", "positive", "split"), *rows, (*other[2], "test")])
    return f"pairs:{path}"


def test_there_are_twelve():
    assert len(SCRIPTS) == 12 and len(VARIANTS) == 9


@pytest.mark.parametrize("script", SCRIPTS)
class TestScripts:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_the_same_query_is_refused(self, script, variant, tmp_path):
        query, typed, *_ = SCRIPTS[script]
        spec = write(tmp_path / "x.csv", query, VARIANTS[variant](query, typed))
        with pytest.raises(LeakageError, match=r"1 leaking examples \(1 identical query\)"):
            load_dataset(spec)

    def test_nearly_the_same_query_is_refused(self, script, tmp_path):
        query, typed, _, document = SCRIPTS[script]
        spec = write(tmp_path / "x.csv", f"{query} {document}", f"{document} 2031 {typed}")
        with pytest.raises(LeakageError, match=r"1 leaking examples \(1 near-identical query\)"):
            load_dataset(spec)

    def test_a_held_out_query_as_a_training_answer_is_refused(self, script, tmp_path):
        query, typed, other, _ = SCRIPTS[script]
        with pytest.raises(LeakageError, match="1 held-out query as training text"):
            load_dataset(write(tmp_path / "x.csv", other, typed, answer=query))

    def test_another_query_is_accepted_and_repair_drops_the_leak(self, script, tmp_path):
        query, typed, other, _ = SCRIPTS[script]
        assert len(load_dataset(write(tmp_path / "x.csv", query, other)).qrels["train"]) == 2
        assert len(load_dataset(f"{write(tmp_path / 'y.csv', query, typed)}?repair=true").qrels["train"]) == 1
