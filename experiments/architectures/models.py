"""Tiny random models in the shape of the families that people use: 4 layers, 64 dimensions, about 500 tokens."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import ByteLevelBPETokenizer, SentencePieceBPETokenizer, Tokenizer, normalizers
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerFast, T5EncoderModel

from embedlab.models.load import load_model, model_path
from embedlab.models.static import static_student

TEXTS = (
    "Reiter's disease",
    "Type 2 diabetes mellitus with hyperglycemia",
    "fracture",
    "Pneumonia due to Streptococcus pneumoniae, in adults with chronic obstructive pulmonary disease",
    "Acute myocardial infarction of anterior wall",
    "Cholera",
    "Other specified disorders of bone density and structure, unspecified site",
)
INSTRUCTION = "Instruct: Given a question, find the passage that answers it\nQuery:"
LIMIT, DIM, LAYERS = 32, 64, 4

_SHAPE = {"num_hidden_layers": LAYERS, "hidden_size": DIM, "num_attention_heads": 4, "intermediate_size": 128}
_GROUPED = {**_SHAPE, "num_key_value_heads": 2}
_BOUNDS = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
# Families of models -> what transformers calls the architecture, and its size in the words of its configuration.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT": ("bert", _SHAPE),
    "XLM-R": ("xlm-roberta", _SHAPE),
    "DistilBERT": ("distilbert", {"n_layers": LAYERS, "dim": DIM, "n_heads": 4, "hidden_dim": 128}),
    "ELECTRA": ("electra", {**_SHAPE, "embedding_size": 32}),
    "MPNet": ("mpnet", _SHAPE),
    "DeBERTa-v2": ("deberta-v2", _SHAPE),
    "ModernBERT": ("modernbert", {**_SHAPE, **_BOUNDS, "local_attention": 8, "global_attn_every_n_layers": 2}),
    "NomicBERT": ("nomic_bert", _SHAPE),
    "EuroBERT": ("eurobert", {**_SHAPE, **_BOUNDS, "mask_token_id": 4}),
    "T5 encoder": ("t5", {"d_model": DIM, "num_layers": LAYERS, "num_heads": 4, "d_kv": 16, "d_ff": 128}),
    "Gemma 3, bidirectional": (
        "gemma3_text",
        {**_GROUPED, "head_dim": 16, "use_bidirectional_attention": True, "sliding_window": 8},
    ),
    "Gemma 3": ("gemma3_text", {**_GROUPED, "head_dim": 16, "sliding_window": 8}),
    "Qwen3": ("qwen3", {**_GROUPED, "head_dim": 16}),
    "Llama": ("llama", _GROUPED),
    "Mistral": ("mistral", {**_GROUPED, "sliding_window": 8}),
}
DECODERS = ("Gemma 3", "Qwen3", "Llama", "Mistral")  # causal, the last token is the embedding, padded on the left
PROMPTS = {
    "XLM-R": {"query": "query: ", "document": "passage: "},
    "Gemma 3, bidirectional": {"query": "task: search result | query: ", "document": "title: none | text: "},
    "Qwen3": {"query": INSTRUCTION, "document": ""},
}


@functools.cache
def folder(family: str) -> str:
    """Save the random model of a family, and return its folder; it is deleted when the process ends."""
    return save_random(family, Path(_scratch().name) / family.replace(" ", "_"))


def save_random(family: str, path: Path, *, seed: int = 0) -> str:
    """Save a random model of a family to `path`, and return that."""
    if family in OTHERS:
        _other(family).save_pretrained(str(path))
        return str(path)
    architecture, shape = SHAPES[family]
    words = tokenizer(family)
    config = AutoConfig.for_model(architecture, **{**_special(words), **shape})
    torch.manual_seed(seed)
    network = T5EncoderModel(config) if architecture == "t5" else AutoModel.from_config(config)
    for weight in network.parameters():
        if weight.dim() > 1:  # the usual initialisation is too small to tell texts apart
            torch.nn.init.normal_(weight, std=0.08)
    network.save_pretrained(path / "network")
    words.save_pretrained(path / "network")
    transformer = Transformer(str(path / "network"), max_seq_length=LIMIT)
    modules = [transformer, Pooling(DIM, pooling_mode="lasttoken" if family in DECODERS else "mean"), *_heads(family)]
    model = SentenceTransformer(modules=modules, prompts=PROMPTS.get(family, {}), device="cpu")
    model.save_pretrained(str(path / "model"))
    return str(path / "model")


def _special(words: Any) -> dict[str, Any]:
    return {"vocab_size": len(words), "pad_token_id": words.pad_token_id}


def _heads(family: str) -> list[Any]:
    """Return the modules after pooling: EmbeddingGemma has two linear layers."""
    return [Dense(DIM, 96), Dense(96, DIM), Normalize()] if family == "Gemma 3, bidirectional" else []


STATIC, TWO_ENCODERS, TWO_HEADS = "static model", "Router, two encoders", "Router, two heads"
OTHERS = (STATIC, TWO_ENCODERS, TWO_HEADS)
FAMILIES = (*SHAPES, *OTHERS)


def _other(kind: str) -> SentenceTransformer:
    """Build a model that is more than one transformer, or none."""
    bert = SentenceTransformer(folder("BERT"), device="cpu")
    if kind == TWO_HEADS:
        torch.manual_seed(1)
        heads = Router.for_query_document([Dense(DIM, DIM)], [Dense(DIM, DIM)])
        return SentenceTransformer(modules=[*bert, heads], prompts={"query": "query: "}, device="cpu")
    static = static_student(load_model(folder("BERT"), device="cpu"), TEXTS)
    if kind == STATIC:
        return static
    sides = Router.for_query_document([static[0]], [*bert])
    return SentenceTransformer(modules=[sides, Normalize()], device="cpu")


def tokenizer(family: str) -> Any:
    """Return a tokenizer of the family's kind, trained on a few texts."""
    if family == "Qwen3":
        return _byte_level()
    if family in ("Gemma 3", "Gemma 3, bidirectional", "Llama", "Mistral", "T5 encoder"):
        return _sentence_piece("left" if family in DECODERS else "right")
    return _word_piece("[PAD]" if family != "MPNet" else "[UNK]")


