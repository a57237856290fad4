"""Train smaller models from larger ones: students from teacher vectors and scores, cross-encoders as teachers."""

from embedlab.models.asymmetric import join_encoders
from embedlab.models.cross_encoder import (
    average_scores,
    cosine_rows,
    cross_encoder_from,
    score_pairs,
    score_rows,
)
from embedlab.training.distillation.cross_encoder import (
    RerankerParams,
    calibrate_scores,
    candidate_lists,
    distil_scores,
    train_cross_encoder,
)
from embedlab.training.distillation.embeddings import DistillationParams, similarity_loss
from embedlab.training.distillation.languages import (
    LanguagesParams,
    distil_translations,
    static_from_inputs,
    translations_of,
)
from embedlab.training.distillation.query_encoder import rank_frozen, train_query_encoder
from embedlab.training.distillation.students import (
    SHORTER_DIMS,
    cut_layers,
    distil_dimensions,
    distil_layers,
    distil_static,
    fine_tune_static,
    mine_lists,
)

__all__ = [
    "SHORTER_DIMS",
    "DistillationParams",
    "LanguagesParams",
    "RerankerParams",
    "join_encoders",
    "average_scores",
    "calibrate_scores",
    "candidate_lists",
    "cosine_rows",
    "cross_encoder_from",
    "cut_layers",
    "distil_dimensions",
    "distil_layers",
    "distil_scores",
    "distil_static",
    "distil_translations",
    "fine_tune_static",
    "mine_lists",
    "rank_frozen",
    "score_pairs",
    "score_rows",
    "similarity_loss",
    "static_from_inputs",
    "train_cross_encoder",
    "train_query_encoder",
    "translations_of",
]
