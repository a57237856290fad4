"""Decide what to do next: rules that turn the evidence of a diagnosis into one action with its expected gain."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict

from embedlab.data.load import MIN_TRAIN_PAIRS
from embedlab.evaluation.significance import NAN, Interval, PairedDifference, holm
from embedlab.params import Count, PositiveFloat, Share

# Advice by kind of remedy, from the cheapest to build and run to the most expensive.
ACTIONS = {
    "centring": "centre the vectors",
    "prompts": "change the prompts",
    "enrichment": "enrich the documents",
    "bm25": "use BM25",
    "feedback": "use pseudo-relevance feedback",
    "hybrid": "use hybrid",
    "chunking": "fix chunking",
    "filter": "filter by metadata",
    "model": "pick model",
    "reranker": "add a reranker",
    "fine-tune": "fine-tune",
}
# Kind of remedy -> the function that applies it, for remedies without a command.
FUNCTIONS = {
    "centring": "models.adapter.with_adapter",
    "prompts": "models.encoders.Encoder.with_prompts",
    "enrichment": "evaluation.diagnose.enrichment.enrichments",
    "feedback": "search.feedback.with_feedback",
    "bm25": "bm25_ranking",
    "hybrid": "search.fusion.fuse_scores",
    "chunking": "evaluation.diagnose.chunking.rank_by_best_chunk",
    "filter": "evaluation.diagnose.filters.rank_among",
}
MORE_DATA = "more data first"
GOOD_ENOUGH = "nothing: good enough"
NOTHING_GAINS = "nothing: no remedy gains"
UNCHANGED = "the linear probe could not tell: no step was better on dev than the base model, so its gain is 0 by design"
UNTRIED = "the linear probe was skipped: no document of a training pair is among the documents searched"


class Thresholds(BaseModel):
    """The thresholds in the rules of `decide`.

    Attributes:
        good_enough: mean metric from which the base model is good enough.
        min_queries: minimum number of test queries with an answer.
        min_gain: smallest mean gain that is worth the effort.
        costlier: additional gain on dev that a more expensive remedy must have.
        alpha: significance level, after Holm's correction over all remedies.
        min_train_pairs: minimum number of training pairs for a fine-tune.
        max_ambiguous: maximum share of ambiguous misses; above it, better judgements come first.
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
class RemedyGain:
    """The measured gain of one remedy.

    Attributes:
        kind: a key of `ACTIONS`.
        setting: the setting chosen on dev, e.g. "score fusion, weight 0.6".
        dev_gain: mean gain over the base model on dev with this setting.
        gain: paired difference from the base model on test.
        detectable: the smallest true gain that so many queries would usually show, see
            `significance.minimum_detectable_effect`; NaN if unknown.
        unchanged: the remedy kept the base model as it is, so the gain is 0 whatever it could be.
    """

    kind: str
    setting: str
    dev_gain: float
    gain: PairedDifference
    detectable: float = NAN
    unchanged: bool = False


@dataclass(frozen=True)
class Evidence:
    """The input of the rules.

    Attributes:
        base: metric of the base model on test.
        findings: one per remedy tried.
        train_pairs: number of training pairs.
        causes: cause -> number of missed test queries.
        sampled: whether only a sample of the documents was searched, which raises every value.
        dataset, model: spec and name of what was diagnosed, for the next command.
    """

    base: Interval
    findings: Sequence[RemedyGain]
    train_pairs: int
    causes: Mapping[str, int]
    sampled: bool = False
    dataset: str = "DATASET"
    model: str = "MODEL"


@dataclass(frozen=True)
class Verdict:
    """What to do next, and why.

    Attributes:
        action: a value of `ACTIONS` (with the model's name for "pick model"), `MORE_DATA`, `GOOD_ENOUGH` or
            `NOTHING_GAINS`.
        setting: the setting chosen on dev; empty if there is none.
        expected: the gain measured on test; None if none was measured.
        reasons: the evidence in sentences, the most important first.
        afterwards: other remedies that work, best first.
        next_step: the command to run, or what to call.
    """

    action: str
    setting: str
    expected: PairedDifference | None
    reasons: tuple[str, ...]
    afterwards: tuple[str, ...] = ()
    next_step: str = ""

    def __str__(self) -> str:
        lines = [f"Verdict: {self.action}" + (f" ({self.setting})" if self.setting else "")]
        if self.expected is not None:
            lines.append(f"Expected gain: {_gain(self.expected)}")
        lines += [f"- {reason}" for reason in self.reasons]
        return "\n".join(lines + ([f"Next: {self.next_step}"] if self.next_step else []))


