"""The pins: written once, complete, and what is installed here."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import bootstrap  # noqa: E402


def test_lock_equals_what_is_installed():
    assert bootstrap.mismatches(bootstrap.pins(), bootstrap.installed()) == []


def test_direct_dependencies_stand_in_the_lock_with_their_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    pins = bootstrap.pins()
    for name, version in (requirement.split("==") for requirement in direct):
        assert pins[bootstrap.canonical(name)] == version


def test_lock_is_the_whole_closure_and_nothing_else():
    lines = [line for line in bootstrap.LOCK.read_text().splitlines() if not line.startswith("#")]
    assert lines == bootstrap.closure()


def test_torch_pin_suits_cpu_and_cuda_builds():
    assert bootstrap.pins()["torch"] == "2.13.0"
    assert not [name for name in bootstrap.pins() if bootstrap.CUDA_PACKAGES.match(name)]


def test_environment_yml_repeats_no_pin():
    text = (ROOT / "environment.yml").read_text()
    assert "==" not in text
    assert {"pip": ["-r requirements.lock", "-e ."]} in yaml.safe_load(text)["dependencies"]


@pytest.mark.parametrize("broken", [{"torch": "2.12.0"}, {"torch": None}, {"embedlab": None}])
def test_mismatch_is_found(broken):
    found = {**bootstrap.installed(), **broken}
    found = {name: version for name, version in found.items() if version is not None}
    (line,) = bootstrap.mismatches(bootstrap.pins(), found)
    assert line.startswith(next(iter(broken)))


def test_local_version_suffix_does_not_matter():
    assert "+" not in bootstrap.installed()["torch"]


def test_check_needs_neither_pip_nor_network():
    code = """
import sys
sys.argv = ["bootstrap.py", "--check"]
sys.path.insert(0, "tools")
import bootstrap
try:
    bootstrap.main()
except SystemExit as end:
    print(end.code, sorted({"pip", "ssl", "urllib.request"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"


def test_half_built_environment_is_not_usable(tmp_path):
    assert not bootstrap.usable(tmp_path / "bin" / "python")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "python"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    assert not bootstrap.usable(fake)
    assert not bootstrap.matches(fake)


@pytest.mark.parametrize(
    "requires, cuda", [(["nvidia-cublas==13; platform_system=='Linux'"], True), (["sympy"], False)]
)
def test_cuda_build_is_recognised(monkeypatch, requires, cuda):
    report = json.dumps({"install": [{"metadata": {"requires_dist": ["filelock", *requires]}}]})
    answer = subprocess.CompletedProcess([], 0, stdout=report, stderr="")
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *args, **kwargs: answer)
    assert bootstrap.pip_takes_cuda(Path("python"), "torch==2.13.0") is cuda
