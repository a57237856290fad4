"""The sweep table: every number by hand, nothing missing made a zero, the same whatever the order of the records."""

from __future__ import annotations

import random
import zlib

import numpy as np
import pandas as pd
import pytest

from embedlab import paths
from embedlab.reporting import sweep_table
from embedlab.reporting.pareto import pareto_front
from embedlab.reporting.sweep_data import SECONDS, View, collect
from embedlab.reporting.sweep_figures import quality_by_cost
from embedlab.reporting.sweep_table import readable, write_sweep_table
from embedlab.runs import records
from embedlab.runs.failures import NOT_STARTED, UNKNOWN, failures
from embedlab.runs.records import MetricRow, Record
from embedlab.runs.run import FAILED, write_failure
from embedlab.training.outcome import NOTHING_LEARNED

QUERIES = ("q1", "q2", "q3", "q4")
BASE = (0.0, 0.25, 0.25, 0.5)  # mean 0.25
SAME = {"versions": {"torch": "2"}, "commit": "aaa", "dirty": False, "data_fingerprint": "d1", "source_hash": "c1"}


def row(system="contrastive", value=0.5, metric="ndcg@10", dim=384, split="test", **fields):
    return MetricRow(system=system, technique="x", split=split, metric=metric, value=value, dim=dim, n=4, **fields)


def record(combination: str, seed: int, tuned=0.5, *, rows=(), seconds=10.0, threads=2, **fields) -> Record:
    """One run: `combination` is the learning rate; bm25 0.125, base 0.25, tuned as given."""
    content = {**SAME, "timings": {"train": seconds, "data": 99.0}, **fields}
    training = row(value=seconds, metric="training_seconds", dim=None, split="", stage="training")
    return Record(
        run_id=f"nb-{zlib.crc32(combination.encode()):08x}-s{seed}",
        notebook="nb",
        parameters={"seed": seed, "dataset": "d", "model_name": "m", "lr": float(combination), "epochs": 3},
        metrics=[row("bm25", 0.125, dim=None), row("base", 0.25), row(value=tuned), training, *rows],
        hardware={"cpu": "X", "threads": threads},
        **content,
    )


def keep_queries(one: Record, **systems: tuple[float, ...]) -> None:
    """per_query.parquet of a run, as `Run.finish` writes it."""
    frames = [
        pd.DataFrame(
            {"query_id": [f"q{n + 1}" for n in range(len(values))], "ndcg@10": values, "system": system, "dim": 384.0}
        )
        for system, values in systems.items()
    ]
    folder = paths.runs_dir() / one.run_id
    folder.mkdir(parents=True, exist_ok=True)
    place = {"task": "retrieval", "stage": "retrieval", "split": "test", "condition": ""}
    pd.concat(frames).assign(**place).to_parquet(folder / "per_query.parquet", index=False)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def sweep() -> list[Record]:
    """Two learning rates with three seeds each."""
    values = {
        ("1e-4", 0): 0.5,
        ("1e-4", 1): 0.6,
        ("1e-4", 2): 0.7,
        ("2e-4", 0): 0.4,
        ("2e-4", 1): 0.4,
        ("2e-4", 2): 0.4,
    }
    return [record(lr, seed, value, seconds=10.0 + seed) for (lr, seed), value in values.items()]


def table_of(found, **options) -> pd.DataFrame:
    return sweep_table.sweep_table(found, View(metrics=("ndcg@10",)), **options).frame


