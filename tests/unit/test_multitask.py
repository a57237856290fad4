"""Several objectives in one training: right batches, right labels, right proportions, right sums."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from embedlab.data.dataset import GradedPair
from embedlab.data.tasks import Labelled, Task
from embedlab.errors import DataError, ParameterError
from embedlab.models.encode import encode
from embedlab.models.packing import pack
from embedlab.params import Params
from embedlab.training.fit import FitSettings
from embedlab.training.losses import info_nce
from embedlab.training.multitask.forgetting import (
    REPLAY_WORDS,
    example_loss,
    first_words,
    share_of_rows,
    with_anchor,
    with_replay,
)
from embedlab.training.multitask.params import MultitaskParams
from embedlab.training.multitask.train import (
    ByTask,
    WeightedLoss,
    anchor,
    classification,
    clustering,
    objective,
    retrieval,
    similarity,
    train_multitask,
)
from tests.conftest import TEXTS, tiny_model

PAIRS = [(text, f"{text}, unspecified") for text in TEXTS]
GRADED = [GradedPair(text, TEXTS[place - 1], place / 10) for place, text in enumerate(TEXTS)]
LABELLED = [Labelled(f"{word} {number}", word) for word in ("bone", "lung", "blood") for number in range(4)]


class Watched(nn.Module):
    """A loss that remembers the labels it was called with."""

    def __init__(self, loss):
        super().__init__()
        self.loss, self.labels = loss, []

    def forward(self, features, labels=None):
        self.labels.append(labels.clone())
        return self.loss(features, labels)

    def get_config_dict(self):
        return {}


def batch_of(part, rows=None):
    """Features and labels of an objective's rows, as the Trainer would hand them to its loss."""
    rows = rows or [part.rows[place] for place in range(len(part.rows))]
    batch = part.collator(rows)
    columns = [name for name in part.rows.column_names if f"{name}_input_ids" in batch]
    features = [
        {key.removeprefix(f"{name}_"): value for key, value in batch.items() if key.startswith(f"{name}_")}
        for name in columns
    ]
    return features, batch["label"]


def watched(part):
    from dataclasses import replace

    return replace(part, loss=Watched(part.loss))


def run(objectives, model, tmp_path, **settings):
    defaults = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    return train_multitask(model, objectives, FitSettings(**{**defaults, **settings}), output_dir=str(tmp_path))


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def all_objectives(model):
    return {
        "retrieval": retrieval(model, PAIRS),
        "similarity": similarity(model, GRADED),
        "classification": classification(model, LABELLED),
        "clustering": clustering(model, LABELLED),
        "anchor": anchor(model, TEXTS, np.ones((len(TEXTS), 32), dtype=np.float32)),
    }


class TestWeights:
    def test_the_sum_of_weighted_losses_and_its_gradient(self, tiny):
        tiny.eval()  # no dropout, so that every forward is the same
        parts = list(all_objectives(tiny).values())
        weights = [1.0, 0.5, 2.0, 0.25, 3.0]
        batches = [batch_of(part) for part in parts]
        plain = [part.loss(*batch) for part, batch in zip(parts, batches, strict=True)]
        total = sum(
            WeightedLoss(part.loss, weight)(*batch) for part, weight, batch in zip(parts, weights, batches, strict=True)
        )
        assert total.item() == pytest.approx(sum(w * loss.item() for w, loss in zip(weights, plain, strict=True)))
        together = gradients(tiny, total)
        apart = sum(w * gradients(tiny, loss) for w, loss in zip(weights, plain, strict=True))
        assert torch.allclose(together, apart, atol=1e-5 * apart.abs().max().item())

    def test_training_uses_the_weight(self, tmp_path):
        """The logged loss of an untrained step is the weight times the loss."""
        logged = []
        for weight in (1.0, 3.0):
            model = tiny_model()
            result = run({"a": retrieval(model, PAIRS).weighted(weight)}, model, tmp_path, steps=1)
            logged.append(next(row["loss"] for row in result.history if "loss" in row))
        assert logged[1] == pytest.approx(3 * logged[0], rel=1e-4)

    def test_card_names_the_loss_and_its_weight(self, tiny):
        loss = WeightedLoss(retrieval(tiny, PAIRS).loss, 0.5)
        assert loss.get_config_dict() == {"weight": 0.5, "loss": "ContrastiveLoss", "temperature": 0.05, "dims": [32]}
        assert loss.model is tiny


