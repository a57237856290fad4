"""Generate queries for documents with a language model.

One call per document; answers are validated and cached. Documents for which the model fails are reported and left out.
Method: InPars (Bonifacio et al. 2022) and Promptagator (Dai et al. 2022).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Protocol, TypeVar, runtime_checkable

from pydantic import StringConstraints, TypeAdapter, ValidationError

from embedlab import progress
from embedlab.data.chat import BudgetUsedUpError, Chat, ChatError, UnusableAnswerError
from embedlab.data.synthetic import SyntheticQuery
from embedlab.data.synthetic_templates import check_query
from embedlab.data.text_analysis import normalise
from embedlab.errors import ParameterError
from embedlab.escaping import INVISIBLE, is_control
from embedlab.http import parse_json

PROMPT = """Below is a document of a search engine. Write {count} different queries that users would type to find it.
Vary length and wording, use other words than the document where users would, and never mention "the document".
Answer with a JSON array of {count} strings and nothing else.

Document:
{document}"""
MAX_LENGTH = 300  # characters of a query; longer texts are not queries
FAILURES_IN_A_ROW = 10  # after this many, the problem is the endpoint and not the documents

_FENCE = re.compile(r"^```\w*\s*|\s*```$")

Answer = TypeVar("Answer")
Question = tuple[str, Callable[[str], Answer]]  # a prompt, and how its answer is parsed
Prompt = Callable[[str, str], str]  # of a document's id and text
Queries = TypeAdapter(list[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]])


class LanguageModel(Protocol):
    """What writes the queries: `chat.Chat`, or a model in this process."""

    model: str
    price_per_million: tuple[float, float] | None

    @property
    def cost(self) -> float | None:
        """Dollars spent so far; None if unknown."""

    def ask(self, prompt: str, parse: Callable[[str], Answer]) -> Answer:
        """Return the parsed answer to a prompt; see `Chat.ask`."""


@runtime_checkable
class BatchModel(Protocol):
    """A language model that answers several prompts together, such as `models.causal.CausalModel`."""

    batch_size: int

    def ask_all(self, questions: Sequence[Question[Answer]]) -> list[Answer | UnusableAnswerError]:
        """Return an answer to each question, or the reason why there is none."""


@dataclass
class Generation:
    """The result of `generate_queries`.

    Attributes:
        queries: all queries, in the order of the documents.
        failed: document id -> reason why it has no queries.
        cost: cost in dollars, None if prices are unknown; cached answers are free.
        complete: False if the budget was used up before the last document.
    """

    queries: list[SyntheticQuery] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    cost: float | None = None
    complete: bool = True


def generate_queries(
    documents: Mapping[str, str],
    chat: LanguageModel,
    *,
    count: int = 3,
    prompt: str | Prompt = PROMPT,
    kind: str = "llm",
    workers: int = 1,
    budget: float | None = None,
    keep: Callable[[str, list[str]], None] | None = None,
    exact: bool = True,
) -> Generation:
    """Generate queries for documents.

    Args:
        documents: document id -> text; split long documents into chunks first.
        chat: the language model.
        count: number of queries per document.
        prompt: a template with the placeholders {count} and {document}, or a function of a document's id and text.
        kind: the `kind` of the queries.
        workers: number of concurrent requests.
        budget: stop after spending this many dollars; see `keep_to_budget`.
        keep: called with each document and its queries as soon as they are there.
        exact: whether an answer must have `count` usable queries; otherwise one is enough, and the others are left out.

    Raises:
        ParameterError: a placeholder is missing, or a budget is set but the chat has no prices.
        ChatError: the endpoint rejects the requests, fails for many documents in a row, or does not report the token
            counts that a budget needs.
    """
    _prepare(prompt, chat, budget)
    result, in_a_row = Generation(), 0
    answers = progress.track(
        _answers(documents, chat, count, prompt, workers, exact), "synthetic queries", len(documents)
    )
    for step, (document, answer) in enumerate(answers, start=1):
        if isinstance(answer, list):
            result.queries += [SyntheticQuery(text, document, kind) for text in answer]
            in_a_row = 0
            if keep is not None:
                keep(document, answer)
        elif isinstance(answer, BudgetUsedUpError):
            result.complete = False
        else:
            result.failed[document] = str(answer)
            in_a_row += 1
        result.cost = chat.cost
        progress.report("synthetic queries", step, len(documents), cost=chat.cost, failed=len(result.failed))
        if in_a_row == FAILURES_IN_A_ROW:
            remedy = "Check the log of the endpoint and run again. Answers so far are cached."
            raise ChatError(f"no usable answer for {in_a_row} documents in a row (last: {answer})", remedy=remedy)
        if budget is not None and chat.cost is None:
            remedy = "Run again without a budget, or use a server that reports its usage. Answers so far are cached."
            raise ChatError("the endpoint reports no token counts, so the budget cannot be kept", remedy=remedy)
        if budget is not None and chat.cost is not None and chat.cost >= budget and step < len(documents):
            result.complete = False
            break
    return result


def keep_to_budget(model: LanguageModel, budget: float | None) -> None:
    """Let a model behind an address check the budget before each request, also before it asks again.

    Args:
        model: the language model.
        budget: the most dollars that it may spend in all; None changes nothing.
    """
    if budget is not None and isinstance(model, Chat):
        model.budget = budget


def parse_queries(text: str, count: int) -> list[str]:
    """Parse an answer: a JSON array of `count` different strings, with or without a code fence.

    Args:
        text: the answer of the language model.
        count: number of queries that were asked for.

    Returns:
        The queries.

    Raises:
        UnusableAnswerError: the answer is something else.
    """
    try:
        queries = [cleaned(query) for query in Queries.validate_python(parse_json(_FENCE.sub("", text.strip())))]
    except (ValueError, ValidationError):
        raise UnusableAnswerError(f"expected a JSON array of strings, got {text[:80]!r}") from None
    if len({normalise(query) for query in queries}) != count or len(queries) != count:
        raise UnusableAnswerError(f"expected {count} different queries, got {queries!r:.80}")
    if too_long := next((query for query in queries if len(query) > MAX_LENGTH), None):
        raise UnusableAnswerError(f"a query has {len(too_long)} characters, more than {MAX_LENGTH}")
    return queries


def usable_queries(text: str, document: str) -> list[str]:
    """Return the different queries of an answer that can be used; the others are left out.

    Args:
        text: the answer of the language model, a JSON array.
        document: the text of the document, which no query may copy.

    Raises:
        UnusableAnswerError: there is none, or the answer is something else.
    """
    try:
        answers = TypeAdapter(list[str]).validate_python(parse_json(text))
    except (ValueError, ValidationError):
        raise UnusableAnswerError(f"expected a JSON array of strings, got {text[:80]!r}") from None
    usable: dict[str, str] = {}
    reason = "the answer is empty"
    for answer in answers:
        try:
            (query,) = parse_queries(json.dumps([answer]), 1)
            check_query(query, document)
            usable.setdefault(normalise(query), query)
        except UnusableAnswerError as error:
            reason = str(error)
    if usable:
        return list(usable.values())
    raise UnusableAnswerError(reason)


def cleaned(query: str) -> str:
    """Return a query on one line, without invisible characters.

    Raises:
        UnusableAnswerError: it has control characters such as terminal sequences, it changes the direction of the text
            around it, or nothing visible remains.
    """
    text = " ".join("".join(character for character in query if character not in INVISIBLE).split())
    if refused := next((character for character in text if is_control(character)), None):
        raise UnusableAnswerError(f"a query has the control character {refused!r}")
    if not any(character.isalnum() for character in text):
        raise UnusableAnswerError(f"a query has no letters or digits: {query[:80]!r}")
    return text


def _prepare(prompt: str | Prompt, chat: LanguageModel, budget: float | None) -> None:
    """Check the prompt and the prices, and let the model keep to the budget."""
    if not isinstance(prompt, str):
        missing = []
    elif missing := [placeholder for placeholder in ("{count}", "{document}") if placeholder not in prompt]:
        remedy = f"Add {missing[0]} to the prompt."
        raise ParameterError(f"the prompt has no placeholder {missing[0]}", remedy=remedy, field="prompt")
    if budget is not None and chat.price_per_million is None:
        remedy = "Pass price_per_million to Chat, or remove the budget."
        raise ParameterError("a budget needs prices, but the chat has none", remedy=remedy, field="budget")
    keep_to_budget(chat, budget)


def _answers(
    documents: Mapping[str, str],
    chat: LanguageModel,
    count: int,
    prompt: str | Prompt,
    workers: int,
    exact: bool,
) -> Iterator[tuple[str, list[str] | UnusableAnswerError]]:
    """Document id and its queries, or the reason why there are none, in the order of `documents`."""

    def parse(answer: str, text: str) -> list[str]:
        queries = parse_queries(answer, count) if exact else usable_queries(answer, text)
        for query in queries:
            check_query(query, text)
        return queries

    def question(key: str, text: str) -> tuple[str, Callable[[str], list[str]]]:
        if isinstance(prompt, str):
            # `str.format` would fail on other braces in documents and prompts.
            filled = prompt.replace("{count}", str(count)).replace("{document}", text)
        else:
            filled = prompt(key, text)
        return filled, lambda answer: parse(answer, text)

    # One round of requests at a time, so that a caller who stops early does not pay for further requests.
    size = chat.batch_size if isinstance(chat, BatchModel) else workers
    waiting = iter(documents.items())
    with ThreadPoolExecutor(workers) as pool:
        while round_ := list(islice(waiting, size)):
            questions = [question(*item) for item in round_]
            yield from zip([key for key, _ in round_], _asked(chat, questions, pool), strict=True)


def _asked(
    chat: LanguageModel, questions: Sequence[Question[Answer]], pool: ThreadPoolExecutor
) -> Iterable[Answer | UnusableAnswerError]:
    """The answers to questions: together if the model takes batches, else at the same time."""
    if isinstance(chat, BatchModel):
        return chat.ask_all(questions)

    def ask(question: Question[Answer]) -> Answer | UnusableAnswerError:
        try:
            return chat.ask(*question)
        except UnusableAnswerError as error:
            return error

    return pool.map(ask, questions)
