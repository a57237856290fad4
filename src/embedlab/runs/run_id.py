"""Run ids: `<notebook>-<8 hex digits>-s<seed>`, parsed and found in text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from embedlab.errors import ParameterError

_PATTERN = r"(?P<notebook>\w+)-(?P<digest>[0-9a-f]{8})-s(?P<seed>-?\d+)"
_WHOLE = re.compile(_PATTERN)
_IN_TEXT = re.compile(rf"(?<![\w-]){_PATTERN}(?!\w)")


@dataclass(frozen=True, order=True)
class RunId:
    """The id of a run.

    Attributes:
        notebook: the stem of the notebook, e.g. "03_contrastive".
        digest: 8 hex digits that cover the notebook's code, its parameters without the seed, and the data.
        seed: may be negative.
    """

    notebook: str
    digest: str
    seed: int

    def __str__(self) -> str:
        return f"{self.notebook}-{self.digest}-s{self.seed}"

    @property
    def topic(self) -> str:
        """The notebook's name without its number: "contrastive" for 03_contrastive and 04_contrastive."""
        return topic_of(self.notebook)

    @classmethod
    def parse(cls, text: str) -> RunId:
        """The run id that `text` is.

        Raises:
            ParameterError: `text` is not a run id.
        """
        match = _WHOLE.fullmatch(text)
        if match is None:
            remedy = "A run id is a notebook, 8 hex digits and a seed, for example 03_contrastive-f492a1d4-s0"
            raise ParameterError(f"{text!r} is not a run id", remedy=remedy)
        return cls(match["notebook"], match["digest"], int(match["seed"]))

    @classmethod
    def find_all(cls, text: str) -> list[RunId]:
        """Every run id in a text, in order; paths such as results/runs/ID/model contain one."""
        matches = _IN_TEXT.finditer(text)
        return [cls(match["notebook"], match["digest"], int(match["seed"])) for match in matches]


def topic_of(notebook: str) -> str:
    """The stem of a notebook without its number; notebooks are renumbered, their topics stay."""
    return re.sub(r"^\d+_", "", notebook)


def without_seeds(text: str) -> str:
    """Remove the seed of every run id in a text, so that runs that differ only in their seeds read the same."""
    return _IN_TEXT.sub(lambda match: f"{match['notebook']}-{match['digest']}", text)
