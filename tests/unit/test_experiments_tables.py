"""Tables: complete, stable, honest about what they mix, and rebuilt by many at once without a torn file."""

from __future__ import annotations

import multiprocessing

import pandas as pd
import pytest

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.reporting import tables
from embedlab.runs import records
from embedlab.runs.records import MetricRow, Record


def row(model="tuned", metric="ndcg@10", value=0.5, dim=None, split="test", task="retrieval", **fields):
    return MetricRow(task=task, split=split, model=model, metric=metric, value=value, dim=dim, n=9, **fields)


def commit(run_id: str, *rows: MetricRow, parameters=None, **fields) -> None:
    parameters = {"seed": 0, **(parameters or {})}
    record = Record(run_id=run_id, notebook="nb", parameters=parameters, metrics=list(rows or [row()]), **fields)
    assert records.commit(record, paths.runs_dir() / run_id)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    return tmp_path


def rebuilt() -> bytes:
    """Both tables of all runs, end to end."""
    return b"".join(path.read_bytes() for path in tables.rebuild_tables())


def test_the_tables_hold_every_row_sorted_by_run_and_are_the_same_when_rebuilt():
    commit("nb-0000000b-s0", row(value=0.25, ci_low=0.2, ci_high=0.3), parameters={"lr": 1e-4, "dims": [384, 64]})
    commit("nb-0000000a-s1", row("base"), row("tuned", value=None), parameters={"seed": 1})
    assert rebuilt() == rebuilt()
    runs, metrics = pd.read_csv(paths.runs_csv()), pd.read_csv(paths.metrics_csv())
    assert runs["run_id"].tolist() == ["nb-0000000a-s1", "nb-0000000b-s0"] and runs["seed"].tolist() == [1, 0]
    frame = metrics.merge(runs, on="run_id", validate="many_to_one")
    assert frame["run_id"].tolist() == ["nb-0000000a-s1", "nb-0000000a-s1", "nb-0000000b-s0"]
    assert frame["model"].tolist() == ["base", "tuned", "tuned"]
    assert frame["value"].isna().tolist() == [False, True, False]  # a missing metric is no 0
    assert frame["seed"].tolist() == [1, 1, 0]
    assert frame.loc[2, ["p.lr", "p.dims", "ci_low", "ci_high"]].tolist() == [1e-4, "384 64", 0.2, 0.3]
    assert {path.name for path in paths.experiments_dir().iterdir()} == {"runs.csv", "metrics.csv"}


def test_numbers_have_seven_digits_large_and_small_ones_too():
    commit("nb-0000000a-s0", row(value=2 / 3, ci_low=2e-8 / 3, ci_high=90_868_376.0))
    line = tables.rebuild_tables()[1].read_text().splitlines()[1]
    assert "0.6666667,6.666667e-09,9.086838e+07" in line


def test_no_runs_make_empty_tables():
    runs, metrics = map(pd.read_csv, tables.rebuild_tables())
    assert len(runs) == len(metrics) == 0
    assert list(runs.columns) == list(tables.RUN_COLUMNS)
    assert list(metrics.columns) == ["run_id", *tables.METRIC_COLUMNS]


def test_damaged_records_are_set_aside_and_replaced_runs_left_alone(caplog):
    for run_id in ("nb-0000000a-s0", "nb-0000000b-s0", "nb-0000000c-s0"):
        commit(run_id)
    damaged = paths.runs_dir() / "nb-0000000b-s0"
    (damaged / records.FILE).write_bytes((damaged / records.FILE).read_bytes()[:-9])
    old = paths.runs_dir() / f"nb-0000000c-s0{records.OLD}abcdef"
    (paths.runs_dir() / "nb-0000000c-s0").rename(old)
    (paths.runs_dir() / "notes.txt").write_text("no run")
    assert [record.run_id for record in tables.all_records()] == ["nb-0000000a-s0"]
    assert "nb-0000000b-s0" in caplog.text and "set aside" in caplog.text
    assert [path.name for path in old.iterdir()] == [records.FILE]


def _rebuild(times: int) -> None:
    for _ in range(times):
        tables.rebuild_tables()


