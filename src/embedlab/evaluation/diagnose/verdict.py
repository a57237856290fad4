"""What to do next: a rule from evidence to one action, with its expected gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from embedlab.data.load import MIN_TRAIN_PAIRS
from embedlab.evaluation.significance import NAN, Interval, PairedDifference, holm
from embedlab.params import Count, PositiveFloat, Share

# What each kind of remedy is called as advice, from the cheapest to build and run to the costliest.
ACTIONS = {
    "prompts": "change the prompts",
    "bm25": "use BM25",
    "hybrid": "use hybrid",
    "chunking": "fix chunking",
    "filter": "filter by metadata",
    "model": "pick model",
    "reranker": "add a reranker",
    "fine-tune": "fine-tune",
}
MORE_DATA = "more data first"
GOOD_ENOUGH = "nothing: good enough"
NOTHING_GAINS = "nothing: no remedy gains"
UNTRIED = "a fine-tune was not tried in small: no training pair's document is among those searched"


class Thresholds(BaseModel):
    """The numbers in the rule.

    Attributes:
        good_enough: mean of the metric from which the base model needs no help.
        min_queries: test queries with an answer below which no difference can be trusted.
        min_gain: smallest mean gain in the metric worth building anything for.
        costlier: how much more than a cheaper remedy a costlier one must gain on dev.
        alpha: level of significance, after Holm's correction over all remedies tried.
        min_train_pairs: training pairs below which a fine-tune has too little to learn from.
        max_ambiguous: share of the misses that no model can mend, above which judgements come first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    good_enough: Share = 0.85
    min_queries: Count = 50
    min_gain: PositiveFloat = 0.01
    costlier: PositiveFloat = 0.01
    alpha: Share = 0.05
    min_train_pairs: Count = MIN_TRAIN_PAIRS
    max_ambiguous: Share = 0.5


@dataclass(frozen=True)
class Finding:
    """What one remedy brought.

    Attributes:
        kind: a key of `ACTIONS`.
        setting: what was chosen on dev, e.g. "score fusion, weight 0.6".
        dev_gain: mean gain over the base model on dev, with that setting.
        gain: paired difference from the base model on test.
        detectable: the smallest true gain that as many queries would mostly show, see
            `significance.minimum_detectable_effect`; NaN where that is not known.
    """

    kind: str
    setting: str
    dev_gain: float
    gain: PairedDifference
    detectable: float = NAN


@dataclass(frozen=True)
class Evidence:
    """All that the rule looks at.

    Attributes:
        base: the base model's metric on test.
        findings: one per remedy tried.
        train_pairs: pairs to train on.
        causes: cause -> missed test queries.
        sampled: whether only a sample of the documents was searched, which flatters every value.
    """

    base: Interval
    findings: Sequence[Finding]
    train_pairs: int
    causes: Mapping[str, int]
    sampled: bool = False


@dataclass(frozen=True)
class Verdict:
    """What to do, and why.

    Attributes:
        action: a value of `ACTIONS` (with the model's name for "pick model"), `MORE_DATA`, `GOOD_ENOUGH` or
            `NOTHING_GAINS`.
        setting: how, as chosen on dev; empty where there is nothing to set.
        expected: the gain to expect, measured on test; None where none was measured.
        reasons: the evidence in sentences, the deciding one first.
        afterwards: what else works, best first.
    """

    action: str
    setting: str
    expected: PairedDifference | None
    reasons: tuple[str, ...]
    afterwards: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"Verdict: {self.action}" + (f" ({self.setting})" if self.setting else "")]
        if self.expected is not None:
            lines.append(f"Expected gain: {_gain(self.expected)}")
        return "\n".join(lines + [f"- {reason}" for reason in self.reasons])


def decide(evidence: Evidence, thresholds: Thresholds | None = None) -> Verdict:
    """The first of these that applies:

    1. Fewer than `min_queries` test queries with an answer: more data first; nothing measured can be trusted.
    2. The base model reaches `good_enough` among all documents, not in a sample of them: nothing.
    3. Some remedies work, that is, their gain on test is at least `min_gain` and significant after Holm's correction:
       the one to take is found by going from the cheapest to the costliest and moving on only where dev shows at least
       `costlier` more. Dev chooses and test only confirms, so that the expected gain is not the best of many tries.
    4. Of the misses, more than `max_ambiguous` are ambiguous: more data first, namely judgements.
    5. Fewer than `min_train_pairs` training pairs: more data first.
    6. A fine-tune was tried in small (the probe) and even the upper end of its gain is below `min_gain`: nothing.
    7. Fine-tune: it is what is left to try, and its gain is not established.
    """
    thresholds = thresholds or Thresholds()
    for rule in (_too_few_queries, _good_enough, _climb):
        if verdict := rule(evidence, thresholds):
            return verdict
    return _without_remedy(evidence, thresholds)