def test_means_and_standard_deviations_over_seeds_by_hand(sweep):
    frame = table_of(sweep, paired=False)
    assert frame["system"].tolist() == ["bm25", "base", "contrastive", "contrastive"]
    assert frame["p.lr"].tolist()[2:] == [1e-4, 2e-4] and frame["p.lr"].isna().tolist()[:2] == [True, True]
    assert frame["seeds"].tolist()[2:] == [3, 3] and frame["seeds"].isna()[:2].all()
    assert frame["ndcg@10"].tolist() == pytest.approx([0.125, 0.25, 0.6, 0.4])
    assert frame["ndcg@10 sd"].tolist()[2:] == pytest.approx([0.1, 0.0])  # sqrt((0.01 + 0 + 0.01) / 2)
    assert frame["seconds"].tolist()[2:] == [11.0, 11.0]  # of training alone
    assert frame["bytes"].tolist()[1:] == [1536.0] * 3 and np.isnan(frame["bytes"][0])
    assert [len(run_ids.split()) for run_ids in frame["runs"]] == [1, 1, 3, 3]
    assert list(frame.columns)[:2] == ["p.lr", "system"]  # what does not vary is no column


def test_a_row_is_the_mean_of_its_seeds_and_not_the_middle_one():
    """0.5, 0.5 and 0.8: mean 0.6, median 0.5, standard deviation sqrt((0.01 + 0.01 + 0.04) / 2)."""
    found = [record("1e-4", seed, value, seconds=seconds) for seed, value, seconds in
             ((0, 0.5, 10.0), (1, 0.5, 10.0), (2, 0.8, 40.0))]  # fmt: skip
    frame = table_of(found, paired=False)
    assert frame["ndcg@10"].tolist()[2:] == pytest.approx([0.6])
    assert frame["ndcg@10 sd"].tolist()[2:] == pytest.approx([0.03**0.5])
    assert frame["seconds"].tolist()[2:] == pytest.approx([20.0])


def test_no_limit_is_the_largest_limit():
    """max_steps = 0 trains to the end, so its row comes after 10 and 200."""
    found = []
    for number, steps in enumerate((200, 0, 10)):
        one = record("1e-4", 0)
        parameters = {**one.parameters, "max_steps": steps, "k": 5 - number}
        found.append(one.model_copy(update={"run_id": f"nb-{number:08x}-s0", "parameters": parameters}))
    frame = table_of(found, paired=False)
    assert frame["p.max_steps"].tolist()[2:] == [10, 200, 0]


def test_a_baseline_stands_once_although_the_models_have_other_names():
    """Two runs start from different trained models; what they measured of the base model is the same."""
    found = []
    for number, base in enumerate((0.25, 0.25, 0.3)):
        one = record(f"{number + 1}e-4", 0)
        metrics = [row("base", base) if metric.system == "base" else metric for metric in one.metrics]
        parameters = {**one.parameters, "model_name": f"model {number}"}
        found.append(one.model_copy(update={"parameters": parameters, "metrics": metrics}))
    frame = table_of(found, paired=False)
    assert frame["system"].tolist() == ["bm25", "base", "base", "contrastive", "contrastive", "contrastive"]
    assert frame["ndcg@10"].tolist()[:3] == [0.125, 0.25, 0.3]


def test_any_order_of_records_gives_the_same_table(sweep):
    expected = sweep_table.sweep_table(sweep, paired=False)
    for seed in range(5):
        shuffled = random.Random(seed).sample(sweep, len(sweep))
        found = sweep_table.sweep_table(iter(shuffled), paired=False)
        pd.testing.assert_frame_equal(found.frame, expected.frame)
        assert found.notes == expected.notes


def test_a_run_given_twice_counts_once(sweep):
    pd.testing.assert_frame_equal(table_of(sweep + sweep, paired=False), table_of(sweep, paired=False))


