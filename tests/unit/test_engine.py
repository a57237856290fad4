"""Engine parameters: what a person may write, where it arrives, and what it does to a training."""

from __future__ import annotations

import pytest

from embedlab import paths
from embedlab.engine import EngineParams
from embedlab.errors import ParameterError
from embedlab.params import TrainingParams
from embedlab.runs import notebooks
from embedlab.runs.run import compute_run_id
from embedlab.sweeps.spec import SweepSpec, expand, varying

NOTEBOOK = paths.notebooks_dir() / "03_contrastive.ipynb"
WITH_ENGINE = sorted(paths.notebooks_dir().glob("0[3-8]*.ipynb"))
GROUP = [notebooks.Parameter("engine", "dict", {}, "")]
COMMON = {"dataset": "icd10cm:smoke", "model_name": "all-MiniLM-L6-v2"}


class TestWhatAPersonWrites:
    @pytest.mark.parametrize(
        "entry, message",
        [
            ({"precisoin": "bf16"}, r"\[engine.precisoin\]: there is no .* Did you mean 'engine.precision'\?"),
            ({"precision": "bf61"}, r"\[engine.precision\]: invalid value 'bf61'.*'fp32', 'bf16', 'fp16' or 'tf32'"),
            ({"gradient_accumulation": 0}, r"\[engine.gradient_accumulation\]: invalid value 0"),
            ({"gradient_accumulation": 2.0}, r"\[engine.gradient_accumulation\]"),
            ({"gradient_checkpointing": "yes"}, r"\[engine.gradient_checkpointing\]: invalid value 'yes'"),
            ({"max_seq_length": -1}, r"\[engine.max_seq_length\]: invalid value -1"),
            ({"warmup": 1.0}, r"\[engine.warmup\]: invalid value 1.0.* less than 1"),
            ({"schedule": "exponential"}, r"\[engine.schedule\]: invalid value 'exponential'"),
            ({"weight_decay": float("nan")}, r"\[engine.weight_decay\]"),
            ({"workers": True}, r"\[engine.workers\]"),
            ({"gpus": -1}, r"\[engine.gpus\]"),
            ({"processes": "two"}, r"\[engine.processes\]"),
            ({"query_prompt": "sk-abcdefghijklmnop1234"}, r"\[engine.query_prompt\]: the value holds a key"),
        ],
    )
    def test_a_wrong_entry_is_one_line(self, entry, message):
        with pytest.raises(ParameterError, match=message) as caught:
            EngineParams.checked(entry)
        assert "\n" not in str(caught.value)
        with pytest.raises(ParameterError, match=message):
            TrainingParams.checked({**COMMON, "engine": entry})
        with pytest.raises(ParameterError, match=message):
            notebooks.resolved(GROUP, {"engine": entry})

    @pytest.mark.parametrize(
        "name, text, value",
        [
            ("precision", "bf16", "bf16"),
            ("gradient_accumulation", "4", 4),
            ("gradient_checkpointing", "true", True),
            ("query_prompt", "7", "7"),
            ("query_prompt", "", ""),
            ("warmup", "0.2", 0.2),
            ("weight_decay", "0", 0.0),
            ("compile", "False", False),
            ("checkpoint_minutes", "1e-3", 1e-3),
        ],
    )
    def test_one_entry_on_the_command_line(self, name, text, value):
        values = notebooks.parse_values(GROUP, {f"engine.{name}": text})
        assert values == {f"engine.{name}": value} and type(values[f"engine.{name}"]) is type(value)
        group = notebooks.resolved(GROUP, values)["engine"]
        assert group == ({} if value == EngineParams.model_fields[name].default else {name: value})
        assert TrainingParams.checked({**COMMON, "engine": group}).engine == EngineParams(**{name: value})

    def test_every_entry_can_be_given(self):
        examples = {"precision": "bf16", "schedule": "cosine", "report_to": "tensorboard"}
        for name, field in EngineParams.model_fields.items():
            text = examples.get(name, "true" if isinstance(field.default, bool) else "0")
            if name in ("gradient_accumulation",):
                text = "2"
            values = notebooks.parse_values(GROUP, {f"engine.{name}": text})
            notebooks.check_values(GROUP, values)

    def test_unknown_names_on_the_command_line(self):
        with pytest.raises(ParameterError, match="Did you mean 'engine.warmup'"):
            notebooks.parse_values(GROUP, {"engine.warm_up": "0.1"})
        with pytest.raises(ParameterError, match=r"there is no parameter 'engin.warmup'"):
            notebooks.parse_values(GROUP, {"engin.warmup": "0.1"})
        with pytest.raises(ParameterError, match="there is no parameter 'engine'"):
            notebooks.parse_values([], {"engine.warmup": "0.1"})
        with pytest.raises(ParameterError, match=r"\[engine.workers\]: invalid value 'two'"):
            notebooks.resolved(GROUP, notebooks.parse_values(GROUP, {"engine.workers": "two"}))

    def test_the_whole_group_as_json_and_single_entries_on_top(self):
        values = notebooks.parse_values(GROUP, {"engine": '{"workers": 1, "warmup": 0.2}', "engine.workers": "2"})
        assert notebooks.resolved(GROUP, values)["engine"] == {"warmup": 0.2, "workers": 2}
        with pytest.raises(ParameterError, match=r"\[engine\]: must be dict"):
            notebooks.parse_values(GROUP, {"engine": "bf16"})


