"""The report: one page, whole in itself, that names every run and escapes what it did not write."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.reporting import html_report as report
from embedlab.reporting import sweep_figures, sweep_table
from embedlab.reporting.figures import new_axes
from embedlab.reporting.tables import all_records
from embedlab.runs import records
from embedlab.runs.records import MetricRow, Record
from embedlab.runs.run import write_failure

VOID = {"meta", "br", "img", "link", "hr", "input"}
REQUESTS = {"src", "href", "srcset", "action", "data", "poster", "background", "xlink:href"}


class Page(HTMLParser):
    """Text, requests and balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.requests, self.tags, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.requests += [value for name, value in attributes if name in REQUESTS]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data):
        self.text += data


def commit(
    name, seed: int, value: float | None, *, lr=1e-4, notebook="01_a", dataset="d", dev=True, base=0.2, **more
) -> str:
    def row(system, value, dim, metric="ndcg@10", split="test"):
        return MetricRow(system=system, technique="x", split=split, metric=metric, value=value, dim=dim, n=4)

    record = Record(
        run_id=f"{notebook}-{(name * 8)[:8]}-s{seed}",
        notebook=notebook,
        parameters={"seed": seed, "dataset": dataset, "lr": lr, **more},
        metrics=[
            row("bm25", 0.1, None),
            row("base", base, 64),
            row("contrastive", value, 64),
            row("contrastive", 10.0 * lr / 1e-4, None, "training_seconds", ""),
        ],
        hardware={"cpu": "X<1>", "threads": 2},
        commit="abc",
        dirty=seed == 1,
    )
    folder = paths.runs_dir() / record.run_id
    records.commit(record, folder)
    history = pd.DataFrame({"step": [0, 1, 2], "loss": [None, 2.0, 1.0], **({"dev": [0.1, None, 0.3]} if dev else {})})
    history.to_csv(folder / "train_log.csv", index=False)
    return record.run_id


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def ids() -> list[str]:
    """Two notebooks, one with two learning rates and two seeds; one run that failed."""
    found = [commit("a", 0, 0.4), commit("a", 1, 0.5), commit("b", 0, None, lr=2e-4), commit("b", 1, 0.7, lr=2e-4)]
    found.append(commit("c", 0, 0.3, notebook="02_b", dataset="<script>alert(1)</script>"))
    attempt = paths.runs_dir() / "01_a-dddddddd-s0" / "attempts" / "1-x"
    attempt.mkdir(parents=True)
    write_failure(attempt, "01_a-dddddddd-s0", "kernel died", "<b>no memory</b>")
    return found


def test_page_names_every_run_and_asks_the_network_for_nothing(ids, tmp_path):
    text = report.write_report(tmp_path / "sub" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert all(identifier in page.text for identifier in ids)
    assert all(request.startswith("#") for request in page.requests)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)
    assert not {"link", "script", "iframe", "img"} & set(page.tags)
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text
    assert "01_a-dddddddd-s0" in page.text and "kernel died" in page.text and "<b>no memory</b>" in page.text
    assert "X<1>, 2 threads" in page.text and "code ? (abc)" in page.text
    assert page.text.count("(abc, uncommitted changes)") == 2
    assert "0.450 ± 0.071" in page.text  # (0.4 + 0.5) / 2, sqrt(2 * 0.05^2)
    assert page.tags.count("section") == 2 and page.tags.count("svg") >= 5
    assert "01_a on d" in page.text and "02_b on <script>alert(1)</script>" in page.text
    assert "1 of 4 runs have no ndcg@10 on test" in page.text


def test_cells_take_the_direction_of_their_text(ids, tmp_path):
    """A dataset or a parameter may have a name that runs from right to left."""
    commit("e", 0, 0.4, notebook="03_c", dataset="pairs:التهاب.csv")
    text = report.write_report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "التهاب.csv" in Page(text).text
    assert not re.search(r'<(td|th|h2)(?! dir="auto")[ >]', text) and text.count('<td dir="auto">') > 10


def test_nothing_to_report_is_said(tmp_path):
    with pytest.raises(ParameterError, match="there are no runs to report"):
        report.write_report(tmp_path / "report.html")
    with pytest.raises(ParameterError, match="there is no sweep 'lost'"):
        report.write_report(tmp_path / "report.html", ["lost"])


