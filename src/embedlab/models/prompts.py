"""Prompts that a model prepends to queries and documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Prompts(NamedTuple):
    """Texts prepended to every query and every document; None if there is none."""

    query: str | None
    document: str | None


def prompts_of(model: SentenceTransformer) -> Prompts:
    """Return the prompts saved with a model under the names `query`, and `document` or `passage`.

    You set prompts with `model.prompts = {"query": "query: ", "document": "passage: "}`; they are saved with the model.
    An empty text means no prompt.
    """
    prompts = getattr(model, "prompts", {})
    return Prompts(prompts.get("query") or None, prompts.get("document") or prompts.get("passage") or None)
