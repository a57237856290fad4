"""Contrastive fine-tuning: losses, hard negatives, and the fine-tune itself."""

from embedlab.training.contrastive.fine_tune import build_rows, fine_tune, mine_negatives, pair_rows
from embedlab.training.contrastive.loss_gradients import loss_gradients
from embedlab.training.contrastive.train import ContrastiveParams, train_contrastive
from embedlab.training.dev import dev_size
from embedlab.training.fit import FitSettings
from embedlab.training.losses import false_negative_mask, info_nce

__all__ = [
    "ContrastiveParams",
    "FitSettings",
    "build_rows",
    "dev_size",
    "false_negative_mask",
    "fine_tune",
    "info_nce",
    "loss_gradients",
    "mine_negatives",
    "pair_rows",
    "train_contrastive",
]
