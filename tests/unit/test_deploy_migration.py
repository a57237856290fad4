"""Changing the model of an index: options with a known answer, the rule, the gate, costs and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embedlab.cli import deploy as cli
from embedlab.data.dataset import Dataset
from embedlab.deploy.adapter import fit_ridge
from embedlab.deploy.migration import advise as advising
from embedlab.deploy.migration.advice import advice
from embedlab.deploy.migration.compare import Comparison, Settings, compare
from embedlab.deploy.migration.costs import Cost, Rate, cost_of
from embedlab.deploy.migration.decision import check, decide
from embedlab.deploy.migration.maps import RIDGES, fit_maps
from embedlab.deploy.migration.options import (
    DOCUMENT_ADAPTER,
    NEW,
    OLD,
    PARTLY,
    QUERY_ADAPTER,
    RE_EMBED,
    STAY,
    Judged,
    Option,
    Spaces,
    all_options,
)
from embedlab.errors import DataError, EmbedlabError, ParameterError
from embedlab.evaluation.significance import paired_difference, paired_ratio
from embedlab.models.api import ApiModel
from embedlab.reporting.migration_table import HEADER, table_rows
from embedlab.search.vectors import Vectors
from experiments.migrations import tables as study_tables
from experiments.migrations.releases import count_changes, untouched_pairs

ROOT = Path(__file__).resolve().parents[2]
DIM, DOCUMENTS, QUERIES = 16, 600, 300


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def vectors_of(queries, corpus):
    return Vectors(
        tuple(f"q{row}" for row in range(len(queries))), tuple(f"d{row}" for row in range(len(corpus))), queries, corpus
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def rotation(rng, dim=DIM):
    return np.linalg.qr(rng.normal(size=(dim, dim)))[0]


def splits(rng, *, old_noise, new_noise, relation):
    """Dev, test and probe: query i is document i with noise, less or more of it for each model.

    `relation` turns the old vectors of documents and (clean) queries into the new ones.
    """
    judged = []
    for _ in range(3):
        corpus = unit(rng.normal(size=(DOCUMENTS, DIM)))
        clean = corpus[:QUERIES]
        noise = rng.normal(size=clean.shape)
        old = vectors_of(unit(clean + old_noise * noise), corpus)
        new = vectors_of(relation(unit(clean + new_noise * noise)), relation(corpus))
        judged.append(Judged(Spaces(old, new), {f"q{row}": {f"d{row}": 1} for row in range(QUERIES)}))
    return judged


def compared(judged, **settings):
    dev, test, probe = judged
    rates = {OLD: Rate(100.0), NEW: Rate(50.0)}
    return compare(dev, test, probe=probe, rates=rates, settings=Settings(sample=400, **settings))


class TestKnownAnswers:
    def test_after_a_rotation_an_adapter_keeps_everything(self, rng):
        turn = rotation(rng)
        result = compared(splits(rng, old_noise=0.35, new_noise=0.1, relation=lambda x: unit(x @ turn)))
        for option in (QUERY_ADAPTER, DOCUMENT_ADAPTER, PARTLY):
            assert result.of(option).share_kept.mean == pytest.approx(1, abs=0.005)
        assert result.decision.recommended == QUERY_ADAPTER  # as good as re-embedding, and the cheapest
        assert result.verdict.verdict == "pass"
        assert result.of(RE_EMBED).share_kept.low == 1
        assert result.of(STAY).to_re_embed.high < 0

    def test_between_unrelated_spaces_only_re_embedding_helps(self, rng):
        random_vectors = {}

        def unrelated(rows):
            """Keep which documents are near, in a space that no linear map reaches: signs of random products."""
            planes = random_vectors.setdefault("planes", rng.normal(size=(DIM, 64)))
            return unit(np.sign(np.sin(9 * rows @ planes)))

        judged = splits(rng, old_noise=0.5, new_noise=0.0, relation=unrelated)
        result = compared(judged)
        assert result.of(QUERY_ADAPTER).share_kept.high < 0.5 and result.of(DOCUMENT_ADAPTER).share_kept.high < 0.5
        assert result.decision.recommended == result.decision.best == RE_EMBED
        assert result.verdict.verdict == "pass"

    def test_if_the_old_model_is_better_you_stay(self, rng):
        turn = rotation(rng)
        result = compared(splits(rng, old_noise=0.1, new_noise=0.5, relation=lambda x: unit(x @ turn)))
        assert result.decision.recommended == STAY
        assert result.verdict.verdict == "pass" and not result.verdict.checks
        assert "stay with the old model" in advice(result)[0]
        assert not result.of(STAY).cost.documents

    def test_a_map_in_the_wrong_direction_is_noticed(self, rng, monkeypatch):
        """The planted fault: source and target are swapped."""
        turn = rotation(rng)
        judged = splits(rng, old_noise=0.35, new_noise=0.1, relation=lambda x: unit(x @ turn))
        monkeypatch.setattr(
            "embedlab.deploy.migration.maps.fit_ridge", lambda source, target, ridge: fit_ridge(target, source, ridge)
        )
        result = compared(judged)
        assert result.of(QUERY_ADAPTER).share_kept.high < 0.5
        assert result.decision.recommended == RE_EMBED

    def test_models_of_different_dimensions(self, rng):
        wide = np.linalg.qr(rng.normal(size=(24, DIM)))[0].T
        result = compared(splits(rng, old_noise=0.35, new_noise=0.1, relation=lambda x: unit(x @ wide)))
        assert result.of(QUERY_ADAPTER).share_kept.mean == pytest.approx(1, abs=0.005)
        assert result.of(STAY).cost.index_bytes == result.of(QUERY_ADAPTER).cost.index_bytes == DOCUMENTS * DIM * 4
        assert result.of(DOCUMENT_ADAPTER).cost.index_bytes == DOCUMENTS * 24 * 4

    def test_a_tuned_model_joins(self, rng):
        turn = rotation(rng)
        judged = splits(rng, old_noise=0.6, new_noise=0.5, relation=lambda x: unit(x @ turn))
        with_tuned = []
        for part in judged:
            corpus = part.spaces.new.corpus
            perfect = vectors_of(corpus[:QUERIES], corpus)
            with_tuned.append(Judged(replace(part.spaces, tuned={"tuned": perfect}), part.qrels))
        dev, test, probe = with_tuned
        result = compare(dev, test, probe=probe, tuned={"tuned": "use the tuned one"}, settings=Settings(sample=400))
        assert result.decision.recommended == "tuned"
        assert result.of("tuned").test.mean == 1
        assert result.of("tuned").share_kept.mean == pytest.approx(1 / result.of(RE_EMBED).test.mean)
        assert result.of("tuned").cost.hours is None  # its rate is not known


class TestMaps:
    def test_ridge_equals_the_normal_equations(self, rng):
        source, target = rng.normal(size=(50, 4)) + 2, rng.normal(size=(50, 3)) - 1
        fitted = fit_ridge(source, target, 0.3)
        x, y = source - source.mean(0), target - target.mean(0)
        penalty = 0.3 * np.square(x).sum() / 4  # the mean variance of a column, times n
        expected = np.linalg.inv(x.T @ x + penalty * np.eye(4)) @ x.T @ y
        np.testing.assert_allclose(fitted.matrix, expected, rtol=1e-5)
        np.testing.assert_allclose(source.mean(0) @ expected + fitted.offset, target.mean(0), rtol=1e-5)

    def test_maps_see_documents_only_and_dev_chooses_the_strength(self, rng):
        turn = rotation(rng)
        dev, _, _ = splits(rng, old_noise=0.35, new_noise=0.1, relation=lambda x: unit(x @ turn))
        fitted = fit_maps(dev, sample=400)
        assert fitted.query_ridge in RIDGES and fitted.sample == 400
        other_queries = unit(rng.normal(size=(QUERIES, DIM)))
        changed = Judged(replace(dev.spaces, new=replace(dev.spaces.new, queries=other_queries)), dev.qrels)
        again = fit_maps(changed, sample=400)
        # Other dev queries may choose another strength; the map of the same strength is the same.
        if again.document_ridge == fitted.document_ridge:
            np.testing.assert_array_equal(again.maps.document.matrix, fitted.maps.document.matrix)
        rows = np.sort(np.random.default_rng(0).permutation(DOCUMENTS)[:400])
        expected = fit_ridge(dev.spaces.new.corpus[rows], dev.spaces.old.corpus[rows], fitted.query_ridge)
        np.testing.assert_array_equal(fitted.maps.query.matrix, expected.matrix)

    def test_a_partly_re_embedded_index_has_both_kinds_of_rows(self, rng):
        turn = rotation(rng)
        dev, _, _ = splits(rng, old_noise=0.3, new_noise=0.1, relation=lambda x: np.abs(unit(x @ turn)))
        options = {option.name: option for option in all_options(fit_maps(dev, sample=400).maps, {}, share=0.25)}
        mixed = options[PARTLY].vectors(dev.spaces).corpus
        new, mapped = dev.spaces.new.corpus, options[DOCUMENT_ADAPTER].vectors(dev.spaces).corpus
        is_new = (mixed == new).all(axis=1)
        assert 0.2 < is_new.mean() < 0.3
        np.testing.assert_array_equal(mixed[~is_new], mapped[~is_new])


class TestRatio:
    def test_by_hand(self):
        a, b = np.array([1.0, 0.0, np.nan]), np.array([1.0, 1.0, 1.0])
        ratio = paired_ratio(a, b, samples=4_000)
        assert (ratio.mean, ratio.n) == (0.5, 2)
        assert (ratio.low, ratio.high) == (0, 1)  # of the four resamples, one has ratio 0 and one has 1

    def test_of_a_system_with_itself_is_one(self, rng):
        values = rng.random(50)
        ratio = paired_ratio(values, values)
        assert (ratio.mean, ratio.low, ratio.high) == (1, 1, 1)

    def test_against_a_slow_bootstrap(self, rng):
        b = rng.random(40)
        a = np.clip(b * 0.8 + 0.1 * rng.normal(size=40), 0, 1)
        slow = []
        for _ in range(4_000):
            rows = rng.integers(0, 40, 40)
            slow.append(a[rows].mean() / b[rows].mean())
        ratio = paired_ratio(a, b, samples=4_000)
        assert ratio.mean == pytest.approx(a.mean() / b.mean())
        assert (ratio.low, ratio.high) == pytest.approx(np.quantile(slow, (0.025, 0.975)), abs=0.01)

    def test_no_ratio_to_nothing(self):
        assert np.isnan(paired_ratio(np.ones(3), np.zeros(3)).mean)
        assert np.isnan(paired_ratio(np.ones(1), np.ones(1)).low)
        with pytest.raises(DataError, match="shape"):
            paired_ratio(np.ones(3), np.ones(4))


def cost(documents):
    return Cost(documents, None, None, None, 0.0, 0)


class TestDecision:
    DEV = {
        STAY: np.tile([0.2, 0.4], 200),
        QUERY_ADAPTER: np.tile([0.595, 0.805], 200),
        RE_EMBED: np.tile([0.6, 0.8], 200),
    }
    COSTS = {STAY: cost(0), QUERY_ADAPTER: cost(50), RE_EMBED: cost(1000)}

    def decide(self, dev=DEV, forgetting=None, **budgets):
        return decide(dev, self.COSTS, forgetting or {}, **{"tolerance": 0.01, "probe_budget": 0.03, **budgets})

    def test_the_cheapest_within_the_tolerance(self):
        decision = self.decide()
        assert (decision.recommended, decision.good_enough) == (QUERY_ADAPTER, (QUERY_ADAPTER, RE_EMBED))

    def test_the_whole_interval_counts(self):
        """The mean is equal, but the interval reaches below: the cheaper option is not shown to be as good."""
        noisy = {**self.DEV, QUERY_ADAPTER: self.DEV[RE_EMBED] + np.tile([0.4, -0.4001], 200)}
        decision = self.decide(noisy)
        assert decision.recommended == RE_EMBED
        assert decision.undecided() == [QUERY_ADAPTER]
        assert self.decide(noisy, tolerance=0.1).recommended == QUERY_ADAPTER

    def test_a_large_tolerance_keeps_the_old_model(self):
        assert self.decide(tolerance=0.5).recommended == STAY

    def test_without_a_proven_gain_you_stay(self):
        """The best one is 0.01 better than staying on average, and the interval reaches below 0."""
        unproven = {
            **self.DEV,
            RE_EMBED: self.DEV[STAY] + np.tile([0.4, -0.38], 200),
            QUERY_ADAPTER: self.DEV[STAY] - 0.1,
        }
        decision = self.decide(unproven)
        assert (decision.best, decision.candidate, decision.recommended) == (RE_EMBED, RE_EMBED, STAY)
        retired = self.decide(unproven, can_stay=False)
        assert retired.recommended == RE_EMBED
        budgets = {"tolerance": 0.01, "probe_budget": 0.03}
        assert check(decision, unproven, {}, **budgets).checks == {"not worse than re-embed": "unsure"}
        assert check(retired, unproven, {}, can_stay=False, **budgets).checks == {}

    def test_five_queries_prove_no_gain(self):
        few = {name: values[:5] for name, values in self.DEV.items()}
        assert self.decide(few).candidate == QUERY_ADAPTER and self.decide(few).recommended == STAY
        assert self.decide({name: values[:6] for name, values in self.DEV.items()}).recommended == QUERY_ADAPTER

    def test_a_retired_model_is_never_recommended(self):
        better = {**self.DEV, STAY: self.DEV[RE_EMBED] + 0.1}
        assert self.decide(better).recommended == STAY
        assert self.decide(better, can_stay=False).recommended == QUERY_ADAPTER

    def test_what_forgets_is_left_out(self, rng):
        stay = rng.random(100)
        drop = paired_difference(stay - 0.2, stay)
        decision = self.decide(forgetting={STAY: paired_difference(stay, stay), QUERY_ADAPTER: drop})
        assert decision.forgetting == (QUERY_ADAPTER,)
        assert decision.recommended == RE_EMBED
        decision = self.decide(forgetting={QUERY_ADAPTER: drop}, probe_budget=0.3)
        assert decision.recommended == QUERY_ADAPTER

    def test_the_gate_fails_if_test_contradicts_dev(self):
        decision = self.decide()
        budgets = {"tolerance": 0.01, "probe_budget": 0.03}
        assert check(decision, self.DEV, {}, **budgets).verdict == "pass"
        worse = {**self.DEV, QUERY_ADAPTER: self.DEV[STAY] - 0.1}
        verdict = check(decision, worse, {}, **budgets)
        assert verdict.verdict == "fail"
        assert verdict.checks == {"not worse than re-embed": "fail", "not worse than stay": "fail"}


class TestCosts:
    OPTION = Option("x", "x", lambda spaces: spaces.new, NEW, 0.25)

    def cost(self, option=OPTION, **changes):
        arguments = {"documents": 1_000_000, "sample": 5_000, "rates": {}, "per_day": None, "dim": 10}
        return cost_of(option, **{**arguments, **changes})

    def test_by_hand(self):
        found = self.cost(rates={NEW: Rate(100, 0.002)}, per_day=50_000)
        assert found == Cost(250_000, 2_500 / 3_600, 500.0, 5.0, 5.0, 40_000_000)

    def test_without_a_daily_limit_the_speed_counts(self):
        assert self.cost(rates={NEW: Rate(2.5)}).days == 100_000 / 86_400

    def test_an_adapter_encodes_its_sample_and_mixes_nothing(self):
        adapter = replace(self.OPTION, share=0.0, fits_map=True)
        assert self.cost(adapter, rates={NEW: Rate(100)}).documents == 5_000
        assert self.cost(adapter, rates={NEW: Rate(100)}).mixed_days == 0
        assert self.cost(adapter, documents=10).documents == 10

    def test_what_is_unknown_is_none(self):
        found = self.cost()
        assert (found.hours, found.price, found.days, found.mixed_days) == (None, None, None, None)
        stays = self.cost(replace(self.OPTION, share=0.0))
        assert (stays.documents, stays.hours, stays.days) == (0, 0.0, 0.0)


def test_an_api_is_not_timed_and_has_a_price():
    """A third of the bytes are tokens: 3 for "fracture" and 2 for "heart"; 2 per million."""
    model = ApiModel.parse("openai:m@http://127.0.0.1:9/v1?price=2")
    assert advising.rate_of(model, ["fracture", "heart"]) == Rate(None, pytest.approx(2 * 2.5 / 1e6))
    assert advising.rate_of(model, ["fracture"], 7.0).texts_per_second == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [("documents", 0), ("per_day", 0), ("sample", 1), ("share", 1.0), ("share", float("nan")), ("tolerance", -0.1),
     ("tolerance", float("nan")), ("probe_budget", float("inf")), ("seed", -1)],
)  # fmt: skip
def test_settings_out_of_range(name, value):
    with pytest.raises(ParameterError, match=name):
        Settings(**{name: value})


def test_one_query_is_too_few(rng):
    dev, test, _ = splits(rng, old_noise=0.3, new_noise=0.1, relation=lambda x: x)
    one = replace(dev.spaces.old, query_ids=("q0",), queries=dev.spaces.old.queries[:1])
    with pytest.raises(DataError, match="fewer than two"):
        compare(Judged(Spaces(one, one), {"q0": {"d0": 1}}), test)


class TestReport:
    @pytest.fixture
    def result(self, rng) -> Comparison:
        turn = rotation(rng)
        return compared(
            splits(rng, old_noise=0.35, new_noise=0.1, relation=lambda x: unit(x @ turn)),
            documents=10**6,
            per_day=10**4,
        )

    def test_json_is_complete_and_holds_no_nan(self, result):
        content = json.loads(json.dumps(result.as_json(), allow_nan=False))
        assert [row["option"] for row in content["rows"]] == [
            STAY, QUERY_ADAPTER, DOCUMENT_ADAPTER, PARTLY, RE_EMBED
        ]  # fmt: skip
        assert content["rows"][4]["cost"] == {
            "documents": 10**6, "hours": 10**6 / 50 / 3600, "price": None, "days": 100.0, "mixed_days": 100.0,
            "index_bytes": 10**6 * DIM * 4,
        }  # fmt: skip
        assert content["queries"] == {"dev": QUERIES, "test": QUERIES, "probe": QUERIES}

    def test_words(self, result):
        text = " ".join(advice(result))
        assert "Recommended: map the new model's query vectors into the old index." in text
        assert "400 documents to encode" in text and "Gate on test: pass" in text

    def test_words_of_what_is_not_shown(self, rng):
        """Few queries: the best one has no proven gain, and cheaper ones may be as good."""
        turn = rotation(rng)
        judged = splits(rng, old_noise=0.5, new_noise=0.0, relation=lambda x: unit(x @ turn))
        for row, part in enumerate(judged):  # noise of its own: the models fail on different queries
            queries = unit(part.spaces.new.queries + 0.49 * rng.normal(size=(QUERIES, DIM)))
            judged[row] = Judged(replace(part.spaces, new=replace(part.spaces.new, queries=queries)), part.qrels)
        stays, retired = (advice(compared(judged, can_stay=can_stay)) for can_stay in (True, False))
        assert stays[0] == "Recommended: stay with the old model."
        assert "a gain is not shown. More than 300 dev queries may show one" in stays[1]
        assert retired[0] != stays[0] and "perhaps as good: stay" not in " ".join(retired)

    def test_table_marks_the_choice_and_the_front(self, result):
        rows = [dict(zip(HEADER, cells, strict=True)) for cells in table_rows(result.as_json()["rows"], QUERY_ADAPTER)]
        assert rows[1]["option"] == f"→ {QUERY_ADAPTER}"
        assert rows[0]["Pareto front"] == "yes"  # it costs nothing
        assert rows[3]["Pareto front"] == ""  # half re-embedded: the adapter is as good and cheaper
        assert rows[4]["share of re-embedding"] == "1.000 [1.000, 1.000]"
        assert rows[4]["mixed days"] == "100"


OLD_NAME, NEW_NAME = "all-MiniLM-L6-v2", "all-MiniLM-L6-v2?max_seq_length=6"


class TestCommand:
    @pytest.fixture
    def call(self, tmp_path, monkeypatch):
        monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
        monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))

        def run(*arguments):
            return CliRunner().invoke(cli.app, ["advise", *arguments], terminal_width=200)

        return run

    def test_table_words_and_report(self, call, tmp_path):
        report = tmp_path / "reports" / "migration.json"
        options = ("--dataset", "icd10cm:smoke", "--probe", "", "--documents", "1000000", "--per-day", "50000")
        done = call("--old", OLD_NAME, "--new", NEW_NAME, *options, "--report", str(report))
        content = json.loads(report.read_text())
        assert done.exit_code == (3 if content["verdict"]["verdict"] == "fail" else 0), (done.output, done.exception)
        assert (content["old"], content["new"]) == (OLD_NAME, NEW_NAME)
        of = {row["option"]: row for row in content["rows"]}
        assert of[RE_EMBED]["cost"]["days"] == 20 and of[RE_EMBED]["cost"]["hours"] > 0
        assert of[STAY]["test"]["n"] == of[RE_EMBED]["test"]["n"] > 10
        assert of[RE_EMBED]["forgetting"] is None
        assert content["advice"][0] in done.output and "Costs" in done.output

    def test_the_report_has_a_place_of_its_own(self, call, tmp_path, monkeypatch, rng):
        judged = splits(rng, old_noise=0.3, new_noise=0.1, relation=lambda x: x)
        monkeypatch.setattr(advising, "advise", lambda *_, settings, **__: compare(*judged[:2], settings=settings))
        secret = "openai:m@http://me:secret-word@127.0.0.1:9/v1"
        done = call("--old", "a", "--new", secret, "--dataset", "x")
        assert done.exit_code == 0, (done.output, done.exception)
        (file,) = (tmp_path / "results" / "mine").glob("migration-*.json")
        assert "secret-word" not in file.read_text() + done.output

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--old", OLD_NAME, "--new", OLD_NAME, "--dataset", "icd10cm:smoke"), "are the same model"),
            (("--old", OLD_NAME, "--new", "nosuchmodel", "--dataset", "icd10cm:smoke"), "cannot be loaded"),
            (("--old", OLD_NAME, "--new", NEW_NAME, "--dataset", "nope"), "unknown dataset"),
            (("--old", OLD_NAME, "--new", NEW_NAME, "--dataset", "icd10cm:smoke", "--probe", "sts:x"), "sts:x"),
            (("--old", OLD_NAME, "--new", NEW_NAME, "--dataset", "beir:TEST_ONLY"), "has no dev queries"),
        ],
    )
    def test_bad_input(self, call, arguments, message, tmp_path, monkeypatch):
        folder = tmp_path / "TEST_ONLY"
        (folder / "qrels").mkdir(parents=True)
        (folder / "corpus.jsonl").write_text('{"_id": "d", "text": "a document"}\n{"_id": "e", "text": "another"}\n')
        (folder / "queries.jsonl").write_text('{"_id": "q", "text": "a query"}\n')
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
        monkeypatch.chdir(tmp_path)
        done = call("--probe", "", *arguments)
        assert isinstance(done.exception, EmbedlabError), done.output
        assert message in str(done.exception)


class TestStudy:
    def test_old_pairs_that_reveal_held_out_queries_are_left_out(self):
        old = Dataset(
            name="old",
            corpus={"A": "alpha", "B": "beta", "C": "gamma", "D": "delta"},
            queries={"1": "first", "2": "Asked again", "3": "third", "4": "fourth", "5": "kappa"},
            qrels={"train": {"1": {"A": 1}, "2": {"B": 1}, "3": {"C": 1}, "4": {"D": 1}, "5": {"A": 1}}},
        )
        new = Dataset(
            name="new",
            corpus={"A": "alpha", "C": "new name", "E": "Delta", "F": "Kappa"},
            queries={"7": "asked AGAIN", "8": "x", "9": "y", "10": "z"},
            qrels={"dev": {"7": {"A9": 1}, "10": {"F": 1}}, "test": {"8": {"C": 1}, "9": {"E": 1}}},
        )
        new = replace(new, corpus={**new.corpus, "A9": "other"})
        # 2 is asked again, 3 has a held-out code, 4 and 5 share a text with one.
        assert untouched_pairs(old, new) == [("1", "A")]

    def test_counts(self):
        counts = count_changes({"A": "a", "B": "b", "C": "c"}, {"B": "b", "C": "d", "D": "a"})
        assert counts == {"old": 3, "new": 3, "added": 1, "deleted": 1, "revised": 1, "to_encode": 1}

    def test_the_pages_have_the_committed_numbers(self):
        """After new measurements, run `python -m experiments.migrations --tables`."""
        result = json.loads((ROOT / "results" / "migrations.json").read_text(encoding="utf-8"))
        for page in study_tables.pages():
            text = page.read_text(encoding="utf-8")
            assert "<!-- migrations, " in text
            assert study_tables.with_blocks(text, result) == text
