"""Doctor: what is missing is said with its remedy, and only what is needed counts as missing."""

from __future__ import annotations

import pytest

from embedlab.cli import doctor


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    return tmp_path


def check(name: str) -> doctor.Check:
    (found,) = (check for check in doctor.checks() if check.name == name)
    return found


def bootstrap(home, answer: str) -> None:
    """A stand-in for the script that knows the pins."""
    (home / "tools").mkdir()
    (home / "tools" / "bootstrap.py").write_text(f"import sys\nassert sys.argv[1:] == ['--check']\n{answer}\n")


def test_pins_that_hold(home):
    bootstrap(home, "")
    assert check("pinned packages").ok is True


def test_pins_that_do_not_hold_are_named(home):
    bootstrap(home, "print('numpy 1.1 instead of 1.2')\nprint('torch missing')\nsys.exit(1)")
    pins = check("pinned packages")
    assert pins.ok is False and "make environment" in pins.remedy
    assert "numpy 1.1 instead of 1.2; torch missing" in pins.status


def test_without_a_checkout_nothing_is_wrong_with_the_pins(home):
    assert check("pinned packages").ok is None


def test_missing_package_says_how_to_get_it(home, monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    result = check("ICD-10-CM")
    assert (result.ok, result.status, result.remedy) == (False, "missing", "pip install simple-icd-10-cm")


@pytest.mark.parametrize("gib, ok", [(1.9, False), (2.1, True)])
def test_disk(home, monkeypatch, gib, ok):
    usage = type("Usage", (), {"free": gib * 2**30})()
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert check("free disk").ok is ok


@pytest.mark.parametrize("value, word", [("1", "HF_HUB_OFFLINE"), ("TRUE", "HF_HUB_OFFLINE"), ("0", "allowed")])
def test_hub(home, monkeypatch, value, word):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert word in check("model hub").status
    assert check("model hub").ok is None


def test_device_without_a_card(home):
    assert (check("device").ok, check("device").status) == (None, "CPU (no NVIDIA GPU)")
