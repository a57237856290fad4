"""The table of all results, built from their files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from embedlab.paths import tables_dir
from experiments.benchmarks.harness import MEASURED, NOT_MEASURED
from experiments.benchmarks.spec import PRODUCT, Benchmark, Figure

HEADER = ("benchmark", "measure", "against", "target", "median [95 % interval]", "target met", "FLOPs ratio")
MEASURES = {
    "seconds": "time",
    "peak_bytes": "peak memory",
    "bytes_per_document": "memory per document, vectors in RAM",
    "growth_ratio": "memory, growth",
    "device_peak_bytes": "peak memory of the GPU",
    "difference": "vectors, largest difference to one process",
    "encoded_twice": "documents encoded more than once",
    "killed": "workers killed",
    "documents_per_second": "speed",
    "worker_peak_bytes": "peak memory of a worker",
    "exact_ms": "exact search, 100 queries at a time",
    "index_recall": "recall@10 of IVF-PQ",
    "index_ms": "search through IVF-PQ, 100 queries at a time",
    "index_bytes": "size of IVF-PQ",
    "seconds_to_first_step": "time to the first step",
    "own_bytes": "peak memory without the model",
    "texts_per_second_32": "throughput",
    "p99_ms_32": "99th percentile of latency",
    "server_peak_bytes": "peak memory of the server",
}
NAME = "README.md"
BUSY_SHARE = 0.05  # of the processors used by other programs; a row with more is marked

SUMMARY = "benchmarks"  # results/tables/benchmarks.md, and its block in the project's README
SUMMARY_HEADER = (
    "what",
    "times as fast as stock [95 % interval]",
    "target",
    "against tuned",
    "FLOPs ratio",
    "peak memory",
)

PREAMBLE = """\
`python experiments/benchmarks/run.py --table` rebuilds this page from the JSON files in this folder. \
`bash experiments/benchmarks/gpu.sh` fills all rows that need a GPU, in at most 8 minutes; with `--quick` it runs them \
on the CPU at toy size, as a test of the script.

