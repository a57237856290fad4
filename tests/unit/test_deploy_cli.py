"""The commands on the smallest real data with a cheap encoder: what they say, what they leave and how they exit."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from embedlab.cli import deploy as cli
from embedlab.deploy import versions
from embedlab.deploy.drift import DriftReport
from embedlab.errors import DataError, ParameterError, StorageError
from tests.unit.test_deploy_space import FakeEncoder

DATA = "icd10cm:smoke"


class WordEncoder(FakeEncoder):
    """A text is the sum of its words' vectors, so that queries find what they share words with."""

    def __init__(self, model: str):
        super().__init__(int(model.removeprefix("fake-")), 64)

    def _vector(self, text):
        return sum(super(WordEncoder, self)._vector(word) for word in {"", *text.lower().split()})


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "_encoder", WordEncoder)

    def run(*arguments, exit_code=0):
        result = CliRunner().invoke(cli.app, [*arguments, "--root", str(tmp_path)], terminal_width=200)
        assert result.exit_code == exit_code, (result.output, result.exception)
        return result.output

    return run


@pytest.fixture
def shipped(call, tmp_path):
    """Versions of two models, the first one served."""
    found = []
    for model in ("fake-0", "fake-1"):
        call("index", "--dataset", DATA, "--model", model, "--kind", "flat")
        found.append(versions.versions(tmp_path)[-1])
    call("promote", found[0])
    return found


def test_embed_says_what_there_is_to_do_and_does_it_once(call):
    assert "400 texts to encode" in call("embed", "--dataset", DATA, "--model", "fake-0", "--dry-run")
    first = call("embed", "--dataset", DATA, "--model", "fake-0")
    second = call("embed", "--dataset", DATA, "--model", "fake-0")
    assert "400 documents" in first and "400 documents: 0 encoded" in second


def test_index_promote_status_rollback(call, shipped, tmp_path):
    built = call("index", "--dataset", DATA, "--model", "fake-0", "--kind", "flat")
    assert "ndcg@10" in built and f"Next: embedlab deploy promote {shipped[0]}" in built
    assert f"before: {shipped[0]}" in call("promote", shipped[1]).replace("\n", "")
    shown = call("status")
    assert shown.count(" ok") == 2 and DATA in shown and f"→  {shipped[1]}" in shown and f"→  {shipped[0]}" not in shown
    assert shipped[0] in call("rollback").replace("\n", "")
    (tmp_path / shipped[1] / "index.bin").write_bytes(b"")
    assert "damaged" in call("status", exit_code=1)


def test_documents_alone_are_indexed_and_found_without_an_evaluation(call, tmp_path):
    manuals = tmp_path.parent / "manuals"
    manuals.mkdir()
    (manuals / "a.txt").write_text("The pump needs oil every month.", "utf-8")
    (manuals / "b.md").write_text("# Belt\n\nReplace the belt after a year.", "utf-8")
    assert "2 texts to encode" in call("embed", "--dataset", f"docs:{manuals}", "--model", "fake-0", "--dry-run")
    shown = call("index", "--dataset", f"docs:{manuals}", "--model", "fake-0", "--kind", "flat")
    assert "2 documents" in shown and "not evaluated" in shown
    promoted = call("promote", versions.versions(tmp_path)[-1])
    assert "Next: embedlab deploy search" in promoted and "the one before" not in promoted
    assert "needs oil" in call("search", "pump oil", "--k", "1")
    with pytest.raises(DataError, match="no queries"):
        CliRunner().invoke(
            cli.app, ["shadow", versions.versions(tmp_path)[-1], "--root", str(tmp_path)], catch_exceptions=False
        )


def test_search_shows_texts(call, shipped):
    assert "Sickle-cell" in call("search", "sickle-cell disease", "--k", "3")