def test_groups_by_notebook_leave_out_what_is_no_run(ids):
    for name in (f"01_a-aaaaaaaa-s0{records.OLD}1", "notes", "01_a-aaaa-s0"):
        (paths.runs_dir() / name).mkdir()
    found = {group.name: list(group.run_ids) for group in report.groups()}
    assert found == {"01_a": [*ids[:4], "01_a-dddddddd-s0"], "02_b": ids[4:]}


def test_section_of_runs_that_all_failed_still_tells(tmp_path):
    (section,) = report.sections(report.Group("gone", ["nb-00000000-s0"]))
    text = report.page("t", [section])
    assert "nb-00000000-s0" in Page(text).text and section["figures"] == [] and section["runs"] == []


def test_svg_stands_inside_a_page_and_follows_its_colours():
    figure, axes = new_axes("A < B & C", "x", "y")
    axes.plot([1, 2], [3, 4], marker="o")
    text = report.svg(figure)
    assert text.startswith("<svg") and text.rstrip().endswith("</svg>")
    assert "currentColor" in text and "#000000" not in text and "http" not in text
    root = ElementTree.fromstring(text.replace("<svg", '<svg xmlns:xlink="x"', 1))
    assert "width" not in root.attrib and "height" not in root.attrib and root.attrib["viewBox"]
    assert report.svg(figure) == text


def table() -> sweep_table.SweepTable:
    return sweep_table.sweep_table(all_records())


def test_figures_come_with_the_numbers_behind_them():
    for seed, value in enumerate((0.4, 0.5)):
        commit("a", seed, value)
    commit("b", 0, 0.7, lr=2e-4)
    _, by_parameter = sweep_figures.quality_by_parameter(table(), "lr")
    assert by_parameter["lr"].tolist() == [1e-4, 2e-4]
    assert by_parameter["value"].tolist() == pytest.approx([0.45, 0.7])
    assert sweep_figures.varying_costs(table()) == ["seconds"]
    _, by_cost = sweep_figures.quality_by_cost(table(), "seconds")
    assert by_cost["seconds"].tolist() == [10, 20] and by_cost["front"].tolist() == [True, True]
    _, spread = sweep_figures.spread_over_seeds(table())
    assert sorted(spread["value"]) == [0.4, 0.5, 0.7]


def test_a_parameter_is_judged_with_all_else_equal():
    tried = ((1, 1e-4, 0.3), (1, 2e-4, 0.4), (2, 1e-4, 0.5), (2, 2e-4, 0.7), (3, 9e-4, 0.9))
    for name, (epochs, lr, value) in zip("abcde", tried, strict=True):
        commit(name, 0, value, lr=lr, epochs=epochs)
    _, points = sweep_figures.quality_by_parameter(table(), "lr")
    found = {line: own.sort_values("lr")["value"].tolist() for line, own in points.groupby("line")}
    assert found == {
        "contrastive, epochs 1": [0.3, 0.4],
        "contrastive, epochs 2": [0.5, 0.7],
    }  # 9e-4 has no neighbour


def test_a_figure_never_mixes_datasets():
    """Baselines and fronts of one dataset do not appear in a figure of another one."""
    for name, lr, value in (("a", 1e-4, 0.4), ("b", 2e-4, 0.5)):
        for seed in (0, 1):
            commit(name, seed, value, lr=lr)
    commit("e", 0, 0.9, lr=1e-4, dataset="e", base=0.8)
    both = table()
    assert both.datasets == ["d", "e"] and both.parameters == ["lr"]
    figure, points = sweep_figures.quality_by_parameter(both, "lr")
    assert points["value"].max() == 0.5
    levels = {line.get_ydata()[0] for line in figure.axes[0].lines if list(line.get_xdata()) == [0, 1]}
    assert {0.1, 0.2} <= levels and 0.8 not in levels
    assert sweep_figures.quality_by_cost(both, "seconds")[1]["ndcg@10"].max() == 0.5
    assert sweep_figures.spread_over_seeds(both)[1]["value"].max() == 0.5
    names = [section["name"] for group in report.groups() for section in report.sections(group)]
    assert names == ["01_a on d", "01_a on e"]


