"""Choose the winner on dev: the best candidate that beats its own parts and keeps the limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from embedlab.errors import ParameterError
from embedlab.tuning.candidate import Candidate


@dataclass(frozen=True)
class Choice:
    """The winner, and why better candidates on dev did not win.

    Attributes:
        winner: the chosen candidate.
        why_not: name of a candidate -> reason.
    """

    winner: Candidate
    why_not: Mapping[str, str] = field(default_factory=dict)


def lead(candidate: Candidate, part: Candidate) -> tuple[float, float]:
    """Return the mean difference on dev, candidate minus part, and its standard error over queries.

    The error is infinite with fewer than two queries.
    """
    differences = candidate.values - part.values
    known = differences[~np.isnan(differences)]
    if len(known) < 2:
        return (float(known.mean()) if len(known) else 0.0), float("inf")
    return float(known.mean()), float(known.std(ddof=1) / np.sqrt(len(known)))


def not_better(candidate: Candidate, by_name: Mapping[str, Candidate]) -> str:
    """Say which part a candidate does not beat by more than one standard error; empty if it beats all of them.

    This is the one-standard-error rule of Breiman et al., Classification and Regression Trees, 1984: between models
    that dev cannot distinguish, take the simpler one.
    """
    for name in candidate.parts:
        if name in by_name:
            mean, error = lead(candidate, by_name[name])
            if not mean > error:
                return f"{mean:+.4f} against {name}, which is simpler; the standard error is {error:.4f}"
    return ""


def choose(candidates: Sequence[Candidate], broken_limit: Callable[[Candidate], str]) -> Choice:
    """Choose the candidate with the best mean on dev among those that beat their parts and keep the limits.

    Args:
        candidates: simple ones first; the first of equal ones wins. The first is the base model.
        broken_limit: says which limit a candidate breaks; empty if none. It is called for the best candidates only,
            because it may need the model itself.

    Raises:
        ParameterError: every candidate breaks a limit.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    why_not: dict[str, str] = {}
    for candidate in sorted(candidates, key=lambda candidate: -candidate.score):
        reason = not_better(candidate, by_name) or broken_limit(candidate)
        if not reason:
            return Choice(candidate, why_not)
        why_not[candidate.name] = reason
    reasons = "; ".join(f"{name}: {reason}" for name, reason in why_not.items())
    problem = f"no candidate keeps the limits ({reasons})"
    raise ParameterError(problem, remedy="Relax max_forgetting, min_speed or max_bytes, or give more minutes")
