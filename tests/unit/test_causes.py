"""Failures of the machine are told apart from the notebook's own errors, in plain words."""

from __future__ import annotations

import pytest

from embedlab.runs import causes
from embedlab.runs.causes import ERROR_IN_CELL, INCOMPLETE, INFRASTRUCTURE, KERNEL_DIED, OUT_OF_MEMORY, cause_of


def error(message: str) -> str:
    return f"code cell 3: x = 1\n{message}\nTraceback"


@pytest.mark.parametrize(
    "message, words",
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        ("OperationalError: database or disk is full", "The disk is full"),
        ("SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)", "disk is full"),
        ("RuntimeError: [enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0", "The disk is full"),
        ("OSError: [Errno 122] Disk quota exceeded: 'x'", "your quota"),
        ("OperationalError: database is locked", "kept a database locked"),
        ("OperationalError: disk I/O error", "returned an error"),
        ("OSError: [Errno 5] Input/output error", "returned an error"),
        ("OSError: [Errno 116] Stale file handle", "returned an error"),
        ("OSError: [Errno 30] Read-only file system: 'x'", "read-only"),
        ("OperationalError: attempt to write a readonly database", "read-only"),
        ("OSError: [Errno 24] Too many open files: 'x'", "ulimit -n"),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "The GPU ran out of memory"),
        ("RuntimeError: CUDA error: out of memory", "The GPU ran out of memory"),
        ("AcceleratorError: CUDA error: uncorrectable ECC error encountered", "The GPU failed"),
        ("ConnectionResetError: [Errno 104] Connection reset by peer", "network connection"),
        ("ChatError: http://localhost:1: no answer (Connection refused). Start it.", "network connection"),
        ("RecordError: /x: the record cannot be written (No space left on device). Free it.", "The disk is full"),
    ],
)
def test_the_machine_is_the_cause(message, words):
    assert cause_of(error(message), "") == INFRASTRUCTURE
    assert words in causes.explanation_of(error(message))


@pytest.mark.parametrize(
    "message",
    [
        "ValueError: no luck",
        "DataError: disk.csv: 'full' is missing. Add it.",
        "RuntimeError: CUDA error: device-side assert triggered",
        "ParameterError: [batch_size]: must be below 5, got 28. Set 4.",
        "IndexError: list index out of range",
    ],
)
def test_the_notebook_is_the_cause(message):
    assert cause_of(error(message), "") == ERROR_IN_CELL and causes.explanation_of(error(message)) == ""
    quoted = error(message) + "\nraise OSError('No space left on device')"  # the source, not what happened
    assert cause_of(quoted, "") == ERROR_IN_CELL


def test_causes_without_an_error():
    assert cause_of(error("MemoryError: no room"), "") == OUT_OF_MEMORY
    assert cause_of("", "DeadKernelError: Kernel died", 1) == KERNEL_DIED
    assert cause_of("", "DeadKernelError: Kernel died", 1, system_ran_out=True) == OUT_OF_MEMORY
    assert (cause_of("", "", 1), cause_of("", "", 0)) == (INFRASTRUCTURE, INCOMPLETE)


def test_lines_that_say_nothing_are_left_out():
    log = (
        "Unable to parse line 4 'max_steps: int = 0  # none'.\nPassed unknown parameter: max_steps\n\n"
        "Black is not installed, parameters wont be formatted\nfirst\nsecond\n"
    )
    assert causes.end_of(log) == "first\nsecond" and causes.end_of(log, lines=1) == "second"
