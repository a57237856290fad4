"""Estimate the hardware that fine-tuning needs: pairs per second, memory and minutes.

    python experiments/benchmarks/run.py --only hardware --repeats 1     # about three minutes on 2 cores
    python -m experiments.benchmarks.hardware                            # the table, from the measurements

The time of a pass over short pairs is the start-up time plus the number of pairs divided by the rate. Both are
estimated from `train_short` and this benchmark, which does the same work on more pairs. Minutes for other sizes are
extrapolated and marked as such. Each machine has its own table.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from embedlab import paths
from embedlab.reporting import tables
from experiments.benchmarks import train
from experiments.benchmarks.spec import Benchmark, Figure

SOURCES = (("train_short", "hardware"), ("train_short_gpu", "hardware_gpu"))  # of a CPU, of a GPU
ADVISED = (1_000, 10_000, 100_000, 1_000_000)
TABLE = "hardware"
COLUMNS = ("pairs", "minutes", "pairs per second", "memory, GB", "source")
CAPTION = (
    "One pass over pairs of about a dozen tokens with one hard negative. Base model with 22 M parameters, Matryoshka "
    "dimensions, batch {batch}, {threads} threads, {device}. Memory is the peak of the training process. Mining and "
    "evaluation are not included. Each encodes the corpus once.{busy}"
)
_FIGURES = (Figure("seconds", unit="s"), Figure("peak_bytes", unit="bytes"))

BENCHMARKS = (
    Benchmark(
        name="hardware",
        title="train on ten thousand short pairs, batch 128",
        arms={"ours": train.OURS},
        figures=_FIGURES,
        size={"data": "full", "batch_size": 128, "steps": 80},
        quick={"data": "smoke", "batch_size": 8, "steps": 2},
    ),
    Benchmark(
        name="hardware_gpu",
        title="train on a hundred thousand short pairs on a GPU in bf16, batch 256",
        arms={"ours": train.OURS_BF16},
        figures=_FIGURES,
        size={"data": "full", "batch_size": 256, "steps": 400, "device": "cuda"},
        quick={"data": "smoke", "batch_size": 8, "steps": 2},
        requires=("cuda",),
    ),
)

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Pass:
    """One measured pass over the pairs: the median of its seconds and the largest memory."""

    pairs: int
    seconds: float
    gigabytes: float | None


def passes(results: Sequence[Result]) -> list[Pass]:
    """Return the passes that our arm measured, fewest pairs first; smoke runs do not count."""
    found = [_pass(result) for result in results if not result["smoke"] and result["arms"]["ours"]["repeats"]]
    return sorted(found, key=lambda one: one.pairs)


def _pass(result: Result) -> Pass:
    arm, size = result["arms"]["ours"], result["size"]
    peaks = [repeat["peak_bytes"] for repeat in arm["repeats"] if repeat["peak_bytes"] is not None]
    memory = (arm["loaded_bytes"] + max(peaks)) / 1e9 if peaks else None
    seconds = statistics.median(repeat["seconds"] for repeat in arm["repeats"])
    return Pass(size["steps"] * size["batch_size"], seconds, memory)


def advice(measured: Sequence[Pass]) -> pd.DataFrame:
    """Tabulate minutes and memory for the sizes in `ADVISED` and the measured ones.

    Args:
        measured: from `passes`. With only one size, the start-up time counts as 0.

    Returns:
        A row per size with the columns `COLUMNS`; empty if nothing was measured.
    """
    if not measured:
        return pd.DataFrame(columns=list(COLUMNS))
    start, rate = _line(measured[0], measured[-1])
    memory = max((one.gigabytes for one in measured if one.gigabytes is not None), default=None)
    known = {one.pairs: one.seconds for one in measured}
    rows = []
    for pairs in sorted({*ADVISED, *known}):
        seconds = known.get(pairs, start + pairs / rate)
        how = "measured" if pairs in known else "extrapolated"
        shown = "" if memory is None else f"{memory:.1f}"
        rows.append((f"{pairs:,}", f"{seconds / 60:,.1f}", f"{pairs / seconds:,.0f}", shown, how))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _line(small: Pass, large: Pass) -> tuple[float, float]:
    """(seconds to start, pairs per second) through two measured passes."""
    if small is large:
        return 0.0, small.pairs / small.seconds
    rate = (large.pairs - small.pairs) / (large.seconds - small.seconds)
    return max(0.0, small.seconds - small.pairs / rate), rate


def write_advice(folder: Path | None = None) -> Path:
    """Write results/tables/hardware.md from the measurements in `folder`, results/benchmarks when not given."""
    parts = []
    for names in SOURCES:
        found = sorted(_read(folder or paths.benchmarks_dir(), names), key=_machine)
        for _, results in groupby(found, key=_machine):
            if len(table := advice(passes(one_machine := list(results)))):
                parts.append(f"{tables.markdown(table)}\n\n{_caption(one_machine)}")
    path = paths.tables_dir() / f"{TABLE}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts or ["Not measured yet."]) + "\n", encoding="utf-8")
    return path


def _read(folder: Path, names: Sequence[str]) -> Iterator[Result]:
    for name in names:
        if (path := folder / f"{name}.json").exists():
            yield json.loads(path.read_text(encoding="utf-8"))


def _machine(result: Result) -> str:
    """Name the processor, with the instructions that decide how fast a CPU multiplies."""
    environment = result["environment"]
    if result["size"].get("device") == "cuda":
        return environment["gpu"]
    return ", ".join([environment["cpu"], *environment.get("instructions", ())])


def _caption(results: Sequence[Result]) -> str:
    environment, size = results[-1]["environment"], results[-1]["size"]
    share = max(result.get("background_share") or 0 for result in results)
    return CAPTION.format(
        batch=size["batch_size"],
        threads=environment["threads"],
        device=_machine(results[-1]),
        busy=f" Other programs used {share:.0%} of the machine during the measurement." if share > 0.05 else "",
    )


if __name__ == "__main__":
    print(write_advice())