class TestSampling:
    @pytest.mark.parametrize(("sampling", "expected"), [("proportional", (2, 6)), ("round_robin", (2, 2))])
    def test_batches_of_an_epoch(self, tmp_path, sampling, expected):
        model = tiny_model()
        parts = {
            "small": watched(retrieval(model, [(f"q {n}", f"d {n}") for n in range(8)])),
            "large": watched(retrieval(model, [(f"r {n}", f"e {n}") for n in range(24)])),
        }
        result = run(parts, model, tmp_path, sampling=sampling)
        assert tuple(len(part.loss.labels) for part in parts.values()) == expected
        assert result.steps == sum(expected)

    def test_proportional_sampling_shows_every_row_once(self, tmp_path):
        model = tiny_model()
        parts = {
            "one": watched(retrieval(model, [(f"q {n}", f"d {n}") for n in range(8)])),
            "two": watched(retrieval(model, [(f"r {n}", f"e {n}") for n in range(12)])),
        }
        run(parts, model, tmp_path)
        seen = {name: torch.cat(part.loss.labels)[:, 0].tolist() for name, part in parts.items()}
        assert sorted(seen["one"]) == list(range(0, 16, 2)) and sorted(seen["two"]) == list(range(0, 24, 2))

    def test_labelled_batches_hold_no_lonely_class(self, tmp_path):
        model = tiny_model()
        part = watched(classification(model, LABELLED))
        run({"classes": part}, model, tmp_path, epochs=2)
        sizes = [Counter(labels.tolist()) for labels in part.loss.labels]
        assert len(sizes) == 6 and all(len(count) > 1 and min(count.values()) > 1 for count in sizes)

    def test_tasks_of_every_kind_train_together(self, tmp_path):
        model = tiny_model()
        parts = {name: watched(part) for name, part in all_objectives(model).items()}
        result = run(parts, model, tmp_path, sampling="round_robin")
        assert {len(part.loss.labels) for part in parts.values()} == {2}
        assert result.steps == 10

    def test_same_seed_same_bits(self, tmp_path):
        weights = []
        for seed in (1, 1, 2):
            model = tiny_model()
            run(all_objectives(model), model, tmp_path, seed=seed)
            weights.append(torch.cat([tensor.flatten() for tensor in model.parameters()]))
        assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])

    def test_nothing_to_train_on(self, tiny, tmp_path):
        with pytest.raises(ParameterError):
            run({}, tiny, tmp_path)


