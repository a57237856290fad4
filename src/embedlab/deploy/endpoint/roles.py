"""A loaded model and the ways to encode a text with it: as a query, as a document, with another prompt, or as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.deploy.endpoint.problems import Problem
from embedlab.deploy.space import ModelEncoder, Space
from embedlab.errors import ParameterError
from embedlab.io import sha256_of_json
from embedlab.models.encode import BATCH_TOKENS, encode
from embedlab.models.sides import is_routed, is_static, sides_of
from embedlab.models.static import plain_tokenizer
from embedlab.models.tokens import TokenIds, token_ids

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PROBE = ("one text", "another text, which is a bit longer")
QUERY, DOCUMENT, TEXT = "query", "document", "text"
INPUT_TYPES = {  # with the words of Cohere's API
    QUERY: QUERY,
    "search_query": QUERY,
    DOCUMENT: DOCUMENT,
    "search_document": DOCUMENT,
    "passage": DOCUMENT,
    TEXT: TEXT,
}


@dataclass(frozen=True)
class Role:
    """One way to encode texts.

    Attributes:
        name: "query", "document", "text" or the name of a prompt.
        encoder: a model without `Router`.
        prompt: put before every text; may be empty.
        space: of the vectors with all their dimensions.
    """

    name: str
    encoder: Any
    prompt: str
    space: Space

    def fingerprint(self, dimension: int, *, unit: bool = True) -> str:
        """Return the fingerprint of the space that an answer's vectors lie in.

        Args:
            dimension: of the vectors.
            unit: whether the vectors have unit length.
        """
        fingerprint = replace(self.space, dimension=dimension).fingerprint
        return fingerprint if unit else sha256_of_json([fingerprint, "lengths of the model"])[:16]


class ServedModel:
    """A model as the server uses it. Its methods are not thread-safe, because tokenizers are not.

    Args:
        model: any sentence-transformers model.
        name: that clients know it by.
        input_type: role of texts if a request does not say it.

    Attributes:
        space: that queries and documents share.
        dimension: of the vectors.
        max_tokens: after which a text is truncated; None without a limit.
        gives_unit_vectors: whether its vectors have unit length before they are normalized.

    Raises:
        ParameterError: the model has no such role.
    """

    def __init__(self, model: SentenceTransformer, name: str, input_type: str | None = None) -> None:
        self.name, self._default = name, input_type
        self.space = space = ModelEncoder(model).space
        self.dimension = space.dimension
        sides = sides_of(model)
        by_side = {
            QUERY: Role(QUERY, sides.query.model, space.query_prompt, space),
            DOCUMENT: Role(DOCUMENT, sides.document.model, space.document_prompt, space),
        }
        prompts = {} if is_routed(model) else {name: prompt for name, prompt in model.prompts.items() if prompt}
        self._by_prompt = {name: _role(name, model, prompt, space) for name, prompt in prompts.items()} | by_side
        self._by_type = by_side if is_routed(model) else by_side | {TEXT: _role(TEXT, model, "", space)}
        if input_type and input_type not in self._by_type:
            problem = f"a model with two encoders reads no {input_type!r}"
            raise ParameterError(problem, remedy=f"Choose {QUERY} or {DOCUMENT}", field="--input-type")
        self._needs_role = not sides.are_equal
        encoder = sides.document.model
        self._is_static = is_static(encoder)
        self._tokenizer: Any = plain_tokenizer(encoder) if self._is_static else encoder.tokenizer
        self._vocabulary = 1 + max(self._tokenizer.get_vocab().values())
        self.max_tokens: int | None = None if self._is_static else encoder.max_seq_length
        lengths = [self._lengths_of_probe(role) for role in by_side.values()]
        self.gives_unit_vectors = bool(np.allclose(lengths, 1, atol=1e-4))

    def _lengths_of_probe(self, role: Role) -> np.ndarray:
        """Return lengths of vectors; the first call of a model also takes longest, so no client waits for it."""
        vectors = self.encode(PROBE, role, normalize=False, batch_tokens=BATCH_TOKENS)
        return np.linalg.norm(vectors, axis=1)

    def role(self, input_type: str | None, prompt_name: str | None = None) -> Role:
        """Return the role that a request asks for.

        Raises:
            Problem: there is no such role, or the model needs one and the request names none.
        """
        if input_type is not None and prompt_name is not None:
            raise Problem(400, "Give input_type or prompt_name, not both.", param="prompt_name")
        if prompt_name is not None:
            return _known(self._by_prompt, prompt_name, "prompt_name")
        if input_type is not None:
            return _known(self._by_type, INPUT_TYPES.get(input_type, ""), "input_type")
        if self._default is None and self._needs_role:
            message = (
                "This model encodes queries and documents differently, and the request does not say which these are. "
                f"Set input_type to {QUERY!r} or {DOCUMENT!r}"
            )
            as_it_is = f", or to {TEXT!r} if the texts contain the prompt already" if TEXT in self._by_type else ""
            raise Problem(400, f"{message}{as_it_is}.", param="input_type", code="input_type_required")
        return self._by_type[self._default or DOCUMENT]

    @property
    def prompts(self) -> dict[str, str]:
        """The prompt of every `input_type`."""
        return {name: role.prompt for name, role in self._by_type.items()}

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without special tokens.

        Raises:
            Problem: an id is not in the vocabulary of this model.
        """
        if not all(0 <= number < self._vocabulary for number in ids):
            message = (
                f"A token id is not between 0 and {self._vocabulary - 1}. Ids of another model's tokenizer mean other "
                "words here: send texts. In LangChain, set check_embedding_ctx_length=False."
            )
            raise Problem(400, message, param="input", code="token_id_unknown")
        options = {} if self._is_static else {"clean_up_tokenization_spaces": False}
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, **options)
        return text

    def tokens(self, texts: Sequence[str], role: Role) -> TokenIds:
        """Tokenize texts as the model reads them: with prompt and special tokens, truncated at its limit."""
        return token_ids(role.encoder, texts, role.prompt)

    def encode(self, texts: Sequence[str], role: Role, *, normalize: bool, batch_tokens: int) -> np.ndarray:
        """Encode texts.

        Args:
            texts: N texts.
            role: how.
            normalize: scale the vectors to unit length.
            batch_tokens: tokens per forward pass of a packed model.

        Returns:
            float32 (N, dimension).

        Raises:
            FloatingPointError: a vector is not finite.
        """
        prompt = role.prompt or None
        vectors = encode(role.encoder, texts, prompt=prompt, batch_tokens=batch_tokens, normalize=normalize)
        if not np.isfinite(vectors).all():
            raise FloatingPointError("the model returned a vector that is not finite")
        return vectors


def _role(name: str, model: Any, prompt: str, space: Space) -> Role:
    """Return a role with one prompt for all texts; its space is the model's if documents have that prompt."""
    if prompt != space.document_prompt:
        space = replace(space, query_prompt=prompt, document_prompt=prompt)
    return Role(name, model, prompt, space)


def _known(roles: Mapping[str, Role], name: str, field: str) -> Role:
    if name not in roles:
        raise Problem(400, f"{field} must be one of {', '.join(roles)}.", param=field)
    return roles[name]
