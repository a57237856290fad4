"""What calls of an API cost, and how fast they may follow each other.

Money and rates are counted for the whole process: several models, and copies of one, share them.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from embedlab.errors import ModelError

PRICE_VARIABLE = "EMBEDLAB_API_PRICE"  # per million tokens, in the currency of the budget
BUDGET_VARIABLE = "EMBEDLAB_API_BUDGET"  # of one process
BYTES_PER_TOKEN = 3  # English has 4 bytes per token, Chinese 3: the estimate is rather too high than too low
MILLION = 1_000_000
_lock = threading.Lock()


def estimated_tokens(texts: Iterable[str]) -> int:
    """Estimate the tokens of texts as a third of their bytes in UTF-8, at least one per text.

    >>> estimated_tokens(["fracture", ""])
    4
    """
    return sum(max(1, math.ceil(len(text.encode()) / BYTES_PER_TOKEN)) for text in texts)


@dataclass
class Spending:
    """What this process has sent to APIs.

    Attributes:
        requests: answered requests.
        texts: texts with a vector from an API.
        tokens: tokens of all requests that may have been billed: as the servers count them, estimated where a server
            counts nothing, or what cannot be, or did not answer.
        cost: tokens times prices; models without a price cost nothing here.
    """

    requests: int = 0
    texts: int = 0
    tokens: int = 0
    cost: float = 0.0

    def add(self, tokens: int, price: float, *, texts: int = 0, requests: int = 0) -> None:
        """Count tokens at a price per million; negative tokens take an estimate back."""
        with _lock:
            self.tokens += tokens
            self.cost = max(0.0, self.cost + tokens * price / MILLION)
            self.texts += texts
            self.requests += requests


SPENT = Spending()


@dataclass(frozen=True)
class Price:
    """Price and budget of one model.

    Attributes:
        per_million: price of a million tokens; None if nobody has said it.
        budget: the most that this process may spend on APIs; None for no limit.
        spent: where the money is counted.

    Raises:
        ModelError: there is a budget and no price.
    """

    per_million: float | None = None
    budget: float | None = None
    spent: Spending = field(default_factory=lambda: SPENT, repr=False, compare=False)

    @classmethod
    def given(cls, price: float | None, budget: float | None) -> Price:
        """Create from options, or from the environment where an option is missing.

        Raises:
            ModelError: a variable does not hold a number, or there is a budget without a price.
        """
        price = _from_environment(PRICE_VARIABLE) if price is None else price
        budget = _from_environment(BUDGET_VARIABLE) if budget is None else budget
        if budget is not None and price is None:
            remedy = f"Set price=… per million tokens in the model's name, or {PRICE_VARIABLE}"
            raise ModelError("there is a budget for API calls, but no price", remedy=remedy, field="model_name")
        return cls(price, budget)

    def cost(self, tokens: int) -> float | None:
        """Return the cost of tokens; None without a price."""
        return None if self.per_million is None else tokens * self.per_million / MILLION

    def require(self, tokens: int, what: str) -> None:
        """Check that the budget pays for tokens that are about to be sent.

        Args:
            tokens: estimated.
            what: is sent, for the message.

        Raises:
            ModelError: with these tokens, the process would have spent more than its budget.
        """
        cost = self.cost(tokens)
        if cost is None or self.budget is None or self.spent.cost + cost <= self.budget:
            return
        problem = (
            f"{what} would cost about {cost:.4g}, {self.spent.cost:.4g} are spent, "
            f"and the budget is {self.budget:.4g}, so they were not sent"
        )
        remedy = f"Use fewer texts, or a larger budget (option budget=…, or {BUDGET_VARIABLE}); cached vectors stay"
        raise ModelError(problem, remedy=remedy, field="model_name")

    def count(self, tokens: int, *, texts: int = 0, requests: int = 0) -> None:
        """Count tokens as spent."""
        self.spent.add(tokens, self.per_million or 0.0, texts=texts, requests=requests)


def _from_environment(name: str) -> float | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (number >= 0 and math.isfinite(number)):
        raise ModelError(f"{name} must be a number of 0 or more", remedy=f"For example {name}=0.02", field="model_name")
    return number


class Pace:
    """Spaces requests so that a minute holds at most so many requests and tokens.

    Args:
        requests_per_minute, tokens_per_minute: None for no limit.
        sleep: how to wait.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_seconds = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._sleep, self._clock = sleep, clock
        self._next = -math.inf
        self._lock = threading.Lock()

    def wait(self, tokens: int) -> None:
        """Wait until a request of so many tokens may be sent."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next)
            self._next = start + max(self._seconds, tokens * self._token_seconds)
        if start > now:
            self._sleep(start - now)
