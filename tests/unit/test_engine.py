"""Engine parameters: what a person may write, where it arrives, and what it does to a training."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import math
import os
import sys
import types
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from torch._dynamo.utils import counters
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from embedlab import paths, progress, training
from embedlab.data.dataset import Dataset, GradedPair
from embedlab.engine import EngineParams
from embedlab.errors import ModelError, ParameterError
from embedlab.models.cross_encoder import cross_encoder_from
from embedlab.models.encode import encode
from embedlab.models.late_interaction import late_interaction_from
from embedlab.models.load import load_model
from embedlab.models.lora import add_lora
from embedlab.models.packing import pack
from embedlab.models.prompts import prompts_of
from embedlab.models.sparse import sparse_from
from embedlab.models.static import static_student
from embedlab.params import TrainingParams
from embedlab.runs import limits, notebooks
from embedlab.runs.run import compute_run_id, start_run
from embedlab.sweeps.spec import SweepSpec, expand, varying
from embedlab.training import checkpoints, truncated
from embedlab.training import engine as engine_module
from embedlab.training.batches import TokenisedCollator
from embedlab.training.contrastive.graded import train_graded
from embedlab.training.contrastive.matryoshka_2d import train_matryoshka
from embedlab.training.contrastive.static import train_static
from embedlab.training.contrastive.static_model import train_static_model
from embedlab.training.contrastive.train import ContrastiveParams, train_contrastive
from embedlab.training.distillation.cross_encoder import distil_scores, train_cross_encoder
from embedlab.training.distillation.embeddings import PromptedTexts, distil
from embedlab.training.distillation.languages import Translations, distil_translations
from embedlab.training.distillation.query_encoder import train_query_encoder
from embedlab.training.distillation.students import (
    distil_dimensions,
    distil_layers,
    distil_static,
    fine_tune_static,
)
from embedlab.training.engine import engaged, prepare, require_usable, tracked, trainer_arguments
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings, fit, training_arguments
from embedlab.training.late_interaction.train import train_late_interaction
from embedlab.training.losses import ContrastiveLoss
from embedlab.training.multitask import train as multitask
from embedlab.training.multitask.train import train_multitask
from embedlab.training.pretraining.objectives import DomainTexts, PretrainSettings
from embedlab.training.pretraining.train import pretrain
from embedlab.training.sparse.train import train_sparse
from embedlab.training.trainer import TRAINERS
from tests.conftest import TEXTS, tiny_model
from tests.unit.test_contrastive import ROWS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))


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


class Captured(Exception):
    """Ends a training before its first step."""


def captured(monkeypatch) -> list:
    """Stop every training at its start; the list receives its Trainer."""
    trainers: list = []

    def capture(trainer, **options):
        trainers.append(trainer)
        raise Captured

    for kind in TRAINERS.values():
        monkeypatch.setattr(kind, "train", capture)
    return trainers


DATA = Dataset(
    name="tiny",
    corpus={f"d{i}": text for i, text in enumerate(TEXTS)},
    queries={"a": "joint pain", "b": "lung infection"},
    qrels={"train": {"a": {"d0": 1.0}, "b": {"d3": 1.0}}},
)
PAIRS = [(row[0], row[1]) for row in ROWS]
TEACHER = np.eye(32, dtype=np.float32)[: len(TEXTS)]
LISTS = number_rows(ROWS)


class Constant(BaseEvaluator):
    """A dev value that never changes."""

    def __init__(self):
        super().__init__()
        self.primary_metric = "ndcg@10"

    def __call__(self, model, *arguments, **options):
        return {"ndcg@10": 1.0}


def objective(settings, model):
    prepare(model, settings.engine)
    return {"retrieval": multitask.retrieval(model, PAIRS)}


def static_of(model):
    return static_student(model, TEXTS)


# Every public function of the package that takes training settings, and how to call it: settings, a fresh model and
# options -> the training starts. Functions of the training loop itself are in LOOP.
LOOP = {
    "dev.dev_size",
    "fit.training_arguments",
    "fit.total_steps",
    "fit.batches_per_epoch",
    "fit.steps_per_epoch",
    "pretraining.objectives.make_task",
}
TECHNIQUES = {
    "fit.fit": lambda s, m, o: fit(m, LISTS.dataset, ContrastiveLoss(m), s, **o),
    "contrastive.train.train_contrastive": lambda s, m, o: train_contrastive(m, LISTS, s, **o),
    "contrastive.graded.train_graded": lambda s, m, o: train_graded(m, [GradedPair(*PAIRS[0], 1.0)] * 4, s, **o),
    "contrastive.matryoshka_2d.train_matryoshka": lambda s, m, o: train_matryoshka(
        m, LISTS, s, layers=[2, 1], dims=[32, 16], **o
    ),
    "contrastive.static.train_static": lambda s, m, o: train_static(static_of(m), LISTS, TEXTS, s, **o),
    "contrastive.static_model.train_static_model": lambda s, m, o: train_static_model(m, DATA, s, **o),
    "pretraining.train.pretrain": lambda s, m, o: pretrain(
        m, DomainTexts(TEXTS, [], []), PretrainSettings("mlm", fit=s), cache=Path(o["output_dir"])
    ),
    "distillation.embeddings.distil": lambda s, m, o: distil(
        m, TEXTS, TEACHER, s, collator=PromptedTexts(prepared(m, s), TEXTS), **o
    ),
    "distillation.languages.distil_translations": lambda s, m, o: distil_translations(
        m, Translations(TEXTS, TEXTS, list(range(len(TEXTS)))), TEACHER, s, **o
    ),
    "distillation.students.distil_layers": lambda s, m, o: distil_layers(m, 1, TEXTS, TEACHER, s, **o),
    "distillation.students.distil_dimensions": lambda s, m, o: distil_dimensions(m, 4, TEXTS, TEACHER, s, **o),
    "distillation.students.distil_static": lambda s, m, o: distil_static(m, TEXTS, TEACHER, s, **o),
    "distillation.students.fine_tune_static": lambda s, m, o: fine_tune_static(
        static_of(m), DATA, s, random_negatives=2, evaluator=Constant(), **o
    ),
    "distillation.cross_encoder.distil_scores": lambda s, m, o: distil_scores(
        m, LISTS, np.zeros((len(ROWS), 2), np.float32), s, **o
    ),
    "distillation.cross_encoder.train_cross_encoder": lambda s, m, o: train_cross_encoder(
        cross_encoder_from(m), ROWS, s, **o
    ),
    "distillation.query_encoder.train_query_encoder": lambda s, m, o: train_query_encoder(
        static_of(m), number_rows([(TEXTS[0], TEXTS[1])] * 4), TEXTS, TEACHER, s, random_negatives=2, **o
    ),
    "sparse.train.train_sparse": lambda s, m, o: train_sparse(sparse_from(m, TEXTS).model, LISTS, s, **o),
    "late_interaction.train.train_late_interaction": lambda s, m, o: train_late_interaction(
        late_interaction_from(m, TEXTS, dim=8), LISTS, s, **o
    ),
    "multitask.train.train_multitask": lambda s, m, o: train_multitask(m, objective(s, m), s, **o),
}
STATIC = {name for name in TECHNIQUES if "static" in name or "query_encoder" in name}
EVERYTHING = EngineParams(
    precision="bf16",
    gradient_accumulation=2,
    gradient_checkpointing=True,
    max_seq_length=9,
    query_prompt="query: ",
    document_prompt="text: ",
    warmup=0.25,
    schedule="cosine",
    weight_decay=0.123,
    compile=True,
    report_to="tensorboard",
)


def prepared(model, settings):
    prepare(model, settings.engine)
    return model


def settings_parameters() -> dict[str, list[str]]:
    """Every public function under `embedlab.training` that takes training settings -> their parameters."""
    functions = {}
    for file in sorted(Path(training.__file__).parent.rglob("*.py")):
        stem = ".".join(file.relative_to(Path(training.__file__).parent).with_suffix("").parts)
        module = importlib.import_module(f"embedlab.training.{stem}".removesuffix(".__init__"))
        for function in vars(module).values():
            if inspect.isfunction(function) and function.__module__ == module.__name__ and function.__name__[0] != "_":
                kinds = {parameter: str(kind) for parameter, kind in function.__annotations__.items()}
                if names := [
                    parameter for parameter, kind in kinds.items() if kind in ("FitSettings", "PretrainSettings")
                ]:
                    functions[f"{stem}.{function.__name__}"] = names
    return functions


class TestEveryTechnique:
    def test_all_are_listed(self):
        """A new technique must be added to TECHNIQUES, so that it is checked below."""
        assert settings_parameters().keys() == TECHNIQUES.keys() | LOOP

    @pytest.mark.parametrize("name", TECHNIQUES)
    def test_gets_every_parameter(self, name, monkeypatch, tmp_path):
        trainers = captured(monkeypatch)
        monkeypatch.setattr(engine_module, "installed", lambda package: True)
        monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", TrainerCallback)
        engaged_with = []
        monkeypatch.setattr("embedlab.training.trainer.engaged", lambda m, e: engaged_with.append(e) or nullcontext())
        settings = FitSettings(steps=4, batch_size=2, weight_decay=0.0, engine=EVERYTHING)
        with pytest.raises(Captured):
            TECHNIQUES[name](settings, pack(tiny_model()), {"output_dir": str(tmp_path)})
        (trainer,), (engine,) = trainers, engaged_with
        arguments = trainer.args
        assert arguments.gradient_accumulation_steps == 2 and arguments.warmup_steps == 0.25
        assert arguments.lr_scheduler_type == "cosine" and arguments.report_to == ["tensorboard"]
        is_static = name in STATIC
        assert arguments.bf16 is not is_static and arguments.weight_decay == (0.0 if is_static else 0.123)
        assert (engine.precision, engine.compile, engine.gradient_checkpointing) == (
            ("fp32", False, False) if is_static else ("bf16", True, True)
        )
        if not is_static:
            assert trainer.model.max_seq_length == 9
        if not is_static and not name.endswith("train_cross_encoder"):
            assert trainer.model.prompts["query"] == "query: " and trainer.model.prompts["document"] == "text: "

    @pytest.mark.parametrize("name", TECHNIQUES)
    def test_defaults_are_the_arguments_of_before(self, name, monkeypatch, tmp_path):
        """By hand: what the Trainer got before there were engine parameters."""
        trainers = captured(monkeypatch)
        settings = FitSettings(steps=4, batch_size=2, learning_rate=1e-3, weight_decay=0.0, seed=3)
        with pytest.raises(Captured):
            TECHNIQUES[name](settings, pack(tiny_model()), {"output_dir": str(tmp_path)})
        (trainer,) = trainers
        changed = {
            field.name: getattr(trainer.args, field.name)
            for field in dataclasses.fields(trainer.args)
            if field.init and getattr(trainer.args, field.name) != getattr(type(trainer.args)("x"), field.name)
        }
        expected = {
            "max_steps": 4,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 0.1,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "save_strategy": "no",
            "save_total_limit": 2,
            "seed": 3,
            "dataloader_pin_memory": False,
        }
        free = {"learning_rate_mapping", "output_dir", "batch_sampler", "eval_strategy", "eval_steps"}
        free |= {"multi_dataset_batch_sampler", "run_name", "do_eval"}
        assert {key: value for key, value in changed.items() if key not in free} == expected
        assert "forward" not in trainer.model.__dict__ and "forward" not in trainer.model[0].__dict__


def trained(folder, model=None, *, batch_size=3, steps=4, train=train_contrastive, **engine):
    """Train a tiny model: its weights in one row, and the losses of its steps."""
    model = pack(tiny_model()) if model is None else model
    settings = FitSettings(steps=steps, batch_size=batch_size, learning_rate=1e-3, engine=EngineParams(**engine))
    result = train(model, LISTS, settings, output_dir=str(folder))
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return weights, [row["loss"] for row in result.history if "loss" in row]


class TestEffects:
    def test_bf16_computes_coarsely_and_keeps_float32_weights(self, tmp_path):
        plain, losses = trained(tmp_path)
        model = pack(tiny_model())
        coarse, coarse_losses = trained(tmp_path, model, precision="bf16")
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert losses != coarse_losses and np.allclose(losses, coarse_losses, atol=0.02)
        assert 0 < (plain - coarse).abs().max() < 0.005
        assert "forward" not in model.__dict__ and "forward" not in model[0].__dict__
        repeated, _ = trained(tmp_path)
        assert torch.equal(plain, repeated)  # nothing is left of it

    @pytest.mark.parametrize("objective_name", ["mlm", "tsdae", "simcse"])
    def test_bf16_reaches_losses_that_call_the_transformer_themselves(self, objective_name, tmp_path):
        types = []
        model = pack(tiny_model())
        model[0].model.encoder.layer[0].intermediate.dense.register_forward_hook(
            lambda *call: types.append(call[-1].dtype)
        )
        fit_settings = FitSettings(steps=1, batch_size=4, engine=EngineParams(precision="bf16"))
        pretrain(
            model, DomainTexts(TEXTS, TEXTS[:2], []), PretrainSettings(objective_name, fit_settings), cache=tmp_path
        )
        assert torch.bfloat16 in types
        assert set(types) <= {torch.bfloat16, torch.float32}

    def test_dev_values_are_measured_in_float32(self, tmp_path):
        model, vectors = pack(tiny_model()), []

        class Dev(Constant):
            def __call__(self, model, *a, **k):
                vectors.append(encode(model, TEXTS))
                reference = pack(tiny_model())
                reference.load_state_dict(model.state_dict())
                assert np.array_equal(encode(reference, TEXTS), vectors[-1])
                return {"ndcg@10": 1.0}

        settings = FitSettings(steps=2, batch_size=3, evaluations=2, engine=EngineParams(precision="bf16"))
        train_contrastive(model, LISTS, settings, evaluator=Dev(), output_dir=str(tmp_path))
        assert len(vectors) == 3

    @pytest.mark.parametrize("packed", [True, False])
    @pytest.mark.parametrize("kind", ["bert", "mpnet", "qwen3"])
    def test_checkpointing_computes_twice_and_changes_no_gradient(self, kind, packed, tmp_path):
        """With dropout: the second computation draws the same numbers."""
        results = []
        for checkpointing in (False, True):
            model = tiny_model(kind)
            model = pack(model) if packed else model
            calls = count_linear_calls(model)
            weights, losses = trained(tmp_path, model, steps=2, gradient_checkpointing=checkpointing)
            assert not model[0].model.is_activation_checkpointing
            assert not [module for module in model.modules() if "forward" in module.__dict__]
            results.append((weights, losses, len(calls)))
        (plain, losses, calls), (again, losses_again, calls_again) = results
        assert calls_again > 1.5 * calls
        assert losses == losses_again and (plain - again).abs().max() <= 1e-6

    def test_checkpointing_with_layers_read_by_the_loss_and_with_adapters(self, tmp_path):
        def layered(model, rows, settings, output_dir):
            return train_matryoshka(model, rows, settings, layers=[2, 1], dims=[32, 8], output_dir=output_dir)

        plain, recomputed = (trained(tmp_path, train=layered, gradient_checkpointing=on)[0] for on in (False, True))
        assert (plain - recomputed).abs().max() <= 1e-6
        adapted = []
        for on in (False, True):
            model = pack(tiny_model())
            add_lora(model, 4, seed=0)
            adapted.append(trained(tmp_path, model, gradient_checkpointing=on)[0])
        assert (adapted[0] - adapted[1]).abs().max() <= 1e-6

    def test_checkpointing_where_it_cannot_be_is_refused(self, tmp_path, monkeypatch):
        model = pack(tiny_model())
        monkeypatch.setattr(type(model[0].model), "supports_gradient_checkpointing", False)
        monkeypatch.setattr("embedlab.models.layers.LISTS", ("no such list",))
        with pytest.raises(ModelError, match=r"\[engine.gradient_checkpointing\]: BertModel cannot compute"):
            trained(tmp_path, model, gradient_checkpointing=True)

    @pytest.mark.parametrize("accumulation", [1, 2, 3])
    def test_accumulation_is_the_mean_gradient_of_its_batches(self, accumulation, tmp_path, monkeypatch):
        """Against a slow loop: 7 rows in batches of 2 are 4 batches an epoch; negatives are per batch."""
        batches, call = [], TokenisedCollator.__call__
        monkeypatch.setattr(TokenisedCollator, "__call__", lambda self, rows: batches.append(rows) or call(self, rows))
        shape = {"batch_size": 2, "steps": 6, "gradient_accumulation": accumulation}
        weights, losses = trained(tmp_path, without_dropout(), **shape)
        epochs = [batches[start : start + 4] for start in range(0, len(batches), 4)]
        steps = [epoch[start : start + accumulation] for epoch in epochs for start in range(0, 4, accumulation)]
        expected, expected_losses = slow_loop(steps[:6])
        assert np.allclose(losses, expected_losses, atol=1e-5)
        assert (weights - expected).abs().max() < 1e-4  # Adam turns rounding into steps where gradients are tiny

    def test_epochs_count_steps_of_several_batches(self, monkeypatch, tmp_path):
        """7 rows in batches of 2 are 4 batches: 2 steps of 2 batches an epoch, or 2 of 3."""
        for accumulation, steps in ((1, 8), (2, 4), (3, 4), (4, 2), (5, 2)):
            settings = FitSettings(epochs=2, batch_size=2, engine=EngineParams(gradient_accumulation=accumulation))
            assert training_arguments(settings, 7, False, str(tmp_path)).max_steps == steps

    def test_small_data_gets_more_epochs_and_a_number_of_steps_is_exact(self, tmp_path):
        for values, steps in (({"min_steps": 5}, 8), ({"min_steps": 20}, 20), ({"min_steps": 20, "max_steps": 3}, 3)):
            settings = FitSettings(epochs=2, batch_size=2, **values)
            assert training_arguments(settings, 7, False, str(tmp_path)).max_steps == steps

    @pytest.mark.parametrize(
        "schedule, expected",
        [
            ("constant", [1, 1, 1, 1, 1, 1]),
            ("linear", [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
            ("cosine", [0.5 * (1 + math.cos(math.pi * i / 6)) for i in range(6)]),
        ],
    )
    def test_learning_rate_by_hand(self, schedule, expected, tmp_path):
        """Two of eight steps are warm-up: their rates are 0 and a half of the peak."""
        engine = EngineParams(warmup=0.25, schedule=schedule)
        settings = FitSettings(steps=8, batch_size=3, learning_rate=1e-3, engine=engine)
        result = train_contrastive(pack(tiny_model()), LISTS, settings, output_dir=str(tmp_path))
        rates = [row["learning_rate"] / 1e-3 for row in result.history if "learning_rate" in row]
        assert np.allclose(rates, [0, 0.5, *expected], atol=1e-6)

    def test_workers_change_no_bit(self, tmp_path):
        assert torch.equal(trained(tmp_path)[0], trained(tmp_path, workers=2)[0])

    def test_batches_that_depend_on_the_step_are_made_in_place(self, tmp_path, caplog):
        model = pack(tiny_model())
        fit_settings = FitSettings(steps=2, batch_size=4, engine=EngineParams(workers=2))
        pretrain(model, DomainTexts(TEXTS, [], []), PretrainSettings("mlm", fit_settings), cache=tmp_path)
        assert "engine.workers is left out" in caplog.text

    def test_limit_and_prompts_are_used_and_saved(self, tmp_path):
        model, lengths = pack(tiny_model()), []
        model[0].register_forward_pre_hook(lambda module, call: lengths.append(int(call[0]["max_length_q"])))
        trained(tmp_path, model, steps=2, max_seq_length=9, query_prompt="query: ", document_prompt="")
        assert max(lengths) == 9
        model.save_pretrained(str(tmp_path / "model"))
        loaded = load_model(str(tmp_path / "model"))
        assert loaded.max_seq_length == 9 and prompts_of(loaded) == ("query: ", None)

    def test_a_limit_beyond_the_positions_is_refused(self, tmp_path):
        with pytest.raises(ModelError, match="max_seq_length is 513, but 'the model' has positions for 512"):
            trained(tmp_path, max_seq_length=513)

    def test_batches_made_before_the_limit_was_set_are_refused(self, tmp_path):
        model = pack(tiny_model())
        collator = TokenisedCollator(model, LISTS.texts, LISTS.columns)
        for engine, message in (
            (EngineParams(max_seq_length=9), r"\[engine.max_seq_length\]: the texts were tokenised with .* 64"),
            (EngineParams(query_prompt="q: "), r"\[engine.query_prompt\]: the texts .* '', but the engine has 'q: '"),
        ):
            settings = FitSettings(steps=1, batch_size=3, engine=engine)
            with pytest.raises(ParameterError, match=message):
                fit(model, LISTS.dataset, ContrastiveLoss(model), settings, collator=collator, output_dir=str(tmp_path))

    def test_compilation_covers_the_network_and_ends_with_the_training(self, tmp_path, monkeypatch):
        """With a backend that only traces: the real one takes a minute."""
        compile_with, network = torch.compile, (model := tiny_model())[0].model
        traces = partial(compile_with, backend="eager")
        monkeypatch.setattr(torch, "compile", lambda forward, dynamic: traces(forward, dynamic=dynamic))
        counters.clear()
        compiled, losses = trained(tmp_path, model, steps=2, compile=True)
        assert counters["stats"]["unique_graphs"] > 0 and "forward" not in network.__dict__
        plain, losses_plain = trained(tmp_path, tiny_model(), steps=2)
        assert np.allclose(losses, losses_plain, atol=1e-5) and (compiled - plain).abs().max() < 1e-5

    def test_static_models_say_what_does_not_apply(self, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr(engine_module, "_notices_shown", set())
        TECHNIQUES["contrastive.static.train_static"](
            FitSettings(steps=1, batch_size=2, weight_decay=0.0, engine=EngineParams(precision="bf16", workers=0)),
            tiny_model(),
            {"output_dir": str(tmp_path)},
        )
        assert "engine.precision does not apply to static models" in caplog.text


class TestMachine:
    def test_fp16_needs_a_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ParameterError, match=r"\[engine.precision\]: fp16 needs a CUDA GPU"):
            require_usable(EngineParams(precision="fp16"))

    def test_fp16_scales_the_loss_on_a_gpu(self):
        assert trainer_arguments(EngineParams(precision="fp16"))["fp16"] is True

    def test_tf32_is_said_to_have_no_effect_on_a_cpu(self, monkeypatch, caplog, tmp_path):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(engine_module, "_notices_shown", set())
        plain, _ = trained(tmp_path)
        assert torch.equal(plain, trained(tmp_path, precision="tf32")[0])
        assert caplog.text.count("tf32 has no effect here") == 1

    def test_tf32_is_switched_on_for_the_training_only(self, monkeypatch):
        monkeypatch.setattr(engine_module, "_has_tf32", lambda: True)
        allowed = torch.backends.cuda.matmul.allow_tf32
        with engaged(tiny_model(), EngineParams(precision="tf32")):
            assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32 is allowed

    @pytest.mark.parametrize(
        "report_to, message",
        [
            ("wandb", "wandb is not installed. Install it: pip install wandb"),
            ("tensorboard, mlflow", "tensorboard is not installed"),
            ("excel", "there is no tracker 'excel'. Choose none or clearml"),
        ],
    )
    def test_trackers(self, report_to, message, monkeypatch):
        monkeypatch.setattr(engine_module, "installed", lambda package: False)
        with pytest.raises(ParameterError, match=message):
            require_usable(EngineParams(report_to=report_to))

    def test_compilation_needs_a_compiler_on_a_cpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr("shutil.which", lambda name: None)
        with pytest.raises(ParameterError, match=r"\[engine.compile\]: torch.compile needs a C\+\+ compiler"):
            require_usable(EngineParams(compile=True))


def count_linear_calls(model) -> list[int]:
    """Return a list that grows with every forward pass of a linear layer."""
    calls: list[int] = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *call: calls.append(1))
    return calls


def without_dropout():
    model = pack(tiny_model())
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model[0].model.config.attention_probs_dropout_prob = 0.0
    return model


def slow_loop(steps):
    """AdamW on the mean of the gradients of several batches, written out: weights and losses."""
    model = without_dropout()
    loss_of = ContrastiveLoss(model, judged=LISTS.judged)
    collator = TokenisedCollator(model, LISTS.texts, LISTS.columns)
    decayed = [p for name, p in model.named_parameters() if not ("bias" in name or "LayerNorm" in name)]
    others = [p for name, p in model.named_parameters() if "bias" in name or "LayerNorm" in name]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=1e-3)
    losses, warm = [], math.ceil(0.1 * len(steps))
    model.train()
    for step, batches in enumerate(steps):
        share = step / warm if step < warm else (len(steps) - step) / (len(steps) - warm)
        for group in adam.param_groups:
            group["lr"] = 1e-3 * share
        values = []
        for batch in batches:
            features = collator(batch)
            columns = [
                {key.removeprefix(f"{name}_"): value for key, value in features.items() if key.startswith(f"{name}_")}
                for name in LISTS.columns
            ]
            loss = loss_of(columns, features["label"])
            (loss / len(batches)).backward()
            values.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        losses.append(float(np.mean(values)))
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), losses


class TestDocs:
    def test_the_table_lists_every_parameter_with_its_default(self):
        text = (paths.project_root() / "docs" / "engine.md").read_text(encoding="utf-8").partition("## What")[0]
        rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| `")]
        table = {name.strip(" `"): default.strip(" `") for name, _, default in rows}
        assert table == {
            name: str(field.default).replace("False", "false") for name, field in EngineParams.model_fields.items()
        }

    def test_tensorboard_files_stay_after_the_training(self, monkeypatch):
        monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
        with tracked(EngineParams(report_to="tensorboard"), "train-1"):
            assert os.environ["TENSORBOARD_LOGGING_DIR"].endswith("results/tensorboard/train-1")
        assert "TENSORBOARD_LOGGING_DIR" not in os.environ


TRACKED = number_rows([(f"patient xqz9 {i}", text) for i, text in enumerate(TEXTS)])


class TestTrackers:
    """Nothing leaves this machine unless the environment says so, and no training text reaches a tracker."""

    @pytest.fixture(autouse=True)
    def home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
        for variable in {name for values in engine_module.LOCAL.values() for name in values}:
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(engine_module, "_create_mlflow_store", lambda folder: None)
        return tmp_path

    @pytest.mark.parametrize(
        ("tracker", "variable", "value"),
        [
            ("tensorboard", "TENSORBOARD_LOGGING_DIR", "HOME/results/tensorboard/train-1"),
            ("mlflow", "MLFLOW_TRACKING_URI", "sqlite:///HOME/results/mlflow/mlflow.db"),
            ("mlflow", "MLFLOW_DISABLE_TELEMETRY", "true"),
            ("trackio", "TRACKIO_DIR", "HOME/results/trackio"),
            ("wandb", "WANDB_MODE", "offline"),
            ("wandb", "WANDB_DIR", "HOME/results/wandb"),
            ("wandb", "WANDB_CONSOLE", "off"),
        ],
    )
    def test_it_stays_on_this_machine(self, home, monkeypatch, tracker, variable, value):
        with tracked(EngineParams(report_to=f"{tracker}, codecarbon"), "train-1"):
            assert os.environ[variable] == value.replace("HOME", str(home))
            assert (home / "results" / tracker).is_dir()
        assert variable not in os.environ
        monkeypatch.setenv(variable, "mine")
        with tracked(EngineParams(report_to=tracker), "train-1"):
            assert os.environ[variable] == "mine"
        assert os.environ[variable] == "mine"

    def test_off_by_default(self, home):
        before = dict(os.environ)
        with tracked(EngineParams(), "train-1"):
            assert dict(os.environ) == before
        assert not (home / "results").exists()

    def test_every_training_is_a_run_of_its_own_in_wandb(self, monkeypatch):
        wandb = types.SimpleNamespace(run=None)
        monkeypatch.setitem(sys.modules, "wandb", wandb)
        ended = []

        def begin(name):
            wandb.run = types.SimpleNamespace(finish=lambda: (ended.append(name), setattr(wandb, "run", None)))

        for name in ("first", "second"):
            with pytest.raises(KeyboardInterrupt), tracked(EngineParams(report_to="wandb"), name):
                begin(name)
                raise KeyboardInterrupt
        begin("of the notebook")
        with tracked(EngineParams(report_to="wandb"), "third"):
            pass
        assert ended == ["first", "second"]

    @pytest.mark.parametrize("tracker", ["tensorboard", "mlflow", "trackio", "wandb"])
    def test_a_tracker_gets_losses_and_no_texts(self, home, monkeypatch, tracker):
        """The Trainer's callback of the tracker is replaced by one that keeps everything it is given."""
        received: list[str] = []

        class Keep(TrainerCallback):
            def on_train_begin(self, args, state, control, **kwargs):
                received.append(args.to_json_string())

            def on_log(self, args, state, control, logs=None, **kwargs):
                received.append(json.dumps(logs))

        monkeypatch.setitem(INTEGRATION_TO_CALLBACK, tracker, Keep)
        monkeypatch.setattr(engine_module, "installed", lambda package: True)
        monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
        settings = FitSettings(steps=2, batch_size=4, engine=EngineParams(report_to=tracker))
        train_contrastive(pack(tiny_model(layers=1)), TRACKED, settings, output_dir=str(home / "scratch"))
        everything = " ".join(received)
        assert '"loss"' in everything and '"max_steps": 2' in everything
        assert "xqz9" not in everything and "hf_xxx" not in everything

    @pytest.mark.skipif(not engine_module.installed("tensorboard"), reason="tensorboard is not installed")
    def test_tensorboard_itself(self, home):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        settings = FitSettings(steps=2, batch_size=4, engine=EngineParams(report_to="tensorboard"))
        train_contrastive(pack(tiny_model(layers=1)), TRACKED, settings, output_dir=str(home / "scratch"))
        (folder,) = (home / "results" / "tensorboard").iterdir()
        events = EventAccumulator(str(folder)).Reload()
        assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
        assert not any(b"xqz9" in file.read_bytes() for file in folder.iterdir())

    @pytest.mark.skipif(not engine_module.installed("mlflow"), reason="mlflow is not installed")
    def test_mlflow_itself(self, home, monkeypatch):
        import sqlite3

        monkeypatch.undo()
        monkeypatch.setenv("EMBEDLAB_HOME", str(home))
        settings = FitSettings(steps=2, batch_size=4, engine=EngineParams(report_to="mlflow"))
        for seed in (0, 1):
            train_contrastive(
                pack(tiny_model(layers=1)), TRACKED, replace(settings, seed=seed), output_dir=str(home / "scratch")
            )
        database = sqlite3.connect(home / "results" / "mlflow" / "mlflow.db")
        assert [status for (status,) in database.execute("select status from runs")] == ["FINISHED"] * 2
        assert database.execute("select count(*) from metrics where key = 'loss'").fetchone() == (4,)


