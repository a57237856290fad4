"""The pins: written once, complete, installed here; the bootstrap reuses, mends, and takes no CUDA build by mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import bootstrap  # noqa: E402
import lock  # noqa: E402

TORCH = "torch==2.13.0"


def test_lock_equals_what_is_installed():
    assert bootstrap.mismatches(bootstrap.pins(), bootstrap.installed()) == []


def test_direct_dependencies_stand_in_the_lock_with_their_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: pins for name, pins in project["optional-dependencies"].items() if name not in lock.NOT_LOCKED}
    direct = [*project["dependencies"], *sum(extras.values(), [])]
    pins = bootstrap.pins()
    for requirement in map(lock.Requirement, direct):
        if lock.applies(requirement, default_environment(), set()):
            assert f"=={pins[bootstrap.canonical(requirement.name)]}" == str(requirement.specifier)


def test_lock_is_the_whole_closure_and_nothing_else():
    assert set(bootstrap.pins()) == lock.closure(default_environment())


def test_no_pin_asks_for_a_later_patch_of_the_oldest_python():
    """Debian 12 has Python 3.11.2; pip would find no such version there."""
    names = set(bootstrap.pins()) & set(bootstrap.pins(here={**bootstrap.HERE, "python_version": "3.11"}))
    needed = {name: lock.metadata.metadata(name).get("Requires-Python") or "" for name in names}
    assert not {name: spec for name, spec in needed.items() if not SpecifierSet(spec).contains("3.11.2")}


@pytest.mark.parametrize("system", lock.systems(), ids=lambda s: f"{s['sys_platform']}-{s['python_version']}")
def test_lock_has_what_the_other_systems_need(system, monkeypatch):
    """Packages that are not installed here count as leaves: `make lock` has asked pip about those."""
    monkeypatch.setattr(lock, "package", lambda name: _installed_package(name))
    assert lock.closure(system) <= set(bootstrap.pins(here=system))


def _installed_package(name: str) -> tuple[str, list[str]]:
    try:
        return "", lock.metadata.requires(name) or []
    except lock.metadata.PackageNotFoundError:
        return "", []


@pytest.mark.parametrize(
    ("needed_on", "expected"),
    [
        (lambda s: True, ""),
        (lambda s: s["sys_platform"] == "darwin", ' ; sys_platform == "darwin"'),
        (lambda s: s["python_version"] == "3.12", ' ; python_version == "3.12"'),
        (lambda s: s["python_version"] != "3.12", ""),  # no marker says so: everywhere is safe
    ],
)
def test_marker_holds_where_a_package_is_needed(needed_on, expected):
    closures = [(system, {"thing"} if needed_on(system) else set()) for system in lock.systems()]
    assert lock.marker("thing", closures) == expected


def test_pins_hold_for_the_system_they_are_marked_for(tmp_path):
    file = tmp_path / "lock"
    file.write_text('# made\nA_b==1\nmac==2 ; sys_platform == "darwin"\nold==3 ; python_version == "3.11"\n')
    assert bootstrap.pins(file, {"sys_platform": "darwin", "python_version": "3.12"}) == {"a-b": "1", "mac": "2"}
    assert bootstrap.pins(file, {"sys_platform": "linux", "python_version": "3.11"}) == {"a-b": "1", "old": "3"}


@pytest.mark.parametrize(
    "line", ["-e .", "torch>=2", "torch @ https://example.org/torch.whl", "x==1 ; os_name == 'nt'"]
)
def test_a_line_that_is_no_pin_is_refused(tmp_path, line):
    file = tmp_path / "requirements.lock"
    file.write_text(f"numpy==1\n{line}\n")
    with pytest.raises(SystemExit, match=re.escape(f"requirements.lock:2: {line!r}")):
        bootstrap.pins(file)


def test_torch_pin_suits_cpu_and_cuda_builds():
    text = bootstrap.LOCK.read_text()
    assert f"\n{TORCH}\n" in text
    assert not [line for line in text.splitlines() if bootstrap.CUDA.match(line)]


def test_environment_yml_repeats_no_pin():
    text = (ROOT / "environment.yml").read_text()
    assert "==" not in text
    assert {"pip": ["-r requirements.lock", "-e ."]} in yaml.safe_load(text)["dependencies"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"torch": "2.12.0"}, "torch 2.13.0: 2.12.0"), ({"torch": None}, "torch 2.13.0: not installed")],
)
def test_a_pin_that_differs_is_found(change, expected):
    found = {name: version for name, version in {**bootstrap.installed(), **change}.items() if version is not None}
    assert bootstrap.mismatches(bootstrap.pins(), found) == [expected]


def test_a_changed_lock_is_found(tmp_path, monkeypatch):
    changed = tmp_path / "requirements.lock"
    changed.write_text(bootstrap.LOCK.read_text().replace(TORCH, "torch==2.99.0"))
    assert bootstrap.mismatches(bootstrap.pins(changed), bootstrap.installed()) == ["torch 2.99.0: 2.13.0"]


def test_an_environment_of_another_checkout_does_not_count(monkeypatch):
    assert bootstrap.differences() == []
    monkeypatch.setattr(bootstrap, "ROOT", Path("/elsewhere"))
    assert bootstrap.differences() == [f"embedlab from /elsewhere: {ROOT}"]


def test_local_version_suffix_does_not_matter():
    assert not [version for version in bootstrap.installed().values() if "+" in version]


def test_check_needs_neither_pip_nor_network():
    """Not even their modules are loaded, and no other program is started."""
    code = """
