"""Two cheap recipes that studies train with: a linear map on frozen vectors, and the contrastive fine-tune."""

from __future__ import annotations

import tempfile

import torch
from sentence_transformers import SentenceTransformer

from embedlab.data.dataset import Dataset
from embedlab.evaluation.diagnose.probe import Probe, fit_probe
from embedlab.models.layers import project
from embedlab.models.load import BASE_MODEL, load_model
from embedlab.search.vectors import Vectors, encode_split
from embedlab.training.contrastive.fine_tune import build_rows, fine_tune, mine_negatives
from embedlab.training.contrastive.train import ContrastiveParams


def linear_map(data: Dataset, vectors: Vectors, base: SentenceTransformer, seed: int) -> Probe:
    """Return the linear map that fits the training pairs and is best on dev.

    Args:
        data: with train and dev.
        vectors: training queries and corpus under the base model.
        base: the base model.
        seed: of the batches.
    """
    dev = encode_split(base, data, "dev", corpus_vectors=vectors.corpus)
    return fit_probe(vectors, data.pairs("train"), dev, data.qrels["dev"], seed=seed)


def contrastive(
    data: Dataset, vectors: Vectors, base: SentenceTransformer, params: ContrastiveParams
) -> SentenceTransformer:
    """Return the base model after a contrastive fine-tune, which does not look at dev: its last weights.

    Args:
        data: with train, and with dev for the linear map that `params.linear_start` asks for.
        vectors: training queries and corpus under the base model.
        base: the base model; it stays as it is.
        params: settings.
    """
    mined, _ = mine_negatives(data, params, vectors)
    rows = build_rows(data, params, mined)
    model = load_model(BASE_MODEL)
    if params.linear_start:
        probe = linear_map(data, vectors, base, params.seed)
        model = project(model, torch.from_numpy(probe.blended(params.linear_start)))
    with tempfile.TemporaryDirectory() as scratch:
        fine_tune(model, data, params, rows, base=vectors, output_dir=scratch)
    return model
