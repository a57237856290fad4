"""The table of architectures and techniques: measured on tiny models, kept in results/architectures.json.

python -m experiments.architectures          # measure everything again (a minute), and write the page
python -m experiments.architectures --page   # write the page only, e.g. after new benchmarks
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedlab.errors import EmbedlabError
from embedlab.models.packing import is_packed, padded_because
from embedlab.paths import benchmarks_dir, project_root, results_dir
from experiments.architectures.checks import TECHNIQUES, load
from experiments.architectures.models import DIM, FAMILIES, LAYERS, STATIC, TWO_ENCODERS, TWO_HEADS
from experiments.benchmarks.harness import MEASURED
from experiments.benchmarks.table import read_results
from experiments.pages import markdown_table

EXACT, BATCHES, PACKED = "exact", "batches", "packed"
# Family -> its benchmarks, train_short_NAME and train_long_NAME.
BENCHMARKS = {
    "BERT": "bert_base",
    "MPNet": "mpnet",
    "DeBERTa-v2": "deberta_v2",
    "ModernBERT": "modernbert",
    "NomicBERT": "nomic_bert",
    "T5 encoder": "t5",
    "Gemma 3, bidirectional": "gemma3_text",
    "Qwen3": "qwen3",
    "Llama": "llama",
}
OTHER_BATCHES = {
    STATIC: "token embeddings are looked up; there is nothing to pad",
    TWO_ENCODERS: "each side as its own architecture",
    TWO_HEADS: "packed, as its transformer",
}

PAGE = """\
# Architectures and techniques

Tests try every technique on a random model of every family ({layers} layers, {dim} dimensions). **yes** means: equal to
what the last table lists, within its tolerance. A number means that the technique raises an error before anything is
computed. `python -m experiments.architectures` writes this page.

{cells}

{reasons}

## Batches and speed

Times as fast as stock sentence-transformers, training in fp32 on a CPU with random weights of the family (6 layers, 384
dimensions; BERT with 12 layers, 768 dimensions). The [benchmarks](../results/benchmarks/README.md) have the intervals,
memory and targets. Packed batches leave out all padding. A family with padded batches trains in sub-batches of similar
length.

{speeds}

## What "yes" compares

{techniques}

Random values in a test: dropout is off where gradients are compared. A Router has its own modules for queries and
documents: both sides are trained, and each side encodes its texts everywhere.
"""

Results = Mapping[str, Mapping[str, str]]  # family -> technique -> EXACT, the reason of a refusal, or a difference


def results_file() -> Path:
    """Return the path of the measured results."""
    return results_dir() / "architectures.json"


def page_file() -> Path:
    """Return the path of the page."""
    return project_root() / "docs" / "architectures.md"


def measure(family: str) -> dict[str, str]:
    """Try every technique on a family.

    Returns:
        Technique -> "exact", why it is refused, or how far it is off; and under "batches" "packed" or why not.
    """
    return {BATCHES: _batches(family)} | {technique.name: _cell(technique, family) for technique in TECHNIQUES}


def _batches(family: str) -> str:
    if family in OTHER_BATCHES:
        return OTHER_BATCHES[family]
    model = load(family)
    return PACKED if is_packed(model) else f"padded: {padded_because(model)}"


def _cell(technique: Any, family: str) -> str:
    try:
        difference = technique.difference(family)
    except EmbedlabError as error:
        return error.problem
    return EXACT if difference <= technique.tolerance else f"differs by {difference:.0e}"


def page(results: Results, benchmarks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page as Markdown.

    Args:
        results: family -> what `measure` returned.
        benchmarks: benchmark name -> content of its JSON file.
    """
    reasons: dict[str, int] = {}
    rows = [[family, *(_short(results[family][t.name], reasons) for t in TECHNIQUES)] for family in FAMILIES]
    speeds = [[family, results[family][BATCHES], *_speeds(family, benchmarks)] for family in FAMILIES]
    return PAGE.format(
        layers=LAYERS,
        dim=DIM,
        cells=markdown_table(["family", *(technique.name for technique in TECHNIQUES)], rows),
        reasons="\n".join(f"{number}. {_sentence(reason)}" for reason, number in reasons.items()),
        speeds=markdown_table(["family", "batches", "short texts", "texts of up to 256 tokens"], speeds),
        techniques=markdown_table(
            ["technique", "what is compared", "tolerance"],
            [[technique.name, technique.equals, f"{technique.tolerance:.0e}"] for technique in TECHNIQUES],
        ),
    )


def _short(cell: str, reasons: dict[str, int]) -> str:
    if cell == EXACT:
        return "yes"
    return f"**{cell}**" if cell.startswith("differs") else str(reasons.setdefault(cell, len(reasons) + 1))


def _speeds(family: str, benchmarks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    name = BENCHMARKS.get(family)
    if name is None:
        return ["", ""]
    return [_ratio(benchmarks.get(f"train_{texts}_{name}", {})) for texts in ("short", "long")]


def _ratio(result: Mapping[str, Any]) -> str:
    if result.get("smoke"):
        return "not measured"
    for row in result.get("rows", ()):
        if (row["measure"], row["against"], row["status"]) == ("seconds", "stock", MEASURED):
            return f"{row['value']:.2f} ×"
    return "not measured"


def _sentence(reason: str) -> str:
    return reason[0].upper() + reason[1:] + "."


def write_page() -> None:
    """Write the page from the measured results and the benchmarks."""
    page_file().write_text(page(read(), read_results(benchmarks_dir())), encoding="utf-8")


def read() -> Results:
    """Read the measured results."""
    results: Results = json.loads(results_file().read_text(encoding="utf-8"))
    return results


def write(results: Results) -> None:
    """Write the measured results."""
    results_file().write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
