"""11_compare on records made by hand, and on none; its own record is read back."""

from __future__ import annotations

import pandas as pd
import pytest

from embedlab.errors import DataError
from embedlab.reporting import html_report
from embedlab.reporting.compare_params import CompareParams
from embedlab.reporting.publish import read_published
from embedlab.runs import notebooks, records
from embedlab.runs.records import MetricRow, Record
from embedlab.runs.systems import SYSTEMS
from tests.notebooks.outcomes import run

BASE = [0.0, 0.25, 0.25, 0.5]
GAINS = {"a": 0.125, "b": 0.375}  # per query, by combination


def make_runs(folder) -> list[str]:
    """Two learning rates with two seeds each, per-query values kept."""
    run_ids = []
    for number, (name, gain) in enumerate(GAINS.items()):
        for seed in (0, 1):
            luck = 0.0625 * (1 - 2 * seed)
            values = {"base": BASE, "contrastive": [value + gain + luck for value in BASE]}
            run_ids.append(_make_run(folder, f"04_x-{name * 8}-s{seed}", seed, 1e-4 * (number + 1), values))
    return run_ids


def _make_run(folder, run_id, seed, lr, values) -> str:
    labels = {"stage": "retrieval", "task": "retrieval", "split": "test", "condition": "", "dim": 64}
    rows = [
        MetricRow(system=system, technique=SYSTEMS[system].technique, metric="ndcg@10", value=sum(v) / 4, n=4, **labels)
        for system, v in values.items()
    ]
    parameters = {"seed": seed, "dataset": "icd10cm:smoke", "model_name": "m", "lr": lr}
    record = Record(run_id=run_id, notebook="04_x", parameters=parameters, metrics=rows, data_fingerprint="d")
    assert records.commit(record, folder / run_id)
    frames = [pd.DataFrame({"query_id": list("wxyz"), "ndcg@10": v, "system": system}) for system, v in values.items()]
    pd.concat(frames).assign(**labels).to_parquet(folder / run_id / "per_query.parquet", index=False)
    return run_id


def compare(tmp_path, **values):
    return run(notebooks.find_notebook("11_compare"), tmp_path / "out", sweep="", **values)


@pytest.mark.notebook
def test_compares_the_best_two_from_their_records(tmp_path):
    ids = make_runs(tmp_path)
    outcome = compare(tmp_path, records_dir=str(tmp_path), dataset="icd10cm:smoke")
    assert outcome.record.notes["records"] == ids and outcome.record.notes["caveats"] == []
    count, difference = outcome.record.metrics
    assert (count.metric, count.value, count.task) == ("runs", 4, "comparison")
    assert difference.condition == "contrastive: 04_x-bbbbbbbb-s0 - 04_x-aaaaaaaa-s0"
    assert (difference.value, difference.ci_low, difference.ci_high, difference.dim) == (0.25, 0.25, 0.25, 64)
    files = {file.name for file in outcome.folder.iterdir()}
    assert {"quality_by_lr.png", "quality_by_lr.csv", "spread_over_seeds.png", "spread_over_seeds.csv"} <= files
    table = pd.read_csv(outcome.folder / "quality_by_lr.csv")
    assert table["value"].tolist() == pytest.approx([0.375, 0.625])


@pytest.mark.notebook
def test_says_so_when_no_record_matches(tmp_path):
    outcome = compare(tmp_path, records_dir=str(tmp_path / "nowhere"), max_steps=2, max_examples=60)
    assert [(row.metric, row.value) for row in outcome.record.metrics] == [("runs", 0)]
    text = (outcome.folder / "executed.ipynb").read_text(encoding="utf-8")
    assert "No record matches" in text and "there are no two runs to compare" in text


@pytest.mark.parametrize("name", sorted(read_published().sweeps))
def test_a_published_sweep_is_compared_from_the_records_of_the_repository(name):
    found = {record.run_id for record in CompareParams(sweep=name).records()}
    assert found >= set(read_published().sweeps[name])


def test_a_sweep_whose_data_is_not_here_has_the_runs_of_its_table_or_an_error(monkeypatch):
    def missing(*_arguments):
        raise DataError("this file does not exist", remedy="Check the path")

    monkeypatch.setattr(html_report.planning, "all_planned", missing)
    assert set(html_report.sweep_runs("closed_models", None)) == set(read_published().sweeps["closed_models"])
    with pytest.raises(DataError, match="does not exist"):
        html_report.sweep_runs("arena", None)