def test_paired_over_queries_after_averaging_seeds_with_holm_over_combinations(sweep):
    above = {"1e-4": (0.25, 0.25, 0.25, 0.25), "2e-4": (0.25, 0.25, -0.25, 0.25)}
    for one in sweep:
        gain = np.array(above[f"{one.parameters['lr']:.0e}".replace("e-04", "e-4")])
        luck = {0: 0.25, 1: -0.25, 2: 0.0}[one.parameters["seed"]]  # cancels over the seeds
        keep_queries(one, base=BASE, contrastive=tuple(np.array(BASE) + gain + luck))
    frame = table_of(sweep)
    assert frame["difference"].tolist()[2:] == pytest.approx([0.25, 0.125])
    # Of 16 sign patterns 2 are as extreme as four equal signs, and 10 as three against one.
    assert frame["p"].tolist()[2:] == pytest.approx([2 / 16, 10 / 16])
    assert frame["p_holm"].tolist()[2:] == pytest.approx([2 * 2 / 16, 10 / 16])
    assert frame["ci_low"][2] == pytest.approx(0.25) and frame["ci_low"][3] < 0.125 < frame["ci_high"][3]
    assert frame[["difference", "p", "p_holm"]][:2].isna().all(axis=None)


@pytest.mark.parametrize(
    "systems", [{}, {"contrastive": BASE}, {"base": BASE}, {"base": BASE, "contrastive": BASE[:3]}]
)
def test_without_the_same_queries_of_all_seeds_no_difference_is_shown(sweep, systems):
    for one in sweep:
        keep_queries(one, base=BASE, contrastive=BASE)
    (paths.runs_dir() / sweep[0].run_id / "per_query.parquet").unlink()
    if systems:
        keep_queries(sweep[0], **systems)
    table = sweep_table.sweep_table(sweep, View(metrics=("ndcg@10",)))
    assert table.frame["p"].isna().tolist() == [True, True, True, False]
    assert table.frame["p_holm"][3] == table.frame["p"][3] == 1.0  # and it is the only comparison
    assert any(note.startswith("not compared with base: 1 rows") for note in table.notes)


def test_queries_that_the_base_model_was_not_asked_are_no_pairs(sweep):
    for one in sweep:
        keep_queries(one, base=BASE, contrastive=BASE[:3])
    assert table_of(sweep)["p"].isna().all()


def test_compared_at_the_same_dimension_else_with_the_largest():
    one = record("1e-4", 0, rows=(row(value=0.4, dim=64), row(value=0.4, dim=32)))
    keep_queries(one, base=BASE, contrastive=BASE)
    path = paths.runs_dir() / one.run_id / "per_query.parquet"
    full, quarter = pd.read_parquet(path), pd.read_parquet(path)
    quarter["ndcg@10"] -= 0.25 * (quarter["system"] == "base")
    small = full[full["system"] == "contrastive"].assign(dim=32.0)
    pd.concat([full, quarter.assign(dim=64.0), small]).to_parquet(path, index=False)
    frame = sweep_table.sweep_table([one], View(metrics=("ndcg@10",), all_dims=True)).combinations
    assert frame["dim"].tolist() == [384, 64, 32]
    assert frame["difference"].tolist() == pytest.approx([0, 0.25, 0])


def test_torn_per_query_file_is_a_missing_one(sweep):
    for one in sweep:
        keep_queries(one, base=BASE, contrastive=BASE)
    file = paths.runs_dir() / sweep[0].run_id / "per_query.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    assert table_of(sweep)["p"].isna().tolist() == [True, True, True, False]


def test_a_null_metric_stays_missing_and_is_said():
    found = [record("1e-4", 0, None), record("2e-4", 0, 0.5), record("2e-4", 1, None)]
    table = sweep_table.sweep_table(found, View(metrics=("ndcg@10", "recall@10")), paired=False)
    assert table.frame["ndcg@10"].isna().tolist() == [False, False, True, False]
    assert table.frame["ndcg@10"][3] == 0.5  # of the seed that has one
    assert table.frame["recall@10"].isna().all()
    assert table.frame["pareto"].isna()[2]
    assert any(note.startswith("2 of 3 runs have no ndcg@10 on test") for note in table.notes)
    assert readable(table)["ndcg@10"].tolist() == ["0.125", "0.250", "", "0.500"]


def test_runs_without_the_split_or_task_leave_no_row_but_a_note():
    table = sweep_table.sweep_table([record("1e-4", 0)], View(split="dev"), paired=False)
    assert table.frame.empty and any("1 of 1 runs have no ndcg@10 on dev" in note for note in table.notes)


