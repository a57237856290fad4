"""The tables of the study, in docs/deployment.md and in the experiment log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedlab.paths import project_root
from embedlab.reporting.migration_table import HEADER, table_rows
from experiments.pages import markdown_table, replace_block

COMMAND = "python -m experiments.migrations --tables"
RELEASE_HEADER = [
    "",
    "documents to encode",
    "nDCG@10",
    "against the old index",
    "queries on new codes",
    "change on the probe",
]

Result = Mapping[str, Any]


def base_table(comparison: Result) -> str:
    """Return the Markdown table of all ways to change the base model, and what the rule recommends."""
    rows = table_rows(comparison["rows"], comparison["decision"]["recommended"])
    return markdown_table(list(HEADER), rows) + "\n\n" + " ".join(comparison["advice"])


def release_table(releases: Result) -> str:
    """Return one Markdown table per older release of the code book, with the counts of what changed."""
    parts = []
    for release, change in releases.items():
        counts = change["counts"]
        heading = (
            f"{release} → {change['to']}: {counts['old']:,} → {counts['new']:,} codes; {counts['added']:,} added, "
            f"{counts['deleted']:,} deleted, {counts['revised']:,} with a revised description; {counts['to_encode']:,} "
            f"new texts. {change['rows'][0]['test']['n']:,} test queries of {change['to']}, "
            f"{change['queries_on_new_codes']:,} of them on codes that {release} lacks."
        )
        rows = [
            [
                row["option"],
                f"{row['documents']:,}",
                _interval(row["test"], ".3f"),
                _interval(row["to_old"], "+.3f"),
                _interval(row["new_codes"], ".3f"),
                _interval(row["forgetting"], "+.3f"),
            ]
            for row in change["rows"]
        ]
        parts.append(heading + "\n\n" + markdown_table(RELEASE_HEADER, rows))
    return "\n\n".join(parts)


def blocks(result: Result) -> dict[str, str]:
    """Return the name of every block that was measured -> its content."""
    content = {}
    if "base" in result:
        content = {f"base {name}": base_table(result["base"][name]) for name in ("untuned", "tuned")}
    return {**content, "releases": release_table(result["releases"])} if "releases" in result else content


def pages() -> list[Path]:
    """Return the pages that hold blocks."""
    log = project_root() / "experiments" / "log" / "2026-11-29-migrations.md"
    return [project_root() / "docs" / "deployment.md", log]


def with_blocks(page: str, result: Result) -> str:
    """Return the text of a page with every block that it holds replaced."""
    for name, content in blocks(result).items():
        start, end = f"<!-- migrations, {name}: {COMMAND} -->", f"<!-- end of migrations, {name} -->"
        if start in page:
            page = replace_block(page, start, end, f"{start}\n\n{content}\n\n{end}")
    return page


def write_tables(result: Result) -> None:
    """Write the tables into every page."""
    for path in pages():
        path.write_text(with_blocks(path.read_text(encoding="utf-8"), result), encoding="utf-8")


def _interval(value: Mapping[str, float], pattern: str) -> str:
    return f"{value['mean']:{pattern}} [{value['low']:{pattern}}, {value['high']:{pattern}}]"
