"""Measure how readable the project is and compare each measure with its limit.

    python tools/house.py [--list [PREFIX]] [--root FOLDER]

The table shows every measure with its limit. The exit code is 1 when a measure misses its limit. `--list` also prints
each finding with its file and line, of all files or of those whose path starts with PREFIX.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import statistics
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FIRST_COMMIT = "ed44c5d"  # commit subjects are measured from here on
MAX_LINES, MAX_IMPORTS, MAX_SUBJECT = 40, 12, 72

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Archaic, literary or private expressions, with the plain words to use instead.
DIALECT = {
    r"mend(s|ed|ing)?|unmended": "fix, correct, repair",
    r"whence": "from which, where",
    r"beside": "next to, with, concatenated with",
    r"bare(ly)?": "plain, only",
    r"(?<!-)alike": "similar, the same, both",
    r"hardly": "almost no, rarely",
    r"whoever|whosoever|whatsoever": "anyone who, any",
    r"foretaste": "cheap proxy",
    r"needs? not": "does not have to",
    r"lest": "so that … not",
    r"amiss": "wrong",
    r"nought|naught|aught": "zero, nothing",
    r"wherein|whereof|whereupon|thereof|therein|thereupon|herein|hereby": "in which, of which",
    r"betwixt|amidst|amongst|whilst|albeit|ere|oft|nigh|anew|forthwith|heretofore|henceforth": "a current word",
    r"tells? apart|telling apart|told apart": "distinguish",
    r"tables? of (words?|word pieces|pieces)": "static embeddings, static model",
    r"end to end": "concatenated, or: the whole run",
    r"two in one": "concatenation",
    r"(names|is|are|has|holds|gives|takes) no place": "has no location",
    r"(?<!there )(is|are|was|were) no (?!longer|more than|less than|fewer than|better|worse)"
    r"[\w-]+": "is not a …, must be …",
    r"(is|are|was|were) (refused|said)": "raises …, fails, is reported",
    r"(cry|cries|crying|cried) wolf": "false alarm",
    r"wants": "needs, expects, requires",
    r"(16|32|48|64|96|128|192|256|384|512|768|1,?024) numbers": "dimensions",
    r"for (it|they) (is|are|has|have|was|were)": "because",
    r"as yet|of its own accord|by a hair": "a plain expression",
}
# Ordinary English that the patterns above would match.
ALLOWED = ("look-alike", "bare-metal")

# Quotes the labels of old records, which cannot change.
QUOTES = ("src/embedlab/runs/migrate.py",)

# Names that say nothing about the value they hold.
CONTENTLESS_NAMES = """
found wanted known chosen own one left place given kept shown before whole part others taken made asked said told again
there here what gone same both each those these that this thing things ours theirs its spelled put held drawn left_over
leftover much many such something anything everything nothing
"""
CONTENTLESS = frozenset(CONTENTLESS_NAMES.split())
PAIRED = {"left": "right", "before": "after"}  # these say enough in a file that also assigns the second name


class Finding(NamedTuple):
    """One finding that counts against a measure, with its file and line."""

    where: str
    text: str


class Text(NamedTuple):
    """A piece of prose and where it starts."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Measure:
    """One number about the project.

    Attributes:
        name: what is measured, with its unit.
        value: None when it cannot be measured here, for example without git.
        most: upper limit, None when there is none.
        least: lower limit, None when there is none.
        findings: what counts against the limit.
    """

    name: str
    value: float | None
    most: float | None = None
    least: float | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def passes(self) -> bool:
        """Whether the value is within its limits."""
        if self.value is None:
            return True
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)


# Source code


def source_files(root: Path) -> dict[str, ast.Module]:
    """Relative path -> syntax tree of every Python file of the package."""
    return {_relative(path, root): ast.parse(path.read_text(encoding="utf-8")) for path in _python_files(root)}


