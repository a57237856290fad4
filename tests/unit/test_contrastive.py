"""Training on the Trainer: it learns with every loss, keeps the best weights, repeats bit for bit, renews negatives."""

from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers.base.evaluation import BaseEvaluator

from embedlab import progress
from embedlab.errors import DataError, ParameterError
from embedlab.models.packing import pack
from embedlab.models.prompts import prompts_of
from embedlab.training.batches import TokenisedCollator
from embedlab.training.contrastive.ance import RenewingCollator, with_row_indices, with_texts
from embedlab.training.contrastive.train import as_guide, train_contrastive
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings, total_steps
from tests.conftest import TEXTS, tiny_model

ROWS = [(text, f"{text}, unspecified", TEXTS[i - 1]) for i, text in enumerate(TEXTS)]


class Scripted(BaseEvaluator):
    """Returns given dev values one after another and remembers the weights it saw."""

    def __init__(self, values):
        super().__init__()
        self.primary_metric, self.values, self.seen = "ndcg@10", list(values), []

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        self.seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"ndcg@10": self.values[len(self.seen) - 1]}


def train(tmp_path, model=None, evaluator=None, rows=None, options=None, **settings):
    model = model or tiny_model()
    defaults = {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "evaluations": 4}
    result = train_contrastive(
        model,
        rows or number_rows(ROWS),
        FitSettings(**{**defaults, **settings}),
        dims=(32, 8),
        evaluator=evaluator,
        output_dir=str(tmp_path),
        **(options or {}),
    )
    return model, result


def weights(model):
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def test_loss_falls(tmp_path):
    _, result = train(tmp_path, steps=30, learning_rate=5e-3)
    losses = [row["loss"] for row in result.history if "loss" in row]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert result.steps == 30


def test_best_weights_come_back_whole(tmp_path):
    """Dev peaks at the third evaluation (step 2): exactly those weights are left in the model."""
    evaluator = Scripted([0.1, 0.2, 0.9, 0.3, 0.4])
    model, result = train(tmp_path, evaluator=evaluator)
    assert (result.best_dev, result.best_step, result.steps) == (0.9, 2, 4)
    assert len(evaluator.seen) == 5
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, evaluator.seen[2][name]), name


def test_dev_before_the_first_step_can_be_left_out(tmp_path):
    evaluator = Scripted([0.1, 0.9, 0.3, 0.4])
    _, result = train(tmp_path, evaluator=evaluator, evaluate_start=False)
    assert (result.best_dev, result.best_step, len(evaluator.seen)) == (0.9, 2, 4)
    assert [row["step"] for row in result.history if row.get("dev") is not None][0] == 1


def test_untrained_weights_win_when_training_only_hurts(tmp_path):
    before = weights(tiny_model())
    model, result = train(tmp_path, evaluator=Scripted([0.9, 0.1, 0.1, 0.1, 0.1]))
    assert result.best_step == 0
    assert torch.equal(weights(model), before)


