"""Prompts that ask a language model for queries: what kind of query, by whom, in whose style.

InPars (Bonifacio et al. 2022) and Promptagator (Dai et al. 2022) prompt with a few examples of the task; a persona
and a level of difficulty vary the queries, as in Persona Hub (Ge et al. 2024) and E5-mistral (Wang et al. 2024).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from embedlab.data.chat import UnusableAnswerError
from embedlab.data.text_analysis import normalise
from embedlab.errors import ParameterError

TASKS = {
    "question": "Write {count} different questions that this document answers.",
    "keywords": "Write {count} different keyword queries of two to five words, as people type them into a search box.",
    "persona": "Write {count} different queries that {persona} would type to find this document.",
    "difficulty": "Write {count} different queries that this document answers. {difficulty}",
    "two-hop": "Write {count} different questions that need both documents: neither of them answers alone.",
}
PERSONAS = (
    *("a beginner who does not know the technical terms", "an expert in a hurry", "a customer who describes a problem"),
    *("a student who prepares for an exam", "a support agent", "someone who is not a native speaker"),
)
DIFFICULTIES = (
    "Make them easy: use words of the document.",
    "Make them harder: use other words than the document.",
    "Make them hard: describe a situation in which the document helps, without its terms.",
)
RULES = (
    'Vary length and wording. Never mention "the document" or "the text". '
    "Answer with a JSON array of {count} strings and nothing else."
)
MAX_EXAMPLES = 5
# For models without instruction tuning, which continue a pattern; in use when the user gives no examples.
SHOTS = (
    ("The seal ring of a pump wears out after two years. Replace it when water drips.", "why does my pump leak"),
    (
        "Employees receive 30 days of paid leave per year. Unused days expire in March.",
        "how long can i keep vacation days",
    ),
    (
        "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
        "what do plants make out of sunlight",
    ),
)

_SELF_REFERENCE = re.compile(r"\b(this|the|these|both|above|given|provided) (document|text|passage|article)s?\b", re.I)


class Shot(NamedTuple):
    """A real query, and the document that answers it if it is known."""

    query: str
    document: str = ""


@dataclass(frozen=True)
class Template:
    """How to ask for queries.

    Attributes:
        name: a key of `TASKS`.
        seed: chooses persona, difficulty and examples, which differ between documents.
        shots: real queries whose style is to be followed.
    """

    name: str
    seed: int = 0
    shots: tuple[Shot, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in TASKS:
            problem = f"unknown template '{self.name}'"
            raise ParameterError(problem, remedy=f"Choose from {', '.join(TASKS)}", field="templates")

    def instruction(self, key: str, text: str, count: int, second: str = "") -> str:
        """Return the prompt for a model that follows instructions.

        Args:
            key: id of the document.
            text: its text.
            count: number of queries.
            second: text of the second document, for `two-hop`.
        """
        task = TASKS[self.name].replace("{persona}", _choice(PERSONAS, self.seed, key))
        task = task.replace("{difficulty}", _choice(DIFFICULTIES, self.seed, key))
        examples = [shot.query for shot in self._chosen(key)]
        style = ["Write in the style of these real queries:", *(f"- {query}" for query in examples)] if examples else []
        lines = ["You write search queries.", task, *style, RULES]
        documents = f"First document:\n{text}\n\nSecond document:\n{second}" if second else f"Document:\n{text}"
        # The texts come last, so that nothing in them is taken for a placeholder.
        return "\n".join(lines).replace("{count}", str(count)) + f"\n\n{documents}"

    def continuation(self, key: str, text: str) -> str:
        """Return the prompt for a model that only continues a text: documents with their queries, the last one open.

        Args:
            key: id of the document.
            text: its text.
        """
        shots = [shot for shot in self._chosen(key) if shot.document] or [Shot(query, text) for text, query in SHOTS]
        patterns = [f"Document: {' '.join(shot.document.split())}\nQuery: {shot.query}\n" for shot in shots]
        return "\n".join([*patterns, f"Document: {' '.join(text.split())}\nQuery:"])

    def _chosen(self, key: str) -> Sequence[Shot]:
        if len(self.shots) <= MAX_EXAMPLES:
            return self.shots  # in one order for all documents: `models.causal` reads what prompts share only once
        return sorted(self.shots, key=lambda shot: _digest(self.seed, key, shot.query))[:MAX_EXAMPLES]


def _digest(*values: object) -> bytes:
    return hashlib.sha256(":".join(map(str, values)).encode()).digest()


def _choice(options: Sequence[str], seed: int, key: str) -> str:
    return options[int.from_bytes(_digest(seed, key)[:4], "big") % len(options)]


def check_query(query: str, text: str) -> None:
    """Check that a query could come from somebody who does not have the document.

    Raises:
        UnusableAnswerError: it speaks of "the document", or it is a copy of the document.
    """
    if _SELF_REFERENCE.search(query):
        raise UnusableAnswerError(f"a query mentions its document: {query[:80]!r}")
    if normalise(query) == normalise(text):
        raise UnusableAnswerError("a query is a copy of its document")
