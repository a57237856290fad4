"""Learned sparse vectors: a weight for each word piece of a vocabulary, most of them zero, as in SPLADE.

A SPLADE model usually starts from a masked language model, whose head predicts words at every token. An embedding model
such as all-MiniLM-L6-v2 comes without this head. A new one over 30,522 word pieces costs more than the rest of the
model in every step, and a few thousand pairs do not train it. `sparse_from` computes a head instead, in seconds:

- The dimensions are the word pieces that occur in your texts, some thousands instead of 30,522.
- The head is the linear discriminant that recognises a word piece from its token vector. Word pieces in similar
  contexts get similar rows, so a text can activate words that it does not contain.
- Rare word pieces weigh more (inverse document frequency).

The modules are those of sentence-transformers (`Transformer`, `Dense`, `SpladePooling`), so a saved folder loads as a
plain `SparseEncoder`. Its dimensions are not those of the tokenizer: read them with `strongest_terms`, because
`SparseEncoder.decode` would print other words.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from embedlab.data.splits import evenly_spread
from embedlab.errors import DataError, ModelError
from embedlab.models.load import load_checked
from embedlab.models.packing import on_device, without_gradients
from embedlab.models.sides import is_static, require_one_encoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SparseEncoder

Role = Literal["query", "document"]

BATCH_SIZE = 64
TEXTS_PER_BLOCK = 1_024
SAMPLE = 20_000  # texts that the head is computed on
ACTIVE = 5  # word pieces that a token activates on average, before training
SHRINKAGE = 1.0  # of the covariance, relative to its mean variance
OWN_WEIGHT = 3.0  # mean activation of a token's own word piece, before the logarithm
MEASURED = 500  # tokens that the threshold is measured on


class SparseStart(NamedTuple):
    """An untrained sparse model.

    Attributes:
        model: a `SparseEncoder` with v dimensions.
        terms: the word piece of each dimension, v names.
    """

    model: SparseEncoder
    terms: list[str]


def sparse_from(model: SentenceTransformer, texts: Sequence[str]) -> SparseStart:
    """Build a sparse model on a copy of an embedding model's transformer, with a head that is computed from texts.

    The activation of word piece w at a token with vector h is `idf(w) * (w_w · h + b_w)`. The row w_w comes from linear
    discriminant analysis: the mean vector of the tokens w, times the inverse of the shrunken covariance within word
    pieces (Hastie, Tibshirani and Friedman, section 4.3). All thresholds are moved so that a token activates `ACTIVE`
    word pieces on average. Pooling is SPLADE's: log(1 + relu(x)), then the maximum over the tokens (Formal et al.,
    2021).

    Args:
        model: an embedding model with a transformer. A packed one gives a packed model. Prompts are kept.
        texts: texts of the domain, usually the corpus and the training queries. Their word pieces are the dimensions.

    Raises:
        ModelError: the model has no transformer.
        DataError: the texts hold fewer than two word pieces.
    """
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    require_one_encoder(model)
    if is_static(model):
        problem = "a sparse model needs vectors of tokens in their context, and a static model has none"
        raise ModelError(problem, remedy="Use a model with a transformer", field="model_name")
    texts = evenly_spread(texts, SAMPLE)
    hidden, pieces, frequency = _token_vectors(model, texts)
    vocabulary, rows = torch.unique(pieces, return_inverse=True)
    if len(vocabulary) < 2:
        raise DataError("the texts hold fewer than two word pieces", remedy="Pass the texts of the corpus")
    idf = torch.log(1 + (len(texts) - frequency[vocabulary] + 0.5) / (frequency[vocabulary] + 0.5))
    weight, bias = _discriminant_head(hidden, rows, idf)
    head = Dense(
        hidden.shape[1],
        len(vocabulary),
        activation_function=torch.nn.Identity(),
        init_weight=weight,
        init_bias=bias,
        module_input_name="token_embeddings",
    )
    modules = [copy.deepcopy(model[0]), head, SpladePooling("max", embedding_dimension=len(vocabulary))]
    prompts = {role: model.prompts.get(role) or "" for role in ("query", "document")}
    encoder = SparseEncoder(modules=modules, device=str(model.device), prompts=prompts, similarity_fn_name="dot")
    encoder.model_card_data.base_model = model.model_card_data.base_model
    tokenizer: Any = model.tokenizer
    return SparseStart(encoder, tokenizer.convert_ids_to_tokens(vocabulary.tolist()))


def _token_vectors(model: SentenceTransformer, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the token vectors (T, d) without special tokens, their word pieces (T,), and the texts of each piece."""
    tokenizer: Any = model.tokenizer
    transformer: Any = model[0]
    special = torch.tensor(tokenizer.all_special_ids)
    frequency = torch.zeros(len(tokenizer), dtype=torch.float64)
    hidden, pieces = [], []
    with without_gradients(model):
        for start in range(0, len(texts), BATCH_SIZE):
            batch = list(texts[start : start + BATCH_SIZE])
            features = on_device(model.preprocess(batch), model.device)
            vectors = transformer(dict(features))["token_embeddings"].flatten(0, -2)
            ids = features["input_ids"].flatten()
            is_word = ~torch.isin(ids.cpu(), special)
            hidden.append(vectors.cpu()[is_word].double())
            pieces.append(ids.cpu()[is_word])
            for text in batch:
                frequency[list(set(tokenizer(text, add_special_tokens=False)["input_ids"]))] += 1
    return torch.cat(hidden), torch.cat(pieces), frequency


