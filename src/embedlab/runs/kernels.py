"""Kernels with the same Python interpreter: started cold, or forked from a process that has done the slow imports.

Importing torch and sentence-transformers takes longer than many runs. The fork server of Python's multiprocessing
imports them once for all runs of a driver. Each run is forked from it, and its kernel from the run, before either has a
thread, an open socket or any state except imported modules. `EMBEDLAB_WARM=0` turns this off.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner
from traitlets import default

from embedlab.runs import processes

LAUNCHER = "ipykernel_launcher"
WARM_VARIABLE = "EMBEDLAB_WARM"
LONGEST_SOCKET = 90  # bytes: the limit of a Unix socket's path, minus what the kernel's five sockets append


def can_fork() -> bool:
    """Whether kernels may be forked: with these libraries that is safe on Linux only.

    A Dask worker under a nanny is a daemon process by default, and Python does not let daemons fork.
    """
    not_a_daemon = not multiprocessing.current_process().daemon
    return not_a_daemon and sys.platform == "linux" and os.environ.get(WARM_VARIABLE) != "0"


def write_kernelspec(scratch: Path) -> None:
    """Write a kernelspec that takes precedence over any other `python3` kernel of the user."""
    spec = scratch / "kernels" / "python3"
    spec.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", LAUNCHER, "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    os.environ["JUPYTER_PATH"] = str(scratch)


class ForkedKernel:
    """A process that waits to become a kernel, with the part of `Popen` that Jupyter uses."""

    stdin = stdout = stderr = None

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        receiver, self._sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_become_kernel, args=(receiver, self._sender))
        self._process.start()
        receiver.close()
        assert self._process.pid is not None  # it has started
        self.pid = self._process.pid

    def launch(self, command: list[str], env: Mapping[str, str], cwd: str) -> None:
        """Turn it into the kernel that `command` would have started."""
        self._sender.send((command[command.index(LAUNCHER) + 1 :], dict(env), str(cwd)))

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _become_kernel(receiver: Connection, sender: Connection) -> None:
    processes.die_with_parent()
    os.setpgid(0, 0)  # its own process group, as for a started kernel: an interrupt reaches only it and its children
    sender.close()
    try:
        arguments, env, cwd = receiver.recv()
    except EOFError:  # the run ended before it needed a kernel
        return
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    _refresh()
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(argv=arguments)


def _refresh() -> None:
    """Reset what a new interpreter would have: unseeded randomness, the number of threads, the process name."""
    multiprocessing.current_process().name = "MainProcess"
    sys.argv[:] = [f"{LAUNCHER}.py"]
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # Python reseeds `random` after a fork, and torch's default seed is a constant
    if cpus := int(os.environ.get(processes.CPUS_VARIABLE, 0)):
        limit_threads(cpus)


def limit_threads(count: int) -> None:
    """Set the number of threads of the libraries that are loaded."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(count)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)


class _Forked(LocalProvisioner):
    """Provides a kernel that was forked in advance."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict[str, Any]:
        self.process = self.parent.waiting
        self.process.launch(cmd, kwargs["env"], kwargs.get("cwd") or str(Path.cwd()))
        self.pid = self.pgid = self.process.pid
        self.cwd = kwargs.get("cwd")
        connection: dict[str, Any] = self.connection_info
        return connection


def manager_class(scratch: Path, waiting: ForkedKernel | None) -> type[AsyncKernelManager]:
    """A kernel manager that talks through files in `scratch`, so parallel kernels cannot collide on a port.

    Args:
        scratch: a folder that only this run uses.
        waiting: the process that becomes the kernel; None starts a new one.
    """

    class Manager(AsyncKernelManager):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.waiting = waiting
            if waiting:
                self.provisioner = _Forked(kernel_id="", kernel_spec=self.kernel_spec, parent=self)

        @default("connection_file")
        def _connection_file_default(self) -> str:
            return str(scratch / "k.json")

        @default("transport")
        def _transport_default(self) -> str:
            return "ipc" if os.name == "posix" and len(os.fsencode(scratch)) < LONGEST_SOCKET else "tcp"

    return Manager