def test_other_code_or_data_is_another_row_and_no_seed():
    found = [record("1e-4", 0, 0.5), record("1e-4", 1, 0.7)]
    changed = [
        one.model_copy(update={"run_id": f"nb-{digits * 8}-s0", "source_hash": code, "data_fingerprint": data})
        for digits, code, data, one in (("a", "c2", "d1", found[0]), ("b", "c1", "d2", found[0]))
    ]
    frame = table_of(found + changed, paired=False)
    own = frame[frame["system"] == "contrastive"]
    assert own["seeds"].tolist() == [2, 1, 1]
    assert own[["code", "data"]].values.tolist() == [["c1", "d1"], ["c1", "d2"], ["c2", "d1"]]
    assert frame["system"].tolist().count("base") == 2  # one per data


def test_an_earlier_stages_model_differs_by_seed_and_is_one_combination():
    found = []
    for seed in (0, 1):
        one = record("1e-4", seed)
        parameters = {**one.parameters, "model_name": f"runs/03_domain-0123abcd-s{seed}/model"}
        found.append(one.model_copy(update={"parameters": parameters}))
    table = sweep_table.sweep_table(found, paired=False)
    assert table.parameters == [] and table.frame["seeds"].tolist()[2:] == [2]


def test_parameters_of_other_notebooks_do_not_vary():
    other = record("3e-4", 0).model_copy(
        update={"run_id": "other-00000000-s0", "notebook": "other", "parameters": {"seed": 0, "dataset": "d", "k": 5}}
    )
    table = sweep_table.sweep_table([record("1e-4", 0), record("1e-4", 1), other], paired=False)
    assert table.parameters == []
    assert table.frame[["notebook", "seeds"]].values.tolist()[-2:] == [["nb", 2], ["other", 1]]


def test_a_parameter_called_like_a_column_keeps_its_prefix_for_readers():
    found = [
        one.model_copy(update={"parameters": {**one.parameters, "system": one.run_id[:4]}})
        for one in (record("1e-4", 0), record("2e-4", 0))
    ]
    shown = readable(sweep_table.sweep_table(found, paired=False))
    assert (
        list(shown.columns)[:4] == ["lr", "p.system", "system", "dim"] and shown["system"].tolist()[-1] == "contrastive"
    )


def test_mixtures_warn(sweep):
    assert sweep_table.sweep_table(sweep, paired=False).notes == []
    mixed = sweep + [
        record("1e-4", 3, versions={"torch": "3"}),
        record("1e-4", 4, commit="bbb", dirty=True),
        record("1e-4", 5, threads=1),
        record("2e-4", 6, data_fingerprint="d2"),
    ]
    notes = "\n".join(sweep_table.sweep_table(mixed, paired=False).notes)
    for part in ("2 environments", "2 code versions", "uncommitted changes", "thread counts: 1, 2", "d (2 versions)"):
        assert part in notes
    assert "combinations have 1 to 6 seeds" in notes


def test_one_seed_and_a_moving_baseline_are_said(sweep):
    assert any(note.startswith("one seed each") for note in sweep_table.sweep_table(sweep[::3], paired=False).notes)
    moved = sweep[0].model_copy(update={"metrics": [row("base", 0.26), row(value=0.5)]})
    notes = sweep_table.sweep_table([moved, *sweep[1:]], paired=False).notes
    assert notes == ["the baseline base is not the same in all runs: ndcg@10 0.2500 to 0.2600"]


