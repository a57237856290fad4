"""Choose the winner on dev: the best candidate that beats its own parts and keeps the limits.

Against the base model, a higher mean is enough. Against the parts that a candidate is made of, one standard error is
needed, because the parts are cheaper and dev often cannot distinguish them. One standard error against the base model
too keeps an untrained model on small dev sets where training helps: see `experiments/choice_margin.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from embedlab.errors import ParameterError
from embedlab.tuning.candidate import Candidate


@dataclass(frozen=True)
class Choice:
    """The winner, and why others did not win.

    Attributes:
        winner: the chosen candidate.
        why_not: name of a candidate -> reason. One that breaks a limit may be here although it is not better.
    """

    winner: Candidate
    why_not: Mapping[str, str] = field(default_factory=dict)


def lead(candidate: Candidate, part: Candidate) -> tuple[float, float]:
    """Return the mean difference on dev, candidate minus part, and its standard error over queries.

    The error is infinite with fewer than two queries.
    """
    return mean_and_error(candidate.values - part.values)


def mean_and_error(differences: np.ndarray) -> tuple[float, float]:
    """Return the mean of differences per query (Q,), without NaN, and its standard error; see `lead`."""
    known = differences[~np.isnan(differences)]
    if len(known) < 2:
        return (float(known.mean()) if len(known) else 0.0), float("inf")
    return float(known.mean()), float(known.std(ddof=1) / np.sqrt(len(known)))


def not_better(candidate: Candidate, by_name: Mapping[str, Candidate], base: str) -> str:
    """Say which part a candidate does not beat; empty if it beats all of them.

    Among trained models this is the one-standard-error rule of Breiman et al., Classification and Regression Trees,
    1984: between models that dev cannot distinguish, take the simpler one.

    Args:
        candidate: the candidate.
        by_name: the candidates that count as parts; one that breaks a limit does not.
        base: name of the base model.
    """
    for name in candidate.parts:
        if name not in by_name:
            continue
        mean, error = lead(candidate, by_name[name])
        if name == base and not np.isfinite(error):
            return f"{mean:+.4f} against {name} on one dev query, which shows nothing"
        if name == base and not mean > 0:
            return f"{mean:+.4f} against {name}"
        if name != base and not mean > error:
            return f"{mean:+.4f} against {name}, which is simpler; the standard error is {error:.4f}"
    return ""


def choose(candidates: Sequence[Candidate], broken_limit: Callable[[Candidate], str]) -> Choice:
    """Choose the candidate with the best mean on dev among those that beat their parts and keep the limits.

    See `not_better` for what a candidate must beat, and by how much. A part that breaks a limit cannot be used, so
    nothing has to beat it: a fast model may be worse than a base model that is too slow.

    Args:
        candidates: simple ones first; the first of equal ones wins. The first is the base model.
        broken_limit: says which limit a candidate breaks; empty if none. It is called for the best candidates only,
            because it may need the model itself.

    Raises:
        ParameterError: every candidate breaks a limit.
    """
    broken: dict[str, str] = {}  # name -> limit
    ranked = sorted(candidates, key=lambda candidate: -candidate.score)
    while usable := {candidate.name: candidate for candidate in ranked if candidate.name not in broken}:
        why_not = dict(broken)
        for candidate in usable.values():  # one without usable parts always ends this
            if not (reason := not_better(candidate, usable, candidates[0].name)):
                break
            why_not[candidate.name] = reason
        if not (limit := broken_limit(candidate)):
            return Choice(candidate, why_not)
        broken[candidate.name] = limit
    reasons = "; ".join(f"{name}: {limit}" for name, limit in broken.items())
    problem = f"no candidate keeps the limits ({reasons})"
    raise ParameterError(problem, remedy="Relax max_forgetting, min_speed or max_bytes, or give more minutes")
