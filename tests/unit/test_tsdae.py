"""TSDAE: what is deleted, what the decoder may see, what it shares with the encoder, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from embedlab.errors import ModelError
from embedlab.models.packing import pack
from embedlab.training.pretraining.mlm import IGNORED, perplexity
from embedlab.training.pretraining.tsdae import DeletionCollator, DenoisingLoss


def columns(batch):
    labels = batch.pop("label")
    return [{key.removeprefix("text_"): value for key, value in batch.items()}], labels


def all_rows(texts):
    return [{"label": number} for number in range(len(texts))]


def test_deleted_share_and_order(tiny):
    """Of 4,000 words 60 % go; what stays keeps its order, the label is the whole text."""
    text = " ".join(["fever cough rash pain"] * 15)
    collator = DeletionCollator(tiny, [text] * 100)
    kept = 0
    for number in range(100):
        left, whole = collator.corrupt(number, np.random.default_rng(number))
        assert whole == collator.ids[number]
        assert left[0] == whole[0] and left[-1] == whole[-1]
        tokens = iter(whole)
        assert all(token in tokens for token in left)  # a subsequence
        kept += len(left) - 2
    assert kept / 6000 == pytest.approx(0.4, abs=0.02)


def test_pieces_of_a_word_stay_or_go_together_and_one_word_always_stays(tiny):
    collator = DeletionCollator(tiny, ["cholangiocarcinoma of hepatopancreatic ampulla"], share=0.95)
    words, ids = collator.words[0], collator.ids[0]
    assert len(set(words)) < len(words) - 1  # there are words of several pieces
    spans = {tuple(token for token, word in zip(ids, words, strict=True) if word == w) for w in range(4)}
    for seed in range(50):
        left, _ = collator.corrupt(0, np.random.default_rng(seed))
        inner = left[1:-1]
        assert inner
        while inner:
            span = next(span for span in spans if tuple(inner[: len(span)]) == span)
            inner = inner[len(span) :]


def test_single_pieces_may_be_split_without_whole_words(tiny):
    collator = DeletionCollator(tiny, ["cholangiocarcinoma"], whole_words=False, share=0.5)
    pieces = len(collator.ids[0]) - 2
    left = {len(collator.corrupt(0, np.random.default_rng(seed))[0]) - 2 for seed in range(40)}
    assert len(left) > 2 and max(left) <= pieces and 0 not in left


def test_noise_depends_on_the_seed_and_the_batch_number_alone(tiny, texts):
    one, two = DeletionCollator(tiny, texts, seed=3), DeletionCollator(tiny, texts, seed=3)
    first, second, third = (one(all_rows(texts)) for _ in range(3))
    assert first["text_input_ids"].shape != second["text_input_ids"].shape or not torch.equal(
        first["text_input_ids"], second["text_input_ids"]
    )
    two.batches = 2
    assert torch.equal(two(all_rows(texts))["text_input_ids"], third["text_input_ids"])
    assert torch.equal(first["label"], third["label"])


def test_embeddings_and_output_are_the_encoders_own(tiny):
    """The loss holds no table of its own, and one step moves the table from both ends."""
    loss = DenoisingLoss(tiny)
    own = {name: value for name, value in loss.named_parameters() if not name.startswith("model.")}
    table = tiny[0].model.get_input_embeddings().weight
    assert not [name for name, value in own.items() if value.shape == table.shape]
    before = loss.logits(torch.ones(1, 32))[0, 5].item()
    with torch.no_grad():
        table[5] += 1
    assert loss.logits(torch.ones(1, 32))[0, 5].item() == pytest.approx(before + 32, rel=1e-4)
    state = loss.decode(torch.ones(1, 32), torch.tensor([[5, 6]]))
    state.square().mean().backward()
    assert table.grad[5].abs().sum() > 0 and table.grad[7].abs().sum() == 0


def test_decoder_sees_the_past_and_the_sentence_and_nothing_else(tiny):
    loss = DenoisingLoss(tiny).eval()
    sentence, ids = torch.randn(1, 32), torch.tensor([[101, 7, 8, 9]])
    base = loss.decode(sentence, ids)
    later = loss.decode(sentence, torch.tensor([[101, 7, 8, 55]]))
    torch.testing.assert_close(later[:, :3], base[:, :3])
    assert not torch.allclose(later[:, 3], base[:, 3], atol=1e-3)
    other = loss.decode(torch.randn(1, 32), ids)
    assert ((other - base).abs().amax(dim=-1) > 1e-3).all()
    torch.testing.assert_close(loss.decode(3 * sentence, ids), base)  # the direction counts, not the length


def test_sentence_enters_with_entries_of_about_one(tiny):
    """The decoder's memory is the unit sentence vector times the root of its 32 dimensions."""
    loss, seen = DenoisingLoss(tiny).eval(), []
    loss.decoder.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[1]))
    loss.decode(torch.full((1, 32), 5.0), torch.tensor([[101, 7]]))
    torch.testing.assert_close(seen[0], torch.ones(1, 1, 32))