def _too_few_queries(evidence: Evidence, thresholds: Thresholds) -> Verdict | None:
    if evidence.base.n >= thresholds.min_queries:
        return None
    reason = (
        f"{evidence.base.n} test queries have an answer; below {thresholds.min_queries} no difference can be trusted"
    )
    return Verdict(MORE_DATA, "test queries", None, (reason,))


def _good_enough(evidence: Evidence, thresholds: Thresholds) -> Verdict | None:
    if evidence.sampled or evidence.base.mean < thresholds.good_enough:
        return None
    reason = f"the base model reaches {evidence.base.mean:.3f}, and {thresholds.good_enough} was set as good enough"
    working = _working(evidence.findings, thresholds)
    others = [f"{advice(finding)} would still gain {_gain(finding.gain)}" for finding in working]
    return Verdict(GOOD_ENOUGH, "", None, (reason, *others), tuple(map(advice, working)))


def _working(findings: Sequence[Finding], thresholds: Thresholds) -> list[Finding]:
    """The remedies that work, cheapest first."""
    adjusted = holm([finding.gain.p_value for finding in findings])
    works = [
        finding
        for finding, p in zip(findings, adjusted, strict=True)
        if finding.gain.mean >= thresholds.min_gain and p < thresholds.alpha
    ]
    return sorted(works, key=lambda finding: list(ACTIONS).index(finding.kind))


def _climb(evidence: Evidence, thresholds: Thresholds) -> Verdict | None:
    chosen, working = None, _working(evidence.findings, thresholds)
    for finding in working:
        if chosen is None or finding.dev_gain >= chosen.dev_gain + thresholds.costlier:
            chosen = finding
    if chosen is None:
        return None
    others = sorted((f for f in working if f is not chosen), key=lambda f: -f.gain.mean)
    reasons = [f"{advice(chosen)} gains {_gain(chosen.gain)} on {chosen.gain.n} test queries"]
    reasons += [f"{advice(f)} works as well: {_gain(f.gain)}" for f in others]
    reasons += [_misses(evidence)] if sum(evidence.causes.values()) else []
    reasons += [UNTRIED] if _fine_tune(evidence) is None and evidence.train_pairs >= thresholds.min_train_pairs else []
    return Verdict(advice(chosen), chosen.setting, chosen.gain, tuple(reasons), tuple(map(advice, others)))


def _without_remedy(evidence: Evidence, thresholds: Thresholds) -> Verdict:
    tried = f"none of {len(evidence.findings)} remedies gains {thresholds.min_gain} significantly"
    if seen := [finding.detectable for finding in evidence.findings if np.isfinite(finding.detectable)]:
        tried += f"; most gains of {max(seen):.3f} or more would have shown on these queries"
    missed, ambiguous = sum(evidence.causes.values()), evidence.causes.get("ambiguous", 0)
    if missed and ambiguous / missed > thresholds.max_ambiguous:
        return Verdict(MORE_DATA, "judgements", None, (f"{ambiguous} of {missed} misses are ambiguous", tried))
    if evidence.train_pairs < thresholds.min_train_pairs:
        reason = f"{evidence.train_pairs:,} training pairs are too few to fine-tune ({thresholds.min_train_pairs:,})"
        return Verdict(MORE_DATA, "training pairs", None, (reason, tried))
    probe = _fine_tune(evidence)
    if probe is not None and probe.gain.high < thresholds.min_gain:
        reason = f"a fine-tune tried in small gains {_gain(probe.gain)}, at best less than {thresholds.min_gain}"
        return Verdict(NOTHING_GAINS, "", None, (reason, tried))
    expected = probe.gain if probe is not None and np.isfinite(probe.gain.mean) else None
    reason = f"{evidence.train_pairs:,} training pairs are there; the gain is not established"
    return Verdict(ACTIONS["fine-tune"], "", expected, (tried, reason))


def _fine_tune(evidence: Evidence) -> Finding | None:
    """The one tried in small."""
    return next((finding for finding in evidence.findings if finding.kind == "fine-tune"), None)


def advice(finding: Finding) -> str:
    """The finding as advice, with the model's name where it is about one."""
    return f"{ACTIONS[finding.kind]} {finding.setting}" if finding.kind == "model" else ACTIONS[finding.kind]


def _gain(difference: PairedDifference) -> str:
    interval = f"[{difference.low:+.3f}, {difference.high:+.3f}]"
    relative = f", {difference.relative:+.1%}" if np.isfinite(difference.relative) else ""
    return f"{difference.mean:+.3f} {interval}{relative}"


def _misses(evidence: Evidence) -> str:
    largest = sorted(evidence.causes.items(), key=lambda item: -item[1])[:3]
    parts = ", ".join(f"{name} {count}" for name, count in largest if count)
    return f"{sum(evidence.causes.values())} queries miss: {parts}"
