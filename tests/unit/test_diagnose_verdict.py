"""The rule on evidence made up so that the right answer is known."""

from __future__ import annotations

import pydoc
from dataclasses import replace

import pytest

from embedlab.errors import EmbedlabError
from embedlab.evaluation.diagnose.params import DiagnoseParams
from embedlab.evaluation.diagnose.verdict import (
    ACTIONS,
    FUNCTIONS,
    GOOD_ENOUGH,
    MORE_DATA,
    NOTHING_GAINS,
    UNCHANGED,
    UNTRIED,
    Evidence,
    RemedyGain,
    Thresholds,
    decide,
)
from embedlab.evaluation.significance import Interval, PairedDifference

NAN = float("nan")


def finding(kind, gain, *, dev=None, p=0.001, setting="", width=0.01, detectable=NAN):
    difference = PairedDifference(gain, gain - width, gain + width, gain / 0.5, p, 200, 60, 120, 20)
    return RemedyGain(kind, setting, gain if dev is None else dev, difference, detectable)


def evidence(*findings, base=0.5, n=200, train_pairs=5_000, **causes):
    return Evidence(Interval(base, base - 0.05, base + 0.05, n), findings, train_pairs, causes)


@pytest.mark.parametrize("kind", ACTIONS)
def test_the_one_remedy_that_works_is_the_verdict_with_its_gain(kind):
    others = [finding(other, 0.2, p=0.4) for other in ACTIONS if other != kind]
    winner = finding(kind, 0.05, setting="x")
    verdict = decide(evidence(*others, winner))
    assert verdict.action == (f"{ACTIONS[kind]} x" if kind == "model" else ACTIONS[kind])
    assert (verdict.setting, verdict.expected) == ("x", winner.gain)
    assert "+0.050 [+0.040, +0.060], +10.0%" in str(verdict)


def test_a_costlier_remedy_must_beat_a_cheaper_one_on_dev_and_by_enough():
    cheap = finding("hybrid", 0.050)
    assert decide(evidence(finding("fine-tune", 0.058), cheap)).action == "use hybrid"
    assert decide(evidence(finding("fine-tune", 0.061), cheap)).action == "fine-tune"
    lucky_on_test = finding("reranker", 0.20, dev=0.05)
    assert decide(evidence(lucky_on_test, cheap)).action == "use hybrid"
    assert decide(evidence(lucky_on_test, cheap)).afterwards == ("add a reranker",)


def test_a_fine_tune_that_was_not_tried_is_named_beside_what_works():
    cheap = finding("hybrid", 0.05)
    assert UNTRIED in decide(evidence(cheap)).reasons
    assert UNTRIED not in decide(evidence(cheap, finding("fine-tune", 0.0, p=0.9))).reasons
    assert UNTRIED not in decide(evidence(cheap, train_pairs=0)).reasons


def test_climbing_compares_with_the_one_chosen_so_far():
    steps = [finding("hybrid", 0.050), finding("chunking", 0.058), finding("reranker", 0.066)]
    assert decide(evidence(*steps)).action == "add a reranker"  # 0.016 above hybrid, the one chosen so far
    assert decide(evidence(*steps), Thresholds(costlier=0.02)).action == "use hybrid"


def test_holm_counts_everything_tried():
    alone = finding("hybrid", 0.05, p=0.03)
    assert decide(evidence(alone)).action == "use hybrid"
    assert decide(evidence(alone, finding("chunking", 0.0, p=0.9))).action == "fine-tune"


def test_too_small_a_gain_is_none_however_significant():
    assert decide(evidence(finding("hybrid", 0.009))).action == "fine-tune"
    assert decide(evidence(finding("hybrid", 0.009)), Thresholds(min_gain=0.005)).action == "use hybrid"


def test_a_loss_is_no_gain():
    assert decide(evidence(finding("hybrid", -0.2))).action == "fine-tune"


def test_few_test_queries_come_before_everything():
    verdict = decide(evidence(finding("hybrid", 0.3), base=0.99, n=49))
    assert (verdict.action, verdict.setting, verdict.expected) == (MORE_DATA, "test queries", None)
    assert decide(evidence(base=NAN, n=0)).action == MORE_DATA
    assert decide(evidence(finding("hybrid", 0.3), n=50)).action == "use hybrid"


def test_good_enough_comes_before_any_remedy():
    assert decide(evidence(finding("hybrid", 0.1), base=0.85)).action == GOOD_ENOUGH
    assert decide(evidence(finding("hybrid", 0.1), base=0.85), Thresholds(good_enough=0.9)).action == "use hybrid"


def test_good_enough_tells_what_would_still_gain_and_is_not_said_of_a_sample():
    easy = evidence(finding("hybrid", 0.1), finding("chunking", 0.0, p=0.9), base=0.9)
    verdict = decide(easy)
    assert (verdict.action, verdict.afterwards) == (GOOD_ENOUGH, ("use hybrid",))
    assert "would still gain +0.100" in str(verdict)
    assert "the base model reaches 0.900, at least good_enough (0.85)" in verdict.reasons
    assert "this measures it: embedlab tune" in str(verdict)
    assert "embedlab tune" not in str(decide(replace(easy, train_pairs=0)))
    assert decide(replace(easy, sampled=True)).action == "use hybrid"


