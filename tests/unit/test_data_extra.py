"""Training pairs of another dataset: what either dataset holds out stays held out from both."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embedlab.data import extra, leakage
from embedlab.data.dataset import Dataset, Triplet
from embedlab.data.load import load_dataset, source_fingerprint
from embedlab.errors import DataError, LeakageError


def named(name, rows, codes=(), *, split_by="document"):
    """A dataset of (split, query, document); ids are `q0` and `d0`, and so on."""
    qrels = {split: {} for split in ("train", "dev", "test")}
    for number, (split, _, _) in enumerate(rows):
        qrels[split][f"q{number}"] = {f"d{number}": 1}
    queries = {f"q{number}": query for number, (_, query, _) in enumerate(rows)}
    corpus = {f"d{number}": document for number, (_, _, document) in enumerate(rows)}
    return Dataset(name, corpus, queries, qrels, codes=dict(codes), split_by=split_by)


class TestExtraDataset:
    """Translations and English synonyms of the same diseases: neither test split is revealed by the other source."""

    OURS = named(
        "ours",
        [
            ("train", "Grippe", "influenza"),
            ("train", "Krupp", "croup"),  # code C1 is held out by the other dataset
            ("train", "Mumps", "epidemic parotitis"),  # so is this document
            ("dev", "Masern", "measles"),
            ("test", "Gicht", "gout"),
        ],
        {
            "q0": ("C0",),
            "q1": ("C1",),
            "q4": ("C4",),
            "d0": ("C1",),
        },  # codes of a query count more than those of its documents
    )
    THEIRS = named(
        "theirs",
        [
            ("train", "flu", "influenza (flu)"),
            ("train", "podagra", "gouty arthritis"),  # code C4 is held out here
            ("train", "rubeola", "Measles"),  # the document of a dev query
            ("train", "gout", "joint disease"),  # the query is a held-out document
            ("dev", "barking cough", "acute laryngitis"),
            ("test", "swollen glands", "epidemic parotitis."),
        ],
        {"d1": ("C4",), "d4": ("C1",), "d0": ("C9",)},
    )

    def test_what_either_holds_out_is_held_out_from_both(self, caplog):
        data = extra.add_dataset(self.OURS, self.THEIRS)
        assert set(data.qrels["train"]) == {"q0"} and set(data.queries) == {"q0", "q3", "q4"}
        assert [triplet[:2] for triplet in data.triplets] == [("flu", "influenza (flu)")]
        assert data.corpus == self.OURS.corpus and data.qrels["test"] == self.OURS.qrels["test"]
        assert dict(data.leaks) == {"shared document": 2}
        assert "added 1 of 4 pairs, dropped 3" in caplog.text

    def test_a_negative_is_another_document_and_costs_nothing_to_find(self):
        """Only as many documents are read as needed: a corpus has tens of thousands, for every pair."""
        read = []

        class Texts(list):
            def __getitem__(self, number):
                read.append(number)
                return super().__getitem__(number)

        documents = Texts(["a", "b", "c", "d"])
        assert extra._another(documents, 5, {"b"}) == ["c"] and read == [1, 2]
        assert extra._another(documents, 0, {"a", "b", "c", "d"}) == []

    def test_afterwards_the_guard_finds_nothing(self):
        data = extra.add_dataset(self.OURS, self.THEIRS)
        assert leakage.check(data).clean and leakage.repair_against(data, self.THEIRS)[1].clean
        for kept in (self.OURS, self.THEIRS):
            other = self.THEIRS if kept is self.OURS else self.OURS
            assert not leakage.repair_against(kept, other)[1].clean

    def test_documents_may_be_shared_if_the_other_dataset_holds_out_queries_only(self):
        theirs = replace(self.THEIRS, split_by="query", codes={})
        assert extra.add_dataset(self.OURS, theirs).qrels["train"] == self.OURS.qrels["train"]

    def test_own_triplets_are_checked_too(self):
        leaking = Triplet("swollen glands", "x", "y")
        ours = replace(self.OURS, triplets=(leaking, Triplet("a b c", "x", "y")), codes={})
        assert extra.add_dataset(ours, self.THEIRS).triplets[0] == Triplet("a b c", "x", "y")

    def test_nothing_left_or_nothing_to_add_is_an_error(self):
        documents_only = {key: codes for key, codes in self.OURS.codes.items() if key != "q0"}
        with pytest.raises(LeakageError, match="every training query of ours reveals .*'acute laryngitis'"):
            extra.add_dataset(replace(self.OURS, codes=documents_only), self.THEIRS)
        with pytest.raises(DataError, match="none has no training pairs"):
            extra.add_dataset(self.OURS, named("none", [("test", "a", "b")]))

    def test_icd10(self):
        """The codes of both test splits are held out from both sources of training pairs."""
        spec = "icd10multi:all-en:smoke?extra=icd10cm:smoke"
        data, plain, english = (load_dataset(name) for name in (spec, "icd10multi:all-en:smoke", "icd10cm:smoke"))
        held_out = {code for split in ("dev", "test") for grades in english.qrels[split].values() for code in grades}
        codes = {code for query in data.qrels["train"] for code in data.codes[query]}
        assert codes and not codes & held_out
        assert {code for query in plain.qrels["train"] for code in plain.codes[query]} & held_out
        ours = {code for split in ("dev", "test") for query in data.qrels[split] for code in data.codes[query]}
        texts = {english.corpus[code] for code in ours if code in english.corpus}
        positives = {triplet.positive for triplet in data.triplets}
        assert len(positives) > 50 and not positives & texts
        assert {english.corpus[document] for _, document in english.pairs("train")} & texts
        assert (data.qrels["test"], data.corpus) == (plain.qrels["test"], plain.corpus)
        assert source_fingerprint(spec) != source_fingerprint("icd10multi:all-en:smoke")
