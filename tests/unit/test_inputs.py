"""A run id covers the content of every file and folder that a parameter names, from whatever folder it is called."""

from __future__ import annotations

import os

import pytest

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.runs import execute, inputs, notebooks, records
from embedlab.runs.records import Record
from embedlab.sweeps import planning
from embedlab.sweeps.spec import read_sweep
from tests.faults import tiny

DEFAULTS = """dataset: str = ""  # data
model_name: str = "all-MiniLM-L6-v2"  # a model
other_models: list[str] = []  # more
probes: list[str] = []  # specs
tasks_dir: str = ""  # a folder
kind: str = "chapter"  # a word
seed: int = 0  # of nothing
output_dir: str = ""  # where"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project with a notebook that has all kinds of inputs, a model, tasks and a probe."""
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.delenv("EMBEDLAB_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    tiny.make_project(tmp_path)
    tiny.write_notebook(tmp_path / "notebooks" / "03_inputs.ipynb", tiny.SETUP, DEFAULTS, "pass")
    for name in ("models/a/model.safetensors", "models/a/1_Pooling/config.json", "tasks/stsb/train.csv", "probe.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def run_id(**values) -> str:
    return execute.plan(notebooks.find_notebook("03"), values).run_id


@pytest.mark.parametrize(
    "values, file",
    [
        ({"model_name": "models/a"}, "models/a/model.safetensors"),
        ({"model_name": "models/a"}, "models/a/1_Pooling/config.json"),
        ({"model_name": "models/a?max_seq_length=512"}, "models/a/model.safetensors"),
        ({"other_models": ["hub/name", "models/a"]}, "models/a/model.safetensors"),
        ({"tasks_dir": "tasks"}, "tasks/stsb/train.csv"),
        ({"probes": ["pydocs", "sts:probe.csv"]}, "probe.csv"),
        ({"probes": ["pairs:probe.csv?repair=true"]}, "probe.csv"),
        ({"dataset": "pairs:probe.csv"}, "probe.csv"),
    ],
)
def test_other_content_is_another_run(home, values, file):
    before, content = run_id(**values), (home / file).read_bytes()
    (home / file).write_bytes(b"other")
    changed = run_id(**values)
    (home / file).write_bytes(content)
    assert changed != before == run_id(**values)


def test_a_renamed_or_added_file_is_other_content(home):
    before = run_id(model_name="models/a")
    (home / "models" / "a" / "README.md").write_text("a card is no content")
    (home / "models" / "a" / ".cache").write_text("nor is this")
    assert run_id(model_name="models/a") == before
    (home / "models" / "a" / "vocab.txt").write_text("new")
    assert run_id(model_name="models/a") != before


def test_names_and_words_have_no_content(home):
    """Ids of runs on hub names and packaged models are those of before; a folder called like a word changes nothing."""
    plain = run_id()
    (home / "chapter").mkdir()
    (home / "all-MiniLM-L6-v2").mkdir()
    (home / "all-MiniLM-L6-v2" / "config.json").write_text("{}")
    assert run_id() == plain
    assert inputs.input_digests({"model_name": "org/name", "kind": "chapter", "other": "data\0"}) == {}
    assert inputs.input_digests({"records_dir": "results", "x": ".", "y": "results/runs"}) == {}  # the runs are in them
    (home / "model").mkdir()
    (home / "model" / "config.json").write_text("{}")
    assert list(inputs.input_digests({"model_name": "model"})) == ["model"]


def test_a_file_without_a_slash_needs_an_ending_and_a_folder_a_model(home):
    """Words such as "notes" and "chapter?" stay words, whatever lies in the project folder."""
    (home / "notes").write_text("a file without an ending")
    (home / "chapter").mkdir()
    values = {"a": "notes", "b": "probe.csv", "c": "chapter?x=1", "d": "models/a?x=1", "records_file": "notes"}
    assert list(inputs.named_paths(values)) == [
        ("b", "probe.csv", home / "probe.csv"),
        ("d", "models/a?x=1", home / "models" / "a"),
        ("records_file", "notes", home / "notes"),
    ]


def test_a_question_mark_in_a_file_name_and_compressed_files(home, monkeypatch):
    (home / "what?.csv").write_text("query,positive\na,b\n")
    (home / "sub").mkdir()
    (home / "sub" / "packed.csv.gz").write_bytes(b"")
    monkeypatch.chdir(home / "sub")
    assert list(inputs.input_digests({"probes": "pairs:what?.csv"})) == ["pairs:what?.csv"]
    assert inputs.from_current_folder("dataset", "pairs:what?.csv") == "pairs:what?.csv"
    assert inputs.from_current_folder("dataset", "pairs:packed.csv?x=1") == "pairs:sub/packed.csv?x=1"
    assert inputs.from_current_folder("kind", "a\0b") == "a\0b"


def test_the_same_size_and_time_but_other_content(home, monkeypatch):
    """The kept hash of a large file is used as long as nothing about the file changes, dates set by hand included."""
    monkeypatch.setattr(inputs, "LARGE_BYTES", 1)
    monkeypatch.setattr(inputs, "SETTLED_NS", -(10**12))
    file = home / "models" / "a" / "model.safetensors"
    before, status = run_id(model_name="models/a"), file.stat()
    read = []
    monkeypatch.setattr(inputs, "sha256_of", lambda path: read.append(path.name) or path.name)
    assert run_id(model_name="models/a") == before and read == []  # known
    file.write_bytes(b"x" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run_id(model_name="models/a") != before and read == ["model.safetensors"]
    (home / ".cache" / "content-hashes.json").write_text("{")
    assert run_id(model_name="models/a") != before  # a damaged cache costs time only


def test_a_loop_of_links_ends(home):
    (home / "models" / "a" / "again").symlink_to(home / "models")
    assert inputs.input_digests({"model_name": "models/a"})


def test_a_folder_of_data_behind_a_link_keeps_its_name_in_the_project(home, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    (elsewhere / "mine.csv").write_text("query,positive")
    (home / "data").symlink_to(elsewhere)
    (elsewhere / "home").symlink_to(home)
    assert inputs.from_current_folder("dataset", "pairs:data/mine.csv") == "pairs:data/mine.csv"
    assert inputs.from_current_folder("dataset", f"pairs:{elsewhere}/mine.csv") == f"pairs:{elsewhere}/mine.csv"
    assert inputs.from_current_folder("dataset", f"pairs:{elsewhere}/home/probe.csv") == "pairs:probe.csv"


def test_an_unreadable_file_is_named(home, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(inputs, "sha256_of", refuse)
    with pytest.raises(ParameterError, match=r"config.json \[model_name\]: cannot be read \(Permission denied\)"):
        inputs.input_digests({"model_name": "models/a"})


def test_relative_absolute_and_from_a_subfolder_are_one_run(home, monkeypatch, tmp_path_factory):
    (home / "work ü").mkdir()
    data = home / "work ü" / "my pairs (1).csv"
    data.write_text("query,positive\na,b\n")
    values = {"dataset": f"pairs:{data}", "model_name": str(home / "models" / "a"), "probes": [f"pairs:{data}?x=1"]}
    absolute = {name: inputs.from_current_folder(name, value) for name, value in values.items()}
    assert absolute["dataset"] == "pairs:work ü/my pairs (1).csv" and absolute["model_name"] == "models/a"
    expected = run_id(**absolute)
    monkeypatch.chdir(home / "work ü")
    values = {
        "dataset": "pairs:my pairs (1).csv",
        "model_name": "../models/a",
        "probes": ["pairs:my pairs (1).csv?x=1"],
    }
    relative = {name: inputs.from_current_folder(name, value) for name, value in values.items()}
    assert relative == absolute and run_id(**relative) == expected
    assert inputs.from_current_folder("model_name", "models/a") == "models/a"  # as seen from the project
    outside = tmp_path_factory.mktemp("outside")
    (outside / "x.csv").write_text("query,positive\na,b\n")
    monkeypatch.chdir(outside)
    assert inputs.from_current_folder("dataset", "pairs:x.csv") == f"pairs:{outside / 'x.csv'}"
    (outside / "all-MiniLM-L6-v2").mkdir()
    (outside / "chapter").mkdir()
    for name, value in (("model_name", "all-MiniLM-L6-v2"), ("kind", "chapter"), ("dataset", "icd10cm:mini")):
        assert inputs.from_current_folder(name, value) == value


def test_a_missing_dataset_names_the_places_tried(home, monkeypatch):
    (home / "sub").mkdir()
    monkeypatch.chdir(home / "sub")
    with pytest.raises(ParameterError) as caught:
        inputs.from_current_folder("dataset", "pairs:typo.csv?repair=true")
    assert f"there is no {home}/sub/typo.csv and no {home}/typo.csv" in str(caught.value)


@pytest.mark.parametrize(
    "source, kept, used",
    [
        ("results/runs/01_tiny-01234567-s0/model", {}, True),  # older than digests: the id of the run stands for it
        ("models/a", {}, False),
        ("models/a", {"models/a": "same"}, True),
        ("models/a", {"models/a": "0" * 16}, False),
    ],
)
def test_a_record_of_older_code_counts_if_it_read_the_same_files(home, source, kept, used):
    weights = home / source / "weights.txt"
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_text("1")
    digest = inputs.input_digests({"source": source})[source]
    record = Record(
        run_id="07_later-aaaaaaaa-s0",
        notebook="07_later",
        parameters={"source": source, "factor": 1.0, "seed": 0},
        inputs={text: digest if value == "same" else value for text, value in kept.items()},
        metrics=[],
    )
    records.commit(record, paths.runs_dir() / record.run_id)
    path = tiny.write_sweep(home, notebook="02_later", fixed={"source": source})
    (item,) = planning.all_planned(read_sweep(path), path)
    assert (item.record is not None) is used


def test_a_record_without_inputs_is_written_as_before():
    plain = Record(run_id="a", notebook="a", parameters={}, metrics=[])
    assert "inputs" not in plain.content() and "inputs" in plain.model_copy(update={"inputs": {"a": "b"}}).content()


def test_the_name_of_a_recipe_stands_for_its_file(home):
    recipe = home / "experiments" / "arena" / "recipes" / "stock_mined.py"
    recipe.parent.mkdir(parents=True)
    recipe.write_text('"""A."""')
    before = inputs.input_digests({"recipes": ["stock-mined", "unknown"]})
    recipe.write_text('"""B."""')
    after = inputs.input_digests({"recipes": ["stock-mined", "unknown"]})
    assert before.keys() == after.keys() == {"stock-mined"} and before != after
    assert not inputs.input_digests({"kind": "stock-mined"})
