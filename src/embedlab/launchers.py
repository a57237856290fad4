"""A start under torchrun or `accelerate launch`, which run a program several times."""

from __future__ import annotations

import os

from embedlab.errors import ParameterError

LAUNCHER_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK")  # what they set


def require_plain_start() -> None:
    """Check that no other launcher has started this process several times.

    Raises:
        ParameterError: torchrun or a similar launcher did; all of its processes would train the same.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if count.isdigit() and int(count) > 1:
        problem = f"another launcher, such as torchrun, started {count} processes, and each would train the whole model"
        remedy = f"Start one process, without a launcher, and set engine.gpus={count} (on CPU engine.processes={count})"
        raise ParameterError(problem, remedy=remedy, field="engine.processes")
