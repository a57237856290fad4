"""The losses by hand and against sentence-transformers, their masks, and GradCache against the direct gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.sentence_transformer.losses import (
    GISTEmbedLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
)

from embedlab.models.packing import pack
from embedlab.search.judged import Judged
from embedlab.training.losses import (
    CachedLoss,
    ContrastiveLoss,
    GuidedLoss,
    SymmetricLoss,
    TripletLoss,
    false_negative_mask,
    guide_mask,
    info_nce,
)
from tests.conftest import TEXTS, tiny_model


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
        (3, 1), (3, 6),  # document 6 is the query's positive in row 1
    }  # fmt: skip
    assert {tuple(cell) for cell in mask.nonzero().tolist()} == expected


def test_mask_of_own_texts_and_of_judgements_from_other_batches():
    """Row 1's positive is query 0's own text; document 6, a hard negative of row 0, answers query 0 elsewhere."""
    labels = torch.tensor([[10, 5, 6], [11, 10, 7]])
    judged = Judged(torch.tensor([10, 11, 10]), torch.tensor([5, 10, 6]))
    assert false_negative_mask(labels).nonzero().tolist() == [[0, 1]]
    assert false_negative_mask(labels, judged).nonzero().tolist() == [[0, 1], [0, 2]]


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


def columns(model, *places):
    """Features of the texts at each column's places."""
    return [model.preprocess([TEXTS[place] for place in column]) for column in places]


def gradient(model, loss, *arguments):
    model.zero_grad()
    value = loss(*arguments)
    value.backward()
    return value.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


SHARP = 2e-4  # the tiny model's cosines differ in the fourth digit
PLACES = ([0, 1, 2, 3, 4], [5, 6, 0, 1, 2], [3, 4, 5, 6, 0])
LABELS = torch.tensor([[0, 5, 3], [1, 6, 4], [2, 5, 5], [3, 1, 6], [0, 2, 0]])  # 5 answers two, 0 asks twice


class TestSymmetric:
    def test_by_hand(self):
        """Queries e1, e2 and positives e1, e1 at t = 1: forward (1, 1) and (0, 0), backward (1, 0) and (1, 0)."""
        eye, twice = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        value = SymmetricLoss(torch.nn.Identity(), 1.0, [2]).of_embeddings([eye, twice]).item()
        right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.e)
        assert value == pytest.approx((math.log(2) + (right + wrong) / 2) / 2)

    def test_masks_both_directions(self):
        """Both rows have one positive: with the mask nothing is left to tell apart, in either direction."""
        eye, twice = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        labels = torch.tensor([[1, 5], [2, 5]])
        assert SymmetricLoss(torch.nn.Identity(), 1.0, [2]).of_embeddings([eye, twice], labels).item() == 0

    @pytest.mark.parametrize("packed", [False, True])
    def test_equals_sentence_transformers(self, tiny, packed):
        if packed:
            pack(tiny)
        tiny.eval()
        reference = MultipleNegativesSymmetricRankingLoss(tiny, scale=1 / SHARP)(columns(tiny, *PLACES[:2]), None)
        ours = SymmetricLoss(tiny, SHARP)(columns(tiny, *PLACES[:2]))
        assert ours.item() == pytest.approx(reference.item(), rel=1e-3)
        one_way = ContrastiveLoss(tiny, SHARP)(columns(tiny, *PLACES[:2]))
        assert ours.item() != pytest.approx(one_way.item(), rel=2e-2)

    def test_a_mask_is_read_by_columns_on_the_way_back(self):
        """Scores (1, 0.6) and (0, 0.8) at t = 1; only document 1 is masked, and only for query 0."""
        queries, positives = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        mask = torch.tensor([[False, True], [False, False]])
        value = SymmetricLoss(torch.nn.Identity(), 1.0, [2]).at_width([queries, positives], mask).item()
        forward, backward = math.log(1 + math.exp(0 - 0.8)) / 2, math.log(1 + math.exp(0 - 1)) / 2
        assert value == pytest.approx((forward + backward) / 2)


