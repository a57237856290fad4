"""The losses of sentence-transformers that the study compares: all differ, and the first is ours without masks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from experiments import loss_variants
from tests.conftest import tiny_model


@pytest.fixture(scope="module")
def columns():
    generator = torch.Generator().manual_seed(0)
    # A shared mean, because vectors in all directions are orthogonal enough.
    return [F.normalize(1 + torch.randn(8, 16, generator=generator), dim=1) for _ in range(3)]


def test_the_reference_is_cross_entropy_over_all_documents_of_the_batch(columns):
    query, positive, negative = columns
    loss = loss_variants.LibraryLoss(tiny_model(), loss_variants.REFERENCE).at_width(columns, None)
    expected = F.cross_entropy(20 * query @ torch.cat([positive, negative]).T, torch.arange(8))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_every_loss_is_another(columns):
    model = tiny_model()
    losses = [float(loss_variants.LibraryLoss(model, name).at_width(columns, None)) for name in loss_variants.LOSSES]
    assert len({round(value, 5) for value in losses}) == len(loss_variants.LOSSES)
    assert all(0 < value < 100 for value in losses)
