"""Token ids made once give the very features that tokenising at every step gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedlab.models.packing import pack
from embedlab.training.batches import NoDuplicates, TokenisedCollator
from embedlab.training.examples import number_rows
from tests.conftest import TEXTS


def rows_of(texts):
    return number_rows([(texts[0], texts[1], texts[2]), (texts[3], texts[4], texts[2])])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("prompt", "document_prompt"), [(None, None), ("query: ", None), ("query: ", "text: "), ("both: ", "both: ")]
)
def test_features_are_those_of_preprocess(tiny, texts, packed, prompt, document_prompt):
    tiny.max_seq_length = 9  # shorter than the longest text
    if packed:
        pack(tiny)
    rows = rows_of(texts)
    prompts = {"query_prompt": prompt, "document_prompt": document_prompt}
    batch = TokenisedCollator(tiny, rows.texts, rows.columns, **prompts)(list(rows.dataset))
    assert batch["label"].tolist() == list(rows.dataset["label"])
    expected = {"query": tiny.preprocess([texts[0], texts[3]], prompt=prompt)}
    expected["positive"] = tiny.preprocess([texts[1], texts[4]], prompt=document_prompt)
    for name, features in expected.items():
        features.pop("token_type_ids", None)  # all zero for single texts, which is the model's own default
        assert {key for key in batch if key.startswith(name)} == {f"{name}_{key}" for key in features}
        for key, value in features.items():
            got = batch[f"{name}_{key}"]
            assert torch.equal(got, value) if isinstance(value, torch.Tensor) else got == value, key


def labelled(numbers):
    from datasets import Dataset

    names = ["query", "positive", "negative_1"]
    columns = zip(names, map(list, zip(*[map(str, row) for row in numbers], strict=True)), strict=False)
    return Dataset.from_dict({**dict(columns), "label": numbers})


def test_no_batch_holds_a_text_twice_and_every_row_comes_once():
    """Rows 0, 1 and 4 share text 7, so at least three batches are needed although all five rows would fit into two."""
    numbers = [[0, 7], [1, 7], [2, 8], [3, 9], [7, 5]]
    sampler = NoDuplicates(labelled(numbers), batch_size=3, drop_last=False, seed=0)
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(5))
    assert len(batches) == len(sampler) >= 3
    for batch in batches:
        used = [number for row in batch for number in set(numbers[row])]
        assert len(used) == len(set(used))


def test_batches_are_full_while_rows_last_and_differ_between_epochs():
    sampler = NoDuplicates(labelled([[i, 100 + i] for i in range(10)]), batch_size=4, drop_last=True, seed=1)
    first = list(sampler)
    assert [len(batch) for batch in first] == [4, 4]
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)


def test_token_ids_take_four_bytes_and_are_those_of_the_tokenizer(tiny, monkeypatch):
    """Also across the chunks in which the tokenizer is called."""
    from embedlab.models import tokens

    monkeypatch.setattr(tokens, "CHUNK", 3)
    ids = tokens.token_ids(tiny, ["", *TEXTS], "query: ")
    expected = tiny.tokenizer([f"query: {text}" for text in ["", *TEXTS]])["input_ids"]
    assert [row.tolist() for row in ids] == expected
    assert (len(ids), ids.lengths.tolist()) == (8, [len(row) for row in expected])
    assert ids.ids.dtype == np.int32 and ids.ids.nbytes == 4 * sum(map(len, expected))
    assert len(tokens.token_ids(tiny, [])) == 0
