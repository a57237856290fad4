"""Facts about the code set, its splits, and what is taken out so that nothing leaks."""

import logging
import subprocess
import sys

import pytest

from embedlab.data import icd10cm, leakage
from embedlab.data.load import load_dataset, source_fingerprint
from embedlab.data.text_analysis import normalise
from embedlab.errors import DataError

SPECS = ["icd10cm:smoke", "icd10cm:mini", "icd10cm:small", "icd10cm", "icd10cm:full:terms"]


@pytest.fixture(scope="module")
def loaded():
    """Spec -> dataset, each loaded once."""
    return {spec: load_dataset(spec) for spec in SPECS}


@pytest.fixture(scope="module", params=SPECS)
def dataset(request, loaded):
    return loaded[request.param]


def test_sizes(loaded):
    assert {spec: (len(d.corpus), len(d.queries)) for spec, d in loaded.items()} == {
        "icd10cm:smoke": (400, 423),
        "icd10cm:mini": (1_970, 1_501),
        "icd10cm:small": (7_855, 4_466),
        "icd10cm": (46_662, 12_380),
        "icd10cm:full:terms": (46_662, 12_380),
    }
    assert len(loaded["icd10cm:full:terms"].qrels["test"]) == 1_500
    full = loaded["icd10cm"]
    assert len(full.qrels["test"]) == pytest.approx(0.15 * len(full.queries), abs=1)
    assert len(full.qrels["dev"]) == pytest.approx(0.10 * len(full.queries), abs=1)


def test_terms_by_hand(loaded):
    full = loaded["icd10cm"]
    relevant = {query: grades for part in full.qrels.values() for query, grades in part.items()}
    assert full.queries["M02.3#0"] == "Reactive arthritis"
    assert relevant["M02.3#0"] == {"M02.3": 1}
    assert full.corpus["M02.3"] == "Reiter's disease"
    assert not any("classifiable to" in text for text in full.queries.values())
    shared = next(query for query, grades in relevant.items() if len(grades) == 8)
    assert set(relevant[shared]) == {f"S{i}8" for i in range(10)} - {"S18", "S28"}
    assert len({text.casefold() for text in full.queries.values()}) == len(full.queries)


def test_documents_are_codes_of_at_most_six_characters(dataset):
    assert all(3 <= len(code.replace(".", "")) <= 6 and "-" not in code for code in dataset.corpus)
    assert set(dataset.labels["chapter"]) == set(dataset.corpus)


def test_nothing_leaks(dataset):
    assert leakage.check(dataset).clean
    assert all(dataset.qrels[split] for split in ("train", "dev", "test"))


def test_held_out_codes_are_no_training_positive(loaded):
    for spec in SPECS[:3]:
        dataset = loaded[spec]
        trained = {d for _, d in dataset.pairs("train")}
        held_out = {d for split in ("dev", "test") for _, d in dataset.pairs(split)}
        assert not trained & held_out
        assert not {d for _, d in dataset.pairs("dev")} & {d for _, d in dataset.pairs("test")}
        texts = {dataset.corpus[d] for d in held_out}
        assert not texts & {triplet.positive for triplet in dataset.triplets}
        assert not texts & {text for pair in dataset.graded_pairs for text in pair[:2]}
        seen = {dataset.fields[q]["seen"] for split in ("dev", "test") for q in dataset.qrels[split]}
        assert seen == {"unseen"}


def test_terms_split_shares_codes(loaded):
    dataset = loaded["icd10cm:full:terms"]
    trained = {dataset.corpus[d] for _, d in dataset.pairs("train")} | {t.positive for t in dataset.triplets}
    for query, grades in dataset.qrels["test"].items():
        seen = any(dataset.corpus[d] in trained for d in grades)
        assert dataset.fields[query]["seen"] == ("seen" if seen else "unseen")
    seen = [dataset.fields[query]["seen"] for query in dataset.qrels["test"]]
    assert 400 < seen.count("unseen") < 600


def test_triplets_by_hand(loaded):
    corpus = loaded["icd10cm"].corpus
    triplets = list(icd10cm._triplets(corpus))
    assert len(triplets) == 4_107
    # M02 excludes1 "Behçet's disease (M35.2)".
    (found,) = (t for t in triplets if t.query == "Behçet's disease" and t.negative == corpus["M02"])
    assert found.positive == corpus["M35.2"]
    assert not any(icd10cm._EXCLUDED_CODE.match(t.query) for t in triplets)


@pytest.mark.parametrize(
    ("part", "whole", "shared"), [("smoke", "mini", 0), ("mini", "small", 0), ("small", "full", 2)]
)
def test_a_model_tuned_on_one_size_may_be_tested_on_another(part, whole, shared):
    """Two terms of `small` belong, in the whole code book, to a group that other chapters reach into."""
    smaller, larger = (icd10cm.load(size, name=size) for size in (part, whole))
    assert not set(smaller.qrels["test"]) & set(larger.qrels["train"])
    assert len(set(smaller.qrels["train"]) & set(larger.qrels["test"])) == shared


