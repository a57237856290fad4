"""The table of all results, rebuilt from their files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from embedlab.paths import tables_dir
from experiments.benchmarks.harness import MEASURED, NOT_MEASURED
from experiments.benchmarks.spec import PRODUCT, Benchmark, Figure

HEADER = ("benchmark", "measure", "against", "target", "median [95 % interval]", "target met", "FLOPs allow")
MEASURES = {
    "seconds": "time",
    "peak_bytes": "peak memory",
    "bytes_per_document": "own memory per document, in RAM",
    "growth_ratio": "own memory, memory map",
}
NAME = "README.md"
BUSY_SHARE = 0.05  # of the processors taken by others; above, a row says so

SUMMARY = "benchmarks"  # results/tables/benchmarks.md, and its block in the project's README
SUMMARY_HEADER = ("what", "times as fast as stock [95 % interval]", "aim", "as tuned", "FLOPs allow", "peak memory")

PREAMBLE = """\
Rebuilt from the JSON files beside it by `python experiments/benchmarks/run.py --table`.

- Every arm runs in a process of its own. Repeats alternate (ABBA) after an unmeasured warm-up; the interval is a \
bootstrap over the ratios of neighbouring repeats.
- Time is wall-clock; 2 × means twice as fast as the other arm. Peak memory is the high-water mark above what loading \
left, as a share of the other arm's.
- All arms, ours and the others', run with the same number of threads and with `OMP_WAIT_POLICY=PASSIVE`. This package \
sets it because waiting threads that spin slow every process on the machine; a row would otherwise count that as a gain.
- *FLOPs allow* is the ratio that leaving out padding, and vocabulary scores nobody needs, gives at the same rate of \
arithmetic; for the search it is the measured time of the matrix product alone. A target above it is out of reach by \
that alone, and one near it leaves nothing for the rest of the work."""

Result = Mapping[str, Any]


def read_results(folder: Path) -> dict[str, Result]:
    """Benchmark name -> result, of every result file in `folder`."""
    results = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return {result["name"]: result for result in results}


def write_table(benchmarks: Iterable[Benchmark], folder: Path) -> Path:
    """Write `folder`/README.md from the result files in the same folder."""
    path = folder / NAME
    path.write_text(markdown(list(benchmarks), read_results(folder)), encoding="utf-8")
    return path


def write_summary(benchmarks: Iterable[Benchmark], folder: Path) -> Path:
    """Write the measured ratios against stock, one line a benchmark, to results/tables/benchmarks.md."""
    path = tables_dir() / f"{SUMMARY}.md"
    path.write_text(summary(list(benchmarks), read_results(folder)), encoding="utf-8")
    return path


def summary(benchmarks: list[Benchmark], results: Mapping[str, Result]) -> str:
    """The Markdown table of what was measured in time against stock; the page has the rest."""
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
    """The page: how it was measured, the table, what the arms are, the machines."""
    rows = [cells for benchmark in benchmarks for cells in _rows(benchmark, results.get(benchmark.name, {}))]
    sections = ["# Benchmarks"]
    if any(result["smoke"] for result in results.values()):
        sections.append("**Smoke run: sizes of seconds, numbers without meaning.**")
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
    """The target with its direction, e.g. ≥ 2.5 ×; empty without one."""
    if figure.target is None:
        return ""
    return f"{'≥' if figure.higher_is_better else '≤'} {_number(figure.target)} {figure.unit}"


def value_text(figure: Figure, row: Mapping[str, Any]) -> str:
    """The estimate with its interval, or the status and its cause; never a number for a row that has no measurement."""
    if row["status"] != MEASURED:
        return ": ".join(filter(None, (row["status"], row["cause"])))
    return f"{_number(row['value'])} {figure.unit} [{_number(row['low'])}, {_number(row['high'])}]"


def _caution(result: Result) -> str:
    if result["smoke"]:
        return " (smoke)"
    share = result["background_share"] or 0.0
    return f" (busy machine: others took {share:.0%} of it)" if share > BUSY_SHARE else ""


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
