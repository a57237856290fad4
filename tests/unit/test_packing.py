"""Packed batches change the speed and nothing else: embeddings, gradients and loss curves are the stock ones."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from embedlab.models import packed_attention, packed_layers
from embedlab.models.packed_attention import (
    KERNELS,
    NAME,
    Case,
    LengthGroups,
    PaddedRows,
    Pattern,
    attend_by_length,
    attend_nested,
    attend_padded,
    available_kernels,
    choose_kernel,
)
from embedlab.models.packing import embed_columns, is_packed, merge_columns, pack, padded_because
from tests.conftest import tiny_model

ENCODERS = ["bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "albert", "mpnet", "t5"]
ROTARY = ["modernbert", "nomic_bert", "gte", "jina_embeddings_v3", "eurobert", "gemma3_text"]
ARCHITECTURES = [*ENCODERS, *ROTARY, "qwen2", "qwen3", "llama", "mistral"]


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):  # a probability that a layer passes to its attention
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def gradient(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_embeddings_are_the_stock_ones(model_type, texts):
    model = tiny_model(model_type)
    stock = model.encode(texts)
    packed = pack(model).encode(texts)
    assert is_packed(model) and padded_because(model) is None
    np.testing.assert_allclose(packed, stock, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"])
def test_every_pooling_gives_the_stock_embeddings(pooling, texts):
    model = tiny_model("bert", pooling)
    stock = model.encode(texts)
    np.testing.assert_allclose(pack(model).encode(texts), stock, atol=1e-5)


def test_packed_batch_holds_real_tokens_only(tiny, texts):
    mask = tiny.preprocess(texts)["attention_mask"]
    features = pack(tiny).preprocess(texts)
    assert features["input_ids"].shape == (1, int(mask.sum()))
    assert features["input_ids"].shape[1] < mask.numel()


def test_texts_do_not_see_each_other(tiny, texts):
    """Attention across a boundary would make a text's embedding depend on its neighbours."""
    pack(tiny)
    together, alone = tiny.encode(texts), np.stack([tiny.encode(text) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(tiny.encode(texts[::-1])[::-1], together, atol=1e-5)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompt_and_truncation_are_respected(texts, include_prompt):
    model = tiny_model()
    model[1].include_prompt = include_prompt
    model.max_seq_length = 9
    stock = model.encode(texts, prompt="query: ")
    assert not np.allclose(stock, model.encode(texts), atol=1e-3)
    np.testing.assert_allclose(pack(model).encode(texts, prompt="query: "), stock, atol=1e-5)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_gradient_is_the_stock_one(model_type, texts):
    """In float64, where it does not depend on the order in which a processor's kernels add."""
    stock = without_dropout(tiny_model(model_type)).double().train()
    packed = pack(copy.deepcopy(stock))
    assert is_packed(packed)
    for model in (stock, packed):
        loss = MultipleNegativesRankingLoss(model)
        loss([model.preprocess(texts[:3]), model.preprocess(texts[3:6])], None).backward()
    # Rotary embeddings and root-mean-square norms compute in float32 whatever the weights are.
    assert relative(gradient(packed), gradient(stock)) <= (1e-12 if model_type in ENCODERS[:8] else 1e-5)


@pytest.mark.parametrize("model_type", ["bert", "mpnet", "t5", "modernbert", "gemma3_text", "qwen3"])
def test_twenty_steps_follow_the_stock_loss_curve(model_type, texts):
    curves = []
    stock = without_dropout(tiny_model(model_type)).train()
    for model in (copy.deepcopy(stock), pack(copy.deepcopy(stock))):
        loss_function, optimizer = MultipleNegativesRankingLoss(model), torch.optim.AdamW(model.parameters(), lr=1e-3)
        curve = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = loss_function([model.preprocess(texts[:3]), model.preprocess(texts[3:6])], None)
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(curve)
    assert curves[0][-1] < curves[0][0]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model_type", ["mpnet", "t5"])
def test_the_position_bias_is_that_of_the_longest_text(model_type, texts, monkeypatch):
    """One of the whole packed row has the same values for every text, and the square of all tokens as its size."""
    model, shapes = pack(tiny_model(model_type)).eval(), []
    original = packed_attention.attend

    def record(q, k, v, boundaries, pattern, longest=None):
        shapes.append(tuple(pattern.bias.shape))
        return original(q, k, v, boundaries, pattern, longest)

    for module in (packed_attention, packed_layers):
        monkeypatch.setattr(module, "attend", record)
    features = model.preprocess(texts)
    longest = int(features["max_length_q"])
    model(features)
    assert longest < features["input_ids"].numel()
    config = model[0].model.config
    assert shapes == [(1, config.num_attention_heads, longest, longest)] * config.num_hidden_layers


def test_groups_of_a_batch_are_found_once():
    """Every layer asks for them with the same boundaries."""
    boundaries = torch.tensor([0, 2, 5, 7], dtype=torch.int32)
    assert LengthGroups.of(boundaries) is LengthGroups.of(boundaries)
    assert LengthGroups.of(boundaries.clone()) is not LengthGroups.of(boundaries)


@pytest.mark.parametrize("model_type", ["mpnet", "t5", "bert"])
def test_a_packed_network_still_runs_padded_batches(model_type, texts):
    stock = tiny_model(model_type).eval()
    packed = pack(copy.deepcopy(stock))
    assert is_packed(packed)
    padded = stock.preprocess(texts)
    inputs = {name: padded[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected, got = (model[0].model(**inputs).last_hidden_state for model in (stock, packed))
    inside = padded["attention_mask"].bool()
    torch.testing.assert_close(got[inside], expected[inside], atol=1e-5, rtol=0)


def test_copies_of_a_packed_model_are_independent(texts):
    """MPNet's packed layers must use the weights of the copy."""
    model = pack(tiny_model("mpnet"))
    expected, other = model.encode(texts), copy.deepcopy(model)
    torch.nn.init.zeros_(model[0].model.encoder.layer[0].attention.attn.v.weight)
    np.testing.assert_array_equal(other.encode(texts), expected)
    assert not np.allclose(model.encode(texts), expected, atol=1e-3)


def test_dropout_is_applied_in_packed_attention(tiny, texts):
    """With attention dropout alone, two training forwards must differ and evaluation must not."""
    pack(without_dropout(tiny)).train()
    tiny[0].model.encoder.layer[0].attention.self.dropout.p = 0.5
    first, second = (tiny(tiny.preprocess(texts))["sentence_embedding"] for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-4)
    tiny.eval()
    first, second = (tiny(tiny.preprocess(texts))["sentence_embedding"] for _ in range(2))
    assert torch.equal(first, second)


def test_merged_columns_equal_separate_forwards(tiny, texts):
    pack(tiny).eval()
    columns = [tiny.preprocess(texts[:3]), tiny.preprocess(texts[3:6]), tiny.preprocess(texts[1:4])]
    assert columns[0]["max_length_q"] < columns[1]["max_length_q"]
    merged = merge_columns(columns)
    assert merged["cu_seq_lens_q"][-1] == merged["input_ids"].shape[1]
    assert merged["seq_idx"].max() == 8
    longest = max(len(ids) for ids in tiny.tokenizer(texts[:6]).input_ids)
    assert merged["max_length_q"] == merged["max_length_k"] == longest
    with torch.no_grad():
        separate = [tiny(tiny.preprocess(t))["sentence_embedding"] for t in (texts[:3], texts[3:6], texts[1:4])]
        for got, expected in zip(embed_columns(tiny, columns), separate, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_padded_columns_are_not_merged(tiny, texts):
    assert merge_columns([tiny.preprocess(texts[:3]), tiny.preprocess(texts[3:6])]) is None


def test_columns_of_different_prompts_are_not_merged(tiny, texts):
    """Pooling leaves out the first `prompt_length` tokens of every text of a batch."""
    pack(tiny)
    first, second = tiny.preprocess(texts[:3]), tiny.preprocess(texts[3:6])
    assert merge_columns([first | {"prompt_length": 3}, second]) is None
    assert merge_columns([first, second | {"prompt_length": 3}]) is None
    assert merge_columns([first | {"prompt_length": 2}, second | {"prompt_length": 3}]) is None
    assert merge_columns([first | {"prompt_length": 3}, second | {"prompt_length": 3}])["prompt_length"] == 3


def test_works_with_gradient_caching_lora_and_checkpointing(texts):
    from peft import LoraConfig, TaskType

    reference = None
    stock = without_dropout(tiny_model()).train()
    for prepare in (lambda m: m, pack):
        model = prepare(copy.deepcopy(stock))
        torch.manual_seed(0)
        model.add_adapter(LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=4, lora_dropout=0.0))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        model[0].model.gradient_checkpointing_enable()
        loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)
        loss([model.preprocess(texts[:3]), model.preprocess(texts[3:6])], None).backward()
        reference = gradient(model) if reference is None else reference
    assert reference.norm() > 0
    assert relative(gradient(model), reference) <= 1e-5


def test_an_architecture_outside_the_attention_interface_stays_padded(texts, caplog):
    model = tiny_model("deberta-v2")
    stock = model.encode(texts)
    pack(model)
    assert not is_packed(model)
    assert "attention interface" in padded_because(model)
    assert "deberta-v2 runs on padded batches" in caplog.text
    np.testing.assert_array_equal(model.encode(texts), stock)


def test_a_network_of_another_library_stays_padded():
    """It has no attention that could be chosen."""
    model = tiny_model()
    model[0].model = torch.nn.Linear(2, 2)
    pack(model)
    assert not is_packed(model) and "attention interface" in padded_because(model)


@pytest.mark.parametrize("fault", [{"scaling": 0.5}, {"is_causal": True}, {"softcap": 50.0}])
@pytest.mark.parametrize("model_type", ["bert", "t5"])
def test_a_model_that_packs_wrongly_stays_padded(model_type, fault, texts, monkeypatch):
    """The probe compares packed with padded embeddings, so an untreated attention variant is found."""
    model = tiny_model(model_type)
    stock, implementation = model.encode(texts), model[0].model.config._attn_implementation
    original = packed_attention.packed_attention

    def faulty(module, query, key, value, mask, **kwargs):
        wrong = fault if "cu_seq_lens_q" in kwargs else {}
        return original(module, query, key, value, mask, **(kwargs | wrong))

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, NAME, faulty)
    pack(model)
    assert not is_packed(model)
    assert padded_because(model).startswith(("its packed embeddings differ", "packed batches raise NotImplemented"))
    assert model[0].model.config._attn_implementation == implementation
    np.testing.assert_array_equal(model.encode(texts), stock)


@pytest.mark.parametrize("model_type", ["bert", "mpnet", "deberta-v2"])
def test_length_sorted_sub_batches_give_the_same_gradient(model_type):
    texts = [("word " * n).strip() for n in (1, 30, 2, 9, 4, 25, 1, 3, 17, 2)]
    model = without_dropout(tiny_model(model_type)).double()
    whole = model(model.preprocess(texts))["sentence_embedding"]
    (parts,) = embed_columns(model, [model.preprocess(texts)])
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-10)
    weights = torch.linspace(-1, 1, whole.numel(), dtype=whole.dtype).view_as(whole)
    gradients = []
    for embeddings in (whole, parts):
        model.zero_grad()
        (embeddings * weights).sum().backward(retain_graph=True)
        gradients.append(gradient(model))
    assert relative(gradients[1], gradients[0]) <= 1e-10


def test_sub_batches_leave_out_padding():
    texts = [("word " * n).strip() for n in (1, 30, 2, 9, 4, 25, 1, 3)]
    model, tokens = tiny_model("deberta-v2"), []
    model[0].register_forward_pre_hook(lambda module, args: tokens.append(args[0]["input_ids"].numel()))
    features = model.preprocess(texts)
    embed_columns(model, [features])
    lengths = sorted((int(n) for n in features["attention_mask"].sum(dim=1)), reverse=True)
    assert tokens == [2 * lengths[i] for i in (0, 2, 4, 6)]


def test_saved_model_is_a_plain_one(tiny, texts, tmp_path):
    expected = pack(tiny).encode(texts)
    tiny.save_pretrained(str(tmp_path))
    assert all(NAME not in path.read_text() for path in tmp_path.rglob("*.json"))
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert not is_packed(loaded)
    np.testing.assert_allclose(loaded.encode(texts), expected, atol=1e-5)


def test_length_groups_by_hand():
    """Texts of 2, 1 and 2 tokens: the single token first, then both pairs."""
    groups = LengthGroups.of(torch.tensor([0, 2, 3, 5]))
    assert groups.order.tolist() == [2, 0, 1, 3, 4]
    assert groups.inverse.tolist() == [1, 2, 0, 3, 4]
    assert groups.groups == ((1, 1), (2, 2))


HEADS, SIZE, LONGEST = 3, 4, 6
BIAS = torch.randn(1, HEADS, LONGEST, LONGEST, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PATTERNS = {
    "plain": Pattern(),
    "scaled": Pattern(scaling=0.3),
    "causal": Pattern(causal=True),
    "window": Pattern(window=2),
    "causal window": Pattern(causal=True, window=3),
    "bias": Pattern(bias=BIAS, scaling=1.0),
    "causal bias": Pattern(bias=BIAS, causal=True),
}


def slow_attention(q, k, v, ends, pattern):
    """One text, one head and one token at a time, by the formula."""
    outputs = torch.zeros_like(q)
    for start, end in zip(ends, ends[1:], strict=False):
        for i in range(start, end):
            for head in range(q.shape[1]):
                scores = []
                for j in range(start, end):
                    score = q[i, head] @ k[j, head] * (SIZE**-0.5 if pattern.scaling is None else pattern.scaling)
                    if pattern.bias is not None:
                        score = score + pattern.bias[0, head, i - start, j - start]
                    hidden = (pattern.causal and j > i) or (pattern.window is not None and abs(i - j) >= pattern.window)
                    scores.append(torch.full_like(score, -torch.inf) if hidden else score)
                outputs[i, head] = torch.stack(scores).softmax(0) @ v[start:end, head]
    return outputs


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("path", [attend_by_length, attend_padded])
def test_attention_equals_the_formula(path, name):
    ends = [0, 3, 4, 10, 13]
    q, k, v = torch.randn(3, ends[-1], HEADS, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = slow_attention(q, k, v, ends, PATTERNS[name])
    got = path(q, k, v, torch.tensor(ends, dtype=torch.int32), PATTERNS[name])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_grouped_queries_share_keys_in_order():
    """Query heads 0 and 1 use key head 0, query heads 2 and 3 key head 1."""
    q = torch.randn(5, 4, SIZE, generator=torch.Generator().manual_seed(0))
    k, v = torch.randn(2, 5, 2, SIZE, generator=torch.Generator().manual_seed(1))
    ends = torch.tensor([0, 2, 5], dtype=torch.int32)
    expected = slow_attention(q, k[:, [0, 0, 1, 1]], v[:, [0, 0, 1, 1]], ends.tolist(), Pattern())
    torch.testing.assert_close(packed_attention.attend(q, k, v, ends, Pattern()), expected, rtol=0, atol=1e-6)


def reference_varlen(q, k, v, cu_q, cu_k, longest_q, longest_k, *, scale=None, window_size=(-1, -1)):
    """What the documentation of `varlen_attn` says: neighbours on the left and on the right, -1 for all."""
    assert (cu_q is cu_k) and longest_q == longest_k == int(cu_q.diff().max())
    output = torch.zeros_like(q)
    left, right = (10**6 if side < 0 else side for side in window_size)
    for start, end in zip(cu_q.tolist(), cu_q.tolist()[1:], strict=False):
        scores = torch.einsum("ihd,jhd->hij", q[start:end], k[start:end]) * (scale or q.shape[-1] ** -0.5)
        distance = torch.arange(end - start)[None, :] - torch.arange(end - start)[:, None]  # j - i
        scores = scores.masked_fill((distance > right) | (-distance > left), -torch.inf)
        output[start:end] = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v[start:end])
    return output


def reference_flash_attn(q, k, v, cu_q, cu_k, longest_q, longest_k, dropout_p, softmax_scale, causal, window_size):
    assert dropout_p == 0.0 and causal == (window_size[1] == 0)
    return reference_varlen(q, k, v, cu_q, cu_k, longest_q, longest_k, scale=softmax_scale, window_size=window_size)


@pytest.mark.parametrize("name", [name for name in PATTERNS if "bias" not in name])
@pytest.mark.parametrize("kernel", ["varlen", "flash_attn"])
def test_flash_attention_is_called_so_that_it_computes_the_formula(kernel, name, monkeypatch):
    """FlashAttention counts the neighbours on each side, so a window of 4 reaches 3 tokens."""
    import torch.nn.attention.varlen as varlen

    monkeypatch.setattr(varlen, "varlen_attn", reference_varlen)
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=reference_flash_attn))
    ends = [0, 3, 4, 10, 13]
    q, k, v = torch.randn(3, ends[-1], HEADS, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    boundaries = torch.tensor(ends, dtype=torch.int32)
    expected = slow_attention(q, k, v, ends, PATTERNS[name])
    for longest in (6, None):
        got = KERNELS[kernel](q, k, v, boundaries, PATTERNS[name], longest)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["plain", "scaled"])
