"""Static models: a text is the mean of its rows, the start is the teacher's, and training pulls the right way."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer

from embedlab.models import static as module
from embedlab.models.static import BagCollator, TokenBags, encode_static, static_model, static_student, token_vectors
from embedlab.training.contrastive.static import RandomNegativesLoss, text_indices, train_static
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from tests.conftest import TEXTS, tiny_model


@pytest.fixture(scope="module")
def teacher():
    return tiny_model()


@pytest.fixture
def static(teacher):
    torch.manual_seed(0)
    return static_model(teacher, torch.randn(len(teacher.tokenizer), 16))


def test_embedding_is_the_unit_mean_of_its_rows(static, teacher):
    text = "Type 2 diabetes"
    ids = teacher.tokenizer(text, add_special_tokens=False)["input_ids"]
    mean = static[0].embedding.weight[ids].mean(0)
    torch.testing.assert_close(torch.tensor(static.encode(text)), mean / mean.norm())


def test_word_order_does_not_matter(static):
    one, other = static.encode(["acute fracture", "fracture acute"])
    assert one == pytest.approx(other, abs=1e-6)


def test_start_is_the_teachers_piece_vector_times_its_rarity(teacher, monkeypatch):
    """ "fracture fracture cholera": p(fracture) = 2/3, p(cholera) = 1/3, weight a / (a + p) with a = 0.5."""
    monkeypatch.setattr("embedlab.models.static.SIF_COEFFICIENT", 0.5)
    student = static_student(teacher, ["fracture fracture", "cholera"])
    word = teacher.tokenizer.convert_tokens_to_ids("fracture")
    expected = 0.5 / (0.5 + 2 / 3) * teacher.encode("fracture", normalize_embeddings=True)
    assert student[0].embedding.weight[word].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    unseen = teacher.tokenizer.convert_tokens_to_ids("bone")
    assert student[0].embedding.weight[unseen].norm().item() == pytest.approx(1.0, abs=1e-5)


def test_token_vectors_do_not_depend_on_packing(teacher):
    from embedlab.models.packing import pack

    packed = pack(tiny_model())
    torch.testing.assert_close(token_vectors(packed)[:50], token_vectors(teacher)[:50], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("at_a_time", [3, 4096])
def test_fast_encoding_equals_the_stock_one(static, monkeypatch, at_a_time):
    monkeypatch.setattr(module, "TEXTS_PER_BATCH", at_a_time)
    texts = [*TEXTS, "", "Cholera"]
    assert encode_static(static, texts) == pytest.approx(static.encode(texts, normalize_embeddings=True), abs=1e-6)


def test_saves_as_a_stock_model(static, tmp_path):
    static.save_pretrained(str(tmp_path / "model"))
    modules = (tmp_path / "model" / "modules.json").read_text()
    assert "StaticEmbedding" in modules and "Normalize" in modules and "embedlab" not in modules
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert loaded.encode(TEXTS) == pytest.approx(static.encode(TEXTS), abs=1e-6)


def test_long_texts_are_not_cut(static):
    assert len(TokenBags.tokenise(static, ["fracture " * 700]).ids) == 700


def test_a_static_model_does_not_inherit_its_teachers_limit():
    """Tokenizing with truncation leaves the limit in the teacher's tokenizer."""
    teacher = tiny_model()
    teacher.tokenizer("fracture", truncation=True, max_length=8)
    model = static_model(teacher, torch.randn(len(teacher.tokenizer), 16))
    assert len(model.preprocess(["fracture " * 700])["input_ids"]) == 700


def test_the_teachers_tokenizer_stays_as_it_is():
    teacher = tiny_model()
    teacher.tokenizer(["fracture", "Cholera"], padding=True, truncation=True, max_length=8)
    before = teacher.tokenizer.backend_tokenizer.to_str()
    static_model(teacher, torch.randn(len(teacher.tokenizer), 16))
    assert teacher.tokenizer.backend_tokenizer.to_str() == before
    assert teacher.tokenizer.backend_tokenizer.truncation["max_length"] == 8


def test_bags_cut_in_any_order_equal_fresh_ones(static):
    bags, rows = TokenBags.tokenise(static, [*TEXTS, ""]), torch.tensor([3, 7, 0, 3])
    features, fresh = bags.features(rows), static.preprocess([TEXTS[3], "", TEXTS[0], TEXTS[3]])
    assert features["input_ids"].tolist() == fresh["input_ids"].tolist()
    assert features["offsets"].tolist() == fresh["offsets"].tolist()
    assert len(bags) == 8


