"""A tuning run at toy size: its budget, its recipes, its limits and its report."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedlab.data.load import load_dataset
from embedlab.errors import ModelError, ParameterError
from embedlab.evaluation.diagnose.probe import Probe
from embedlab.evaluation.significance import paired_difference
from embedlab.models.static import static_student
from embedlab.reporting import tuning_report
from embedlab.search.vectors import encode_split
from embedlab.training.fit import FitResult
from embedlab.tuning import workbench
from embedlab.tuning.choice import Choice, choose
from embedlab.tuning.clock import Clock
from embedlab.tuning.contrastive import FineTunes
from embedlab.tuning.limits import Limits
from embedlab.tuning.params import TuneParams
from embedlab.tuning.recipes import add_base, add_narrow, run_recipe
from embedlab.tuning.trials import Setting
from embedlab.tuning.workbench import Workbench
from tests.conftest import tiny_model

VALUES = {
    "dataset": "icd10cm:smoke",
    "model_name": "tiny",
    "minutes": 2.0,
    "max_steps": 3,
    "recipes_to_try": ["linear", "static", "contrastive", "merged", "distilled", "concatenation"],
}


@pytest.fixture(scope="module")
def data():
    return load_dataset("icd10cm:smoke", max_examples=60)


def bench_of(data, folder, **changes):
    params = TuneParams.checked(VALUES | changes)
    bench = Workbench(data, tiny_model(), params, str(folder), Clock(params.minutes))
    add_base(bench)
    return bench


@pytest.fixture(scope="module")
def bench(data, tmp_path_factory):
    """All recipes, with three steps each."""
    bench = bench_of(data, tmp_path_factory.mktemp("tuning"), min_speed=2.0)
    for recipe in bench.params.recipes_to_try:
        run_recipe(recipe, bench)
    return bench


def test_every_recipe_adds_its_candidates(bench):
    systems = {candidate.system for candidate in bench.candidates.values()}
    assert systems >= {"base", "static", "contrastive", "merged", "distilled", "base+static", "contrastive+static"}
    assert next(iter(bench.candidates)) == "base"
    assert set(bench.table()["candidate"]) == set(bench.candidates)


def test_every_candidate_builds_the_model_that_was_scored(bench):
    for candidate in bench.candidates.values():
        vectors = encode_split(candidate.build(), bench.dev_data, "dev")
        np.testing.assert_allclose(vectors.queries, candidate.vectors.queries, atol=1e-5, err_msg=candidate.name)
        np.testing.assert_allclose(vectors.corpus, candidate.vectors.corpus, atol=1e-5, err_msg=candidate.name)


def test_building_a_candidate_changes_no_other(bench):
    before = {name: parameter.clone() for name, parameter in bench.base.state_dict().items()}
    for candidate in bench.candidates.values():
        candidate.build()
    assert len(list(bench.base)) == len(list(tiny_model()))
    assert all((before[name] == parameter).all() for name, parameter in bench.base.state_dict().items())


def test_a_concatenation_must_beat_both_parts_and_its_own_projection(bench):
    for name in ("base", "contrastive"):
        wide = bench.candidates[f"{name}+static"]
        narrow = f"{name}+static, {bench.candidates[name].vectors.dim} dimensions"
        assert wide.parts == (name, "static", narrow)
        assert bench.candidates[narrow].parts == (name, "static")
        assert wide.vectors.dim == 2 * bench.candidates[narrow].vectors.dim


def test_recipes_without_their_parts_add_nothing(data, tmp_path):
    bench = bench_of(data, tmp_path)
    for recipe in ("merged", "concatenation", "distilled"):
        run_recipe(recipe, bench)
    assert list(bench.candidates) == ["base"]
    assert set(bench.skipped) == {"merged", "concatenation", "distilled"}


def test_no_static_model_if_building_it_takes_most_of_the_time(data, tmp_path):
    bench = bench_of(data, tmp_path)
    assert bench.vocabulary_seconds > 0
    bench.vocabulary_seconds = 0.41 * bench.left
    run_recipe("static", bench)
    assert list(bench.candidates) == ["base"]
    assert re.fullmatch(
        r"it takes about \d+ s, and \d+ s were left: set minutes to \d.* or more", bench.skipped["static"]
    )


def test_minutes_for_a_recipe_by_hand(data, tmp_path):
    bench = bench_of(data, tmp_path)
    with patch.object(Workbench, "left", 40.0):
        assert bench.clock.seconds == 120
        text = "it takes about 100 s, and 40 s were left: set minutes to 3.2 or more"  # (120 + 1.2 · 60) / 60
        assert bench.minutes_for(100) == text


def test_principal_components_need_two_texts_per_dimension_and_the_time_to_encode_them(data, tmp_path):
    bench = bench_of(data, tmp_path)
    every = [*data.corpus.values(), *data.split_queries("train").values()]
    most = len(every) // 2
    assert len(bench.projection_texts(most)) == 2 * most and bench.projection_texts(most + 1) == []
    sample = bench.projection_texts(8)
    assert sample == [every[number * len(every) // 16] for number in range(16)]
    assert set(sample) & set(data.split_queries("train").values())
    bench.text_seconds = 0.03 * 120 / 16  # three percent of two minutes
    assert len(bench.projection_texts(8)) == 16 and bench.projection_texts(9) == []


def test_a_concatenation_without_texts_for_its_projection_stays_wide(data, tmp_path, monkeypatch):
    bench = bench_of(data, tmp_path)
    run_recipe("static", bench)
    monkeypatch.setattr(Workbench, "projection_texts", lambda self, dim: [])
    run_recipe("concatenation", bench)
    assert [name for name in bench.candidates if "+" in name] == ["base+static"]


def test_projection_to_the_bytes_that_are_allowed(data, tmp_path):
    bench = bench_of(data, tmp_path, max_bytes=4 * 8 + 3)
    add_narrow(bench)
    narrow = bench.candidates["base, 8 dimensions"]
    assert narrow.system == "base-projected" and narrow.bytes == 32 and narrow.build().get_embedding_dimension() == 8
    np.testing.assert_allclose(np.linalg.norm(narrow.vectors.corpus, axis=1), 1, atol=1e-5)
    choice = choose(list(bench.candidates.values()), Limits(bench))
    assert choice.winner is narrow


def test_a_projected_combination_must_beat_its_projected_parts(data, tmp_path):
    bench = bench_of(data, tmp_path, max_bytes=4 * 8)
    base = bench.candidates["base"]
    parts = {"static": ("base",), "base+static": ("base", "static"), "merged": ("base", "unknown")}
    for name, of in parts.items():
        bench.add(name, name, "", base.vectors, base.build, parts=of)
    add_narrow(bench)
    narrow = {name: bench.candidates[f"{name}, 8 dimensions"].parts for name in ("base", *parts)}
    assert narrow == {"base": (), "static": (), "base+static": ("static, 8 dimensions",), "merged": ("unknown",)}


def test_bytes_that_allow_no_dimension_are_refused_before_anything_is_tried(data, tmp_path):
    with pytest.raises(ParameterError, match="one dimension takes 4 bytes, max_bytes is 3"):
        bench_of(data, tmp_path, max_bytes=3)


def test_limits_measure_what_they_need(bench):
    limits = Limits(bench)
    base = bench.candidates["base"]
    assert limits(base).startswith("1.00 times the base model's speed")  # min_speed=2
    assert limits.measured["base"] == {"bytes": base.bytes, "forgetting": 0.0, "speed": 1.0}


def test_without_a_test_only_what_has_a_limit_is_measured_and_no_time_is_kept_for_the_rest(data, tmp_path):
    def bench(**changes):
        params = TuneParams.checked(VALUES | changes)
        made = Workbench(data, tiny_model(), params, str(tmp_path), Clock(5, now=lambda: 0.0), with_test=False)
        add_base(made)
        return made

    free, limited = bench(), bench(max_forgetting=0.5)
    assert free.clock.left - free.left == pytest.approx(1.2 * 3 * free.dev_seconds)
    assert limited.clock.left - limited.left > 1.2 * 3 * limited.dev_seconds
    for made, measured in ((free, {"bytes"}), (limited, {"bytes", "forgetting"})):
        limits = Limits(made)
        assert limits(made.candidates["base"]) == "" and set(limits.measured["base"]) == measured


def test_forgetting_breaks_its_limit(bench, data, tmp_path):
    strict = bench_of(data, tmp_path, max_forgetting=0.0)
    limits = Limits(strict)
    forgetful = bench.candidates["contrastive"]
    reason = limits(forgetful)
    lost = limits.measured["contrastive"]["forgetting"]
    assert (lost > 0) == reason.startswith("loses")


def test_the_time_of_a_training_decides_its_steps(data, tmp_path, monkeypatch):
    tunes, trained, slowness = FineTunes(bench_of(data, tmp_path, max_steps=0)), [], 1
    monkeypatch.setattr(Workbench, "dev_seconds", 0.5)
    monkeypatch.setattr(FineTunes, "_document_share", 0.5)  # queries are as long as documents
    tunes._seconds_per_row = 0.01  # of query and positive

    def train(setting, rows, steps, evaluations):
        trained.append((steps, evaluations))
        texts = steps * setting.batch_size * (2 + setting.hard_negatives)
        seconds = slowness * texts * 0.005 + evaluations * 0.5
        return None, SimpleNamespace(best_dev=0.5, steps=steps, seconds=seconds)

    monkeypatch.setattr(tunes, "_train", train)
    most = math.ceil(20 * len(tunes._rows_for(0).dataset) / 4)
    tunes(Setting(1e-4, 4, 0), 10.0)  # (10 - 2 * 0.5) / (4 * 0.01) steps
    tunes(Setting(1e-4, 4, 2), 10.0)  # a row has four texts instead of two
    tunes(Setting(1e-4, 4, 0), 0.1)
    assert trained == [(min(225, most), 2), (min(112, most), 2), (10, 1)]
    slowness = 2
    tunes(Setting(1e-4, 4, 2), 10.0)  # as fast as before: it is measured now
    assert tunes(Setting(1e-4, 4, 2), 10.0).is_complete == (most <= 56)
    assert trained[-1] == (min(56, most), 2)


def with_linear_map(bench):
    """The tiny model gains nothing from a trained map, so a random one takes its place."""
    dim = bench.candidates["base"].vectors.dim
    matrix = np.random.default_rng(0).standard_normal((dim, dim)).astype(np.float32)
    bench.linear_map = Probe(matrix, 20, {})
    return bench


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_fine_tune_starts_from_a_share_of_the_linear_map(data, tmp_path, monkeypatch, share):
    bench, started = with_linear_map(bench_of(data, tmp_path)), []

    def train(model, *_arguments, **_options):
        started.append(bench.encode_dev(model))
        return FitResult(history=[], best_dev=0.5, best_step=1, steps=1, seconds=1.0)

    monkeypatch.setattr("embedlab.tuning.contrastive.train_contrastive", train)
    FineTunes(bench)(Setting(1e-4, 4, 0, share), 10.0)
    base, matrix = bench.candidates["base"].vectors, bench.linear_map.matrix
    by_hand = base.queries @ (share * matrix + (1 - share) * np.eye(base.dim))
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    np.testing.assert_allclose(started[-1].queries, by_hand, atol=1e-5)


def test_a_model_that_started_from_the_linear_map_is_merged_with_the_identity(data, tmp_path):
    bench = with_linear_map(bench_of(data, tmp_path))
    tuned = bench.mapped_base(1.0)
    bench.add("contrastive", "contrastive", "", bench.encode_dev(tuned), lambda: tuned)
    run_recipe("merged", bench)
    merged = bench.candidates["merged, 30% base"].build()
    matrix = bench.linear_map.matrix
    by_hand = 0.7 * matrix + 0.3 * np.eye(len(matrix))
    np.testing.assert_allclose(merged[-2].linear.weight.T.numpy(force=True), by_hand, atol=1e-6)


def test_too_few_minutes_for_the_test_are_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(workbench, "_seconds_per_text", lambda model, sample, clock: 1.0)
    with pytest.raises(ParameterError, match="the test alone takes about .* minutes.*at least"):
        bench_of(data, tmp_path)


def test_the_probe_is_paid_for_by_the_length_of_its_own_texts(data, tmp_path, monkeypatch):
    longest = max(map(len, data.corpus.values()))

    def seconds(model, sample, clock):
        return 1.0 if max(map(len, sample)) > longest else 0.001

    monkeypatch.setattr(workbench, "_seconds_per_text", seconds)
    bench = bench_of(data, tmp_path, minutes=60.0)
    later = 3 * bench.dev_seconds + 2 * 180 * 1.0 + 64 * 8 * 0.001  # dev, two models on 180 long documents, speed
    assert len(bench.probe_data.qrels["test"]) == 90  # a tenth of an hour pays for two models and two documents each
    assert len(bench.probe_data.corpus) == 180
    assert bench.clock.left - bench.left == pytest.approx(1.2 * (later + bench.test_seconds), abs=0.5)


def test_a_short_time_trains_one_setting(data, tmp_path, monkeypatch):
    """Five settings of ten steps each took longer than the whole budget."""
    bench = bench_of(data, tmp_path, max_steps=0)
    fine_tunes = FineTunes(bench)
    monkeypatch.setattr(FineTunes, "_document_share", 0.5)
    monkeypatch.setattr(fine_tunes, "_row_seconds", lambda: 0.01)  # 10 · 64 · 1.5 · 0.01 = 9.6 s, and dev once
    assert fine_tunes.shortest == pytest.approx(9.6 + bench.dev_seconds)


def test_a_hard_negative_costs_as_much_as_a_document(data, tmp_path):
    """Short queries and long documents: a negative nearly doubles a row, and 1.5 times the time was too little."""
    texts = {"queries": dict.fromkeys(data.queries, "q" * 10), "corpus": dict.fromkeys(data.corpus, "d" * 500)}
    fine_tunes = FineTunes(bench_of(data, tmp_path))
    fine_tunes.bench.training_data = replace(data, **texts)
    fine_tunes.bench.base.max_seq_length = 10  # 40 characters
    assert fine_tunes._work(Setting(1e-4, 64, 0)) == 1
    assert fine_tunes._work(Setting(1e-4, 64, 2)) == pytest.approx(1 + 2 * 40 / 50)
    fine_tunes = FineTunes(fine_tunes.bench)
    fine_tunes.bench.base.max_seq_length = None
    assert fine_tunes._work(Setting(1e-4, 64, 1)) == pytest.approx(1 + 500 / 510)


def test_a_sample_of_the_data_when_the_time_is_short(data, tmp_path, monkeypatch):
    whole = bench_of(data, tmp_path)
    assert whole.is_whole
    bench = Workbench(data, tiny_model(), whole.params, str(tmp_path), Clock(5))
    monkeypatch.setattr(workbench, "TRAIN_TEXTS", 100)
    bench.text_seconds, bench.clock.seconds = 1.0, 100.0  # 15 texts would be affordable
    sample = bench.training_data
    base = add_base(bench).vectors  # not from the vectors of the sample
    assert base.corpus_ids == whole.candidates["base"].vectors.corpus_ids
    np.testing.assert_allclose(base.corpus, whole.candidates["base"].vectors.corpus, atol=1e-5)
    assert not bench.is_whole and len(sample.qrels["train"]) == 50 and len(sample.corpus) <= 100
    assert {document for _, document in sample.pairs("train")} <= set(sample.corpus)
    assert sample.qrels["test"] == data.qrels["test"]


def test_a_static_base_model_is_refused(data, tmp_path):
    params = TuneParams.checked(VALUES)
    static = static_student(tiny_model(), list(data.corpus.values())[:50])
    with pytest.raises(ModelError, match="this model is static"):
        Workbench(data, static, params, str(tmp_path), Clock(5))


def test_report_says_what_was_tried_and_what_to_do(bench, tmp_path):
    base = bench.candidates["base"]
    choice = Choice(base, {"contrastive": "loses | 0.5"})
    values = base.values
    lines = tuning_report.advice(bench, choice, paired_difference(values, values), paired_difference(values, values))
    assert any(line.startswith("No candidate beat the base model") for line in lines)
    commands = tuning_report.commands(bench, choice, tmp_path / "model")
    assert commands == [f"embedlab deploy index --dataset {bench.params.dataset} --model {bench.params.model_name}"]
    result = tuning_report.conclusion(choice, paired_difference(values, values))
    page = tuning_report.page(bench, choice, {"base": base.dev}, {"bytes": 128.0}, result, lines, commands)
    for part in ("**Winner: base**", "(float32) | 128 |", "winner", "loses \\| 0.5", "## What to do next", commands[0]):
        assert part in page, part
    assert page.index("The base model stays") < page.index("## Test") and "nan" not in page
    assert page.count("\n| ") >= len(bench.candidates)


def test_report_names_what_was_left_out_and_why(bench, monkeypatch):
    monkeypatch.setattr(bench, "skipped", {"contrastive": "it takes about 90 s, and 40 s were left"})
    choice, values = Choice(bench.candidates["static"]), bench.candidates["base"].values
    page = tuning_report.page(bench, choice, {}, {}, "", [], [])
    assert "## What was not tried\n\n- contrastive: it takes about 90 s, and 40 s were left." in page
    lines = tuning_report.advice(bench, choice, paired_difference(values, values), paired_difference(values, values))
    assert "The transformer was not fine-tuned: it takes about 90 s, and 40 s were left." in lines


def test_report_of_one_query_has_no_interval_and_asks_for_queries(bench, monkeypatch):
    few = replace(bench.dev_data, qrels={"dev": dict([*bench.dev_data.qrels["dev"].items()][:1])})
    monkeypatch.setattr(bench, "dev_data", few)
    one = SimpleNamespace(of=lambda metric: np.array([1.0]))
    choice, gain = Choice(bench.candidates["base"]), paired_difference(np.array([0.0]), np.array([0.0]))
    lines = tuning_report.advice(bench, choice, gain, gain)
    assert lines[0].startswith(
        "Dev queries: 1, too few to choose anything. Add queries and judge their answers: `embedlab"
    )
    assert any(line.startswith("Test queries: 1. Below 50, intervals are wide.") for line in lines)
    assert not any("No candidate beat" in line for line in lines)
    page = tuning_report.page(bench, choice, {"base": one}, {}, "", lines, [])
    assert "| base | 1.000 |" in page


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.03, "The gain is shown"), (-0.01, 0.05, "No gain is shown"), (-0.03, -0.01, "worse than the base model")],
)
def test_conclusion_follows_the_interval(bench, low, high, said):
    gain = SimpleNamespace(mean=(low + high) / 2, low=low, high=high, n=100)
    text = tuning_report.conclusion(Choice(bench.candidates["static"]), gain)
    assert said in text and f"{gain.mean:+.3f} [{low:+.3f}, {high:+.3f}]" in text


def test_a_base_model_that_breaks_a_limit_is_not_recommended(bench):
    loss = SimpleNamespace(mean=-0.02, low=-0.03, high=-0.01, n=100)
    assert tuning_report.conclusion(Choice(bench.candidates["static"]), loss).endswith("Keep the base model.")
    limited = tuning_report.conclusion(Choice(bench.candidates["static"], {"base": "too slow"}), loss)
    assert limited.endswith("It is worse than the base model. The base model breaks a limit: too slow.")


def test_a_gain_on_five_queries_is_not_shown(bench):
    gain = paired_difference(np.full(5, 0.9), np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    text = tuning_report.conclusion(Choice(bench.candidates["static"]), gain)
    assert gain.low > 0 and text.endswith("These are too few queries to show a gain.")


def test_a_candidate_that_was_higher_on_dev_is_mentioned(bench):
    best = max(bench.candidates.values(), key=lambda candidate: candidate.score)
    winner = min(bench.candidates.values(), key=lambda candidate: candidate.score)
    none = paired_difference(winner.values, winner.values)
    said = f"{best.name} was higher on dev and was not chosen: the column verdict says why."
    assert said in tuning_report.advice(bench, Choice(winner, {best.name: "level"}), none, none)
    assert not any("higher on dev" in line for line in tuning_report.advice(bench, Choice(best), none, none))


@pytest.mark.parametrize(
    ("winner", "low", "mean", "high", "said"),
    [
        ("base", 0.01, 0.02, 0.03, None),
        ("base", -0.01, 0.01, 0.03, None),
        ("base", -0.03, -0.01, 0.01, "does not clearly beat hybrid search"),
        ("static", -0.01, 0.01, 0.03, "does not clearly beat hybrid search"),
        ("static", -0.03, -0.02, -0.01, "Use hybrid search"),
        ("static", 0.01, 0.02, 0.03, None),
    ],
)
def test_report_advises_hybrid_search_only_where_it_may_be_better(bench, monkeypatch, winner, low, mean, high, said):
    gain = SimpleNamespace(low=0.1, n=100)
    monkeypatch.setattr(tuning_report, "FEW_DEV_QUERIES", 0)
    over_hybrid = SimpleNamespace(low=low, mean=mean, high=high, n=100)
    lines = tuning_report.advice(bench, Choice(bench.candidates[winner]), gain, over_hybrid)
    about_hybrid = [line for line in lines if "hybrid search" in line]
    assert len(about_hybrid) == bool(said) and (not said or said in about_hybrid[0])


def test_saved_winner_is_a_plain_folder(bench, tmp_path):
    linear = next(candidate for candidate in bench.candidates.values() if candidate.system in ("linear-probe", "base"))
    linear.build().save_pretrained(str(tmp_path / "model"))
    assert SentenceTransformer(str(tmp_path / "model")).get_embedding_dimension() == linear.vectors.dim
