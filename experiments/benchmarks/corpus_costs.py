"""The tables of docs/deployment.md on large corpora: `python -m experiments.benchmarks.corpus_costs` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from embedlab.deploy.shard_costs import Corpus, readable
from embedlab.paths import benchmarks_dir, project_root
from experiments.benchmarks.table import read_results
from experiments.pages import markdown_table, replace_block

SIZES = (1_000_000, 10_000_000, 100_000_000)
DEVICES = (1, 8, 64)
NOT_MEASURED = "not measured"
START, END = "<!-- corpus costs: python -m experiments.benchmarks.corpus_costs -->", "<!-- end of corpus costs -->"
RATES = {
    "22 M parameters, CPU, 2 threads": "encode",
    "22 M parameters, GPU": "encode_gpu",
    "110 M parameters, GPU": "encode_110m_gpu",
    "0.6 B parameters, GPU": "encode_600m_gpu",
}

Results = Mapping[str, Mapping[str, Any]]


def rate(result: Mapping[str, Any] | None) -> float | None:
    """Return texts per second of our arm of an encoding benchmark; None if it was not measured."""
    repeats = (result or {}).get("arms", {}).get("ours", {}).get("repeats", [])
    return result["size"]["texts"] / median(repeat["seconds"] for repeat in repeats) if repeats else None


def time_table(results: Results) -> str:
    """Hours to embed 100 million short texts, by model and number of devices."""
    header, rows = ["model and device", "texts/s of one", *(f"hours on {count}" for count in DEVICES)], []
    for label, name in RATES.items():
        measured = rate(results.get(name))
        if measured is None:
            rows.append([label, NOT_MEASURED, *[NOT_MEASURED] * len(DEVICES)])
            continue
        hours = [Corpus(SIZES[-1]).hours(measured, count) for count in DEVICES]
        rows.append([label, f"{measured:,.0f}", *(f"{value:,.3g}" for value in hours)])
    return markdown_table(header, rows)


def size_table() -> str:
    """Bytes of vectors and indexes, by number of documents."""
    header, rows = ["384 dimensions", *(f"{size:,} documents" for size in SIZES)], []
    corpora = [Corpus(size) for size in SIZES]
    for label, attribute in {
        "vectors on disk, float32": "vector_bytes",
        "IVF-PQ on disk, 48-byte codes": "code_file_bytes",
        "memory of a server with IVF-PQ on disk": "server_bytes",
        "read from the disk per query, 64 lists": "query_bytes",
        "memory of a server with HNSW": "hnsw_bytes",
    }.items():
        rows.append([label, *(readable(getattr(corpus, attribute)) for corpus in corpora)])
    return markdown_table(header, rows)


def block(results: Results) -> str:
    """Return the part of the page between the markers, with them."""
    return f"{START}\n\n{size_table()}\n\n{time_table(results)}\n\n{END}"


def page() -> Path:
    """Return the page that holds the tables."""
    return project_root() / "docs" / "deployment.md"


def main() -> None:
    """Write the tables into the page."""
    text = page().read_text(encoding="utf-8")
    page().write_text(replace_block(text, START, END, block(read_results(benchmarks_dir()))), encoding="utf-8")


if __name__ == "__main__":
    main()
