"""The names that `import embedlab` offers."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import embedlab


def type_checking_imports():
    """Name -> module of the imports that type checkers read."""
    tree = ast.parse(Path(embedlab.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_each_exported_name_is_the_object_of_its_module():
    for name, module in type_checking_imports().items():
        assert getattr(embedlab, name) is getattr(import_module(module), name)


def test_type_checkers_and_users_see_the_same_names():
    assert sorted(type_checking_imports()) == sorted(embedlab.__all__)
    assert set(embedlab.__all__) <= set(dir(embedlab))


def test_an_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'load_datasets'"):
        _ = embedlab.load_datasets


def test_importing_the_package_loads_no_heavy_library():
    code = "import sys, embedlab; print([m for m in ('torch', 'numpy', 'pandas', 'transformers') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
