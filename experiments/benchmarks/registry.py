"""All benchmarks, in the order of the table."""

from __future__ import annotations

from experiments.benchmarks import (
    architectures,
    encode,
    evaluate,
    gpu,
    hardware,
    memory_1m,
    million_pairs,
    mlm,
    processes,
    serving,
    shards,
    sweep,
    train,
)
from experiments.benchmarks.spec import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for module in (
        train,
        architectures,
        processes,
        mlm,
        encode,
        gpu,
        evaluate,
        memory_1m,
        million_pairs,
        shards,
        serving,
        sweep,
        hardware,
    )
    for benchmark in module.BENCHMARKS
}