- Every arm runs in its own process. Repeats alternate (ABBA) after a warm-up that is not measured. The interval is a \
bootstrap over the ratios of neighbouring repeats.
- Time is wall-clock time: 2 × means twice as fast as the other arm. Peak memory is the peak minus the memory after \
loading, as a share of the other arm's.
- All arms run with the same number of threads and with `OMP_WAIT_POLICY=PASSIVE`. embedlab sets this because threads \
that spin while they wait slow down every process on the machine. Without it, that would count as a gain of embedlab.
- *FLOPs ratio* is the speed-up from leaving out padding and unused vocabulary scores if only FLOPs took time. For \
search, it is the speed-up if only the matrix product took time, from its measured time. A target above this ratio \
needs other savings too."""

Result = Mapping[str, Any]


def read_results(folder: Path) -> dict[str, Result]:
    """Read every result file in `folder`: benchmark name -> result."""
    results = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return {result["name"]: result for result in results}


def write_table(benchmarks: Iterable[Benchmark], folder: Path) -> Path:
    """Write `folder`/README.md from the result files in the same folder."""
    path = folder / NAME
    path.write_text(markdown(list(benchmarks), read_results(folder)), encoding="utf-8")
    return path


def write_summary(benchmarks: Iterable[Benchmark], folder: Path) -> Path:
    """Write the measured ratios against stock, one line per benchmark, to results/tables/benchmarks.md."""
    path = tables_dir() / f"{SUMMARY}.md"
    path.write_text(summary(list(benchmarks), read_results(folder)), encoding="utf-8")
    return path


def summary(benchmarks: list[Benchmark], results: Mapping[str, Result]) -> str:
    """Return the Markdown table of times against stock; README.md has everything else."""
    found = (_summary_row(benchmark, results.get(benchmark.name, {})) for benchmark in benchmarks)
    rows = [SUMMARY_HEADER, ["---"] * len(SUMMARY_HEADER), *filter(None, found)]
    return "\n".join(map(_line, rows)) + "\n"


def _summary_row(benchmark: Benchmark, result: Result) -> list[str] | None:
    rows = {(row["measure"], row["against"]): row for row in result.get("rows", ()) if row["status"] == MEASURED}
    figure = next((f for f in benchmark.figures if (f.measure, f.against) == ("seconds", "stock")), None)
    if figure is None or (row := rows.get(("seconds", "stock"))) is None:
        return None
    tuned, memory = rows.get(("seconds", "tuned")), rows.get(("peak_bytes", "stock"))
    return [
        benchmark.title,
        value_text(figure, row) + _caution(result),
        target_text(figure),
        f"{_number(tuned['value'])} ×" if tuned else "",
        _bound(figure, result),
        f"{_number(memory['value'])} ×" if memory else "",
    ]


def markdown(benchmarks: list[Benchmark], results: Mapping[str, Result]) -> str:
    """Return the page: method, table, arms and machines."""
    rows = [cells for benchmark in benchmarks for cells in _rows(benchmark, results.get(benchmark.name, {}))]
    sections = ["# Benchmarks"]
    if any(result["smoke"] for result in results.values()):
        sections.append("**Smoke run: too short, the numbers mean nothing.**")
    sections += [PREAMBLE, "\n".join([_line(HEADER), _line(["---"] * len(HEADER)), *map(_line, rows)])]
    sections += ["## Arms", *map(_arms, filter(lambda benchmark: benchmark.arms, benchmarks))]
    if machines := sorted({_machine(result["environment"]) for result in results.values()}):
        sections += ["## Machines", "\n".join(machines)]
    return "\n\n".join(sections) + "\n"


def _rows(benchmark: Benchmark, result: Result) -> list[list[str]]:
    known = {(row["measure"], row["against"], row["arm"]): row for row in result.get("rows", ())}
    missing = {"status": NOT_MEASURED, "cause": ""}
    labels = [f"`{benchmark.name}`: {benchmark.title}"] + [f"`{benchmark.name}`"] * len(benchmark.figures)
    return [
        [label, *_cells(figure, known.get((figure.measure, figure.against, figure.arm), missing), result)]
        for label, figure in zip(labels, benchmark.figures, strict=False)
    ]


def _cells(figure: Figure, row: Mapping[str, Any], result: Result) -> list[str]:
    measured = row["status"] == MEASURED
    verdict = {True: "yes", False: "no", None: ""}[figure.meets(row["value"]) if measured else None]
    return [
        MEASURES.get(figure.measure, figure.measure),
        figure.against or "",
        target_text(figure),
        value_text(figure, row) + (_caution(result) if measured else ""),
        "" if result.get("smoke") else verdict,
        _bound(figure, result) if measured else "",
    ]


def target_text(figure: Figure) -> str:
    """Format the target with its direction, e.g. ≥ 2.5 ×; empty without one."""
    if figure.target is None:
        return ""
    return f"{'≥' if figure.higher_is_better else '≤'} {_number(figure.target)} {figure.unit}"


def value_text(figure: Figure, row: Mapping[str, Any]) -> str:
    """Format the estimate with its interval, or the status and its cause if nothing was measured."""
    if row["status"] != MEASURED:
        return ": ".join(filter(None, (row["status"], row["cause"])))
    return f"{_number(row['value'])} {figure.unit} [{_number(row['low'])}, {_number(row['high'])}]"


def others_share(result: Result) -> float:
    """Return the share of the processors that other programs used, as the harness or an arm with processes measured."""
    measured = [
        repeat.get("others_share") or 0.0 for arm in result["arms"].values() for repeat in arm.get("repeats", ())
    ]
    return max([result.get("background_share") or 0.0, *measured])


def _caution(result: Result) -> str:
    if result["smoke"]:
        return " (smoke)"
    share = others_share(result)
    return f" (busy machine: {share:.0%} used by other programs)" if share > BUSY_SHARE else ""


def _bound(figure: Figure, result: Result) -> str:
    facts = result["arms"]["ours"].get("facts", {})
    if figure.measure != "seconds" or figure.against != "stock":
        return ""
    if PRODUCT in result["arms"]:
        stock, product = (median(r["seconds"] for r in result["arms"][arm]["repeats"]) for arm in ("stock", PRODUCT))
        return f"{stock / product:.2f} × (the matrix product alone)"
    return f"{facts['flops_ratio']:.2f} × ({facts['padding_share']:.0%} padding)" if "flops_ratio" in facts else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _arms(benchmark: Benchmark) -> str:
    return "\n".join([f"`{benchmark.name}`", *(f"- **{name}**: {arm.about}" for name, arm in benchmark.arms.items())])


def _machine(environment: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in environment["versions"].items())
    hardware = [environment["cpu"], f"{environment['cores']} cores", f"{environment['threads']} threads"]
    hardware += [*environment["instructions"], environment["gpu"] or "no GPU"]
    return f"- {', '.join(hardware)}; Python {environment['python']}, {versions}"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
