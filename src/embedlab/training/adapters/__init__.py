"""Train adapters on the vectors of a model whose weights cannot be changed."""

from embedlab.models.adapter import VectorAdapter, with_adapter
from embedlab.models.adapter_folder import save_adapter
from embedlab.training.adapters.params import KINDS, AdapterParams, AdapterSettings
from embedlab.training.adapters.train import FittedAdapter, train_adapter

__all__ = [
    "KINDS",
    "AdapterParams",
    "AdapterSettings",
    "FittedAdapter",
    "VectorAdapter",
    "save_adapter",
    "train_adapter",
    "with_adapter",
]
