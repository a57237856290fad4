"""A training that is killed at any step and started again ends with the same bits as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from sentence_transformers.base.evaluation import BaseEvaluator

from embedlab import progress
from embedlab.engine import EngineParams
from embedlab.errors import StoppedAtCheckpoint
from embedlab.models.cross_encoder import cross_encoder_from
from embedlab.models.lora import add_lora
from embedlab.models.packing import pack
from embedlab.training import checkpoints, finished
from embedlab.training.batches import TokenisedCollator
from embedlab.training.checkpoints import STATE_FILE
from embedlab.training.contrastive.static import train_static
from embedlab.training.contrastive.train import as_guide, train_contrastive
from embedlab.training.distillation.cross_encoder import train_cross_encoder
from embedlab.training.distillation.embeddings import distil
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from embedlab.training.multitask import train as multitask
from tests.conftest import TEXTS, tiny_model
from tests.unit.test_contrastive import ROWS

ALWAYS = EngineParams(checkpoint_minutes=1e-9)  # a checkpoint after every step
SETTINGS = FitSettings(steps=6, batch_size=3, learning_rate=1e-3, engine=ALWAYS, evaluations=3)
NUMBERED = number_rows(ROWS)  # 7 rows, 3 steps an epoch


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checkpoints"


def contrastive(folder, settings=SETTINGS, model=None, **options):
    model = model or pack(tiny_model())
    return model, train_contrastive(model, NUMBERED, settings, output_dir=folder, **options)


class Falling(BaseEvaluator):
    """Falls with the distance from the untrained weights, but rates them worst: dev is best after the first steps."""

    def __init__(self):
        super().__init__()
        self.primary_metric = "ndcg@10"

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        start = tiny_model().state_dict()
        moved = sum(float((value - start[name]).abs().sum()) for name, value in model.state_dict().items())
        return {"ndcg@10": 1 / (1 + moved) if moved else 0.0}


def with_dev(folder):
    """The best weights are those of step 2, before the second kill: they must come back."""
    model, result = contrastive(folder, evaluator=Falling())
    assert result.best_step == 2
    return model, result


def with_lora(folder):
    model = pack(tiny_model())
    add_lora(model, 4, seed=0)
    return contrastive(folder, model=model)


def with_renewed_rows(folder, accumulation=1):
    """New negatives depend on the model, before every epoch."""
    model = pack(tiny_model())

    def renew():
        best = torch.as_tensor(model.encode(TEXTS)).sum(dim=1).argmax()
        return [(query, positive, TEXTS[int(best)]) for query, positive, _ in ROWS]

    engine = ALWAYS.model_copy(update={"gradient_accumulation": accumulation})
    return contrastive(folder, replace(SETTINGS, engine=engine), model, renew=renew)


def with_renewed_rows_of_two_batches(folder):
    """Three batches an epoch, in steps of two and one."""
    return with_renewed_rows(folder, accumulation=2)


def cross_encoder(folder):
    encoder = cross_encoder_from(pack(tiny_model()))
    history = train_cross_encoder(encoder, ROWS, SETTINGS, output_dir=folder, hold_out=0)
    return encoder, SimpleNamespace(history=history, steps=6, best_step=0, best_dev=None)


def static(folder):
    from embedlab.models.static import static_student

    model = static_student(tiny_model(), TEXTS)
    result = train_static(model, NUMBERED, TEXTS, SETTINGS, random_negatives=3, output_dir=folder)
    return model, result


def several_tasks(folder):
    model = pack(tiny_model())
    pairs = [(row[0], row[1]) for row in ROWS]
    objectives = {
        "retrieval": multitask.retrieval(model, pairs),
        "anchor": multitask.anchor(model, TEXTS, tiny_model(seed=1).encode(TEXTS)),
    }
    return model, multitask.train_multitask(model, objectives, SETTINGS, output_dir=folder)


def student(folder):
    model = pack(tiny_model())
    collator = TokenisedCollator(model, TEXTS, ["text"])
    teacher = tiny_model(seed=1).encode(TEXTS)
    return model, distil(model, TEXTS, teacher, SETTINGS, collator=collator, output_dir=folder)


def test_what_a_loss_learns_besides_the_model_is_in_the_checkpoint(tmp_path):
    """Heads by hand: of two losses, one has a weight of its own."""
    model, head = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1, bias=False)
    losses = {"plain": torch.nn.ModuleList([model]), "with head": torch.nn.ModuleDict({"model": model, "head": head})}
    parts = {"loss": losses, "model": model, "collator": None, "parts": {}}
    (tmp_path / "checkpoint-7").mkdir()
    head.weight.data.fill_(5.0)
    model.weight.data.fill_(3.0)
    saved = checkpoints.Checkpoints(tmp_path, 1.0, **parts)
    saved.on_save(SimpleNamespace(gradient_accumulation_steps=1), SimpleNamespace(global_step=7), None)
    content = torch.load(tmp_path / "checkpoint-7" / STATE_FILE, weights_only=True)
    assert {task: list(heads) for task, heads in content["heads"].items()} == {
        "plain": [],
        "with head": ["head.weight"],
    }
    head.weight.data.zero_()
    model.weight.data.zero_()
    assert checkpoints.Checkpoints(tmp_path, 0, **parts).resume() == str(tmp_path / "checkpoint-7")
    assert (head.weight.item(), model.weight.item()) == (5.0, 3.0)


TRAININGS = {
    "contrastive": contrastive,
    "with dev": with_dev,
    "no duplicates": lambda folder: contrastive(
        folder, FitSettings(steps=6, batch_size=3, no_duplicates=True, engine=ALWAYS)
    ),
    "cached": lambda folder: contrastive(folder, loss="cached"),
    "guided": lambda folder: contrastive(folder, loss="gist", guide=as_guide(tiny_model(seed=1), NUMBERED.texts)),
    "lora": with_lora,
    "renewed": with_renewed_rows,
    "renewed, accumulated": with_renewed_rows_of_two_batches,
    "bf16, checkpointed": lambda folder: contrastive(
        folder,
        replace(SETTINGS, engine=ALWAYS.model_copy(update={"precision": "bf16", "gradient_checkpointing": True})),
    ),
    "cross-encoder": cross_encoder,
    "static": static,
    "several tasks": several_tasks,
    "student": student,
    "padded": lambda folder: contrastive(folder, model=tiny_model()),
}


def kill_in_step(monkeypatch, step):
    """Raise when step `step` begins, once."""
    original = checkpoints.Checkpoints.on_step_begin
    remaining = [step]

    def deadly(self, args, state, control, **kwargs):
        if remaining and state.global_step + 1 == remaining[0]:
            remaining.clear()
            raise Killed
        return original(self, args, state, control, **kwargs)

    monkeypatch.setattr(checkpoints.Checkpoints, "on_step_begin", deadly)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("step", [2, 5])
@pytest.mark.parametrize("name", TRAININGS)
def test_killed_and_resumed_gives_the_same_bits(name, step, cache, tmp_path, monkeypatch):
    folder = str(tmp_path / "scratch")
    model, expected = TRAININGS[name](folder)
    assert not list(cache.glob("*"))
    kill_in_step(monkeypatch, step)
    with pytest.raises(Killed):
        TRAININGS[name](folder)
    assert list(cache.glob(f"*/checkpoint-{step - 1}/{STATE_FILE}"))
    resumed, result = TRAININGS[name](folder)
    for key, tensor in weights(model).items():
        assert torch.equal(resumed.state_dict()[key], tensor), key
    without_time = [[{k: v for k, v in row.items() if k != "seconds"} for row in r.history] for r in (result, expected)]
    assert without_time[0] == without_time[1]
    assert (result.steps, result.best_step, result.best_dev) == (6, expected.best_step, expected.best_dev)
    assert not list(cache.glob("*"))


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """The file that asks to stop, as a driver's attempt has it."""
    (tmp_path / "attempt").mkdir()
    monkeypatch.setenv(progress.ENVIRONMENT_NAME, str(tmp_path / "attempt" / "progress.jsonl"))
    monkeypatch.setattr(progress, "STOP_EVERY_S", 0.0)
    yield tmp_path / "attempt" / progress.STOP
    finished.forget()


