"""A document that is judged relevant to a query is never one of its negatives, whatever the technique."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from embedlab.data.dataset import Dataset, Triplet
from embedlab.data.load import load_dataset
from embedlab.errors import ParameterError
from embedlab.evaluation.diagnose import probe
from embedlab.models.static import BagCollator
from embedlab.search.judged import Judged
from embedlab.search.vectors import Vectors
from embedlab.training import losses as losses_module
from embedlab.training.batches import NoDuplicates
from embedlab.training.contrastive import matryoshka_2d, pair_rows, static, train_contrastive
from embedlab.training.contrastive.ance import with_texts
from embedlab.training.contrastive.fine_tune import build_rows, fine_tune
from embedlab.training.contrastive.graded import graded_rows
from embedlab.training.contrastive.mining import mine_hard_negatives
from embedlab.training.contrastive.train import ContrastiveParams
from embedlab.training.distillation import cross_encoder
from embedlab.training.examples import contrastive_rows, number_rows, own_texts
from embedlab.training.fit import FitSettings
from embedlab.training.losses import ContrastiveLoss, GuidedLoss, false_negative_mask
from embedlab.training.multitask import retrieval
from tests.conftest import tiny_model

CASES = Path(__file__).parents[1] / "cases"
QUERIES, POSITIVES, SHARED = 30, 8, 4


def shop() -> Dataset:
    """30 queries with 8 positives each. Neighbours share half of them; query 0 comes twice, with other positives."""
    corpus = {f"d{n}": f"product number {n} of the shop" for n in range(QUERIES * SHARED + 40)}
    qrels = {f"q{n}": {f"d{n * SHARED + place}": 1 for place in range(POSITIVES)} for n in range(QUERIES)}
    queries = {f"q{n}": f"which product fits need {n}" for n in range(QUERIES)}
    corpus["copy"] = corpus["d1"]  # another id, the same text
    queries["again"], qrels["again"] = queries["q0"], {"d150": 1}
    return Dataset("shop", corpus, queries, {"train": qrels})


SHOP = shop()
RELEVANT = {(SHOP.queries[q], SHOP.corpus[d]) for q, d in SHOP.pairs("train")}


def mined(dataset: Dataset, per_pair: int = 3):
    """Hard negatives of a ranker that puts every positive, and its copy, first."""
    first = {q: [*grades, "copy", "d150", *dataset.corpus] for q, grades in dataset.qrels["train"].items()}
    candidates = {q: [(d, 0.5) for d in dict.fromkeys(documents)] for q, documents in first.items()}
    scores = dict.fromkeys(dataset.pairs("train"), 1.0)
    return mine_hard_negatives(dataset, candidates, scores, per_pair=per_pair)[0]


def sources():
    """Rows of every kind: mined, filled at random, filled after mining found too few, only pairs."""
    negatives = mined(SHOP, 1)
    return {
        "mined": contrastive_rows(SHOP, mined(SHOP), hard_negatives=3),
        "random": contrastive_rows(SHOP, hard_negatives=5),
        "filled": contrastive_rows(SHOP, negatives, hard_negatives=4),
        "proposed": contrastive_rows(SHOP, dict.fromkeys(SHOP.pairs("train"), ("d0", "d1", "copy")), hard_negatives=3),
        "pairs": contrastive_rows(SHOP, hard_negatives=0),
    }


@pytest.mark.parametrize("source", ["mined", "random", "filled", "proposed", "pairs"])
def test_no_row_has_a_relevant_document_as_negative(source):
    rows = sources()[source]
    assert len(rows) == QUERIES * POSITIVES + 1
    assert not [row for row in rows for text in row[2:] if (row[0], text) in RELEVANT or text == row[0]]
    assert {len(row) for row in rows} == {len(rows[0])}


def unmasked_faults(rows, label: torch.Tensor, mask: torch.Tensor) -> int:
    """Count the unmasked candidates of a batch that are relevant to the query and not the row's own positive."""
    candidates = label[:, 1:].T.reshape(-1).tolist()
    return sum(
        (rows.texts[row[0]], rows.texts[candidate]) in RELEVANT and not mask[place, column] and column != place
        for place, row in enumerate(label.tolist())
        for column, candidate in enumerate(candidates)
    )