def test_patience_stops_early(tmp_path):
    _, result = train(tmp_path, evaluator=Scripted([0.9, 0.1, 0.1, 0.1, 0.1]), patience=2)
    assert result.steps == 2


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    first, again, other = (weights(train(tmp_path, seed=seed)[0]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_driver_sees_progress(tmp_path, monkeypatch):
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv(progress.ENVIRONMENT_NAME, str(path))
    train(tmp_path, evaluator=Scripted([0.1] * 5))
    lines = path.read_text().splitlines()
    assert any('"stage": "train"' in line and '"loss"' in line and '"total": 4' in line for line in lines)
    assert any('"dev": 0.1' in line for line in lines)


@pytest.mark.parametrize(
    "settings, steps",
    [
        ({"epochs": 3}, 6),
        ({"epochs": 3, "max_steps": 5}, 5),
        ({"epochs": 3, "max_steps": 50}, 6),
        ({"epochs": 3, "min_steps": 9}, 9),
        ({"epochs": 3, "min_steps": 9, "max_steps": 8}, 8),
        ({"epochs": 3, "steps": 20}, 20),
        ({"epochs": 3, "steps": 20, "max_steps": 7}, 7),
    ],
)
def test_epochs_and_cap(tmp_path, settings, steps):
    """Seven rows in batches of four are two steps an epoch."""
    assert total_steps(FitSettings(batch_size=4, **settings), 7) == steps
    assert train(tmp_path, **{"steps": 0} | settings)[1].steps == steps


def test_a_single_step_is_no_warm_up(tmp_path):
    before = weights(tiny_model())
    assert not torch.equal(weights(train(tmp_path, steps=1)[0]), before)


class TestLosses:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("loss", ["infonce", "symmetric", "cached", "gist"])
    def test_loss_falls_with_each(self, tmp_path, loss, packed):
        model, rows = tiny_model(), number_rows(ROWS)
        if packed:
            pack(model)
        options = {"loss": loss, "guide": as_guide(model, rows.texts) if loss == "gist" else None}
        _, result = train(tmp_path, model, rows=rows, options=options, steps=30, learning_rate=5e-3)
        losses = [row["loss"] for row in result.history if "loss" in row]
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5])

    def test_losses_are_what_they_are_called(self, tmp_path):
        """The untrained tiny model tells no texts apart: the first step costs log 8, log 4 or the margin."""
        first = {}
        for loss in ("infonce", "cached", "symmetric", "triplet"):
            result = train(tmp_path, options={"loss": loss}, steps=1)[1]
            first[loss] = next(row["loss"] for row in result.history if "loss" in row)
        expected = {"infonce": math.log(8), "cached": math.log(8), "triplet": 0.1}
        expected["symmetric"] = (math.log(8) + math.log(4)) / 2
        assert first == pytest.approx(expected, abs=0.15) and first["triplet"] == pytest.approx(0.1, abs=0.02)

    def test_cached_takes_the_same_steps(self, tmp_path):
        """Without dropout GradCache is InfoNCE."""
        after = []
        for loss in ("infonce", "cached"):
            model = tiny_model()
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
            after.append(train(tmp_path, model, options={"loss": loss}, steps=3)[0].encode(TEXTS))
        assert abs(after[0] - after[1]).max() < 1e-3
        assert abs(after[0] - tiny_model().encode(TEXTS)).max() > 1e-2

    def test_what_a_loss_lacks_is_said_before_training(self, tmp_path):
        with pytest.raises(ParameterError, match=r"\[hard_negatives\]"):
            train(tmp_path, rows=number_rows(row[:2] for row in ROWS), options={"loss": "triplet"})
        with pytest.raises(ParameterError, match="needs a guide"):
            train(tmp_path, options={"loss": "gist"})


