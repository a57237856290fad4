"""Parameters: strict types, possible values, known names, and where they came from."""

from __future__ import annotations

import json

import nbformat
import pytest

from embedlab import paths
from embedlab.checked import check_no_keys
from embedlab.errors import ParameterError
from embedlab.runs import notebooks
from embedlab.runs.run import compute_run_id
from embedlab.training.contrastive.train import ContrastiveParams
from tests.notebook_params import params_class

VALUES = {
    "dataset": "icd10cm:smoke",
    "model_name": "all-MiniLM-L6-v2",
    "epochs": 3.0,
    "batch_size": 128,
    "learning_rate": 2e-4,
    "matryoshka_dims": [384, 64],
}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"learnin_rate": 1e-3}, r"\[learnin_rate\].*Did you mean 'learning_rate'"),
        ({"batch_size": True}, r"\[batch_size\]: invalid value True"),
        ({"batch_size": "3"}, r"\[batch_size\]: invalid value '3'"),
        ({"batch_size": 1}, r"\[batch_size\]: invalid value 1: .*greater than or equal to 2"),
        ({"learning_rate": -1.0}, r"\[learning_rate\]: invalid value -1.0"),
        ({"learning_rate": float("nan")}, r"\[learning_rate\]"),
        ({"relative_margin": 2.0}, r"\[relative_margin\]"),
        ({"matryoshka_dims": [384, 0]}, r"\[matryoshka_dims.1\]: invalid value 0"),
        ({"dataset": ""}, r"\[dataset\]"),
        ({"max_steps": -1}, r"\[max_steps\]"),
    ],
)
def test_impossible_values_are_one_clear_line(change, message):
    with pytest.raises(ParameterError, match=message) as caught:
        ContrastiveParams.checked({**VALUES, **change})
    assert "\n" not in str(caught.value)


def test_int_is_a_float_and_params_are_frozen():
    params = ContrastiveParams.checked({**VALUES, "epochs": 3})
    assert params.epochs == 3.0 and isinstance(params.epochs, float)
    with pytest.raises(Exception, match="frozen"):
        params.epochs = 4.0


def test_what_papermill_injects_is_checked_too():
    """Papermill only warns on an unknown name and sets it all the same."""
    cell = "# Parameters\nbatch_size = 64\nbatchsize = 32\n"
    with pytest.raises(ParameterError, match="Did you mean 'batch_size'"):
        ContrastiveParams.resolve({**VALUES, "In": ["", cell]})
    namespace = {**VALUES, "unrelated": 1, "In": ["", "# Parameters\nbatch_size = 64\n"]}
    assert ContrastiveParams.resolve(namespace).batch_size == 128


def test_dims_always_hold_the_full_one():
    class Model:
        def get_embedding_dimension(self):
            return 384

    params = ContrastiveParams.checked({**VALUES, "matryoshka_dims": [64, 128]})
    assert params.dims(Model()) == [384, 128, 64]
    with pytest.raises(ParameterError, match="768 exceeds the 384 dimensions"):
        ContrastiveParams.checked({**VALUES, "matryoshka_dims": [768]}).dims(Model())


