"""Places kept for benchmarks whose subject is still being written."""

from __future__ import annotations

from experiments.benchmarks.spec import Benchmark, Figure

BENCHMARKS = (
    Benchmark(
        name="sweep_cold",
        title="sweep of eight runs, cold caches",
        arms={},
        figures=(Figure("seconds", 2.2, against="stock"),),
        pending="waits for warm kernels",
    ),
    Benchmark(
        name="run_fixed_cost",
        title="fixed cost of one run against plain papermill",
        arms={},
        figures=(Figure("seconds", 10.0, against="stock"),),
        pending="waits for warm kernels",
    ),
)