def test_nested_tensors_give_values_and_gradients_of_the_formula(name):
    """Causal attention over them exists on CUDA only."""
    ends = [0, 3, 4, 10, 13]
    stacked = torch.randn(HEADS, 3, ends[-1], SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = []
    for attend in (attend_nested, lambda q, k, v, b, pattern, longest: slow_attention(q, k, v, ends, pattern)):
        leaf = stacked.clone().requires_grad_()
        q, k, v = leaf.permute(1, 2, 0, 3)  # not contiguous, as from the attention interface
        output = attend(q, k, v, torch.tensor(ends, dtype=torch.int32), PATTERNS[name], 6)
        (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
        gradients += [output.detach(), leaf.grad]
    torch.testing.assert_close(gradients[0], gradients[2], rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients[1], gradients[3], rtol=0, atol=1e-12)


EVERY = frozenset({"varlen", "nested", "flash_attn"})
TORCH = frozenset({"varlen", "nested"})
BF16 = Case(cuda=True, half=True)


@pytest.mark.parametrize(
    ("case", "available", "kernel"),
    [
        (Case(cuda=False), EVERY, "by_length"),
        (Case(cuda=False, half=True, dropout=True), EVERY, "by_length"),
        (BF16, EVERY, "flash_attn"),
        (BF16, TORCH, "varlen"),
        (BF16, frozenset(), "padded"),
        (BF16, frozenset({"nested"}), "nested"),
        (replace(BF16, dropout=True), EVERY, "flash_attn"),
        (replace(BF16, dropout=True), TORCH, "nested"),  # dropout in training does not force padding
        (replace(BF16, window=True), TORCH, "varlen"),
        (replace(BF16, window=True, dropout=True), TORCH, "padded"),
        (replace(BF16, bias=True), EVERY, "padded"),
        (replace(BF16, head_size=20), EVERY, "padded"),  # FlashAttention needs multiples of 8
        (replace(BF16, head_size=264), TORCH, "nested"),  # torch then takes another kernel
        (replace(BF16, ampere=False), EVERY, "nested"),  # FlashAttention needs compute capability 8.0
        (Case(cuda=True), EVERY, "nested"),
        (Case(cuda=True, dropout=True), EVERY, "nested"),
        (Case(cuda=True, window=True), EVERY, "padded"),
        (Case(cuda=True, bias=True), EVERY, "padded"),
    ],
)
def test_choice_of_the_kernel(case, available, kernel):
    assert choose_kernel(case, available) == kernel


def test_the_case_is_read_from_the_call():
    q = torch.zeros(5, HEADS, 8, dtype=torch.bfloat16)
    assert Case.of(q, Pattern()) == Case(cuda=False, half=True, ampere=False, head_size=8)
    pattern = Pattern(dropout=0.1, window=4, bias=BIAS)
    expected = Case(cuda=False, ampere=False, head_size=8, dropout=True, window=True, bias=True)
    assert Case.of(q.float(), pattern) == Case.of(q.float(), pattern, longest=5) == expected
    assert not Case.of(q, pattern, longest=4).window  # no text is longer than the window
    assert {"varlen", "nested"} <= available_kernels()


def test_kernels_on_the_device_never_ask_it_for_the_longest_text(monkeypatch):
    """On CUDA, `.item()`, `.tolist()` and boolean indices wait for the device, once per layer."""
    ends = torch.tensor([0, 3, 4, 10, 13], dtype=torch.int32)
    q = torch.randn(13, HEADS, 8)
    expected = attend_by_length(q, q, q, ends, Pattern())

    def refused(*args, **kwargs):
        raise AssertionError("waits for the device")

    for name in ("item", "tolist", "nonzero", "__int__", "__bool__", "max"):
        monkeypatch.setattr(torch.Tensor, name, refused)
    got = attend_padded(q, q, q, ends, Pattern(), 6)
    monkeypatch.undo()
    torch.testing.assert_close(got, expected)


def test_positions_of_padded_rows_are_found_once_per_batch():
    ends = torch.tensor([0, 2, 3], dtype=torch.int32)
    rows = PaddedRows.of(ends, 2, 3)
    assert rows.positions.tolist() == [0, 1, 2]
    assert rows.real.flatten(1).tolist() == [[True, True], [True, False]]
    assert PaddedRows.of(ends, 2, 3) is rows and PaddedRows.of(ends.clone(), 2, 3) is not rows


@pytest.mark.parametrize("model_type", ["bert", "mpnet", "modernbert", "qwen3"])
def test_the_longest_text_is_passed_to_every_layer(model_type, texts, monkeypatch):
    model, lengths = pack(tiny_model(model_type)).eval(), []

    def record(q, k, v, boundaries, pattern, longest=None):
        lengths.append((longest, int(boundaries.diff().max())))
        return original(q, k, v, boundaries, pattern, longest)

    original = packed_attention.attend
    for module in (packed_attention, packed_layers):
        monkeypatch.setattr(module, "attend", record)
    model(model.preprocess(texts))
    assert len(lengths) == model[0].model.config.num_hidden_layers
    assert {given == found for given, found in lengths} == {True}


@pytest.mark.parametrize("model_type", ["bert", "modernbert", "qwen3"])
def test_bfloat16_agrees_with_stock(model_type, texts):
    """Packed and stock round differently; neither is further from float32 than the other, up to a factor."""
    stock = tiny_model(model_type).eval()
    packed = pack(copy.deepcopy(stock))
    exact = torch.from_numpy(stock.encode(texts))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        halves = [model(model.preprocess(texts))["sentence_embedding"].float() for model in (stock, packed)]
    errors = [relative(half, exact) for half in halves]
    assert 0 < errors[1] < 3 * errors[0] < 0.1
    assert relative(halves[1], halves[0]) < 0.03


def test_autocast_to_bfloat16_runs_packed(tiny, texts):
    pack(tiny).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = tiny(tiny.preprocess(texts))["sentence_embedding"].float()
    with torch.no_grad():
        full = tiny(tiny.preprocess(texts))["sentence_embedding"]
    assert torch.cosine_similarity(half, full).min() > 0.99
