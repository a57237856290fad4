"""Any chat model behind an OpenAI-compatible endpoint, asked patiently and never twice.

Answers are kept on disk under the hash of what was asked, so that a restart repeats no call. The key comes from
`OPENAI_API_KEY`, goes to the endpoint alone and is never written down.
"""

from __future__ import annotations

import email.utils
import hashlib
import json
import logging
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from embedlab.errors import EmbedlabError, ParameterError
from embedlab.paths import cache_dir

KEY_VARIABLE = "OPENAI_API_KEY"
MAX_WAIT_S = 60.0  # between two attempts, whatever a server asks for

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class ChatError(EmbedlabError):
    """A chat endpoint that refuses every request of this kind: wrong key, model or address."""


class UnusableAnswerError(Exception):
    """An answer that does not have the agreed form; asking again may help."""


class _Retry(Exception):
    """A failure that may pass, and the seconds the server asks to wait."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Usage(NamedTuple):
    """Tokens an endpoint charged for; None where it does not say."""

    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass
class Chat:
    """A chat model.

    Attributes:
        model: its name at the endpoint.
        base_url: address up to and including the version, e.g. `http://localhost:8000/v1`.
        temperature: 0 gives the likeliest answer.
        max_tokens: longest answer.
        requests_per_minute: most requests started per minute; 0 sets no limit.
        attempts: tries per question, the first included.
        timeout_s: seconds without an answer after which a request is given up.
        price_per_million: dollars per million prompt and completion tokens; None leaves costs unknown.
        folder: where answers are kept; `paths.cache_dir()/chat` when not given.
        sleep: waits; tests put their own in.
        usage: what every request so far was charged, answers from disk not included.
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    temperature: float = 0.7
    max_tokens: int = 512
    requests_per_minute: float = 60
    attempts: int = 5
    timeout_s: float = 60
    price_per_million: tuple[float, float] | None = None
    folder: Path | None = None
    sleep: Callable[[float], None] = time.sleep
    usage: list[Usage] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _next_start: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            remedy = "Write it like http://localhost:8000/v1."
            raise ParameterError(f"'{self.base_url}' is no web address", remedy=remedy, field="base_url")
        if self.attempts < 1:
            raise ParameterError(f"{self.attempts} attempts", remedy="Allow 1 or more.", field="attempts")

    @property
    def cost(self) -> float | None:
        """Dollars spent since this object was made; None without prices or where the endpoint reports no tokens."""
        if self.price_per_million is None or any(None in usage for usage in self.usage):
            return None
        prices = self.price_per_million
        return sum(tokens * price for usage in self.usage for tokens, price in zip(usage, prices, strict=True)) / 1e6

    def ask(self, prompt: str, parse: Callable[[str], Answer]) -> Answer:
        """The parsed answer to `prompt`, from disk if it was asked before.

        Args:
            prompt: the user's message.
            parse: turns the answer's text into what is wanted, or raises `UnusableAnswerError` to ask again.

        Raises:
            ChatError: the endpoint rejects the request as such; nothing that is asked will be answered.
            UnusableAnswerError: no usable answer after all attempts; the message gives the last reason.
        """
        body = {**self._request, "messages": [{"role": "user", "content": prompt}]}
        path = self._path(body)
        with suppress(OSError, ValueError, LookupError, UnusableAnswerError):  # none there, or none of use
            return parse(json.loads(path.read_text(encoding="utf-8"))["answer"])
        text, answer = self._attempt(body, parse)
        _write(path, {"request": body, "answer": text})
        return answer

    @property
    def _request(self) -> dict[str, Any]:
        return {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}

    def _path(self, body: dict[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps([self.base_url, body], sort_keys=True).encode()).hexdigest()
        return (self.folder or cache_dir() / "chat") / digest[:2] / f"{digest}.json"

    def _attempt(self, body: dict[str, Any], parse: Callable[[str], Answer]) -> tuple[str, Answer]:
        """Ask until an answer can be parsed: its text and what it parses to."""
        reason = ""
        for attempt in range(self.attempts):
            self._wait_for_turn()
            try:
                text = self._post(body)
                return text, parse(text)
            except (_Retry, UnusableAnswerError) as error:
                reason = str(error)
                logger.info("attempt %d of %d: %s", attempt + 1, self.attempts, reason)
                asked = error.wait_s if isinstance(error, _Retry) else 0.0
                if attempt + 1 < self.attempts:
                    self.sleep(_backoff(attempt) if asked is None else min(asked, MAX_WAIT_S))
        raise UnusableAnswerError(f"{self.attempts} attempts, the last: {reason}")

    def _wait_for_turn(self) -> None:
        """Keep to the rate limit, over all threads that share this object."""
        if not self.requests_per_minute:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + 60 / self.requests_per_minute
        if start > now:
            self.sleep(start - now)

    def _post(self, body: dict[str, Any]) -> str:
        """One request: the text of the answer."""
        address = f"{self.base_url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
        if key := os.environ.get(KEY_VARIABLE):
            request.add_unredirected_header("Authorization", f"Bearer {key}")  # no other server gets to see it
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:  # noqa: S310 - checked above
                return self._content(response.read())
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, HTTPException) as error:  # no connection, broken off, or timed out
            raise _Retry(f"{type(error).__name__}: {error}") from None

    def _content(self, raw: bytes) -> str:
        try:
            answer = json.loads(raw)
            text = answer["choices"][0]["message"]["content"]
            counts = [(answer.get("usage") or {}).get(name) for name in Usage._fields]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _Retry(f"no chat completion: {raw[:80]!r}") from None
        with self._lock:
            self.usage.append(Usage(*(count if isinstance(count, int) else None for count in counts)))
        if not isinstance(text, str):
            raise UnusableAnswerError("an answer without text")
        return text

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """What an HTTP status means: try again, or give up."""
        said = error.read(200).decode("utf-8", "replace")
        if error.code in (408, 409, 429) or error.code >= 500:
            return _Retry(f"HTTP {error.code}: {said}", _retry_after(error.headers.get("Retry-After")))
        remedy = f"Check base_url, model and, for 401 or 403, {KEY_VARIABLE}."
        return ChatError(f"{self.base_url} refuses with HTTP {error.code}: {said}", remedy=remedy)


def _backoff(attempt: int) -> float:
    """Seconds before the next attempt: 1, 2, 4, … times a random factor, so that many clients do not return at once."""
    return min(MAX_WAIT_S, 2.0**attempt * random.uniform(0.5, 1.5))


def _retry_after(header: str | None) -> float | None:
    """Seconds from a Retry-After header, which gives seconds or a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write at once or not at all, as another process may ask the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)
