"""Check a loaded model: its tokenizer fits its weights, and it is of a kind that this package can use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedlab.errors import ModelError
from embedlab.models.sides import is_routed, sides_of

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    from embedlab.models.folder import ModelFolder


def check_loaded(model: SentenceTransformer, name: str) -> None:
    """Check that a model turns a text into one vector, with a tokenizer that fits.

    Args:
        model: a loaded model.
        name: what the user wrote.

    Raises:
        ModelError: it does not.
    """
    if is_routed(model):
        _check_sides(model, name)
        return
    modalities = [str(modality) for modality in model.modalities if modality not in ("text", "message")]
    if modalities or not model.supports("text"):
        problem = f"{name!r} also reads {', '.join(modalities) or 'other inputs'}, but embedlab works with texts only"
        raise ModelError(problem, remedy="Use a model for texts", field="model_name")
    if getattr(model, "tokenizer", None) is None:
        raise ModelError(f"{name!r} has no tokenizer", remedy="Add the tokenizer's files to it", field="model_name")
    check_tokenizer(model, name)


def _check_sides(model: SentenceTransformer, name: str) -> None:
    sides = sides_of(model)
    for side in sides:
        check_loaded(side.model, f"{name}, {side.task} side")
    dims = [side.model.get_embedding_dimension() for side in sides]
    if len(set(dims)) > 1:
        problem = f"queries of {name!r} have {dims[0]} dimensions, and documents {dims[1]}"
        raise ModelError(problem, remedy="Use a model whose sides have the same dimensions", field="model_name")


def check_tokenizer(model: SentenceTransformer | CrossEncoder, name: str, field: str = "model_name") -> None:
    """Check that every token has an embedding, and that the tokenizer is not a stub.

    Args:
        model: a loaded model.
        name: what the user wrote.
        field: the parameter that the name came from.

    Raises:
        ModelError: tokens without rows, or far fewer tokens than rows.
    """
    vocabulary, rows = _vocabulary(model.tokenizer), _embedding_rows(model)
    if not vocabulary or rows is None:
        return
    tokens, highest = len(vocabulary), max(vocabulary.values())
    if tokens < rows // 2:
        problem = f"{name!r} has no tokenizer that fits: {tokens:,} tokens for {rows:,} embeddings"
        remedy = "Copy the tokenizer's files (tokenizer.json, vocab.txt or similar) from the model's source"
        raise ModelError(problem, remedy=remedy, field=field)
    if highest >= rows:
        problem = f"the tokenizer of {name!r} has token ids up to {highest:,}, but there are {rows:,} embeddings"
        remedy = "Call resize_token_embeddings(len(tokenizer)) on the transformer and save it again"
        raise ModelError(problem, remedy=remedy, field=field)


def check_weights(model: SentenceTransformer | CrossEncoder, folder: ModelFolder) -> None:
    """Check that the weights file belongs to the model; transformers fills in random weights for missing ones.

    Args:
        model: the loaded model.
        folder: where it was loaded from.

    Raises:
        ModelError: no tensor of the file has the name of a weight.
    """
    network = getattr(model[0], "model", None)
    saved = {name.split(".")[-2] for name in folder.weight_names() if "." in name}
    expected = {name.split(".")[-2] for name, _ in network.named_parameters() if "." in name} if network else set()
    if saved and expected and not saved & expected:
        problem = "no weight in this file belongs to the model that config.json describes"
        remedy = "Copy config.json and the weights from the same model"
        raise ModelError(problem, remedy=remedy, file=folder.path / "model.safetensors", field=folder.field)


def _vocabulary(tokenizer: Any) -> dict[str, int]:
    return dict(tokenizer.get_vocab()) if hasattr(tokenizer, "get_vocab") else {}


def _embedding_rows(model: SentenceTransformer | CrossEncoder) -> int | None:
    """Return the number of token embeddings; None if the model has no plain table of them."""
    first: Any = model[0]
    embedding = getattr(first, "embedding", None)
    network: Any = getattr(first, "model", None)
    if embedding is None and hasattr(network, "get_input_embeddings"):
        embedding = network.get_input_embeddings()
    return getattr(embedding, "num_embeddings", None)
