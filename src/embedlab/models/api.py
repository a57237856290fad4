"""Embedding models behind an API: a company's, or a server of your own. Their weights cannot be changed.

`endpoint.Endpoint` sends texts and checks what comes back. `ApiModel` is the model that everything else uses: with
prompts or input types for queries and documents, a fingerprint, and a cache on disk, so that no text is paid for twice.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Self
from urllib.parse import parse_qsl, quote

import numpy as np

from embedlab.errors import ModelError, ParameterError
from embedlab.http import checked_url
from embedlab.io import sha256_of_json
from embedlab.models.adapter import VectorAdapter
from embedlab.models.endpoint import Endpoint, sent_text
from embedlab.models.providers import PROVIDERS, InputTypes
from embedlab.models.spending import Price, estimated_tokens
from embedlab.models.static_table import StaticTable
from embedlab.models.vector_file import Keep, VectorFile, complete
from embedlab.paths import cache_dir, shown

logger = logging.getLogger(__name__)

PROMPT_OPTIONS = ("query_prompt", "document_prompt")
OPTIONS = ("dimensions", "input_type", *PROMPT_OPTIONS, "batch", "rpm", "tpm", "price", "budget")
NO_INPUT_TYPE = "none"
CONTROL_TEXT = "embedding"  # its vector shows the dimensions, and whether the model behind the address has changed
SAME_COSINE = 0.99  # servers repeat a vector to four digits or better; another model is far below


def is_api_name(name: str) -> bool:
    """Whether a model name is that of an API model, such as `openai:MODEL@URL`."""
    return name.startswith(tuple(PROVIDERS))


def require_local(name: str, *, is_api: bool = False) -> None:
    """Check that a name is not that of an API model.

    Args:
        name: of a model.
        is_api: it is known to be one, although its name does not say so.

    Raises:
        ModelError: it is; the message says what can be done with such a model instead.
    """
    if is_api or is_api_name(name):
        problem = f"{name.partition('?')[0]} is an API model: nobody but its owner can change or read its weights"
        remedy = (
            "Use a local model here. For an API model, train an adapter, concatenate a static model, or distil a local "
            "student: notebook 14_closed_models"
        )
        raise ModelError(problem, remedy=remedy, field="model_name")


class Estimate(NamedTuple):
    """What it takes to encode texts.

    Attributes:
        texts: distinct texts that have to be sent.
        cached: distinct texts whose vectors are on disk.
        tokens: estimated tokens of `texts`.
        cost: of these tokens; None without a price.
    """

    texts: int
    cached: int
    tokens: int
    cost: float | None

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", about {self.cost:.4g} at the stated price"
        return f"{self.texts:,} texts to send ({self.cached:,} cached), about {self.tokens:,} tokens{cost}"


@dataclass(frozen=True)
class ApiModel:
    """An embedding model behind an API, wherever a model only has to encode.

    Attributes:
        endpoint: the server and the model, with the input type of documents.
        input_types: what requests say about queries and documents.
        prompts: "query" and "document" -> text prepended here, for servers without input types.
        adapter: maps the vectors of queries and documents; None changes nothing.
        static: a static model whose vectors are concatenated with these; None adds nothing.
        name: without price, budget and limits.
    """

    endpoint: Endpoint
    input_types: InputTypes = InputTypes(None, None)
    prompts: Mapping[str, str] = field(default_factory=dict)
    adapter: VectorAdapter | None = None
    static: StaticTable | None = None
    name: str = ""

    @classmethod
    def parse(cls, spec: str) -> Self:
        """Create a model from its name: `PROVIDER:MODEL`, `PROVIDER:MODEL@URL`, or the same with `?option=value&…`.

        Providers are `openai` (every server that speaks its protocol), `cohere` and `voyage`. Options are `dimensions`,
        `input_type` (one for all texts, `QUERY,DOCUMENT` for one each, or `none`), `query_prompt`, `document_prompt`,
        `batch` (texts per request), `rpm` and `tpm` (requests and tokens per minute), `price` (of a million tokens) and
        `budget`.

        Raises:
            ModelError: the model name is missing, the URL is not a web address, or an option is unknown or has an
                impossible value.
        """
        head, _, query = spec.partition("?")
        scheme, _, rest = head.partition(":")
        provider = PROVIDERS[f"{scheme}:"]
        model, _, url = rest.partition("@")
        try:
            address = checked_url(url or provider.url, "model_name")
        except ParameterError as error:
            problem = f"expected {provider.scheme}MODEL@URL: {error.problem}"
            raise ModelError(problem, remedy=error.remedy, field="model_name") from None
        if not model:
            remedy = f"For example {provider.scheme}MODEL@{provider.url}"
            raise ModelError(f"expected {provider.scheme}MODEL@URL, got {head!r}", remedy=remedy, field="model_name")
        options = _options(query)
        types = _input_types(options["input_type"]) if "input_type" in options else provider.input_types
        prompts = {name.removesuffix("_prompt"): options[name] for name in PROMPT_OPTIONS if name in options}
        endpoint = Endpoint(
            model,
            address,
            provider,
            dimensions=_whole(options, "dimensions"),
            input_type=types.document,
            batch=_whole(options, "batch"),
            price=Price.given(_number(options, "price"), _number(options, "budget")),
            requests_per_minute=_positive(options, "rpm"),
            tokens_per_minute=_positive(options, "tpm"),
        )
        shown = [
            f"{name}={quote(options[name], safe=',: ')}"
            for name in ("dimensions", "input_type", *PROMPT_OPTIONS)
            if name in options
        ]
        return cls(endpoint, types, prompts, name=head + (f"?{'&'.join(shown)}" if shown else ""))

    def for_role(self, role: str) -> Self:
        """Return the model that encodes every text as a query, or as a document.

        Args:
            role: "query" or "document".
        """
        kind = getattr(self.input_types, role)
        endpoint, adapter = replace(self.endpoint, input_type=kind), self.adapter and self.adapter.for_role(role)
        return replace(self, endpoint=endpoint, input_types=InputTypes(kind, kind), adapter=adapter)

    def adapted(self, adapter: VectorAdapter, static: StaticTable | None = None) -> Self:
        """Return the model with what was trained on its vectors: an adapter, and a static model next to it."""
        return replace(self, adapter=adapter, static=static)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over address, model, dimensions, input types, prompts, adapter and static model.

        It cannot cover the weights behind the address.
        """
        trained = [part.fingerprint for part in (self.adapter, self.static) if part]
        return sha256_of_json([self._identity(), *self.input_types, dict(self.prompts), *trained])[:16]

    def _identity(self) -> list[object]:
        endpoint = self.endpoint
        return [endpoint.provider.scheme, endpoint.url, endpoint.model, endpoint.dimensions]

    @property
    def dimension(self) -> int:
        """Number of dimensions; if the name does not say it, one short text is encoded, and cached."""
        return self._own_dimension + (self.static.weights.shape[1] if self.static else 0)

    @cached_property
    def _own_dimension(self) -> int:
        """Number of dimensions without the static model."""
        if self.adapter and self.adapter.document:
            return self.adapter.document.matrix.shape[1]
        if self.endpoint.dimensions:
            return self.endpoint.dimensions
        cached = self._cache.read([_key(CONTROL_TEXT)])
        return len(cached[_key(CONTROL_TEXT)]) if cached else self._checked_dimension()

    def estimate(self, texts: Sequence[str], *, prompt: str | None = None) -> Estimate:
        """Return what it takes to encode texts. Nothing is sent."""
        sent = {_key(text): text for text in (sent_text(text, prompt) for text in texts)}
        known = self._cache.read(list(sent))
        return self._estimate([text for key, text in sent.items() if key not in known], len(known))

    def encode(self, texts: Sequence[str], *, stage: str = "encode", prompt: str | None = None) -> np.ndarray:
        """Encode the texts that are not in the cache, and return the unit vectors of all.

        Every answer is stored at once, so an interrupted call continues where it was. Before this process sends its
        first texts, it checks that the model behind the address still gives the vectors that are in the cache.

        Args:
            texts: the texts to encode.
            stage: label in the progress report.
            prompt: prepended to every text for the API; a static model reads the text alone.

        Returns:
            float32 (len(texts), d), rows of unit length, in the order of `texts`.

        Raises:
            ModelError: see `Endpoint.encode`; or the model behind the address has changed.
        """
        sent = [sent_text(text, prompt) for text in texts]
        if not sent:
            return np.empty((0, self.dimension), dtype=np.float32)
        keys = [_key(text) for text in sent]
        distinct = len(set(keys))
        vectors = complete(self._cache, keys, sent, lambda new, keep: self._send(new, distinct - len(new), stage, keep))
        if self.adapter is not None and self.adapter.document is not None:
            vectors = self.adapter.document.apply(vectors)
        return vectors if self.static is None else self.static.concatenated(vectors, texts)

    def _send(self, texts: Sequence[str], cached: int, stage: str, keep: Keep) -> np.ndarray:
        """Get the vectors of texts that are not in the cache."""
        estimate = self._estimate(texts, cached)
        self.endpoint.price.require(estimate.tokens, f"{estimate.texts:,} texts for {self.endpoint.model}")
        logger.log(logging.INFO if estimate.cost is None else logging.WARNING, "%s: %s", self.endpoint.model, estimate)
        dimension = self._checked_dimension()

        def keep_equal(rows: list[int], block: np.ndarray) -> None:
            if block.shape[1] != dimension:
                raise self._changed(f"{block.shape[1]} dimensions instead of {dimension}")
            keep(rows, block)

        return self.endpoint.encode(texts, stage=stage, keep=keep_equal)

    def _estimate(self, texts: Sequence[str], cached: int) -> Estimate:
        tokens = estimated_tokens(texts)
        return Estimate(len(texts), cached, tokens, self.endpoint.price.cost(tokens))

    def _checked_dimension(self) -> int:
        """Return the dimension of the vectors after a check, once per process, that the cached ones are of this model.

        The server encodes one short text again, and the vector is compared with the one in the cache, or stored.
        """
        space, key = self._space, _key(CONTROL_TEXT)
        if space not in _checked:
            vector = self.endpoint.encode([CONTROL_TEXT], stage="check the model")[0]
            cached = self._cache.read([key]).get(key)
            if cached is None:
                self._cache.add([key], vector[None])
            elif len(cached) != len(vector):
                raise self._changed(f"{len(vector)} dimensions instead of {len(cached)}")
            elif (cosine := float(cached @ vector)) < SAME_COSINE:
                raise self._changed(f"a text has the cosine {cosine:.3f} with its own cached vector")
            _checked[space] = len(vector)
        return _checked[space]

    def _changed(self, how: str) -> ModelError:
        problem = f"is not the model that the cached vectors are from ({how})"
        remedy = f"Move {shown(self._cache.path)} away and embed everything again that you compare with it"
        return self.endpoint.error(problem, remedy)

    @property
    def _space(self) -> str:
        return sha256_of_json([self._identity(), self.endpoint.input_type])[:16]

    @property
    def _cache(self) -> VectorFile:
        """The vectors of one endpoint, number of dimensions and input type. They cost money, so none is dropped."""
        return VectorFile(cache_dir() / "api" / f"{self._space}.sqlite", self.endpoint.dimensions)


