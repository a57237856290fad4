"""Tables of runs: complete, open about what they mix, your own runs first."""

from __future__ import annotations

import pandas as pd
import pytest

from embedlab import paths
from embedlab.reporting import sweep_data, tables
from embedlab.runs import filters, records
from embedlab.runs.records import MetricRow, Record


def row(system="contrastive", metric="ndcg@10", value=0.5, dim=None, split="test", **fields):
    return MetricRow(system=system, technique="x", split=split, metric=metric, value=value, dim=dim, n=9, **fields)


def commit(run_id: str, *rows: MetricRow, parameters=None, **fields) -> None:
    parameters = {"seed": 0, **(parameters or {})}
    record = Record(run_id=run_id, notebook="nb", parameters=parameters, metrics=list(rows or [row()]), **fields)
    assert records.commit(record, paths.runs_dir() / run_id)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    return tmp_path


def test_the_frame_holds_every_row_sorted_by_run_with_parameters():
    commit("nb-0000000b-s0", row(value=0.25, ci_low=0.2, ci_high=0.3), parameters={"lr": 1e-4, "dims": [384, 64]})
    commit("nb-0000000a-s1", row("base"), row(value=None), parameters={"seed": 1, "dataset": "d"})
    frame = tables.runs_frame(tables.all_records())
    assert frame["run_id"].tolist() == ["nb-0000000a-s1", "nb-0000000a-s1", "nb-0000000b-s0"]
    assert frame["system"].tolist() == ["base", "contrastive", "contrastive"]
    assert frame["value"].isna().tolist() == [False, True, False]  # a missing metric is not 0
    assert frame["seed"].tolist() == [1, 1, 0] and frame["dataset"].tolist()[:2] == ["d", "d"]
    assert frame.loc[2, ["p.lr", "p.dims", "ci_low", "ci_high"]].tolist() == [1e-4, "384 64", 0.2, 0.3]
    assert "p.dataset" not in frame  # a dataset is not a parameter


def test_engine_entries_are_columns_and_their_defaults_are_filled_in():
    commit("nb-0000000a-s0", parameters={"engine": {"precision": "bf16", "warmup": 0.2}})
    commit("nb-0000000b-s0", parameters={"engine": {"warmup": 0.2, "weight_decay": 0.5}})
    commit("nb-0000000c-s0", parameters={"engine": {"warmup": 0.2}})
    frame = tables.runs_frame(tables.all_records())
    assert frame["p.engine.precision"].tolist() == ["bf16", "fp32", "fp32"]
    assert tables.varying_parameters(frame) == ["p.engine.precision"]
    collected = sweep_data.collect(tables.all_records())
    assert collected.parameters == ["engine.precision", "engine.weight_decay"]
    assert "p.engine" not in frame


def test_no_runs_make_an_empty_frame():
    frame = tables.runs_frame(tables.all_records())
    assert frame.empty and list(frame.columns) == [*tables.RUN_COLUMNS, *tables.METRIC_COLUMNS]


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


def frame_of_three() -> pd.DataFrame:
    commit("nb-0000000a-s0", row(value=0.1, dim=384), parameters={"lr": 1e-4, "what": "1e-4"})
    commit("nb-0000000b-s0", row(value=None), parameters={"lr": 2e-4, "flag": True})
    commit("nb-0000000c-s0", row(value=0.3, dim=64), parameters={"lr": 1e-4})
    return tables.runs_frame(tables.all_records())


def test_your_own_runs_come_first_and_both_are_marked():
    frame = filters.select(frame_of_three(), [], "value")
    marked = tables.mine_first(frame, {"nb-0000000c-s0"})
    assert marked["run_id"].str[-4].tolist() == ["a", "b", "c"]
    assert marked["from"].tolist() == ["mine", "mine", "study"]


def test_a_terminal_shows_dataset_and_the_parameters_that_vary():
    frame = frame_of_three()
    assert tables.varying_parameters(frame) == ["p.lr"]
    narrow, common = tables.compact(tables.mine_first(frame, set()), ["p.lr"])
    assert list(narrow.columns) == ["from", "run_id", "dataset", "system", "dim", "lr", "value", "n"]
    assert common == "retrieval, retrieval, test, ndcg@10"
    assert narrow["value"].tolist() == ["0.100", "missing", "0.300"]


def test_a_terminal_shows_how_many_queries_a_value_rests_on():
    commit("nb-0000000a-s0", row(value=1.0, ci_low=1.0, ci_high=1.0).model_copy(update={"n": 2}))
    commit("nb-0000000b-s0", row(value=0.5).model_copy(update={"n": None}))
    narrow, _ = tables.compact(tables.runs_frame(tables.all_records()))
    assert sorted(zip(narrow["value"], narrow["n"], strict=True)) == [("0.500", ""), ("1.000 [1.000, 1.000]", "2")]


def test_parameters_are_compared_within_a_notebook():
    for run_id, notebook, name in (("nb-0000000a-s0", "nb", "x"), ("other-0000000a-s0", "other", "y")):
        parameters = {"seed": 0, "name": name}
        records.commit(
            Record(run_id=run_id, notebook=notebook, parameters=parameters, metrics=[row()]), paths.runs_dir() / run_id
        )
    assert tables.varying_parameters(tables.runs_frame(tables.all_records())) == []


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


def test_backticks_mark_code_only_in_names_that_the_project_declares():
    frame = pd.DataFrame({"system": ["static (`static`)"], "value": ["a `b`"]})
    assert tables.markdown(frame, ["system"]).splitlines()[-1] == r"| static (`static`) | a \`b\` |"
