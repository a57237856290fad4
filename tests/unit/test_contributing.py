"""CONTRIBUTING.md keeps its promise: its files are written, its commands run, in a project of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from embedlab import paths
from embedlab.runs import records
from tests.notebooks.test_notebooks import TestShape as Shape

ROOT = paths.project_root()
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`(?P<path>[^`\n]+)`:\n\n```\w+\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """This project's source, tools and conftest, and the files that the document shows; nothing else."""
    home = tmp_path_factory.mktemp("contributing") / "home"
    shutil.copytree(ROOT / "src", home / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (home / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "notebook.py", home / "tools")
    (home / "notebooks").mkdir()
    for match in FILE.finditer(TEXT):
        path = home / match["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(match["content"], encoding="utf-8")
    return home


@pytest.fixture(scope="module")
def said(home) -> dict[str, str]:
    """Command -> what it printed."""
    program = {"python": sys.executable, "embedlab": f"{sys.executable} -m embedlab.cli"}
    environment = {**os.environ, "EMBEDLAB_HOME": str(home), "PYTHONPATH": str(home / "src"), "COLUMNS": "200"}
    environment["EMBEDLAB_CACHE"] = str(home / ".cache")
    outputs = {}
    for command in "".join(COMMANDS.findall(TEXT)).splitlines():
        name, _, rest = command.partition(" ")
        done = subprocess.run(
            f"{program[name]} {rest}".split(), cwd=home, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        outputs[command] = done.stdout
    return outputs


def test_shows_a_technique_its_test_a_dataset_and_a_sweep():
    suffixes = [Path(match["path"]).suffix for match in FILE.finditer(TEXT)]
    assert sorted(suffixes) == [".csv", ".py", ".py", ".txt", ".yaml"]


def test_minutes_add_up_to_a_quarter_of_an_hour():
    minutes = [int(number) for number in re.findall(r"^### .*\((\d+) minutes?\)$", TEXT, re.MULTILINE)]
    assert len(minutes) == 5 and sum(minutes) <= 15


def test_every_command_runs_and_the_run_leaves_its_record(home, said):
    assert len(said) == 5
    folders = {folder: records.read(folder) for folder in (home / "results" / "runs").glob("17_all_but_top-*")}
    ((folder, record),) = (item for item in folders.items() if item[1].parameters["directions"] == 30)
    assert len(folders) == 2 and record.data_fingerprint and "all-but-the-top" in record.systems
    rows = [row for row in record.metrics if row.metric == "ndcg@10" and row.statistic in ("value", "difference")]
    values = {(row.system, row.against): row.value for row in rows}
    assert set(values) == {("bm25", ""), ("base", ""), ("all-but-the-top", ""), ("all-but-the-top", "base")}
    difference = values["all-but-the-top", "base"]
    assert values["all-but-the-top", ""] - values["base", ""] == pytest.approx(difference)
    (interval,) = (row for row in rows if row.against)
    assert -0.06 < interval.ci_low < interval.ci_high < 0, "the document says that the interval excludes 0"
    assert {"executed.ipynb", "per_query.parquet", "quality_by_dimension.png"} <= {
        file.name for file in folder.iterdir()
    }


def test_the_sweep_knows_the_finished_run(home, said):
    (listed,) = [text for command, text in said.items() if "--dry-run" in command]
    assert "3 runs, 1 finished, 2 to do" in listed


@pytest.mark.parametrize("rule", [name for name in dir(Shape) if name.startswith("test_") and "index" not in name])
def test_its_notebook_has_the_shape_that_every_notebook_must_have(home, said, rule):
    getattr(Shape(), rule)(home / "notebooks" / "17_all_but_top.ipynb")


def test_its_code_is_in_the_house_style(home, said):
    files = [match["path"] for match in FILE.finditer(TEXT) if match["path"].endswith(".py")]
    files.append("notebooks/17_all_but_top.ipynb")
    for action in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *action, "--config", str(ROOT / "pyproject.toml"), *files]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", FILE.sub("", TEXT)):
        assert (ROOT / target).exists(), target
