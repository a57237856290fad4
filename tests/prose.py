"""Numbers that people wrote by hand next to a run id, compared with that run's record.

A number is checked when it stands in the same sentence, bullet or table row as a run id, such as
`04_contrastive-92792c76-s0`. Two forms are read:

- a value with its interval, `0.565 [0.546, 0.583]`: one metric row must have all three;
- a value after a metric name, `nDCG@10 0.565`: one row of that metric must have it.

Numbers are compared as far as they are written. With several run ids, any of the runs may have the number. Sentences
without a run id state numbers of several runs, such as means over seeds, and are not checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedlab import paths
from embedlab.runs import records
from embedlab.runs.records import MetricRow

RUN = re.compile(r"\b\d\d_\w+-[0-9a-f]{8}-s-?\d+")
NUMBER = r"[+-]?\d+\.\d+"
TRIPLE = re.compile(rf"(?P<value>{NUMBER}) \[(?P<low>{NUMBER}), (?P<high>{NUMBER})\]")
NAMED = re.compile(rf"(?P<metric>[A-Za-z]+@\d+)\s+(?:is\s+|of\s+)?(?P<value>{NUMBER})(?!\d|\.\d| \[|\s?%)")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z*`(])|;\s+")
BULLET = re.compile(r"^\s*(?:>\s*)?(?:\||[-*]\s|\d+\.\s)")  # 0.565 at the beginning of a line is none


@dataclass(frozen=True)
class Claim:
    """One statement about runs.

    Attributes:
        runs: those it names.
        text: the number as written.
        holds: whether a metric row bears it out.
    """

    runs: tuple[str, ...]
    text: str
    holds: Callable[[MetricRow], bool]


def wrong_claims(text: str, folder: Path | None = None) -> list[str]:
    """Every claim of a Markdown text that no record of its runs bears out; runs without a record are passed over."""
    return [f"{', '.join(claim.runs)}: {claim.text}" for claim in claims(text) if not _is_borne_out(claim, folder)]


def claims(text: str) -> Iterator[Claim]:
    """The claims of a Markdown text, in order."""
    for statement in statements(text):
        if runs := tuple(dict.fromkeys(RUN.findall(statement))):
            yield from (_triple(runs, match) for match in TRIPLE.finditer(statement))
            yield from (_named(runs, match) for match in NAMED.finditer(statement))


def statements(text: str) -> Iterator[str]:
    """Sentences and table rows, each on one line."""
    for block in blocks(text):
        line = " ".join(block.split())
        yield from [line] if line.startswith("|") else SENTENCE.split(line)


def blocks(text: str) -> Iterator[str]:
    """Paragraphs, bullets and table rows."""
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        if block and (not line.strip() or BULLET.match(line)):
            yield "\n".join(block)
            block = []
        if line.strip():
            block.append(line)


def _triple(runs: tuple[str, ...], match: re.Match[str]) -> Claim:
    written = match.group("value", "low", "high")

    def holds(row: MetricRow) -> bool:
        return all(map(_rounds_to, (row.value, row.ci_low, row.ci_high), written))

    return Claim(runs, match[0], holds)


def _named(runs: tuple[str, ...], match: re.Match[str]) -> Claim:
    metric, written = match["metric"].lower(), match["value"]
    return Claim(runs, match[0], lambda row: row.metric.lower() == metric and _rounds_to(row.value, written))


def _rounds_to(value: float | None, written: str) -> bool:
    """Whether `written` is `value`, as far as it goes."""
    half = 0.5 * 10 ** -len(written.partition(".")[2])
    return value is not None and abs(value - float(written)) <= half * (1 + 1e-6)


def _is_borne_out(claim: Claim, folder: Path | None) -> bool:
    found = [_metrics(folder or paths.runs_dir(), run_id) for run_id in claim.runs]
    known: Sequence[Sequence[MetricRow]] = [rows for rows in found if rows is not None]
    return not known or any(claim.holds(row) for rows in known for row in rows)


def _metrics(folder: Path, run_id: str) -> Sequence[MetricRow] | None:
    if not (folder / run_id / records.FILE).is_file():
        return None
    return records.read(folder / run_id).metrics
