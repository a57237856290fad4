"""Start the processes of a group, watch them, and end all of them when one fails.

A training on several GPUs (`engine.gpus`) or processes (`engine.processes`) runs in child processes with one GPU each.
The process that calls it, usually a notebook's kernel, sends its objects through a file, waits, and takes over the
result. Nothing else changes for the notebook.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from embedlab import progress
from embedlab.engine import EngineParams
from embedlab.errors import EmbedlabError, ParameterError
from embedlab.launchers import LAUNCHER_VARIABLES, require_plain_start
from embedlab.training import group
from embedlab.training.worker import ERROR, RESULT, WORK

if TYPE_CHECKING:
    from torch import nn

    from embedlab.training.trainer import Effort, Training

Result = TypeVar("Result")

REPORTS = "reports.jsonl"  # in the group's folder
POLL_S = 0.05
GRACE_S = 5.0  # for the other processes to say why they ended, after the first one has
ECHO = re.compile(r"Connection (closed|reset)|Distributed evaluator .*failed|NCCL error")  # of the failure of another
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"  # a group has one host; nobody else shall reach it


def train(training: Training) -> Effort:
    """Run a training in this process, or on as many GPUs or processes as its engine parameters say.

    Raises:
        ParameterError: fewer GPUs than asked for, settings that exclude each other, a cross-encoder, or a start under
            torchrun.
        EmbedlabError: a process of the group was killed.
    """
    require_plain_start()
    members = environments(training.engine)
    if group.size() > 1 or not members:
        return training.run()
    if training.model.model_type != "SentenceTransformer":
        problem = f"the training of a {training.model.model_type} runs in one process, got {len(members)}"
        raise ParameterError(problem, remedy="Leave out engine.gpus and engine.processes", field="engine.processes")
    training.make_portable()
    with _on_cpu(training):
        report = in_group(training.run_and_report, members, stage=training.log.stage)
        return training.adopt(report)


def environments(engine: EngineParams) -> list[dict[str, str]]:
    """Return the variables of each process of the group: the GPU that it sees. Empty: no group."""
    if engine.gpus > 1 and engine.processes > 1 and engine.gpus != engine.processes:
        problem = f"{engine.gpus} GPUs and {engine.processes} processes exclude each other: a process has one GPU"
        raise ParameterError(problem, remedy="Set engine.gpus only", field="engine.processes")
    count = max(engine.gpus, engine.processes)
    if engine.gpus > 1:
        return [{"CUDA_VISIBLE_DEVICES": name} for name in _gpus(engine.gpus)]
    return [{"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}] * count if count > 1 else []


def _gpus(count: int) -> list[str]:
    """Return the names of the first `count` GPUs that this process sees.

    Raises:
        ParameterError: it sees fewer.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count_here = torch.cuda.device_count()
    names = visible.split(",") if visible else [str(number) for number in range(count_here)]
    if count_here < count:
        problem = f"this process sees {count_here} GPUs, got engine.gpus={count}"
        remedy = "Set a smaller number. A sweep or a cluster job must ask for as many GPUs, see docs/clusters.md"
        raise ParameterError(problem, remedy=remedy, field="engine.gpus")
    return names[:count]


@contextmanager
def _on_cpu(training: Training) -> Iterator[None]:
    """Move the training's modules to the CPU inside the block, which leaves the GPUs to the group."""
    losses = list(training.loss.values()) if isinstance(training.loss, dict) else [training.loss]
    modules: list[nn.Module] = [training.model, *losses]
    device = training.model.device
    for module in modules:
        module.to("cpu")
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        yield
    finally:
        for module in modules:
            module.to(device)


