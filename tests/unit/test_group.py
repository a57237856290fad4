"""Two processes train what one trains: the same losses and weights for every technique, through real groups (gloo)."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

from embedlab import progress
from embedlab.data.dataset import GradedPair
from embedlab.engine import EngineParams
from embedlab.errors import EmbedlabError, ParameterError
from embedlab.models.cross_encoder import cross_encoder_from
from embedlab.models.lora import add_lora
from embedlab.models.packing import pack
from embedlab.models.static import static_student
from embedlab.models.tokens import to_features, token_ids
from embedlab.runs.causes import KERNEL_DIED, OUT_OF_MEMORY, cause_of
from embedlab.runs.execute import Plan, perform
from embedlab.runs.limits import Limits
from embedlab.training import group, launch
from embedlab.training.batches import TokenisedCollator
from embedlab.training.contrastive.graded import train_graded
from embedlab.training.contrastive.matryoshka_2d import train_matryoshka
from embedlab.training.contrastive.static import train_static
from embedlab.training.contrastive.train import as_guide, train_contrastive
from embedlab.training.distillation.cross_encoder import train_cross_encoder
from embedlab.training.distillation.embeddings import distil
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings, fit, training_arguments
from embedlab.training.losses import ContrastiveLoss
from embedlab.training.multitask import train as multitask
from embedlab.training.pretraining.objectives import DomainTexts, PretrainSettings, make_task
from embedlab.training.trainer import on_one_gpu
from tests.conftest import TEXTS, tiny_model
from tests.unit.test_contrastive import ROWS
from tests.unit.test_packing import without_dropout

CPU = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
TWO = EngineParams(processes=2)
# 7 rows in batches of 3: a batch has an odd number of texts, and the last one has a single row.
SETTINGS = FitSettings(steps=6, batch_size=3, learning_rate=1e-3, engine=EngineParams(checkpoint_minutes=0))
NUMBERED = number_rows([*ROWS[:6], (ROWS[0][0], TEXTS[3], TEXTS[2])])  # two positives of one query


@pytest.fixture(autouse=True, scope="module")
def models():
    MODELS.update({seed: tiny_model(seed=seed) for seed in (0, 1)} | {DECODER: tiny_model("qwen3")})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checkpoints"


DECODER = 2
MODELS = {}  # seed -> model; made before a group starts, in which only the first process writes model files


def base(seed=0):
    """A fresh copy."""
    return copy.deepcopy(MODELS[seed])


def student(packed=True):
    model = without_dropout(base())
    return pack(model) if packed else model


def contrastive(folder, packed=True, model=None, settings=SETTINGS, **options):
    model = model or student(packed)
    return model, train_contrastive(model, NUMBERED, settings, dims=(32, 8), output_dir=folder, **options)


def with_lora(folder):
    model = student()
    add_lora(model, 4, seed=0)
    return contrastive(folder, model=model)


def renewed(folder):
    """New negatives depend on the model, before every epoch."""
    model = student()

    def renew():
        best = torch.as_tensor(model.encode(TEXTS)).sum(dim=1).argmax()
        rows = zip(NUMBERED.dataset["query"], NUMBERED.dataset["positive"], strict=True)
        return [(query, positive, TEXTS[int(best)]) for query, positive in rows]

    return contrastive(folder, model=model, renew=renew)


def graded(folder, loss):
    model = student()
    pairs = [GradedPair(query, text, number / 7) for number, (query, text, _) in enumerate(ROWS)]
    return model, train_graded(model, pairs, SETTINGS, loss=loss, output_dir=folder)


def layers(folder):
    model = student()
    if group.size() > 1:
        _CAN_RECORD_REGISTRY[model[0].model] = model[0].model._can_record_outputs  # as `Training.run_and_report` does
    return model, train_matryoshka(model, NUMBERED, SETTINGS, layers=(2, 1), dims=(32, 8), output_dir=folder)


def static(folder):
    model = static_student(base(), TEXTS)
    return model, train_static(model, NUMBERED, TEXTS, SETTINGS, random_negatives=3, output_dir=folder)


def distilled(folder, packed=True):
    model, teacher = student(packed), base(seed=1).encode(TEXTS)
    collator = TokenisedCollator(model, TEXTS, ["text"])
    return model, distil(model, TEXTS, teacher, SETTINGS, collator=collator, output_dir=folder)


def several_tasks(folder):
    model = student()
    objectives = {
        "retrieval": multitask.retrieval(model, [row[:2] for row in ROWS]),
        "anchor": multitask.anchor(model, TEXTS, base(seed=1).encode(TEXTS)),
    }
    return model, multitask.train_multitask(model, objectives, SETTINGS, output_dir=folder)


def pretrained(folder, objective, packed=True, seed=0):
    """The head's weights count too; its own dropout is off."""
    model = without_dropout(base(seed))
    model = pack(model) if packed else model
    task = make_task(model, DomainTexts(TEXTS, TEXTS[:2], []), PretrainSettings(objective, fit=SETTINGS))
    without_dropout(task.loss)
    rates = {r"^(?!model\.)": 1e-2}
    result = fit(model, task.rows, task.loss, SETTINGS, collator=task.collator, rates=rates, output_dir=folder)
    return task.loss, result


