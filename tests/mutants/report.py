"""RESULT.md: what was run, and what survived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mutants.generated import Mutant
from tests.mutants.groups import known_modules
from tests.mutants.handwritten import Planted

RESULT = Path(__file__).with_name("RESULT.md")
GOAL = 0.95  # of the mutants that are not equivalent
KILLED = ("killed", "timeout", "segfault")


def share(mutants: Sequence[Mutant]) -> float:
    """Share of the mutants killed, of those that are not equivalent; 1 for none."""
    counted = [mutant for mutant in mutants if mutant.status != "equivalent"]
    return sum(mutant.status in KILLED for mutant in counted) / len(counted) if counted else 1.0


def write_report(
    found: Sequence[Mutant], planted: Sequence[Planted], commits: Mapping[str, str], path: Path = RESULT
) -> None:
    """Write the table of all modules, the handwritten list, and the survivors with their lines."""
    path.write_text(report(found, planted, commits))


def report(found: Sequence[Mutant], planted: Sequence[Planted], commits: Mapping[str, str]) -> str:
    """The text of RESULT.md."""
    killed = sum(one.status in KILLED for one in planted)
    lines = [
        "# Mutation tests",
        "",
        "Written by `python -m tests.mutants --write`. A mutant is one change of the source; it is killed when a test",
        "fails. Changes of the wording of messages are not made. A `+` behind a commit: with changes on top of it.",
        "",
        f"**Generated** (mutmut): {_counts(found)}.",
        "",
        f"**Handwritten** (`handwritten.toml`): {killed} of {len(planted)} killed.",
        "",
        "| Module | Mutants | Killed | Equivalent | Survived | Share | Commit |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for module in sorted({one.module for one in found}):
        of_module = [one for one in found if one.module == module]
        lines.append(_row(module, of_module, commits.get(module.replace("/", "."), "")))
    missing = [module for module in known_modules() if module not in {one.module for one in found}]
    if missing:
        lines += ["", f"Not run: {', '.join(missing)}."]
    survivors = [one for one in found if one.status not in (*KILLED, "equivalent")]
    alive = [one for one in planted if one.status not in KILLED]
    lines += ["", f"## Survivors ({len(survivors)})", ""]
    for one in survivors:
        lines += [f"- `{one.module}.py:{one.line}`, `{one.function}`", "", *_changed(one), ""]
    if alive:
        lines += [f"## Handwritten and not killed ({len(alive)})", ""]
        lines += [f"- {one.status}: {one.name} (`{one.file}`)" for one in alive]
    return "\n".join(lines).rstrip() + "\n"


def _counts(found: Sequence[Mutant]) -> str:
    killed = sum(one.status in KILLED for one in found)
    same = sum(one.status == "equivalent" for one in found)
    return f"{len(found)} mutants, {killed} killed, {same} equivalent, {share(found):.1%} of the others killed"


def _row(module: str, found: Sequence[Mutant], commit: str) -> str:
    killed = sum(one.status in KILLED for one in found)
    same = sum(one.status == "equivalent" for one in found)
    cells = (f"{module}.py", len(found), killed, same, len(found) - killed - same, f"{share(found):.0%}", commit)
    return "| " + " | ".join(map(str, cells)) + " |"


def _changed(one: Mutant) -> list[str]:
    signed = [("-", line) for line in one.before.splitlines()] + [("+", line) for line in one.after.splitlines()]
    return ["  ```diff", *(f"  {sign} {line.strip()}" for sign, line in signed), "  ```"]
