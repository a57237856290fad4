"""HTTP client for JSON APIs: timeouts, retries with exponential backoff, a limit on the size of answers."""

from __future__ import annotations

import email.utils
import logging
import math
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

KEY_VARIABLE = "OPENAI_API_KEY"
MAX_WAIT_S = 60.0  # between two attempts, even if the server asks for more
MAX_ANSWER_BYTES = 64 << 20
EXCERPT_CHARACTERS = 200  # of an answer, in an error message
TRANSIENT_STATUS = frozenset({408, 409, 425, 429})  # and all of 500 and above

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class TransientError(Exception):
    """A failure that another attempt may fix: no connection, a timeout, an overloaded server.

    Args:
        reason: what happened.
        wait_s: seconds to wait before the next attempt; None for exponential backoff.
    """

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class RefusedError(Exception):
    """A failure that another attempt does not fix: wrong key, wrong address, invalid request.

    Args:
        reason: what happened.
        status: the HTTP status, None if the request did not get that far.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


def post_json(client: httpx.Client, url: str, body: Any) -> bytes:
    """Send one POST request and return the body of the answer.

    The API key in `OPENAI_API_KEY`, if set, goes into the Authorization header. Redirects are not followed, so no
    other server receives the key.

    Args:
        client: an httpx client; its timeout applies.
        url: the full address.
        body: anything that JSON can hold.

    Raises:
        TransientError: no connection, a timeout, or a status such as 429 or 503.
        RefusedError: any other status, an invalid address, or an answer of more than 64 MiB.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with client.stream("POST", url, json=body, headers=headers, follow_redirects=False) as response:
            content = _read(response)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise RefusedError(f"{type(error).__name__}: {error}") from None
    except httpx.TransportError as error:
        raise TransientError(f"{type(error).__name__}: {error}".rstrip(": ")) from None
    if response.is_success:
        return content
    reason = f"HTTP {response.status_code}: {_excerpt(content)}"
    if response.status_code in TRANSIENT_STATUS or response.status_code >= 500:
        raise TransientError(reason, _retry_after(response.headers.get("Retry-After")))
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


def _read(response: httpx.Response) -> bytes:
    content = bytearray()
    for block in response.iter_bytes():
        content += block
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


def _excerpt(content: bytes) -> str:
    text = content[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace")  # a character has at most four bytes
    return " ".join(text.split())[:EXCERPT_CHARACTERS] or "no text"
