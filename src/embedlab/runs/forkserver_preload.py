"""What the nursery imports for all runs; it is imported by nobody else (see `kernels`)."""

import atexit
import os
import pkgutil
from importlib import import_module

import embedlab

os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # read by matplotlib's import

# Loaded late by their packages, at the first use of a model or a figure.
LATE = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "IPython.core.completer",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
    "pandas",
    "papermill",
    "papermill.engines",
    "nbclient",
    "pyarrow.parquet",
    "torch",
    "datasets",
    "transformers",
    "transformers.trainer",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "sentence_transformers",
    "accelerate",
    "bm25s",
    "faiss",
    "scipy.stats",
)


def load() -> None:
    """Import all that a notebook of the lab imports; what cannot be imported will be missed by who needs it."""
    rooms = [module.name for module in pkgutil.walk_packages(embedlab.__path__, "embedlab.")]
    for name in (*LATE, *(name for name in rooms if name.rpartition(".")[2] not in ("nursery", "__main__"))):
        try:
            import_module(name)
        except Exception:  # noqa: BLE001, S112 - optional packages, half-written modules
            continue


def leave(nursery: int) -> None:
    """End at once: taking the loaded libraries apart lasts seconds, in which the nursery would outlive its driver."""
    if os.getpid() == nursery:
        os._exit(0)


load()
atexit.register(leave, os.getpid())