TRAININGS = {
    "infonce": contrastive,
    "padded": partial(contrastive, packed=False),
    "no duplicates": partial(contrastive, settings=replace(SETTINGS, no_duplicates=True)),
    "symmetric": partial(contrastive, loss="symmetric"),
    "cached": partial(contrastive, loss="cached"),
    "gist": lambda folder: contrastive(folder, loss="gist", guide=as_guide(base(seed=1), NUMBERED.texts)),
    "triplet": partial(contrastive, loss="triplet"),
    "lora": with_lora,
    "renewed": renewed,
    "cosine": partial(graded, loss="cosine"),
    "cosent": partial(graded, loss="cosent"),
    "2D Matryoshka": layers,
    "static": static,
    "distilled": distilled,
    "distilled, padded": partial(distilled, packed=False),
    "several tasks": several_tasks,
    "mlm": partial(pretrained, objective="mlm"),
    "mlm, padded": partial(pretrained, objective="mlm", packed=False),
    "causal": partial(pretrained, objective="causal", seed=DECODER),
    "tsdae": partial(pretrained, objective="tsdae"),
}


# Their true gradient is zero, and Adam turns the rounding of zero into steps of full size.
NOT_LEARNED = re.compile(r"key\.bias|multihead_attn\.in_proj")


def outcome(name, folder):
    trained, result = TRAININGS[name](folder)
    losses = [row["loss"] for row in result.history if "loss" in row]
    learned = [value.flatten().double() for key, value in trained.state_dict().items() if not NOT_LEARNED.search(key)]
    return losses, torch.cat(learned), result.steps


def all_outcomes(folder, models):
    """Train everything in a process of a group. Without dropout, what a process draws at random does not show."""
    MODELS.update(models)
    outcomes = {name: outcome(name, f"{folder}/{group.rank()}") for name in TRAININGS}
    return {**outcomes, "with dev": with_dev(Path(folder))}


@pytest.fixture(scope="module")
def of_two(models, tmp_path_factory):
    """Everything that two processes train, in one group."""
    caches = [{**CPU, "EMBEDLAB_CACHE": str(tmp_path_factory.mktemp("cache"))} for _ in range(2)]  # a folder has a lock
    return launch.in_group(partial(all_outcomes, str(tmp_path_factory.mktemp("two")), MODELS), caches)


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_train_what_one_does(name, of_two, tmp_path):
    (losses, weights, steps), (of_one, expected, steps_of_one) = of_two[name], outcome(name, str(tmp_path))
    assert steps == steps_of_one == len(losses) == 6
    assert losses == pytest.approx(of_one, rel=1e-5, abs=1e-12)
    assert float((weights - expected).norm()) <= 1e-5 * float(expected.norm())


# The whole way: `fit` starts the group, and the driver has its result.


class Rising(BaseEvaluator):
    """Writes who evaluates; dev is best after the first third, so those weights must come back."""

    def __init__(self, log):
        super().__init__()
        self.primary_metric, self.log = "ndcg@10", log

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        with open(self.log, "a") as file:
            file.write(f"{os.getppid()} {group.rank()} {steps}\n")
        return {"ndcg@10": 1.0 if steps == 2 else 0.5}


class Deadly(TokenisedCollator):
    """The second process kills itself when it prepares the batch of step 5, if a file says so."""

    def __call__(self, rows):
        self.calls = getattr(self, "calls", 0) + 1
        if group.rank() == 1 and self.calls == 5 and (signs := Path(os.environ.get("DEADLY", ""))).is_file():
            signs.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(rows)

    def training_state(self, step):
        return {"calls": step}

    def restore_training_state(self, state):
        self.calls = state["calls"]


def with_dev(tmp_path, **engine):
    """Train with dropout and dev."""
    model = pack(base())
    settings = replace(SETTINGS, evaluations=3, engine=EngineParams(**{"checkpoint_minutes": 0, **engine}))
    collator = Deadly(model, NUMBERED.texts, NUMBERED.columns)
    loss = ContrastiveLoss(model, judged=NUMBERED.judged)
    evaluator = Rising(str(tmp_path / "evaluations"))
    result = fit(
        model, NUMBERED.dataset, loss, settings, collator=collator, evaluator=evaluator, output_dir=str(tmp_path)
    )
    return model.state_dict(), result