def test_dropped_triplets_are_logged(caplog):
    with caplog.at_level(logging.INFO):
        load_dataset("icd10cm:smoke")
    assert "icd10cm:smoke: dropped" in caplog.text
    assert "triplets" in caplog.text


def test_held_out_queries_are_not_among_training_texts(dataset):
    held_out = {normalise(text) for split in ("dev", "test") for text in dataset.split_queries(split).values()}
    training = {dataset.queries[q] for q in dataset.qrels["train"]} | {text for t in dataset.triplets for text in t}
    training |= {dataset.corpus[d] for _, d in dataset.pairs("train")}
    assert not held_out & set(map(normalise, training))


@pytest.mark.parametrize(
    ("a", "b", "similarity"),
    [
        ("M02.3", "M02.3", 1.0),
        ("M02.30", "M02.31", 2 * 4 / (5 + 5)),  # chapter, block, M02, M02.3 shared
        ("M02.3", "M02", 2 * 3 / (4 + 3)),
        ("M02.3", "M35.2", 2 * 1 / (4 + 4)),
        ("M02.3", "A00", 0.0),
        ("C50.9", "C50.0", 2 * 3 / (4 + 4)),  # C50 is a block and a category
    ],
)
def test_code_similarity_by_hand(a, b, similarity):
    assert icd10cm.code_similarity(a, b) == icd10cm.code_similarity(b, a) == pytest.approx(similarity)


def test_code_similarity_of_no_code():
    with pytest.raises(DataError, match="'M99.XYZ' is not an ICD-10-CM code"):
        icd10cm.code_similarity("M02", "M99.XYZ")


def test_graded_pairs_cover_the_scale(loaded):
    dataset = loaded["icd10cm:small"]
    scores = [pair.score for pair in dataset.graded_pairs]
    assert len(scores) > 2_500
    assert all(0 <= score < 1 for score in scores)
    assert sum(score == 0 for score in scores) > 500
    assert sum(score >= 0.6 for score in scores) > 500
    assert icd10cm.graded_pairs(dataset.corpus) == icd10cm.graded_pairs(dataset.corpus)


def test_related_by_hand(loaded):
    related = loaded["icd10cm"].related
    assert "M02" in related["M02.3"]
    assert {"M02.30", "M02.311"} <= related["M02.3"]
    assert not {"M02.3", "M02.2", "M02.20"} & related["M02.3"]
    assert all(a in related[b] for a, others in list(related.items())[:2_000] for b in others)


def test_fields_and_labels(loaded):
    dataset = loaded["icd10cm"]
    chapter = "Diseases of the musculoskeletal system and connective tissue"
    assert dataset.labels["chapter"]["M02.3"] == chapter
    assert dataset.fields["M02.3"]["chapter"] == dataset.fields["M02.3#0"]["chapter"] == chapter
    assert len(set(dataset.labels["chapter"].values())) == 22


def test_headings_are_the_titles_of_ancestors_without_ranges_of_codes(loaded):
    headings = loaded["icd10cm"].headings
    blood = "Diseases of the blood and blood-forming organs and certain disorders involving the immune mechanism"
    assert headings["D50"] == (blood, "Nutritional anemias")
    assert headings["D50.0"] == (blood, "Nutritional anemias", "Iron deficiency anemia")
    assert headings["N04.B1"][-1].endswith("glomerulonephritis (IC-MPGN)")  # in parentheses, but not a range
    assert set(headings) == set(loaded["icd10cm"].corpus)
    assert not any(title.endswith(("D89)", "D53)", "QA0)")) for titles in headings.values() for title in titles)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("icd10cm:medium", "no size 'medium'"),
        ("icd10cm:small:documents", "no split 'documents'"),
        ("icd10cm:small:codes:x", "too many parts"),
    ],
)
def test_bad_specs(spec, problem):
    for call in (load_dataset, source_fingerprint):
        with pytest.raises(DataError, match=problem) as caught:
            call(spec)
        assert "icd10cm[:size[:split]]" in caught.value.remedy


def test_fingerprint_needs_no_import_of_the_code_book():
    code = (
        "import sys; from embedlab.data.load import source_fingerprint; print(source_fingerprint('icd10cm'));"
        "assert not {'simple_icd_10_cm', 'torch', 'datasets', 'pyarrow'} & set(sys.modules), sorted(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == source_fingerprint("icd10cm:small")


def test_same_split_in_another_process(loaded):
    code = (
        "import warnings; warnings.simplefilter('ignore'); from embedlab.data.load import load_dataset;"
        "d = load_dataset('icd10cm:smoke'); print(list(d.qrels['test']), d.graded_pairs[:9], d.triplets[-1])"
    )
    here = loaded["icd10cm:smoke"]
    expected = f"{list(here.qrels['test'])} {here.graded_pairs[:9]} {here.triplets[-1]}"
    ran = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == expected