class TestObjectives:
    def test_scores_stay_with_their_pairs(self, tiny):
        part = similarity(tiny, GRADED)
        features, labels = batch_of(part, [part.rows[place] for place in (3, 1)])
        assert labels.tolist() == pytest.approx([0.3, 0.1])
        ids = tiny.tokenizer([TEXTS[3], TEXTS[1]], padding=True)["input_ids"]
        assert features[0]["input_ids"].tolist() == ids
        assert features[1]["input_ids"].tolist() == tiny.tokenizer([TEXTS[2], TEXTS[0]], padding=True)["input_ids"]

    def test_classes_stay_with_their_texts(self, tiny):
        part = classification(tiny, LABELLED)
        _, labels = batch_of(part)
        assert labels.tolist() == [1] * 4 + [2] * 4 + [0] * 4  # bone, lung, blood by name: blood, bone, lung
        assert part.rows["text"][:4] == [f"bone {n}" for n in range(4)]

    def test_a_class_of_one_text_teaches_nothing_and_is_left_out(self, tiny):
        part = clustering(tiny, [*LABELLED, Labelled("alone", "other")])
        assert len(part.rows) == len(LABELLED) and "alone" not in part.rows["text"]

    @pytest.mark.parametrize("examples", [LABELLED[:4], [LABELLED[0], LABELLED[4]], []])
    def test_no_two_classes_are_refused(self, tiny, examples):
        with pytest.raises(DataError, match="two or more classes"):
            classification(tiny, examples)

    @pytest.mark.parametrize("build", [classification, clustering])
    def test_grouping_brings_classes_together(self, tmp_path, build):
        model = tiny_model()
        run({"classes": build(model, LABELLED)}, model, tmp_path, steps=60, batch_size=12)
        vectors = encode(model, [example.text for example in LABELLED])
        cosines, label = vectors @ vectors.T, np.array([example.label for example in LABELLED])
        same = label[:, None] == label[None, :]
        assert cosines[same].mean() - cosines[~same].mean() > 0.3

    def test_similarity_orders_pairs(self, tmp_path):
        model = tiny_model()
        run({"graded": similarity(model, GRADED)}, model, tmp_path, steps=40, learning_rate=3e-3, batch_size=7)
        cosines = [float(np.dot(*encode(model, [pair.text1, pair.text2]))) for pair in GRADED]
        assert np.corrcoef(cosines, [pair.score for pair in GRADED])[0, 1] > 0.8

    def test_anchor_is_zero_where_the_model_still_is(self, tiny):
        tiny.eval()
        part = anchor(tiny, TEXTS, encode(tiny, TEXTS))
        assert part.loss(*batch_of(part)).item() == pytest.approx(0, abs=1e-5)
        for parameter in tiny.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        assert part.loss(*batch_of(part)).item() > 0.01

    def test_packed_and_padded_batches_have_the_same_losses(self):
        losses = []
        for model in (tiny_model(), pack(tiny_model())):
            model.eval()
            losses.append([part.loss(*batch_of(part)).item() for part in all_objectives(model).values()])
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)

    @pytest.mark.parametrize(
        ("kind", "train", "loss"),
        [
            ("retrieval", PAIRS, "ContrastiveLoss"),
            ("similarity", GRADED, "CoSENTLoss"),
            ("classification", LABELLED, "BatchAllTripletLoss"),
            ("clustering", LABELLED, "BatchSemiHardTripletLoss"),
        ],
    )
    def test_a_task_gets_the_objective_of_its_kind(self, tiny, kind, train, loss):
        part = objective(tiny, Task("mine", kind, tuple(train), ""), 0.3)
        assert type(part.loss).__name__ == loss and part.weight == 0.3 and len(part.rows) == len(train)

    def test_batches_go_to_the_collator_of_their_task(self):
        collate = ByTask({"a": lambda rows: {"from": "a"}, "b": lambda rows: {"from": "b"}})
        assert collate([{"dataset_name": "b"}]) == {"dataset_name": "b", "from": "b"}


