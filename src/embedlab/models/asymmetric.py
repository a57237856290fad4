"""Asymmetric retrieval: a small encoder for queries and a large one for documents, in one vector space.

Documents are encoded once, queries all the time. If a small query encoder is trained into the space of the large
document encoder, the corpus stays indexed as it is and a query costs next to nothing (LEAF, Vujanic and Rueckstiess,
2025). The model is a stock `SentenceTransformer` with a `Router`, so a saved folder loads without this package.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from embedlab.errors import ModelError
from embedlab.models.sides import require_one_encoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def join_encoders(query: SentenceTransformer, document: SentenceTransformer) -> SentenceTransformer:
    """Join two encoders in one model: `encode_query` runs the first, `encode_document` the second.

    Args:
        query: encodes queries; usually a static model. Its prompt for queries is kept.
        document: encodes documents. Its prompt for documents is kept.

    Returns:
        A model with a Router over copies of both.

    Raises:
        ModelError: their dimensions differ, or one of them has a Router already.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    for side in (query, document):
        require_one_encoder(side)
    dims = [side.get_embedding_dimension() for side in (query, document)]
    if dims[0] != dims[1]:
        problem = f"the query encoder has {dims[0]} dimensions, the document encoder {dims[1]}"
        raise ModelError(problem, remedy="Train the query encoder in the space of the document encoder")
    modules = [[copy.deepcopy(module) for module in side] for side in (query, document)]
    router = Router.for_query_document(query_modules=modules[0], document_modules=modules[1])
    prompts = {"query": query.prompts.get("query") or "", "document": document.prompts.get("document") or ""}
    model = SentenceTransformer(modules=[router], device=str(document.device), prompts=prompts)
    model.model_card_data.base_model = document.model_card_data.base_model
    return model
