"""Sweep files: read strictly, expanded in order, checked against the notebook before anything runs."""

from __future__ import annotations

from typing import ClassVar

import pytest

from embedlab.errors import ParameterError
from embedlab.sweeps.conditions import Condition
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10), ("-3", -3), ("0", 0), ("1.5e3", 1500.0), ("true", True), ("null", None),
        *((text, text) for text in ("010", "016", "0012", "-07", "00.5", "1_000", "0x1f", "0o17", "1:30", "1:30.5")),
        *((text, text) for text in ("2020-01-01", "yes", "no", "on", "off", "y", "No")),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2_and_leading_zeros_stay_a_text(tmp_path, text, value):
    read = read_sweep(write(tmp_path, f"notebook: nb\nfixed: {{a: {text}}}\n")).fixed["a"]
    assert read == value and type(read) is type(value)


class TestConditions:
    VALUES: ClassVar = {"epochs": 3.0, "batch_size": 64, "loss": "gist", "dims": [384, 64], "whole_words": True}

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("epochs > 2", True), ("epochs >= 4", False), ("1 < epochs < 4", True), ("epochs == 3", True),
            ("loss == 'gist' and batch_size != 32", True), ("loss in ['infonce', 'gist']", True),
            ("loss not in ('infonce', 'gist')", False), ("not epochs > 2 or batch_size == 64", True),
            ("not (epochs > 2 or batch_size == 64)", False), ("64 in dims", True), ("dims == [384, 64]", True),
            ("whole_words", True), ("whole_words == false", False), ("-epochs < -2", True),
            ("whole_words == true", True),
            ("epochs == +3", True), ("+epochs < 0", False), ("  epochs > 2\n", True), ("3 <= epochs <= 3", True),
            ("1 < epochs < 3", False), ("4 < epochs < 9", False), ("not whole_words", False), ("epochs < 3", False),
            ("loss == 'gist' and epochs > 2 and batch_size == 32", False), ("loss == 'x' or epochs > 3 or true", True),
            ("epochs > 2 or unknown > 1", True),
        ],
    )  # fmt: skip
    def test_compare_parameters_with_literals(self, text, expected):
        assert Condition(text).holds(self.VALUES) is expected

    @pytest.mark.parametrize(
        "text",
        [
            '@pd.io.common.os.system("touch {file}") == 5', '__import__("os").system("touch {file}")',
            'open("{file}", "w")', "loss.__class__", "dims[0] == 384", "(lambda: 1)()", "[x for x in dims]",
            "epochs := 3", "f'{{epochs}}'", "epochs ** 9 > 1", "epochs * 2 > 4", "epochs if 1 else 2", "{{1: 2}}",
            "dims == [*dims]", "epochs > 1; epochs", "batch_size == 64 & epochs > 1", "epochs is 3", "", "epochs >",
            "epochs", "unknown > 1", "loss > 3", "3", "[1]", "not loss", "epochs and loss", "-" * 5_000,
            "(" * 300 + "1" + ")" * 300, "'a' * 10 ** 9 == 1",
        ],
    )  # fmt: skip
    def test_anything_else_is_refused_and_nothing_runs(self, text, tmp_path):
        with pytest.raises(ParameterError, match=r"\[skip\]") as caught:
            Condition(text.format(file=tmp_path / "made")).holds(self.VALUES)
        assert "\n" not in str(caught.value) and not (tmp_path / "made").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("epochs == 3 or " * 70 + "epochs", "the condition has 1056 characters; at most 1000 are allowed"),
            ("epochs >", "this is not a condition"), ("[1]", "this is not a condition"),
            ("epochs is 3", "is is not allowed in a condition"),
            ("loss.name", "attribute is not allowed in a condition"),
            ("unknown > 1", "there is no parameter 'unknown'"),
            ("epochs", "the condition gives 3.0, not true or false"),
            ("loss > 3", "'>' not supported between instances of 'str' and 'int'"),
            ("epochs and true", "3.0 stands where a comparison is expected"),
            ("not loss", "'gist' stands where a comparison is expected"),
        ],
    )  # fmt: skip
    def test_an_error_shows_the_condition_the_reason_and_the_field(self, text, message):
        with pytest.raises(ParameterError) as caught:
            Condition(text).holds(self.VALUES)
        assert f"[skip]: {text[:200]!r}: {message}" in str(caught.value)
        assert "Write a condition on parameters" in str(caught.value)

    def test_the_longest_condition_is_1000_characters(self):
        assert Condition("true" + " " * 996).holds({})
        with pytest.raises(ParameterError, match="1001 characters"):
            Condition("true" + " " * 997)

    def test_skipped_combinations_are_left_out_with_defaults_counted(self):
        fields = {"notebook": "03_contrastive", "grid": {"hard_negatives": [0, 1], "epochs": [1.0, 5.0]}}
        runs = expand(SweepSpec(**fields, skip=["hard_negatives == 0 and epochs > 3", "lora_rank > 0"]))
        assert [(run["hard_negatives"], run["epochs"]) for run in runs] == [(0, 1.0), (1, 1.0), (1, 5.0)]

    def test_an_error_names_the_file(self, tmp_path):
        path = write(tmp_path, "notebook: 03_contrastive\nskip: ['@pd.io == 5']\n")
        with pytest.raises(ParameterError, match=r"sweep.yaml \[skip\]: '@pd.io == 5': this is not a condition"):
            expand(read_sweep(path), path)


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
        ("notebook: nb\nseeds: [-1]\n", r"\[seeds.0\]: Input should be greater than or equal to 0"),
        (f"notebook: nb\nseeds: [{2**70}]\n", r"\[seeds.0\]: Input should be less than 4294967296"),
        ("notebook: nb\nseeds: [010]\n", r"\[seeds.0\]: Input should be a valid integer"),
        ("notebook: nb\nretries: {timeout: -1}\n", r"\[retries.timeout\]"),
        ("notebook: nb\nretries: {timeout: 1000000000}\n", r"\[retries.timeout\].*100"),
        ("notebook: nb\nresources: {mem_gb: .inf}\n", r"\[resources.mem_gb\]"),
        ("stages: [{name: '../a', notebook: nb}]\n", r"\[stages.0.name\]"),
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
        ({"grid": {"seed": [1, 2]}}, r"\[grid.seed\]: seed must not be a parameter of a sweep"),
        ({"search": {"trials": 1, "space": {"seed": {"low": 0, "high": 9}}}}, r"\[search.space.seed\]"),
        ({"grid": {"output_dir": ["a", "b"]}}, r"\[grid.output_dir\].*--output-dir"),
        ({"fixed": {"output_dir": "a"}}, r"\[fixed.output_dir\].*--output-dir"),
        ({"grid": {"epochs": [1.0]}, "list": [{"epochs": 2.0}]}, r"\[list.epochs\]: epochs stands under grid and"),
        ({"fixed": {"epochs": 1.0}, "grid": {"epochs": [2.0]}}, r"\[grid.epochs\]: epochs stands under fixed and"),
        (
            {"fixed": {"epochs": 1.0}, "search": {"trials": 1, "space": {"epochs": {"low": 1.0, "high": 2.0}}}},
            r"\[search.space.epochs\]: epochs stands under fixed and",
        ),
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


