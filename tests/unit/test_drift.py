"""Numbers that readers see are numbers that records hold: prose, the headline table and its figures."""

from __future__ import annotations

import pandas as pd
import pytest

from embedlab import paths
from embedlab.reporting import headline_views, prose, sweep_table, tables
from embedlab.reporting.headline import headline
from embedlab.reporting.sweep_data import COSTS, View
from embedlab.runs import notebooks, records
from embedlab.runs.record_index import indexed_records
from embedlab.runs.records import MetricRow, Record
from embedlab.sweeps import planning
from embedlab.sweeps.spec import find_sweep, read_sweep

RUN = "04_contrastive-01234567-s0"
ROWS = [("bm25", 0.32949, 0.3121, 0.3462), ("tuned", 0.56451, 0.54551, 0.58349), ("tuned - base", 0.14, 0.127, 0.155)]


@pytest.fixture
def folder(tmp_path):
    metrics = [
        MetricRow(task="retrieval", split="test", model=model, metric="ndcg@10", value=value, ci_low=low, ci_high=high)
        for model, value, low, high in ROWS
    ]
    record = Record(run_id=RUN, notebook="03_contrastive", parameters={"seed": 0}, metrics=metrics)
    assert records.commit(record, tmp_path / RUN)
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "tuned 0.565 [0.546, 0.583], base",
        "difference +0.14 [+0.13, +0.15]",  # two digits as written: 0.155 is 0.15 or 0.16
        "test nDCG@10 0.329 and so on",
        "nDCG@10 of 0.5645",
        "an untold number, 0.999",  # neither form: not read
        "nDCG@10 0.999 [0.1, 0.2] <!-- numbers from elsewhere -->",
    ],
)
def test_what_the_record_holds_is_right(folder, text):
    assert prose.wrong_claims(f"Run `{RUN}`: {text}.", folder) == []


@pytest.mark.parametrize(
    "text",
    [
        "0.566 [0.546, 0.583]",
        "0.565 [0.545, 0.583]",
        "0.565 [0.546, 0.584]",
        "-0.565 [0.546, 0.583]",
        "0.329 [0.546, 0.583]",  # every number is there, in no one row
        "nDCG@10 0.566",
        "recall@10 0.565",
    ],
)
def test_what_the_record_does_not_hold_is_found(folder, text):
    assert prose.wrong_claims(f"Run `{RUN}`: {text}.", folder) == [f"{RUN}: {text}"]


def test_a_statement_ends_with_its_paragraph_bullet_or_row(folder):
    elsewhere = "0.111 [0.100, 0.122]"
    text = f"{elsewhere}\n\n`{RUN}` is\nnamed.\n\n{elsewhere}\n\n- {elsewhere}\n- `{RUN}`\n- {elsewhere}\n"
    text += f"\n| {elsewhere} |\n| `{RUN}` |\n| {elsewhere} |\n"
    assert prose.wrong_claims(text, folder) == []
    for end in ("named with ", "", "- "):  # a number at the beginning of a line begins no list
        found = [] if end == "- " else [f"{RUN}: {elsewhere}"]
        assert prose.wrong_claims(f"`{RUN}` is\n{end}{elsewhere}.", folder) == found


def test_a_paragraph_with_a_colon_speaks_for_its_table(folder):
    table = "\n\n| a | 0.111 [0.100, 0.122] |\n| b | 0.565 [0.546, 0.583] |\n"
    assert prose.wrong_claims(f"Found in `{RUN}`:{table}", folder) == [f"{RUN}: 0.111 [0.100, 0.122]"]
    for before in (f"Found in `{RUN}`.", f"Found in `{RUN}`: {prose.ELSEWHERE}", f"`{RUN}`:\n\nAnother:"):
        assert prose.wrong_claims(before + table, folder) == []


def test_a_run_without_record_proves_nothing_wrong_and_nothing_right(folder):
    other = RUN.replace("-s0", "-s1")
    assert prose.wrong_claims(f"`{other}`: 0.111 [0.100, 0.122]", folder) == []
    assert prose.wrong_claims(f"`{other}` and `{RUN}`: 0.111 [0.100, 0.122]", folder)


def written_by_hand() -> dict[str, str]:
    """Name -> text of everything that people wrote and readers see."""
    root = paths.project_root()
    files = [*root.glob("*.md"), *(root / "docs").glob("*.md"), *(paths.experiments_dir() / "log").glob("*.md")]
    files += [paths.results_dir() / "README.md", paths.notebooks_dir() / "README.md"]
    texts = {paths.shown(path): path.read_text(encoding="utf-8") for path in files}
    for path in sorted(paths.notebooks_dir().glob("*.ipynb")):
        texts[path.name] = "\n\n".join(c.source for c in notebooks.read(path).cells if c.cell_type == "markdown")
    return texts


class TestWhatIsCommitted:
    @pytest.mark.parametrize(("name", "text"), written_by_hand().items(), ids=lambda value: value[:30])
    def test_prose_says_what_the_records_say(self, name, text):
        assert prose.wrong_claims(text) == []

    @pytest.mark.parametrize("path", sorted(paths.notebooks_dir().glob("*.ipynb")), ids=lambda path: path.stem)
    def test_results_in_a_notebooks_prose_name_their_run(self, path):
        for block in prose.blocks(written_by_hand()[path.name]):
            stated = prose.TRIPLE.search(block) or prose.NAMED.search(block)
            assert not stated or prose.RUN.search(block), f"{stated[0]} comes from no run"

    def test_headline_is_what_the_records_give(self):
        path = paths.tables_dir() / f"{headline_views.NAME}.csv"
        if not path.exists():
            pytest.skip("no headline is published yet: `embedlab headline` writes it")
        rows = headline()
        again = headline_views.readable(rows)
        pd.testing.assert_frame_equal(pd.read_csv(path, dtype=str, keep_default_na=False), again.astype(str))
        for cost in headline_views.COSTS:
            drawn = pd.read_csv(paths.figures_dir() / f"{headline_views.NAME}_quality_by_{cost}.csv")
            points = headline_views.quality_figure(rows, cost)[1]
            assert drawn["value"].tolist() == pytest.approx(points["value"].tolist())
            assert drawn[["system", "runs"]].to_dict() == points[["system", "runs"]].to_dict()

    @pytest.mark.parametrize("path", sorted(paths.tables_dir().glob("sweep-*.csv")), ids=lambda path: path.stem)
    def test_sweep_tables_hold_every_run_on_record(self, path):
        spec_file = find_sweep(path.stem.removeprefix("sweep-"))
        planned = planning.all_planned(read_sweep(spec_file), spec_file)
        finished = [item.run_id for item in planned if item.record]
        again = sweep_table.sweep_table(indexed_records((*View().metrics, *COSTS), finished)).frame
        written = pd.read_csv(path)
        assert written["runs"].tolist() == again["runs"].tolist()
        numbers = again.select_dtypes("number").columns
        pd.testing.assert_frame_equal(written[numbers], again[numbers].astype(written[numbers].dtypes), rtol=1e-9)

    def test_the_table_of_runs_is_what_the_records_give(self):
        runs, metrics = map(pd.read_csv, (paths.runs_csv(), paths.metrics_csv()))
        kept = list(tables.all_records())
        assert runs["run_id"].tolist() == [record.run_id for record in kept]
        assert len(metrics) == sum(len(record.metrics) for record in kept)