class TestRenewal:
    """Seven rows in batches of four: two steps an epoch."""

    def test_negatives_change_before_every_epoch_but_the_first(self, tmp_path):
        """One Trainer run: the learning rate rises once and falls to 0 over all epochs."""
        calls = []

        def renew():
            calls.append(len(calls))
            return [(q, p, TEXTS[(i + calls[-1]) % len(TEXTS)]) for i, (q, p, _) in enumerate(ROWS)]

        result = train(tmp_path, options={"renew": renew}, steps=0, epochs=3)[1]
        assert (result.steps, calls) == (6, [0, 1])
        rates = [row["learning_rate"] for row in result.history if "learning_rate" in row]
        assert rates.index(max(rates)) <= 1 and rates[-1] < 0.25 * max(rates)
        assert all(later < earlier for earlier, later in zip(rates[1:], rates[2:], strict=False))

    def test_the_model_that_mines_is_up_to_date(self, tmp_path):
        """It has taken both steps of the first epoch."""
        model, seen = tiny_model(), []
        scripted = Scripted([0.1] * 5)  # sees the weights after every step
        options = {"renew": lambda: seen.append(weights(model)) or ROWS}
        train(tmp_path, model, evaluator=scripted, options=options, steps=4)
        (mining,) = seen
        assert torch.equal(mining, torch.cat([tensor.flatten().double() for tensor in scripted.seen[2].values()]))

    def test_the_same_rows_again_change_no_bit(self, tmp_path):
        renewed = weights(train(tmp_path, options={"renew": lambda: ROWS}, steps=6)[0])
        assert torch.equal(renewed, weights(train(tmp_path, steps=6)[0]))

    def test_batches_hold_what_was_renewed(self, tiny):
        rows = with_texts(number_rows(ROWS), ["a new negative"])

        def renew():
            tiny.eval()  # as encoding a corpus does
            return [(q, p, "a new negative") for q, p, _ in ROWS]

        collator = RenewingCollator(tiny.train(), rows, renew)
        dataset = [{"label": label} for label in with_row_indices(rows)["label"]]
        first = collator(dataset)
        assert torch.equal(first["label"], torch.tensor(rows.dataset["label"]))
        again = collator(dataset[::-1])
        assert tiny.training
        assert set(again["label"][:, 2].tolist()) == {len(rows.texts) - 1}
        assert torch.equal(again["label"][:, :2], first["label"][:, :2].flip(0))
        expected = TokenisedCollator(tiny, ["a new negative"], ["text"])([{"label": [0]}])["text_input_ids"]
        assert torch.equal(again["negative_1_input_ids"][0, : expected.shape[1]], expected[0])

    @pytest.mark.parametrize(
        "renewed, message", [(ROWS[:-1], "expected"), ([(*row, "x") for row in ROWS], "same width")]
    )
    def test_rows_of_another_shape_are_refused(self, tmp_path, renewed, message):
        with pytest.raises(DataError, match=message):
            train(tmp_path, options={"renew": lambda: renewed}, steps=4)

    def test_unknown_text_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="unknown text 'elsewhere'"):
            train(tmp_path, options={"renew": lambda: [(q, p, "elsewhere") for q, p, _ in ROWS]}, steps=4)


class TestPrompts:
    def test_the_models_own_prompts_are_used(self, tmp_path):
        """Training with prompts equals training on texts that begin with them, and differs from training without."""
        trained = {}
        plain = [(q, p, f"{n}, another") for q, p, n in ROWS]  # a text that is query and document would be masked
        prefixed = number_rows([(f"query: {q}", *(f"passage: {d}" for d in documents)) for q, *documents in plain])
        for name, prompts, rows in (
            ("none", {}, number_rows(plain)),
            ("own", {"query": "query: ", "passage": "passage: "}, number_rows(plain)),
            ("in the texts", {}, prefixed),
        ):
            model = tiny_model()
            model.prompts = prompts
            trained[name] = weights(train(tmp_path, model, rows=rows)[0])
        assert torch.allclose(trained["own"], trained["in the texts"], atol=1e-6)
        assert not torch.allclose(trained["own"], trained["none"], atol=1e-6)

    def test_names(self, tiny):
        assert prompts_of(tiny) == (None, None)
        tiny.prompts = {"query": "q: ", "passage": "p: "}
        assert prompts_of(tiny) == ("q: ", "p: ")
        tiny.prompts = {"query": "q: ", "document": "d: ", "passage": "p: "}
        tiny.prompts = {"query": "", "document": "d: "}
        assert prompts_of(tiny) == (None, "d: ")

    def test_guide_knows_both_roles(self, tiny):
        tiny.prompts = {"query": "query: "}
        guide = as_guide(tiny, TEXTS)
        assert guide.queries.shape == guide.documents.shape == (len(TEXTS), 32)
        assert abs(guide.queries - guide.documents).max() > 1e-3
        tiny.prompts = {}
        guide = as_guide(tiny, TEXTS)
        assert guide.queries is guide.documents
