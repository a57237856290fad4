"""Export a model for onnxruntime: graph, tokenizer and card in one folder, compared with the model before it counts."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embedlab import __version__
from embedlab.deploy.onnx_folder import (
    CARD,
    GRAPH,
    TOKENIZER,
    ExportCard,
    ExportedEncoder,
    Prompt,
    card_json,
    space_of_model,
)
from embedlab.deploy.parity import Comparison, measure
from embedlab.deploy.space import ModelEncoder
from embedlab.errors import ModelError, ParameterError
from embedlab.io import sha256_of, write_atomic
from embedlab.models.encode import dimension
from embedlab.models.onnx_graph import check_exportable, write_graph
from embedlab.models.onnx_int8 import quantise
from embedlab.models.onnx_io import needs
from embedlab.models.sides import Side, is_routed, is_static, sides_of
from embedlab.models.tokens import prompt_length
from embedlab.search.encoded import judged_queries

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGES = ("torch", "transformers", "sentence-transformers", "onnx", "onnxruntime")
SIDES = ("query", "document")


def export_model(
    model: SentenceTransformer,
    folder: Path,
    *,
    int8: bool = False,
    side: str = "",
    comparison: Comparison | None = None,
) -> ExportCard:
    """Write a model as an ONNX folder and compare it with the model.

    The folder appears once everything is in it, also when the comparison fails: its card says so.

    Args:
        model: on padded batches, as from `load_model(…, packed=False)`; it is not changed.
        folder: a new folder.
        int8: quantise embedding tables and linear layers, see `models.onnx_int8`.
        side: "query" or "document" for a model with a `Router`, whose sides are exported one by one.
        comparison: what the export is compared on; a sample of texts if None.

    Returns:
        The card; `card.parity["verdict"]` is "pass", "unsure" or "fail".

    Raises:
        ModelError: the model cannot be exported.
        ParameterError: `side` does not fit the model, or the dataset has no such split.
        EmbedlabError: the packages of the extra `export` are missing.
    """
    needs("onnxruntime")
    comparison = comparison or Comparison()
    target = _target(model, side)
    check_exportable(target)
    tokenizer = _tokenizer(target)
    if comparison.data is not None:
        judged_queries(comparison.data, comparison.split)  # raises before the export, which takes a while
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        new = Path(temporary) / folder.name
        new.mkdir()
        inputs = write_graph(target, new / GRAPH, prepare=quantise if int8 else None)
        tokenizer.save(str(new / TOKENIZER))
        card = _card(model, target, tokenizer, new, inputs, "int8" if int8 else "fp32", side)
        write_atomic(new / CARD, card_json(card))
        result = measure(model, ExportedEncoder(new, threads=comparison.threads), comparison)
        card = card.model_copy(update={"parity": result.record()})
        write_atomic(new / CARD, card_json(card))
        new.rename(folder)
    return card


def _card(
    model: SentenceTransformer,
    target: SentenceTransformer,
    tokenizer: Any,
    folder: Path,
    inputs: Sequence[str],
    precision: Literal["fp32", "int8"],
    side: str,
) -> ExportCard:
    """Describe the files in a folder; the comparison is still missing."""
    sides = sides_of(model)
    return ExportCard(
        model=str(model.model_card_data.base_model or ""),
        precision=precision,
        side=_literal(side),
        inputs=tuple(inputs),
        dimension=dimension(target),
        max_seq_length=(tokenizer.truncation or {}).get("max_length"),
        special_tokens=not is_static(target),
        query=_prompt(sides.query),
        document=_prompt(sides.document),
        space=space_of_model(ModelEncoder(model).space),
        files={file.name: sha256_of(file) for file in sorted(folder.iterdir())},
        versions={"embedlab": __version__}
        | {package: metadata.version(package).partition("+")[0] for package in PACKAGES},
        parity={},
    )


def _target(model: SentenceTransformer, side: str) -> SentenceTransformer:
    """Return what is exported: the model, or one of its sides."""
    if side and side not in SIDES:
        raise ParameterError(f"unknown side {side!r}", remedy="Choose query or document", field="--side")
    if side and not is_routed(model):
        problem = "the model has one encoder for queries and documents"
        raise ParameterError(problem, remedy="Leave --side out", field="--side")
    return getattr(sides_of(model), side).model if side else model


def _literal(side: str) -> Literal["query", "document"] | None:
    return "query" if side == "query" else "document" if side == "document" else None


def _prompt(side: Side) -> Prompt:
    return Prompt(text=side.prompt or "", tokens=prompt_length(side.model, side.prompt) or 0)


def _tokenizer(model: SentenceTransformer) -> Any:
    """Return a `tokenizers.Tokenizer` that truncates and pads as the model does.

    Raises:
        ModelError: the model's tokenizer runs in Python and has no tokenizer.json.
    """
    from tokenizers import Tokenizer

    source: Any = model.tokenizer
    fast = source if isinstance(source, Tokenizer) else getattr(source, "backend_tokenizer", None)
    if not isinstance(fast, Tokenizer):
        problem = f"the tokenizer {type(source).__name__} runs in Python, so there is no {TOKENIZER} for it"
        raise ModelError(problem, remedy="Save the model with a fast tokenizer", field="model_name")
    tokenizer = Tokenizer.from_str(fast.to_str())
    if isinstance(source, Tokenizer):
        tokenizer.no_truncation()
        tokenizer.enable_padding()
        return tokenizer
    limit = model.max_seq_length
    if isinstance(limit, int):
        tokenizer.enable_truncation(limit, direction=source.truncation_side)
    else:
        tokenizer.no_truncation()
    padding = {"direction": source.padding_side, "pad_id": source.pad_token_id or 0}
    tokenizer.enable_padding(**padding, pad_token=source.pad_token or "[PAD]")
    return tokenizer