class TestGuide:
    def test_mask_by_hand(self):
        """Query 0's positive scores 0.6 for the guide: 0.8 goes, 0.6 and 0 stay; query 1's positive scores 1."""
        queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        candidates = torch.tensor([[0.6, 0.8], [0.0, 1.0], [0.8, 0.6], [0.6, -0.8]])
        assert guide_mask(queries, candidates).tolist() == [[False, False, True, False], [False, False, False, False]]

    def test_equals_sentence_transformers_gist(self, tiny):
        """Their loss runs the guide in every step; ours has its vectors by text number.

        No text stands twice, and the guide finds the negatives nearer than the positives.
        """
        tiny.eval()
        guide, places = tiny_model(seed=1).eval(), ([0, 1], [6, 5], [2, 3])
        settings = {"temperature": SHARP, "contrast_anchors": False, "contrast_positives": False}
        reference = GISTEmbedLoss(tiny, guide, **settings)(columns(tiny, *places), None)
        vectors = guide.encode(TEXTS, normalize_embeddings=True)
        ours = GuidedLoss(tiny, vectors, vectors, SHARP)(columns(tiny, *places), torch.tensor(places).T)
        assert ours.item() == pytest.approx(reference.item(), rel=1e-3)
        unguided = ContrastiveLoss(tiny, SHARP)(columns(tiny, *places))
        assert reference.item() != pytest.approx(unguided.item(), rel=2e-2)

    def test_by_hand(self):
        vectors = np.eye(3, dtype=np.float32)
        loss = GuidedLoss(torch.nn.Identity(), vectors, vectors, 1.0, [3])
        labels = torch.tensor([[0, 0], [1, 1], [2, 2]])
        assert loss.of_embeddings([torch.eye(3)] * 2, labels).item() == pytest.approx(math.log(1 + 2 / math.e))

    def test_queries_and_documents_have_their_own_vectors(self):
        """As queries both texts lie on the second axis, as documents only text 1 does, so it beats document 0."""
        queries, documents = np.array([[0, 1], [0, 1]], np.float32), np.eye(2, dtype=np.float32)
        loss = GuidedLoss(torch.nn.Identity(), queries, documents, 1.0, [2])
        assert loss.targets(torch.tensor([[0, 0], [1, 1]])).tolist() == [[False, True], [False, False]]

    def test_labels_mask_too(self, tiny):
        vectors = F.normalize(torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), dim=1).numpy()
        mask = GuidedLoss(tiny, vectors, vectors).targets(LABELS)
        assert (mask | false_negative_mask(LABELS)).equal(mask)
        assert mask.sum() > false_negative_mask(LABELS).sum()


class TestTriplet:
    def test_by_hand(self):
        """Cosines 0.6 to the positive and 0.8 to the negative: 0.8 - 0.6 + 0.1; the easy negative costs nothing."""
        query, positive = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
        hard, easy = torch.tensor([[0.8, 0.6]]), torch.tensor([[0.0, 1.0]])
        loss = TripletLoss(torch.nn.Identity(), [2])
        assert loss.of_embeddings([query, positive, hard]).item() == pytest.approx(0.3)
        assert loss.of_embeddings([query, positive, easy]).item() == 0
        assert loss.of_embeddings([query, positive, hard, easy]).item() == pytest.approx(0.15)

    def test_encodes_with_the_model_at_its_full_dimension(self, tiny):
        """Query and positive are one text, the negative is another: 0.1 more than the negative's cosine, minus 1."""
        tiny.eval()
        query, negative = tiny.encode(TEXTS[:2], normalize_embeddings=True)
        expected = max(0.0, float(query @ negative) - 1 + 0.1)
        assert TripletLoss(tiny)(columns(tiny, [0], [0], [1])).item() == pytest.approx(expected, abs=1e-5)
        assert TripletLoss(tiny).dims == (32,)

    def test_other_rows_take_no_part(self):
        query, positive = torch.eye(2), torch.eye(2)
        negative = torch.tensor([[-1.0, 0.0], [0.0, -1.0]])
        assert TripletLoss(torch.nn.Identity(), [2]).of_embeddings([query, positive, negative]).item() == 0


def tokens_in(features):
    """Tokens of a batch without padding."""
    mask = features.get("attention_mask")
    return int(features["input_ids"].numel() if mask is None else mask.sum())