def test_shadow_holds_with_exit_code_1_and_promotes_with_0(call, shipped, tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps({"query": text, "high_risk": True}) for text in ("anemia", "sickle cell")))
    held = call("shadow", shipped[1], "--log", str(log), "--report", str(tmp_path / "report.csv"), exit_code=1)
    assert "hold: overlap@10" in held and "high-risk" in held
    assert (tmp_path / "report.csv").read_text().count("\n") == 3
    same = call("shadow", shipped[0], "--slowdown", "1000")
    assert "promote: overlap@10 1.00, rank-biased overlap 1.00" in same


def test_drift_is_quiet_on_its_own_log_and_loud_on_another(call, shipped, tmp_path):
    from embedlab.data.load import load_dataset

    texts = list(load_dataset(DATA).split_queries("train").values())
    usual, fresh, other = (tmp_path / name for name in ("usual.jsonl", "fresh.jsonl", "other.jsonl"))
    usual.write_text("\n".join(json.dumps({"query": text}) for text in texts[::2]))
    fresh.write_text("\n".join(json.dumps({"query": text}) for text in texts[1::2]))
    other.write_text("\n".join(json.dumps({"query": f"array of rank {i} along the axis"}) for i in range(40)))
    call("drift", "reference", "--log", str(usual))
    assert "p_holm" in call("drift", "check", "--log", str(fresh))
    loud = " ".join(call("drift", "check", "--log", str(other), exit_code=1).split())  # lines break by width
    assert "nobody used before" in loud and "fine-tune" in loud
    assert "words that the reference does not have (number of texts): " in loud and "array (40)" in loud


def test_drift_without_a_reference_says_how_to_make_one(call, shipped, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"query": "x"}')
    result = CliRunner().invoke(
        cli.app, ["drift", "check", "--log", str(tmp_path / "log.jsonl"), "--root", str(tmp_path)]
    )
    assert isinstance(result.exception, StorageError) and "drift reference" in str(result.exception)


def test_documents_that_come_in_are_checked_too(call, shipped, tmp_path):
    pairs = tmp_path / "new.jsonl"
    rows = [{"query": f"ask {i}", "positive": f"ndarray rank{i} axis dtype broadcast"} for i in range(40)]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    call("drift", "reference", "--documents")
    loud = call("drift", "check", "--dataset", f"pairs:{pairs}", exit_code=1)
    assert "nobody used before" in loud
    for options in ([], ["--log", "x", "--dataset", "y"]):
        result = CliRunner().invoke(cli.app, ["drift", "check", *options, "--root", str(tmp_path)])
        assert isinstance(result.exception, ParameterError)


def test_single_unusual_texts_are_shown(capsys):
    unusual = pd.DataFrame({"text": ["the odd [one]"], "nearest": [1.9], "p_value": [0.001]})
    quiet = pd.DataFrame({"statistic": ["mean"], "alarm": [False]})
    cli._show_drift(DriftReport(quiet, unusual, [], 0.01), 20)
    assert "unlike the reference: the odd [one]" in capsys.readouterr().out


def test_recheck_keeps_a_line(call, shipped, tmp_path):
    assert "when it was built" in call("recheck")
    again = call("recheck", "--dataset", DATA)
    assert "0 documents are new since then" in again and "2 checks so far" in again
    assert len((tmp_path / f"{shipped[0]}.checks.jsonl").read_text().splitlines()) == 2


def test_export_writes_a_database(call, shipped, tmp_path):
    pytest.importorskip("lancedb")
    assert "400 documents" in call("export", str(tmp_path / "lance"))


def test_an_unknown_index_is_refused(call):
    result = CliRunner().invoke(cli.app, ["index", "--dataset", DATA, "--kind", "tree"])
    assert isinstance(result.exception, ParameterError) and "flat, hnsw" in str(result.exception)


def test_every_command_has_help():
    for command in (
        "embed",
        "index",
        "promote",
        "rollback",
        "status",
        "search",
        "shadow",
        "recheck",
        "export",
        "drift",
    ):
        result = CliRunner().invoke(cli.app, [command, "--help"])
        assert result.exit_code == 0 and len(result.output.split("\n")) > 5