MODELS = "notebook: 05_matryoshka\nfixed: {model_name: all-MiniLM-L6-v2, "


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("max_steps: -1", r"sweep\.yaml \[max_steps\]: invalid value -1"),
        ("max_examples: -5", r"\[max_examples\]: invalid value -5"),
        ("dataset: ''", r"\[dataset\]: invalid value ''"),
        (
            "matryoshka_dims: [64, 9999]",
            r"\[matryoshka_dims\]: all-MiniLM-L6-v2 has 384 dimensions, got 9999.*1 to 384",
        ),
        ("matryoshka_dims: [0]", r"\[matryoshka_dims\].*got 0"),
        ("tuned_model: /no/such/model", r"\[tuned_model\]: there is no model folder '/no/such/model'"),
        ("tuned_model: './model?max_seq_length=64'", r"\[tuned_model\]: there is no model folder './model'"),
        ("tuned_model: 'model?max_length=64'", r"\[tuned_model\]: unknown option 'max_length'"),
    ],
)
def test_values_that_no_run_can_have_are_refused_before_the_first(tmp_path, values, message):
    path = write(tmp_path, MODELS + values + "}\n")
    with pytest.raises(ParameterError, match=message):
        expand(read_sweep(path), path)


def test_values_that_a_run_can_have_are_not_refused(tmp_path):
    values = "matryoshka_dims: [384, 1], max_steps: 0, tuned_model: results/runs/03_contrastive-01234567-s0/model"
    for text in (f"{MODELS}{values}}}\n", MODELS + "tuned_model: some-org/some.model}\n"):
        assert len(expand(read_sweep(write(tmp_path, text)))) == 1
