"""Sources of training pairs compared with the truth: clicks, synthetic queries, and wrong pairs."""

from embedlab.data.click_log import ClickLog
from embedlab.data.click_model import relevance
from embedlab.evaluation.data_sources.clicks import SYSTEMS, ClickStudy
from embedlab.evaluation.data_sources.noise import plant_wrong_pairs
from embedlab.evaluation.data_sources.synthetic import (
    TrainingSets,
    ask_language_model,
    closeness_by_source,
    offline_queries,
    training_sets,
)

__all__ = [
    "SYSTEMS",
    "ClickLog",
    "ClickStudy",
    "TrainingSets",
    "ask_language_model",
    "closeness_by_source",
    "offline_queries",
    "plant_wrong_pairs",
    "relevance",
    "training_sets",
]
