"""Vocabularies for other languages: coverage, new word pieces, and what must not change."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError, ModelError, ParameterError
from embedlab.models.encode import encode
from embedlab.models.load import load_model
from embedlab.models.vocabulary import coverage, extend_vocabulary
from embedlab.training.distillation.languages import distil_translations, static_from_inputs, translations_of
from embedlab.training.fit import FitSettings

KEEP = ["acute kidney failure", "Ménière disease", "the kidneys"]
TEXTS = ["急性肾衰竭", "急性心衰竭", "Niereninsuffizienz", "Nierenstein", "kidn", "Νεφρός"] * 5


@pytest.fixture(scope="module")
def base():
    return load_model("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def extended(base):
    return extend_vocabulary(base, TEXTS, 200, keep=KEEP)


def test_coverage_by_hand(base):
    assert base.tokenizer.tokenize("kidney 肾肾") == ["kidney", "[UNK]", "[UNK]"]
    assert coverage(base, ["kidney 肾肾"]) == (2 / 3, 3 / 2)  # the words are "kidney" and the pair of characters
    with pytest.raises(ParameterError, match="no words"):
        coverage(base, ["…"])


def test_texts_to_keep_have_the_same_vectors(base, extended):
    assert len(extended.tokenizer) > len(base.tokenizer) == base[0].model.get_input_embeddings().num_embeddings
    assert np.array_equal(encode(base, KEEP), encode(extended, KEEP))


def test_new_words_are_known(base, extended):
    assert extended.tokenizer.tokenize("急性肾衰竭") == ["急性肾衰竭"]
    assert coverage(base, ["急性肾衰竭"]).unknown == 1 and coverage(extended, ["急性肾衰竭"]).unknown == 0
    assert len(extended.tokenizer.tokenize("Νεφρός")) < len(base.tokenizer.tokenize("Νεφρός"))


def test_the_same_texts_give_the_same_pieces_in_every_process(base):
    """Hash tables of the trainer are seeded anew each time it runs."""
    words = ["水泵漏水", "水泵", "漏水", "Pumpenleck", "Pumpe", "Leck", "αντλια", "διαρροη", "насос", "течь"]
    first, *others = [extend_vocabulary(base, words * 2, 60).tokenizer.get_vocab() for _ in range(4)]
    assert len(first) == 30_551 and all(other == first for other in others)


def test_a_piece_that_changes_a_text_to_keep_is_not_added(base, extended):
    harmful = extend_vocabulary(base, ["kidn"] * 9, 50)  # BERT has "kidney" and no "kidn"
    assert "kidn" in harmful.tokenizer.get_vocab() and "kidn" in extended.tokenizer.get_vocab()  # it changes nothing
    without = extend_vocabulary(base, ["kidneyfailure"] * 9, 50, keep=["kidneyfailure"])
    assert without.tokenizer.tokenize("kidneyfailure") == base.tokenizer.tokenize("kidneyfailure")


def test_a_new_piece_starts_with_the_mean_of_its_old_ones(base, extended):
    old, new = (model[0].model.get_input_embeddings().weight for model in (base, extended))
    piece = "niereninsuffizienz"
    ids = base.tokenizer(piece, add_special_tokens=False)["input_ids"]
    assert len(ids) > 1
    assert np.allclose(new[extended.tokenizer.get_vocab()[piece]].detach(), old[ids].mean(0).detach())
    unknown = [new[extended.tokenizer.get_vocab()[word]].detach() for word in ("急性肾衰竭", "急性心衰竭")]
    assert not np.allclose(*unknown) and 0.5 < unknown[0].std() / old.std().item() < 2


def test_an_extended_model_is_saved_with_its_vocabulary(extended, tmp_path):
    extended.save_pretrained(str(tmp_path / "model"))
    read = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert read.tokenizer.tokenize("急性肾衰竭") == ["急性肾衰竭"]
    assert np.allclose(encode(read, TEXTS[:6]), encode(extended, TEXTS[:6]), atol=1e-6)


def test_only_word_piece_can_be_extended(base):
    with pytest.raises(ModelError, match="cannot add word pieces"):
        extend_vocabulary(static_from_inputs(base), TEXTS, 10)


DATA = Dataset(
    "x",
    corpus={"a": "acute kidney failure", "b": "kidney stone", "c": "heart"},
    queries={"q": "急性肾衰竭", "r": "Nierenstein", "t": "Herz"},
    qrels={"train": {"q": {"a": 1}, "r": {"b": 1, "a": 1}}, "test": {"t": {"c": 1}}},
)


class TestDistillation:
    def test_texts_and_their_originals(self):
        translations = translations_of(DATA)
        assert translations.originals == ["acute kidney failure", "kidney stone", "heart"]
        assert translations.texts == [*translations.originals, "急性肾衰竭", "Nierenstein"]  # nothing of test
        assert translations.original_of == [0, 1, 2, 0, 1]
        with pytest.raises(DataError, match="no training pairs"):
            translations_of(Dataset("x", DATA.corpus, {}, {"train": {}}))

    @pytest.mark.parametrize("kind", ["static", "transformer"])
    def test_a_translation_moves_to_the_vector_of_its_original(self, kind, base, extended, tmp_path):
        student = static_from_inputs(extended) if kind == "static" else extend_vocabulary(base, TEXTS, 200, keep=KEEP)
        translations = translations_of(DATA)
        targets = encode(base, translations.originals)
        settings = FitSettings(
            epochs=30 if kind == "static" else 6,
            batch_size=5,
            learning_rate=1e-2 if kind == "static" else 2e-4,
            weight_decay=0.0,
        )
        before = encode(student, ["急性肾衰竭"]) @ targets.T
        distil_translations(student, translations, targets, settings, output_dir=str(tmp_path))
        after = encode(student, ["急性肾衰竭"]) @ targets.T
        assert after.argmax() == 0 and after[0, 0] > before[0, 0] + 0.1