def test_rebuilding_at_the_same_time_never_leaves_a_torn_file():
    for number in range(30):
        commit(f"nb-{number:08x}-s0")
    expected = rebuilt()
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_rebuild, args=(15,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert paths.runs_csv().read_bytes() + paths.metrics_csv().read_bytes() == expected
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    assert {path.name for path in paths.experiments_dir().iterdir()} == {"runs.csv", "metrics.csv"}


def test_headline_by_hand():
    rows = [
        row("bm25", value=0.25, ci_low=0.2, ci_high=0.3),
        row("tuned", value=0.5, dim=384),
        row("tuned", "recall@10", value=None, dim=384),
        row("tuned", "mrr@10", value=0.9, dim=384),
    ]
    frame = tables.headline(rows, ("ndcg@10", "recall@10", "recall@100"))
    assert frame.to_dict("list") == {
        "model": ["bm25", "tuned"],
        "dim": ["", "384"],
        "ndcg@10": ["0.250 [0.200, 0.300]", "0.500"],
        "recall@10": ["", "missing"],
    }
    assert tables.headline([], ("ndcg@10",)).empty


def test_headline_keeps_splits_and_tasks_apart():
    rows = [row(value=0.1, split="dev"), row(value=0.2), row(value=0.3, task="transfer")]
    frame = tables.headline(rows, ("ndcg@10",))
    assert frame[["task", "split", "ndcg@10"]].values.tolist() == [
        ["retrieval", "dev", "0.100"],
        ["retrieval", "test", "0.200"],
        ["transfer", "test", "0.300"],
    ]


def frame_of_three() -> pd.DataFrame:
    commit("nb-0000000a-s0", row(value=0.1, dim=384), parameters={"lr": 1e-4, "what": "1e-4"})
    commit("nb-0000000b-s0", row(value=None), parameters={"lr": 2e-4, "flag": True})
    commit("nb-0000000c-s0", row(value=0.3, dim=64), parameters={"lr": 1e-4})
    return tables.runs_frame(tables.all_records())


@pytest.mark.parametrize(
    "filters, found",
    [
        (["lr=1e-4"], "ac"),
        (["p.lr=0.0001", "dim=64"], "c"),
        (["what=1e-4"], "a"),
        (["what=0.0001"], ""),
        (["flag=True"], "b"),
        (["dim=text"], ""),
        (["model=tuned"], "abc"),
    ],
)
def test_filters_mean_what_a_person_types(filters, found):
    frame = tables.select(frame_of_three(), filters, None)
    assert [run_id[len("nb-0000000")] for run_id in frame["run_id"]] == list(found)


def test_sorted_largest_first_with_missing_values_last_and_unknown_columns_refused():
    frame = frame_of_three()
    assert tables.select(frame, [], "value")["run_id"].tolist() == [f"nb-0000000{x}-s0" for x in "cab"]
    with pytest.raises(ParameterError, match="there is no column 'valeu'"):
        tables.select(frame, [], "valeu")


def test_mixed_environments_versions_and_dirty_trees_are_said():
    same = {"versions": {"torch": "2.1"}, "commit": "aaa", "dirty": False, "hardware": {"cpu": "X"}}
    commit("nb-0000000a-s0", row(), row("base"), **same)
    commit("nb-0000000b-s0", **same)
    assert tables.mixtures(tables.runs_frame(tables.all_records())) == []
    commit("nb-0000000c-s0", versions={"torch": "2.2"}, commit="bbb", dirty=True, hardware={"cpu": "X"})
    found = tables.mixtures(tables.runs_frame(tables.all_records()))
    assert [text.partition(":")[0] for text in found[:2]] == [
        "these runs mix 2 environments",
        "these runs mix 2 code versions",
    ]
    assert "torch 2.1" in found[0] and "torch 2.2" in found[0] and "aaa; bbb" in found[1]
    assert "uncommitted changes" in found[2] and len(found) == 3


def test_written_table_is_csv_and_github_markdown():
    frame = pd.DataFrame({"name": ["a|b", None], "value": [0.5, None], "run": ["r", "r"]})
    path = tables.write_table(frame, "demo", hide=("run",), caption="Run `r`.")
    assert path.read_text() == "name,value,run\na|b,0.5,r\n,,r\n"
    assert path.with_suffix(".md").read_text() == (
        "| name | value |\n| --- | ---: |\n| a\\|b | 0.5 |\n|  |  |\n\nRun `r`.\n"
    )
