"""Generated mutants that no test can kill, each with its reason, in `equivalent.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tests.mutants.generated import Mutant

LIST = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Rule:
    """Which survivors are equivalent, and why.

    Attributes:
        reason: why the behaviour is the same.
        before, after: regular expressions that fit the whole changed lines; `after` may refer to groups of `before`.
        module, function: where it holds; everywhere when empty.
    """

    reason: str
    before: str
    after: str
    module: str = ""
    function: str = ""

    def holds(self, mutant: Mutant) -> bool:
        """Whether the rule covers a mutant."""
        here = self.module in ("", mutant.module) and self.function in ("", mutant.function)
        change = f"{mutant.before} => {mutant.after}"
        return here and re.fullmatch(f"{self.before} => {self.after}", change, re.DOTALL) is not None


@cache
def rules() -> tuple[Rule, ...]:
    """Read the list."""
    return tuple(Rule(**entry) for entry in tomllib.loads(LIST.read_text())["rule"])


def marked(mutants: Iterable[Mutant]) -> Iterator[Mutant]:
    """Give survivors that a rule covers the status `equivalent`."""
    for mutant in mutants:
        survived = mutant.status in ("survived", "no tests")
        if survived and any(rule.holds(mutant) for rule in rules()):
            mutant = Mutant(**{**asdict(mutant), "status": "equivalent"})
        yield mutant
