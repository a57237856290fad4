"""The mutation job: a planted fault is found killed, survived or stale; what is counted; what the result says."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.mutants import equivalent
from tests.mutants.generated import Mutant, changes_prose, mutants_of, renew_tests, sample
from tests.mutants.groups import GROUPS, ROOT, SOURCE, group_of
from tests.mutants.handwritten import Planted, read_list, run_list
from tests.mutants.report import report, share

SMALL = "def larger(a, b):\n    return a if a > b else b\n"
ITS_TEST = "from embedlab.small import larger\n\n\ndef test_larger():\n    assert larger(2, 1) == 2\n"


@pytest.fixture
def tree(tmp_path):
    """A repository with one module, one test and the job."""
    root = tmp_path / "tree"
    shutil.copytree(
        ROOT / "tests" / "mutants", root / "tests" / "mutants", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name, text in {
        "src/embedlab/__init__.py": "",
        "src/embedlab/small.py": SMALL,
        "tests/__init__.py": "",
        "tests/unit/__init__.py": "",
        "tests/unit/test_small.py": ITS_TEST,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    return root


def planted(before, after):
    return Planted("a fault", "src/embedlab/small.py", before, after, ("small",))


def test_a_planted_fault_is_killed_or_survives_or_is_stale(tree, tmp_path):
    mutants = [planted("a > b", "a < b"), planted("a > b", "a >= b"), planted("a >= b", "a < b"), planted("a", "b")]
    found = [one.status for one in run_list(mutants, tmp_path / "copy", root=tree, warm=())]
    assert found == ["killed", "survived", "stale", "stale"]  # the last text stands more than once
    assert (tree / "src/embedlab/small.py").read_text() == SMALL
    assert (tmp_path / "copy/src/embedlab/small.py").read_text() == SMALL


def test_tests_that_fail_without_a_fault_are_refused(tree, tmp_path):
    (tree / "tests/unit/test_small.py").write_text(ITS_TEST.replace("== 2", "== 1"))
    with pytest.raises(SystemExit, match="test_small.py fails without a mutant"):
        list(run_list([planted("a > b", "a < b")], tmp_path / "copy", root=tree, warm=()))


def test_survivors_run_again_with_the_tests_of_now_on_the_same_module_only(tree, tmp_path):
    work = tmp_path / "copy"
    shutil.copytree(tree, work)
    (tree / "tests" / "conftest.py").write_text("# new\n")
    renew_tests(work, ["small"], root=tree)
    assert (work / "tests" / "conftest.py").read_text().startswith("# new\n")
    assert "derandomize" in (work / "tests" / "conftest.py").read_text()
    (tree / "src/embedlab/small.py").write_text(SMALL + "\n")
    with pytest.raises(SystemExit, match=r"small\.py is not what was run in .* without --survivors"):
        renew_tests(work, ["small"], root=tree)


def test_lists_name_files_that_exist():
    for group in GROUPS.values():
        assert all((ROOT / SOURCE / f"{module}.py").is_file() for module in group.modules)
        assert all((ROOT / name).is_file() for name in group.test_files)
    names = [one.name for one in read_list()]
    assert len(names) == len(set(names))
    assert all((ROOT / f"tests/unit/test_{name}.py").is_file() for one in read_list() for name in one.tests)
    assert group_of("io") == "runs"
    with pytest.raises(SystemExit, match="No group has the module 'none'"):
        group_of("none")


def mutant(status, before="return a + b", after="return a - b", module="io"):
    return Mutant("x", module, "f", 7, before, after, status)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('raise Error("no such file")', 'raise Error("XXno such fileXX")', True),
        ('raise Error("no such file")', 'raise Error("NO SUCH FILE")', True),
        ('raise Error("no such file")', "raise Error(None)", False),
        ('row["name"]', 'row["XXnameXX"]', False),
        ('row["name"]', 'row["NAME"]', False),
        ("return a < b", "return a <= b", False),
    ],
)
def test_the_wording_of_messages_is_not_counted(before, after, expected):
    assert changes_prose(before, after) is expected


def test_sample_is_drawn_per_module_and_repeats():
    mutants = [Mutant(f"m{number}", f"module {number % 2}", "f", number, "", "") for number in range(40)]
    drawn = sample(mutants, 5, seed=1)
    assert [one.module for one in drawn] == ["module 0"] * 5 + ["module 1"] * 5
    assert drawn == sample(mutants, 5, seed=1) != sample(mutants, 5, seed=2)
    assert len(sample(mutants, None, seed=1)) == 40


def test_equivalent_mutants_need_a_rule_and_are_not_in_the_share(monkeypatch):
    rule = equivalent.Rule("same", r"return a \+ b", r"return b \+ a", module="io")
    monkeypatch.setattr(equivalent, "rules", lambda: (rule,))
    swapped = mutant("survived", after="return b + a")
    found = list(equivalent.marked([swapped, mutant("survived"), mutant("killed"), mutant("timeout")]))
    assert [one.status for one in found] == ["equivalent", "survived", "killed", "timeout"]
    elsewhere = mutant("survived", after="return b + a", module="params")
    assert [one.status for one in equivalent.marked([elsewhere])] == ["survived"]
    assert share(found) == 2 / 3
    text = report(found, [planted("a", "b")], {"io": "abc"})
    assert "| io.py | 4 | 2 | 1 | 1 | 67% | abc |" in text and "- `io.py:7`, `f`" in text
    assert "4 mutants, 2 killed, 1 equivalent, 66.7% of the others killed" in text
    assert "0 of 1 killed" in text


def test_every_rule_gives_a_reason():
    assert equivalent.rules() and all(len(rule.reason) > 20 for rule in equivalent.rules())


def test_generated_mutants_have_their_line():
    pytest.importorskip("mutmut", reason="installed by hand: tests/mutants/requirements.txt")
    found = mutants_of("small", f'"""A module."""\n\n\n{SMALL}')
    assert ("larger", 5, "return a if a > b else b", "return a if a >= b else b") in [
        (one.function, one.line, one.before, one.after) for one in found
    ]
    assert all(one.name.startswith("embedlab.small.x_larger__mutmut_") for one in found)
