"""The contrastive loss by hand, against sentence-transformers, and its mask."""

from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss

from embedlab.models.packing import pack
from embedlab.training.losses import ContrastiveLoss, false_negative_mask, info_nce


def test_info_nce_by_hand():
    """Two orthogonal pairs at t = 1: each row scores (1, 0), so the loss is log(1 + 1/e)."""
    eye = torch.eye(2)
    assert info_nce(eye, eye, 1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))
    # Positives swapped: the right answer now scores 0 against 1.
    assert info_nce(eye, eye.flip(0), 1.0).item() == pytest.approx(math.log(1 + math.e))


def test_temperature_and_length_of_vectors():
    """Temperature divides the cosine; the length of a vector does not matter."""
    eye = torch.eye(2)
    assert info_nce(eye * 7, eye * 3, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_hard_negative_enters_the_denominator():
    queries = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert info_nce(queries, candidates, 1.0).item() == pytest.approx(math.log(2))
    masked = info_nce(queries, candidates, 1.0, torch.tensor([[False, True]]))
    assert masked.item() == pytest.approx(0.0)


def test_mask_by_hand():
    """Row 0 and row 2 share a positive (5); rows 1 and 3 are the same query (11); 6 is also a hard negative."""
    labels = torch.tensor([[10, 5, 7], [11, 6, 8], [12, 5, 6], [11, 9, 5]])
    mask = false_negative_mask(labels)
    assert mask.shape == (4, 8)
    expected = {
        (0, 2), (0, 7),  # row 2's positive and row 3's hard negative are document 5
        (1, 3), (1, 6),  # row 3 is the same query; row 2's hard negative is document 6
        (2, 0), (2, 7),
        (3, 1),
    }  # fmt: skip
    assert {tuple(cell) for cell in mask.nonzero().tolist()} == expected


def test_own_positive_is_never_masked():
    labels = torch.randint(0, 3, (16, 3), generator=torch.Generator().manual_seed(0))
    assert not false_negative_mask(labels).diagonal().any()


@pytest.mark.parametrize("packed", [False, True])
def test_equals_sentence_transformers_matryoshka(tiny, texts, packed):
    """Slow reference: their wrapper around their loss, per dimension; ours takes the mean over dimensions."""
    if packed:
        pack(tiny)
    tiny.eval()
    dims = [32, 16, 8]

    def features():
        return [tiny.preprocess(texts[:2]), tiny.preprocess(texts[2:4]), tiny.preprocess(texts[4:6])]

    reference = MatryoshkaLoss(tiny, MultipleNegativesRankingLoss(tiny, scale=20.0), dims)(features(), None)
    ours = ContrastiveLoss(tiny, temperature=0.05, dims=dims)(features(), None)
    assert ours.item() == pytest.approx(reference.item() / len(dims), rel=1e-5)


def test_batch_order_does_not_matter(tiny, texts):
    tiny.eval()
    loss = ContrastiveLoss(tiny, dims=[32, 8])

    def value(order):
        columns = [[texts[i] for i in order], [texts[i + 3] for i in order]]
        labels = torch.tensor([[i, i + 10] for i in order])
        return loss([tiny.preprocess(column) for column in columns], labels).item()

    assert value([0, 1, 2]) == pytest.approx(value([2, 0, 1]), rel=1e-5)