def test_dimensions_largest_alone_or_all_and_noted_bytes_before_float32():
    rows = (
        row(value=0.45, dim=64),
        row("base", 0.2, dim=64),
        row("contrastive", 100.0, "bytes_per_document", dim=64, stage="x"),
    )
    found = [record("1e-4", 0, rows=rows)]
    assert table_of(found, paired=False)["dim"].dropna().tolist() == [384, 384]
    frame = sweep_table.sweep_table(found, View(metrics=("ndcg@10",), all_dims=True), paired=False).frame
    assert frame["dim"].fillna(0).tolist() == [0, 384, 64, 384, 64]
    assert frame["bytes"].tolist()[1:] == [1536.0, 256.0, 1536.0, 100.0]
    assert frame["pareto"].tolist()[3:] == [True, True]  # better against smaller
    whole = record("1e-4", 0, rows=(row("contrastive", 48.0, "bytes_per_document", dim=None),))
    assert table_of([whole], paired=False)["bytes"].tolist()[1:] == [1536.0, 48.0]


def test_training_seconds_are_those_recorded_for_the_system_and_untrained_ones_have_none():
    rows = (
        row("static", 7.0, "training_seconds", dim=None, stage="training"),
        row("static", 0.2, dim=64),
        row("static", 0.3, condition="3 layers"),
        row("other", 0.3),
    )
    frame = table_of([record("1e-4", 0, rows=rows, seconds=5.0)], paired=False)
    names = frame["system"] + frame["condition"].map(lambda text: f", {text}" if text else "")
    seconds = dict(zip(names, frame["seconds"].fillna(-1), strict=True))
    assert seconds == {"bm25": -1, "base": -1, "other": -1, "contrastive": 5, "static": 7, "static, 3 layers": 7}


def test_other_tasks_are_other_tables():
    found = [
        record(
            "1e-4",
            0,
            0.5,
            rows=(
                row(value=0.9, task="transfer"),
                row(value=0.8, stage="search"),
            ),
        )
    ]
    assert table_of(found, paired=False)["ndcg@10"].tolist() == [0.125, 0.25, 0.5]
    transfer = sweep_table.sweep_table(found, View(task="transfer"), paired=False).frame
    assert transfer[["system", "ndcg@10"]].values.tolist() == [["contrastive", 0.9]]


def test_differences_between_systems_are_left_out():
    difference = row(value=0.25, statistic="difference", against="base")
    frame = table_of([record("1e-4", 0, 0.5, rows=(difference,))], paired=False)
    assert frame["ndcg@10"].tolist() == [0.125, 0.25, 0.5]


def test_conditions_are_rows_of_their_own():
    frame = table_of([record("1e-4", 0, 0.5, rows=(row(value=0.3, condition="3 layers"),))], paired=False)
    assert frame[["system", "condition"]].values.tolist()[2:] == [["contrastive", ""], ["contrastive", "3 layers"]]


def on(dataset: str, value: float, base: float, digits: str, seconds: float = 10.0, lr: str = "1e-4") -> Record:
    one = record(lr, 0, value, seconds=seconds, data_fingerprint=dataset)
    metrics = [row("base", base) if metric.system == "base" else metric for metric in one.metrics]
    parameters = {**one.parameters, "dataset": dataset}
    return one.model_copy(update={"run_id": f"nb-{digits * 8}-s0", "parameters": parameters, "metrics": metrics})


def test_datasets_have_their_own_baselines_and_pareto_marks_and_are_not_a_parameter():
    runs = [on("d", 0.5, 0.2, "a"), on("d", 0.6, 0.2, "b", 9.0, "2e-4"), on("e", 0.3, 0.1, "c", 99.0)]
    table = sweep_table.sweep_table(runs, View(metrics=("ndcg@10",)), paired=False)
    assert "dataset" not in table.parameters and table.datasets == ["d", "e"]
    assert list(table.frame.columns)[0] == "dataset"
    base = table.frame[table.frame["system"] == "base"]
    assert base[["dataset", "ndcg@10"]].values.tolist() == [["d", 0.2], ["e", 0.1]]
    assert table.combinations.set_index("dataset")["pareto"].tolist() == [False, True, True]  # e is alone, so best
    part = table.for_dataset("e")
    assert part.frame["ndcg@10"].tolist() == [0.125, 0.1, 0.3] and len(part.source.runs) == 1
    assert set(part.source.measured["run_id"]) == {"nb-cccccccc-s0"}
    assert set(table.for_dataset().frame["dataset"]) == {"d"}  # most runs
    assert readable(table)["dataset"].tolist().count("d") == 4


