"""Ask a chat model behind any OpenAI-compatible endpoint; answers are kept on disk, so nothing is paid for twice.

The API key comes from `OPENAI_API_KEY`. It is sent to the endpoint only and never written to a file.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx

from embedlab.errors import EmbedlabError, ParameterError
from embedlab.http import (
    KEY_VARIABLE,
    RefusedError,
    TransientError,
    checked_url,
    excerpt,
    new_client,
    parse_json,
    post_json,
    with_retries,
)
from embedlab.io import sha256_of_json, write_atomic
from embedlab.paths import cache_dir
from embedlab.redaction import without_own_keys

Answer = TypeVar("Answer")
MAX_TOKENS = 10_000_000  # of one request; a larger count is a mistake of the server


class ChatError(EmbedlabError):
    """The endpoint rejects every request of this kind: wrong key, model or address."""


class UnusableAnswerError(Exception):
    """An answer in the wrong format. Another attempt may help."""


class BudgetUsedUpError(UnusableAnswerError):
    """There is no answer, as another request could cost more than the budget allows."""


class Usage(NamedTuple):
    """Tokens that one request was charged for; None if the endpoint does not report them, or reports nonsense."""

    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass
class Chat:
    """A chat model.

    Attributes:
        model: its name at the endpoint.
        base_url: address including the version, e.g. `http://localhost:8000/v1`.
        temperature: sampling temperature; 0 always takes the most likely token.
        max_tokens: longest answer.
        requests_per_minute: rate limit over all threads; 0 for none.
        attempts: attempts per question, including the first.
        timeout_s: the most seconds that a request may take in all.
        price_per_million: dollars per million prompt tokens and completion tokens; None if unknown.
        budget: no request is made after this many dollars; needs prices.
        folder: where answers are kept; `paths.cache_dir()/chat` by default.
        sleep: how to wait; tests replace it.
        usage: token counts of all requests so far; answers from disk do not count.
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    temperature: float = 0.7
    max_tokens: int = 512
    requests_per_minute: float = 60
    attempts: int = 5
    timeout_s: float = 60
    price_per_million: tuple[float, float] | None = None
    budget: float | None = None
    folder: Path | None = None
    sleep: Callable[[float], None] = time.sleep
    usage: list[Usage] = field(default_factory=list, repr=False)
    _client: httpx.Client = field(init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _next_start: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        checked_url(self.base_url, "base_url")
        if self.attempts < 1:
            problem = f"attempts must be 1 or more, got {self.attempts}"
            raise ParameterError(problem, remedy="Set attempts=5, for example", field="attempts")
        self._client = new_client(self.timeout_s)

    @property
    def cost(self) -> float | None:
        """Dollars spent so far by this object; None without prices or without token counts from the endpoint."""
        if self.price_per_million is None:
            return None
        total = 0.0
        for usage in self.usage:
            for tokens, price in zip(usage, self.price_per_million, strict=True):
                if tokens is None:
                    return None
                total += tokens * price
        return total / 1e6

    def ask(self, prompt: str, parse: Callable[[str], Answer]) -> Answer:
        """Return the parsed answer to a prompt, from disk if the same question was asked before.

        Args:
            prompt: the user's message.
            parse: turns the text of an answer into a value, or raises `UnusableAnswerError` to ask again.

        Raises:
            ChatError: the endpoint rejects the request.
            BudgetUsedUpError: the budget is used up, or the endpoint does not say what was used.
            UnusableAnswerError: no usable answer after all attempts; the message says what was wrong with the last.
        """
        body = {
            "model": self.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "messages": [{"role": "user", "content": prompt}],
        }
        question = [self.base_url, body]
        if (kept := kept_answer(question, parse, self.folder)) is not None:
            return kept
        text, answer = self._ask_endpoint(body, parse)
        keep_answer(question, text, {"request": body}, self.folder)
        return answer

    def _ask_endpoint(self, body: dict[str, Any], parse: Callable[[str], Answer]) -> tuple[str, Answer]:
        """Ask until an answer can be parsed; return its text and the parsed value."""
        url = f"{self.base_url.rstrip('/')}/chat/completions"

        def attempt() -> tuple[str, Answer]:
            self._wait_for_turn()
            self._check_budget()
            try:
                text = self._text(post_json(self._client, url, body, total_s=self.timeout_s))
                return text, parse(text)
            except UnusableAnswerError as error:
                raise TransientError(str(error), wait_s=0.0) from None

        try:
            return with_retries(attempt, attempts=self.attempts, sleep=self.sleep, name=self.model)
        except TransientError as error:
            raise UnusableAnswerError(f"no usable answer after {self.attempts} attempts: {error}") from None
        except RefusedError as error:
            remedy = f"Check base_url and model, and {KEY_VARIABLE} if the status is 401 or 403"
            raise ChatError(f"{self.base_url} rejects the request ({error})", remedy=remedy) from None

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

    def _check_budget(self) -> None:
        if self.budget is not None and (self.cost is None or self.cost >= self.budget):
            raise BudgetUsedUpError("the budget is used up")

    def _text(self, content: bytes) -> str:
        """Return the message in a chat completion, and note what it cost."""
        try:
            completion = parse_json(content)
            text = completion["choices"][0]["message"]["content"]
            counts = [(completion.get("usage") or {}).get(name) for name in Usage._fields]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise TransientError(f"expected a chat completion, got {excerpt(content)!r:.80}") from None
        with self._lock:
            self.usage.append(Usage(*(count if _is_count(count) else None for count in counts)))
        if not isinstance(text, str):
            raise UnusableAnswerError("the answer has no text")
        return without_own_keys(text)  # a server can send back what it was sent


def kept_answer(question: Any, parse: Callable[[str], Answer], folder: Path | None = None) -> Answer | None:
    """Return the answer to a question that was asked before; None if there is none on disk, or it is damaged.

    Args:
        question: a JSON value with everything that the answer depends on.
        parse: turns the text of an answer into a value, or raises `UnusableAnswerError` to ask again.
        folder: where answers are kept; `paths.cache_dir()/chat` by default.
    """
    with suppress(OSError, ValueError, LookupError, UnusableAnswerError):
        return parse(json.loads(_answer_file(question, folder).read_text(encoding="utf-8"))["answer"])
    return None


def keep_answer(question: Any, text: str, note: dict[str, Any], folder: Path | None = None) -> None:
    """Keep the text of an answer on disk.

    Args:
        question, folder: see `kept_answer`.
        text: the answer.
        note: kept next to it.
    """
    write_atomic(_answer_file(question, folder), json.dumps({**note, "answer": text}, ensure_ascii=False))


def _answer_file(question: Any, folder: Path | None) -> Path:
    digest = sha256_of_json(question)
    return (folder or cache_dir() / "chat") / digest[:2] / f"{digest}.json"


def _is_count(count: object) -> bool:
    """Whether a server's number of tokens is possible."""
    return type(count) is int and 0 <= count <= MAX_TOKENS
