"""Mutants that mutmut makes: every operator, number, argument and condition of a module, one change each.

mutmut 3 works here: it knows the src layout, forks a process with warm imports for every mutant (two or three a second)
and runs only the tests that reach the changed function. It does not change code outside of functions, decorated
functions and the order of arguments; those kinds are in the handwritten list.
"""

from __future__ import annotations

import difflib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutants.copies import copy_tree
from tests.mutants.groups import GROUPS, ROOT, SOURCE

MEMORY = 16 << 30  # bytes of address space; a mutant may try to build all 2^n patterns
MUTMUT = "from mutmut.__main__ import cli; cli()"
ALIVE = ("survived", "no tests", "suspicious")
NAMED = re.compile(r"__mutmut_\w+|\bxǁ\w+ǁ|\bx_(?=\w+\()")


@dataclass(frozen=True)
class Mutant:
    """One changed place.

    Attributes:
        name: mutmut's name, e.g. embedlab.io.x_fsync__mutmut_1.
        module: path below src/embedlab, without the ending.
        function: name of the function or the method.
        line: line of the change in the source file.
        before, after: the changed lines.
        status: killed, survived, timeout, …; empty before the run.
    """

    name: str
    module: str
    function: str
    line: int
    before: str
    after: str
    status: str = ""


def mutants_of(module: str, source: str) -> list[Mutant]:
    """List the mutants of a module, without those that change prose; the result depends on the source only."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    mutated = mutate_file_contents(f"{SOURCE}/{module}.py", source)
    lines, spans = mutated.code.splitlines(), mutated.line_span_by_function_name
    prefix = f"embedlab.{module.replace('/', '.')}."
    found = []
    for name in mutated.mutant_names:
        base = name.rpartition("__mutmut_")[0]
        original, changed = (_plain(lines, spans[key]) for key in (f"{base}__mutmut_orig", name))
        before, after, offset = _difference(original, changed)
        function = base.removeprefix("x_") if base.startswith("x_") else base.removeprefix("xǁ").replace("ǁ", ".")
        line = _line_of(source.splitlines(), original) + offset
        found.append(Mutant(prefix + name, module, function, line, before, after))
    return [mutant for mutant in found if not changes_prose(mutant.before, mutant.after)]


def _plain(lines: list[str], span: object) -> list[str]:
    """The lines of a function, without mutmut's part of its name."""
    start, end = span.start, span.end  # type: ignore[attr-defined]
    text = "\n".join(lines[start - 1 : end]).strip("\n")
    return NAMED.sub("", text).splitlines()


def _difference(original: list[str], changed: list[str]) -> tuple[str, str, int]:
    for tag, start, end, other, other_end in difflib.SequenceMatcher(None, original, changed, False).get_opcodes():
        if tag != "equal":
            return "\n".join(original[start:end]).strip(), "\n".join(changed[other:other_end]).strip(), start
    return "", "", 0


def _line_of(source: list[str], function: list[str]) -> int:
    """Where a function stands in its file, 1 for the first line."""
    for start in range(len(source)):
        if source[start : start + len(function)] == function:
            return start + 1
    head = function[0].strip()
    return next((number for number, line in enumerate(source, 1) if line.strip() == head), 0)


def changes_prose(before: str, after: str) -> bool:
    """Whether a mutant changes the wording of a message: text with a space in it, which people read."""
    texts = re.compile(r"[\"'](.*?)[\"']", re.DOTALL)
    if after.replace("XX", "") == before:
        changed = re.findall(r"XX(.*?)XX", after, re.DOTALL)
    elif after != before and after.lower() == before.lower():
        changed = [b for a, b in zip(texts.findall(before), texts.findall(after), strict=False) if a != b]
    else:
        return False
    return any(" " in text.strip() for text in changed)


def sample(mutants: list[Mutant], size: int | None, seed: int) -> list[Mutant]:
    """Draw at most `size` mutants of every module, the same ones for the same seed and source."""
    chosen: list[Mutant] = []
    for module in dict.fromkeys(mutant.module for mutant in mutants):
        of_module = [mutant for mutant in mutants if mutant.module == module]
        if size is not None and size < len(of_module):
            of_module = random.Random(f"{seed} {module}").sample(of_module, size)
        chosen += sorted(of_module, key=lambda mutant: (mutant.line, mutant.name))
    return chosen


