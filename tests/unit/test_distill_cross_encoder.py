"""The cross-encoder as teacher: one score per pair however it is run, hand-computed targets, the right direction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from embedlab.errors import DataError
from embedlab.models.packing import pack
from embedlab.training.cross_encoder import (
    ScoreDistillationLoss,
    calibration_temperature,
    cross_encoder_from,
    distil_scores,
    score_pairs,
    score_rows,
    train_cross_encoder,
)
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from embedlab.training.losses import info_nce
from tests.conftest import TEXTS, tiny_model

ROWS = [(text, TEXTS[i - 1], TEXTS[i - 2], TEXTS[i - 3]) for i, text in enumerate(TEXTS)]
SIMPLE = [(text, "Cholera", "fracture", "Reiter's disease") for text in TEXTS if len(text) > 20]
PAIRS = [(row[0], document) for row in ROWS for document in row[1:]]


@pytest.fixture
def encoder():
    return cross_encoder_from(pack(tiny_model()))


class TestCrossEncoder:
    def test_packed_and_stock_scores_are_equal(self, encoder, tmp_path):
        encoder.save_pretrained(str(tmp_path / "model"))
        stock = CrossEncoder(str(tmp_path / "model"), device="cpu")
        expected = stock.predict(PAIRS, activation_fn=torch.nn.Identity())
        assert score_pairs(encoder, PAIRS) == pytest.approx(expected, abs=1e-5)

    def test_scores_are_raw_logits(self, encoder):
        with torch.no_grad():
            encoder[-1].linear.bias += 10
        assert score_pairs(encoder, PAIRS).max() > 1.5

    def test_the_bi_encoder_it_starts_from_is_left_alone(self):
        model = pack(tiny_model())
        before = model.encode(TEXTS)
        encoder = cross_encoder_from(model)
        train_cross_encoder(encoder, ROWS, FitSettings(max_steps=1, batch_size=2), output_dir="unused")
        assert np.array_equal(model.encode(TEXTS), before)

    def test_training_raises_positives_above_negatives(self, encoder, tmp_path):
        settings = FitSettings(max_steps=60, batch_size=7, learning_rate=2e-3, weight_decay=0.0)
        log = train_cross_encoder(encoder, SIMPLE, settings, output_dir=str(tmp_path))
        assert score_rows(encoder, SIMPLE).argmax(1).tolist() == [0] * len(SIMPLE)
        assert log[-1]["loss"] < 0.5 * log[0]["loss"]

    def test_rows_come_positive_first(self, encoder):
        scores = score_rows(encoder, ROWS)
        assert scores[2, 1] == pytest.approx(score_pairs(encoder, [(ROWS[2][0], ROWS[2][2])])[0], abs=1e-5)

    def test_scores_are_kept_by_weights_and_pairs(self, encoder, tmp_path, monkeypatch):
        first = score_pairs(encoder, PAIRS, tmp_path)
        monkeypatch.setattr(type(encoder), "predict", lambda *a, **k: pytest.fail("scored again"))
        assert np.array_equal(score_pairs(encoder, PAIRS, tmp_path), first)
        monkeypatch.undo()
        score_pairs(encoder, PAIRS[:-1], tmp_path)
        with torch.no_grad():
            encoder[-1].linear.bias += 1
        assert score_pairs(encoder, PAIRS, tmp_path) == pytest.approx(first + 1, abs=1e-5)
        assert len(list(tmp_path.iterdir())) == 3


class TestCalibration:
    def test_finds_the_temperature_of_the_labels(self):
        """Labels drawn from softmax(logits), scores reported three times too large."""
        rng = np.random.default_rng(0)
        logits = rng.normal(size=(4000, 5))
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        right = np.array([rng.choice(5, p=p) for p in chances])
        columns = np.array([np.roll(np.arange(5), -r) for r in right])
        scores = np.take_along_axis(3 * logits, columns, axis=1)
        assert calibration_temperature(scores) == pytest.approx(3, rel=0.1)

    def test_one_document_a_row_is_refused(self):
        with pytest.raises(DataError, match="cannot be calibrated"):
            calibration_temperature(np.ones((3, 1)))


class Fixed(torch.nn.Module):
    """A model that returns its input."""

    def forward(self, features):
        return {"sentence_embedding": features["vectors"]}


def loss_of(kind, scores, weight=1.0, temperature=0.5):
    """One query at (1, 0): its positive has cosine 1, its negative cosine 0."""
    vectors = [[[1.0, 0.0]], [[2.0, 0.0]], [[0.0, 3.0]]]
    columns = [{"vectors": torch.tensor(v)} for v in vectors]
    loss = ScoreDistillationLoss(Fixed(), torch.tensor(scores), kind, weight=weight, temperature=temperature)
    return loss(columns, torch.tensor([[0, 1, 2, 0]])).item()


class TestScoreLoss:
    base = -math.log(math.e**2 / (math.e**2 + 1))  # InfoNCE of logits (2, 0)

    def test_weight_zero_is_info_nce(self):
        assert loss_of("kl", [[9.0, -9.0]], weight=0.0) == pytest.approx(self.base)

    def test_margin_mse_by_hand(self):
        """The student's margin is 1 / 0.5 - 0 = 2, the teacher's 3 - (-2) = 5."""
        assert loss_of("margin_mse", [[3.0, -2.0]], weight=0.1) == pytest.approx(self.base + 0.1 * (2 - 5) ** 2)

    def test_margin_mse_swapped_differs(self):
        """The teacher prefers the negative: margin -5, far from the student's 2."""
        assert loss_of("margin_mse", [[-2.0, 3.0]]) == pytest.approx(self.base + (2 + 5) ** 2)

    def test_kl_by_hand(self):
        """Teacher softmax(0, 0) = (1/2, 1/2), student softmax(2, 0): KL(teacher || student)."""
        student = math.e**2 / (math.e**2 + 1)
        kl = 0.5 * math.log(0.5 / student) + 0.5 * math.log(0.5 / (1 - student))
        assert loss_of("kl", [[1.0, 1.0]]) == pytest.approx(self.base + kl, abs=1e-6)

    @pytest.mark.parametrize("kind", ["kl", "margin_mse"])
    def test_a_student_that_agrees_pays_nothing(self, kind):
        assert loss_of(kind, [[7.0, 5.0]]) == pytest.approx(self.base, abs=1e-6)

    def test_each_row_meets_its_own_scores(self):
        """The student's margins are 2 and 0; the rows come in another order than their numbers: 8 and 4 are taught."""
        vectors, negatives = torch.eye(2), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        columns = [{"vectors": vectors}, {"vectors": vectors}, {"vectors": negatives}]
        labels = torch.tensor([[0, 1, 2, 1], [3, 4, 5, 0]])
        scores = torch.tensor([[4.0, 0.0], [8.0, 0.0]])
        loss = ScoreDistillationLoss(Fixed(), scores, "margin_mse", temperature=0.5)
        base = info_nce(vectors, torch.cat([vectors, negatives]), 0.5).item()
        assert loss(columns, labels).item() == pytest.approx(base + ((2 - 8) ** 2 + (0 - 4) ** 2) / 2)


