"""Distillation of vectors and of similarities, and the smaller transformers it starts from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer

from embedlab.errors import ModelError, ParameterError
from embedlab.models.layers import keep_layers, layer_count, pca_projection, project, spread_layers
from embedlab.models.static import BagCollator, TokenBags, static_student
from embedlab.params import TEMPERATURE
from embedlab.training.batches import TokenisedCollator
from embedlab.training.distillation.embeddings import (
    DistillationParams,
    EmbeddingDistillationLoss,
    PromptedTexts,
    distil,
    similarity_loss,
    vector_loss,
)
from embedlab.training.distillation.students import cut_layers, distil_dimensions, distil_layers, distil_static
from embedlab.training.fit import FitSettings
from tests.conftest import TEXTS, tiny_model


class TestLosses:
    def test_vector_loss_is_twice_one_minus_the_cosine(self):
        student, teacher = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        assert vector_loss(student, teacher).item() == pytest.approx((0 + 2) / 2)

    def test_similarity_loss_by_hand(self):
        """Three texts. The teacher sees text 0 as like 1 and unlike 2; the student sees all others as equal."""
        teacher, student = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]]), torch.eye(3)
        near, far = math.e / (1 + math.e), 1 / (1 + math.e)
        kl = near * math.log(near / 0.5) + far * math.log(far / 0.5)  # texts 0 and 1; text 2 sees both alike: 0
        assert similarity_loss(student, teacher, 1.0).item() == pytest.approx(2 * kl / 3)

    def test_similarity_loss_takes_the_teacher_as_the_reference(self):
        one, other = torch.randn(5, 4), torch.randn(5, 4)
        assert similarity_loss(one, other, 0.2).item() != pytest.approx(similarity_loss(other, one, 0.2).item())

    def test_similarity_loss_does_not_see_a_rotation(self):
        vectors, rotation = torch.randn(6, 4), torch.linalg.qr(torch.randn(4, 4))[0]
        assert similarity_loss(vectors @ rotation, vectors, 0.05).item() == pytest.approx(0, abs=1e-4)

    def test_both_are_smallest_at_the_teacher(self):
        teacher = torch.randn(6, 4)
        other = teacher + 0.3 * torch.randn(6, 4)
        for loss in (vector_loss, lambda a, b: similarity_loss(a, b, 0.1)):
            assert loss(teacher, teacher).item() == pytest.approx(0, abs=1e-5) and loss(other, teacher) > 1e-3


class Table(torch.nn.Module):
    """A model whose embeddings are given."""

    def __init__(self, vectors):
        super().__init__()
        self.vectors = vectors

    def forward(self, features):
        return {"sentence_embedding": self.vectors[features["rows"]]}


class TestEmbeddingDistillationLoss:
    STUDENT, TARGETS = torch.eye(3), torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    TEACHER = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])  # text 0 is like 1 and unlike 2

    def loss(self, *vectors, rows=(0, 1, 2)):
        rows = torch.tensor(rows)
        return EmbeddingDistillationLoss(Table(self.STUDENT), *vectors)([{"rows": rows}], rows[:, None]).item()

    def similarity(self):
        """Of texts 0 and 1: the teacher's cosines 1 and 0, divided by the temperature, against the student's 0 and 0.

        Text 2 is equally similar to both others.
        """
        near = 1 / (1 + math.exp(-1 / TEMPERATURE))
        far = 1 - near
        return 2 / 3 * (near * math.log(near / 0.5) + (far * math.log(far / 0.5) if far else 0))

    def test_by_hand(self):
        """Vectors: text 1 is orthogonal to its target, which costs 2 of 3 texts; both parts weigh the same."""
        assert self.loss(self.TARGETS, self.TEACHER) == pytest.approx(2 / 3 + self.similarity(), rel=1e-4)

    def test_similarities_are_those_of_the_teachers_own_vectors(self):
        """Targets equal the student's vectors; only the teacher's vectors show that texts 0 and 1 are similar."""
        assert self.loss(self.STUDENT, self.TEACHER) == pytest.approx(self.similarity(), rel=1e-4)
        assert self.loss(self.STUDENT) == pytest.approx(0, abs=1e-6)

    def test_two_texts_have_no_similarities_to_compare(self):
        assert self.loss(self.TARGETS, self.TEACHER, rows=(0, 1)) == pytest.approx(1)
        assert self.loss(self.TARGETS, self.TEACHER, rows=(2, 1, 0)) == pytest.approx(2 / 3 + self.similarity(), 1e-4)


class TestLayers:
    @pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra"])
    def test_all_layers_kept_is_the_same_model(self, kind):
        model = tiny_model(kind)
        kept = keep_layers(model, range(layer_count(model)))
        assert np.abs(kept.encode(TEXTS) - model.encode(TEXTS)).max() < 1e-6

    def test_fewer_layers_differ_and_leave_the_teacher_alone(self):
        model = tiny_model(layers=3)
        before = model.encode(TEXTS)
        kept = keep_layers(model, [0, 2])
        assert layer_count(kept) == 2 and layer_count(model) == 3
        assert np.abs(kept.encode(TEXTS) - before).max() > 1e-3
        assert np.array_equal(model.encode(TEXTS), before)

    def test_the_layers_asked_for_are_those_kept(self):
        model = tiny_model(layers=3)
        kept = keep_layers(model, [0, 2])
        ours, theirs = kept[0].model.encoder.layer[1], model[0].model.encoder.layer[2]
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))

    def test_saves_as_a_stock_model_with_its_layers(self, tmp_path):
        kept = keep_layers(tiny_model(layers=3), [0, 2])
        kept.save_pretrained(str(tmp_path / "model"))
        loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
        assert loaded.encode(TEXTS) == pytest.approx(kept.encode(TEXTS), abs=1e-6)

    @pytest.mark.parametrize("layers", [[], [0, 7], [-1]])
    def test_impossible_layers(self, layers):
        with pytest.raises(ParameterError, match="must be indices"):
            keep_layers(tiny_model(), layers)

    def test_a_static_model_has_no_layers(self):
        with pytest.raises(ModelError, match="no list of transformer layers"):
            layer_count(static_student(tiny_model(), TEXTS))

    def test_spread(self):
        assert spread_layers(12, 4) == [0, 3, 7, 11]
        assert spread_layers(6, 6) == [0, 1, 2, 3, 4, 5]
        assert spread_layers(6, 1) == [5]
        with pytest.raises(ParameterError):
            spread_layers(6, 7)


class TestProjection:
    def test_full_dimension_keeps_every_cosine(self):
        vectors = F.normalize(torch.randn(50, 8), dim=-1)
        rotated = vectors @ pca_projection(vectors, 8)
        assert torch.allclose(rotated @ rotated.T, vectors @ vectors.T, atol=1e-5)

    def test_keeps_the_directions_that_matter(self):
        """Rows in a plane of five dimensions: two directions keep every dot product, one does not."""
        plane = torch.linalg.qr(torch.randn(5, 2))[0]
        vectors = torch.randn(40, 2) @ plane.T
        for dim, exact in ((2, True), (1, False)):
            cut = vectors @ pca_projection(vectors, dim)
            assert torch.allclose(cut @ cut.T, vectors @ vectors.T, atol=1e-4) is exact

    def test_best_of_its_size(self):
        """Eckart and Young: what is lost of the Gram matrix is the sum of the eigenvalues left out."""
        vectors = torch.randn(30, 6, dtype=torch.float64)
        cut = vectors @ pca_projection(vectors, 3).double()
        lost = vectors.square().sum() - cut.square().sum()
        assert lost.item() == pytest.approx(torch.linalg.svdvals(vectors)[3:].square().sum().item(), rel=1e-5)

    def test_is_the_students_last_linear_layer(self, tiny, tmp_path):
        vectors = tiny.encode(TEXTS)
        projection = pca_projection(vectors, 5)
        student = project(tiny, projection)
        expected = F.normalize(torch.from_numpy(vectors) @ projection, dim=-1)
        torch.testing.assert_close(torch.from_numpy(student.encode(TEXTS)), expected, atol=1e-5, rtol=1e-4)
        assert student.get_embedding_dimension() == 5
        student.save_pretrained(str(tmp_path / "model"))
        loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
        assert loaded.encode(TEXTS) == pytest.approx(student.encode(TEXTS), abs=1e-6)

    def test_impossible_dimension(self):
        with pytest.raises(ParameterError, match="dim must be between 1 and 3"):
            pca_projection(torch.randn(4, 3), 4)


def agreement(student, texts, targets):
    return float((student.encode(texts, normalize_embeddings=True) * targets).sum(1).mean())


class TestDistil:
    def test_a_transformer_student_moves_to_its_teacher(self, tmp_path):
        teacher = tiny_model(layers=3)
        targets = teacher.encode(TEXTS, normalize_embeddings=True)
        student = keep_layers(teacher, [0, 2])
        before = agreement(student, TEXTS, targets)
        collator = TokenisedCollator(student, TEXTS, ["text"])
        settings = FitSettings(steps=40, batch_size=7, learning_rate=1e-3)
        result = distil(student, TEXTS, targets, settings, collator=collator, output_dir=str(tmp_path))
        assert agreement(student, TEXTS, targets) > before + 0.5 * (1 - before)
        assert result.steps == 40

    def test_a_narrow_student_moves_to_the_projected_teacher(self, tmp_path):
        teacher = tiny_model(layers=3)
        targets = teacher.encode(TEXTS, normalize_embeddings=True)
        projection = pca_projection(targets, 4)
        student = project(keep_layers(teacher, [0, 2]), projection)
        wanted = F.normalize(torch.from_numpy(targets) @ projection, dim=-1).numpy()
        before = agreement(student, TEXTS, wanted)
        distil(
            student,
            TEXTS,
            targets,
            FitSettings(steps=40, batch_size=7, learning_rate=1e-3),
            collator=TokenisedCollator(student, TEXTS, ["text"]),
            projection=projection,
            output_dir=str(tmp_path),
        )
        assert agreement(student, TEXTS, wanted) > before + 0.3 * (1 - before)

    def test_a_static_student_moves_to_its_teacher(self, tmp_path):
        teacher = tiny_model()
        targets = teacher.encode(TEXTS, normalize_embeddings=True)
        student = static_student(teacher, TEXTS)
        before = agreement(student, TEXTS, targets)
        collator = BagCollator(TokenBags.tokenise(student, TEXTS), ["text"])
        settings = FitSettings(steps=40, batch_size=7, learning_rate=1e-2, weight_decay=0.0)
        distil(student, TEXTS, targets, settings, collator=collator, output_dir=str(tmp_path))
        assert agreement(student, TEXTS, targets) > max(0.9, before)

    def test_students_are_built_and_trained_and_the_teacher_stays(self, tmp_path):
        teacher = tiny_model(layers=3)
        targets = teacher.encode(TEXTS, normalize_embeddings=True)
        settings, folder = FitSettings(steps=40, batch_size=7, learning_rate=1e-3), str(tmp_path)
        student, result = distil_layers(teacher, 2, TEXTS, targets, settings, output_dir=folder)
        assert layer_count(student) == 2 and result.steps == 40
        assert agreement(student, TEXTS, targets) > agreement(cut_layers(teacher, 2), TEXTS, targets)
        narrow, _ = distil_dimensions(student, 4, TEXTS, targets, settings, output_dir=folder)
        assert narrow.get_embedding_dimension() == 4 and student.get_embedding_dimension() == 32
        static, _ = distil_static(teacher, TEXTS, targets, settings, output_dir=folder)
        assert agreement(static, TEXTS, targets) > agreement(static_student(teacher, TEXTS), TEXTS, targets)
        assert np.array_equal(teacher.encode(TEXTS, normalize_embeddings=True), targets)

    def test_a_static_student_learns_the_main_directions_of_longer_vectors(self, tmp_path):
        teacher, rng = tiny_model(), np.random.default_rng(0)
        own = teacher.encode(TEXTS, normalize_embeddings=True)
        longer = own @ np.linalg.qr(rng.normal(size=(48, 32)))[0].T.astype(np.float32)  # the same cosines, 48-dim
        settings = FitSettings(steps=60, batch_size=7, learning_rate=1e-2, weight_decay=0.0)
        static, _ = distil_static(teacher, TEXTS, longer, settings, output_dir=str(tmp_path))
        vectors = static.encode(TEXTS, normalize_embeddings=True)
        assert vectors.shape[1] == 32 and np.abs(vectors @ vectors.T - own @ own.T).max() < 0.2

    def test_students_with_layers_learn_the_main_directions_of_longer_vectors(self, tmp_path):
        """A closed teacher with 48 dimensions: the local model that the students start from has 32."""
        start, rng, folder = tiny_model(layers=3), np.random.default_rng(0), str(tmp_path)
        own = start.encode(TEXTS, normalize_embeddings=True)
        longer = own @ np.linalg.qr(rng.normal(size=(48, 32)))[0].T.astype(np.float32)
        settings = FitSettings(steps=40, batch_size=7, learning_rate=3e-3)
        student, _ = distil_layers(start, 2, TEXTS, longer, settings, output_dir=folder)
        narrow, _ = distil_dimensions(student, 4, TEXTS, longer, settings, output_dir=folder)
        projected = longer @ pca_projection(longer, 32).numpy()
        shorter = projected @ pca_projection(projected, 4).numpy()
        for model, untrained, targets in ((student, start, projected), (narrow, None, shorter)):
            wanted = targets / np.linalg.norm(targets, axis=1, keepdims=True)
            assert agreement(model, TEXTS, wanted) > 0.9
            assert untrained is None or agreement(untrained, TEXTS, wanted) < 0.5  # another basis
        assert narrow.get_embedding_dimension() == 4

    def test_rejects_targets_of_other_dimensions(self, tiny, tmp_path):
        with pytest.raises(ParameterError, match="32 dimensions, the teacher vectors have 7"):
            distil(tiny, TEXTS, np.ones((7, 7)), FitSettings(), collator=list, output_dir=str(tmp_path))


class TestParams:
    values = {
        "dataset": "icd10cm:smoke",
        "model_name": "all-MiniLM-L6-v2",
        "students": ["static"],
        "student_layers": 3,
        "student_dim": 128,
        "epochs": 2.0,
        "learning_rate": 2e-4,
        "static_epochs": 8.0,
        "random_negatives": 4096,
        "score_loss": "kl",
        "max_steps": 7,
        "seed": 5,
    }

    def test_static_models_take_larger_steps_without_weight_decay(self):
        params = DistillationParams.checked(self.values)
        vectors, contrast = params.static_settings()
        assert (vectors.epochs, contrast.epochs) == (5.0, 8.0)
        for settings in (vectors, contrast):
            assert settings.learning_rate == 3e-3 and settings.weight_decay == 0.0
            assert (settings.max_steps, settings.seed) == (7, 5)
        assert params.fit_settings(epochs=1.0).learning_rate == 2e-4

    def test_rejects_unknown_students(self):
        with pytest.raises(ParameterError, match="students"):
            DistillationParams.checked({**self.values, "students": ["tiny"]})


@pytest.mark.parametrize("document", ["", "passage: "])
def test_prompts_of_other_lengths_are_refused_where_pooling_leaves_them_out(document):
    """Pooling leaves out one length for a whole batch; texts of one role have one."""
    model = tiny_model()
    model.prompts = {"query": "query: it is ", "document": document}
    assert PromptedTexts(model, TEXTS, TEXTS[:2])  # pooling takes the prompt as well
    model[1].include_prompt = False
    assert PromptedTexts(model, TEXTS) and PromptedTexts(model, TEXTS[:2], TEXTS[:2])
    with pytest.raises(ModelError, match="prompts of queries and documents differ in length"):
        PromptedTexts(model, TEXTS, TEXTS[:2])
