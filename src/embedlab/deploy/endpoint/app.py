"""The web application: paths, from a request to the batcher and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import embedlab
from embedlab.deploy.endpoint.batching import Batcher, Encoded, Job
from embedlab.deploy.endpoint.guard import Guard, body_of, problem_response
from embedlab.deploy.endpoint.metrics import CONTENT_TYPE, Metrics
from embedlab.deploy.endpoint.problems import Problem
from embedlab.deploy.endpoint.protocol import (
    SPACE_HEADER,
    TRUNCATED_HEADER,
    EmbeddingsRequest,
    EmbedRequest,
    check_not_empty,
    embeddings_answer,
    parse,
    prefix,
    texts_of,
)
from embedlab.deploy.endpoint.roles import Role, ServedModel
from embedlab.deploy.endpoint.settings import EndpointSettings, Key


def build_app(model: ServedModel, settings: EndpointSettings, key: Key | None = None) -> FastAPI:
    """Build the application. Its lifespan starts and stops the thread that encodes.

    Args:
        model: the model.
        settings: limits.
        key: that clients must send; None for none.
    """
    batcher = Batcher(
        model,
        batch_tokens=settings.batch_tokens,
        max_waiting=settings.max_waiting,
        observe=lambda texts, tokens, seconds: metrics.batch(texts, tokens, seconds),
    )
    metrics = Metrics(model.name, model.space.fingerprint, lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with batcher:
            yield

    app = FastAPI(
        title="embedlab",
        version=embedlab.__version__,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other servers
        redoc_url=None,
    )
    app.add_middleware(Guard, settings=settings, key=key, metrics=metrics)
    app.add_exception_handler(HTTPException, _http_problem)
    endpoint = Endpoint(model, settings, batcher, metrics)
    app.post("/v1/embeddings", **_body(EmbeddingsRequest))(endpoint.embeddings)
    app.post("/embed", **_body(EmbedRequest))(endpoint.embed)
    app.get("/v1/models")(endpoint.models)
    app.get("/v1/models/{name:path}")(endpoint.one_model)
    app.get("/health")(endpoint.health)
    app.get("/metrics")(endpoint.metrics)
    return app


class Endpoint:
    """The handlers of the paths.

    Args:
        model: the model.
        settings: limits.
        batcher: encodes.
        metrics: counts texts.
    """

    def __init__(self, model: ServedModel, settings: EndpointSettings, batcher: Batcher, metrics: Metrics) -> None:
        self._model, self._settings, self._batcher, self._metrics = model, settings, batcher, metrics
        self._started = int(time.time())

    async def embeddings(self, request: Request) -> Response:
        """OpenAI's embeddings."""
        fields = parse(EmbeddingsRequest, await body_of(request, self._settings.max_bytes))
        if fields.model is not None:
            self._require_name(fields.model, param="model")
        role = self._model.role(fields.input_type, fields.prompt_name)
        space = self._space(request, role, fields.dimensions, expected=fields.space)
        encoded = await self._encode(request, fields.input, "input", role, truncate=fields.truncate is not False)
        vectors = prefix(encoded.vectors, fields.dimensions, normalize=True)
        facts = {
            "model": self._model.name,
            "space": space,
            "input_type": role.name,
            "truncated": encoded.truncated,
        }
        body = embeddings_answer(vectors, fields.encoding_format, encoded.tokens, facts)
        return _answer(body, space, encoded)

    async def embed(self, request: Request) -> Response:
        """Embeddings as text-embeddings-inference returns them: a list of vectors."""
        fields = parse(EmbedRequest, await body_of(request, self._settings.max_bytes))
        role = self._model.role(fields.input_type, fields.prompt_name)
        normalize = fields.normalize is not False
        unit = normalize or (self._model.gives_unit_vectors and fields.dimensions is None)
        space = self._space(request, role, fields.dimensions, unit=unit)
        options = {"truncate": bool(fields.truncate), "normalize": normalize}
        encoded = await self._encode(request, fields.inputs, "inputs", role, **options)
        vectors = prefix(encoded.vectors, fields.dimensions, normalize=normalize)
        return _answer(to_json(vectors.tolist()), space, encoded)

    async def models(self) -> Response:
        """The served model."""
        return _json({"object": "list", "data": [self._description()]})

    async def one_model(self, name: str) -> Response:
        """The served model by name."""
        self._require_name(name)
        return _json(self._description())

    def _require_name(self, name: str, *, param: str | None = None) -> None:
        """Check a model's name, which may lack its organisation: people write `all-MiniLM-L6-v2`."""
        served = self._model.name
        if name not in (served, served.rpartition("/")[2]):
            raise Problem(
                404, f"This server has the model {served!r} and no other.", code="model_not_found", param=param
            )

    async def health(self) -> Response:
        """Whether requests are encoded."""
        if not self._batcher.is_working:
            raise Problem(503, "The server does not encode any more. Start it again.", code="stopped")
        return _json({"status": "ok"})

    async def metrics(self) -> Response:
        """Counters for Prometheus."""
        return Response(self._metrics.page(), media_type=CONTENT_TYPE)

    def _description(self) -> dict[str, Any]:
        model = self._model
        return {
            "id": model.name,
            "object": "model",
            "created": self._started,
            "owned_by": "embedlab",
            "space": model.space.fingerprint,
            "dimensions": model.dimension,
            "max_tokens": model.max_tokens,
            "prompts": model.prompts,
        }

    def _space(
        self, request: Request, role: Role, dimensions: int | None, *, expected: str | None = None, unit: bool = True
    ) -> str:
        """Return the fingerprint of the vectors that a request asks for, after a comparison with what it expects."""
        if dimensions is not None and not 1 <= dimensions <= self._model.dimension:
            message = f"dimensions must be between 1 and {self._model.dimension}."
            raise Problem(400, message, param="dimensions")
        space = role.fingerprint(dimensions or self._model.dimension, unit=unit)
        for fingerprint in (expected, request.headers.get(SPACE_HEADER)):
            if fingerprint is not None and fingerprint.strip() != space:
                message = (
                    f"These vectors lie in the space {space}, and the request expects another. Use the model and the "
                    "prompts of that space, or embed all documents again."
                )
                raise Problem(412, message, param="space", code="space_mismatch")
        return space

    async def _encode(
        self, request: Request, value: Any, field: str, role: Role, *, truncate: bool, normalize: bool = True
    ) -> Encoded:
        items = texts_of(value, field, self._settings.max_texts)
        texts = [item if isinstance(item, str) else self._model.text_of(item) for item in items]
        check_not_empty(texts, field)
        encoded = await _unless_gone(request, self._batcher.submit(Job(texts, role, normalize, truncate)))
        self._metrics.texts(role.name, len(texts), encoded.truncated)
        return encoded


async def _unless_gone(request: Request, work: Awaitable[Encoded]) -> Encoded:
    """Wait for the work; cancel it if the client closes the connection first."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _http_problem(request: Request, error: Exception) -> Response:
    """Answer an unknown path or method."""
    status = getattr(error, "status_code", 500)
    message = f"This path has no method {request.method}; /openapi.json lists all paths."
    return problem_response(Problem(status, message, code="not_found"))


def _answer(body: bytes, space: str, encoded: Encoded) -> Response:
    headers = {SPACE_HEADER: space, TRUNCATED_HEADER: str(encoded.truncated)}
    return Response(body, headers=headers, media_type="application/json")


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    """Return what describes the body of a path in /openapi.json. It is read in this module, not by FastAPI, whose
    errors and traces would hold texts."""
    content = {"application/json": {"schema": kind.model_json_schema()}}
    return {"openapi_extra": {"requestBody": {"content": content, "required": True}}}