def test_too_few_training_pairs():
    verdict = decide(evidence(finding("hybrid", 0.0), finding("fine-tune", 0.0), train_pairs=999))
    assert (verdict.action, verdict.setting) == (MORE_DATA, "training pairs")
    assert "999" in verdict.reasons[0]
    # A probe that gains on held-out queries is better evidence than a count.
    assert decide(evidence(finding("fine-tune", 0.05), train_pairs=100)).action == "fine-tune"


def test_ambiguous_judgements_come_before_training():
    verdict = decide(evidence(finding("hybrid", 0.0), train_pairs=10, ambiguous=51, far=49))
    assert (verdict.action, verdict.setting) == (MORE_DATA, "judgements")
    assert decide(evidence(ambiguous=50, far=50)).action == "fine-tune"
    assert decide(evidence(finding("hybrid", 0.1), ambiguous=51, far=49)).action == "use hybrid"


def test_a_probe_that_surely_gains_nothing_ends_the_matter():
    sure, unsure = finding("fine-tune", -0.01, width=0.015, p=0.3), finding("fine-tune", 0.0, width=0.015, p=0.3)
    assert decide(evidence(sure)).action == NOTHING_GAINS
    verdict = decide(evidence(unsure))
    assert (verdict.action, verdict.expected) == ("fine-tune", unsure.gain)
    assert decide(evidence()).expected is None


def test_a_verdict_without_a_remedy_says_what_the_queries_could_have_shown():
    blunt = [finding("hybrid", 0.0, detectable=0.08), finding("chunking", 0.0, detectable=0.05), finding("model", 0.0)]
    assert "gain of 0.080 or more" in str(decide(evidence(*blunt)))
    assert "would have shown" not in str(decide(evidence(finding("hybrid", 0.0))))


def test_undefined_differences_never_work():
    assert decide(evidence(finding("hybrid", NAN, p=NAN), finding("chunking", 0.1))).action == "fix chunking"
    assert decide(evidence(finding("fine-tune", NAN, p=NAN))).expected is None


def test_text_names_the_largest_causes():
    text = str(decide(evidence(finding("hybrid", 0.05), far=3, close=9, ambiguous=0)))
    assert "12 queries miss: close 9, far 3" in text and "ambiguous" not in text


def test_thresholds_and_parameters_refuse_the_impossible():
    with pytest.raises(ValueError, match="good_enough"):
        Thresholds(good_enough=1.5)
    with pytest.raises(ValueError, match="Extra inputs"):
        Thresholds(goodenough=0.5)
    with pytest.raises(EmbedlabError, match="rerank_depth"):
        DiagnoseParams.checked({"dataset": "d", "model_name": "m", "rerank_depth": 0})
    params = DiagnoseParams.checked({"dataset": "d", "model_name": "m", "good_enough": 0.7, "max_steps": 5})
    assert (params.thresholds(), params.probe_steps) == (Thresholds(good_enough=0.7), 5)


class TestNextStep:
    def test_a_probe_that_stopped_at_step_0_is_no_evidence(self):
        untouched = replace(finding("fine-tune", 0.0, width=0.0, p=1.0), unchanged=True)
        verdict = decide(evidence(untouched))
        assert verdict.action == "fine-tune" and verdict.expected is None
        assert verdict.reasons[0] == UNCHANGED and "could not tell" in str(verdict)
        assert decide(evidence(replace(untouched, unchanged=False))).action == NOTHING_GAINS

    @pytest.mark.parametrize(
        ("changes", "findings", "step"),
        [
            ({}, [("fine-tune", 0.05)], "embedlab run 03_contrastive -p 'dataset=pairs:a b.csv' -p model_name=base"),
            ({}, [("reranker", 0.05)], "embedlab run 07_reranker -p 'dataset=pairs:a b.csv' -p model_name=base"),
            (
                {},
                [("hybrid", 0.05)],
                "call embedlab.search.fusion.fuse_scores in your search; embedlab run 01",
            ),
            ({"train_pairs": 9}, [], "embedlab run 02_data -p 'dataset=pairs:a b.csv' -p model_name=base"),
            ({"base": 0.9}, [], "embedlab deploy index --dataset 'pairs:a b.csv' --model base"),
            ({"n": 9}, [], "embedlab label next 'pairs:a b.csv' --queries FILE"),
            ({"ambiguous": 9}, [], "embedlab label next 'pairs:a b.csv' -m base"),
        ],
    )
    def test_every_verdict_names_the_next_command(self, changes, findings, step):
        known = evidence(*(finding(*each) for each in findings), **changes)
        verdict = decide(replace(known, dataset="pairs:a b.csv", model="base"))
        assert verdict.next_step.startswith(step)
        assert str(verdict).endswith(f"Next: {verdict.next_step}")

    def test_another_model_is_deployed_by_its_name(self):
        better = replace(finding("model", 0.05), setting="better model")
        assert decide(evidence(better)).next_step == "embedlab deploy index --dataset DATASET --model 'better model'"

    def test_named_functions_exist(self):
        for path in FUNCTIONS.values():
            assert pydoc.locate(f"embedlab.{path}") is not None