class TestTruncation:
    """By hand: of seven texts, those with more than seven tokens, special ones included, are truncated."""

    limit = 8

    def expected(self, texts) -> int:
        tokenizer = tiny_model().tokenizer
        return sum(len(tokenizer(text)["input_ids"]) > self.limit for text in texts)

    def training(self, name, folder) -> dict:
        settings = FitSettings(steps=1, batch_size=2, engine=EngineParams(max_seq_length=self.limit))
        truncated.take_counts()
        TECHNIQUES[name](settings, pack(tiny_model()), {"output_dir": str(folder)})
        return truncated.take_counts()

    @pytest.mark.parametrize(
        "name, stage, texts",
        [
            ("contrastive.train.train_contrastive", "train", LISTS.texts),
            ("pretraining.train.pretrain", "pretrain", TEXTS),
            ("distillation.students.distil_layers", "distil", TEXTS),
            ("multitask.train.train_multitask", "train", list(dict.fromkeys(text for pair in PAIRS for text in pair))),
        ],
    )
    def test_share_is_logged_and_kept_for_the_record(self, name, stage, texts, tmp_path, caplog):
        count = self.expected(texts)
        assert 0 < count < len(texts)
        share = round(count / len(texts), 4)
        assert self.training(name, tmp_path)[stage] == {
            "texts": len(texts),
            "truncated": count,
            "share": share,
            "limit": self.limit,
        }
        assert f"{stage}: {count} of {len(texts)} training texts" in caplog.text

    def test_a_cross_encoder_reads_pairs(self, tmp_path):
        tokenizer = tiny_model().tokenizer
        pairs = [(row[0], document) for row in ROWS[1:] for document in row[1:]]  # the first row is held out
        count = sum(len(tokenizer(*pair)["input_ids"]) > self.limit for pair in pairs)
        count_kept = self.training("distillation.cross_encoder.train_cross_encoder", tmp_path)["train cross-encoder"]
        assert (count_kept["texts"], count_kept["truncated"]) == (len(pairs), count)

    def test_static_models_have_no_limit(self, tmp_path):
        assert self.training("contrastive.static.train_static", tmp_path) == {}