COMMITTED = sorted(paths.notebooks_dir().glob("*.ipynb"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_driver_and_notebook_agree_on_the_id(path):
    """The driver hashes the parameters cell; the notebook hashes what it resolved."""
    (cell,) = [cell for cell in notebooks.read(path).cells if "parameters" in cell.metadata.get("tags", ())]
    namespace: dict = {}
    exec(cell.source, namespace)
    inside = params_class(path).resolve(namespace).set_values()
    outside = notebooks.resolved(notebooks.parameters(path), {})
    assert inside == outside
    assert compute_run_id(path, inside) == compute_run_id(path, outside)


def test_id_depends_on_code_parameters_and_data_and_on_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "01_tiny.ipynb"

    def write(code="1 + 1", default="1", prose="a", output=()):
        cells = [nbformat.v4.new_markdown_cell(prose), nbformat.v4.new_code_cell(f"x: int = {default}")]
        cells += [nbformat.v4.new_code_cell(code, outputs=list(output))]
        cells[1].metadata["tags"] = ["parameters"]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    values = {"x": 1, "seed": 0, "output_dir": "", "dataset": "icd10cm:smoke"}
    reference = compute_run_id(write(), values)
    output = nbformat.v4.new_output("stream", text="2")
    assert compute_run_id(write(prose="b", default="7", output=[output]), values) == reference
    assert compute_run_id(write(), {**values, "output_dir": "/elsewhere"}) == reference
    assert compute_run_id(write(), {**values, "seed": 5}) == reference.replace("-s0", "-s5")
    others = {compute_run_id(write(code="1 + 2"), values), compute_run_id(write(), {**values, "x": 2})}
    monkeypatch.setattr("embedlab.runs.inputs.source_fingerprint", lambda spec: "other bytes")
    others.add(compute_run_id(write(), values))
    assert len(others) == 3 and reference not in others


@pytest.mark.parametrize(
    "text, type_name, value",
    [
        ("007", "int", 7),
        ("007", "str", "007"),
        ("1e-5", "float", 1e-5),
        ("3", "float", 3.0),
        ("True", "bool", True),
        ("false", "bool", False),
        ("[1, 2]", "list[int]", [1, 2]),
        ("[1, 2.5]", "list[float]", [1.0, 2.5]),
        ("a=b", "str", "a=b"),
    ],
)
def test_text_is_read_as_the_type_says(text, type_name, value):
    parameter = notebooks.Parameter("x", type_name, None, "")
    parsed = notebooks.parse_values([parameter], {"x": text})["x"]
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    "text, type_name",
    [
        ("1.5", "int"),
        ("yes", "bool"),
        ("1", "bool"),
        ("[1, true]", "list[int]"),
        ("1", "list[int]"),
        ("{", "list[int]"),
    ],
)
def test_text_of_another_type_is_refused(text, type_name):
    with pytest.raises(ParameterError, match=r"\[x\]: must be "):
        notebooks.parse_values([notebooks.Parameter("x", type_name, 1, "")], {"x": text})


def cell_file(tmp_path, *sources, tags=("parameters",)):
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)}) for source in sources]
    path = tmp_path / "nb.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_parameters_with_types_defaults_and_help(tmp_path):
    path = cell_file(tmp_path, 'a: int = 1  # how many # really\nb: list[str] = ["#", "y"]\n')
    assert notebooks.parameters(path) == [
        notebooks.Parameter("a", "int", 1, "how many # really"),
        notebooks.Parameter("b", "list[str]", ["#", "y"], ""),
    ]


@pytest.mark.parametrize("source", ["x = 1", "x: int = 1 + y", "x: dict = {}", "import os"])
def test_parameters_cell_holds_annotated_literals_only(tmp_path, source):
    with pytest.raises(ParameterError, match="in the parameters cell"):
        notebooks.parameters(cell_file(tmp_path, source))


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be read"),
        (b"", "is no"),
        (b'{"cells": [', "JSON"),
        (b"[1, 2]", "is not a notebook"),
        (b'{"a": 1}', "is not a notebook"),
        ('{"cells": []}'.encode("utf-16"), "is not UTF-8"),
        (json.dumps(nbformat.v4.new_notebook()).encode(), "has 0 cells tagged 'parameters'"),
    ],
)
def test_malformed_notebook_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "nb.ipynb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ParameterError, match=message):
        notebooks.parameters(path)


def test_two_parameters_cells_are_refused_and_a_bom_is_read(tmp_path):
    with pytest.raises(ParameterError, match="has 2 cells"):
        notebooks.parameters(cell_file(tmp_path, "x: int = 1", "y: int = 1"))
    path = cell_file(tmp_path, "x: int = 1")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert notebooks.parameters(path)[0].name == "x"


@pytest.mark.parametrize("name", ["00", "00_quickstart", "00_quickstart.ipynb"])
def test_notebook_is_found_by_number_and_stem(name):
    assert notebooks.find_notebook(name).stem == "00_quickstart"


@pytest.mark.parametrize(
    "value",
    ["sk-abcdefghijklmnop1234", "openai:m@https://u:pass@h/v1", ["hf_abcdefghijklmnopqrstuvwx"], "my-secret-01"],
)
def test_a_parameter_that_holds_a_key_is_refused_without_repeating_it(monkeypatch, value):
    monkeypatch.setenv("SOME_API_KEY", "my-secret-01")
    with pytest.raises(ParameterError, match=r"\[name\]: the value holds a key .* OPENAI_API_KEY") as caught:
        check_no_keys({"other": "pairs:a.csv", "name": value})
    assert str(value) not in str(caught.value)
    parameter = notebooks.Parameter("name", "list[str]" if isinstance(value, list) else "str", [], "")
    with pytest.raises(ParameterError, match="holds a key"):
        notebooks.check_values([parameter], {"name": value})