def test_at_most_eight_lines_are_drawn_and_the_rest_is_counted():
    for epochs in range(1, 11):
        for number, lr in enumerate((1e-4, 2e-4)):
            commit("0123456789abcdef"[epochs] + "ab"[number], 0, epochs / 20 + number / 100, lr=lr, epochs=epochs)
    figure, points = sweep_figures.quality_by_parameter(table(), "lr")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert points["line"].nunique() == 10
    assert sum("epochs" in text and "ahead" not in text for text in texts) == 8
    assert any("2 lower lines are not drawn" in text.replace("\n", " ") for text in texts)
    assert not figure.legends and figure.axes[0].get_legend() is None


def test_no_cap_is_the_largest():
    for name, cap, value in (("a", 0, 0.5), ("b", 500, 0.3), ("c", 2000, 0.4)):
        commit(name, 0, value, max_examples=cap)
    figure, _ = sweep_figures.quality_by_parameter(table(), "max_examples")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["500", "2000", "all"]
    assert axes.lines[0].get_ydata().tolist() == [0.3, 0.4, 0.5]
    shown = list(map(str, sweep_table.readable(table())["max_examples"]))
    assert shown[-3:] == ["500", "2000", "all"] and "all" not in shown[:-3]  # no baseline has a cap


def test_learning_curves_show_dev_or_else_the_loss():
    histories = {"a": pd.DataFrame({"step": [0, 1], "dev": [0.1, None], "loss": [None, 2.0]})}
    assert sweep_figures.learning_curves(histories)[1].values.tolist() == [[0, 0.1, "a"]]
    histories["a"] = histories["a"].drop(columns="dev")
    assert sweep_figures.learning_curves(histories)[1].values.tolist() == [[1, 2.0, "a"]]
    assert sweep_figures.learning_curves({"a": pd.DataFrame({"x": [1]})})[1].empty


def notebook(name: str, parameters: str) -> None:
    (paths.notebooks_dir()).mkdir(exist_ok=True)
    cell = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), paths.notebooks_dir() / f"{name}.ipynb")


def sweep_file(name: str, text: str) -> None:
    paths.sweeps_dir().mkdir(parents=True, exist_ok=True)
    (paths.sweeps_dir() / f"{name}.yaml").write_text(text)


def test_sweep_is_every_run_its_file_asks_for():
    notebook("01_a", "lr: float = 1.0  # x\nseed: int = 0  # x")
    sweep_file("plain", "notebook: 01_a\ngrid: {lr: [1.0, 2.0]}\nseeds: [0, 1]\n")
    (group,) = report.groups(["plain"])
    assert len(set(group.run_ids)) == 4 and [name[-2:] for name in group.run_ids] == ["s0", "s1"] * 2


def test_stages_are_named_as_far_as_they_can_be_and_searches_are_read_from_their_table():
    notebook("01_a", "lr: float = 1.0  # x\nseed: int = 0  # x")
    notebook("02_b", 'model: str = ""  # x\nseed: int = 0  # x')
    stages = (
        "stages:\n- {name: first, notebook: 01_a}\n- {name: second, notebook: 02_b, fixed: {model: '{first.model}'}}\n"
    )
    sweep_file("staged", stages)
    (before,) = report.groups(["staged"])
    assert [name.split("-")[0] for name in before.run_ids] == ["01_a"]
    record = Record(run_id=before.run_ids[0], notebook="01_a", parameters={"seed": 0, "lr": 1.0}, metrics=[])
    records.commit(record, paths.runs_dir() / record.run_id)
    (paths.runs_dir() / record.run_id / "model").mkdir()
    (after,) = report.groups(["staged"])
    assert [name.split("-")[0] for name in after.run_ids] == ["01_a", "02_b"]

    sweep_file("searched", "notebook: 01_a\nsearch: {trials: 2, space: {lr: {low: 1.0, high: 2.0}}}\n")
    assert report.groups(["searched"])[0].run_ids == []
    sweep_table.write_sweep_table("searched", [read_back(commit("a", 0, 0.4)), read_back(commit("b", 0, 0.5, lr=2.0))])
    assert report.groups(["searched"])[0].run_ids == ["01_a-aaaaaaaa-s0", "01_a-bbbbbbbb-s0"]


def read_back(run_id: str) -> Record:
    return records.read(paths.runs_dir() / run_id)