def decide(evidence: Evidence, thresholds: Thresholds | None = None) -> Verdict:
    """Apply the first rule that holds:

    1. Fewer than `min_queries` test queries have an answer: more data first, because no difference can be trusted.
    2. The base model reaches `good_enough` among all documents (not in a sample): do nothing.
    3. Some remedies work: their gain on test is at least `min_gain` and significant after Holm's correction. Start with
       the cheapest and move to a more expensive one only if it gains at least `costlier` more on dev. Dev chooses and
       test confirms, so the expected gain is not the best of many tries.
    4. More than `max_ambiguous` of the misses are ambiguous: more data first, namely judgements.
    5. There are fewer than `min_train_pairs` training pairs: more data first.
    6. The upper end of the linear probe's gain is below `min_gain`, and the probe changed the vectors: do nothing.
    7. Otherwise fine-tune; its gain is not established.

    Args:
        evidence: results of a diagnosis.
        thresholds: the thresholds in the rules; None uses the defaults.
    """
    thresholds = thresholds or Thresholds()
    verdict = (
        _too_few_queries(evidence, thresholds)
        or _good_enough(evidence, thresholds)
        or _cheapest_sufficient(evidence, thresholds)
        or _without_remedy(evidence, thresholds)
    )
    return replace(verdict, next_step=_next_step(verdict, evidence))


def _next_step(verdict: Verdict, evidence: Evidence) -> str:
    """The command that follows from a verdict, or the function to call."""
    dataset, model = shlex.quote(evidence.dataset), shlex.quote(evidence.model)
    notebook = f"-p {shlex.quote(f'dataset={evidence.dataset}')} -p {shlex.quote(f'model_name={evidence.model}')}"
    if verdict.action == MORE_DATA:
        steps = {
            "test queries": f"embedlab label next {dataset} --queries FILE (a table of more queries, to judge)",
            "judgements": f"embedlab label next {dataset} -m {model} (documents to judge)",
            "training pairs": f"embedlab run 02_data {notebook} (synthetic pairs and clicks)",
        }
        return steps[verdict.setting]
    pick_model = f"{ACTIONS['model']} "
    if verdict.action.startswith(pick_model):
        model = shlex.quote(verdict.action.removeprefix(pick_model))
    kind = next((kind for kind, action in ACTIONS.items() if action == verdict.action), "")
    run = {"fine-tune": "03_contrastive", "reranker": "07_reranker"}.get(kind)
    if run:
        return f"embedlab run {run} {notebook}"
    if kind in FUNCTIONS:
        return f"call embedlab.{FUNCTIONS[kind]} in your search; embedlab run 01_diagnose {notebook} records the result"
    return f"embedlab deploy index --dataset {dataset} --model {model}"


def _too_few_queries(evidence: Evidence, thresholds: Thresholds) -> Verdict | None:
    if evidence.base.n >= thresholds.min_queries:
        return None
    reason = (
        f"only {evidence.base.n} test queries have an answer; with fewer than {thresholds.min_queries} no difference "
        "can be trusted"
    )
    return Verdict(MORE_DATA, "test queries", None, (reason,))


def _good_enough(evidence: Evidence, thresholds: Thresholds) -> Verdict | None:
    if evidence.sampled or evidence.base.mean < thresholds.good_enough:
        return None
    reason = f"the base model reaches {evidence.base.mean:.3f}, at least good_enough ({thresholds.good_enough})"
    working = _working(evidence.findings, thresholds)
    other_reasons = [f"{advice(finding)} would still gain {_gain(finding.gain)}" for finding in working]
    untried = f"training may still gain; this measures it: embedlab tune {shlex.quote(evidence.dataset)} --minutes 30"
    untried_reasons = [untried] if evidence.train_pairs else []
    reasons = (reason, *other_reasons, *untried_reasons)
    return Verdict(GOOD_ENOUGH, "", None, reasons, tuple(map(advice, working)))