@functools.cache
def _word_piece(first: str) -> Any:
    """The base model's kind. The padding token has the id 0, or 1 as MPNet wants it."""
    trained = AutoTokenizer.from_pretrained(model_path("all-MiniLM-L6-v2")).train_new_from_iterator([TEXTS], 500)
    if first == "[PAD]":
        return trained
    content = json.loads(trained.backend_tokenizer.to_str())
    ids = {"[UNK]": 0, "[PAD]": 1}
    content["model"]["vocab"] |= ids
    content["added_tokens"] = [
        token | {"id": ids.get(token["content"], token["id"])} for token in content["added_tokens"]
    ]
    swapped = Tokenizer.from_str(json.dumps(content))
    return PreTrainedTokenizerFast(tokenizer_object=swapped, **trained.special_tokens_map)


def _byte_level() -> Any:
    """No token for unknown words and no mask token, as Qwen."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([*TEXTS, INSTRUCTION], vocab_size=400, show_progress=False)
    trained.add_special_tokens(["<pad>", "<eos>"])
    names = {"pad_token": "<pad>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, padding_side="left", **names)


def _sentence_piece(side: str) -> Any:
    """No mask token; words are marked by `▁` in their first piece and not split beforehand, as Llama and Gemma."""
    trained = SentencePieceBPETokenizer()
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    trained.train_from_iterator(TEXTS, vocab_size=400, special_tokens=list(names.values()), show_progress=False)
    trained._tokenizer.pre_tokenizer = None
    trained._tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, padding_side=side, **names)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="architectures-")
