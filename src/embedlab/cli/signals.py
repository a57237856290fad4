"""End a command cleanly on Ctrl-C, SIGTERM and SIGHUP, however often they arrive."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNAL_EXIT = 128  # a shell reports a command that signal n ended as 128 + n


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Turn the first signal into a KeyboardInterrupt, and ignore later ones until this process has ended.

    A signal that is ignored already, such as SIGHUP under nohup, stays ignored.

    Yields:
        The number of the signal that arrived, if one did.
    """
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    original = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in original.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield received
    finally:
        if not received:
            for number, handler in original.items():
                signal.signal(number, handler)