def without_dropout(model):
    """Noise drowns what so small a random network can learn."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


class TestDistilScores:
    @pytest.mark.parametrize("kind", ["kl", "margin_mse"])
    def test_the_student_takes_over_the_teachers_order(self, kind, tmp_path):
        """The teacher prefers the second document, against the label: it rises, compared with the label alone."""
        gaps = []
        for weight in (5.0, 0.0):
            student, rows = without_dropout(pack(tiny_model())), number_rows(ROWS)
            scores = np.tile(np.float32([0, 2, -2]), (len(ROWS), 1))
            settings = FitSettings(max_steps=60, batch_size=7, learning_rate=1e-3, weight_decay=0.0)
            distil_scores(student, rows, scores, settings, kind=kind, weight=weight, output_dir=str(tmp_path))
            vectors = dict(zip(TEXTS, student.encode(TEXTS, normalize_embeddings=True), strict=True))
            gaps.append(np.mean([vectors[row[0]] @ (vectors[row[2]] - vectors[row[1]]) for row in ROWS]))
        assert gaps[0] > gaps[1] + 0.03

    def test_scores_of_other_rows_are_refused(self, tiny, tmp_path):
        with pytest.raises(DataError, match="for rows of"):
            distil_scores(tiny, number_rows(ROWS), np.ones((2, 3)), FitSettings(), output_dir=str(tmp_path))
