"""Prompts that a model prepends to queries and documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DOCUMENT_NAMES = ("document", "passage", "corpus")  # the first one with a text is used, as in `encode_document`


class Prompts(NamedTuple):
    """Texts prepended to every query and every document; None if there is none."""

    query: str | None
    document: str | None


def prompts_of(model: Any) -> Prompts:
    """Return the prompts saved with a model under the names `query`, and `document`, `passage` or `corpus`.

    You set prompts with `model.prompts = {"query": "query: ", "document": "passage: "}`; they are saved with the model.
    An empty text means no prompt. A model's default prompt is not used: `encode_query` and `encode_document` of
    sentence-transformers do not use it either.

    Args:
        model: a `SentenceTransformer`, or anything else with `prompts`; without them there are none.
    """
    prompts = getattr(model, "prompts", None) or {}
    document = next((prompts[name] for name in DOCUMENT_NAMES if prompts.get(name)), None)
    return Prompts(prompts.get("query") or None, document)


def choose_prompts(model: SentenceTransformer, query: str | None, document: str | None) -> None:
    """Set the prompts of a model, in place.

    Args:
        model: the model; its prompts are saved with it.
        query, document: the name of a prompt that the model has, or a text; None changes nothing.
    """
    for name, choice in (("query", query), ("document", document)):
        if choice is not None:
            model.prompts[name] = model.prompts.get(choice, choice)
    if document == "":  # otherwise the prompt `passage` would stand in for it
        for name in DOCUMENT_NAMES[1:]:
            model.prompts.pop(name, None)


def unused_prompts(model: SentenceTransformer) -> list[str]:
    """Return the names of a model's prompts if neither queries nor documents get one of them."""
    return [] if any(prompts_of(model)) else [name for name, prompt in model.prompts.items() if prompt]
