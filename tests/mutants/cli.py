"""The command `python -m tests.mutants`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from tests.mutants import equivalent, handwritten
from tests.mutants.copies import commit_of
from tests.mutants.generated import ALIVE, Mutant, run_group
from tests.mutants.groups import GROUPS, group_of, known_modules
from tests.mutants.report import GOAL, RESULT, share, write_report

HERE = Path(tempfile.gettempdir()) / "embedlab-mutants"
PLANTED = "handwritten.jsonl"  # results of the handwritten list


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    found = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    found.add_argument("--module", action="append", metavar="PATH", help="e.g. training/losses; all when not given")
    found.add_argument("--sample", type=int, metavar="N", help="generated mutants per module; all when not given")
    found.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
    found.add_argument("--jobs", type=int, default=1, help="generated mutants at the same time (default 1)")
    found.add_argument("--resume", action="store_true", help="keep the results of an earlier run of the same code")
    found.add_argument("--survivors", action="store_true", help="resume; run survivors again, with the tests of now")
    only = found.add_mutually_exclusive_group()
    only.add_argument("--handwritten", action="store_true", help="only the handwritten list, which needs no mutmut")
    only.add_argument("--generated", action="store_true", help="only the mutants that mutmut makes")
    found.add_argument("--folder", type=Path, default=HERE, help=f"copies and results (default {HERE})")
    found.add_argument("--write", action="store_true", help=f"write {RESULT.name} from all results in the folder")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run mutants and print the survivors; exit with 1 when a module misses the goal or a handwritten one is alive."""
    options = parser().parse_args(arguments)
    results = options.folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    if not options.handwritten:
        run_generated(options, results)
    if not options.generated:
        planted = [one for one in handwritten.read_list() if not options.module or _module(one) in options.module]
        run_handwritten(planted, options.folder, results / PLANTED, resume=options.resume)
    finish(results, options.write)


def run_handwritten(planted: list[handwritten.Planted], folder: Path, results: Path, *, resume: bool) -> None:
    """Run the handwritten list; to resume keeps the results of entries that were killed and have not changed."""
    kept = [one for one in planted_results(results) if resume and one.status == "killed"]
    missing = [one for one in planted if replace(one, status="killed") not in kept]
    results.write_text("".join(json.dumps(asdict(one)) + "\n" for one in kept))
    for one in handwritten.run_list(missing, folder / "handwritten") if missing else ():
        with open(results, "a") as file:
            file.write(json.dumps(asdict(one)) + "\n")


def planted_results(path: Path) -> list[handwritten.Planted]:
    """The results of the handwritten list so far."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [handwritten.Planted(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def run_generated(options: argparse.Namespace, results: Path) -> None:
    """Run the mutants that mutmut makes, group by group, and keep the results of each module."""
    try:
        import mutmut  # noqa: F401
    except ImportError:
        raise SystemExit(
            "mutmut is not installed. Install it with: pip install -r tests/mutants/requirements.txt "
            "(or run only the handwritten list with --handwritten)."
        ) from None
    modules = options.module or known_modules()
    for name in GROUPS:
        if of_group := [module for module in modules if group_of(module) == name]:
            settings = {"size": options.sample, "seed": options.seed, "jobs": options.jobs, "resume": options.resume}
            found = run_group(name, of_group, options.folder, **settings, survivors=options.survivors)
            keep(results, equivalent.marked(found), commit_of())


def finish(results: Path, write: bool) -> None:
    """Print what survived; exit with 1 when the goal is missed or a handwritten mutant is not killed."""
    generated = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    found = [Mutant(**mutant) for content in generated.values() for mutant in content["mutants"]]
    planted = planted_results(results / PLANTED)
    for one in found:
        if one.status in ALIVE:
            print(f"{one.status}: src/embedlab/{one.module}.py:{one.line}\n  - {one.before}\n  + {one.after}")
    alive = [one for one in planted if one.status not in ("killed", "timeout")]
    for planted_one in alive:
        print(f"{planted_one.status}: {planted_one.file}: {planted_one.name}")
    if write:
        write_report(found, planted, {path: content["commit"] for path, content in generated.items()})
    modules = sorted({one.module for one in found})
    low = [module for module in modules if share([one for one in found if one.module == module]) < GOAL]
    for module in low:
        print(f"below {GOAL:.0%}: {module}")
    raise SystemExit(1 if alive or low else 0)


def keep(results: Path, mutants: Iterable[Mutant], commit: str) -> None:
    """Write the results of each module to its own file, with the commit they belong to."""
    by_module: dict[str, list[dict[str, object]]] = {}
    for mutant in mutants:
        by_module.setdefault(mutant.module, []).append(asdict(mutant))
    for module, rows in by_module.items():
        content = {"commit": commit, "mutants": rows}
        (results / f"{module.replace('/', '.')}.json").write_text(json.dumps(content, indent=1))


def _module(planted: handwritten.Planted) -> str:
    return planted.file.removeprefix("src/embedlab/").removesuffix(".py")
