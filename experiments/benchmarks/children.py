"""Child processes, one per arm, that take turns."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.benchmarks.child import REPEAT, WARM_UP
from experiments.benchmarks.environment import child_environment
from experiments.benchmarks.spec import Arm

ROOT = Path(__file__).resolve().parents[2]  # from where `experiments` can be imported
LIMIT_S = 3_600.0  # for one answer


class ChildFailure(Exception):
    """An arm failed; the message is the cause."""


class Child:
    """An arm that runs in its own process. Use it as a context manager; leaving it ends the process.

    Args:
        arm: what to run.
        size: keyword arguments in addition to the arm's own.
        threads, device: see `child_environment`.
    """

    def __init__(self, arm: Arm, size: Mapping[str, Any], threads: int, device: str) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed on exit
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.benchmarks.child", arm.factory, json.dumps({**size, **arm.options})],
            cwd=ROOT,
            env=child_environment(threads, device),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def loaded(self) -> dict[str, Any]:
        """Wait until the arm is ready; returns its facts and its memory after loading."""
        return self._answer()

    def warm_up(self) -> None:
        """Run once without measuring."""
        self._ask(WARM_UP)

    def repeat(self) -> dict[str, Any]:
        """Run and measure one repeat."""
        return self._ask(REPEAT)

    def _ask(self, command: str) -> dict[str, Any]:
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer tells why
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        timer = threading.Timer(LIMIT_S, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            raise ChildFailure(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise ChildFailure(answer["error"])
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        words = self._log.read().strip().splitlines()
        return f"exit code {code}" + (f": {words[-1][:200]}" if words else "")
