"""The cross-encoder as teacher: one score per pair however it is run, hand-computed targets, the right direction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError, ParameterError
from embedlab.models.cross_encoder import average_scores, cosine_rows, cross_encoder_from, score_pairs, score_rows
from embedlab.models.load import load_model
from embedlab.models.packing import pack
from embedlab.models.pair_pooling import PairProductPooling
from embedlab.models.reranker import load_reranker
from embedlab.models.save import is_own_code, save_model
from embedlab.search.judged import Judged
from embedlab.search.vectors import Vectors
from embedlab.training.distillation.cross_encoder import (
    RerankerParams,
    ScoreDistillationLoss,
    calibrate_scores,
    calibration_temperature,
    candidate_lists,
    distil_scores,
    train_cross_encoder,
)
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings, fit
from embedlab.training.losses import info_nce
from tests.conftest import TEXTS, tiny_model

ROWS = [(text, TEXTS[i - 1], TEXTS[i - 2], TEXTS[i - 3]) for i, text in enumerate(TEXTS)]
SIMPLE = [(text, "Cholera", "fracture", "Reiter's disease") for text in TEXTS if len(text) > 20]
SYNONYMS = [
    ("heart attack", "Acute myocardial infarction", "Fracture of femur", "Asthma"),
    ("broken thigh bone", "Fracture of femur", "Acute myocardial infarction", "Benign neoplasm of bone of skull"),
    ("high blood sugar", "Hyperglycemia", "Hypertension", "Acute blood loss anemia"),
]
PAIRS = [(row[0], document) for row in ROWS for document in row[1:]]


@pytest.fixture(params=["pooled", "product"])
def encoder(request):
    return cross_encoder_from(pack(tiny_model()), head=request.param)


class TestCrossEncoder:
    def test_packed_and_stock_scores_are_equal(self, encoder, tmp_path):
        save_model(encoder, tmp_path / "model")
        own = is_own_code(tmp_path / "model")
        assert own == isinstance(encoder[1], PairProductPooling)
        stock = CrossEncoder(str(tmp_path / "model"), device="cpu", trust_remote_code=own)
        expected = stock.predict(PAIRS, activation_fn=torch.nn.Identity())
        bound = {"abs": 1e-5, "rel": 1e-6}  # the product head's scores are twenty times a cosine
        assert score_pairs(encoder, PAIRS) == pytest.approx(expected, **bound)
        assert load_reranker(str(tmp_path / "model"))(PAIRS) == pytest.approx(stock.predict(PAIRS), abs=1e-5)

    def test_scores_are_raw_logits(self, encoder):
        with torch.no_grad():
            encoder[-1].linear.bias += 10
        assert score_pairs(encoder, PAIRS).max() > 1.5

    def test_the_bi_encoder_it_starts_from_is_left_alone(self):
        model = pack(tiny_model())
        before = model.encode(TEXTS)
        encoder = cross_encoder_from(model)
        train_cross_encoder(encoder, ROWS, FitSettings(steps=1, batch_size=2), output_dir="unused")
        assert np.array_equal(model.encode(TEXTS), before)

    def test_training_raises_positives_above_negatives(self, tmp_path):
        encoder = cross_encoder_from(pack(tiny_model()))
        settings = FitSettings(steps=60, batch_size=7, learning_rate=2e-3, weight_decay=0.0)
        log = train_cross_encoder(encoder, SIMPLE, settings, output_dir=str(tmp_path), hold_out=0)
        assert score_rows(encoder, SIMPLE).argmax(1).tolist() == [0] * len(SIMPLE)
        assert log[-1]["loss"] < 0.5 * log[0]["loss"]

    def test_rows_come_positive_first(self, encoder):
        scores = score_rows(encoder, ROWS)
        assert scores[2, 1] == pytest.approx(score_pairs(encoder, [(ROWS[2][0], ROWS[2][2])])[0], abs=1e-5)

    def test_scores_are_cached_by_weights_and_texts(self, encoder, tmp_path, monkeypatch):
        monkeypatch.setattr("embedlab.models.cross_encoder.cache_dir", lambda: tmp_path)
        first = score_rows(encoder, ROWS, cached=True)
        with monkeypatch.context() as patch:
            patch.setattr(type(encoder), "predict", lambda *a, **k: pytest.fail("scored again"))
            assert np.array_equal(score_rows(encoder, ROWS, cached=True), first)
        (kept,) = (tmp_path / "scores").iterdir()
        kept.write_bytes(kept.read_bytes()[:-3])
        assert np.array_equal(score_rows(encoder, ROWS, cached=True), first)
        np.save(kept, np.array([{}], dtype=object), allow_pickle=True)
        assert np.array_equal(score_rows(encoder, ROWS, cached=True), first)
        score_rows(encoder, ROWS[:-1], cached=True)
        with torch.no_grad():
            encoder[-1].linear.bias += 1
        assert score_rows(encoder, ROWS, cached=True) == pytest.approx(first + 1, abs=1e-5)
        assert len(list((tmp_path / "scores").iterdir())) == 3

    def test_held_out_rows_are_not_trained_on(self, encoder, tmp_path, monkeypatch):
        """With hold_out=3, rows 0, 3 and 6 of 7 are left out."""
        counts = []

        def fit_rows(encoder, rows, *arguments, **options):
            counts.append(len(rows))
            return fit(encoder, rows, *arguments, **options)

        monkeypatch.setattr("embedlab.training.distillation.cross_encoder.fit", fit_rows)
        settings = FitSettings(steps=1, batch_size=2)
        train_cross_encoder(encoder, ROWS, settings, output_dir=str(tmp_path), hold_out=3)
        assert counts == [4]


class TestProductHead:
    """Query and document are read together and pooled apart."""

    def test_by_hand_padded_packed_and_with_two_separators(self):
        """(0.6, 0.8) times (1, 0); (0, 1) times (0, 1), its document behind two separators, as RoBERTa has it."""
        first, second = [[0.6, 0.8], [0.6, 0.8], [1.0, 0.0], [3.0, 0.0]], [[0.0, 2.0], [0.0, 1.0]] * 2
        padded = {
            "input_ids": torch.tensor([[1, 9, 5, 9, 0], [1, 9, 9, 5, 9]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
            "token_embeddings": torch.tensor([[*first, [7.0, 7.0]], [*second, [0.0, 1.0]]]),
        }
        packed = {
            "input_ids": torch.tensor([[1, 9, 5, 9, 1, 9, 9, 5, 9]]),
            "cu_seq_lens_q": torch.tensor([0, 4, 9]),
            "token_embeddings": torch.tensor([[*first, *second, [0.0, 1.0]]]),
        }
        for features in (padded, packed):
            product = PairProductPooling(9, 2)(features)["sentence_embedding"]
            assert torch.allclose(product, torch.tensor([[0.6, 0.0], [0.0, 1.0]]))

    def test_untrained_scores_are_twenty_times_a_cosine(self):
        encoder = cross_encoder_from(pack(tiny_model()), head="product")
        features = encoder.preprocess([PAIRS[0]])
        product = encoder[1](encoder[0](features))["sentence_embedding"].sum().item()
        assert score_pairs(encoder, PAIRS[:1])[0] == pytest.approx(20 * product, abs=1e-4) and abs(product) <= 1

    def test_what_does_not_separate_the_texts_does_not_count(self):
        """Scores depend on which side of the separator a word stands."""
        encoder = cross_encoder_from(pack(tiny_model()), head="product")
        there, back = score_pairs(encoder, [("fracture Cholera", "disease"), ("fracture", "Cholera disease")])
        assert abs(there - back) > 1e-3

    @pytest.mark.slow
    def test_ranks_before_training_and_learns_from_there(self, tmp_path):
        """The base model knows which text means the same; a few steps make it surer."""
        encoder = cross_encoder_from(load_model(), head="product")
        before = score_rows(encoder, SYNONYMS)
        assert before.argmax(1).tolist() == [0] * len(SYNONYMS)
        settings = FitSettings(steps=4, batch_size=len(SYNONYMS), learning_rate=5e-5)
        train_cross_encoder(encoder, SYNONYMS, settings, output_dir=str(tmp_path), hold_out=0)
        after = score_rows(encoder, SYNONYMS)
        assert (after[:, 0] - after[:, 1:].max(1) > before[:, 0] - before[:, 1:].max(1)).all()


class TestAverageScores:
    def test_by_hand(self):
        """A quarter of cosine 0.1 as a logit of 2, three quarters of logit 4; NaN is no document."""
        mixed = average_scores(np.array([[4.0, np.nan]]), np.array([[0.1, 0.1]]), 0.25)
        assert mixed[0, 0] == pytest.approx(3.5) and np.isnan(mixed[0, 1])

    def test_cosines_of_rows(self):
        model = pack(tiny_model())
        vectors = dict(zip(TEXTS, model.encode(TEXTS, normalize_embeddings=True), strict=True))
        cosines = cosine_rows(model, ROWS)
        assert cosines.shape == (len(ROWS), 3)
        assert cosines[2, 1] == pytest.approx(vectors[ROWS[2][0]] @ vectors[ROWS[2][2]], abs=1e-5)


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

    def test_uses_the_held_out_rows_alone(self):
        """Rows 0 and 2 are held out: one of two positives is first, whatever the other rows say."""
        scores = np.float32([[2, 0], [0, 9], [0, 1], [0, 9]])
        calibrated = calibrate_scores(scores, hold_out=2)
        assert calibrated.accuracy == 0.5
        assert calibrated.temperature == pytest.approx(calibration_temperature(scores[::2]))
        assert calibrated.scores == pytest.approx(scores / calibrated.temperature)

    def test_rejects_one_document_per_row(self):
        with pytest.raises(DataError, match="at least 2 documents"):
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


def test_settings_are_those_of_the_parameters():
    values = {"epochs": 2.0, "learning_rate": 1e-5, "max_steps": 7, "seed": 3}
    params = RerankerParams.model_construct(**values)
    assert params.fit_settings() == FitSettings(**values)
    assert params.fit_settings(seed=4, batch_size=5) == FitSettings(**{**values, "seed": 4, "batch_size": 5})


class TestCandidateLists:
    """Each retriever orders the documents in its own way; the answer is p."""

    names = ("p", "a", "b", "c")
    data = Dataset(
        name="by hand",
        corpus={"p": "the answer", "a": "word one", "b": "word two", "c": "word three"},
        queries={"q": "a query"},
        qrels={"train": {"q": {"p": 1}}},
    )

    def vectors(self, *cosines):
        scores = np.array(cosines, dtype=np.float32)
        corpus = np.stack([scores, np.sqrt(1 - scores**2)], axis=1)
        return Vectors(("q",), self.names, np.array([[1, 0]], dtype=np.float32), corpus)

    def lists(self, retrievers, negatives):
        base, tuned = self.vectors(0.1, 0.9, 0.5, 0.3), self.vectors(0.9, 0.1, 0.2, 0.8)
        return candidate_lists(self.data, base, tuned, retrievers=retrievers, negatives=negatives)

    def test_a_candidate_far_above_the_answer_stays(self):
        """The base model gives a 0.9 and the answer 0.1."""
        rows, reports = self.lists(["base"], 2)
        assert rows == [("a query", "the answer", "word one", "word two")]
        assert reports["base"].too_close == 0

    def test_retrievers_take_turns(self):
        rows, reports = self.lists(["self", "base"], 3)
        assert rows[0][2:] == ("word three", "word one", "word two") and set(reports) == {"self", "base"}

    @pytest.mark.parametrize("retrievers", [[], ["expert"], ["tuned"]])
    def test_unknown_retrievers_are_refused(self, retrievers):
        values = {"dataset": "icd10cm:smoke", "model_name": "m", "negatives": 1, "epochs": 1.0, "batch_size": 1}
        values |= {"learning_rate": 1e-4, "depth": 5, "score_loss": "kl"}
        assert RerankerParams.checked({**values, "retrievers": ["base", "self", "bm25"]}).negatives == 1
        with pytest.raises(ParameterError, match="retrievers"):
            RerankerParams.checked({**values, "retrievers": retrievers})


class TestScoreLoss:
    base = -math.log(math.e**2 / (math.e**2 + 1))  # InfoNCE of logits (2, 0)

    def test_weight_zero_is_info_nce(self):
        assert loss_of("kl", [[9.0, -9.0]], weight=0.0) == pytest.approx(self.base)

    def test_a_judged_document_is_no_negative(self):
        """Text 2 answers query 0 too, so the positive stands alone: its InfoNCE is 0."""
        columns = [{"vectors": torch.tensor(v)} for v in ([[1.0, 0.0]], [[2.0, 0.0]], [[0.0, 3.0]])]
        judged = Judged(torch.tensor([0, 0]), torch.tensor([1, 2]))
        loss = ScoreDistillationLoss(Fixed(), torch.tensor([[0.0, 0.0]]), weight=0.0, temperature=0.5, judged=judged)
        assert loss(columns, torch.tensor([[0, 1, 2, 0]])).item() == 0

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
            settings = FitSettings(steps=60, batch_size=7, learning_rate=1e-3, weight_decay=0.0)
            distil_scores(student, rows, scores, settings, kind=kind, weight=weight, output_dir=str(tmp_path))
            vectors = dict(zip(TEXTS, student.encode(TEXTS, normalize_embeddings=True), strict=True))
            gaps.append(np.mean([vectors[row[0]] @ (vectors[row[2]] - vectors[row[1]]) for row in ROWS]))
        assert gaps[0] > gaps[1] + 0.03

    def test_rejects_scores_of_other_rows(self, tiny, tmp_path):
        with pytest.raises(DataError, match="expected scores of shape"):
            distil_scores(tiny, number_rows(ROWS), np.ones((2, 3)), FitSettings(), output_dir=str(tmp_path))