class TestRunId:
    values = notebooks.resolved(notebooks.parameters(NOTEBOOK), {"dataset": "icd10cm:smoke"})

    def of(self, **engine):
        return compute_run_id(NOTEBOOK, {**self.values, "engine": engine})

    def test_defaults_and_neutral_entries_do_not_count(self):
        without = compute_run_id(NOTEBOOK, {name: value for name, value in self.values.items() if name != "engine"})
        assert self.of() == self.of(precision="fp32", warmup=0.1) == without
        assert self.of(workers=2, report_to="tensorboard", checkpoint_minutes=1.0) == without

    def test_everything_else_counts(self):
        ids = {self.of(), self.of(precision="bf16"), self.of(warmup=0.2), self.of(gpus=2), self.of(processes=2)}
        assert len(ids) == 5


class TestSweep:
    def spec(self, **parts):
        return SweepSpec(notebook="03_contrastive", **parts)

    def test_a_mapping_and_dotted_axes_are_merged(self):
        spec = self.spec(
            fixed={"engine": {"precision": "bf16"}},
            grid={"engine.warmup": [0.0, 0.1]},
            list=[{}, {"engine": {"workers": 1}}],
        )
        runs = expand(spec)
        assert [run["engine"] for run in runs] == [
            {"precision": "bf16", "warmup": 0.0},
            {"precision": "bf16", "warmup": 0.0, "workers": 1},
            {"precision": "bf16", "warmup": 0.1},
            {"precision": "bf16", "warmup": 0.1, "workers": 1},
        ]
        assert varying(runs) == ["engine.warmup", "engine.workers"]

    @pytest.mark.parametrize(
        "parts, message",
        [
            ({"grid": {"engine.precision": ["bf16", "bf61"]}}, r"a.yaml \[engine.precision\]: invalid value 'bf61'"),
            ({"fixed": {"engine": {"warm": 0.1}}}, r"\[engine.warm\].*Did you mean 'engine.warmup'"),
            (
                {"fixed": {"engine": {"warmup": 0.1}}, "grid": {"engine.warmup": [0.2]}},
                "engine.warmup stands under fixed and under grid",
            ),
        ],
    )
    def test_mistakes_are_found_before_the_first_run(self, parts, message):
        with pytest.raises(ParameterError, match=message):
            expand(self.spec(**parts), paths.sweeps_dir() / "a.yaml")


@pytest.mark.parametrize("path", WITH_ENGINE, ids=lambda path: path.stem)
def test_every_training_notebook_has_the_group(path):
    values = notebooks.resolved(notebooks.parameters(path), {"engine.precision": "bf16"})
    assert values["engine"] == {"precision": "bf16"}
