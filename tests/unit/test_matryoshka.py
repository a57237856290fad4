"""Layer-wise contrastive loss: against cut models, against sentence-transformers, packed and padded; it learns."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    AdaptiveLayerLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from embedlab.errors import ParameterError
from embedlab.models.encode import encode
from embedlab.models.layers import keep_layers
from embedlab.models.packing import pack
from embedlab.training.contrastive.matryoshka_2d import (
    LayeredContrastiveLoss,
    MatryoshkaParams,
    embed_layers,
    train_matryoshka,
)
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from embedlab.training.losses import ContrastiveLoss
from tests.conftest import TEXTS, tiny_model

DIMS = [32, 8]


def features(model):
    return [model.preprocess(TEXTS[:2]), model.preprocess(TEXTS[2:4]), model.preprocess(TEXTS[4:6])]


@pytest.fixture(params=[False, True], ids=["padded", "packed"])
def model(request):
    tiny = tiny_model(layers=3)
    return (pack(tiny) if request.param else tiny).eval()


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("packed", [False, True])
def test_layers_are_those_of_the_cut_model(model_type, packed):
    model = tiny_model(model_type, layers=3).eval()
    model = pack(model) if packed else model
    with torch.no_grad():
        for layer, columns in zip((1, 2, 3), embed_layers(model, features(model), (1, 2, 3)), strict=True):
            cut = keep_layers(model, range(layer))
            for ours, column in zip(columns, features(cut), strict=True):
                torch.testing.assert_close(ours, cut(column)["sentence_embedding"], atol=1e-5, rtol=1e-4)


def test_loss_is_the_mean_over_cut_models(model):
    labels = torch.tensor([[0, 5, 7], [1, 5, 8]])  # a shared positive: the mask matters
    expected = [ContrastiveLoss(keep_layers(model, range(n)), dims=DIMS)(features(model), labels) for n in (3, 1)]
    ours = LayeredContrastiveLoss(model, (3, 1), DIMS)(features(model), labels)
    assert ours.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    assert expected[0].item() != pytest.approx(expected[1].item(), rel=1e-2)


def test_full_depth_alone_is_the_contrastive_loss(model):
    expected = ContrastiveLoss(model, dims=DIMS)(features(model))
    assert LayeredContrastiveLoss(model, [3], DIMS)(features(model)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_equals_sentence_transformers_adaptive_layers():
    """Their sum of the last layer and the mean of the earlier ones, word embeddings (0) among them; no KL term."""
    model = tiny_model(layers=3).eval()
    inner = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model, scale=20.0), DIMS)
    reference = AdaptiveLayerLoss(model, inner, n_layers_per_step=-1, kl_temperature=0)(features(model), None)
    last, *earlier = (LayeredContrastiveLoss(model, [layer], DIMS)(features(model)) for layer in (3, 2, 1, 0))
    ours = (last + sum(earlier) / 3) * len(DIMS)
    assert ours.item() == pytest.approx(reference.item(), rel=1e-5)


def test_early_layers_are_trained_directly(model):
    """The loss on layer 1 alone reaches layer 1 and nothing behind it."""
    LayeredContrastiveLoss(model, [1], DIMS)(features(model)).backward()
    reached = [any(p.grad is not None and p.grad.any() for p in n.parameters()) for n in model[0].model.encoder.layer]
    assert reached == [True, False, False]


def test_configuration_is_left_as_it_was(model):
    LayeredContrastiveLoss(model, [3, 1], DIMS)(features(model))
    assert model[0].model.config.output_hidden_states is False
    broken = [{"input_ids": None}]
    with pytest.raises(Exception):  # noqa: B017 - whatever the model says of nonsense
        embed_layers(model, broken, [1])
    assert model[0].model.config.output_hidden_states is False


def test_training_lowers_the_loss_at_every_pair(tmp_path):
    model = pack(tiny_model(layers=2))
    texts = [(text, f"{text}, unspecified", TEXTS[i - 1]) for i, text in enumerate(TEXTS)]
    rows = number_rows(texts)
    losses = {pair: LayeredContrastiveLoss(model, [pair[0]], [pair[1]]) for pair in ((2, 32), (2, 8), (1, 32), (1, 8))}

    def values():
        with torch.no_grad():
            columns = [[model.preprocess(list(column)) for column in zip(*texts, strict=True)] for _ in losses]
            return [loss.eval()(batch).item() for loss, batch in zip(losses.values(), columns, strict=True)]

    before = values()
    settings = FitSettings(steps=20, batch_size=4, learning_rate=5e-3)
    result = train_matryoshka(model, rows, settings, layers=(2, 1), dims=(32, 8), output_dir=str(tmp_path))
    assert result.steps == 20 and result.best_dev is None
    assert all(after < value for after, value in zip(values(), before, strict=True))


def test_layers_and_dimensions_reach_the_training(tmp_path):
    """Leaving either out gives other weights."""
    rows = number_rows([(text, f"{text}, unspecified", TEXTS[i - 1]) for i, text in enumerate(TEXTS)])
    settings = FitSettings(steps=2, batch_size=4, learning_rate=1e-2)
    trained = []
    for layers, dims in (((2, 1), (32, 8)), ((2,), (32, 8)), ((2, 1), (32,))):
        model = pack(tiny_model())
        train_matryoshka(model, rows, settings, layers=layers, dims=dims, output_dir=str(tmp_path))
        trained.append(torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()]))
    assert not torch.equal(trained[0], trained[1]) and not torch.equal(trained[0], trained[2])


def test_cut_model_is_a_plain_model(tmp_path):
    """Saved and loaded without this package's packing, it gives the vectors it gave before."""
    cut = keep_layers(pack(tiny_model(layers=3)), range(1))
    vectors = encode(cut, TEXTS)
    cut.save_pretrained(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert len(loaded[0].model.encoder.layer) == 1
    torch.testing.assert_close(loaded.encode(TEXTS, normalize_embeddings=True), vectors, atol=1e-5, rtol=1e-4)


def params(**changed):
    values = {"dataset": "icd10cm:smoke", "model_name": "tiny", "epochs": 1.0, "batch_size": 8, "learning_rate": 1e-4}
    values |= {"matryoshka_dims": [8], "layers": [1], "shortlist": 50, "tolerance": 0.001, "corpus_sizes": [100]}
    return MatryoshkaParams.checked(values | changed)


def test_depths_hold_the_whole_model_deepest_first(tiny):
    assert params(layers=[1]).depths(tiny) == [2, 1]
    with pytest.raises(ParameterError, match="3 exceeds the 2 layers"):
        params(layers=[3]).depths(tiny)


@pytest.mark.parametrize("changed", [{"shortlist": 9}, {"tolerance": 0.0}, {"layers": [0]}, {"corpus_sizes": [0]}])
def test_impossible_parameters_are_refused(changed):
    with pytest.raises(ParameterError):
        params(**changed)
