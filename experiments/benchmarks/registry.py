"""All benchmarks, in the order of the table."""

from __future__ import annotations

from experiments.benchmarks import (
    architectures,
    encode,
    evaluate,
    hardware,
    memory_1m,
    million_pairs,
    mlm,
    sweep,
    train,
)
from experiments.benchmarks.spec import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for module in (train, architectures, mlm, encode, evaluate, memory_1m, million_pairs, sweep, hardware)
    for benchmark in module.BENCHMARKS
}
