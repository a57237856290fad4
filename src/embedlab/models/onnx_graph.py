"""Export an embedding model as one ONNX graph: token ids and attention mask in, unit vectors out.

torch's own exporter traces the modules of the model one after the other. Only the modules whose forward works on packed
batches or on Python numbers are replaced by an equivalent on padded tensors. So every kind of model has the same
inputs, and pooling, linear layers, truncation and normalisation are part of the graph.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedlab.errors import ModelError
from embedlab.models.encode import dimension
from embedlab.models.onnx_io import IDS, MASK, OPSET, OUTPUT, PROMPT, needs
from embedlab.models.packing import is_packed
from embedlab.models.sides import is_routed, is_static

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    Stage = Callable[[dict[str, Any]], dict[str, Any]]

LARGEST_FILE = 1_500_000_000  # bytes of weights; protobuf allows 2 GB in one file, more go to a file of their own


def write_graph(
    model: SentenceTransformer, file: Path, *, prepare: Callable[[nn.Module], None] | None = None
) -> list[str]:
    """Write a model as an ONNX graph.

    The graph takes `input_ids` and `attention_mask`, int64 (texts, tokens), padded on any side that the tokenizer
    uses, and returns `sentence_embedding`, float32 (texts, d) unit vectors. A model that treats the tokens of a prompt
    differently also takes `prompt_length`, an int64 scalar: the prompt's number of tokens, special tokens included.

    Args:
        model: any sentence-transformers model with one encoder and one vector per text, on padded batches; it is not
            changed.
        file: the new file; weights above 1.5 GB go to a second file of the same name with `.data` at its end.
        prepare: changes the network, a copy, before it is traced, such as `onnx_int8.quantise`.

    Returns:
        The names of the inputs.

    Raises:
        ModelError: the model cannot be exported; the message says why.
        EmbedlabError: the packages of the extra `export` are missing.
    """
    for package in ("onnx", "onnxscript"):
        needs(package)
    check_exportable(model)
    network = EmbeddingGraph(copy.deepcopy(model).cpu()).eval()
    if prepare:
        prepare(network)
    # Two texts of three tokens, the last one padded: no size is 1, which the exporter would take for a constant.
    inputs: dict[str, Tensor] = {IDS: torch.ones(2, 3, dtype=torch.int64), MASK: torch.tensor([[1, 1, 1], [1, 1, 0]])}
    shapes: dict[str, Any] = {name: {0: "texts", 1: "tokens"} for name in inputs}
    if network.takes_prompt:
        inputs[PROMPT], shapes[PROMPT] = torch.tensor(0), {}
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                network,
                kwargs=inputs,
                input_names=list(inputs),
                output_names=[OUTPUT],
                dynamic_shapes=shapes,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
            program.save(str(file), external_data=size > LARGEST_FILE)
    except OSError:
        raise
    except Exception as error:  # the exporter raises anything, for any architecture
        cause = error.__cause__ or error  # the exporter wraps the reason in advice for its developers
        reason = (str(cause).strip().splitlines() or [""])[0][:200]
        problem = f"torch cannot export this model to ONNX ({type(cause).__name__}: {reason})"
        raise ModelError(problem, remedy="Use it with sentence-transformers", field="model_name") from error
    return list(inputs)


def check_exportable(model: SentenceTransformer) -> None:
    """Check that a model can become one graph.

    Raises:
        ModelError: it cannot; the message says why.
    """
    if is_routed(model):
        problem = "queries and documents have modules of their own (Router), so they cannot be one graph"
        raise ModelError(problem, remedy="Export each side: --side query and --side document", field="model_name")
    if is_packed(model):
        problem = "the model runs on packed batches, and a graph has padded ones"
        raise ModelError(problem, remedy="Load it with load_model(…, packed=False)", field="model_name")
    first: Any = model[0]
    if not is_static(model) and not hasattr(first, "modality_config"):
        problem = f"the model starts with {type(first).__name__}, which is neither a transformer nor a static model"
        raise ModelError(problem, remedy="Use it with sentence-transformers", field="model_name")
    for module in model:
        if getattr(module, "features", None) or hasattr(getattr(module, "tokenizer", None), "ngrams"):
            problem = (
                "the static model finds words, pairs of words and n-grams of characters in Python; neither a graph nor "
                "tokenizer.json can do that"
            )
            remedy = "Use embedlab serve, or train without n-grams and export that model"
            raise ModelError(problem, remedy=remedy, field="model_name")
        modes = getattr(module, "pooling_mode", ())
        if "weightedmean" in modes and not module.include_prompt:
            problem = "weighted mean pooling without the prompt cannot be exported"
            raise ModelError(problem, remedy="Set include_prompt=True in its Pooling", field="model_name")


class EmbeddingGraph(nn.Module):
    """All modules of a model as one forward pass over tensors.

    Args:
        model: a model that `check_exportable` accepts; its weights are shared.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.dim = dimension(model)
        self.stages = nn.ModuleList(_stage(module) for module in model)
        self.takes_prompt = any(isinstance(stage, PoolingWithoutPrompt | ConcatStage) for stage in self.stages)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, prompt_length: Tensor | None = None) -> Tensor:
        """Return unit vectors (texts, d)."""
        features: dict[str, Any] = {IDS: input_ids, MASK: attention_mask, "modality": "text"}
        if prompt_length is not None:
            features[PROMPT] = prompt_length
        for stage in self.stages:
            features = stage(features)
        return F.normalize(features[OUTPUT][:, : self.dim].float(), dim=-1)