def test_a_group_that_lost_a_process_ends_and_continues_with_the_same_bits(of_two, tmp_path, monkeypatch, cache):
    """The reference has never stopped."""
    train = partial(with_dev, tmp_path, processes=2, checkpoint_minutes=1e-9)  # a checkpoint after every step
    monkeypatch.setenv("DEADLY", str(tmp_path / "deadly"))
    monkeypatch.setenv(progress.ENVIRONMENT_NAME, str(tmp_path / "reports"))
    (tmp_path / "deadly").touch()
    with pytest.raises(EmbedlabError, match=r"process 1 of 2 of this training was killed \(SIGKILL\)") as error:
        train()
    assert "\n" not in str(error.value)
    assert not [child for child in psutil.Process().children() if "embedlab.training.worker" in child.cmdline()]
    assert list(cache.glob("*/checkpoint-*/process-1/rng_state.pth"))
    (resumed, result), (weights, expected) = train(), of_two["with dev"]
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())
    assert (result.steps, result.best_step, result.best_dev) == (6, 2, 1.0)
    values = [[(row["step"], row.get("loss"), row.get("dev")) for row in r.history] for r in (result, expected)]
    assert values[0] == values[1]
    assert not list(cache.glob("*/checkpoint-*"))
    evaluations = [line.split() for line in (tmp_path / "evaluations").read_text().splitlines()]
    assert evaluations == [[str(os.getpid()), "0", step] for step in "0246"]  # once, by the first of our processes
    steps = [json.loads(line)["step"] for line in (tmp_path / "reports").read_text().splitlines()]
    assert set(steps) == set(range(7))
    assert len(steps) <= 11  # 7 steps, 3 of them with dev; the step of the kill may come twice


DRIVER = """
import os, time
from pathlib import Path
from embedlab.errors import ParameterError
from embedlab.training import group, launch

def wait_for_the_second():
    Path(str(group.rank())).write_text(str(os.getpid()))
    if group.rank():
        {second}
    group.wait()

launch.in_group(wait_for_the_second, [{{"CUDA_VISIBLE_DEVICES": ""}}] * 2)
"""


def driver(tmp_path, second):
    """A script that starts a group of two, with a function of its own, whose second process does something else."""
    command = [sys.executable, "-c", DRIVER.format(second=second)]
    return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)


def test_the_first_error_ends_the_group(tmp_path):
    process = driver(tmp_path, 'raise ParameterError("this is wrong", remedy="Choose another", field="x", line=3)')
    errors = process.communicate(timeout=120)[1]
    assert "ParameterError: :3 [x]: this is wrong. Choose another.\nIn process 1 of 2 of this training:" in errors
    assert "wait_for_the_second" in errors
    assert "Connection" not in errors  # what the first process says


def test_processes_end_with_a_killed_driver(tmp_path):
    process = driver(tmp_path, "time.sleep(600)")
    members = [psutil.Process(until_number(tmp_path / rank)) for rank in "01"]
    process.kill()
    process.wait()
    assert psutil.wait_procs(members, timeout=20)[1] == []


def until_number(path):
    """Wait until a file holds a number."""
    deadline = time.monotonic() + 120
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(path.read_text())


# What needs no second process.


def in_turn(monkeypatch, size, features):
    """The share of each process."""
    shares = []
    monkeypatch.setattr(group, "size", lambda: size)
    for rank in range(size):
        monkeypatch.setattr(group, "rank", lambda rank=rank: rank)
        shares.append((group.share_of(features), group.share_of(features).texts))
    return shares


@pytest.mark.parametrize("kind", ["packed", "padded", "static"])
@pytest.mark.parametrize("size", [2, 3, 9])
def test_the_shares_of_all_processes_are_the_batch(kind, size, monkeypatch):
    """Each share encodes to its part of the batch; with nine processes for seven texts, some have none."""
    model = {"packed": partial(pack, base()), "padded": base, "static": lambda: static_student(base(), TEXTS)}[kind]()
    model.eval()
    features = to_features(model, token_ids(model, TEXTS))
    whole = model(dict(features))["sentence_embedding"]
    shares = in_turn(monkeypatch, size, features)
    assert [place for _, texts in shares for place in range(texts.start, texts.stop)] == list(range(len(TEXTS)))
    for share, texts in shares:
        part = model(dict(share.features))["sentence_embedding"][: texts.stop - texts.start]
        assert torch.allclose(part, whole[texts], atol=1e-6)


