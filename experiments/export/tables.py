"""The tables of the study: all schemes in the experiment log, the main ones in docs/deployment.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embedlab.paths import project_root
from experiments.pages import markdown_table, replace_block

START, END = "<!-- export: python -m experiments.export --tables -->", "<!-- end of export -->"
HEADER = [
    "",
    "MB",
    "cosine: mean",
    "lowest",
    "alone or in a batch",
    "nDCG@10: difference",
    "texts/s",
    "times packed",
    "times stock",
]
LABELS = {"stock": "sentence-transformers, padded", "packed": "embedlab, packed"}
MAIN = (
    "fp32",
    "onnxruntime dynamic, its defaults",
    "onnxruntime dynamic, per channel",
    "one scale per token, 7-bit weights (chosen)",
)

Result = Mapping[str, Any]


def table(result: Result, names: Iterable[str]) -> str:
    """Return a Markdown table of stock, packed and some schemes.

    Args:
        result: of `study.study`.
        names: of the schemes.
    """
    rows = []
    for name in (*LABELS, *names):
        rows.append([LABELS.get(name, name), *_quality(result["schemes"].get(name)), *_speed(result["speeds"][name])])
    return markdown_table(HEADER, rows)


def _quality(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return [""] * 5
    difference = row["difference"]
    return [
        f"{row['bytes'] / 1e6:.1f}",
        *(f"{row[key]:.4f}" for key in ("cosine_mean", "cosine_min", "cosine_alone")),
        f"{difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]",
    ]


def _speed(speed: Mapping[str, Mapping[str, float]]) -> list[str]:
    ratios = [f"{speed[key]['value']:.2f}" for key in ("times_packed", "times_stock")]
    return [f"{speed['texts_per_second']['value']:,.0f}", *ratios]


def pages() -> dict[Path, tuple[str, ...] | None]:
    """Return the pages with a table, and the schemes in it; None for all."""
    log = project_root() / "experiments" / "log" / "2026-11-29-export-int8.md"
    return {project_root() / "docs" / "deployment.md": MAIN, log: None}


def with_table(page: str, result: Result, names: Iterable[str]) -> str:
    """Return the text of a page with the table between the markers replaced."""
    return replace_block(page, START, END, f"{START}\n\n{table(result, names)}\n\n{END}")


def write_tables(result: Result) -> None:
    """Write the table into every page."""
    for path, names in pages().items():
        text = path.read_text(encoding="utf-8")
        path.write_text(with_table(text, result, names or result["schemes"]), encoding="utf-8")