def test_equal_baselines_of_two_datasets_stay_two_rows():
    """Even when the datasets have one fingerprint, as records of before fingerprints do."""
    runs = [on(dataset, 0.5, 0.2, digit) for dataset, digit in (("d", "a"), ("e", "b"))]
    runs = [one.model_copy(update={"data_fingerprint": ""}) for one in runs]
    table = sweep_table.sweep_table(runs, View(metrics=("ndcg@10",)), paired=False)
    base = table.frame[table.frame["system"] == "base"]
    assert base["dataset"].tolist() == ["d", "e"]


def test_parameters_of_several_types_sort_as_text_and_missing_ones_keep_the_type():
    found = []
    for number, (start, cased) in enumerate((("b", True), (5, False), ("4 x", True))):
        one = record("1e-4", 0)
        parameters = {**one.parameters, "start": start, "cased": cased}
        found.append(one.model_copy(update={"run_id": f"nb-{number:08x}-s0", "parameters": parameters}))
    frame = table_of(found, paired=False)
    assert frame["p.start"].tolist()[2:] == ["4 x", 5, "b"]
    assert frame["p.cased"].dtype == "boolean" and frame["p.cased"].tolist()[2:] == [True, False, True]


def test_pareto_front_by_hand():
    frame = pd.DataFrame({"q": [0.5, 0.6, 0.6, 0.4, None, 0.9], "s": [10.0, 20, 30, 10, 1, None]})
    marks = pareto_front(frame, larger=("q",), smaller=("s",))
    assert marks[:4].tolist() == [True, True, False, False] and marks[4:].isna().all()
    assert pareto_front(frame.assign(s=np.nan), larger=("q",), smaller=("s",)).fillna(False).tolist() == [False] * 5 + [
        True
    ]
    assert pareto_front(frame[["q"]].assign(q=np.nan), larger=("q",)).isna().all()
    twins = pd.DataFrame({"q": [0.5, 0.5]})
    assert pareto_front(twins, larger=("q",)).all()  # equals do not beat each other


def test_files_are_written_anew_with_failures_below(sweep):
    lost = paths.runs_dir() / "nb-000000aa-s0" / "attempts"
    for attempt, cause in (("100-a", "kernel died"), ("200-b", "timeout")):
        (lost / attempt).mkdir(parents=True)
        write_failure(lost / attempt, "nb-000000aa-s0", cause, "line one\nline | two")
    for one in sweep:
        records.commit(one, paths.runs_dir() / one.run_id)
    ids = ["nb-000000aa-s0", "nb-000000bb-s0", *(one.run_id for one in sweep)]
    written = write_sweep_table("demo", sweep, run_ids=ids, paired=False)
    first = [path.read_bytes() for path in written]
    assert [path.name for path in written] == ["sweep-demo.md", "sweep-demo.csv", "sweep-demo.parquet"]
    assert [path.read_bytes() for path in write_sweep_table("demo", sweep[::-1], run_ids=ids, paired=False)] == first
    assert sorted(path.name for path in paths.my_tables_dir().iterdir()) == sorted(path.name for path in written)
    assert not paths.tables_dir().exists()  # the committed tables are not touched
    text = written[0].read_text()
    assert "| 0.0001 | contrastive | 384 | 3 | 0.600 ± 0.100 |" in text
    assert "Runs without a result (2):" in text
    assert "| nb-000000aa-s0 | 2 | timeout | line one line \\| two |" in text and f"| {NOT_STARTED} |" in text
    pd.testing.assert_frame_equal(pd.read_parquet(written[2]), sweep_table.sweep_table(sweep, paired=False).frame)
    assert pd.read_csv(written[1])["ndcg@10"].tolist() == pytest.approx([0.125, 0.25, 0.6, 0.4])