def _discriminant_head(hidden: Tensor, rows: Tensor, idf: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the weights (v, d) and the biases (v,) of the head, float32.

    Args:
        hidden: float64 (T, d) token vectors.
        rows: int (T,), the dimension of each token's own word piece.
        idf: float64 (v,).
    """
    counts = torch.bincount(rows, minlength=len(idf)).double()
    means = torch.zeros(len(idf), hidden.shape[1], dtype=torch.float64).index_add_(0, rows, hidden) / counts[:, None]
    within = hidden - means[rows]
    covariance = within.T @ within / len(hidden)
    centre = hidden.mean(0)
    spread = covariance.diagonal().mean() + (means - centre).square().mean() / 100  # above 0 if no piece occurs twice
    shrunken = covariance + SHRINKAGE * spread * torch.eye(len(centre), dtype=torch.float64)
    weight = torch.linalg.solve(shrunken, (means - centre).T).T
    bias = -(weight * (means + centre)).sum(1) / 2  # 0 halfway between the word piece and all tokens
    sample = torch.arange(0, len(hidden), max(1, len(hidden) // MEASURED))
    scores = hidden[sample] @ weight.T + bias
    threshold = scores.flatten().topk(min(ACTIVE, len(idf)) * len(sample)).values[-1]
    own_score = scores.gather(1, rows[sample][:, None]).mean() - threshold
    scale = OWN_WEIGHT / torch.maximum(own_score, scores.std()) * idf / idf.mean()
    return (weight * scale[:, None]).float(), ((bias - threshold) * scale).float()


def load_sparse(name: str, *, device: str | None = None) -> SparseEncoder:
    """Load a saved sparse model.

    Args:
        name: a folder or a hub name.
        device: the best available device if None.

    Raises:
        ModelError: it cannot be loaded, or is another kind of model.
    """
    from sentence_transformers import SparseEncoder

    return load_checked(SparseEncoder, name, device=device)


def encode_sparse(model: SparseEncoder, texts: Sequence[str], role: Role) -> Any:
    """Encode texts to sparse vectors.

    Args:
        model: from `sparse_from`, `load_sparse`, or any `SparseEncoder`.
        texts: N texts.
        role: "query" or "document"; it chooses the prompt, and the side of a model with a Router.

    Returns:
        scipy sparse array in CSR form, float32 (N, v).
    """
    from scipy.sparse import csr_array, vstack

    method = model.encode_query if role == "query" else model.encode_document
    if not texts:
        return csr_array((0, int(model.get_embedding_dimension() or 0)), dtype=np.float32)
    blocks = []
    for start in range(0, len(texts), TEXTS_PER_BLOCK):  # their vectors are dense for a moment
        vectors = method(
            list(texts[start : start + TEXTS_PER_BLOCK]), batch_size=BATCH_SIZE, show_progress_bar=False
        ).coalesce()
        (rows, columns), values = vectors.indices().cpu().numpy(), vectors.values().cpu().numpy()
        blocks.append(csr_array((values.astype(np.float32), (rows, columns)), shape=tuple(vectors.shape)))
    return vstack(blocks, format="csr")


def strongest_terms(
    model: SparseEncoder, terms: Sequence[str], text: str, count: int = 10, role: Role = "document"
) -> dict[str, float]:
    """Return the dimensions of a text with the largest weights: word piece -> weight.

    Args:
        model: from `sparse_from`, trained or not.
        terms: the word piece of each dimension, as `sparse_from` returned them.
        text: what to encode.
        count: dimensions at most.
        role: "query" or "document".
    """
    vector = encode_sparse(model, [text], role)
    best = np.argsort(-vector.data, kind="stable")[:count]
    return {terms[vector.indices[rank]]: float(vector.data[rank]) for rank in best}
