"""The two sides of a model: what encodes queries, and what encodes documents.

Most models have one encoder, and the sides differ by their prompt at most. A model with a `Router` has different
modules for queries and documents: two encoders, or two linear layers after the pooling. Each side is then a
`SentenceTransformer` of its own that shares its weights with the whole model, and everything that encodes or tokenizes
texts works on it. In training, the whole model runs: the features of each column name their side under `task`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from embedlab.errors import ModelError
from embedlab.models.prompts import prompts_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Side(NamedTuple):
    """What encodes queries, or documents.

    Attributes:
        model: a `SentenceTransformer` without `Router`.
        prompt: put before every text; None if there is none.
        task: "query" or "document" if the whole model has a `Router`, else None.
    """

    model: Any
    prompt: str | None
    task: str | None


class Sides(NamedTuple):
    """Both sides of a model."""

    query: Side
    document: Side

    @property
    def are_equal(self) -> bool:
        """Whether a text has the same vector as a query and as a document."""
        return self.query == self.document


def sides_of(model: Any) -> Sides:
    """Return what encodes queries and what encodes documents.

    Args:
        model: any sentence-transformers model, or anything else with `prompts`.

    Raises:
        ModelError: the model has no route for queries, or none for documents.
    """
    query, document = prompts_of(model)
    if for_role := getattr(model, "for_role", None):  # an API model, which may tell its server what a text is
        return Sides(Side(for_role("query"), query, None), Side(for_role("document"), document, None))
    if not is_routed(model):
        return Sides(Side(model, query, None), Side(model, document, None))
    return Sides(Side(_route(model, "query"), query, "query"), Side(_route(model, "document"), document, "document"))


def is_static(model: SentenceTransformer) -> bool:
    """Whether `model` looks up token embeddings (`StaticEmbedding` or a subclass) and runs no transformer."""
    return any(kind.__name__ == "StaticEmbedding" for kind in type(model[0]).__mro__)


def is_routed(model: Any) -> bool:
    """Whether a model has different modules for queries and documents."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    return isinstance(model, SentenceTransformer) and any(isinstance(module, Router) for module in model)


def require_one_encoder(model: Any) -> None:
    """Check that a model encodes queries and documents with the same modules.

    Raises:
        ModelError: it does not.
    """
    if is_routed(model):
        problem = "this technique needs one encoder for all texts, but queries and documents have their own (Router)"
        remedy = "Use contrastive training, or a model with one encoder"
        raise ModelError(problem, remedy=remedy, field="model_name")


def _route(model: SentenceTransformer, task: str) -> SentenceTransformer:
    """Return the modules that encode texts of one kind, as a model of their own."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    modules: list[Any] = []
    for module in model:
        if not isinstance(module, Router):
            modules.append(module)
            continue
        try:
            modules += module.sub_modules[module._resolve_route(task=task, modality="text")]
        except ValueError as error:
            remedy = "Use a model with the routes `query` and `document`"
            raise ModelError(f"the model has no route for {task} texts", remedy=remedy, field="model_name") from error
    side = SentenceTransformer(modules=modules, device=model.device, prompts=dict(model.prompts))
    side.truncate_dim = model.truncate_dim
    side.training = model.training  # of the side alone: its modules keep their modes
    return side
