"""embedlab outside of its checkout: built as a wheel, installed, and used in a project of one's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from embedlab import paths
from embedlab.cli.init import PROJECT_FILES
from tests.faults import tiny

ROOT = Path(__file__).resolve().parents[2]


def pip(*arguments, **options):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, since a build leaves files in its folder."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "notebooks", "experiments/sweeps"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", target, source)
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Calls the installed command line in a folder; returns (exit code, standard output, standard error)."""
    target = tmp_path_factory.mktemp("site-packages")
    pip("install", "--no-deps", "--no-index", "--target", target, wheel)
    names = ("EMBEDLAB_HOME", "EMBEDLAB_CACHE", "EMBEDLAB_PROGRESS")
    environment = {name: value for name, value in os.environ.items() if name not in names}

    def call(folder, *arguments):
        command = [sys.executable, "-m", "embedlab.cli", *arguments]
        options = {"PYTHONPATH": str(target), "COLUMNS": "200"}
        done = subprocess.run(command, cwd=folder, env={**environment, **options}, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return call


def test_the_wheel_holds_notebooks_and_sweeps_once(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    expected = {f"embedlab/_project/{path.relative_to(ROOT)}" for name in PROJECT_FILES for path in ROOT.glob(name)}
    assert expected and expected == {name for name in names if name.startswith("embedlab/_project/")}
    assert not [name for name in names if name.startswith(("tests/", "experiments/"))]


def test_without_a_project_the_remedy_is_init(installed, tmp_path):
    code, _, errors = installed(tmp_path, "run", "00")
    assert code == 2 and f"there are no notebooks in {tmp_path}" in errors and "embedlab init" in errors


def test_a_project_of_ones_own(installed, tmp_path):
    code, text, errors = installed(tmp_path, "init", "mine")
    assert (code, errors) == (0, "") and "Next: cd mine && embedlab run 00_quickstart" in text
    project = tmp_path / "mine"
    assert {path.name for path in project.iterdir()} == {"README.md", ".gitignore", "notebooks", "experiments"}
    assert "model_name" in installed(project / "notebooks", "params", "00_quickstart")[1]
    assert installed(project, "sweep", "smoke", "--dry-run")[0] == 0

    defaults = 'x: float = 1.0  # a number\nseed: int = 0  # of nothing\noutput_dir: str = ""  # where'
    start = tiny.START.replace("    what: str\n    seconds: float\n", "").replace("01_tiny", "90_tiny")
    tiny.write_notebook(project / "notebooks" / "90_tiny.ipynb", tiny.SETUP, defaults, start, "run.finish();")
    (project / "data").mkdir()
    code, text, errors = installed(project / "data", "run", "90")
    assert code == 0, errors
    (folder,) = (project / "results" / "runs").iterdir()
    assert (folder / "record.json").exists() and f"results/runs/{folder.name}/record.json" in text


def test_init_never_overwrites(installed, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    code, _, errors = installed(tmp_path, "init")
    assert code == 2 and f"{tmp_path} already has README.md. Choose a new folder" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_the_project_is_the_nearest_parent_or_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("EMBEDLAB_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert paths.project_root() == tmp_path
    for name in ("mine/notebooks", "mine/experiments", "mine/data"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine" / "data")
    assert paths.project_root() == tmp_path / "mine"
