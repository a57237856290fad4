"""Pre-training on unlabelled texts: masked and causal language modelling, TSDAE and SimCSE."""

from embedlab.training.pretraining.causal import NextTokenCollator
from embedlab.training.pretraining.mlm import MaskingCollator, unigram_perplexity
from embedlab.training.pretraining.objectives import check_objective, domain_texts
from embedlab.training.pretraining.train import PretrainingParams, pretrain
from embedlab.training.pretraining.tsdae import DeletionCollator

__all__ = [
    "DeletionCollator",
    "MaskingCollator",
    "NextTokenCollator",
    "PretrainingParams",
    "check_objective",
    "domain_texts",
    "pretrain",
    "unigram_perplexity",
]
