"""Static models of word pieces, words, pairs of words and character n-grams."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from embedlab.models.concatenation import concat_static, concatenate, static_part
from embedlab.models.encode import encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.load import load_model
from embedlab.models.packing import pack
from embedlab.models.save import is_own_code, save_model
from embedlab.models.static import encode_static, static_student, with_ngrams
from embedlab.models.static_ngrams import NGrams
from embedlab.training.contrastive.static import train_static
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from tests.conftest import TEXTS, tiny_model
from tests.unit.test_contrastive import ROWS

PIECES = ["ox", "##en", "run", "'", "s", "##", "[UNK]"]


def test_features_by_hand():
    """oxen runs: pieces, the words, their n-grams with ends marked, the pair; punctuation breaks the pair."""
    ngrams = NGrams(PIECES, [])
    of_oxen = ["oxen", "#<ox", "#oxe", "#xen", "#en>", "#<oxe", "#oxen", "#xen>", "#<oxen", "#oxen>"]
    of_run = ["#<ru", "#run", "#un>", "#<run", "#run>", "#<run>"]
    assert list(ngrams.names([0, 1, 2])) == [*of_oxen, *of_run, "oxen run"]
    assert list(ngrams.names([0, 3, 2])).count("ox run") == 0
    known = NGrams(PIECES, ["oxen", "oxen run", "#un>", "#not there"])
    assert known.expand([0, 1, 2]) == [0, 1, 2, 7, 9, 8]
    assert known.expand([2, 0, 1]) == [2, 0, 1, 9, 7]
    assert known.expand([]) == []


def test_memory_of_words_is_bounded(monkeypatch):
    monkeypatch.setattr("embedlab.models.static_ngrams.MOST_WORDS", 2)
    known = NGrams(PIECES, ["oxen", "oxen run", "#un>"])
    expected = [[0, 1, 2, 7, 9, 8], [2, 9], [4]]
    for _ in range(3):
        assert [known.expand(pieces) for pieces in ([0, 1, 2], [2], [4])] == expected
        assert len(known._known) <= 2


@pytest.mark.parametrize(("pieces", "ids"), [(["▁ox", "en", "▁run"], [0, 1, 2]), (["ox", "en", "Ġrun"], [0, 1, 2])])
def test_words_of_other_tokenizers(pieces, ids):
    assert NGrams(pieces, ["oxen", "oxen run"]).expand(ids) == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def plain():
    return static_student(tiny_model(), TEXTS)


@pytest.fixture(scope="module")
def ngrams(plain):
    model = with_ngrams(plain, TEXTS, least=1)
    torch.manual_seed(0)
    torch.nn.init.normal_(model[0].embedding.weight[len(plain[0].embedding.weight) :])
    return model


def test_new_rows_change_nothing_before_training(plain):
    model = with_ngrams(plain, TEXTS, least=1)
    assert len(model[0].embedding.weight) > len(plain[0].embedding.weight)
    np.testing.assert_allclose(encode_static(model, TEXTS), encode_static(plain, TEXTS), atol=1e-6)
    assert model_fingerprint(model) != model_fingerprint(plain)


def test_features_are_the_most_frequent_ones_in_a_fixed_order(plain):
    features = with_ngrams(plain, TEXTS, least=2, most=5).tokenizer.features
    assert features == with_ngrams(plain, TEXTS[::-1], least=2).tokenizer.features[:5]


def test_fast_encoding_equals_that_of_the_library_and_of_a_slow_sum(ngrams):
    texts = [*TEXTS, "", "Ängström-units, ???", "oxen"]
    expected, table = ngrams.encode(texts), ngrams[0].embedding.weight.detach().numpy()
    np.testing.assert_allclose(encode_static(ngrams, texts), expected, atol=1e-6)
    np.testing.assert_allclose(encode(ngrams, texts), expected, atol=1e-6)
    ids = ngrams.tokenizer.encode_batch([TEXTS[0]], add_special_tokens=False)[0].ids
    slow = table[ids].sum(axis=0)
    np.testing.assert_allclose(expected[0], slow / np.linalg.norm(slow), atol=1e-6)


def test_training_moves_only_the_features_of_the_texts(plain, tmp_path):
    model = with_ngrams(plain, [*TEXTS, "zebra crossings everywhere"], least=1)
    before = model[0].embedding.weight.detach().clone()
    settings = FitSettings(steps=3, batch_size=4, learning_rate=1e-2, weight_decay=0.0)
    train_static(model, number_rows(ROWS), TEXTS, settings, random_negatives=4, output_dir=str(tmp_path))
    moved = (model[0].embedding.weight.detach() != before).any(dim=1)
    names = dict(zip(model.tokenizer.features, moved[-len(model.tokenizer.features) :].tolist(), strict=True))
    assert not names["crossings everywhere"]
    assert sum(names.values()) > 10


LOAD = """
import sys
import numpy as np
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], trust_remote_code=True, device="cpu")
assert "embedlab" not in sys.modules
np.save(sys.argv[2], model.encode(["a text of {}".format(n) for n in range(3)]))
"""


@pytest.mark.parametrize("concatenated", [False, True], ids=["alone", "concatenated"])
def test_a_saved_model_needs_no_package_of_ours(ngrams, tmp_path, concatenated):
    model = concat_static(tiny_model(), ngrams, 0.4) if concatenated else ngrams
    save_model(model, tmp_path / "model")
    assert is_own_code(tmp_path / "model")
    texts, file = [f"a text of {number}" for number in range(3)], tmp_path / "vectors.npy"
    subprocess.run([sys.executable, "-c", LOAD, tmp_path / "model", file], check=True, cwd=tmp_path, env=clean())
    np.testing.assert_allclose(np.load(file), model.encode(texts), atol=1e-6)
    loaded = load_model(str(tmp_path / "model"))
    np.testing.assert_allclose(encode(loaded, texts), model.encode(texts), atol=1e-5)
    assert model_fingerprint(load_model(str(tmp_path / "model"))) == model_fingerprint(loaded)
    save_model(loaded, tmp_path / "again")
    np.testing.assert_allclose(
        SentenceTransformer.encode(load_model(str(tmp_path / "again")), texts), np.load(file), atol=1e-5
    )


def clean():
    """The environment without the way to this package."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.parametrize("packed", [False, True])
def test_the_concatenation_equals_its_two_halves(ngrams, packed):
    transformer = tiny_model()
    model = concat_static(transformer, ngrams, 0.3)
    model = pack(copy.deepcopy(model)) if packed else model
    halves = concatenate(
        transformer.encode(TEXTS, normalize_embeddings=True), static_part(ngrams)(transformer, TEXTS), 0.3
    )
    np.testing.assert_allclose(encode(model, TEXTS), halves, atol=1e-5)
