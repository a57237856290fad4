"""The headline: systems told apart by fingerprints, named by their way, averaged over seeds, paired by query."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from embedlab import paths
from embedlab.errors import RecordError
from embedlab.evaluation.significance import bootstrap_ci, paired_difference
from embedlab.reporting import headline_views
from embedlab.reporting.headline import headline
from embedlab.runs import records
from embedlab.runs.records import MetricRow, Record

DATA = "icd10cm:full"
QUERIES = [f"q{number}" for number in range(40)]


def scores(level: float, salt: int) -> np.ndarray:
    return np.clip(level + np.random.default_rng(salt).normal(0, 0.1, len(QUERIES)), 0, 1)


def commit(
    notebook, key, seed=0, *, scored, models=(), values=(), dataset=DATA, finished="2026-01-01T00:00:00", **parameters
) -> str:
    """A run with per-query values: scored is (model, dim, task) -> (Q,), values are (metric, model, task, value)."""
    run_id = f"{notebook}-{key * 8}-s{seed}"
    rows = [
        MetricRow(task=task, split="test", model=model, dim=dim, metric="ndcg@10", value=float(of.mean()), n=len(of))
        for (model, dim, task), of in scored.items()
    ]
    rows += [
        MetricRow(task=task, split="", model=model, metric=metric, value=value) for metric, model, task, value in values
    ]
    rows.append(MetricRow(task="retrieval", split="test", model="tuned - base", metric="ndcg@10", value=0.1))
    record = Record(
        run_id=run_id,
        notebook=notebook,
        parameters={"seed": seed, "dataset": dataset, **parameters},
        metrics=rows,
        model_fingerprints=dict(models),
        finished=finished,
    )
    folder = paths.runs_dir() / run_id
    assert records.commit(record, folder)
    pd.concat(
        pd.DataFrame({"query_id": QUERIES, "ndcg@10": of, "task": task, "split": "test", "model": model, "dim": dim})
        for (model, dim, task), of in scored.items()
    ).to_parquet(folder / "per_query.parquet")
    return run_id


BM25, BASE, HYBRID, START = scores(0.3, 1), scores(0.4, 2), scores(0.45, 3), scores(0.35, 4)
TUNED = {seed: scores(0.55, 10 + seed) for seed in (0, 1)}
CUT, SIGNS, STATIC, SHALLOW = scores(0.5, 20), scores(0.52, 21), scores(0.6, 22), scores(0.48, 23)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / ".cache"))
    plain = "retrieval"
    commit(
        "01_diagnose", "0", scored={("base", None, plain): BASE, ("hybrid", None, plain): HYBRID}, model_name="base-1"
    )
    for seed, own in TUNED.items():
        start = commit(
            "04_domain_pretraining",
            "1",
            seed,
            scored={("base", 384, plain): BASE, ("tuned", 384, plain): START},
            models={"tuned": f"start{seed}"},
            model_name="base-1",
        )
        tuned = commit(
            "03_contrastive",
            "2",
            seed,
            scored={
                ("bm25", None, plain): BM25,
                ("base", 384, plain): START,  # the pre-trained start, no baseline
                ("tuned", 384, plain): own,
                ("tuned", 64, plain): CUT,
            },
            models={"tuned": f"tuned{seed}"},
            model_name=f"results/runs/{start}/model",
        )
    commit(
        "05_matryoshka",
        "3",
        1,
        scored={
            ("tuned", 384, plain): np.zeros(len(QUERIES)),  # never to be seen: the run that made it comes first
            ("tuned, 3 layers", 384, plain): SHALLOW,
            ("signs 384, rescored", None, "quantised"): SIGNS,
        },
        values=[("bytes in memory", "signs 384, rescored", "quantised", 48)],
        models={"tuned": "tuned1"},
        tuned_model=f"results/runs/{tuned}/model",
        model_name="base-1",
    )
    commit(
        "06_distillation",
        "4",
        1,
        scored={("teacher", None, plain): own, ("static", 384, plain): STATIC},
        values=[
            ("texts_per_second", model, "footprint", speed)
            for model, speed in (("base", 400), ("teacher", 500), ("static", 40000))
        ],
        models={"static": "static1"},
        teacher=f"results/runs/{tuned}/model",
        model_name="base-1",
    )
    return tmp_path


def row_of(table, system, form="", dim=384):
    (found,) = table[(table["system"] == system) & (table["form"] == form) & (table["dim"].fillna(0) == dim)].to_dict(
        "records"
    )
    return found


CHAIN = "domain pretraining → contrastive"


def test_systems_are_named_by_their_way_and_baselines_come_first(home):
    table = headline()
    assert list(table["system"].unique()) == [
        "bm25",
        "base",
        "hybrid",
        "domain pretraining",
        CHAIN,
        f"{CHAIN} → distillation: static",
    ]
    assert row_of(table, "base")["value"] == pytest.approx(BASE.mean())


def test_seeds_are_averaged_per_query_before_intervals_and_pairing(home):
    in_order = np.argsort(QUERIES)  # as per_query values are
    row, mean = row_of(headline(), CHAIN), ((TUNED[0] + TUNED[1]) / 2)[in_order]
    interval, gain = bootstrap_ci(mean), paired_difference(mean, BASE[in_order])
    assert (row["seeds"], row["n"]) == (2, len(QUERIES))
    assert [row[name] for name in ("value", "ci_low", "ci_high")] == pytest.approx(
        [interval.mean, interval.low, interval.high]
    )
    assert [row[name] for name in ("difference", "difference_low", "difference_high", "p")] == pytest.approx(
        [gain.mean, gain.low, gain.high, gain.p_value]
    )


def test_a_model_that_other_runs_measured_stays_one_system(home):
    table = headline()
    assert row_of(table, CHAIN, "signs 384, rescored", 0)["value"] == pytest.approx(SIGNS.mean())
    assert row_of(table, CHAIN, "3 layers")["value"] == pytest.approx(SHALLOW.mean())
    assert not (table["value"] == 0).any()


def test_costs(home):
    table = headline()
    assert row_of(table, CHAIN, dim=64)["bytes"] == 256
    assert row_of(table, CHAIN, "signs 384, rescored", 0)["bytes"] == 48
    assert np.isnan(row_of(table, "bm25", dim=0)["bytes"])
    speeds = table.dropna(subset="texts_per_second").set_index("system")["texts_per_second"].to_dict()
    assert speeds == {"base": 400, CHAIN: 500, f"{CHAIN} → distillation: static": 40000}


def commit_another(key, of, **parameters):
    commit(
        "03_contrastive",
        key,
        scored={("tuned", 384, "retrieval"): of},
        models={"tuned": f"other{key}"},
        model_name="results/runs/03_domain_pretraining-11111111-s0/model",
        **parameters,
    )


def test_settings_tell_runs_of_the_same_way_apart(home):
    commit_another("5", CUT, epochs=9)
    commit_another("6", CUT, epochs=3)
    names = set(headline()["system"])
    assert {CHAIN, f"{CHAIN} (epochs 3)", f"{CHAIN} (epochs 9)"} <= names


def test_what_most_runs_have_goes_without_saying_and_students_tell_their_teacher(home):
    for key, dims, seeds in (("5", [384], (0,)), ("6", [384, 64], (0, 1))):
        for seed in seeds:
            models, scored = {"tuned": f"m{key}{seed}"}, {("tuned", 384, "retrieval"): CUT}
            commit("03_contrastive", key, seed, scored=scored, models=models, matryoshka_dims=dims)
    commit(
        "06_distillation",
        "8",
        scored={("both", 384, "retrieval"): CUT},
        models={"both": "both8"},
        teacher="results/runs/04_contrastive-55555555-s0/model",
    )
    names = set(headline()["system"])
    assert {"contrastive", "contrastive (matryoshka_dims 384)"} <= names
    assert "contrastive (matryoshka_dims 384) → distillation: both" in names


def test_a_parameter_that_an_older_notebook_did_not_have_makes_no_other_system(home):
    """And of one seed the newest run counts."""
    commit_another("5", np.full(len(QUERIES), 0.9), epochs=9, finished="2026-11-21T12:00:00")
    row = headline().query("system == @CHAIN and dim == 384").iloc[0]
    assert row["seeds"] == 2 and row["runs"].split() == [
        "04_contrastive-55555555-s0",
        "04_contrastive-22222222-s1",
    ]
    assert row["value"] == pytest.approx((0.9 + TUNED[1].mean()) / 2)


def test_speeds_are_of_the_runs_that_count(home):
    commit(
        "06_distillation",
        "7",
        1,
        scored={("static", 384, "retrieval"): STATIC},
        values=[("texts_per_second", "static", "footprint", 90000)],
        models={"static": "static7"},
        teacher="results/runs/04_contrastive-22222222-s1/model",
        finished="2026-11-21T12:00:00",
    )
    row = headline().query("system == @CHAIN + ' → distillation: static'").iloc[0]
    assert (row["seeds"], row["texts_per_second"]) == (1, 90000)


def test_a_slower_machine_makes_no_system_slower(home):
    speeds = (("base", 100), ("both", 150))
    commit(
        "06_distillation",
        "8",
        1,
        scored={("both", 384, "retrieval"): STATIC},
        values=[("texts_per_second", model, "footprint", speed) for model, speed in speeds],
        models={"both": "both8"},
        teacher="all-MiniLM-L6-v2",
    )
    speeds = headline().dropna(subset="texts_per_second").set_index("system")["texts_per_second"].to_dict()
    assert speeds["base"] == 250  # between 400 and 100
    assert speeds["distillation: both"] == 1.5 * 250
    assert speeds[f"{CHAIN} → distillation: static"] == 100 * 250


def test_what_a_run_was_asked_to_make_does_not_name_its_systems(home):
    names = set(headline()["system"])
    commit(
        "06_distillation",
        "7",
        scored={("layers", 384, "retrieval"): CUT},
        models={"layers": "layers7"},
        students=["layers"],
        teacher="results/runs/04_contrastive-22222222-s0/model",
    )
    assert set(headline()["system"]) - names == {f"{CHAIN} → distillation: layers"}


@pytest.mark.parametrize("cut", [{"max_examples": 50}, {"max_steps": 3}])
def test_a_run_that_was_cut_short_is_no_system(home, cut):
    before = set(headline()["system"])
    scored = {("tuned", 384, "retrieval"): CUT}
    commit("03_contrastive", "6", scored=scored, models={"tuned": "another"}, **cut)
    assert set(headline()["system"]) == before
    commit("03_contrastive", "7", scored=scored, models={"tuned": "whole"}, **dict.fromkeys(cut, 0))
    assert set(headline()["system"]) > before


def test_other_data_and_queries_do_not_mix(home):
    assert headline("icd10cm:small").empty
    values = pd.read_parquet(path := paths.runs_dir() / "06_distillation-44444444-s1" / "per_query.parquet")
    values[values["query_id"] != "q0"].to_parquet(path)
    row = row_of(headline(), f"{CHAIN} → distillation: static")
    assert np.isnan(row["difference"]) and row["n"] == len(QUERIES) - 1


def test_without_per_query_values_there_is_a_mean_and_no_interval(home):
    for run_id in ("04_contrastive-22222222-s0", "04_contrastive-22222222-s1"):
        (paths.runs_dir() / run_id / "per_query.parquet").unlink()
    row = row_of(headline(), CHAIN)
    assert row["value"] == pytest.approx((TUNED[0].mean() + TUNED[1].mean()) / 2) and np.isnan(row["ci_low"])
    shown = headline_views.readable(headline()).set_index("system")
    assert shown.loc[CHAIN, "nDCG@10"] == f"{row['value']:.3f}" and shown.loc[CHAIN, "minus base"] == ""


def test_published_table_has_one_row_per_system(home):
    table = headline_views.readable(headline()).set_index("system")
    assert table.index.is_unique and table.loc[CHAIN, "dim"] == "384" and table.loc["bm25", "dim"] == ""
    assert table.loc["base", "seeds"] == "" and table.loc[CHAIN, "seeds"] == "2"
    assert table.loc[CHAIN, "bytes per document"] == "1,536"
    assert table.loc[f"{CHAIN} → distillation: static", "texts per second"] == "40,000"


def level_lines(figure) -> set[str]:
    """Baselines that are drawn at one level over the whole axis."""
    return {line.get_label() for line in figure.axes[0].lines} & {"bm25", "base", "hybrid"}


def test_fronts_and_figures(home):
    rows = headline()
    figure, points = headline_views.quality_figure(rows, "bytes")
    best = points[points["front"]].sort_values("bytes")
    assert best["bytes"].tolist() == [48, 1536] and best["value"].is_monotonic_increasing
    assert level_lines(figure) == {"bm25", "hybrid"}
    figure, fast = headline_views.quality_figure(rows, "texts_per_second")
    assert set(fast[fast["front"]]["system"]) == {f"{CHAIN} → distillation: static"}  # best and fastest
    assert len(fast) == 3 and level_lines(figure) == {"bm25", "hybrid"}  # base has a place of its own


def test_writing_fills_readme_and_is_repeatable(home):
    (home / "README.md").write_text("a\n<!-- table headline -->\n<!-- end -->\n")
    written = headline_views.write_headline()
    assert {path.name for path in written} >= {
        "headline.csv",
        "headline_quality_by_bytes.png",
        "headline_quality_by_texts_per_second.csv",
    }
    first = {path: path.read_bytes() for path in written}
    assert "domain pretraining → contrastive → distillation: static" in (home / "README.md").read_text()
    headline_views.write_headline()
    assert {path: path.read_bytes() for path in written} == first


def test_no_record_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / ".cache"))
    with pytest.raises(RecordError, match="no record measured anything"):
        headline_views.write_headline()
