"""One process of a group: `python -m embedlab.training.worker FOLDER RANK SIZE`, started by `launch`."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from embedlab.io import atomic_path, write_atomic

WORK, RESULT, ERROR = "work.pkl", "result.pt", "error-{}.pkl"  # in the group's folder
PARENT_EVERY_S = 1.0


def main() -> None:
    """Call the work that the launcher wrote, as a member of the group. The first process writes the result."""
    folder, rank, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launcher too, which ends the group
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    try:
        _work(folder, rank, size)
    except BaseException as error:
        when = time.time()  # before the others notice
        error.add_note(f"In process {rank} of {size} of this training:\n{traceback.format_exc()}")
        _write_error(folder, rank, error, when)
        os._exit(1)  # at once: a library's exit handler could wait for the other processes


def _end_with_launcher() -> None:
    """End this process when the launcher has ended, also while it waits for another process."""
    launcher = os.getppid()
    while os.getppid() == launcher:  # a copy of the launcher can hold the pipe open
        readable, _, _ = select.select([sys.stdin], [], [], PARENT_EVERY_S)
        if readable:  # nothing is ever written: the pipe was closed
            break
    os._exit(1)


def _work(folder: Path, rank: int, size: int) -> None:
    import torch

    from embedlab.training import group

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    group.join(folder, rank, size, cuda=bool(os.environ.get("CUDA_VISIBLE_DEVICES")))
    work = pickle.loads((folder / WORK).read_bytes())
    result = work()
    if rank == 0:
        with atomic_path(folder / RESULT) as temporary:
            torch.save(result, temporary)
    group.wait()
    group.leave()


def _write_error(folder: Path, rank: int, error: BaseException, when: float) -> None:
    try:
        content = pickle.dumps((when, rank, error))
        pickle.loads(content)  # some errors can be written and not read
    except Exception:
        content = pickle.dumps((when, rank, RuntimeError(f"{type(error).__name__}: {error}")))
    write_atomic(folder / ERROR.format(rank), content)


if __name__ == "__main__":
    main()
