"""A project of tiny notebooks, and an engine for it."""

from __future__ import annotations

import pytest

from embedlab.cli import main as cli
from embedlab.sweeps.local import LocalEngine
from tests.faults import tiny


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The project's folder; it is the current project, and the working folder."""
    tiny.warm_up()
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.delenv("EMBEDLAB_PROGRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tiny.make_project(tmp_path)


@pytest.fixture
def engine():
    """Two runs side by side on this machine."""
    engine = LocalEngine(jobs=2)
    yield engine
    engine.close()


@pytest.fixture
def command(monkeypatch, capsys):
    """Calls the command line as a shell would; returns (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["embedlab", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        written = capsys.readouterr()
        return stop.value.code or 0, written.out, written.err

    return call