import sys
sys.argv = ["bootstrap.py", "--check"]
sys.path.insert(0, "tools")
sys.addaudithook(lambda event, args: sys.exit(event) if event in {"socket.connect", "subprocess.Popen"} else None)
import bootstrap
bootstrap.main()
print(sorted({"pip", "ssl", "urllib.request", "http.client"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={"PATH": "/none"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """A .venv elsewhere, whose interpreter is this one; commands that would be run are collected in `venv.commands`."""

    class Venv:
        folder = tmp_path / ".venv"
        python = folder / "bin" / "python"

        def __init__(self) -> None:
            self.commands: list[str] = []

        def create(self) -> None:
            self.python.parent.mkdir(parents=True)
            self.python.symlink_to(sys.executable)

    here = Venv()

    def record(*command, remedy=""):
        here.commands.append(" ".join(map(str, command)))
        if "-m venv" in here.commands[-1]:
            here.create()

    monkeypatch.setattr(bootstrap, "VENV", here.folder)
    monkeypatch.setattr(bootstrap, "UNFINISHED", here.folder / "unfinished")
    monkeypatch.setattr(bootstrap, "TURN", tmp_path / ".cache" / "turn")
    monkeypatch.setattr(bootstrap, "run", record)
    monkeypatch.setattr(bootstrap, "check_no_cuda_without_gpu", lambda python: None)
    monkeypatch.setattr(bootstrap, "inspect", lambda python: [])
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    return here


def test_a_finished_environment_is_left_alone(venv):
    venv.create()
    assert bootstrap.ensure() == venv.python
    assert venv.commands == []


def test_a_missing_environment_is_built_and_then_finished(venv):
    assert bootstrap.ensure() == venv.python
    assert "-m venv" in venv.commands[0] and f"--no-deps -r {bootstrap.LOCK}" in venv.commands[1]
    assert bootstrap.ready(venv.python)


def test_a_killed_build_is_begun_anew_although_its_metadata_looks_right(venv, monkeypatch):
    venv.create()
    (venv.folder / "half-copied").touch()
    bootstrap.UNFINISHED.touch()
    bootstrap.ensure()
    assert not (venv.folder / "half-copied").exists()
    assert not bootstrap.UNFINISHED.exists()


def test_a_build_that_fails_stays_unfinished(venv, monkeypatch):
    def fail(python):
        raise SystemExit("CUDA")

    monkeypatch.setattr(bootstrap, "check_no_cuda_without_gpu", fail)
    with pytest.raises(SystemExit, match="CUDA"):
        bootstrap.ensure()
    assert not bootstrap.ready(venv.python)


def test_a_changed_pin_mends_in_place(venv, monkeypatch):
    venv.create()
    answers = iter([["numpy 2: 1"]] * 3)
    monkeypatch.setattr(bootstrap, "inspect", lambda python: next(answers, []))
    bootstrap.ensure()
    assert [command.split(" -m ")[1].split(" -")[0] for command in venv.commands] == ["pip install"] * 2


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
@pytest.mark.parametrize("matches", [True, False])
def test_the_active_environment_is_used_if_it_matches(venv, monkeypatch, tmp_path, variable, matches):
    venv.create()
    active = tmp_path / "active" / "bin" / "python"
    active.parent.mkdir(parents=True)
    active.touch()
    monkeypatch.setenv(variable, str(tmp_path / "active"))
    monkeypatch.setattr(bootstrap, "inspect", lambda python: ["numpy 2: 1"] if python == active and not matches else [])
    assert bootstrap.ensure() == (active if matches else venv.python)


def test_an_interpreter_that_does_not_run_is_neither_usable_nor_ready(tmp_path):
    fake = tmp_path / "python"
    assert not bootstrap.usable(fake)
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    assert not bootstrap.usable(fake)
    assert not bootstrap.ready(fake)


@pytest.mark.parametrize(
    ("requires", "cuda"),
    [
        (["nvidia-cublas==13; platform_system=='Linux'"], True),
        (["cuda-toolkit[cublas]==13.0.3; platform_system == 'Linux'"], True),
        (["triton==3.7.1"], True),
        (["sympy>=1.13.3"], False),
    ],
)
def test_cuda_build_is_recognised_by_what_it_requires(monkeypatch, requires, cuda):
    report = json.dumps({"install": [{"metadata": {"requires_dist": ["filelock", *requires]}}]})
    answer = subprocess.CompletedProcess([], 0, stdout=report, stderr="")
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *args, **kwargs: answer)
    assert bootstrap.pip_takes_cuda(Path("python"), TORCH) is cuda


@pytest.mark.parametrize(
    ("gpu", "cuda", "expected"),
    [
        (True, True, [f"pip install {TORCH}"]),
        (False, False, [f"pip install --no-deps {TORCH}"]),
        (
            False,
            True,
            ["pip install --quiet uv", f"uv pip install --python PY --no-deps --torch-backend=cpu {TORCH}"],
        ),
    ],
)
def test_torch_build_suits_the_machine(venv, monkeypatch, gpu, cuda, expected):
    monkeypatch.setattr(bootstrap.sys, "platform", "linux")
    monkeypatch.setattr(bootstrap, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setattr(bootstrap, "pip_takes_cuda", lambda python, torch: cuda)
    bootstrap.install_torch("PY", TORCH)
    assert venv.commands == [f"PY -m {command}" for command in expected]


@pytest.mark.parametrize("gpu", [True, False])
def test_cuda_packages_without_a_card_are_refused(monkeypatch, gpu):
    listing = subprocess.CompletedProcess([], 0, stdout="torch nvidia_cublas triton numpy\n")
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *args, **kwargs: listing)
    monkeypatch.setattr(bootstrap, "has_nvidia_gpu", lambda: gpu)
    if gpu:
        bootstrap.check_no_cuda_without_gpu(Path("python"))
    else:
        with pytest.raises(SystemExit, match="nvidia_cublas, triton"):
            bootstrap.check_no_cuda_without_gpu(Path("python"))


def test_old_python_gets_one_line(monkeypatch):
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 10, 13))
    with pytest.raises(SystemExit, match=r"^Python 3\.11 or newer is needed.*$"):
        bootstrap.main()