_checked: dict[str, int] = {}  # vector spaces whose server this process has checked -> dimensions


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def _options(query: str) -> dict[str, str]:
    # A plus stays a plus, as in `names.ModelName`.
    options = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    if unknown := [name for name in options if name not in OPTIONS]:
        problem = f"unknown option {unknown[0][:40]!r} of an API model; the options are {', '.join(OPTIONS)}"
        remedy = "An API key belongs into an environment variable, everything else into one of these options"
        raise ModelError(problem, remedy=remedy, field="model_name")
    return options


def _input_types(text: str) -> InputTypes:
    if text == NO_INPUT_TYPE:
        return InputTypes(None, None)
    query, comma, document = text.partition(",")
    types = InputTypes(query, document if comma else query)
    if not all(types) or "," in document:
        problem = f"input_type must be one name, two, or {NO_INPUT_TYPE}, got {text[:40]!r}"
        raise ModelError(problem, remedy="For example input_type=query,passage", field="model_name")
    return types


def _number(options: Mapping[str, str], name: str) -> float | None:
    if name not in options:
        return None
    try:
        number = float(options[name])
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ModelError(f"{name} must be a number of 0 or more", remedy=f"For example {name}=1", field="model_name")
    return number


def _positive(options: Mapping[str, str], name: str) -> float | None:
    number = _number(options, name)
    if number == 0:
        raise ModelError(f"{name} must be more than 0", remedy=f"For example {name}=60", field="model_name")
    return number


def _whole(options: Mapping[str, str], name: str) -> int | None:
    number = _positive(options, name)
    if number is not None and not number.is_integer():
        raise ModelError(f"{name} must be a whole number", remedy=f"For example {name}=256", field="model_name")
    return None if number is None else int(number)
