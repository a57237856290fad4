"""`embedlab evaluate`: what it prints, what it writes, and the exit code of a closed gate."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from embedlab.cli import evaluate as command
from embedlab.cli.evaluate import GATE_CLOSED, evaluate
from embedlab.errors import ParameterError
from tests.conftest import tiny_model

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(evaluate)


@pytest.fixture(autouse=True)
def models(monkeypatch, tmp_path):
    """`same` and `twin` are one model, `broken` says the same vector of everything."""
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
    broken = tiny_model()
    for parameter in broken.parameters():
        parameter.data.mul_(0).add_(0.01)
    loaded = {"same": tiny_model(), "twin": tiny_model(), "broken": broken}
    monkeypatch.setattr("embedlab.models.load.load_model", lambda name, device=None: loaded[name])


def invoke(*arguments):
    return CliRunner().invoke(app, [*arguments, "--dataset", "icd10cm:smoke", "--probe", "none"])


def test_equal_models_pass_the_gate_and_leave_what_was_asked_for(tmp_path):
    page, sheet = tmp_path / "new" / "page.html", tmp_path / "other" / "sheet.csv"
    result = invoke("same", "--against", "twin", "--gate", "--strict", "--html", str(page), "--sheet", str(sheet))
    assert result.exit_code == 0, result.output
    assert "ndcg@10 by length" in result.output and "0 fail" in result.output and "p_holm" in result.output
    assert page.exists() and sheet.exists()


def test_a_broken_model_closes_the_gate_and_is_only_shown_without_it():
    closed = invoke("broken", "--against", "same", "--gate", "--by", "length")
    assert closed.exit_code == GATE_CLOSED and "overall -" in closed.output
    assert invoke("broken", "--against", "same", "--by", "length").exit_code == 0
    assert invoke("same", "--against", "broken", "--gate", "--by", "length").exit_code == 0


def test_a_loss_is_called_a_loss_and_a_gain_a_gain():
    assert "broken is worse than same: do not ship it." in invoke("broken", "--against", "same").output
    assert "same is better than broken on these queries." in invoke("same", "--against", "broken").output
    assert "show no difference between same and twin." in invoke("same", "--against", "twin").output


def test_a_gain_on_few_queries_is_not_called_one(monkeypatch):
    monkeypatch.setattr("embedlab.finding.FEWEST_QUERIES", 10_000)
    said = "These are too few queries to show a difference."
    assert said in " ".join(invoke("broken", "--against", "same").output.split())


def test_the_dataset_is_never_guessed():
    result = CliRunner().invoke(app, ["same", "--against", "twin"])
    assert result.exit_code == 2 and "--dataset" in result.output


def test_a_wide_budget_lets_it_through():
    wide = ("--overall-budget", "1", "--slice-budget", "1")
    assert invoke("broken", "--against", "same", "--gate", "--by", "length", *wide).exit_code == 0


def test_a_lost_probe_closes_the_gate_although_the_task_is_won(monkeypatch):
    monkeypatch.setattr("embedlab.evaluation.probes.load_dataset", lambda spec, **_options: command_data())
    arguments = ["broken", "--against", "same", "--dataset", "icd10cm:smoke", "--gate", "--by", "length"]
    wide = ("--overall-budget", "1", "--slice-budget", "1", "--probe", "pydocs")
    result = CliRunner().invoke(app, [*arguments, *wide])
    assert result.exit_code == GATE_CLOSED and "pydocs -" in result.output


def command_data():
    from embedlab.data.load import load_dataset

    return load_dataset("icd10cm:smoke")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--metric", "ndcg@7"), "No metric 'ndcg@7'"),
        (("--by", "colour"), "No query has the field 'colour'"),
        (("--split", "validation"), "no validation queries"),
        (("--slice-budget", "-1"), "must be 0 or more, got -1"),
        (("--kind", "chapter", "--high-risk", "Zoology"), "No query has the chapter 'Zoology'"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, problem):
    result = invoke("same", "--against", "twin", *arguments)
    assert isinstance(result.exception, ParameterError) and problem in str(result.exception)


def test_the_module_is_cheap_to_import():
    import subprocess
    import sys

    code = f"import {command.__name__}, sys; assert not {{'torch', 'mteb', 'pandas'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