class TestTimeLimit:
    @pytest.mark.parametrize("minutes, seconds", [(60, 3540), (4, 180), (1, 45)])
    def test_time_limit_asks_a_training_to_stop_shortly_before(self, minutes, seconds, monkeypatch):
        """A minute before, or a quarter of a short limit; once."""
        clock, requests = [1000.0], []
        monkeypatch.setattr(limits.time, "monotonic", lambda: clock[0])
        guard = limits.Guard("a", None, limits.Limits(wall_min=minutes), lambda: False, lambda: requests.append(1))
        for passed, count in ((seconds - 1, 0), (seconds + 1, 1), (60 * minutes - 1, 1)):
            clock[0] = 1000.0 + passed
            assert guard.reason_to_end() == "" and len(requests) == count
        clock[0] = 1000.0 + 60 * minutes + 1
        assert guard.reason_to_end() == "timeout"

    def test_no_time_limit_asks_nothing(self):
        guard = limits.Guard("a", None, limits.Limits(), lambda: False, lambda: pytest.fail("asked"))
        assert guard.reason_to_end() == ""

    def test_a_request_is_a_file_beside_the_progress_file(self, tmp_path, monkeypatch):
        monkeypatch.setattr(progress, "STOP_EVERY_S", 0.0)
        monkeypatch.delenv(progress.ENVIRONMENT_NAME, raising=False)
        assert not progress.stop_requested()
        monkeypatch.setenv(progress.ENVIRONMENT_NAME, str(tmp_path / "progress.jsonl"))
        assert not progress.stop_requested()
        (tmp_path / progress.STOP).touch()
        assert progress.stop_requested()


def test_a_run_that_this_machine_cannot_do_ends_at_its_start(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    chosen = {"engine.precision": "fp16", "output_dir": str(tmp_path)}
    params = ContrastiveParams.checked(notebooks.resolved(notebooks.parameters(NOTEBOOK), chosen))
    with pytest.raises(ParameterError, match=r"\[engine.precision\]: fp16 needs a CUDA GPU"):
        start_run("03_contrastive", params)
    assert not list(tmp_path.iterdir())


def test_a_record_holds_the_entries_that_differ(tmp_path):
    params = TrainingParams.checked({**COMMON, "engine": {"precision": "bf16", "warmup": 0.1}})
    assert params.all_values()["engine"] == params.set_values()["engine"] == {"precision": "bf16"}
    assert "engine" not in TrainingParams.checked(COMMON).set_values()


def test_batches_of_steps_by_hand():
    """Three batches an epoch in steps of two: steps use 2, 3, 5, 6 batches so far."""
    assert [checkpoints.batches_seen(step, 2, range(3)) for step in range(5)] == [0, 2, 3, 5, 6]
    assert checkpoints.batches_seen(7, 1, None) == 7