class TestReplay:
    @pytest.mark.parametrize(("share", "wanted"), [(0.2, 25), (0.5, 100), (0.01, 2)])
    def test_share_of_all_rows(self, share, wanted):
        rows = share_of_rows([(f"q{n}", f"d{n}") for n in range(200)], 100, share)
        assert len(rows) == wanted == len(set(rows))

    def test_too_few_pairs_come_again_equally_often(self):
        rows = share_of_rows([("a", "1"), ("b", "2"), ("c", "3")], 6, 0.5)
        assert Counter(rows) == {("a", "1"): 2, ("b", "2"): 2, ("c", "3"): 2}

    def test_another_seed_takes_others(self):
        pairs = [(f"q{n}", f"d{n}") for n in range(200)]
        first, again, other = (share_of_rows(pairs, 100, 0.2, seed) for seed in (0, 0, 1))
        assert first == again and set(first) != set(other)

    def test_nothing_to_replay(self):
        with pytest.raises(DataError):
            share_of_rows([], 10, 0.5)

    def test_texts_are_shortened(self):
        assert first_words("one  two\n" * REPLAY_WORDS).split(" ") == ["one", "two"] * (REPLAY_WORDS // 2)

    @pytest.mark.parametrize("build", [with_replay, with_anchor])
    def test_replayed_batches_are_their_share(self, tmp_path, build):
        model = tiny_model()
        domain = retrieval(model, [(f"q {n}", f"d {n}") for n in range(24)])
        general = [(f"word {n}", " ".join(f"w{i}" for i in range(100))) for n in range(8)]
        parts = build(model, domain, general, 0.25)
        parts = {name: watched(part) for name, part in parts.items()}
        run(parts, model, tmp_path)
        assert [len(part.loss.labels) for part in parts.values()] == [6, 2]
        columns = [name for name in parts[list(parts)[1]].rows.column_names if name != "label"]
        words = [len(text.split()) for name in columns for text in parts[list(parts)[1]].rows[name]]
        assert max(words) == REPLAY_WORDS

    def test_anchored_training_stays_nearer(self, tmp_path):
        moved = {}
        for name in ("free", "held"):
            model, before = tiny_model(), encode(tiny_model(), TEXTS)
            domain = retrieval(model, [(f"q {n}", f"d {n}") for n in range(8)])
            parts = {"domain": domain} if name == "free" else with_anchor(model, domain, PAIRS, 0.7)
            steps = 10 if name == "free" else 35  # as many batches of the domain
            run(parts, model, tmp_path, steps=steps, learning_rate=2e-3)
            moved[name] = 1 - (encode(model, TEXTS) * before).sum(1).mean()
        assert moved["held"] < 0.7 * moved["free"]


class TestPrompts:
    """A model with prompts is trained with them, as it is evaluated."""

    @pytest.fixture
    def prompted(self):
        model = tiny_model()
        model.prompts = {"query": "bone ", "document": "lung "}
        return model

    def test_retrieval_reads_them(self, prompted):
        said = retrieval(tiny_model(), [(f"bone {query}", f"lung {document}") for query, document in PAIRS])
        own = retrieval(prompted, PAIRS)
        for part in (own, said):
            part.loss.model.eval()
        assert own.loss(*batch_of(own)).item() == pytest.approx(said.loss(*batch_of(said)).item(), rel=1e-5)

    def test_example_loss_reads_them(self, prompted):
        said = [(f"bone {query}", f"lung {document}") for query, document in PAIRS]
        assert example_loss(prompted, PAIRS) == pytest.approx(example_loss(tiny_model(), said), rel=1e-6)
        assert example_loss(prompted, PAIRS) != pytest.approx(example_loss(tiny_model(), PAIRS), rel=1e-4)

    def test_the_anchor_holds_what_is_used(self, prompted):
        part = with_anchor(prompted, retrieval(prompted, PAIRS), PAIRS, 0.5)["anchor"]
        texts = prompted.tokenizer.batch_decode(batch_of(part)[0][0]["input_ids"], skip_special_tokens=True)
        assert Counter(text.split()[0] for text in texts) == {"bone": 4, "lung": 3}  # queries, documents, by turns


def test_example_loss_is_info_nce(tiny):
    queries, documents = (torch.from_numpy(encode(tiny, texts)) for texts in zip(*PAIRS, strict=True))
    assert example_loss(tiny, PAIRS) == pytest.approx(info_nce(queries, documents, 0.05).item())


class TestParams:
    GIVEN = {
        "dataset": "icd10cm:smoke",
        "model_name": "m",
        "epochs": 1.0,
        "learning_rate": 1e-4,
        "task_weights": [1.0, 2.0, 3.0, 4.0],
        "sampling": "round_robin",
        "layer_decay": 0.9,
        "replay_share": 0.2,
        "forgetting_budget": 0.01,
    }

    def test_settings(self):
        params = MultitaskParams.checked({**self.GIVEN, "seed": 3, "max_steps": 7})
        settings = params.fit_settings(layer_decay=params.layer_decay)
        assert (settings.sampling, settings.seed, settings.max_steps, settings.layer_decay) == (
            "round_robin",
            3,
            7,
            0.9,
        )
        assert params.fit_settings().layer_decay == 1
        assert params.weights == {"retrieval": 1, "similarity": 2, "classification": 3, "clustering": 4}
        assert issubclass(MultitaskParams, Params)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"task_weights": [1.0]},
            {"task_weights": [1.0, 0.0, 1.0, 1.0]},
            {"replay_share": 1.0},
            {"forgetting_budget": -0.1},
            {"sampling": "random"},
            {"layer_decay": 1.5},
        ],
    )
    def test_impossible_values(self, wrong):
        with pytest.raises(ParameterError):
            MultitaskParams.checked({**self.GIVEN, **wrong})
