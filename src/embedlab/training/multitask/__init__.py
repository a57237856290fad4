"""Multi-task training, and recipes against catastrophic forgetting.

>>> from embedlab.training import multitask
>>> list(multitask.RECIPES)
['retrieval-only', 'multitask', 'layer-decay', 'replay', 'anchor']
"""

from embedlab.training.multitask.forgetting import example_loss, with_anchor, with_replay
from embedlab.training.multitask.params import MultitaskParams
from embedlab.training.multitask.recipes import (
    RECIPES,
    STATIC_SHARE,
    Mixture,
    build_mixture,
    candidate_mixtures,
    influence,
    reduce_dimensions,
    train_recipe,
    train_static_part,
)
from embedlab.training.multitask.train import (
    Objective,
    anchor,
    classification,
    clustering,
    objective,
    retrieval,
    similarity,
    train_multitask,
)

__all__ = [
    "RECIPES",
    "STATIC_SHARE",
    "Mixture",
    "MultitaskParams",
    "Objective",
    "anchor",
    "build_mixture",
    "candidate_mixtures",
    "classification",
    "clustering",
    "example_loss",
    "influence",
    "objective",
    "reduce_dimensions",
    "retrieval",
    "similarity",
    "train_multitask",
    "train_recipe",
    "train_static_part",
    "with_anchor",
    "with_replay",
]
