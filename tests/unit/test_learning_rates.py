"""Every parameter learns at the rate it was given, weight decay stays where it was, and the default changes nothing."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from embedlab.errors import ModelError
from embedlab.training.contrastive.train import train_contrastive
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings, batches_per_epoch, training_arguments
from embedlab.training.learning_rates import learning_rates
from embedlab.training.losses import ContrastiveLoss
from tests.conftest import TEXTS, tiny_model

RATE = 1e-3
ROWS = [(text, f"{text}, unspecified") for text in TEXTS]
TABLE = "0.model.embeddings.word_embeddings.weight"
QUERY = "0.model.encoder.layer.{}.attention.self.query.weight"


def groups(model, tmp_path, **factors):
    """Parameter name -> (learning rate, weight decay) in the optimizer that the Trainer builds."""
    arguments = training_arguments(
        FitSettings(learning_rate=RATE), len(ROWS), False, str(tmp_path), rates=learning_rates(model, RATE, **factors)
    )
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=number_rows(ROWS).dataset, loss=ContrastiveLoss(model)
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    pairs = [
        (names[id(parameter)], (group["lr"], group["weight_decay"]))
        for group in trainer.create_optimizer().param_groups
        for parameter in group["params"]
    ]
    assert len(pairs) == len(names) == len(dict(pairs))  # every parameter exactly once
    return dict(pairs)


def test_rates_fall_from_layer_to_layer_and_the_table_has_its_own_factor(tiny, tmp_path):
    rates = {name: rate for name, (rate, _) in groups(tiny, tmp_path, layer_decay=0.5, embedding_rate=3.0).items()}
    assert rates[QUERY.format(1)] == pytest.approx(RATE)
    assert rates[QUERY.format(0)] == pytest.approx(RATE / 2)
    assert rates["0.model.embeddings.position_embeddings.weight"] == pytest.approx(RATE / 4)
    assert rates[TABLE] == pytest.approx(3 * RATE / 4)
    assert {rate for name, rate in rates.items() if ".layer.0." in name} == {RATE / 2}


def test_embedding_rate_alone_leaves_everything_else(tiny, tmp_path):
    rates = {name: rate for name, (rate, _) in groups(tiny, tmp_path, embedding_rate=20.0).items()}
    assert rates.pop(TABLE) == pytest.approx(20 * RATE)
    assert set(rates.values()) == {RATE}


def test_weight_decay_is_where_it_was(tiny, tmp_path):
    before, after = (groups(tiny, tmp_path, **f) for f in ({}, {"layer_decay": 0.5, "embedding_rate": 2.0}))
    assert {name: decay for name, (_, decay) in before.items()} == {name: decay for name, (_, decay) in after.items()}
    assert {decay for _, decay in after.values()} == {0.0, 0.01}
    assert all(decay == 0 for name, (_, decay) in after.items() if "LayerNorm" in name or name.endswith("bias"))


def test_default_gives_the_trainer_nothing(tiny, tmp_path):
    assert learning_rates(tiny, RATE) == {}
    arguments = training_arguments(FitSettings(), 8, False, str(tmp_path))
    assert arguments.learning_rate_mapping == {}
    assert set(groups(tiny, tmp_path).values()) == {(RATE, 0.01), (RATE, 0.0)}


def test_other_names_of_layers(tmp_path):
    rates = groups(tiny_model("distilbert"), tmp_path, layer_decay=0.1)
    assert rates["0.model.transformer.layer.0.ffn.lin1.weight"][0] == pytest.approx(RATE / 10)
    assert rates[TABLE][0] == pytest.approx(RATE / 100)


@pytest.mark.parametrize("factors", [{"layer_decay": 0.5}, {"embedding_rate": 2.0}])
def test_a_model_without_layers_is_refused(tiny, factors):
    static = SentenceTransformer(modules=[StaticEmbedding(tiny.tokenizer, embedding_dim=8)], device="cpu")
    with pytest.raises(ModelError):
        learning_rates(static, RATE, **factors)


@pytest.mark.parametrize(("factors", "still"), [({"embedding_rate": 1e-6}, [TABLE]), ({"layer_decay": 1e-3}, None)])
def test_training_moves_weights_by_their_rates(tmp_path, factors, still):
    """With Adam a weight moves by about its rate per step, whatever its gradient."""
    model, before = tiny_model(), tiny_model().state_dict()
    settings = FitSettings(steps=4, batch_size=4, learning_rate=RATE, weight_decay=0.0, **factors)
    train_contrastive(model, number_rows(ROWS), settings, output_dir=str(tmp_path))
    moved = {name: (tensor - before[name]).abs().max().item() for name, tensor in model.state_dict().items()}
    assert moved[QUERY.format(1)] > RATE / 10
    for name in still or [TABLE, QUERY.format(0)]:
        assert 0 < moved[name] < 0.01 * moved[QUERY.format(1)]


def test_rates_of_one_change_no_bit(tmp_path):
    trained = []
    for factors in ({}, {"layer_decay": 1.0, "embedding_rate": 1.0}):
        model = tiny_model()
        settings = FitSettings(steps=3, batch_size=4, **factors)
        train_contrastive(model, number_rows(ROWS), settings, output_dir=str(tmp_path))
        trained.append(torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()]))
    assert torch.equal(*trained)


def test_batches_of_an_epoch():
    settings = FitSettings(batch_size=10)
    assert batches_per_epoch(settings, 25) == 3
    assert batches_per_epoch(settings, [25, 100]) == 13
    assert batches_per_epoch(FitSettings(batch_size=10, sampling="round_robin"), [25, 100]) == 6
