"""Mutants by hand: named faults of the kinds that mutmut does not make, as pairs of texts in `handwritten.toml`.

Each is written into a copy of the working tree, and pytest runs in a process forked after the slow imports, which takes
a second or two. A mutant whose text is no longer in its file is stale: somebody has to say what became of it.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.copies import copy_tree
from tests.mutants.groups import ROOT

LIST = Path(__file__).with_name("handwritten.toml")
SECONDS = 300  # for the tests of one mutant
WARM = ("numpy", "pandas", "scipy.stats", "torch", "sentence_transformers", "hypothesis")  # imported before the forks


@dataclass(frozen=True)
class Planted:
    """One fault.

    Attributes:
        name: what is wrong, in words.
        file: path below the root.
        before, after: text in the file, which occurs once there, and what replaces it.
        tests: test files below tests/unit, without `test_` and the ending.
        status: killed, survived, timeout or stale; empty before the run.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]
    status: str = ""


def read_list(path: Path = LIST) -> list[Planted]:
    """Read the list."""
    entries = tomllib.loads(path.read_text())["mutant"]
    return [Planted(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def is_stale(planted: Planted, root: Path) -> bool:
    """Whether the text is not exactly once in the file."""
    path = root / planted.file
    return not path.is_file() or path.read_text().count(planted.before) != 1


def run_list(
    mutants: Sequence[Planted], folder: Path, *, root: Path = ROOT, warm: Sequence[str] = WARM
) -> Iterator[Planted]:
    """Run the mutants one after the other; yield them with their status.

    Args:
        mutants: what to plant.
        folder: where the copy is made.
        root: the tree to copy.
        warm: modules to import once.

    Raises:
        SystemExit: the tests fail without a mutant.
    """
    copy_tree(folder, root)
    command = [sys.executable, "-m", "tests.mutants.handwritten", *warm]
    environment = {**os.environ, "PYTHONPATH": f"{folder}/src:{folder}", "PYTHONDONTWRITEBYTECODE": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as worker:  # type: ignore[call-overload]

        def outcome(tests: Sequence[str]) -> str:
            worker.stdin.write(" ".join(f"tests/unit/test_{name}.py" for name in tests) + "\n")
            worker.stdin.flush()
            return worker.stdout.readline().strip()

        for name in sorted({name for planted in mutants for name in planted.tests}):
            if (clean := outcome([name])) != "survived":
                worker.kill()
                raise SystemExit(f"tests/unit/test_{name}.py fails without a mutant ({clean}). Fix it first.")
        for planted in mutants:
            if is_stale(planted, folder):
                yield _with_status(planted, "stale")
                continue
            path = folder / planted.file
            text = path.read_text()
            path.write_text(text.replace(planted.before, planted.after))
            try:
                yield _with_status(planted, outcome(planted.tests))
            finally:
                path.write_text(text)
        worker.stdin.close()


def _with_status(planted: Planted, status: str) -> Planted:
    return Planted(planted.name, planted.file, planted.before, planted.after, planted.tests, status)


def serve() -> None:
    """Read lines of test files and answer each with what pytest said in a fork of this process."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        print(_outcome_in_fork(line.split()), flush=True)


def _outcome_in_fork(files: list[str]) -> str:
    if not (child := os.fork()):
        os.setsid()
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files])))

    def stop(*_: object) -> None:
        os.killpg(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    _, status = os.waitpid(child, 0)
    if not signal.alarm(0):
        return "timeout"
    return {0: "survived", 1: "killed", 2: "killed"}.get(os.waitstatus_to_exitcode(status), "broken")


if __name__ == "__main__":
    serve()