def run_group(
    group: str,
    modules: Iterable[str],
    folder: Path,
    *,
    size: int | None,
    seed: int,
    jobs: int,
    resume: bool,
    survivors: bool = False,
) -> Iterator[Mutant]:
    """Run the sampled mutants of some modules of a group; yield them with their status.

    Args:
        group: key of `GROUPS`.
        modules: modules of the group.
        folder: where the copy and the results are kept.
        size, seed: see `sample`.
        jobs: mutants at the same time.
        resume: use the results that are already in `folder`, which must be of the same code.
        survivors: resume, and run those that survived again, with the tests of the working tree.

    Raises:
        SystemExit: a module has changed since its survivors were found, or mutmut failed.
    """
    modules, work, resume = list(modules), folder / group, resume or survivors
    if survivors:
        renew_tests(work, modules)
    if not (resume and (work / "mutants").exists()):
        subprocess.run(["rm", "-rf", str(work)], check=True)
        copy_tree(work)
        _configure(work, group, modules)
    sources = {module: (work / SOURCE / f"{module}.py").read_text() for module in modules}
    chosen = sample([m for module in modules for m in mutants_of(module, sources[module])], size, seed)
    known = _statuses(work, modules) if resume else {}
    again = (None, "not checked", *(ALIVE if survivors else ()))
    missing = [mutant.name for mutant in chosen if known.get(mutant.name) in again]
    if missing:
        _mutmut(work, missing, jobs)
    statuses = _statuses(work, modules)
    for mutant in chosen:
        yield Mutant(**{**asdict(mutant), "status": statuses.get(mutant.name, "not checked")})


SETTINGS_OF_HYPOTHESIS = """

from hypothesis import Phase, settings  # noqa: E402

# The same examples for every mutant, no limit of time and no search for the smallest that fails.
phases = [Phase.explicit, Phase.generate]
settings.register_profile("mutants", deadline=None, derandomize=True, database=None, phases=phases)
settings.load_profile("mutants")
"""


def renew_tests(work: Path, modules: list[str], root: Path = ROOT) -> None:
    """Put the working tree's tests into a group's copy, whose modules must be those of the working tree."""
    for module in modules:
        copy = work / SOURCE / f"{module}.py"
        if not copy.exists() or copy.read_text() != (root / SOURCE / f"{module}.py").read_text():
            raise SystemExit(f"{SOURCE}/{module}.py is not what was run in {work}. Run it again without --survivors.")
    shutil.rmtree(work / "tests")
    shutil.copytree(root / "tests", work / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    with open(work / "tests" / "conftest.py", "a") as file:
        file.write(SETTINGS_OF_HYPOTHESIS)


def _configure(work: Path, group: str, modules: list[str]) -> None:
    """Append mutmut's settings to the copy's pyproject.toml."""
    top_level = sorted(path.name for path in work.iterdir() if path.name not in ("src", "mutants"))
    settings = {
        "source_paths": [str(SOURCE)],
        "only_mutate": [f"{SOURCE}/{module}.py" for module in modules],
        "also_copy": ["src", *top_level],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist"],
        "pytest_add_cli_args_test_selection": GROUPS[group].test_files,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    # A busy machine is slow to start a test; a mutant that never ends costs a few minutes.
    lines += ["timeout_constant = 10.0", "track_dependencies = false", "use_git_change_detection = false"]
    with open(work / "tests" / "conftest.py", "a") as file:
        file.write(SETTINGS_OF_HYPOTHESIS)
    with open(work / "pyproject.toml", "a") as file:
        file.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")


def _mutmut(work: Path, names: list[str], jobs: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    here = work / "mutants"
    (here / "src").mkdir(parents=True, exist_ok=True)  # Python remembers that a folder on its path was not there
    environment = {**os.environ, "PYTHONPATH": f"{here}/src:{here}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", MUTMUT, "run", "--max-children", str(jobs), *names]
    with open(work / "mutmut.log", "a") as log:
        done = subprocess.run(command, cwd=work, env=environment, preexec_fn=limit, stdout=log, stderr=log)
    if done.returncode:
        tail = (work / "mutmut.log").read_text()[-2000:]
        raise SystemExit(f"mutmut failed in {work} (exit code {done.returncode}). Its output ends with:\n{tail}")


def _statuses(work: Path, modules: list[str]) -> dict[str, str]:
    from mutmut.stats import status_by_exit_code

    statuses = {}
    for module in modules:
        path = work / "mutants" / SOURCE / f"{module}.py.meta"
        if path.exists():
            codes = json.loads(path.read_text())["exit_code_by_key"]
            statuses |= {name: status_by_exit_code[code] for name, code in codes.items()}
    return statuses
