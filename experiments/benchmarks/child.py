"""Runs one arm in its own process: loads it, reports that, then runs a repeat for every line on standard input."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import sys
import time
from typing import TextIO

from experiments.benchmarks import memory
from experiments.benchmarks.spec import Workload

WARM_UP, REPEAT = "warm up", "repeat"


def take_stdout() -> TextIO:
    """Return the channel to the parent. From now on, what libraries print goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return channel


def build(factory: str, options: dict[str, object]) -> Workload:
    """Call `module:function` with `options`."""
    module, _, function = factory.partition(":")
    return getattr(importlib.import_module(module), function)(**options)


def warm_up(workload: Workload) -> dict[str, object]:
    """Run once without measuring: fills caches, runs lazy imports and takes memory from the system."""
    workload.prepare()
    (workload.warm_up or workload.run)()
    return {}


def measure(workload: Workload, loaded_bytes: int | None) -> dict[str, object]:
    """Run one repeat; returns wall-clock and processor seconds, and peak memory minus the memory after loading."""
    workload.prepare()
    gc.collect()
    memory.forget_peak()
    processor, clock = time.process_time(), time.perf_counter()
    extras = workload.run() or {}
    _wait_for_device()
    seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - processor
    peak = None if loaded_bytes is None else memory.peak_bytes() - loaded_bytes
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak, **_device_peak(), **extras}


def _cuda() -> object | None:
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _wait_for_device() -> None:
    if cuda := _cuda():
        cuda.synchronize()


def _device_peak() -> dict[str, object]:
    if not (cuda := _cuda()):
        return {}
    peak = cuda.max_memory_allocated()
    cuda.reset_peak_memory_stats()
    return {"device": cuda.get_device_name(), "device_peak_bytes": peak}


def main() -> None:
    """Answer the parent until it closes standard input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("factory")
    parser.add_argument("options", type=json.loads)
    arguments = parser.parse_args()
    channel = take_stdout()

    def say(**line: object) -> None:
        channel.write(json.dumps(line) + "\n")

    try:
        workload = build(arguments.factory, arguments.options)
        gc.collect()
        loaded = memory.resident_bytes()
        say(ready=True, loaded_bytes=loaded, facts=dict(workload.facts))
        for command in sys.stdin:
            say(**(warm_up(workload) if command.strip() == WARM_UP else measure(workload, loaded)))
    except BaseException as error:
        say(error=f"{type(error).__name__}: {error}".splitlines()[0][:300])
        raise


if __name__ == "__main__":
    main()