def test_loss_by_hand(tiny, texts):
    """The mean over texts of unequal length, each decoded alone and scored against all tokens."""
    loss = DenoisingLoss(tiny).eval()
    features, labels = columns(DeletionCollator(tiny, texts)(all_rows(texts)))
    sentences = tiny(dict(features[0]))["sentence_embedding"]
    terms = []
    for sentence, row in zip(sentences, labels, strict=True):
        ids = row[row != IGNORED]
        hidden = loss.decode(sentence[None], ids[None, :-1])[0]
        scores = hidden @ tiny[0].model.get_input_embeddings().weight.T + loss.bias
        terms += [-scores.log_softmax(-1)[t, token] for t, token in enumerate(ids[1:])]
    assert loss(features, labels).item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)


def test_scoring_some_tokens_estimates_the_loss_over_all(tiny, texts, monkeypatch):
    loss = DenoisingLoss(tiny).eval()
    batch = DeletionCollator(tiny, texts)(all_rows(texts))
    whole = loss(*columns(dict(batch))).item()
    monkeypatch.setattr("embedlab.training.pretraining.tsdae.MAX_SCORED", 12)
    assert loss(*columns(dict(batch))).item() == whole  # measuring takes all
    loss.training = True  # and nothing below it, so that no dropout blurs the comparison
    torch.manual_seed(0)
    some = [loss(*columns(dict(batch))).item() for _ in range(60)]
    assert np.std(some) > 0
    assert np.mean(some) == pytest.approx(whole, abs=4 * np.std(some) / 60**0.5)


def test_packed_is_padded(tiny, texts):
    loss = DenoisingLoss(tiny).eval()
    padded = loss(*columns(DeletionCollator(tiny, texts)(all_rows(texts))))
    pack(tiny)
    packed = loss(*columns(DeletionCollator(tiny, texts)(all_rows(texts))))
    assert packed.item() == pytest.approx(padded.item(), rel=1e-5)


def test_small_vocabulary_is_the_softmax_over_its_tokens(tiny, texts):
    """With the other tokens' bias at minus infinity the full softmax gives the same."""
    collator = DeletionCollator(tiny, texts)
    vocabulary = collator.vocabulary()
    assert vocabulary == sorted({token for row in collator.ids for token in row})
    full = DenoisingLoss(tiny).eval()
    small = DenoisingLoss(tiny, vocabulary).eval()
    small.decoder.load_state_dict(full.decoder.state_dict())
    with torch.no_grad():
        full.bias.fill_(float("-inf"))
        full.bias[vocabulary] = 0
    batch = collator(all_rows(texts))
    assert small(*columns(dict(batch))).item() == pytest.approx(full(*columns(dict(batch))).item(), rel=1e-5)


def test_overfits_a_few_texts_through_the_sentence_embedding(tiny, texts):
    """Texts that start alike differ only in their embedding: below the entropy of guessing, it must be used."""
    collator = DeletionCollator(pack(tiny), texts, share=0.1)
    torch.manual_seed(0)
    loss = DenoisingLoss(tiny, collator.vocabulary())
    optimiser = torch.optim.Adam(loss.parameters(), lr=3e-3)
    first = perplexity(loss, texts, collator=DeletionCollator(tiny, texts, share=0.1))
    tiny.train()
    for _ in range(160):
        optimiser.zero_grad()
        loss(*columns(collator(all_rows(texts)))).backward()
        optimiser.step()
    last = perplexity(loss, texts, collator=DeletionCollator(tiny, texts, share=0.1))
    assert last < 0.05 * first
    features, labels = columns(DeletionCollator(tiny, texts, share=0.1)(all_rows(texts)))
    loss.eval()
    swapped = loss(features, labels.roll(1, 0))
    assert swapped.item() > 3 * np.log(last)


def test_a_model_without_token_embeddings_is_refused_with_a_way_out(tiny):
    tiny[0].model = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match="Linear has none") as caught:
        DenoisingLoss(tiny)
    assert "Use another objective" in str(caught.value)


def test_a_saved_loss_holds_the_weights_and_not_the_vocabulary(tiny):
    """Checkpoints keep the state of the loss; the vocabulary comes from the texts."""
    names = {name.partition(".")[0] for name in DenoisingLoss(tiny, [3, 5]).state_dict()}
    assert names == {"model", "decoder", "bias"}


def test_sentences_of_another_size_than_tokens_are_refused(tiny):
    with pytest.raises(ModelError, match="got 32 and 8"):
        DenoisingLoss(SentenceTransformer(modules=[*tiny, Dense(32, 8)], device="cpu"))
