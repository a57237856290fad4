"""A copy of the working tree, so that no mutant is ever written into it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.mutants.groups import ROOT


def copy_tree(target: Path, root: Path = ROOT) -> None:
    """Copy what git tracks or would track to `target`, without what only `target` has."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    for folder in ("src", "tests"):  # a file that is gone must not be imported from an older copy
        shutil.rmtree(target / folder, ignore_errors=True)
    for name in names:
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def commit_of(root: Path = ROOT) -> str:
    """The commit of the working tree, with a plus sign when it has changes."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "tests")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
