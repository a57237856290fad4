"""Why a run failed: the notebook's own error, or something of the machine that the notebook cannot help."""

from __future__ import annotations

import re

ERROR_IN_CELL, INFRASTRUCTURE, KERNEL_DIED, INCOMPLETE = "error in cell", "infrastructure", "kernel died", "incomplete"
TIMEOUT, OUT_OF_MEMORY, CANCELLED = "timeout", "out of memory", "cancelled"

# Causes that say nothing about the run: a sweep that is repeated runs it again.
INTERRUPTIONS = (INFRASTRUCTURE, CANCELLED, KERNEL_DIED)

MEMORY_ERRORS = re.compile(r"^MemoryError|can't allocate memory|Cannot allocate memory|std::bad_alloc")

LOST_PROCESS = re.compile(r"process \d+ of \d+ of this training was killed")  # see training.launch

# What an error that comes from the machine means, in plain words.
MACHINE_ERRORS = (
    (
        r"No space left on device|Disk quota exceeded|(database or )?disk is full|unexpected pos \d"
        r"|PytorchStreamWriter failed writing",
        "The disk is full, or your quota is used up. Free some space, then run it again.",
    ),
    (r"database (table )?is locked", "Another process kept a database locked for too long. Run it again."),
    (
        r"disk I/O error|Input/output error|Stale file handle|database disk image is malformed",
        "A disk or network drive returned an error. Check it, then run it again.",
    ),
    (r"Read-only file system|readonly database", "The disk is read-only. Make it writable, then run it again."),
    (
        r"Too many open files",
        "The system's limit of open files was reached. Raise it with `ulimit -n 4096`, then run it again.",
    ),
    (
        r"unable to open database file",
        "A database file could not be opened: its folder cannot be written to, or too many files are open.",
    ),
    (
        r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
        r"|^(torch\.)?(cuda\.)?OutOfMemoryError",
        "The GPU ran out of memory. Use smaller batches, or wait until other programs have left it, then run it again.",
    ),
    (
        r"CUDA error: (unspecified launch failure|uncorrectable ECC|the launch timed out|all CUDA-capable devices)"
        r"|no CUDA-capable device|CUDA driver version|CUDA-capable device\(s\) is/are busy",
        "The GPU failed or is used by another program. Check it with nvidia-smi, then run it again.",
    ),
    (
        r"^(\w+\.)*(Connection(Reset|Refused|Aborted)?Error|RemoteDisconnected|BrokenPipeError|ReadTimeout"
        r"|ConnectTimeout|gaierror)\b|Connection reset by peer|Connection refused|Network is unreachable"
        r"|No route to host|Temporary failure in name resolution|Remote end closed connection",
        "A network connection was lost or refused. Check it, then run it again.",
    ),
    (r"the record cannot be written", "The disk took no record. Free space or fix the permissions, then run it again."),
)

# Lines of libraries that say nothing about a failure.
NOISE = re.compile(
    r"Unable to parse line \d+|Passed unknown parameter|Black is not installed|does not contain a cell with tag"
)


def cause_of(error: str, log: str, exit_code: int | None = 0, system_ran_out: bool = False) -> str:
    """Why a run that was not stopped has no record.

    Args:
        error: the failing cell and its error, "" when no cell failed.
        log: output of the child process.
        exit_code: its exit code.
        system_ran_out: whether the system killed a process for lack of memory meanwhile.
    """
    if error:
        message = _message(error)
        if MEMORY_ERRORS.search(message):
            return OUT_OF_MEMORY
        if LOST_PROCESS.search(message):
            return OUT_OF_MEMORY if system_ran_out else KERNEL_DIED
        return INFRASTRUCTURE if explanation_of(error) else ERROR_IN_CELL
    if "DeadKernelError" in log or "Kernel died" in log:
        return OUT_OF_MEMORY if system_ran_out else KERNEL_DIED
    return INFRASTRUCTURE if exit_code else INCOMPLETE


def explanation_of(error: str) -> str:
    """What an error means and what to do, if it comes from the machine; else "".

    Args:
        error: as for `cause_of`.
    """
    message = _message(error)
    return next((words for pattern, words in MACHINE_ERRORS if re.search(pattern, message)), "")


def _message(error: str) -> str:
    return (error.splitlines() + ["", ""])[1]  # not the traceback, which quotes the notebook


def end_of(log: str, lines: int = 8) -> str:
    """The last lines of a log, without those that say nothing about a failure."""
    telling = [line.rstrip() for line in log.splitlines() if line.strip() and not NOISE.search(line)]
    return "\n".join(telling[-lines:])