def _stage(module: Any) -> nn.Module:
    """Return a module that works on padded tensors and does the same."""
    name = type(module).__name__
    if name == "StaticEmbedding":
        return StaticStage(module)
    if name == "ConcatStaticEmbedding":  # by its name: a saved model brings a copy of the class
        return ConcatStage(module)
    if name == "Pooling" and not module.include_prompt:
        return PoolingWithoutPrompt(module)
    stage: nn.Module = module
    return stage


class StaticStage(nn.Module):
    """`StaticEmbedding` on padded batches: the mean of the token embeddings; zeros for a text without tokens."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(module.embedding.weight.detach())

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Add `sentence_embedding` (texts, d)."""
        mask = features[MASK].unsqueeze(-1).float()
        sums = (self.embedding(features[IDS]).float() * mask).sum(dim=1)
        return features | {OUTPUT: sums / mask.sum(dim=1).clamp(min=1)}


class ConcatStage(nn.Module):
    """`ConcatStaticEmbedding` on padded batches; see `models.static_concat`."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(module.embedding.weight.detach())
        self.shares = math.sqrt(1 - module.static_share), math.sqrt(module.static_share)
        self.register_buffer("special", torch.tensor(module.special_tokens, dtype=torch.int64))

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Replace `sentence_embedding` (texts, d) by (texts, d + e)."""
        ids = features[IDS]
        is_special = (ids.unsqueeze(-1) == self.special).any(dim=-1)
        keep = (_without_prompt(features).bool() & ~is_special).unsqueeze(-1).float()
        sums = (self.embedding(ids).float() * keep).sum(dim=1)
        halves = F.normalize(features[OUTPUT], dim=-1), F.normalize(sums, dim=-1)
        weighted = [share * half for share, half in zip(self.shares, halves, strict=True)]
        return features | {OUTPUT: torch.cat(weighted, dim=-1)}


class PoolingWithoutPrompt(nn.Module):
    """A `Pooling` with `include_prompt=False`, whose own forward needs the prompt's length as a Python number."""

    def __init__(self, pooling: nn.Module) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Add `sentence_embedding` (texts, d)."""
        pooled = {name: value for name, value in features.items() if name != PROMPT}
        pooled[MASK] = _without_prompt(features)
        return features | {OUTPUT: self.pooling(pooled)[OUTPUT]}


def _without_prompt(features: dict[str, Any]) -> Tensor:
    """Return the attention mask (texts, tokens) without the tokens of the prompt, wherever the padding is."""
    mask: Tensor = features[MASK]
    return mask * (mask.cumsum(dim=1) > features[PROMPT]).to(mask.dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: it logs and warns about its own parts, and its failures become one error here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