def in_group(work: Callable[[], Result], environments: Sequence[dict[str, str]], *, stage: str = "") -> Result:
    """Call `work` in every process of a new group, and return what the first one returns.

    Args:
        work: sent with everything that it refers to, in one piece.
        environments: additional variables of each process.
        stage: name of the work in progress reports.

    Raises:
        EmbedlabError: a process was killed, or ended without a result. If `work` raised an error, that error.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="embedlab-group-")))
        _write(work, folder / WORK)
        members: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, members)
        for rank in range(len(environments)):
            members.append(_start(folder, rank, environments))
        with _Relay(folder / REPORTS, stage) as relay:
            while any(member.poll() is None for member in members):
                if any(member.poll() for member in members):
                    _explain(members, folder)
                relay.show()
                time.sleep(POLL_S)
        _explain(members, folder)
        result: Result = torch.load(folder / RESULT, map_location="cpu", weights_only=False)  # written by us
        return result


def _write(work: Callable[[], Any], path: Path) -> None:
    """Write `work`; functions and classes of a notebook are written as code, which pickle alone cannot."""
    import cloudpickle

    try:
        with open(path, "wb") as file:
            cloudpickle.dump(work, file)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        problem = f"the training cannot be sent to other processes ({error})"
        raise ParameterError(problem, remedy="Use one process", field="engine.processes") from None


def _start(folder: Path, rank: int, environments: Sequence[dict[str, str]]) -> subprocess.Popen[bytes]:
    size = len(environments)
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    environment |= {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK, **environments[rank]}
    environment |= {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    threads = str(max(1, torch.get_num_threads() // size))
    environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TQDM_DISABLE": "1"}
    if rank:
        environment[progress.ENVIRONMENT_NAME] = str(folder / f"{REPORTS}-{rank}")  # nobody reads it
    else:
        environment.setdefault(progress.ENVIRONMENT_NAME, str(folder / REPORTS))
    command = [sys.executable, "-m", "embedlab.training.worker", str(folder), str(rank), str(size)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)  # they end when the pipe closes


def _end(members: Sequence[subprocess.Popen[bytes]]) -> None:
    for member in members:
        with suppress(OSError):
            member.kill()
        if member.stdin:
            member.stdin.close()
    for member in members:
        member.wait()


def _explain(members: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    """Raise the error of the process that failed first; the others only lost their connection to it."""
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and any(member.poll() is None for member in members):
        time.sleep(POLL_S)
    codes = [member.poll() or 0 for member in members]
    size = len(members)
    for rank, code in enumerate(codes):
        if code < 0:
            problem = f"process {rank} of {size} of this training was killed ({signal.Signals(-code).name})"
            remedy = "Run it again, and it continues from its last checkpoint. If memory ran out, use smaller batches"
            raise EmbedlabError(problem, remedy=remedy)
    errors = [pickle.loads(path.read_bytes()) for path in folder.glob(ERROR.format("*"))]
    for _, _, error in sorted(errors, key=lambda content: (bool(ECHO.search(str(content[2]))), *content[:2])):
        raise error
    if any(codes):
        problem = f"a process of this training ended without a result (exit codes {codes})"
        raise EmbedlabError(problem, remedy="Look into its output above")


class _Relay:
    """Shows the first process's progress reports as a bar, unless a driver of this run reads them itself."""

    def __init__(self, path: Path, stage: str) -> None:
        self._path, self._stage, self._read, self._step = path, stage, 0, 0
        self._stack = ExitStack()
        self._advance: Callable[[int], None] | None = None

    def __enter__(self) -> _Relay:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def show(self) -> None:
        """Show what was reported since the last call."""
        if not self._path.exists():
            return
        with open(self._path, encoding="utf-8") as file:
            file.seek(self._read)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break
                self._read = file.tell()
                self._take(json.loads(line))

    def _take(self, report: dict[str, Any]) -> None:
        if report["stage"] != self._stage or not report["total"]:
            return
        if self._advance is None:
            self._advance = self._stack.enter_context(progress.counted(self._stage, report["total"]))
        self._advance(report["step"] - self._step)
        self._step = report["step"]
