"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from embedlab.paths import benchmarks_dir, cache_dir
from embedlab.reporting.publish import refresh_readme
from experiments.benchmarks.harness import FAILED, THREADS, run_benchmark, write_result
from experiments.benchmarks.registry import BENCHMARKS
from experiments.benchmarks.table import write_summary, write_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen benchmarks, write their files and the table; returns 1 if an arm failed."""
    options = _parser().parse_args(arguments)
    folder = _folder(options)
    failed = False
    for name in _chosen(options):
        chosen = {"repeats": options.repeats, "quick": options.quick, "on_cpu": options.on_cpu}
        result = run_benchmark(BENCHMARKS[name], threads=options.threads, **chosen)
        write_result(result, folder)
        failed |= any(row["status"] == FAILED for row in result["rows"])
    folder.mkdir(parents=True, exist_ok=True)
    print(write_table(BENCHMARKS.values(), folder))
    if folder == benchmarks_dir():
        write_summary(BENCHMARKS.values(), folder)
        print(refresh_readme())
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare the speed and memory of embedlab with sentence-transformers and transformers."
    )
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=[], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--skip", nargs="+", choices=BENCHMARKS, default=[], metavar="NAME", help="do not run these")
    parser.add_argument("--quick", action="store_true", help="use smoke sizes; never writes to results/benchmarks")
    parser.add_argument("--gpu", action="store_true", help="run only the benchmarks that need a GPU")
    parser.add_argument("--on-cpu", action="store_true", help="with --quick: run benchmarks of the GPU on the CPU")
    parser.add_argument("--repeats", type=int, help="repeats per arm; default 5")
    parser.add_argument("--threads", type=int, default=THREADS, help="threads of every arm")
    parser.add_argument("--out", type=Path, help="folder for the JSON files and the table")
    parser.add_argument("--table", action="store_true", help="rebuild the table without measuring")
    return parser


def _chosen(options: argparse.Namespace) -> list[str]:
    if options.table:
        return []
    names = options.only or [name for name in BENCHMARKS if not options.gpu or BENCHMARKS[name].device == "cuda"]
    return [name for name in names if name not in options.skip]


def _folder(options: argparse.Namespace) -> Path:
    results = benchmarks_dir()
    if options.on_cpu and not options.quick:
        raise SystemExit("--on-cpu tests the benchmarks themselves. Use it with --quick.")
    if not options.quick:
        return options.out or results
    folder = options.out or cache_dir() / "benchmarks"
    if folder.resolve().is_relative_to(results.resolve()):
        raise SystemExit(f"{folder}: a smoke run writes no results. Choose another folder with --out.")
    return folder
