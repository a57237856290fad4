"""embedlab: fine-tune text embedding models, measure the gain, prove it, ship it.

Importing this package is cheap: the names below load with their modules when you first use them, and torch and
sentence-transformers load with those.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedlab.data.load import load_dataset
    from embedlab.evaluation.answers import compare_answers
    from embedlab.evaluation.metrics import evaluate
    from embedlab.evaluation.retrieval import DevEvaluator, evaluate_retrieval, evaluate_vectors
    from embedlab.evaluation.significance import bootstrap_ci, paired_difference
    from embedlab.models.concatenation import concat_static
    from embedlab.models.encode import encode
    from embedlab.models.fingerprint import model_fingerprint
    from embedlab.models.load import load_model
    from embedlab.models.save import save_model
    from embedlab.reporting.figures import quality_by_dimension
    from embedlab.reporting.system_figure import quality_by_system
    from embedlab.runs.run import start_run
    from embedlab.search.bm25 import bm25_ranking
    from embedlab.search.fusion import fuse_rrf
    from embedlab.search.vectors import encode_split
    from embedlab.training.contrastive.mining import mine_hard_negatives
    from embedlab.training.contrastive.static_model import StaticParams, train_static_model
    from embedlab.training.contrastive.train import ContrastiveParams, train_contrastive
    from embedlab.training.examples import contrastive_rows, number_rows

__version__ = "0.1.0"

__all__ = [
    "ContrastiveParams",
    "DevEvaluator",
    "StaticParams",
    "bm25_ranking",
    "bootstrap_ci",
    "compare_answers",
    "concat_static",
    "contrastive_rows",
    "encode",
    "encode_split",
    "evaluate",
    "evaluate_retrieval",
    "evaluate_vectors",
    "fuse_rrf",
    "load_dataset",
    "load_model",
    "mine_hard_negatives",
    "model_fingerprint",
    "number_rows",
    "paired_difference",
    "quality_by_dimension",
    "quality_by_system",
    "save_model",
    "start_run",
    "train_contrastive",
    "train_static_model",
]

# Name -> its module, for `__getattr__`. A test compares this with the imports above, which are there for type checkers.
_MODULES = {
    "ContrastiveParams": "training.contrastive.train",
    "DevEvaluator": "evaluation.retrieval",
    "StaticParams": "training.contrastive.static_model",
    "bm25_ranking": "search.bm25",
    "bootstrap_ci": "evaluation.significance",
    "compare_answers": "evaluation.answers",
    "concat_static": "models.concatenation",
    "contrastive_rows": "training.examples",
    "encode": "models.encode",
    "encode_split": "search.vectors",
    "evaluate": "evaluation.metrics",
    "evaluate_retrieval": "evaluation.retrieval",
    "evaluate_vectors": "evaluation.retrieval",
    "fuse_rrf": "search.fusion",
    "load_dataset": "data.load",
    "load_model": "models.load",
    "mine_hard_negatives": "training.contrastive.mining",
    "model_fingerprint": "models.fingerprint",
    "number_rows": "training.examples",
    "paired_difference": "evaluation.significance",
    "quality_by_dimension": "reporting.figures",
    "quality_by_system": "reporting.system_figure",
    "save_model": "models.save",
    "start_run": "runs.run",
    "train_contrastive": "training.contrastive.train",
    "train_static_model": "training.contrastive.static_model",
}

# OpenMP threads that spin while they wait slow a training step eightfold as soon as another process needs a core.
# The runtime reads this once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    """Import an exported name with its module when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'embedlab' has no attribute {name!r}")
    return getattr(import_module(f"embedlab.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Let completion in a notebook offer the exported names."""
    return sorted([*globals(), *__all__])
