"""The headline: what experiments/headline.yaml declares, averaged over seeds and paired by query."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.evaluation.significance import bootstrap_ci, paired_difference
from embedlab.reporting import headline_views
from embedlab.reporting.headline import headline, read_headline
from embedlab.runs import records
from embedlab.runs.records import MetricRow, Record

DATA = "icd10cm:full"
QUERIES = [f"q{number}" for number in range(40)]
BASE_RUN, TUNED_RUNS = "01_a-00000000-s0", ["03_b-22222222-s0", "03_b-22222222-s1"]
COMPRESSED_RUN, STATIC_RUN = "05_c-33333333-s1", "06_d-44444444-s1"


def scores(level: float, salt: int) -> np.ndarray:
    return np.clip(level + np.random.default_rng(salt).normal(0, 0.1, len(QUERIES)), 0, 1)


def commit(run_id: str, *, scored, values=(), dataset=DATA) -> None:
    """A run with per-query values: scored is (system, condition, dim, stage) -> (Q,)."""
    rows = [
        MetricRow(
            system=system,
            technique="x",
            condition=condition,
            dim=dim,
            stage=stage,
            split="test",
            metric="ndcg@10",
            value=float(of.mean()),
            n=len(of),
        )
        for (system, condition, dim, stage), of in scored.items()
    ]
    rows += [
        MetricRow(system=system, technique="x", condition=condition, stage=stage, metric=metric, value=value)
        for metric, system, condition, stage, value in values
    ]
    seed = int(run_id.rpartition("-s")[2])
    record = Record(
        run_id=run_id, notebook=run_id.partition("-")[0], parameters={"seed": seed, "dataset": dataset}, metrics=rows
    )
    folder = paths.runs_dir() / run_id
    assert records.commit(record, folder)
    frames = [
        pd.DataFrame({"query_id": QUERIES, "ndcg@10": of, "system": system, "condition": condition, "dim": dim}).assign(
            stage=stage, task="retrieval", split="test"
        )
        for (system, condition, dim, stage), of in scored.items()
    ]
    pd.concat(frames).to_parquet(folder / "per_query.parquet")


BM25, BASE = scores(0.3, 1), scores(0.4, 2)
TUNED = {seed: scores(0.55, 10 + seed) for seed in (0, 1)}
CUT, SIGNS, STATIC, SHALLOW = scores(0.5, 20), scores(0.52, 21), scores(0.6, 22), scores(0.48, 23)
ROWS = [
    {"label": "BM25", "system": "bm25", "runs": [BASE_RUN], "readme": True, "figure": True},
    {"label": "base model", "system": "base", "runs": [BASE_RUN], "readme": True, "figure": True},
    {
        "label": "contrastive",
        "system": "contrastive",
        "runs": TUNED_RUNS,
        "speed": [STATIC_RUN],
        "compressed": [COMPRESSED_RUN],
        "plain": "fine-tuned",
        "readme": True,
        "figure": True,
    },
    {"label": "shallow", "system": "contrastive", "condition": "3 layers", "runs": [COMPRESSED_RUN]},
    {"label": "static", "system": "static", "runs": [STATIC_RUN], "readme": True, "figure": True},
]


def declare(*rows: dict, **group) -> None:
    content = {"groups": [{"dataset": DATA, "title": "Codes", "rows": list(rows), **group}]}
    (paths.experiments_dir() / "headline.yaml").write_text(yaml.safe_dump(content))


def table() -> pd.DataFrame:
    return headline(read_headline()[0])


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / ".cache"))
    (tmp_path / "experiments").mkdir()
    plain = ("", 384, "retrieval")
    commit(BASE_RUN, scored={("bm25", "", None, "retrieval"): BM25, ("base", *plain): BASE})
    for run_id, of in zip(TUNED_RUNS, TUNED.values(), strict=True):
        commit(run_id, scored={("contrastive", *plain): of, ("contrastive", "", 64, "retrieval"): CUT})
    signs = ("contrastive", "signs 384, rescored", None, "quantised")
    commit(
        COMPRESSED_RUN,
        scored={signs: SIGNS, ("contrastive", "3 layers", 384, "retrieval"): SHALLOW},
        values=[("bytes in memory", *signs[:2], "quantised", 48)],
    )
    speeds = (("base", 400), ("contrastive", 500), ("static", 40000))
    commit(
        STATIC_RUN,
        scored={("static", *plain): STATIC},
        values=[("texts_per_second", system, "", "footprint", speed) for system, speed in speeds],
    )
    declare(*ROWS)
    return tmp_path


def row_of(label, dim=384, stage="retrieval"):
    rows = table()
    (found,) = rows[(rows["label"] == label) & (rows["stage"] == stage) & (rows["dim"].fillna(0) == dim)].to_dict(
        "records"
    )
    return found


def test_rows_are_those_of_the_file_in_its_order(home):
    rows = table()
    assert list(rows["label"].unique()) == [row["label"] for row in ROWS]
    assert row_of("base model")["value"] == pytest.approx(BASE.mean())
    assert row_of("shallow")["value"] == pytest.approx(SHALLOW.mean())


def test_seeds_are_averaged_per_query_before_intervals_and_pairing(home):
    in_order = np.argsort(QUERIES)  # as per_query values are
    row, mean = row_of("contrastive"), ((TUNED[0] + TUNED[1]) / 2)[in_order]
    interval, gain = bootstrap_ci(mean), paired_difference(mean, BASE[in_order])
    assert (row["seeds"], row["n"], row["runs"]) == (2, len(QUERIES), " ".join(TUNED_RUNS))
    assert [row[name] for name in ("value", "ci_low", "ci_high")] == pytest.approx(
        [interval.mean, interval.low, interval.high]
    )
    assert [row[name] for name in ("difference", "difference_low", "difference_high", "p")] == pytest.approx(
        [gain.mean, gain.low, gain.high, gain.p_value]
    )


def test_costs(home):
    assert row_of("contrastive", 64)["bytes"] == 256
    compressed = row_of("contrastive", 0, "quantised")
    assert (compressed["bytes"], compressed["value"]) == (48, pytest.approx(SIGNS.mean()))
    assert np.isnan(row_of("BM25", 0)["bytes"])
    speeds = table().dropna(subset="texts_per_second").set_index("label")["texts_per_second"].to_dict()
    assert speeds == {"base model": 400, "contrastive": 500, "static": 40000}


def test_a_slower_machine_makes_no_system_slower(home):
    slow = "06_d-55555555-s0"
    commit(
        slow,
        scored={("both", "", 384, "retrieval"): STATIC},
        values=[
            ("texts_per_second", system, "", "footprint", speed) for system, speed in (("base", 100), ("both", 150))
        ],
    )
    declare(*ROWS, {"label": "both", "system": "both", "runs": [slow]})
    speeds = table().dropna(subset="texts_per_second").set_index("label")["texts_per_second"].to_dict()
    assert speeds["base model"] == 250  # between 400 and 100
    assert (speeds["both"], speeds["static"]) == (1.5 * 250, 100 * 250)


def test_without_per_query_values_there_is_a_mean_and_no_interval(home):
    for run_id in TUNED_RUNS:
        (paths.runs_dir() / run_id / "per_query.parquet").unlink()
    row = row_of("contrastive")
    assert row["value"] == pytest.approx((TUNED[0].mean() + TUNED[1].mean()) / 2) and np.isnan(row["ci_low"])
    full = headline_views.full_table(table()).set_index("system")
    assert (
        full.loc["contrastive", "nDCG@10"] == f"{row['value']:.3f}" and full.loc["contrastive", "gain over base"] == ""
    )


def test_other_queries_are_not_paired(home):
    path = paths.runs_dir() / STATIC_RUN / "per_query.parquet"
    values = pd.read_parquet(path)
    values[values["query_id"] != "q0"].to_parquet(path)
    row = row_of("static")
    assert np.isnan(row["difference"]) and row["n"] == len(QUERIES) - 1


@pytest.mark.parametrize(
    "row, message",
    [
        ({"runs": ["03_b-99999999-s0"]}, "the run 03_b-99999999-s0 has no record"),
        ({"system": "stattic"}, "did not measure 'stattic' on the test queries. Their systems are static"),
        ({"condition": "4 bits"}, r"did not measure 'static' \(4 bits\)"),
        ({"label": "BM25"}, "two rows are called 'BM25'"),
        ({"runs": []}, "at least 1 item"),
        ({"runs": [STATIC_RUN], "sped": []}, "sped"),
        (
            {"system": "contrastive", "runs": [TUNED_RUNS[0], COMPRESSED_RUN]},
            "not measured with 384 dim",
        ),
        ({"system": "contrastive", "runs": [TUNED_RUNS[1], COMPRESSED_RUN]}, "the same seed"),
        ({"system": "base", "runs": [BASE_RUN]}, "expected one row with the system 'base'"),
    ],
)
def test_a_declaration_that_does_not_fit_is_one_clear_error(home, row, message):
    declare(*ROWS[:4], {**ROWS[4], **row})
    with pytest.raises(ParameterError, match=message):
        table()


def test_more_training_pairs_leave_the_test_as_it_is(home):
    expected = table()
    declare(*ROWS, dataset=f"{DATA}?extra=glossary:terms.csv")
    pd.testing.assert_frame_equal(table(), expected)


def test_too_many_marked_rows_missing_file_and_other_datasets(home):
    declare(*ROWS, *({**ROWS[0], "label": f"row {number}"} for number in range(4)))
    with pytest.raises(ParameterError, match="8 rows have readme: true, at most 6 fit"):
        table()
    declare(*ROWS, dataset="icd10cm:small")
    with pytest.raises(ParameterError, match="used icd10cm:full, expected icd10cm:small"):
        table()
    (paths.experiments_dir() / "headline.yaml").write_text("rows: []")
    with pytest.raises(ParameterError, match="cannot read the groups"):
        table()
    (paths.experiments_dir() / "headline.yaml").unlink()
    with pytest.raises(ParameterError, match="the file does not exist"):
        table()


def test_published_tables(home):
    rows = table()
    full = headline_views.full_table(rows).set_index("system")
    assert full.index.is_unique and full.loc["contrastive", "dim"] == "384" and full.loc["BM25", "dim"] == ""
    assert full.loc["base model", "seeds"] == "" and full.loc["contrastive", "seeds"] == "2"
    assert full.loc["contrastive", "bytes per document"] == "1,536"
    assert full.loc["static", "texts per second"] == "40,000"
    short = headline_views.readme_table(rows)
    assert short["system"].tolist() == ["BM25", "base model", "fine-tuned", "static"]
    assert short["encoding speed"].tolist() == ["", "1.0 ×", "1.2 ×", "100 ×"]


def texts(figure) -> set[str]:
    return {text.get_text() for text in figure.axes[0].texts}


def test_fronts_and_figures(home):
    rows = table()
    figure, points = headline_views.quality_figure(rows, "bytes")
    best = points[points["front"]].sort_values("bytes")
    assert best["bytes"].tolist() == [48, 1536] and best["value"].is_monotonic_increasing
    assert {"BM25", "base model", "contrastive", "static"} <= texts(figure) and "shallow" not in texts(figure)
    assert not figure.legends  # labels stand next to the lines
    figure, fast = headline_views.quality_figure(rows, "texts_per_second")
    assert set(fast[fast["front"]]["label"]) == {"static"} and len(fast) == 3
    assert "static is both the best and the fastest." in texts(figure)


def test_writing_fills_readme_and_is_repeatable(home):
    (home / "README.md").write_text("a\n<!-- table headline -->\n<!-- end -->\n")
    written = headline_views.write_headline()
    assert {path.name for path in written} >= {
        "headline.csv",
        "headline.md",
        "headline_quality_by_bytes.png",
        "headline_quality_by_texts_per_second.csv",
    }
    first = {path: path.read_bytes() for path in written}
    readme = (home / "README.md").read_text()
    assert "| fine-tuned |" in readme and "shallow" not in readme
    assert "shallow" in (paths.tables_dir() / "headline.md").read_text()
    headline_views.write_headline()
    assert {path: path.read_bytes() for path in written} == first
