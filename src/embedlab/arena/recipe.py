"""A recipe: a Python file that turns data and a base model into a model folder, run in a process of its own.

    python RECIPE.py DATA MODEL OUTPUT --seed 0 --max-steps -1

`DATA` is a folder as in `arena.exchange`, `OUTPUT` becomes a sentence-transformers folder. A file that mentions
`--minutes` gets a budget too, in minutes of CPU time. Its docstring begins with a line that describes it. Nothing else
is asked of it, so the file runs without this package, and the process is measured from its start to its end: loading,
mining, training and saving. It has an empty cache.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from modulefinder import ModuleFinder
from pathlib import Path

import embedlab
from embedlab import paths, progress
from embedlab.errors import DataError, ParameterError, RecipeError
from embedlab.io import sha256_of, write_atomic
from embedlab.memory import peak_bytes

BUDGET = "--minutes"
OUTCOME, MODEL, LOG, CACHE = "outcome.json", "model", "log.txt", "cache"
POLL = 0.2  # seconds
LINE = 300  # characters

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """A file that fine-tunes a model.

    Attributes:
        name: its file name without suffix, with hyphens.
        path: the file.
        description: the first line of its docstring.
        takes_budget: whether it has the option `--minutes`, of CPU time.
    """

    name: str
    path: Path
    description: str
    takes_budget: bool

    @property
    def digest(self) -> str:
        """Hash of the file, and of what it uses of this package and of its notebooks: 64 hex digits."""
        if not (package := modules_of(self.path)):
            return sha256_of(self.path)
        defaults = sorted(paths.notebooks_dir().glob("*.ipynb"))  # those of a recipe are those of its notebook
        return hashlib.sha256("".join(map(sha256_of, [self.path, *package, *defaults])).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What a recipe made and what it cost.

    Attributes:
        seconds: from the start of its process to the end.
        cpu_seconds: of all its threads and child processes.
        peak_bytes: largest resident memory of the process, without its child processes.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def modules_of(script: Path) -> list[Path]:
    """Find the modules of this package that a script imports, directly or through others, in functions too."""
    package = Path(embedlab.__file__).parent
    finder = ModuleFinder(path=[str(package.parent)])  # only what is there: no other package is read
    finder.run_script(str(script))
    files = [getattr(module, "__file__", None) for module in finder.modules.values()]
    return sorted(Path(file) for file in files if file and Path(file).is_relative_to(package))


def names() -> list[str]:
    """Return the names of the recipes in this project."""
    return sorted(path.stem.replace("_", "-") for path in paths.recipes_dir().glob("*.py"))


def find(name: str) -> Recipe:
    """Find a recipe.

    Args:
        name: one of `names()`, or the path of a Python file.

    Raises:
        ParameterError: there is no such recipe.
        DataError: the file is not Python, or it has no docstring.
    """
    path = Path(name) if name.endswith(".py") else paths.recipe_file(name)
    if not path.is_file():
        remedy = f"Take one of {', '.join(names())}, or the path of a Python file"
        raise ParameterError(f"there is no recipe {name!r}", remedy=remedy, field="recipes")
    source = path.read_text(encoding="utf-8")
    try:
        docstring = ast.get_docstring(ast.parse(source))
    except SyntaxError as error:
        remedy = "Repair the file."
        raise DataError("a recipe must be a Python file", remedy=remedy, file=path, line=error.lineno) from None
    if not docstring:
        remedy = "Begin the file with a docstring. Its first line describes the recipe in tables."
        raise DataError("this recipe has no description", remedy=remedy, file=path)
    return Recipe(path.stem.replace("_", "-"), path, docstring.splitlines()[0], BUDGET in source)


def run(
    recipe: Recipe,
    data: Path,
    model: str,
    *,
    seed: int,
    max_steps: int = 0,
    minutes: float = 0.0,
    facts: Mapping[str, str],
) -> tuple[Outcome, Path]:
    """Run a recipe, or return what an earlier run of the same one has made.

    Args:
        recipe: the recipe.
        data: folder as in `arena.exchange`.
        model: folder or hub name of the base model.
        seed: its random seed.
        max_steps: maximum number of training steps; 0 sets none.
        minutes: time budget, for recipes that take one.
        facts: what else decides the result, such as the fingerprints of data and base model. With the file of the
            recipe and the arguments, they are the key of the result on disk.

    Returns:
        The cost, and the folder of the model.

    Raises:
        RecipeError: the process failed, or left no model; the message has the last lines of its output.
    """
    arguments = ["--seed", str(seed), "--max-steps", str(max_steps or -1)]
    if recipe.takes_budget:
        arguments += [BUDGET, f"{minutes:.2f}"]
    key = json.dumps([recipe.digest, arguments, dict(facts)], sort_keys=True)
    folder = paths.cache_dir() / "arena" / f"{recipe.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if (folder / OUTCOME).is_file():
        logger.info("%s: taken from %s", recipe.name, folder)
        return Outcome(**json.loads((folder / OUTCOME).read_text(encoding="utf-8"))), folder / MODEL
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, str(recipe.path.resolve()), str(data), model, str(folder / MODEL), *arguments]
    outcome, code = _measured(command, folder / LOG, f"recipe {recipe.name}", cache=folder / CACHE)
    shutil.rmtree(folder / CACHE, ignore_errors=True)
    if code:
        raise _error(recipe, f"ended with exit code {code}", folder / LOG)
    if not (folder / MODEL / "modules.json").is_file():
        raise _error(recipe, "left no sentence-transformers model", folder / LOG)
    write_atomic(folder / OUTCOME, json.dumps(asdict(outcome)))
    return outcome, folder / MODEL


def _measured(command: list[str], log: Path, stage: str, *, cache: Path) -> tuple[Outcome, int]:
    """Run a command to its end; return its cost and its exit code.

    It gets a cache of its own: vectors that another recipe has left there would make it look cheaper than it is.
    """
    start = time.monotonic()
    settings = os.environ | {"EMBEDLAB_CACHE": str(cache)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=settings
        )
    try:
        finished = peak = 0
        while not finished:
            time.sleep(POLL)
            peak = max(peak, peak_bytes(process.pid))
            progress.report(stage, int(time.monotonic() - start))
            finished, status, usage = os.wait4(process.pid, os.WNOHANG)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen cannot ask again
    unit = 1 if sys.platform == "darwin" else 1024  # there ru_maxrss is in bytes, elsewhere in KiB
    memory = peak or usage.ru_maxrss * unit
    return Outcome(time.monotonic() - start, usage.ru_utime + usage.ru_stime, memory), process.returncode


def _error(recipe: Recipe, problem: str, log: Path) -> RecipeError:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last_line = f", and its last line was: {lines[-1][:LINE]}" if lines else ""
    return RecipeError(f"the recipe {recipe.name} {problem}{last_line}", remedy=f"Read {log}", file=recipe.path)