def ask_in_step(monkeypatch, step, stop):
    original = checkpoints.Checkpoints.on_step_begin

    def asking(self, args, state, control, **kwargs):
        if state.global_step + 1 == step:
            stop.touch()
        return original(self, args, state, control, **kwargs)

    monkeypatch.setattr(checkpoints.Checkpoints, "on_step_begin", asking)


@pytest.mark.parametrize("minutes", [0.0, 60.0])
def test_time_limit_stops_at_a_checkpoint_and_the_next_start_continues(minutes, driver, cache, tmp_path, monkeypatch):
    settings = replace(SETTINGS, engine=EngineParams(checkpoint_minutes=minutes))
    with monkeypatch.context() as patch:
        patch.delenv(progress.ENVIRONMENT_NAME)
        model, expected = contrastive(str(tmp_path), settings, evaluator=Falling())
    with monkeypatch.context() as patch:
        ask_in_step(patch, 3, driver)
        with pytest.raises(StoppedAtCheckpoint, match="train: stopped at step 3 of 6, with a checkpoint, because time"):
            contrastive(str(tmp_path), settings, evaluator=Falling())
    driver.unlink()
    resumed, result = contrastive(str(tmp_path), settings, evaluator=Falling())
    assert all(torch.equal(resumed.state_dict()[name], tensor) for name, tensor in weights(model).items())
    assert (result.best_step, result.best_dev) == (expected.best_step, expected.best_dev)


def test_time_limit_in_the_last_step_lets_the_training_finish(driver, tmp_path, monkeypatch):
    ask_in_step(monkeypatch, 6, driver)
    assert contrastive(str(tmp_path))[1].steps == 6