def test_packed_shares_have_about_the_same_number_of_tokens(monkeypatch):
    """By hand: 10 + 1 + 1 tokens against 4 + 4 + 4; an equal number of texts would give 12 against 12 only by luck."""
    ends = torch.tensor([0, 10, 11, 12, 16, 20, 24])
    tokens = torch.arange(24)[None]
    features = {
        "input_ids": tokens,
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": 10,
        "seq_idx": tokens,
    }
    shares = in_turn(monkeypatch, 3, features)
    assert [(texts.start, texts.stop) for _, texts in shares] == [(0, 1), (1, 4), (4, 6)]
    assert shares[1][0].features["cu_seq_lens_q"].tolist() == [0, 1, 2, 6]
    assert shares[1][0].features["max_length_q"] == 4
    assert shares[1][0].features["input_ids"].tolist() == [list(range(10, 16))]


def test_outside_of_a_group_nothing_is_shared(tiny):
    tiny.eval()
    features = tiny.preprocess(TEXTS)
    expected = tiny(dict(features))["sentence_embedding"]
    with group.sharing(tiny):
        assert torch.equal(tiny(dict(features))["sentence_embedding"], expected)
    assert (group.size(), group.rank()) == (1, 0)


def test_no_data_parallel_on_a_machine_with_several_gpus(tmp_path, monkeypatch):
    """transformers would wrap the model: without our limit, `n_gpu` is 2 here and batches double."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    arguments = training_arguments(SETTINGS, 7, False, str(tmp_path))
    assert arguments.n_gpu == 2  # the planted machine
    assert (on_one_gpu(arguments).n_gpu, arguments.train_batch_size) == (1, 3)

    class Wrapped(torch.nn.DataParallel):
        def __init__(self, model):
            raise AssertionError("wrapped")

    monkeypatch.setattr(torch.nn, "DataParallel", Wrapped)
    assert contrastive(str(tmp_path))[1].steps == 6


def test_a_start_under_torchrun_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ParameterError, match=r"\[engine.processes\].*torchrun.*engine.gpus=2"):
        contrastive(str(tmp_path))
    with pytest.raises(ParameterError, match="torchrun"):  # before the notebook starts
        perform(Plan(tmp_path / "x.ipynb", {}, "x", tmp_path / "run"))


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"gpus": 2}, r"\[engine.gpus\].* sees 0 GPUs, got engine.gpus=2"),
        ({"gpus": 2, "processes": 3}, r"\[engine.processes\]"),
    ],
)
def test_what_a_group_cannot_do_is_refused(engine, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        contrastive(str(tmp_path), settings=replace(SETTINGS, engine=EngineParams(**engine)))


def test_a_cross_encoder_trains_in_one_process(tmp_path):
    with pytest.raises(ParameterError, match="the training of a CrossEncoder runs in one process, got 2"):
        train_cross_encoder(cross_encoder_from(base()), ROWS, replace(SETTINGS, engine=TWO), output_dir=str(tmp_path))


def test_each_process_gets_one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5,6")
    assert launch.environments(EngineParams(gpus=2)) == [{"CUDA_VISIBLE_DEVICES": name} for name in ("4", "GPU-5")]
    assert launch.environments(EngineParams(gpus=1)) == launch.environments(EngineParams()) == []


@pytest.mark.parametrize(
    ("visible", "gpus", "values", "expected"),
    [
        ("4,5,6", None, {}, "4"),  # a run that does not ask sees one of them
        ("4,5,6", None, {"engine": {"gpus": 2}}, "4,5"),
        ("4,5,6", None, {"engine": {"gpus": 9}}, "4,5,6"),  # the training says that there are too few
        ("4,5,6", "6", {"engine": {"gpus": 2}}, "6"),  # reserved by the sweep
        ("", None, {"engine": {}}, None),
    ],
)
def test_a_run_sees_as_many_gpus_as_it_asks_for(visible, gpus, values, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Limits(gpus=gpus).environment(values).get("CUDA_VISIBLE_DEVICES") == expected


def test_a_killed_process_is_an_interruption_that_a_sweep_repeats():
    error = "code cell 7: fit\nEmbedlabError: process 1 of 2 of this training was killed (SIGKILL). Run it again."
    assert cause_of(error, "") == KERNEL_DIED
    assert cause_of(error, "", system_ran_out=True) == OUT_OF_MEMORY


def test_what_cannot_be_sent_is_refused(tmp_path):
    lock = threading.Lock()
    with pytest.raises(ParameterError, match="cannot be sent"):
        launch.in_group(lambda: lock, [CPU] * 2)
