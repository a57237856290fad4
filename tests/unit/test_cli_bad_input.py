"""Every command with numbers outside their range, empty texts, files for folders, folders for files, no permission.

Each ends with exit code 2 and one line that names what is wrong, before anything is computed.
"""

from __future__ import annotations

import pytest
import typer

from embedlab.cli import deploy
from embedlab.cli import main as cli
from embedlab.cli.options import number
from embedlab.deploy import versions
from embedlab.deploy.build import Source, build_version
from embedlab.deploy.indexes import IndexSpec
from embedlab.errors import ParameterError
from tests.unit.test_deploy_space import FakeEncoder

NUMBERS = {  # option -> values that are refused
    ("convert", "a.csv", "b.jsonl", "--negatives"): ("0", "-3"),
    ("label", "next", "icd10cm:smoke", "--count"): ("0", "-1"),
    ("label", "next", "icd10cm:smoke", "--gain"): ("nan", "0", "-1", "inf"),
    ("label", "next", "icd10cm:smoke", "--more-pairs"): ("0", "-1"),
    ("synthesise", "docs:x", "y.jsonl", "--model", "m", "--per-document"): ("0",),
    ("synthesise", "docs:x", "y.jsonl", "--model", "m", "--documents"): ("-1",),
    ("synthesise", "docs:x", "y.jsonl", "--model", "m", "--workers"): ("0",),
    ("synthesise", "docs:x", "y.jsonl", "--model", "m", "--budget"): ("nan", "0", "-5"),
    ("synthesise", "docs:x", "y.jsonl", "--model", "m", "--seed"): ("-1", str(2**70)),
    ("deploy", "search", "q", "--k"): ("0", "-3"),
    ("deploy", "search", "q", "-k"): ("0", "-3"),
    ("deploy", "shadow", "VERSION", "--margin"): ("nan", "-1", "inf"),
    ("deploy", "shadow", "VERSION", "--slowdown"): ("nan", "-1", "0", "inf"),
    ("deploy", "drift", "check", "--log", "log.csv", "--alpha"): ("nan", "0", "1", "2", "-1", "inf"),
    ("deploy", "shards", "embed", "docs", "vectors", "--rows"): ("0", "-1"),
    ("deploy", "shards", "embed", "docs", "vectors", "--workers"): ("0", "-1"),
    ("deploy", "shards", "search", "vectors", "--k"): ("0",),
    ("deploy", "shards", "search", "vectors", "--workers"): ("0",),
    ("deploy", "shards", "index", "vectors", "--lists"): ("-1",),
    ("deploy", "shards", "index", "vectors", "--code-bytes"): ("0",),
    ("deploy", "shards", "index", "vectors", "--k"): ("0",),
    ("deploy", "shards", "index", "vectors", "--workers"): ("0",),
    ("diagnose", "icd10cm:smoke", "--good-enough"): ("nan", "0", "-1", "2"),
    ("diagnose", "icd10cm:smoke", "--max-docs"): ("-1",),
    ("diagnose", "icd10cm:smoke", "--enrich-characters"): ("-1",),
    ("diagnose", "icd10cm:smoke", "--seed"): ("-1", str(2**70)),
    ("serve", "model", "--port"): ("-1", "65536"),
    ("serve", "model", "--batch-tokens"): ("0", "-1"),
    ("serve", "model", "--max-texts"): ("0",),
    ("serve", "model", "--max-bytes"): ("0", "1023"),
    ("serve", "model", "--max-requests"): ("0",),
    ("serve", "model", "--max-waiting"): ("0",),
    ("serve", "model", "--timeout"): ("nan", "0", "-1", "inf"),
    ("export", "model", "out", "--max-docs"): ("0", "-1"),
    ("export", "model", "out", "--budget"): ("nan", "-1", "inf"),
    ("evaluate", "model", "--dataset", "icd10cm:smoke", "--overall-budget"): ("nan", "-1"),
    ("evaluate", "model", "--dataset", "icd10cm:smoke", "--slice-budget"): ("nan", "-1"),
    ("evaluate", "model", "--dataset", "icd10cm:smoke", "--risk-budget"): ("nan", "-1"),
    ("evaluate", "model", "--dataset", "icd10cm:smoke", "--probe-budget"): ("nan", "-1"),
}
ADVISE = ("deploy", "advise", "--old", "a", "--new", "b", "--dataset", "icd10cm:smoke")
NUMBERS |= {
    (*ADVISE, "--documents"): ("0", "-1"),
    (*ADVISE, "--per-day"): ("0",),
    (*ADVISE, "--texts-per-second"): ("nan", "0", "inf"),
    (*ADVISE, "--sample"): ("1",),
    (*ADVISE, "--share"): ("0", "1", "nan"),
    (*ADVISE, "--tolerance"): ("nan", "-1"),
    (*ADVISE, "--probe-queries"): ("1",),
    (*ADVISE, "--seed"): ("-1",),
}
FOLDERS = [  # a file or /proc where a folder of versions or runs is expected
    ("deploy", "search", "q", "--root"),
    ("deploy", "embed", "--root"),
    ("deploy", "index", "--root"),
    ("deploy", "promote", "VERSION", "--root"),
    ("deploy", "rollback", "--root"),
    ("deploy", "status", "--root"),
    ("deploy", "shadow", "VERSION", "--root"),
    ("deploy", "recheck", "--root"),
    ("deploy", "drift", "check", "--log", "log.csv", "--root"),
    ("deploy", "drift", "reference", "--root"),
    ("deploy", "export", "out", "--root"),
    ("deploy", "import", "a_folder", "--root"),
    ("deploy", "import"),
    ("run", "00", "--output-dir"),
    ("watch", "--once", "--output-dir"),
    ("logs", "x", "--output-dir"),
    ("cancel", "x", "--output-dir"),
    ("evidence", "x", "--output-dir"),
    ("evidence", "x", "--mteb"),
    ("sweep", "x", "--output-dir"),
    ("init",),
    ("migrate",),
    ("deploy", "export"),
    ("export", "model"),
]
OUTPUT_FILES = [
    (*ADVISE, "--report"),
    ("deploy", "shadow", "VERSION", "--log", "log.csv", "--report"),
    ("evaluate", "model", "--dataset", "icd10cm:smoke", "--html"),
    ("evaluate", "model", "--dataset", "icd10cm:smoke", "--sheet"),
    ("label", "next", "icd10cm:smoke", "-o"),
    ("label", "add", "icd10cm:smoke", "sheet.csv", "-o"),
    ("table", "-o"),
    ("report", "-o"),
]
TEXTS = [
    (("deploy", "search", ""), "the query is empty"),
    (("deploy", "export", "x", "--to", "pinecone"), "Choose lancedb or qdrant"),
    (("deploy", "export", "http://127.0.0.1:9", "--to", "lancedb"), "Choose lancedb or qdrant"),
    (("deploy", "export", "postgresql://127.0.0.1:9/x", "--to", "qdrant"), "postgresql for postgresql://"),
    (("deploy", "export", "postgresql://me:se/cret@127.0.0.1/x"), "the address of the database is not valid"),
    (("deploy", "import", "Postgres://me:secret@127.0.0.1/x"), "the address of the database is not valid"),
    (("deploy", "import", "nowhere"), "there is no folder"),
    (("deploy", "promote", ""), "is not the name of a version"),
    (("deploy", "promote", "../x"), "is not the name of a version"),
    (("deploy", "promote", "/etc/passwd"), "is not the name of a version"),
    (("deploy", "shadow", "nope", "--log", "log.csv"), "is not the name of a version"),
    (("deploy", "recheck", "--version", "nope/x"), "There is no version"),
    (("deploy", "index", "--dataset", "icd10cm:smoke", "--kind", ""), "unknown kind of index"),
    (("deploy", "index", "--dataset", ""), "unknown dataset"),
    (("deploy", "index", "--dataset", "icd10cm:smoke", "--split", "nope"), "has no nope queries"),
    (("deploy", "drift", "check"), "either --log or --dataset"),
    (("deploy", "drift", "check", "--log", "nofile.csv"), "does not exist"),
    (("synthesise", "docs:x", "y.jsonl", "--model", "m", "--price", "-1,2"), "two prices of 0 or more, got '-1,2'"),
    (("synthesise", "docs:x", "y.jsonl", "--model", "m", "--url", "http://x", "--budget", "5"), "Add --price IN,OUT"),
    (("diagnose", ""), "dataset"),
    (("diagnose", "icd10cm:smoke", "-m", ""), "model_name"),
    (("table", "--format", "xml"), "unknown format 'xml'"),
    (("table", "--rows", "system"), "needs --rows and --columns"),
    (("cancel", ""), "no runs in progress"),
    (("evidence", "../x"), "is not a plain name"),
    (("evidence", "nope"), "the run has no record"),
    (("verify", "a_folder", "icd10cm:smoke"), "the model has no evidence"),
    (("verify", "no_such_folder", "icd10cm:smoke"), "there is no such model folder"),
    (("push", "a_folder", "me/model", "--without-text-scan"), "there is no model"),
    (("push", "a_folder", "me/model"), "give the training data"),
    (("migrate", "nowhere"), "there is no folder"),
    (("publish", "x"), "needs a name"),
    (("serve", "nosuchmodel", "--port", "0"), "cannot be loaded"),
    (("serve", "", "--port", "0"), "model_name"),
    (("serve", "all-MiniLM-L6-v2", "--host", "no.such.host.invalid"), "cannot listen on no.such.host.invalid:8080"),
    (("serve", "all-MiniLM-L6-v2", "--input-type", "x"), "input_type"),
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project with a served version of a model that must not be loaded."""
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").write_text("x")
    (tmp_path / "a_folder").mkdir()
    (tmp_path / "log.csv").write_text("query\none\ntwo\n")
    texts = {f"d{i}": f"text {i}" for i in range(30)}
    version, _ = build_version(tmp_path / "results/index", FakeEncoder(), Source(texts.items()), IndexSpec(kind="flat"))
    versions.promote(tmp_path / "results/index", version)
    monkeypatch.setattr(deploy, "_encoder", lambda model: pytest.fail("a model was loaded"))
    return tmp_path, version


@pytest.fixture
def refused(home, monkeypatch, capsys):
    """Calls the command line, which must refuse; returns the line."""

    def call(*arguments):
        named = [home[1] if argument == "VERSION" else argument for argument in arguments]
        monkeypatch.setattr("sys.argv", ["embedlab", *named])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        written = capsys.readouterr()
        assert stop.value.code == 2, written
        line = written.err.strip()
        assert line and "\n" not in line and "Traceback" not in line
        return line

    return call


@pytest.mark.parametrize(("command", "value"), [(command, v) for command, values in NUMBERS.items() for v in values])
def test_a_number_outside_its_range(refused, command, value):
    line = refused(*command, value)
    assert command[-1].strip("-").partition("-")[0] in line.replace("_", "-") or "budget" in line


@pytest.mark.parametrize("command", FOLDERS, ids=" ".join)
@pytest.mark.parametrize("place", ["a_file", "a_file/below"])
def test_a_file_in_the_place_of_a_folder(refused, command, place):
    assert "a_file" in refused(*command, place)


@pytest.mark.parametrize("command", OUTPUT_FILES, ids=" ".join)
@pytest.mark.parametrize("place", ["a_folder", "a_file/below.csv", "/proc/x.csv"])
def test_an_output_file_that_cannot_be_written(refused, command, place):
    line = refused(*command, place)
    assert command[-1] in line and ("is a folder" in line or "cannot write to the folder" in line)


def test_a_database_that_cannot_be_written(refused):
    assert "cannot write to the folder /proc/x" in refused("deploy", "export", "/proc/x")


@pytest.mark.parametrize(("command", "problem"), TEXTS, ids=lambda value: " ".join(value) if value else "")
def test_texts_that_name_nothing(refused, command, problem):
    assert problem in refused(*command)


def test_a_version_name_may_end_with_a_slash(home, monkeypatch, capsys):
    """Completion in a shell adds one."""
    _, version = home
    monkeypatch.setattr("sys.argv", ["embedlab", "deploy", "promote", f"{version}/"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code and f"served: {version}" in capsys.readouterr().out


def numeric_options():
    """Yield every numeric option of every command."""
    pending = [("embedlab", typer.main.get_command(cli.app))]
    while pending:
        name, command = pending.pop()
        for parameter in command.params:
            if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
                yield f"{name} {parameter.opts[-1]}"
        pending += [(f"{name} {child}", sub) for child, sub in getattr(command, "commands", {}).items()]


def test_every_numeric_option_is_tried():
    """A new one needs a line in `NUMBERS`, or a range of typer's."""
    ranged = {"run --timeout", "run --mem-gb", "run --cpus", "sweep --jobs"}  # typer prints its own message
    ranged |= {f"tune --{name}" for name in ("minutes", "seed", "max-bytes", "min-speed", "max-forgetting")}
    groups = {("deploy", "drift"): 3, ("deploy", "shards"): 3}
    lengths = [groups.get(command[:2], 2 if command[0] in ("deploy", "label") else 1) for command in NUMBERS]
    tried = {" ".join([*command[:length], command[-1]]) for command, length in zip(NUMBERS, lengths, strict=True)}
    assert {option.removeprefix("embedlab ") for option in numeric_options()} <= tried | ranged


@pytest.mark.parametrize("command", [("run", "00", "--timeout"), ("run", "00", "--mem-gb"), ("run", "00", "--cpus")])
@pytest.mark.parametrize("value", ["-1", "x", ""])
def test_ranges_of_typer(home, monkeypatch, capsys, command, value):
    monkeypatch.setattr("sys.argv", ["embedlab", *command, value])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    written = capsys.readouterr()
    assert stop.value.code == 2 and command[-1] in written.err and "Traceback" not in written.err


@pytest.mark.parametrize(
    ("limits", "good", "bad"),
    [
        ({"at_least": 1}, (1, 5), (0, -1, float("inf"), float("nan"))),
        ({"above": 0, "below": 1}, (0.5,), (0, 1, float("nan"))),
    ],
)
def test_number_by_hand(limits, good, bad):
    class Param:
        opts = ("-x", "--x")

    check = number(**limits)
    assert [check(Param, value) for value in good] == list(good) and check(Param, None) is None
    for value in bad:
        with pytest.raises(ParameterError, match=r"\[--x\]: expected a number "):
            check(Param, value)
