"""What readers see is what the records say."""

from __future__ import annotations

import pytest

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.reporting.publish import publish_all, publish_run, read_published, run_table, with_tables
from embedlab.runs import records
from embedlab.runs.records import MetricRow, Record


def row(system, metric, value, dim=None, low=None, high=None, **fields):
    fields |= {"dim": dim, "ci_low": low, "ci_high": high, "technique": "x", "split": "test", "n": 9}
    return MetricRow(system=system, metric=metric, value=value, **fields)


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    (tmp_path / "experiments").mkdir()
    (tmp_path / "README.md").write_text("before\n<!-- table quick -->\nold\n<!-- end -->\nafter\n")
    metrics = [
        row("bm25", "ndcg@10", 0.25, low=0.2, high=0.3),
        row("contrastive", "ndcg@10", 0.5, 384, 0.4, 0.6),
        row("contrastive", "ndcg@10", 0.1, 384, 0.05, 0.15, statistic="difference", against="base"),
        row("contrastive", "ndcg@10", 0.25, 384, statistic="relative_difference", against="base"),
    ]
    record = Record(run_id="nb-01234567-s0", notebook="nb", parameters={"seed": 0}, metrics=metrics)
    folder = paths.runs_dir() / record.run_id
    assert records.commit(record, folder)
    (folder / "curve.png").write_bytes(b"png")
    (folder / "curve.csv").write_text("a\n1\n")
    return record


def test_table_by_hand(record):
    table = run_table(record)
    assert table["ndcg@10"].tolist() == ["0.250 [0.200, 0.300]", "0.500 [0.400, 0.600]", "+0.100 [+0.050, +0.150]"]
    assert table["relative ndcg@10"].tolist() == ["", "", "+25.0%"]
    assert set(table["run"]) == {record.run_id}


def test_what_is_published_is_remembered_and_written_again(record):
    publish_run(record.run_id, "quick")
    assert read_published().runs == {"quick": record.run_id}
    table = paths.tables_dir() / "quick.md"
    first = table.read_bytes()
    table.unlink()
    publish_all()
    assert table.read_bytes() == first
    (paths.experiments_dir() / "published.yaml").write_text("runs: [1]")
    with pytest.raises(ParameterError, match="cannot read the file"):
        read_published()


def test_publishing_fills_readme_and_copies_figures(record):
    publish_run(record.run_id, "quick")
    text = (paths.project_root() / "README.md").read_text()
    assert text.startswith("before\n<!-- table quick -->\n| system |") and text.endswith("<!-- end -->\nafter\n")
    assert "0.500 [0.400, 0.600]" in text and "old" not in text
    assert f"Run `{record.run_id}`." in text
    assert (paths.figures_dir() / "quick_curve.png").read_bytes() == b"png"
    assert with_tables(text) == text


@pytest.mark.parametrize("block", ["", "old\n", "old\n\nlines\n"])
def test_a_block_ends_at_the_first_end(record, block):
    """An empty block must not swallow the text up to the end of the next one."""
    publish_run(record.run_id, "quick")
    text = f"a\n<!-- table quick -->\n{block}<!-- end -->\nkept\n<!-- table quick -->\n<!-- end -->\nb\n"
    filled = with_tables(text)
    assert filled.count("| contrastive | 384 |") == 2
    assert "<!-- end -->\nkept\n<!-- table quick -->" in filled and filled.endswith("<!-- end -->\nb\n")
    assert with_tables(filled) == filled


class TestWhatIsCommitted:
    """Drift: nothing published differs from what its record gives today."""

    def test_readme_holds_the_current_tables(self):
        text = (paths.project_root() / "README.md").read_text(encoding="utf-8")
        assert with_tables(text) == text
