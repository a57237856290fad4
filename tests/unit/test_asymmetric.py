"""A static query encoder for frozen documents: the joined model, the loss by hand, training, and its errors."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from embedlab.errors import DataError, ModelError
from embedlab.models.asymmetric import join_encoders
from embedlab.models.encode import encode
from embedlab.models.load import load_model
from embedlab.models.sides import sides_of
from embedlab.models.static import TokenBags, encode_static, static_model
from embedlab.training.contrastive.static import text_indices
from embedlab.training.distillation.query_encoder import FrozenDocumentsLoss, train_query_encoder
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from tests.conftest import TEXTS, tiny_model


@pytest.fixture(scope="module")
def teacher():
    return tiny_model()


@pytest.fixture
def static(teacher):
    torch.manual_seed(0)
    return static_model(teacher, torch.randn(len(teacher.tokenizer), 32))


def test_queries_and_documents_have_their_own_encoder(static, teacher, tmp_path):
    joined = join_encoders(static, teacher)
    joined.save_pretrained(str(tmp_path / "model"))
    assert "embedlab" not in (tmp_path / "model" / "modules.json").read_text()
    for model in (joined, load_model(str(tmp_path / "model"))):
        query, document = (encode(side.model, TEXTS) for side in sides_of(model))
        assert query == pytest.approx(encode_static(static, TEXTS), abs=1e-5)
        assert document == pytest.approx(encode(teacher, TEXTS), abs=1e-4)


def test_encoders_of_different_widths_are_no_model(teacher):
    narrow = static_model(teacher, torch.randn(len(teacher.tokenizer), 16))
    with pytest.raises(ModelError, match="16 dimensions, the document encoder 32"):
        join_encoders(narrow, teacher)


def loss_of(static, rows, documents, vectors, count=5):
    return FrozenDocumentsLoss(
        static,
        torch.from_numpy(vectors),
        text_indices(documents, rows.texts),
        TokenBags.tokenise(static, documents),
        text_indices=text_indices(rows.texts, documents),
        count=count,
        judged=rows.judged,
    )


def test_loss_by_hand(static, teacher):
    """Cross-entropy of each query over the positives of the batch and the drawn documents, without its own positive."""
    documents, queries = TEXTS[:4], TEXTS[4:6]
    rows = number_rows([(queries[0], documents[1]), (queries[1], documents[3])])
    vectors = encode(teacher, documents)
    loss = loss_of(static, rows, documents, vectors)
    bags = TokenBags.tokenise(static, rows.texts)
    labels = torch.from_numpy(rows.labels)
    value = loss([bags.features(labels[:, 0]), bags.features(labels[:, 1])], labels)
    drawn = torch.randint(4, (5,), generator=torch.Generator().manual_seed(0))
    candidates = [1, 3, *drawn.tolist()]
    expected = []
    for vector, positive, column in zip(encode_static(static, queries), (1, 3), (0, 1), strict=True):
        logits = torch.tensor(vectors[candidates] @ vector) / 0.05
        for place, document in enumerate(candidates):
            if document == positive and place != column:
                logits[place] = -torch.inf
        expected.append(F.cross_entropy(logits[None], torch.tensor([column])))
    assert float(value) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-4)
    value.backward()
    used = bags.ids[bags.starts[labels[0, 0]] : bags.starts[labels[0, 0] + 1]]
    only_in_documents = set(bags.features(labels[:, 1])["input_ids"].tolist()) - set(
        bags.features(labels[:, 0])["input_ids"].tolist()
    )
    gradient = static[0].embedding.weight.grad
    assert gradient[used].abs().sum() > 0 and gradient[sorted(only_in_documents)].abs().sum() == 0


def test_training_finds_documents_that_do_not_move(static, teacher, tmp_path):
    vectors = encode(teacher, TEXTS)
    kept, pairs = copy.deepcopy(vectors), [(TEXTS[row], TEXTS[(row + 3) % 7]) for row in range(7)]
    settings = FitSettings(epochs=100, batch_size=7, learning_rate=3e-2, weight_decay=0.0)
    train_query_encoder(
        static, number_rows(pairs), TEXTS, vectors, settings, random_negatives=7, output_dir=str(tmp_path)
    )
    found = (encode_static(static, TEXTS) @ vectors.T).argmax(1)
    assert found.tolist() == [(row + 3) % 7 for row in range(7)] and np.array_equal(kept, vectors)


def test_faults_have_one_clear_error(static, teacher, tmp_path):
    rows, settings = number_rows([(TEXTS[0], TEXTS[1])]), FitSettings(weight_decay=0.0)
    with pytest.raises(DataError, match=r"\(7, 32\), got \(3, 32\)"):
        train_query_encoder(static, rows, TEXTS, np.ones((3, 32)), settings, output_dir=str(tmp_path))
    with pytest.raises(DataError, match="1 positives or negatives"):
        train_query_encoder(static, rows, TEXTS[2:], np.ones((5, 32)), settings, output_dir=str(tmp_path))
