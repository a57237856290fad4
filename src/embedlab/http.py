"""HTTP client for JSON APIs: retries with exponential backoff, and limits on the time and size of answers.

A server is not trusted: it cannot hold a request longer than asked, fill the memory, or see its own copy of the API key
again in our messages.
"""

from __future__ import annotations

import email.utils
import json
import logging
import math
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import httpx

from embedlab.errors import ParameterError
from embedlab.redaction import redacted

KEY_VARIABLE = "OPENAI_API_KEY"
MAX_WAIT_S = 60.0  # between two attempts, even if the server asks for more
MAX_ANSWER_BYTES = 64 << 20
TOTAL_S = 120.0  # the most seconds of one request
REDACTED_BYTES = 100_000  # of an answer that are searched for keys before an excerpt is taken
EXCERPT_CHARACTERS = 200  # of an answer, in an error message
TRANSIENT_STATUS = frozenset({408, 409, 425, 429})  # and all of 500 and above

Result = TypeVar("Result")

logger = logging.getLogger(__name__)
logging.getLogger("httpcore").setLevel(logging.INFO)  # at DEBUG it logs what servers send back, keys included


class TransientError(Exception):
    """A failure that another attempt may fix: no connection, a timeout, an overloaded server.

    Args:
        reason: what happened.
        wait_s: seconds to wait before the next attempt; None for exponential backoff.
        status: the HTTP status, None without an answer.
    """

    def __init__(self, reason: str, wait_s: float | None = None, status: int | None = None) -> None:
        super().__init__(redacted(reason))
        self.wait_s = wait_s
        self.status = status


class RefusedError(Exception):
    """A failure that another attempt does not fix: wrong key, wrong address, invalid request.

    Args:
        reason: what happened.
        status: the HTTP status, None if the request did not get that far.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(redacted(reason))
        self.status = status


def new_client(timeout_s: float) -> httpx.Client:
    """Return a client whose requests `post_json` can end at any time.

    Args:
        timeout_s: seconds to wait for a connection, and for each part of an answer.
    """
    # A reused connection would not report its socket, see `_deadline`.
    return httpx.Client(timeout=timeout_s, limits=httpx.Limits(max_keepalive_connections=0))


def checked_url(url: str, field: str) -> str:
    """Return the address of a server without a slash at its end.

    Args:
        url: for example `http://localhost:8000/v1`.
        field: the parameter, for the message.

    Raises:
        ParameterError: the address is not a web address, or it holds a user, a key or a query.
    """
    remedy = "Write it like http://localhost:8000/v1"
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise ParameterError(f"expected a web address, got {redacted(url)!r}", remedy=remedy, field=field) from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ParameterError(f"expected a web address, got {redacted(url)!r}", remedy=remedy, field=field)
    if parts.userinfo or parts.query or parts.fragment:
        problem = "an address must not hold a user, a key or a query, because records keep it"
        raise ParameterError(problem, remedy=f"Put the key into the variable {KEY_VARIABLE}", field=field)
    return url.rstrip("/")


def parse_json(content: str | bytes) -> Any:
    """Parse JSON from a server.

    Raises:
        ValueError: it is not JSON, or it is nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def post_json(
    client: httpx.Client, url: str, body: Any, *, total_s: float = TOTAL_S, key_variable: str = KEY_VARIABLE
) -> bytes:
    """Send one POST request and return the body of the answer.

    The API key goes into the Authorization header if its variable is set. Redirects are not followed, so no other
    server receives the key.

    Args:
        client: from `new_client`.
        url: the full address.
        body: anything that JSON can hold.
        total_s: the most seconds that the request may take in all, however slowly the answer arrives.
        key_variable: environment variable that holds the API key.

    Raises:
        TransientError: no connection, a timeout, or a status such as 429 or 503.
        RefusedError: any other status, an invalid address, or an answer of more than 64 MiB.
    """
    key = os.environ.get(key_variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise RefusedError(f"{key_variable} has characters that a key cannot have")
    options: dict[str, Any] = {"headers": {"Authorization": f"Bearer {key}"} if key else {}, "follow_redirects": False}
    try:
        with (
            _deadline(total_s) as (trace, has_passed),
            client.stream("POST", url, json=body, extensions={"trace": trace}, **options) as response,
        ):
            content = _read(response, has_passed)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise RefusedError(f"{type(error).__name__}: {error}") from None
    except httpx.TransportError as error:
        if has_passed():
            raise TransientError(f"no whole answer within {total_s:g} s") from None
        raise TransientError(f"{type(error).__name__}: {error}".rstrip(": ")) from None
    if response.is_success:
        return content
    reason = f"HTTP {response.status_code}: {excerpt(content)}"
    if response.status_code in TRANSIENT_STATUS or response.status_code >= 500:
        raise TransientError(reason, _retry_after(response.headers.get("Retry-After")), response.status_code)
    if location := response.headers.get("Location"):
        reason += f" (redirect to {location})"
    raise RefusedError(reason, response.status_code)


def with_retries(
    call: Callable[[], Result], *, attempts: int, sleep: Callable[[float], None] = time.sleep, name: str = "request"
) -> Result:
    """Call a function until it raises no `TransientError`.

    Between two attempts it waits as long as the error asks for, else 1, 2, 4, ... seconds times a random factor of 0.5
    to 1.5, so that many clients do not return at the same moment. No wait is longer than 60 seconds.

    Args:
        call: the function.
        attempts: number of attempts, including the first.
        sleep: how to wait.
        name: what is attempted, for the log.

    Raises:
        TransientError: the last failure.
    """
    for attempt in range(attempts):
        try:
            return call()
        except TransientError as error:
            logger.info("%s: attempt %d of %d failed: %s", name, attempt + 1, attempts, error)
            if attempt + 1 == attempts:
                raise
            wait_s = 2.0**attempt * random.uniform(0.5, 1.5) if error.wait_s is None else error.wait_s
            sleep(min(wait_s, MAX_WAIT_S))
    raise ValueError(f"attempts must be 1 or more, got {attempts}")


@contextmanager
def _deadline(total_s: float) -> Iterator[tuple[Callable[[str, Any], None], Callable[[], bool]]]:
    """End a request after `total_s`. The timeouts of httpx start again with every byte that a slow server sends.

    Yields:
        The request's trace function, which learns its socket, and whether the time is over.
    """
    streams: list[Any] = []
    end = time.monotonic() + total_s

    def trace(event: str, info: Any) -> None:
        if event.startswith("connection.connect_") and event.endswith(".complete"):
            streams.append(info["return_value"])

    def stop() -> None:
        for stream in streams:
            with suppress(OSError, AttributeError):
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(total_s, stop)
    timer.daemon = True
    timer.start()
    try:
        yield trace, lambda: time.monotonic() >= end
    finally:
        timer.cancel()


def _read(response: httpx.Response, has_passed: Callable[[], bool]) -> bytes:
    content = bytearray()
    for block in response.iter_bytes():
        content += block
        if has_passed():
            raise httpx.ReadTimeout("")
        if len(content) > MAX_ANSWER_BYTES:
            raise RefusedError(f"the answer is larger than {MAX_ANSWER_BYTES / 2**20:.0f} MiB", response.status_code)
    return bytes(content)


def _retry_after(header: str | None) -> float | None:
    """Return the seconds in a Retry-After header, which holds seconds or a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def excerpt(content: bytes) -> str:
    """The beginning of an answer for a message; keys are replaced first, so that none is cut in two."""
    text = redacted(content[:REDACTED_BYTES].decode("utf-8", "replace"))
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:EXCERPT_CHARACTERS] or "no text"