def source_measures(trees: dict[str, ast.Module]) -> list[Measure]:
    """Size and documentation of the functions in `trees` (relative path -> syntax tree)."""
    functions = [(file, node) for file, tree in trees.items() for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    lengths = [length(node) for _, node in functions] or [0]
    public = [(file, node) for file, tree in trees.items() for node in public_functions(tree)]
    undocumented = [(file, node) for file, node in public if not ast.get_docstring(node)]
    parameters = [(file, node, name) for file, node in functions for name in arguments(node)]
    missing = [(file, node, name) for file, node, name in parameters if name.annotation is None]
    longest = [(file, node) for file, node in functions if length(node) > MAX_LINES]
    return [
        Measure("python files in src", len(trees)),
        Measure("functions in src", len(functions)),
        Measure("lines per function, median", statistics.median(lengths), most=8),
        Measure("lines per function, maximum", max(lengths), most=MAX_LINES, findings=[_at(f, n) for f, n in longest]),
        Measure(
            "public functions with a docstring, %",
            100 - _percent(len(undocumented), len(public)),
            least=92,
            findings=[_at(file, node) for file, node in undocumented],
        ),
        Measure(
            "annotated arguments, %",
            100 - _percent(len(missing), len(parameters)),
            least=100,
            findings=[Finding(f"{file}:{node.lineno}", f"{node.name}({name.arg})") for file, node, name in missing],
        ),
    ]


def length(node: Function) -> int:
    """Lines of a function from `def` to its end, without its docstring."""
    docstring = node.body[0] if ast.get_docstring(node) else None
    documented = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
    return node.end_lineno - node.lineno + 1 - documented


def public_functions(tree: ast.Module) -> Iterator[Function]:
    """Functions, and methods of public classes, whose names do not start with an underscore."""
    scopes: list[ast.Module | ast.ClassDef] = [tree]
    while scopes:
        for node in scopes.pop().body:
            if getattr(node, "name", "_").startswith("_"):
                continue
            if isinstance(node, ast.ClassDef):
                scopes.append(node)
            elif isinstance(node, FUNCTIONS):
                yield node


def arguments(node: Function) -> list[ast.arg]:
    """The arguments of a function, without `self` and `cls`."""
    listed = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    return [argument for argument in listed if argument is not None and argument.arg not in ("self", "cls")]


def names_measure(trees: dict[str, ast.Module]) -> Measure:
    """Share of assigned names, arguments included, that say nothing about their value."""
    assigned = [
        (file, node.lineno, getattr(node, "id", None) or node.arg)
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)) or isinstance(node, ast.arg)
    ]
    everywhere = {(file, name) for file, _, name in assigned}
    findings = [
        Finding(f"{file}:{line}", f"'{name}' does not say what it holds")
        for file, line, name in assigned
        if name.strip("_") in CONTENTLESS and (file, PAIRED.get(name)) not in everywhere
    ]
    share = _percent(len(findings), len(assigned))
    return Measure("assigned names without content, %", share, most=0.2, findings=findings)


# Prose


def prose(root: Path) -> Iterator[Text]:
    """All texts for readers: pages, notebooks, and the docstrings, comments and strings of the package."""
    pages = [root / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "results/README.md")]
    pages += [root / "notebooks/README.md"]
    for folder in ("docs", "experiments/log"):
        pages += sorted((root / folder).rglob("*.md"))
    pages += sorted((root / "src").rglob("*.html"))
    for page in pages:
        if page.is_file():
            yield Text(_relative(page, root), 1, page.read_text(encoding="utf-8"))
    for path in _python_files(root):
        if _relative(path, root) not in QUOTES:
            yield from code_texts(path.read_text(encoding="utf-8"), _relative(path, root))
    for path in notebooks(root):
        yield from notebook_texts(path, _relative(path, root))


def code_texts(code: str, file: str) -> Iterator[Text]:
    """Docstrings, other strings and comments of Python code."""
    tree = ast.parse(code)
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    inside = {id(child) for node in formatted for child in ast.walk(node) if child is not node}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(file, node.lineno, node.value)
        elif isinstance(node, ast.JoinedStr):
            constants = [value.value if isinstance(value, ast.Constant) else "_" for value in node.values]
            yield Text(file, node.lineno, "".join(constants))
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield Text(file, token.start[0], token.string)


