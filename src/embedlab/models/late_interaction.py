"""Late interaction: one vector per token, as in ColBERT, built from an embedding model.

A text is a list of unit vectors instead of one. The score of a document is MaxSim: every token of the query takes the
cosine of the most similar token of the document, and the cosines are added (Khattab and Zaharia, SIGIR 2020). The model
is a stock `MultiVectorEncoder` of sentence-transformers, so a saved folder loads without this package.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from embedlab.data.splits import evenly_spread
from embedlab.errors import DataError, ModelError
from embedlab.models.load import load_checked
from embedlab.models.packing import on_device, without_gradients
from embedlab.models.sides import is_static, require_one_encoder

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer

Role = Literal["query", "document"]

WIDTH = 128  # dimensions of a token vector, as in ColBERT
SAMPLE = 2_000  # texts that the projection is computed on
BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class TokenVectors:
    """The token vectors of N texts in one array.

    Attributes:
        vectors: (T, d) unit vectors of all tokens, text by text, of any float type.
        starts: int64 (N + 1,), where each text begins in `vectors`; the last entry is T.
    """

    vectors: np.ndarray
    starts: np.ndarray

    def __post_init__(self) -> None:
        starts = self.starts
        if self.vectors.ndim != 2 or len(starts) < 1 or starts[0] != 0 or starts[-1] != len(self.vectors):
            problem = f"token vectors of shape {self.vectors.shape} do not match where their texts start"
            raise DataError(problem, remedy="Encode the texts again with encode_tokens", field="starts")
        if np.any(np.diff(starts) < 1):
            row = int(np.argmax(np.diff(starts) < 1))
            raise DataError(f"text {row} has no token", remedy="Leave out empty texts", field="starts")

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """Return the vectors (t, d) of one text."""
        return self.vectors[self.starts[row] : self.starts[row + 1]]

    @property
    def bytes_per_text(self) -> float:
        """Mean bytes of a text's vectors."""
        return self.vectors.nbytes / max(1, len(self))


def late_interaction_from(model: SentenceTransformer, texts: Sequence[str], *, dim: int = WIDTH) -> MultiVectorEncoder:
    """Build a late-interaction model on a copy of an embedding model's transformer.

    sentence-transformers starts the projection of the token vectors at random. Here it starts as their principal
    directions, so MaxSim ranks well before any training.

    Args:
        model: an embedding model with a transformer. A packed one gives a packed model. Prompts are kept.
        texts: texts of the domain; the projection is computed on up to `SAMPLE` of them.
        dim: dimensions of a token vector; at most those of the transformer.

    Raises:
        ModelError: the model has no transformer, or fewer dimensions than `dim`.
    """
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    require_one_encoder(model)
    if is_static(model):
        problem = "late interaction needs vectors of tokens in their context, and a static model has none"
        raise ModelError(problem, remedy="Use a model with a transformer", field="model_name")
    transformer: Any = copy.deepcopy(model[0])
    hidden = int(transformer.get_embedding_dimension())
    if dim > hidden:
        problem = f"the transformer has {hidden} dimensions, got dim={dim}"
        raise ModelError(problem, remedy=f"Choose at most {hidden}", field="dim")
    directions = _principal_directions(model, evenly_spread(texts, SAMPLE), dim)
    projection = Dense(
        hidden,
        dim,
        bias=False,
        activation_function=torch.nn.Identity(),
        init_weight=directions,
        module_input_name="token_embeddings",
    )
    modules = [transformer, projection, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    prompts = {role: model.prompts.get(role) or "" for role in ("query", "document")}
    encoder = MultiVectorEncoder(modules=modules, device=str(model.device), prompts=prompts)
    encoder.model_card_data.base_model = model.model_card_data.base_model
    return encoder


def _principal_directions(model: SentenceTransformer, texts: Sequence[str], dim: int) -> torch.Tensor:
    """Return the directions (dim, d) along which the token vectors of the texts are longest."""
    transformer: Any = model[0]
    moments = torch.zeros(2 * [int(transformer.get_embedding_dimension())], dtype=torch.float64)
    with without_gradients(model):
        for start in range(0, len(texts), BATCH_SIZE):
            features = on_device(model.preprocess(list(texts[start : start + BATCH_SIZE])), model.device)
            tokens = transformer(features)["token_embeddings"]
            if "attention_mask" in features and tokens.shape[0] > 1:
                tokens = tokens[features["attention_mask"].bool()]
            unit = F.normalize(tokens.flatten(0, -2).double().cpu(), dim=-1)
            moments += unit.T @ unit
    axes: torch.Tensor = torch.linalg.eigh(moments).eigenvectors.flip(1)[:, :dim].T
    return axes.float().contiguous()


def load_late_interaction(name: str, *, device: str | None = None) -> MultiVectorEncoder:
    """Load a saved late-interaction model.

    Args:
        name: a folder or a hub name.
        device: the best available device if None.

    Raises:
        ModelError: it cannot be loaded, or is another kind of model.
    """
    from sentence_transformers import MultiVectorEncoder

    return load_checked(MultiVectorEncoder, name, device=device)


def encode_tokens(model: MultiVectorEncoder, texts: Sequence[str], role: Role, *, half: bool = True) -> TokenVectors:
    """Encode every token of the texts to a unit vector.

    Args:
        model: from `late_interaction_from` or `load_late_interaction`.
        texts: N texts.
        role: "query" or "document"; it chooses the prompt.
        half: keep the vectors as float16, which halves the index and changes a cosine by less than 0.001.

    Returns:
        Token vectors of the texts, in their order.
    """
    method = model.encode_query if role == "query" else model.encode_document
    tokens = method(list(texts), batch_size=BATCH_SIZE, show_progress_bar=False, convert_to_numpy=True)
    starts = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
    dim = int(model.get_embedding_dimension() or 0)
    vectors = np.concatenate(tokens) if tokens else np.empty((0, dim), np.float32)
    return TokenVectors(vectors.astype(np.float16 if half else np.float32), starts)
