"""What every request passes before anything reads it: key, number of requests, time; and one shape for all errors."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import traceback
from typing import TYPE_CHECKING

from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from embedlab.deploy.endpoint.problems import Problem
from embedlab.deploy.endpoint.settings import KEY_VARIABLE, EndpointSettings, Key

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from embedlab.deploy.endpoint.metrics import Metrics

logger = logging.getLogger(__name__)

CLIENT_GONE = 499  # the status that nginx counts for a client that closed the connection
OPEN = ("/health",)  # needs no key
PATHS = ("/v1/embeddings", "/embed", "/v1/models", "/health", "/metrics")  # that metrics know by name


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: the application.
        settings: limits.
        key: that clients must send; None for none.
        metrics: counts requests.
    """

    def __init__(self, app: ASGIApp, settings: EndpointSettings, key: Key | None, metrics: Metrics) -> None:
        self._app, self._settings, self._key, self._metrics = app, settings, key, metrics
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._handle(scope, receive, noting_status)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Problem as problem:
            if not status:
                await problem_response(problem)(scope, receive, noting_status)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self._metrics.request(path, status or CLIENT_GONE, time.perf_counter() - began)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; whatever it raises becomes a problem."""
        self._check_key(scope)
        counted = scope["method"] == "POST"
        if counted and self._running >= self._settings.max_requests:
            message = f"{self._running} requests are running, and no more are allowed. Try again later."
            raise Problem(429, message, code="too_many_requests", retry_after_s=1)
        self._running += counted
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._app(scope, receive, send)
        except TimeoutError:
            message = f"The request took longer than {self._settings.timeout_s:g} s. Send fewer texts, or try later."
            wait_s = math.ceil(min(self._settings.timeout_s, 60))
            raise Problem(503, message, code="timeout", retry_after_s=wait_s) from None
        except (Problem, ClientDisconnect):
            raise
        except Exception as error:
            # Not the message and not the traceback's values: they may quote a text.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            logger.error("A request failed: %s at %s:%s", type(error).__name__, frame.filename, frame.lineno)
            raise Problem(500, "The model failed on this request; see the log of the server.", code="failed") from None
        finally:
            self._running -= counted

    def _check_key(self, scope: Scope) -> None:
        if self._key is None or scope["path"] in OPEN:
            return
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not self._key.matches(header):
            message = f"Send the key of this server ({KEY_VARIABLE}) as 'Authorization: Bearer KEY'."
            raise Problem(401, message, code="invalid_api_key")


def problem_response(problem: Problem) -> Response:
    """Return the answer for a problem."""
    return Response(to_json(problem.body), problem.status, problem.headers, "application/json")


async def body_of(request: Request, max_bytes: int) -> bytes:
    """Read the body of a request.

    Raises:
        Problem: it is larger than allowed, or the client went away.
    """
    declared = request.headers.get("content-length", "")
    body = bytearray()
    if not (declared.isascii() and declared.isdigit() and int(declared[:18]) > max_bytes):
        async for block in request.stream():
            body += block
            if len(body) > max_bytes:
                break
        else:
            return bytes(body)
    message = f"The request is larger than {max_bytes:,} bytes. Send fewer texts at a time."
    raise Problem(413, message, code="request_too_large")
