"""Train late interaction (one vector per token, as in ColBERT) on pairs and hard negatives."""

from embedlab.models.late_interaction import (
    TokenVectors,
    encode_tokens,
    late_interaction_from,
    load_late_interaction,
)
from embedlab.search.late_interaction import index_tokens, max_sim, rank_by_tokens
from embedlab.training.late_interaction.params import RetrieverParams
from embedlab.training.late_interaction.train import score_rows_by_tokens, train_late_interaction

__all__ = [
    "RetrieverParams",
    "TokenVectors",
    "encode_tokens",
    "index_tokens",
    "late_interaction_from",
    "load_late_interaction",
    "max_sim",
    "rank_by_tokens",
    "score_rows_by_tokens",
    "train_late_interaction",
]