class TestCached:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("kind", [ContrastiveLoss, SymmetricLoss])
    def test_gradient_is_the_direct_one(self, packed, kind):
        model = tiny_model()
        if packed:
            pack(model)
        model.eval()
        direct = kind(model, 10 * SHARP, [32, 8])
        expected_value, expected = gradient(model, direct, columns(model, *PLACES), LABELS)
        value, cached = gradient(model, CachedLoss(direct, 2), columns(model, *PLACES), LABELS)
        assert value == pytest.approx(expected_value, rel=1e-5)
        assert (cached - expected).norm() < 1e-3 * expected.norm()

    @pytest.mark.parametrize("packed", [False, True])
    def test_passes_of_bounded_tokens_have_the_direct_gradient(self, packed):
        model = tiny_model()
        if packed:
            pack(model)
        model.eval()
        direct = ContrastiveLoss(model, 10 * SHARP, [32, 8])
        expected_value, expected = gradient(model, direct, columns(model, *PLACES), LABELS)
        tokens = []
        model[0].register_forward_pre_hook(lambda module, inputs: tokens.append(tokens_in(inputs[0])))
        features = columns(model, *PLACES)
        most = max(tokens_in(column) for column in features) // 2
        value, cached = gradient(model, CachedLoss(direct, mini_batch_num_tokens=most), features, LABELS)
        assert max(tokens) <= most
        assert sum(tokens) == 2 * sum(map(tokens_in, features))
        assert value == pytest.approx(expected_value, rel=1e-5)
        assert (cached - expected).norm() < 1e-3 * expected.norm()

    def test_same_dropout_in_both_passes(self):
        """One mini-batch in training mode: with the same seed the direct forward draws the same units."""
        model = tiny_model()
        model.train()
        loss = ContrastiveLoss(model, 10 * SHARP)
        both = []
        for made in (loss, CachedLoss(loss, 5)):
            torch.manual_seed(7)
            both.append(gradient(model, made, columns(model, *PLACES[:2]), None))
        assert both[1][0] == pytest.approx(both[0][0], rel=1e-5)
        assert (both[1][1] - both[0][1]).norm() < 1e-3 * both[0][1].norm()

    def test_needs_no_gradient_to_be_evaluated(self, tiny):
        tiny.eval()
        with torch.no_grad():
            value = CachedLoss(ContrastiveLoss(tiny), 2)(columns(tiny, *PLACES), LABELS)
        assert value.item() == pytest.approx(ContrastiveLoss(tiny)(columns(tiny, *PLACES), LABELS).item(), rel=1e-5)


def test_settings_of_the_model_card():
    nothing, vectors = torch.nn.Identity(), np.eye(2, dtype=np.float32)
    assert ContrastiveLoss(nothing, 0.5, [4, 2]).get_config_dict() == {"temperature": 0.5, "dims": [4, 2]}
    assert GuidedLoss(nothing, vectors, vectors, 0.5, [2]).get_config_dict() == {"temperature": 0.5, "dims": [2]}
    assert TripletLoss(nothing, [2]).get_config_dict() == {"margin": 0.1, "dims": [2]}
    cached = CachedLoss(TripletLoss(nothing, [2]), 16)
    assert cached.get_config_dict() == {"mini_batch_size": 16, "margin": 0.1, "dims": [2]}


def test_vectors_are_scaled_row_by_row_when_rows_and_columns_differ():
    """Cosines of (3, 4) with the axes are 0.6 and 0.8, whatever else is in the batch."""
    queries, candidates = torch.tensor([[3.0, 4.0], [0.0, 9.0]]), torch.eye(2)
    rows = [math.log(1 + math.exp(0.8 - 0.6)), math.log(1 + math.exp(0 - 1))]
    assert info_nce(queries, candidates, 1.0).item() == pytest.approx(sum(rows) / 2)
    candidates = torch.tensor([[3.0, 4.0], [0.0, 9.0]])  # query 0: 0.6 against 0; query 1: 1 against 0.8
    rows = [math.log(1 + math.exp(0 - 0.6)), math.log(1 + math.exp(0.8 - 1))]
    assert info_nce(torch.eye(2), candidates, 1.0).item() == pytest.approx(sum(rows) / 2)


def test_cached_loss_without_backward_keeps_the_graph():
    columns = [torch.eye(2, requires_grad=True), torch.eye(2).flip(0)]
    cached = CachedLoss(ContrastiveLoss(torch.nn.Identity(), 1.0, [2]))
    batches = [[column] for column in columns]
    assert cached.calculate_loss(batches).requires_grad
    assert not cached.calculate_loss(batches, with_backward=True).requires_grad
    assert columns[0].grad is not None