def _working(findings: Sequence[RemedyGain], thresholds: Thresholds) -> list[RemedyGain]:
    """Return the remedies that work, cheapest first."""
    adjusted = holm([finding.gain.p_value for finding in findings])
    working = [
        finding
        for finding, p in zip(findings, adjusted, strict=True)
        if finding.gain.mean >= thresholds.min_gain and p < thresholds.alpha
    ]
    return sorted(working, key=lambda finding: list(ACTIONS).index(finding.kind))


def _cheapest_sufficient(evidence: Evidence, thresholds: Thresholds) -> Verdict | None:
    best, working = None, _working(evidence.findings, thresholds)
    for finding in working:
        if best is None or finding.dev_gain >= best.dev_gain + thresholds.costlier:
            best = finding
    if best is None:
        return None
    runners_up = sorted((f for f in working if f is not best), key=lambda f: -f.gain.mean)
    reasons = [f"{advice(best)} gains {_gain(best.gain)} on {best.gain.n} test queries"]
    reasons += [f"{advice(finding)} also works: {_gain(finding.gain)}" for finding in runners_up]
    reasons += [_misses(evidence)] if sum(evidence.causes.values()) else []
    reasons += [UNTRIED] if _fine_tune(evidence) is None and evidence.train_pairs >= thresholds.min_train_pairs else []
    return Verdict(advice(best), best.setting, best.gain, tuple(reasons), tuple(map(advice, runners_up)))


def _without_remedy(evidence: Evidence, thresholds: Thresholds) -> Verdict:
    tried = f"none of {len(evidence.findings)} remedies has a significant gain of at least {thresholds.min_gain}"
    if detectable := [finding.detectable for finding in evidence.findings if np.isfinite(finding.detectable)]:
        tried += f"; these queries would usually show a gain of {max(detectable):.3f} or more"
    missed, ambiguous = sum(evidence.causes.values()), evidence.causes.get("ambiguous", 0)
    if missed and ambiguous / missed > thresholds.max_ambiguous:
        return Verdict(MORE_DATA, "judgements", None, (f"{ambiguous} of {missed} misses are ambiguous", tried))
    if evidence.train_pairs < thresholds.min_train_pairs:
        reason = f"{evidence.train_pairs:,} training pairs are too few to fine-tune ({thresholds.min_train_pairs:,})"
        return Verdict(MORE_DATA, "training pairs", None, (reason, tried))
    probe = _fine_tune(evidence)
    if probe is not None and probe.unchanged:
        return Verdict(ACTIONS["fine-tune"], "", None, (UNCHANGED, tried))
    if probe is not None and probe.gain.high < thresholds.min_gain:
        reason = f"the linear probe gains {_gain(probe.gain)}, at best less than {thresholds.min_gain}"
        return Verdict(NOTHING_GAINS, "", None, (reason, tried))
    expected = probe.gain if probe is not None and np.isfinite(probe.gain.mean) else None
    reason = f"there are {evidence.train_pairs:,} training pairs; the gain is not established"
    return Verdict(ACTIONS["fine-tune"], "", expected, (tried, reason))


def _fine_tune(evidence: Evidence) -> RemedyGain | None:
    """Return the finding of the linear probe, if there is one."""
    return next((finding for finding in evidence.findings if finding.kind == "fine-tune"), None)


def advice(finding: RemedyGain) -> str:
    """Return the finding as advice, e.g. "use hybrid"; for another model with its name."""
    return f"{ACTIONS[finding.kind]} {finding.setting}" if finding.kind == "model" else ACTIONS[finding.kind]


def _gain(difference: PairedDifference) -> str:
    interval = f"[{difference.low:+.3f}, {difference.high:+.3f}]"
    relative = f", {difference.relative:+.1%}" if np.isfinite(difference.relative) else ""
    return f"{difference.mean:+.3f} {interval}{relative}"


def _misses(evidence: Evidence) -> str:
    largest = sorted(evidence.causes.items(), key=lambda item: -item[1])[:3]
    parts = ", ".join(f"{name} {count}" for name, count in largest if count)
    return f"{sum(evidence.causes.values())} queries miss: {parts}"
