"""Queries written by a language model: what would somebody ask whom this document answers?

One call per document, its answer checked and kept; a document the model fails on is reported and left out. (InPars,
Bonifacio et al. 2022; Promptagator, Dai et al. 2022.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated

from pydantic import StringConstraints, TypeAdapter, ValidationError

from embedlab import progress
from embedlab.data.chat import Chat, ChatError, UnusableAnswerError
from embedlab.data.overlap import normalise
from embedlab.data.synthetic import SyntheticQuery
from embedlab.errors import ParameterError

PROMPT = """Below is a document of a search engine. Write {count} different queries that users would type to find it.
Vary length and wording, use other words than the document where users would, and never mention "the document".
Answer with a JSON array of {count} strings and nothing else.

Document:
{document}"""
MAX_LENGTH = 300  # characters of a query; more is an essay
FAILURES_IN_A_ROW = 10  # after so many the endpoint, not the documents, is at fault

_FENCE = re.compile(r"^```\w*\s*|\s*```$")

Queries = TypeAdapter(list[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]])


@dataclass
class Generation:
    """What came of asking.

    Attributes:
        queries: all queries, in the order of the documents.
        failed: document id -> why it has no queries.
        cost: dollars of this generation, None where unknown; answers from disk are free.
        complete: False when the budget ran out before the last document.
    """

    queries: list[SyntheticQuery] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    cost: float | None = None
    complete: bool = True


def generate_queries(
    documents: Mapping[str, str],
    chat: Chat,
    *,
    count: int = 3,
    prompt: str = PROMPT,
    workers: int = 1,
    budget: float | None = None,
) -> Generation:
    """Ask `chat` for `count` queries per document.

    Args:
        documents: document id -> text; cut long ones into chunks first.
        chat: the model.
        count: queries per document.
        prompt: has the places {count} and {document}.
        workers: documents asked about at a time.
        budget: dollars after which no more is asked.

    Raises:
        ParameterError: the prompt lacks a place, or a budget is set and the chat has no prices.
        ChatError: the endpoint rejects what is asked, or fails on many documents in a row.
    """
    _check(prompt, chat, budget)
    result, in_a_row = Generation(), 0
    answers = progress.track(_answers(documents, chat, count, prompt, workers), "synthetic queries", len(documents))
    for step, (document, answer) in enumerate(answers, start=1):
        if isinstance(answer, list):
            result.queries += [SyntheticQuery(text, document, "llm") for text in answer]
            in_a_row = 0
        else:
            result.failed[document] = str(answer)
            in_a_row += 1
        result.cost = chat.cost
        progress.report("synthetic queries", step, len(documents), cost=chat.cost, failed=len(result.failed))
        if in_a_row == FAILURES_IN_A_ROW:
            remedy = "Look at the endpoint's own log and run again: what was answered is kept."
            raise ChatError(f"{in_a_row} documents in a row without an answer ({answer})", remedy=remedy)
        if budget is not None and chat.cost is not None and chat.cost >= budget and step < len(documents):
            result.complete = False
            break
    return result


def parse_queries(text: str, count: int) -> list[str]:
    """`count` different queries out of a JSON array of strings, which may stand in a code fence.

    Raises:
        UnusableAnswerError: it is something else.
    """
    try:
        queries = Queries.validate_python(json.loads(_FENCE.sub("", text.strip())))
    except (ValueError, ValidationError) as error:
        raise UnusableAnswerError(f"no JSON array of strings: {text[:80]!r}") from error
    if len({normalise(query) for query in queries}) != count or len(queries) != count:
        raise UnusableAnswerError(f"{len(queries)} queries, not {count} different ones")
    if too_long := next((query for query in queries if len(query) > MAX_LENGTH), None):
        raise UnusableAnswerError(f"a query of {len(too_long)} characters")
    return queries


def _check(prompt: str, chat: Chat, budget: float | None) -> None:
    if missing := [place for place in ("{count}", "{document}") if place not in prompt]:
        raise ParameterError(f"the prompt lacks {missing[0]}", remedy="Put it where it belongs.", field="prompt")
    if budget is not None and chat.price_per_million is None:
        remedy = "Give the chat its price_per_million."
        raise ParameterError("a budget without prices", remedy=remedy, field="budget")


def _answers(
    documents: Mapping[str, str], chat: Chat, count: int, prompt: str, workers: int
) -> Iterator[tuple[str, list[str] | UnusableAnswerError]]:
    """Document id and its queries, or why there are none, in the order of `documents`."""

    def ask(text: str) -> list[str] | UnusableAnswerError:
        # Not str.format: documents and prompts may hold braces of their own.
        question = prompt.replace("{count}", str(count)).replace("{document}", text)
        try:
            return chat.ask(question, lambda answer: parse_queries(answer, count))
        except UnusableAnswerError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        # A round at a time: nothing is asked, and paid for, that a caller who stops here would not have wanted.
        waiting = iter(documents.items())
        while round_ := list(islice(waiting, workers)):
            yield from zip([key for key, _ in round_], pool.map(ask, [text for _, text in round_]), strict=True)
