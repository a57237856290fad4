"""A static model from pairs in one call."""

from dataclasses import replace

import pytest

from embedlab import load_dataset, load_model
from embedlab.data.dataset import Triplet
from embedlab.errors import ParameterError
from embedlab.training.contrastive import static_model
from embedlab.training.contrastive.static_model import StaticParams, train_static_model, untrained_static_model
from embedlab.training.distillation.languages import static_from_inputs

VALUES = {
    "dataset": "icd10cm:smoke",
    "model_name": "all-MiniLM-L6-v2",
    "epochs": 1.0,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "random_negatives": 32,
    "static_shares": [0.0, 0.5],
}


def test_training_starts_from_the_transformer_and_leaves_it_unchanged(tmp_path):
    data, base = load_dataset("icd10cm:smoke", max_examples=60), load_model()
    before = base.encode(["anemia"])
    settings = StaticParams(**VALUES, max_steps=2).fit_settings()
    static, result = train_static_model(base, data, settings, random_negatives=32, output_dir=str(tmp_path))
    assert result.steps == 2 and settings.weight_decay == 0
    assert static.get_embedding_dimension() == base.get_embedding_dimension()
    assert static.tokenizer.get_vocab() == base.tokenizer.get_vocab()
    assert (base.encode(["anemia"]) == before).all()


def test_more_negatives_are_drawn_besides_the_corpus(tmp_path, monkeypatch):
    data, base = load_dataset("icd10cm:smoke", max_examples=60), load_model()
    drawn_from = []
    monkeypatch.setattr(
        static_model, "train_static", lambda _, rows, documents, *rest, **options: drawn_from.append(documents)
    )
    settings, start = StaticParams(**VALUES).fit_settings(), static_from_inputs(base)
    for more in ([], ["Eisenmangel"]):
        train_static_model(base, data, settings, more_negatives=more, start=start, output_dir=str(tmp_path))
    assert drawn_from[0] == list(data.corpus.values()) and drawn_from[1] == [*drawn_from[0], "Eisenmangel"]


@pytest.mark.parametrize(("name", "value"), [("static_shares", []), ("static_shares", [1.2]), ("batch_size", 1)])
def test_impossible_parameters(name, value):
    with pytest.raises(ParameterError):
        StaticParams.checked(VALUES | {name: value})


def test_ngrams_are_counted_in_documents_queries_and_extra_pairs():
    """The teacher's token embeddings stay; a phrase that two triplets have is a feature."""
    data, base = load_dataset("icd10cm:smoke", max_examples=60), load_model()
    extra = tuple(Triplet(f"the qwertylike bite of {n} dogs", "bitten", "other") for n in range(2))
    data = replace(data, triplets=extra)
    plain, model = (untrained_static_model(base, data, ngrams=ngrams) for ngrams in (False, True))
    assert "qwertylike bite" in model.tokenizer.features
    weights, pieces = model[0].embedding.weight, plain[0].embedding.weight
    assert (weights[: len(pieces)] == pieces).all() and not weights[len(pieces) :].any()
