"""Numbers that readers see are numbers that records hold: prose, tables and figures."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from embedlab import paths
from embedlab.arena.standings import VERDICTS
from embedlab.escaping import csv_frame
from embedlab.reporting import arena_report, headline_views, publish, sweep_table
from embedlab.reporting.headline import headline, read_headline
from embedlab.reporting.sweep_data import COSTS, View
from embedlab.runs import notebooks, records
from embedlab.runs.record_index import indexed_records
from embedlab.runs.records import MetricRow, Record
from tests import prose

RUN = "04_contrastive-01234567-s0"
ROWS = [
    ("bm25", "", 0.32949, 0.3121, 0.3462),
    ("contrastive", "", 0.56451, 0.54551, 0.58349),
    ("contrastive", "base", 0.14, 0.127, 0.155),
]


@pytest.fixture
def folder(tmp_path):
    metrics = [
        MetricRow(
            system=system,
            technique="x",
            split="test",
            metric="ndcg@10",
            statistic="difference" if against else "value",
            against=against,
            value=value,
            ci_low=low,
            ci_high=high,
        )
        for system, against, value, low, high in ROWS
    ]
    record = Record(run_id=RUN, notebook="04_contrastive", parameters={"seed": 0}, metrics=metrics)
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


def test_a_statement_ends_with_its_sentence_bullet_or_row(folder):
    other = "0.111 [0.100, 0.122]"
    text = f"{other}\n\n`{RUN}` is\nnamed. Elsewhere {other}.\n\n- {other}\n- `{RUN}`\n- {other}\n"
    text += f"\n| {other} |\n| `{RUN}` |\n| {other} |\n\nIn `{RUN}`: 0.565 [0.546, 0.583]; then {other}.\n"
    assert prose.wrong_claims(text, folder) == []
    for text in (f"`{RUN}` is\nnamed with {other}.", f"- `{RUN}`: {other}", f"| `{RUN}` | {other} |"):
        assert prose.wrong_claims(text, folder) == [f"{RUN}: {other}"]


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


NUMBER_WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight")


@pytest.fixture(scope="module")
def arena() -> dict[str, pd.DataFrame]:
    """The published tables of the arena, made again from the records."""
    return arena_report.published(publish.read_published().arena)


class TestWhatIsCommitted:
    @pytest.mark.parametrize(("name", "text"), written_by_hand().items(), ids=lambda value: value[:30])
    def test_prose_says_what_the_records_say(self, name, text):
        assert prose.wrong_claims(text) == []

    def test_every_run_that_a_page_or_notebook_names_has_its_record(self):
        """The log may name runs whose records are gone: an entry keeps the ids of its date."""
        named = {
            (name, run)
            for name, text in written_by_hand().items()
            if not name.startswith("experiments/log/")
            for run in re.findall(r"\b\d\d_[a-z_]+-[0-9a-f]{8}-s\d+\b", text)
        }
        assert len(named) > 50
        assert [pair for pair in sorted(named) if not (paths.runs_dir() / pair[1]).is_dir()] == []

    @pytest.mark.parametrize("path", sorted(paths.notebooks_dir().glob("*.ipynb")), ids=lambda path: path.stem)
    def test_results_in_a_notebooks_prose_name_their_run(self, path):
        for block in re.split(r"\n\s*\n", written_by_hand()[path.name]):
            stated = prose.TRIPLE.search(block) or prose.NAMED.search(block)
            assert not stated or prose.RUN.search(block), f"{stated[0]} comes from no run"

    def test_headline_is_what_the_records_give(self):
        groups = read_headline()
        measured = [headline(group) for group in groups]
        again = headline_views.all_groups(groups, measured)
        pd.testing.assert_frame_equal(_table("headline"), again.astype(str))
        pd.testing.assert_frame_equal(_table("readme-headline"), headline_views.readme_table(measured[0]).astype(str))
        for cost in headline_views.COSTS:
            drawn = pd.read_csv(paths.figures_dir() / f"{headline_views.NAME}_quality_by_{cost}.csv")
            points = headline_views.quality_figure(measured[0], cost)[1]
            assert drawn["value"].tolist() == pytest.approx(points["value"].tolist())
            assert drawn[["label", "runs"]].to_dict() == points[["label", "runs"]].to_dict()

    @pytest.mark.parametrize(("name", "run_id"), publish.read_published().runs.items())
    def test_tables_of_runs_are_what_their_records_give(self, name, run_id):
        again = publish.run_table(records.read(paths.runs_dir() / run_id))
        pd.testing.assert_frame_equal(_table(name), again.astype(str))

    @pytest.mark.parametrize(("name", "run_ids"), publish.read_published().sweeps.items())
    def test_sweep_tables_are_what_their_records_give(self, name, run_ids):
        again = sweep_table.sweep_table(indexed_records((*View().metrics, *COSTS), run_ids)).frame
        written = pd.read_csv(paths.tables_dir() / f"sweep-{name}.csv")
        assert written["runs"].tolist() == again["runs"].tolist()
        numbers = again.select_dtypes("number").columns
        pd.testing.assert_frame_equal(written[numbers], again[numbers].astype(written[numbers].dtypes), rtol=1e-9)

    def test_figure_of_languages_is_what_its_record_gives(self):
        record = records.read(paths.runs_dir() / publish.read_published().runs["languages"])
        rows = [row for row in record.metrics if row.stage == "language" and row.metric == "ndcg@10"]
        recorded = {(row.system, row.task.removesuffix(" queries")): (row.n, row.value) for row in rows}
        drawn = pd.read_csv(paths.figures_dir() / "languages_quality_by_language.csv")
        values = {(row.system, row.slice): (row.n, row.mean) for row in drawn.itertuples()}
        assert values == {key: pytest.approx(value) for key, value in recorded.items()} and len(values) > 50
        assert (paths.figures_dir() / "languages_quality_by_language.png").is_file()

    def test_leaderboard_of_recipes_is_what_its_records_give(self, arena):
        for name, again in arena.items():
            written = (paths.tables_dir() / f"{name}.csv").read_text(encoding="utf-8")
            assert csv_frame(again).to_csv(index=False, lineterminator="\n") == written

    @pytest.mark.parametrize("page", ["README.md", "results/README.md"])
    def test_pages_say_about_tune_what_the_leaderboard_says(self, arena, page):
        table = arena["arena"].set_index("system")
        tune, words = table.loc["embedlab-tune"], NUMBER_WORDS
        better, level, worse, near_best = (words[int(tune[name])] for name in (*VERDICTS, arena_report.NEAR_BEST))
        said = f"better on {better}, level on {level} and worse on {worse}, at {tune[arena_report.RELATIVE_TIME]} times"
        text = " ".join((paths.project_root() / page).read_text(encoding="utf-8").split())
        assert said in text and f"the best or level with the best on {near_best} of the" in text

    def test_every_committed_table_is_declared(self):
        """A table that no declaration names would be written by nobody, and go stale."""
        published = publish.read_published()
        declared = {*published.runs, *(f"sweep-{name}" for name in published.sweeps), "headline", "readme-headline"}
        declared |= {"arena", "arena_datasets", "arena_runs", "arena_recipes"}
        assert {path.stem for path in paths.tables_dir().glob("*.csv")} == declared

    def test_published_runs_are_part_of_the_committed_study(self):
        published = publish.read_published()
        named = {*published.runs.values(), *(run_id for run_ids in published.sweeps.values() for run_id in run_ids)}
        study = publish.study_runs()
        if not study:
            pytest.skip("not a git checkout")
        assert named <= study


def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(paths.tables_dir() / f"{name}.csv", dtype=str, keep_default_na=False)
