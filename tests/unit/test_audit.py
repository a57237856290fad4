"""The audit of locked packages: skipped in one line without advisory data, else its result counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import audit


@pytest.mark.parametrize("content", [None, "<html>", "{}", "[]", '{"vulnerabilities": []}'])
def test_only_advisory_data_counts_as_reachable(tmp_path, content):
    path = tmp_path / "answer"
    if content is not None:
        path.write_text(content)
    assert audit.is_reachable(path.as_uri()) is (content == '{"vulnerabilities": []}')


def test_without_data_or_pip_audit_it_is_skipped_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(audit, "is_reachable", lambda: False)
    assert audit.main() == 0 and capsys.readouterr().out == "audit skipped: advisory data cannot be reached\n"
    monkeypatch.setattr(audit, "is_reachable", lambda: True)
    monkeypatch.setattr(audit, "install", lambda: None)
    assert audit.main() == 0 and "cannot be installed" in capsys.readouterr().out


@pytest.mark.parametrize("code", [0, 1])
def test_the_result_of_pip_audit_is_the_result(monkeypatch, code):
    seen = []
    monkeypatch.setattr(audit, "is_reachable", lambda: True)
    monkeypatch.setattr(audit, "install", lambda: Path("python"))
    monkeypatch.setattr(audit, "ACCEPTED", {"GHSA-1": "not used"})
    run = lambda command, **options: seen.append(command) or subprocess.CompletedProcess(command, code)  # noqa: E731
    monkeypatch.setattr(audit.subprocess, "run", run)
    assert audit.main() == code
    assert seen[0][-2:] == ["--ignore-vuln", "GHSA-1"] and str(audit.LOCK) in seen[0]


def test_every_accepted_vulnerability_has_a_reason():
    assert all(len(reason) > 10 for reason in audit.ACCEPTED.values())