def test_failures_name_only_runs_without_a_record(sweep):
    records.commit(sweep[0], paths.runs_dir() / sweep[0].run_id)
    (paths.runs_dir() / sweep[0].run_id / "attempts" / "1-a").mkdir(parents=True)
    (paths.runs_dir() / "nb-000000cc-s0" / "attempts" / "1-a").mkdir(parents=True)
    frame = failures()
    assert frame.values.tolist() == [["nb-000000cc-s0", 1, UNKNOWN, ""]]
    (paths.runs_dir() / "nb-000000cc-s0" / "attempts" / "1-a" / FAILED).write_text("[]")
    assert failures()["cause"].tolist() == [UNKNOWN]
    assert failures(folder=paths.runs_dir() / "nowhere").empty


def test_nothing_makes_an_empty_table():
    table = sweep_table.sweep_table([])
    assert table.frame.empty and table.notes == [] and table.parameters == []
    assert [path.exists() for path in write_sweep_table("none", [])] == [True] * 3


def test_collecting_keeps_little_of_a_record():
    many = tuple(row(value=0.1, metric=f"ndcg@{k}") for k in range(100, 400))
    measured = collect([record("1e-4", 0, rows=many)]).measured
    assert measured["metric"].value_counts().to_dict() == {"ndcg@10": 3, SECONDS: 1}


class TestOutcomes:
    """A word for every difference; a model that learned nothing is no winner of a cheap comparison."""

    VALUES = {"1e-4": (0.5, 0.75, 0.75, 0.75), "2e-4": BASE, "3e-4": (0.0, 0.0, 0.0, 0.25), "4e-4": BASE[::-1]}

    @pytest.fixture
    def found(self) -> list[Record]:
        runs = []
        for lr, values in self.VALUES.items():
            # The model that learned nothing is the fastest: it would be on the Pareto front.
            runs.append(record(lr, 0, float(np.mean(values)), seconds=1.0 if lr == "2e-4" else 9.0))
            keep_queries(runs[-1], base=BASE * 10, contrastive=values * 10)  # four queries prove nothing
        return runs

    def test_words_by_hand(self, found):
        table = sweep_table.sweep_table(found, View(metrics=("ndcg@10",)))
        rows = table.combinations
        assert rows["outcome"].tolist() == ["better", NOTHING_LEARNED, "worse", "no difference shown"]
        assert rows["pareto"].fillna(False).tolist() == [True, False, False, False]
        assert readable(table)["outcome"].tolist() == ["", "", *rows["outcome"]]
        assert table.frame["outcome"].isna().tolist()[:2] == [True, True]  # baselines

    def test_the_figure_has_no_front_through_it(self, found):
        table = sweep_table.sweep_table(found, View(metrics=("ndcg@10",)))
        _, points = quality_by_cost(table, "seconds")
        assert points["front"].fillna(False).tolist() == [True, False, False, False]

    @pytest.mark.parametrize(
        ("notes", "outcome"),
        [
            ([{"": [NOTHING_LEARNED]}] * 2, NOTHING_LEARNED),
            ([{"contrastive": [NOTHING_LEARNED]}] * 2, NOTHING_LEARNED),
            ([{"static": [NOTHING_LEARNED]}] * 2, ""),
            ([{"": [NOTHING_LEARNED]}, {"": []}], ""),
            ([{"": ["few steps"]}] * 2, ""),
        ],
    )
    def test_notes_of_all_seeds_decide(self, notes, outcome):
        runs = [
            record("1e-4", seed, notes={"training": {name: dict.fromkeys(found, "x") for name, found in note.items()}})
            for seed, note in enumerate(notes)
        ]
        rows = sweep_table.sweep_table(runs, View(metrics=("ndcg@10",)), paired=False).combinations
        assert rows["outcome"].tolist() == [outcome]
        assert bool(rows["pareto"].fillna(False).iloc[0]) is not bool(outcome)
