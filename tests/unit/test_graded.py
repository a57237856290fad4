"""Losses on graded pairs by hand, the pairs themselves, and training on them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from embedlab.data.dataset import Dataset, GradedPair
from embedlab.training.contrastive import graded
from embedlab.training.contrastive.graded import GradedLoss, by_text, graded_rows, train_graded
from embedlab.training.contrastive.loss_gradients import loss_gradients
from embedlab.training.fit import FitSettings
from tests.conftest import TEXTS, tiny_model

QUERY = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 3)
# cosines 0.6, 0.8 and 0; nothing in the last two dimensions, so that AnglE's similarity is the cosine
DOCUMENTS = torch.tensor([[0.6, 0.8, 0.0, 0.0], [0.8, -0.6, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
LABELS = torch.tensor([[0, 1, 0], [0, 2, 1], [0, 3, 2]])


def value(kind, grades, temperature=1.0, **settings):
    loss = GradedLoss(torch.nn.Identity(), torch.tensor(grades), kind, temperature, dims=[4], **settings)
    return loss.of_embeddings([QUERY, DOCUMENTS], LABELS).item()


def test_cosine_by_hand():
    """Squares of 0.6 - 1, 0.8 - 0.5 and 0 - 0."""
    assert value("cosine", [1.0, 0.5, 0.0]) == pytest.approx((0.16 + 0.09) / 3)


@pytest.mark.parametrize("kind", ["cosent", "angle"])
def test_order_by_hand(kind):
    """Graded 1 > 0.5 > 0 with similarities 0.6, 0.8, 0: the first two are in the wrong order."""
    wrong, right = math.exp(0.8 - 0.6), math.exp(0 - 0.6) + math.exp(0 - 0.8)
    assert value(kind, [1.0, 0.5, 0.0]) == pytest.approx(math.log(1 + wrong + right))


def test_order_alone_counts_and_temperature_sharpens():
    assert value("cosent", [0.9, 0.2, 0.1]) == pytest.approx(value("cosent", [1.0, 0.5, 0.0]))
    assert value("cosent", [1.0, 1.0, 1.0]) == 0
    sharp = math.log(1 + math.exp(2) + math.exp(-6) + math.exp(-8))
    assert value("cosent", [1.0, 0.5, 0.0], 0.1) == pytest.approx(sharp)
    assert value("cosent", [0.5, 1.0, 0.0]) < value("cosent", [1.0, 0.5, 0.0])


def test_angle_sees_what_the_cosine_does_not():
    """The same cosine, turned into the other half of the dimensions: the cosine's loss is blind to it."""
    turned = torch.tensor([[0.6, 0.0, 0.8, 0.0], [0.8, -0.6, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    for kind, equal in (("cosent", True), ("angle", False)):
        loss = GradedLoss(torch.nn.Identity(), torch.tensor([1.0, 0.5, 0.0]), kind, 1.0, [4])
        both = [loss.of_embeddings([QUERY, documents], LABELS).item() for documents in (DOCUMENTS, turned)]
        assert (both[0] == pytest.approx(both[1])) is equal


def test_grades_follow_the_row_number():
    loss = GradedLoss(torch.nn.Identity(), torch.tensor([0.1, 0.2, 0.3]), "cosine", dims=[4])
    assert loss.targets(torch.tensor([[7, 8, 2], [7, 9, 0]])).tolist() == pytest.approx([0.3, 0.1])


DATASET = Dataset(
    name="by hand",
    corpus={"A": "text a", "B": "text b", "C": "text a"},
    queries={},
    qrels={},
    graded_pairs=(GradedPair("x", "y", 0.25),),
)


def test_rows_become_pairs_graded_by_the_tree():
    similarity = {("A", "B"): 0.75}
    pairs = graded_rows(DATASET, [("q", "text a", "text b")], by_text(DATASET.corpus, lambda a, b: similarity[a, b]))
    assert pairs == [("x", "y", 0.25), ("q", "text a", 1.0), ("q", "text b", 0.75)]
    assert graded_rows(DATASET, [("q", "text a", "text b")])[-1] == ("q", "text b", 0.0)


@pytest.mark.parametrize("kind", ["cosine", "cosent"])
def test_training_brings_the_order_about(tmp_path, kind):
    model = tiny_model()
    pairs = [GradedPair(TEXTS[0], TEXTS[1], 1.0), GradedPair(TEXTS[0], TEXTS[2], 0.0), GradedPair("x", "y", 0.5)]

    def gap():
        vectors = model.encode(TEXTS[:3], normalize_embeddings=True)
        return float(vectors[0] @ vectors[1] - vectors[0] @ vectors[2])

    before = gap()  # the untrained model hardly tells texts apart
    settings = FitSettings(steps=30, batch_size=3, learning_rate=5e-3)
    result = train_graded(model, pairs, settings, loss=kind, dims=(32, 8), output_dir=str(tmp_path))
    assert gap() > 0.005 > 10 * abs(before)
    assert result.steps == 30


def test_training_gets_the_grades_the_widths_and_the_models_prompts(tmp_path, monkeypatch):
    model, seen = tiny_model(), {}
    model.prompts = {"query": "query: ", "document": "text: "}

    def record(model, dataset, loss, settings, **options):
        seen.update(options, dataset=dataset, loss=loss, settings=settings)

    monkeypatch.setattr(graded, "fit", record)
    pairs = [GradedPair(TEXTS[0], TEXTS[1], 1.0), GradedPair(TEXTS[1], TEXTS[0], 0.25)]
    settings = FitSettings(steps=1)
    train_graded(model, pairs, settings, loss="angle", dims=(32, 8), evaluator="dev", output_dir=str(tmp_path))
    assert seen["settings"] is settings and seen["evaluator"] == "dev" and seen["output_dir"] == str(tmp_path)
    assert list(seen["dataset"]["label"]) == [[0, 1, 0], [1, 0, 1]]
    assert seen["loss"].kind == "angle" and list(seen["loss"].dims) == [32, 8]
    assert seen["loss"].targets(torch.tensor([[0, 1, 0], [1, 0, 1]])).tolist() == [1.0, 0.25]
    batch = seen["collator"]([seen["dataset"][0]])
    first, second = (name.removesuffix("_input_ids") for name in batch if name.endswith("_input_ids"))
    for column, text in ((first, f"query: {TEXTS[0]}"), (second, f"text: {TEXTS[1]}")):
        assert torch.equal(batch[f"{column}_input_ids"], model.preprocess([text])["input_ids"])


class TestForces:
    def test_one_row_per_loss_and_negative(self):
        table = loss_gradients(["cosine", "infonce"], 0.6, [0.5, 0.7])
        assert list(table) == ["loss", "positive", "negative", "value", "gradient_positive", "gradient_negative"]
        assert table.iloc[:, :3].to_numpy().tolist() == [
            ["cosine", 0.6, 0.5], ["cosine", 0.6, 0.7], ["infonce", 0.6, 0.5], ["infonce", 0.6, 0.7],
        ]  # fmt: skip

    def test_by_hand(self):
        """At n = p the value is log 2 and the force 1 / (2 t); the pull on the positive is its opposite."""
        table = loss_gradients(["infonce", "triplet", "cosine", "cosent"], 0.6, [0.6], 0.05).set_index("loss")
        for name in ("infonce", "cosent"):
            assert table.loc[name, ["value", "gradient_positive", "gradient_negative"]].tolist() == pytest.approx(
                [math.log(2), -10, 10], rel=1e-3
            )
        assert table.loc["triplet", ["value", "gradient_positive", "gradient_negative"]].tolist() == pytest.approx(
            [0.1, -1, 1]
        )
        assert table.loc["cosine", ["value", "gradient_positive", "gradient_negative"]].tolist() == pytest.approx(
            [(0.16 + 0.36) / 2, -0.4, 0.6], rel=1e-4
        )

    def test_gist_lets_go_above_the_positive(self):
        table = loss_gradients(["gist", "infonce"], 0.6, np.array([0.5, 0.7])).set_index(["loss", "negative"])[
            "gradient_negative"
        ]
        assert table["gist", 0.5] == pytest.approx(table["infonce", 0.5])
        assert table["gist", 0.7] == 0 < table["infonce", 0.7]

    def test_symmetric_has_one_direction_left(self):
        table = loss_gradients(["symmetric", "infonce"], 0.6, [0.5]).set_index("loss")["gradient_negative"]
        assert table["symmetric"] == pytest.approx(table["infonce"] / 2)
