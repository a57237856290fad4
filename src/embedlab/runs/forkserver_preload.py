"""The imports of the process that warm runs are forked from; nothing else imports this module (see `kernels`)."""

import atexit
import os
import pkgutil
import signal
from importlib import import_module

import embedlab

# Ctrl-C reaches this process too, for example during its imports. It ends with its driver and needs no traceback.
# The driver has blocked the signal until here.
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # read by matplotlib's import

# Packages import these only at the first use of a model or a figure.
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

SKIPPED = ("forkserver_preload", "__main__")


def load() -> None:
    """Import everything that a notebook may import; a failed import shows up again where it is needed."""
    own_modules = [module.name for module in pkgutil.walk_packages(embedlab.__path__, "embedlab.")]
    for name in (*LATE, *(name for name in own_modules if name.rpartition(".")[2] not in SKIPPED)):
        try:
            import_module(name)
        except Exception:
            continue


def leave(preloaded: int) -> None:
    """End at once: unloading the libraries takes seconds, in which this process would outlive its driver."""
    if os.getpid() == preloaded:
        os._exit(0)


load()
atexit.register(leave, os.getpid())
