"""Keep the results of finished trainings until their run has a record.

A run with several trainings may be killed, or reach its time limit, after the first of them. When it is started again,
that training is not repeated: its weights are read, with the state of everything that draws at random, so that the rest
of the run has the same bits. Only the driver of runs starts a run again, so without one nothing is kept.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedlab import progress
from embedlab.errors import StorageError
from embedlab.io import atomic_path, locked

FILE = "finished.pt"  # in the folder of a training's checkpoints
CALLBACKS = ("log", "best")  # parts of a checkpoint that no later step needs
_folders: set[Path] = set()  # of this process


def is_wanted() -> bool:
    """Whether a driver watches this process; a benchmark sends its reports nowhere, and must train every time."""
    return os.environ.get(progress.ENVIRONMENT_NAME, os.devnull) != os.devnull


def keep(folder: Path, state: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write the result of a training. A problem with the disk costs the file only, not the run.

    Args:
        folder: of its checkpoints.
        state: weights, and everything else that the training changed.
        result: values of its `FitResult`.
    """
    states = {name: value for name, value in state["states"].items() if name not in CALLBACKS}
    content = {"state": {**state, "states": states}, "result": dict(result), "random": _random_state()}
    with suppress(StorageError, OSError, RuntimeError), atomic_path(folder / FILE) as temporary:
        torch.save(content, temporary)
    _folders.add(folder)


def restore(folder: Path | None, load: Callable[[Mapping[str, Any]], object]) -> dict[str, Any] | None:
    """Read the result of a training that finished in an earlier attempt at this run.

    Args:
        folder: of its checkpoints.
        load: takes the state that `keep` was given.

    Returns:
        The values of its `FitResult`; None if it has not finished, or nobody watches this process.
    """
    if folder is None or not is_wanted() or not (folder / FILE).exists():
        return None
    saved = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    load(saved["state"])
    _set_random_state(saved["random"])
    _folders.add(folder)
    result: dict[str, Any] = saved["result"]
    progress.add_earlier_seconds(result["seconds"])
    return result


def forget() -> None:
    """Remove what was kept in this process: the run has its record."""
    for folder in _folders:
        with suppress(StorageError, OSError), locked(folder / "lock", wait=False):  # another run may be reading it
            shutil.rmtree(folder, ignore_errors=True)
    _folders.clear()


def _random_state() -> dict[str, Any]:
    numpy_state: Any = np.random.get_state()
    name, keys, *rest = numpy_state
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
