"""What a model wants put before queries and documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Prompts(NamedTuple):
    """The text before every query and before every document; None where there is none."""

    query: str | None
    document: str | None


def prompts_of(model: SentenceTransformer, query: str | None = None, document: str | None = None) -> Prompts:
    """The prompts given, and where one is None the model's own: saved under `query`, and `document` or `passage`.

    Empty text says that there is to be none.

    A model is given prompts by `model.prompts = {"query": "query: ", "document": "passage: "}`; they are saved with it.
    """
    own = getattr(model, "prompts", {})
    query = own.get("query") if query is None else query
    document = own.get("document") or own.get("passage") if document is None else document
    return Prompts(query or None, document or None)