def test_frequencies_are_shares(static):
    frequencies = TokenBags.tokenise(static, TEXTS).frequencies(len(static.tokenizer.get_vocab()))
    assert frequencies.sum().item() == pytest.approx(1.0)


def test_collator_names_every_column(static):
    collator = BagCollator(TokenBags.tokenise(static, TEXTS), ["query", "positive"])
    batch = collator([{"label": [0, 1]}, {"label": [2, 3]}])
    assert batch["label"].tolist() == [[0, 1], [2, 3]]
    assert batch["positive_offsets"].tolist() == [0, len(TokenBags.tokenise(static, [TEXTS[1]]).ids)]


def two_dimensional(rows):
    """A model whose text number i is the vector rows[i], however the bag says so."""

    class Table(torch.nn.Module):
        def forward(self, features):
            return {"sentence_embedding": torch.tensor(rows)[features["input_ids"]]}

    return Table()


def test_random_negatives_by_hand():
    """One query on its own positive, the only random document at right angles: -log(e^2 / (e^2 + n e^0)), t = 0.5."""
    model = two_dimensional([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    documents = TokenBags(torch.tensor([2]), torch.tensor([0, 1]))
    loss = RandomNegativesLoss(model, documents, torch.tensor([2]), count=3, temperature=0.5)
    value = loss([{"input_ids": torch.tensor([0])}, {"input_ids": torch.tensor([1])}], torch.tensor([[0, 1]]))
    assert value.item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 3)))


def test_every_width_counts_the_same_by_hand():
    """At width 1 the random document is as good as the positive: log 2; at width 2 as above with n = 1."""
    model = two_dimensional([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    documents = TokenBags(torch.tensor([3]), torch.tensor([0, 1]))
    loss = RandomNegativesLoss(model, documents, torch.tensor([3]), count=1, temperature=0.5, dims=(2, 1))
    value = loss([{"input_ids": torch.tensor([0])}, {"input_ids": torch.tensor([1])}], torch.tensor([[0, 1]]))
    full = -math.log(math.e**2 / (math.e**2 + math.exp(2 / math.sqrt(2))))
    assert value.item() == pytest.approx((full + math.log(2)) / 2)


def test_a_random_document_that_is_the_positive_is_no_negative():
    model = two_dimensional([[1.0, 0.0], [1.0, 0.0]])
    documents = TokenBags(torch.tensor([1]), torch.tensor([0, 1]))
    loss = RandomNegativesLoss(model, documents, torch.tensor([1]), count=3, temperature=0.5)
    value = loss([{"input_ids": torch.tensor([0])}, {"input_ids": torch.tensor([1])}], torch.tensor([[0, 1]]))
    assert value.item() == pytest.approx(0.0)


def test_documents_find_their_numbers():
    assert text_indices(["a", "b"], ["b", "c", "a"]).tolist() == [1, -1, 0]


def test_training_brings_queries_to_their_documents(static, tmp_path):
    """Query and document share no word, so only training can bring them together."""
    queries = ["hip", "sugar", "lung", "heart"]
    rows = number_rows(zip(queries, TEXTS, strict=False))
    settings = FitSettings(steps=40, batch_size=4, learning_rate=0.05, weight_decay=0.0)
    train_static(static, rows, TEXTS, settings, random_negatives=8, output_dir=str(tmp_path))
    similarity = static.encode(queries) @ static.encode(TEXTS).T
    assert similarity.argmax(1).tolist() == [0, 1, 2, 3]


def test_widths_beyond_the_model_count_once_as_the_whole(static, monkeypatch, tmp_path):
    whole = static.get_embedding_dimension()
    monkeypatch.setattr("embedlab.training.contrastive.static.fit", lambda model, dataset, loss, *_, **__: loss.dims)
    rows, dims = number_rows([("hip", TEXTS[0])]), (2 * whole, whole, whole + 1, 2)
    assert train_static(static, rows, TEXTS, FitSettings(), dims=dims, output_dir=str(tmp_path)) == (whole, 2)
    assert train_static(static, rows, TEXTS, FitSettings(), output_dir=str(tmp_path)) == (whole,)


def test_training_repeats_bit_for_bit(teacher, tmp_path):
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        model = static_model(teacher, F.normalize(torch.randn(len(teacher.tokenizer), 8), dim=-1))
        rows = number_rows([("hip", TEXTS[0]), ("sugar", TEXTS[1])])
        settings = FitSettings(steps=3, batch_size=2, weight_decay=0.0)
        train_static(model, rows, TEXTS, settings, random_negatives=4, output_dir=str(tmp_path))
        weights.append(model[0].embedding.weight.detach().clone())
    assert torch.equal(*weights)