def test_finished_training_is_not_repeated_until_the_run_has_its_record(driver, cache, tmp_path, monkeypatch):
    model, result = contrastive(str(tmp_path))
    drawn = float(torch.rand(1))
    monkeypatch.setattr("embedlab.training.launch.train", None)  # would raise
    torch.manual_seed(5)
    restored, result_restored = contrastive(str(tmp_path))
    assert result_restored == result and float(torch.rand(1)) == drawn
    assert all(torch.equal(restored.state_dict()[name], tensor) for name, tensor in weights(model).items())
    assert progress.earlier_seconds() >= result.seconds
    finished.forget()
    assert not list(cache.glob("*"))
    with pytest.raises(TypeError):
        contrastive(str(tmp_path))


def test_a_full_disk_costs_the_result_and_not_the_run(driver, cache, tmp_path, monkeypatch):
    contrastive(str(tmp_path / "a"))
    monkeypatch.setattr(finished.torch, "save", lambda *arguments: (_ for _ in ()).throw(OSError(28, "No space left")))
    _, result = contrastive(str(tmp_path / "b"), FitSettings(steps=2, batch_size=3))
    assert result.steps == 2 and len(list(cache.glob(f"*/{finished.FILE}"))) == 1


@pytest.mark.parametrize("reports", [None, os.devnull])
def test_without_a_driver_no_result_is_kept_or_read(reports, driver, cache, tmp_path, monkeypatch):
    """A benchmark sends its reports nowhere: it must train every time."""
    contrastive(str(tmp_path))
    monkeypatch.delenv(progress.ENVIRONMENT_NAME)
    if reports:
        monkeypatch.setenv(progress.ENVIRONMENT_NAME, reports)
    monkeypatch.setattr("embedlab.training.launch.train", None)
    with pytest.raises(TypeError):
        contrastive(str(tmp_path))


def test_a_checkpoint_cut_short_is_passed_over(cache, tmp_path, monkeypatch):
    model, _ = contrastive(str(tmp_path))
    kill_in_step(monkeypatch, 5)
    with pytest.raises(Killed):
        contrastive(str(tmp_path))
    (newest,) = cache.glob(f"*/checkpoint-4/{STATE_FILE}")
    newest.unlink()
    resumed, _ = contrastive(str(tmp_path))
    assert all(torch.equal(resumed.state_dict()[name], tensor) for name, tensor in weights(model).items())


@pytest.mark.parametrize(
    "changed",
    [
        lambda folder: contrastive(folder, FitSettings(steps=6, batch_size=3, engine=ALWAYS)),
        lambda folder: contrastive(folder, model=pack(tiny_model(seed=1))),
        lambda folder: contrastive(folder, loss="symmetric"),
        lambda folder: contrastive(folder, temperature=0.1),
        lambda folder: contrastive(folder, loss="gist", guide=as_guide(tiny_model(seed=1), NUMBERED.texts)),
        lambda folder: contrastive(folder, loss="gist", guide=as_guide(tiny_model(seed=2), NUMBERED.texts)),
    ],
    ids=["settings", "model", "loss", "temperature", "guide", "other guide"],
)
def test_another_training_does_not_continue_it(changed, cache, tmp_path, monkeypatch):
    for original in (contrastive, TRAININGS["guided"]):
        kill_in_step(monkeypatch, 5)
        with pytest.raises(Killed):
            original(str(tmp_path))
    before = {path.name for path in cache.glob("*")}
    assert len(before) == 2
    kill_in_step(monkeypatch, 5)
    with pytest.raises(Killed):
        changed(str(tmp_path))
    guided_again = len({path.name for path in cache.glob("*")}) == 2
    assert guided_again == (changed.__code__.co_consts == TRAININGS["guided"].__code__.co_consts)


def test_two_processes_do_not_share_a_folder(cache, tmp_path, caplog):
    model, rows = pack(tiny_model()), []
    with checkpoints.checkpoint_folder("same") as first, checkpoints.checkpoint_folder("same") as second:
        rows += [first, second]
    assert rows == [cache / "same", None]
    assert "no checkpoints" in caplog.text
    assert model is not None


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(cache, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    _, result = contrastive(str(tmp_path))
    assert result.steps == 6
    assert caplog.text.count("nearly full") == 1


def test_old_checkpoints_are_removed(cache, tmp_path):
    old = cache / "abandoned" / "checkpoint-3"
    old.mkdir(parents=True)
    past = time.time() - (checkpoints.ABANDONED_DAYS + 1) * 24 * 3600
    os.utime(old, (past, past))
    os.utime(old.parent, (past, past))
    contrastive(str(tmp_path))
    assert not old.exists()


SCRIPT = """
import sys, torch
from tests.unit.test_checkpoints import contrastive, weights
model, _ = contrastive(sys.argv[1])
torch.save(weights(model), sys.argv[2])
"""


@pytest.mark.slow
def test_a_process_killed_by_the_system_continues(cache, tmp_path):
    environment = os.environ | {"EMBEDLAB_CACHE": str(cache.parent)}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "scratch")]
    subprocess.run([*command, str(tmp_path / "whole.pt")], env=environment, check=True)
    process = subprocess.Popen([*command, str(tmp_path / "killed.pt")], env=environment)
    while process.poll() is None and not list(cache.glob(f"*/checkpoint-*/{STATE_FILE}")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*command, str(tmp_path / "killed.pt")], env=environment, check=True)
    whole, resumed = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "killed.pt"))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
