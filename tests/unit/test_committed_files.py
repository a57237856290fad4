"""What is committed names no folder of the machine that made it, and no key."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from embedlab.redaction import redacted
from embedlab.scan import folders_in

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("results", "experiments", "notebooks")


def committed() -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", *PLACES], capture_output=True, check=False
    ).stdout
    if not listed:
        pytest.skip("not a checkout")
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize(
    "text",
    [
        '"/tmp/fresh/.venv/x"',
        "File /home/ada/x.py",
        "=/root/x",
        "/opt/envs/lib/python3.11/site-packages/x",
        "(/mnt/a)",
    ],
)
def test_a_folder_of_a_machine_is_noticed(text):
    assert folders_in(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "https://h/home/ada",
        "results/tmp/x",
        "~/home/x",
        "site-packages/numpy/x.py",
        ".venv/lib/site-packages",
        "</tmp>",
    ],
)
def test_other_paths_stay(text):
    assert not folders_in(text.encode())


def test_no_committed_result_names_a_folder_of_a_machine_or_a_key():
    leaks = []
    for path in committed():
        content = path.read_bytes()
        leaks += [f"{path.relative_to(ROOT)}: {found[:80]!r}" for found in folders_in(content)]
        if path.suffix in (".json", ".md", ".yaml", ".csv") and redacted(text := content.decode()) != text:
            leaks.append(f"{path.relative_to(ROOT)}: a key")
    assert leaks == []