def notebook_texts(path: Path, file: str) -> Iterator[Text]:
    """The markdown of a notebook, and the strings and comments of its code; lines count within `file`'s cell."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        where = f"{file}[{number}]"
        if cell["cell_type"] == "markdown":
            yield Text(where, 1, source)
        elif cell["cell_type"] == "code":
            yield from code_texts(source, where)


def dialect_measure(texts: Iterable[Text]) -> Measure:
    """Dialect words per 10,000 words of `texts`."""
    words, findings = 0, []
    for text in texts:
        words += len(re.findall(r"[A-Za-z][\w'-]*", text.text))
        findings += dialect_in(text)
    return Measure("dialect words per 10,000", 100 * _percent(len(findings), words), most=0.0, findings=findings)


def dialect_in(text: Text) -> list[Finding]:
    """The dialect words of one text, each with its line and the words to use instead."""
    content = re.sub(r"[ \t]*\n[ \t>]*", "\n", text.text)  # one space or line break between two words
    for phrase in ALLOWED:
        content = content.replace(phrase, "_" * len(phrase))
    findings = []
    for pattern, instead in DIALECT.items():
        spaced = pattern.replace(" ", r"\s")
        for match in re.finditer(rf"\b(?:{spaced})\b", content, re.IGNORECASE):
            line = text.line + content.count("\n", 0, match.start())
            findings.append(Finding(f"{text.file}:{line}", f"'{' '.join(match[0].split())}' (write: {instead})"))
    return findings


def readme_measures(page: str) -> list[Measure]:
    """Words before the first command, and decimals on the whole page."""
    introduction = page.split("```")[0]
    decimals = re.findall(r"\d+\.\d+", page)
    return [
        Measure("words in README before the first command", len(introduction.split()), most=350),
        Measure("decimals in README", len(decimals), most=120),
    ]


# Notebooks


def notebooks(root: Path) -> list[Path]:
    """The notebooks in reading order."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def imports_measure(root: Path, package: str = "embedlab") -> Measure:
    """The most names of ours that a notebook imports."""
    names = {_relative(path, root): own_names(_code(path), package) for path in notebooks(root)}
    findings = [
        Finding(file, f"imports {len(used)} names: {', '.join(sorted(used))}")
        for file, used in names.items()
        if len(used) > MAX_IMPORTS
    ]
    largest = max(map(len, names.values()), default=0)
    return Measure("names of ours in a notebook, maximum", largest, most=MAX_IMPORTS, findings=findings)


def own_names(code: str, package: str) -> set[str]:
    """Names that `code` takes from `package`, by `from package.module import name` or as `package.name`."""
    used, modules = set(), set()
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or package for alias in node.names if alias.name.split(".")[0] == package}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return used | {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id in modules}


def _code(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


# Repository


def repository_measures(root: Path) -> list[Measure]:
    """Megabytes that git tracks, and the longest commit subject since `FIRST_COMMIT`."""
    tracked = _git(root, "ls-files", "-z")
    log = _git(root, "log", "--no-merges", "--format=%h %s", f"{FIRST_COMMIT}..HEAD")
    files = [root / name for name in (tracked or "").split("\0") if name]
    megabytes = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    subjects = [line.partition(" ") for line in (log or "").splitlines()]
    long = [Finding(commit, subject) for commit, _, subject in subjects if len(subject) > MAX_SUBJECT]
    longest = max((len(subject) for _, _, subject in subjects), default=0)
    return [
        Measure("tracked megabytes", None if tracked is None else megabytes, most=45),
        Measure(
            "characters in a commit subject, maximum", None if log is None else longest, most=MAX_SUBJECT, findings=long
        ),
    ]


def _git(root: Path, *arguments: str) -> str | None:
    """The output of git; None without git, without a repository or without the commit."""
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


# The whole


def measures(root: Path = ROOT) -> list[Measure]:
    """All measures of the project in `root`."""
    trees = source_files(root)
    return [
        *source_measures(trees),
        names_measure(trees),
        dialect_measure(prose(root)),
        *readme_measures((root / "README.md").read_text(encoding="utf-8")),
        imports_measure(root),
        *repository_measures(root),
    ]


def table(results: Iterable[Measure]) -> str:
    """One line per measure: whether it passes, its value, its limit and its name."""
    lines = [f"{'':8}{'value':>10}  {'limit':>8}  measure"]
    for result in results:
        value = "-" if result.value is None else f"{result.value:,.2f}".removesuffix(".00")
        limit = f"≤ {result.most:g}" if result.most is not None else f"≥ {result.least:g}" if result.least else ""
        lines.append(f"{'' if result.passes else 'worse':8}{value:>10}  {limit:>8}  {result.name}")
    return "\n".join(lines)


def main() -> int:
    """Print the table; the exit code is 1 when a measure misses its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the project's folder")
    parser.add_argument("--list", nargs="?", const="", metavar="PREFIX", help="print each finding with file and line")
    options = parser.parse_args()
    results = measures(options.root)
    if options.list is not None:
        for finding in sorted(finding for result in results for finding in result.findings):
            if finding.where.startswith(options.list):
                print(f"{finding.where}: {finding.text}")
    print(table(results))
    return 0 if all(result.passes for result in results) else 1


def _python_files(root: Path) -> list[Path]:
    return sorted((root / "src").rglob("*.py"))


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _at(file: str, node: Function) -> Finding:
    return Finding(f"{file}:{node.lineno}", f"{node.name}, {length(node)} lines")


def _percent(count: int, total: int) -> float:
    return 100 * count / total if total else 0.0


if __name__ == "__main__":
    raise SystemExit(main())