def batches(rows, size=64):
    """Labels of shuffled batches, as the Trainer draws them."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor(rows.dataset["label"])
    return [labels[part] for part in order.split(size)]


@pytest.fixture
def masks(monkeypatch):
    """Every mask that a loss computes, next to its labels; the loss goes on with it."""
    seen = []

    def recording(labels, judged=None):
        mask = false_negative_mask(labels, judged)
        seen.append((labels, mask))
        return mask

    for module in (losses_module, matryoshka_2d, static, cross_encoder):
        monkeypatch.setattr(module, "false_negative_mask", recording)
    return seen


@pytest.mark.parametrize("name", ["infonce", "symmetric", "cached", "gist", "ance"])
def test_contrastive_training_masks_every_relevant_document(masks, name, tmp_path):
    model, rows = tiny_model(layers=1), number_rows(sources()["filled"])
    options = {"loss": name}
    if name == "gist":
        vectors = np.eye(len(rows.texts), 8, dtype=np.float32)
        options["guide"] = (vectors, vectors)
    if name == "ance":
        rows = with_texts(rows, SHOP.corpus.values())
        options = {"renew": lambda: contrastive_rows(SHOP, hard_negatives=4, seed=7)}
    settings = FitSettings(epochs=2, batch_size=64)
    train_contrastive(model, rows, settings, **options, output_dir=str(tmp_path))
    assert len(masks) == 8 and sum(mask.sum() for _, mask in masks) > 1000
    assert [unmasked_faults(rows, label, mask) for label, mask in masks] == [0] * len(masks)


def test_a_mask_of_the_batch_alone_would_miss_some():
    """The count that the tests above expect to be 0 is not 0 by itself: this is the fault they look for."""
    rows = number_rows(sources()["pairs"])
    assert sum(unmasked_faults(rows, label, false_negative_mask(label)) for label in batches(rows)) > 100


def test_matryoshka_over_layers_masks_every_relevant_document(masks, tmp_path):
    rows = number_rows(sources()["pairs"])
    settings = {"layers": [1], "dims": [32], "output_dir": str(tmp_path)}
    matryoshka_2d.train_matryoshka(tiny_model(layers=1), rows, FitSettings(epochs=1, batch_size=64), **settings)
    assert [unmasked_faults(rows, label, mask) for label, mask in masks] == [0] * 4


def test_distillation_of_scores_masks_every_relevant_document(masks, tmp_path):
    rows = number_rows(sources()["filled"])
    scores, settings = np.ones((len(rows), 5), np.float32), FitSettings(epochs=1, batch_size=64)
    cross_encoder.distil_scores(tiny_model(layers=1), rows, scores, settings, output_dir=str(tmp_path))
    assert [unmasked_faults(rows, label, mask) for label, mask in masks] == [0] * 4


def test_multitask_retrieval_masks_every_relevant_document():
    objective = retrieval(tiny_model(layers=1), sources()["pairs"])
    rows = number_rows(sources()["pairs"])
    assert [unmasked_faults(rows, label, objective.loss.targets(label)) for label in batches(rows)] == [0] * 4


def test_a_guide_adds_to_the_mask():
    rows = number_rows(sources()["pairs"])
    vectors = np.eye(len(rows.texts), dtype=np.float32)
    loss = GuidedLoss(nn.Identity(), vectors, vectors, dims=[2], judged=rows.judged)
    assert [unmasked_faults(rows, label, loss.targets(label)) for label in batches(rows)] == [0] * 4


def test_static_training_draws_no_relevant_document(masks, tmp_path, monkeypatch):
    """4,096 random documents per step: every document of the shop is drawn many times."""
    rows, seen, texts = number_rows(sources()["pairs"]), [], list(SHOP.corpus.values())
    pool_mask = static.RandomNegativesLoss._mask

    def recording(self, labels, sample):
        mask = pool_mask(self, labels, sample)
        seen.append((labels[:, 0], sample, mask[:, -len(sample) :]))
        return mask

    monkeypatch.setattr(static.RandomNegativesLoss, "_mask", recording)
    model, collate = tiny_static(), FitSettings(epochs=1, batch_size=64)
    static.train_static(model, rows, texts, collate, random_negatives=4096, output_dir=str(tmp_path))
    assert [unmasked_faults(rows, label, mask) for label, mask in masks] == [0] * 4
    for queries, sample, mask in seen:
        relevant = [[(rows.texts[q], rows.texts[d]) in RELEVANT if d >= 0 else False for d in sample] for q in queries]
        assert mask.tolist() == relevant
        assert mask.any() and not mask.all()


def tiny_static():
    from embedlab.models.static import static_student

    return static_student(tiny_model(layers=1), list(SHOP.corpus.values()))


def test_collators_keep_the_text_numbers_that_the_mask_reads():
    from embedlab.models.static import TokenBags
    from embedlab.training.batches import TokenisedCollator

    rows = pair_rows(SHOP)
    label = torch.tensor(rows.dataset["label"][:5])
    bags = TokenBags.tokenise(tiny_static(), rows.texts)
    for collator in (
        TokenisedCollator(tiny_model(layers=1), rows.texts, rows.columns),
        BagCollator(bags, rows.columns),
    ):
        assert torch.equal(collator([rows.dataset[place] for place in range(5)])["label"], label)


@pytest.mark.parametrize("source", ["pairs", "filled"])
def test_no_duplicates_puts_no_relevant_document_in_a_batch(source):
    """Not even masked ones: the sampler works with every loss, also those of sentence-transformers."""
    rows = sources()[source]
    dataset = number_rows(rows).dataset
    drawn = list(NoDuplicates(dataset, batch_size=16, drop_last=False, seed=0))
    assert sorted(place for batch in drawn for place in batch) == list(range(len(rows)))
    for batch in drawn:
        for place in batch:
            others = [text for other in batch if other != place for text in rows[other]]
            assert not [text for text in others if (rows[place][0], text) in RELEVANT]
    assert max(map(len, drawn)) > 4 or source == "filled"


def test_graded_rows_give_no_relevant_document_the_grade_of_a_negative():
    pairs = graded_rows(SHOP, sources()["proposed"])
    assert {pair.score for pair in pairs if (pair.text1, pair.text2) in RELEVANT} == {1.0}


def test_triplet_whose_negative_is_relevant_gets_another_negative():
    triplet = Triplet(SHOP.queries["q0"], SHOP.corpus["d0"], SHOP.corpus["d1"])
    dataset = Dataset("shop", SHOP.corpus, SHOP.queries, SHOP.qrels, triplets=(triplet,))
    (*_, row) = contrastive_rows(dataset, hard_negatives=1)
    assert row[:2] == triplet[:2] and row[2] != triplet.negative and (row[0], row[2]) not in RELEVANT


def test_a_query_in_the_corpus_is_not_its_own_hard_negative():
    corpus = {"q": "the query", "pos": "its answer", "other": "something else", "twin": "the query"}
    dataset = Dataset("self", corpus, {"q": "the query"}, {"train": {"q": {"pos": 1}}})
    candidates = {"q": [("q", 1.0), ("twin", 1.0), ("pos", 0.9), ("other", 0.1)]}
    negatives, report = mine_hard_negatives(dataset, candidates, {("q", "pos"): 2.0}, per_pair=3)
    assert negatives == {("q", "pos"): ("other",)}
    assert report.is_positive == 3


class TestOwnDocuments:
    """The query q stands in the corpus under its own id, with a title: it is neither an answer nor a negative."""

    CORPUS = {"q": "Title. The query", "pos": "its answer", "other": "something else"}
    JUDGED = {"q": {"pos": 1}, "r": {"q": 1}}
    DATASET = Dataset("self", CORPUS, {"q": "the query", "r": "a title"}, {"train": JUDGED})

    def test_is_no_random_negative(self):
        for seed in range(8):
            (row, _) = contrastive_rows(self.DATASET, hard_negatives=1, seed=seed)
            assert row == ("the query", "its answer", "something else")
        with pytest.raises(ParameterError, match="only 1 other"):
            contrastive_rows(self.DATASET, hard_negatives=2)

    def test_is_no_negative_of_the_batch(self):
        rows = number_rows(contrastive_rows(self.DATASET, hard_negatives=0), own_texts(self.DATASET))
        mask = false_negative_mask(torch.tensor(rows.dataset["label"]), rows.judged)
        assert mask.tolist() == [[False, True], [False, False]]
        assert pair_rows(self.DATASET).also_relevant == rows.also_relevant

    def test_is_no_negative_in_a_fine_tune(self, masks, tmp_path):
        shared = {"dataset": "beir:self", "model_name": "tiny", "epochs": 1.0, "learning_rate": 1e-4}
        params = ContrastiveParams(**shared, max_steps=1, batch_size=2, hard_negatives=0, matryoshka_dims=[])
        rows, options = build_rows(self.DATASET, params), {"base": None, "output_dir": str(tmp_path)}
        fine_tune(tiny_model(layers=1), self.DATASET, params, rows, **options)
        assert masks and all(mask.sum() == 1 for _, mask in masks)


def test_symmetric_direction_masks_the_queries_of_a_document():
    """Both queries have document 9: neither may count as a negative of it, also in the direction document to query."""
    judged = Judged(torch.tensor([0, 1, 0]), torch.tensor([8, 7, 7]))
    mask = ContrastiveLoss(nn.Identity(), dims=[2], judged=judged).targets(torch.tensor([[0, 8], [1, 7]]))
    assert mask.tolist() == [[False, True], [False, False]]


def test_judged_equals_a_set_of_pairs():
    numbers = np.random.default_rng(0)
    for _ in range(50):
        queries, documents, asked = (torch.from_numpy(numbers.integers(0, 20, size)) for size in (30, 30, 9))
        candidates = torch.from_numpy(numbers.integers(-1, 30, 13))
        pairs = set(zip(queries.tolist(), documents.tolist(), strict=True))
        expected = [[(q, d) in pairs for d in candidates.tolist()] for q in asked.tolist()]
        assert Judged(queries, documents).mask(asked, candidates).tolist() == expected


def test_the_probe_of_a_diagnosis_has_no_relevant_negatives(monkeypatch):
    """All documents but one answer the only query: without them the loss is that of one candidate against one."""
    seen = []
    original = torch.nn.functional.cross_entropy
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda s, t: seen.append(s) or original(s, t))
    corpus = np.eye(4, dtype=np.float32)
    vectors = Vectors(("q",), ("a", "b", "c", "d"), corpus[:1], corpus)
    probe.fit_probe(vectors, [("q", "a"), ("q", "b"), ("q", "c")], vectors, {"q": {"a": 1}}, steps=3)
    for scores in seen:
        assert (scores.isfinite().sum(1) <= 2).all()


def test_the_probe_leaves_out_the_own_document_of_a_query(monkeypatch):
    """Documents q and d; q is the query's own: only the answer d is left."""
    seen = []
    original = torch.nn.functional.cross_entropy
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda s, t: seen.append(s) or original(s, t))
    corpus = np.eye(2, dtype=np.float32)
    vectors = Vectors(("q",), ("q", "d"), corpus[:1], corpus, frozenset({"q"}))
    probe.fit_probe(vectors, [("q", "d")], vectors, {"q": {"d": 1}}, steps=2)
    assert [scores.isfinite().sum().item() for scores in seen] == [1, 1]


class TestFewDocuments:
    """32 queries about 4 documents: fewer other documents than hard negatives."""

    DATA = f"pairs:{CASES / '35_few_documents' / 'route.csv'}?split_by=query"

    def test_more_hard_negatives_than_documents_are_refused(self):
        message = "4 hard negatives, but only 3 other documents that are not judged relevant"
        with pytest.raises(ParameterError, match=message) as caught:
            contrastive_rows(load_dataset(self.DATA), hard_negatives=4)
        assert "hard_negatives=3" in str(caught.value)

    def test_as_many_as_there_are_fill_the_row(self):
        dataset = load_dataset(self.DATA)
        rows = contrastive_rows(dataset, hard_negatives=3)
        assert all(set(row[1:]) == set(dataset.corpus.values()) for row in rows)

    def test_one_document_leaves_pairs_only(self):
        dataset = Dataset("one", {"d": "text"}, {"q": "query"}, {"train": {"q": {"d": 1}}})
        with pytest.raises(ParameterError, match=r"1 hard negatives, but only 0 .*hard_negatives=0"):
            contrastive_rows(dataset, hard_negatives=1)
        assert contrastive_rows(dataset, hard_negatives=0) == [("query", "text")]
