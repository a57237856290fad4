"""Sweep files: read strictly, expanded in order, checked against the notebook before anything runs."""

from __future__ import annotations

import pytest

from embedlab.errors import ParameterError
from embedlab.sweeps.spec import SweepSpec, expand, find_sweep, read_sweep, varying


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "sweep.yaml"
    path.write_bytes(text.encode(encoding))
    return path


def test_floats_ints_and_text_are_what_they_look_like(tmp_path):
    spec = read_sweep(
        write(tmp_path, "notebook: nb\nfixed: {a: 1e-5, b: 5, c: 1.0, d: text, e: 2E+3, f: '1e-5', g: true}\n")
    )
    assert spec.fixed == {"a": 1e-5, "b": 5, "c": 1.0, "d": "text", "e": 2000.0, "f": "1e-5", "g": True}
    assert [type(value) for value in spec.fixed.values()] == [float, int, float, str, float, str, bool]


def test_grid_list_and_seeds_multiply_with_seeds_fastest():
    spec = SweepSpec(
        notebook="03_contrastive",
        fixed={"dataset": "icd10cm:smoke"},
        grid={"learning_rate": [1e-4, 2e-4]},
        list=[{}, {"epochs": 1}],
        seeds=[0, 1],
    )
    runs = expand(spec)
    assert len(runs) == spec.size() == 8
    assert runs[0] == {"dataset": "icd10cm:smoke", "learning_rate": 1e-4, "seed": 0}
    assert [run["seed"] for run in runs[:4]] == [0, 1, 0, 1]
    assert runs[2]["epochs"] == 1
    assert varying(runs) == ["learning_rate", "epochs"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("notebook: [", "sweep.yaml:1"),
        ("notebook: nb\n\tgrid: {}\n", "sweep.yaml:2"),
        ("notebook: nb\nnotebook: other\n", "sweep.yaml:2: 'notebook' appears twice"),
        ("notebook: nb\nfixed: &a {x: 1}\ngrid: *a\n", "sweep.yaml:3: aliases are not allowed"),
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("grid: {}\n", r"\[notebook\]: Field required"),
        ("notebook: nb\ngird: {}\n", r"\[gird\]: Extra inputs"),
        ("notebook: nb\nseeds: [a]\n", r"\[seeds.0\]"),
        ("notebook: nb\nseeds: 3\n", r"\[seeds\]"),
        ("notebook: nb\nseeds: [true]\n", r"\[seeds.0\]"),
    ],
)
def test_malformed_file_is_one_clear_line(tmp_path, text, message):
    with pytest.raises(ParameterError, match=message) as caught:
        read_sweep(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_bom_and_windows_line_ends_are_read_and_utf16_refused(tmp_path):
    assert read_sweep(write(tmp_path, "\ufeffnotebook: nb\r\nseeds: [1]\r\n")).seeds == [1]
    with pytest.raises(ParameterError, match="is not UTF-8"):
        read_sweep(write(tmp_path, "notebook: nb", "utf-16"))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"grid": {"learning_rate": []}}, "the sweep has 0 runs"),
        ({"grid": {"seed": list(range(10**4)), "epochs": list(range(10**3))}}, "10,000,000 runs"),
        ({"grid": {"seed": [1, 2]}}, "must not be a parameter of a sweep"),
        ({"grid": {"learnin_rate": [1e-4]}}, "Did you mean 'learning_rate'"),
        ({"fixed": {"batch_size": True}}, r"\[batch_size\]: must be int, got True"),
        ({"fixed": {"batch_size": "64"}}, r"must be int, got '64'"),
        ({"fixed": {"matryoshka_dims": [64, 1.5]}}, r"must be list\[int\]"),
        ({"notebook": "11_unknown"}, "there is no notebook '11_unknown'"),
    ],
)
def test_runs_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ParameterError, match=message):
        expand(SweepSpec(**{"notebook": "03_contrastive", **fields}))


def test_unknown_sweep_names_the_known_ones():
    with pytest.raises(ParameterError, match="there is no sweep 'nope'"):
        find_sweep("nope")
