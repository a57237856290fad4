"""The command line: quick to start, one clear line per mistake, exit codes that scripts can rely on."""

from __future__ import annotations

import errno
import subprocess
import sys

import nbformat
import pytest

from embedlab import __version__, paths
from embedlab.cli import console
from embedlab.cli import main as cli
from embedlab.errors import ParameterError
from embedlab.runs import execute, records
from embedlab.runs.execute import Outcome
from embedlab.runs.records import MetricRow, Record

HEAVY = (
    "torch",
    "transformers",
    "sentence_transformers",
    "mteb",
    "faiss",
    "bm25s",
    "papermill",
    "pandas",
    "matplotlib",
)


def row(system="contrastive", value=0.5, low=0.4, high=0.6, metric="ndcg@10", against=""):
    fields = {"ci_low": low, "ci_high": high, "n": 9, "statistic": "difference" if against else "value"}
    fields |= {"technique": "x", "split": "test", "against": against}
    return MetricRow(system=system, metric=metric, value=value, **fields)


def record(*rows: MetricRow, run_id="01_tiny-00000001-s0", **fields) -> Record:
    return Record(run_id=run_id, notebook="01_tiny", parameters={"seed": 0, "lr": 1e-4}, metrics=list(rows), **fields)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    for shared in (console.out, console.err):  # made when the module was imported, with the width of that time
        monkeypatch.setattr(shared, "_width", 200)
    for name in ("notebooks", "experiments"):
        (tmp_path / name).mkdir()
    cell = nbformat.v4.new_code_cell(
        'epochs: float = 3.0  # passes [over] data\nname: str = "x"\nseed: int = 0\noutput_dir: str = ""',
        metadata={"tags": ["parameters"]},
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks" / "01_tiny.ipynb")
    return tmp_path


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command as the shell would; returns (exit code, standard output, standard error)."""

    def run(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["embedlab", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        written = capsys.readouterr()
        return stop.value.code or 0, written.out, written.err

    return run


@pytest.fixture
def outcomes(monkeypatch):
    """Answers instead of executions; returns what the driver was asked for."""
    asked = {}

    def answer(outcome):
        def run_notebook(path, values, **options):
            asked.update(path=path, values=values, **options)
            return outcome

        monkeypatch.setattr(execute, "run_notebook", run_notebook)
        return asked

    return answer


def test_help_starts_without_a_heavy_import():
    code = f"import sys; from embedlab.cli import main; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_help_and_version(call):
    code, text, _ = call("--help")
    assert code == 0
    assert all(command in text for command in ("run", "table", "doctor", "params", "version"))
    assert call("version") == (0, f"{__version__}\n", "")


def test_params_lists_names_types_defaults_and_meaning(call):
    code, text, _ = call("params", "01")
    assert code == 0
    (line,) = (line for line in text.splitlines() if "epochs" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["epochs", "float", "3.0", "passes [over] data"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("run", "99"), "there is no notebook '99'. Choose one of 01_tiny"),
        (("run", "01", "-p", "epoch=1"), "there is no parameter 'epoch'. Did you mean 'epochs'?"),
        (("run", "01", "-p", "epochs=many"), "[epochs]: must be float, got 'many'. Write 3.0, for example"),
        (("run", "01", "-p", "seed=1.5"), "[seed]: must be int, got '1.5'"),
        (("run", "01", "-p", "epochs"), "expected name=value, got 'epochs'. Write -p name=value"),
        (("table", "--filter", "colour=red"), "there is no column 'colour'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(call, arguments, message):
    code, text, errors = call(*arguments)
    assert (code, text) == (2, "")
    assert message in errors and len(errors.splitlines()) == 1 and "Traceback" not in errors


def test_an_error_of_ours_inside_a_command_is_one_line_too(call, monkeypatch):
    def refuse(*_, **__):
        raise ParameterError("bad [value]", remedy="Change it", field="x")

    monkeypatch.setattr(execute, "run_notebook", refuse)
    assert call("run", "01") == (2, "", "[x]: bad [value]. Change it.\n")


def test_values_reach_the_driver_typed(call, outcomes, home):
    folder = paths.runs_dir() / record().run_id
    folder.mkdir(parents=True)
    asked = outcomes(Outcome(folder.name, folder, record(row())))
    arguments = (
        "-p",
        "epochs=1e-5",
        "-p",
        "name=007=x",
        "--force",
        "--html",
        "--timeout",
        "0.5",
        "--output-dir",
        "out",
    )
    code, _, errors = call("run", "01_tiny", *arguments)
    assert (code, errors) == (0, "")
    assert asked["values"] == {"epochs": 1e-5, "name": "007=x"}
    assert asked["path"] == home / "notebooks" / "01_tiny.ipynb"
    assert (asked["force"], asked["html"], asked["limits"].wall_min, asked["output_dir"]) == (True, True, 0.5, "out")


@pytest.mark.parametrize("skipped, words", [(False, "finished"), (True, "already finished")])
def test_a_run_ends_with_its_numbers_and_where_things_are(call, outcomes, skipped, words):
    rows = [row("base", 0.25, 0.2, 0.3), row(), row(value=0.25, low=0.1, high=0.4, against="base")]
    rows.append(row("static", None, None, None, against="base"))
    kept = record(*rows)
    folder = paths.runs_dir() / kept.run_id
    assert records.commit(kept, folder)
    for name in ("executed.ipynb", "curve.png", "curve.csv"):
        (folder / name).write_text("")
    outcomes(Outcome(kept.run_id, folder, kept, skipped=skipped))
    code, text, _ = call("run", "01")
    assert code == 0
    assert f"{kept.run_id}: {words}" in " ".join(text.split())
    assert "0.250 [0.200, 0.300]" in text and "0.500 [0.400, 0.600]" in text
    verdict = "contrastive − base: +0.250 [+0.100, +0.400] ndcg@10. The interval excludes 0: the gain over base"
    assert verdict in " ".join(text.split())
    assert "static − base: " not in text  # no interval, no verdict
    for name in ("record.json", "executed.ipynb", "curve.png"):
        assert f"results/runs/{kept.run_id}/{name}" in text
    assert list(paths.experiments_dir().iterdir()) == []  # a run changes no tracked file


@pytest.mark.parametrize(
    "low, high, verdict",
    [
        (-0.2, -0.1, "contrastive is worse than base. Do not replace base by it"),
        (-0.1, 0.1, "do not show a difference"),
        (0.1, 0.2, "the gain over base is established"),
    ],
)
def test_verdict_on_a_difference(call, outcomes, low, high, verdict):
    kept = record(row("contrastive", (low + high) / 2, low, high, against="base"))
    folder = paths.runs_dir() / kept.run_id
    records.commit(kept, folder)
    outcomes(Outcome(kept.run_id, folder, kept))
    assert verdict in " ".join(call("run", "01")[1].split())


def test_a_run_says_what_went_wrong_in_its_training(call, outcomes):
    notes = {"training": {"": {"no step beat the base": "Lower the learning rate."}, "static": {}}}
    kept = record(row("contrastive")).model_copy(update={"notes": notes})
    folder = paths.runs_dir() / kept.run_id
    records.commit(kept, folder)
    outcomes(Outcome(kept.run_id, folder, kept))
    assert "Lower the learning rate." in call("run", "01")[1]


@pytest.mark.parametrize("cause, code", [("error in cell", 1), ("kernel died", 1), ("timeout", 1), ("cancelled", 130)])
def test_a_failed_run_says_why_and_never_exits_0(call, outcomes, cause, code):
    folder = paths.runs_dir() / "01_tiny-00000001-s0"
    outcomes(Outcome(folder.name, folder, cause=cause, detail="code cell 3: x[0]\nKeyError: [/red]"))
    found, text, errors = call("run", "01")
    assert (found, text) == (code, "")
    assert f"{folder.name} failed: {cause}" in errors and "code cell 3: x[0]\nKeyError: [/red]" in errors
    assert f"results/runs/{folder.name}/attempts" in errors


def test_table_formats_filters_and_warns(call):
    for number, version in enumerate(("1", "2"), 1):
        kept = record(row(value=number / 10), run_id=f"01_tiny-0000000{number}-s0", versions={"torch": version})
        records.commit(kept, paths.runs_dir() / kept.run_id)
    code, text, errors = call("table", "--format", "csv")
    found = [line[:18] for line in text.splitlines()[1:3]]
    assert code == 0 and found == ["01_tiny-00000002-s", "01_tiny-00000001-s"]
    assert "these runs mix 2 environments" in errors
    code, text, errors = call("table", "--format", "md", "--filter", "run_id=01_tiny-00000001-s0")
    assert code == 0 and "00000002" not in text and "| 01_tiny-00000001-s0 |" in text and errors == ""
    code, text, _ = call("table", "--filter", "lr=1e-4")
    assert code == 0 and "2 rows retrieval, retrieval, test, ndcg@10" in text and "0.200 [0.400, 0.600]" in text
    assert call("table", "--metric", "mrr@10")[0] == 0
    for pivot in ((), ("--rows", "system", "--columns", "dim")):
        code, text, errors = call("table", "--filter", "notebook=04_gone", *pivot)
        assert (code, text) == (2, "")
        assert "no run with the metric 'ndcg@10' matches the filter 'notebook=04_gone'. --metric '' shows all" in errors
    _, _, errors = call("table", "--metric", "", "--filter", "notebook=04_gone", "--filter", "seed=0")
    assert "no run matches the filter 'notebook=04_gone' and 'seed=0'." in errors
    assert list(paths.experiments_dir().iterdir()) == []


def test_table_shows_own_runs_with_dataset_and_varying_parameters_and_the_study_if_asked(call, home):
    for number in (1, 2, 3):
        parameters = {"seed": 0, "dataset": f"d{number}", "lr": number, "same": 1}
        run_id = f"01_tiny-0000000{number}-s0"
        difference = row(value=0.9, against="base")
        kept = Record(
            run_id=run_id, notebook="01_tiny", parameters=parameters, metrics=[row(value=number / 10), difference]
        )
        records.commit(kept, paths.runs_dir() / run_id)
    for command in (["init", "-q"], ["add", "results/runs/01_tiny-00000003-s0"]):
        subprocess.run(["git", "-C", str(home), *command], check=True)
    my_lines = [line for line in call("table")[1].splitlines() if "01_tiny" in line]
    assert len(my_lines) == 2 and not any(" study " in line for line in my_lines)
    _, text, _ = call("table", "--study")
    assert call("table", "--filter", "from=mine")[1].count("01_tiny") == 2
    assert call("table", "--filter", "seed=0")[1].count("01_tiny") == 3
    lines = [line for line in text.splitlines() if "01_tiny" in line]
    assert [(" mine " in line, " study " in line) for line in lines] == [(True, False), (True, False), (False, True)]
    assert [f"d{number}" in line for number, line in zip((2, 1, 3), lines, strict=True)] == [True] * 3
    assert " lr " in text and " same " not in text and "0.900" not in text
    assert "0.900" in call("table", "--differences")[1]


def test_table_leaves_out_parameters_that_do_not_fit_a_terminal(call):
    for number in (1, 2):
        parameters = {"seed": 0} | {f"p{index}": number for index in range(7)}
        run_id = f"01_tiny-0000000{number}-s0"
        kept = Record(run_id=run_id, notebook="01_tiny", parameters=parameters, metrics=[row()])
        records.commit(kept, paths.runs_dir() / run_id)
    _, text, errors = call("table")
    assert " p0 " not in text and "7 parameters differ between these runs: --format csv shows them" in errors


def test_table_without_runs(call):
    assert call("table")[0] == 0
    assert call("table", "--format", "csv")[0] == 0


@pytest.mark.parametrize("ok, code", [(True, 0), (None, 0), (False, 1)])
def test_doctor_fails_when_something_needed_is_missing(call, monkeypatch, ok, code):
    from embedlab.cli import doctor

    monkeypatch.setattr(doctor, "checks", lambda: [doctor.Check("thing", "[red]", ok, "get it")])
    found, text, _ = call("doctor")
    assert found == code and "[red]" in text and "get it" in text


def test_a_full_disk_is_one_line(call, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device", "t.csv")

    monkeypatch.setattr("embedlab.reporting.tables.runs_frame", full)
    code, _, said = call("table")
    assert code == 1 and "cannot write t.csv (No space left on device)" in said and "Traceback" not in said


def test_a_number_that_fits_two_notebooks_names_both(call, home):
    (home / "notebooks" / "01_other.ipynb").write_bytes((home / "notebooks" / "01_tiny.ipynb").read_bytes())
    assert call("params", "01") == (2, "", "[notebook]: '01' fits 01_other and 01_tiny. Write the whole name.\n")
    assert call("params", "01_tiny")[0] == 0


def test_relative_paths_mean_the_current_folder(call, outcomes, home, monkeypatch):
    inside, outside = home / "data", home.parent / f"{home.name}-other"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "my.csv").write_text("")
    asked = outcomes(Outcome("01_tiny-00000001-s0", home))
    monkeypatch.chdir(inside)
    for text, value in (
        ("my.csv", "data/my.csv"),
        ("pairs:my.csv?repair=true", "pairs:data/my.csv?repair=true"),
        ("missing.csv", "missing.csv"),
        (f"{inside}/my.csv", "data/my.csv"),  # the same run as with the relative path
    ):
        call("run", "01", "-p", f"name={text}")
        assert asked["values"] == {"name": value}
    monkeypatch.chdir(outside)
    call("run", "01", "-p", "name=pairs:my.csv")
    assert asked["values"] == {"name": f"pairs:{outside}/my.csv"}
