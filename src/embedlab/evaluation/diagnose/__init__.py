"""Diagnosis before fine-tuning: cheaper remedies, causes of misses, and a verdict."""

from embedlab.evaluation.diagnose.failures import count_causes, print_examples, recovered
from embedlab.evaluation.diagnose.params import DiagnoseParams
from embedlab.evaluation.diagnose.remedies import applicable, bm25, data_curve, open_study
from embedlab.evaluation.diagnose.report import headline
from embedlab.evaluation.diagnose.study import Study

__all__ = [
    "DiagnoseParams",
    "Study",
    "applicable",
    "bm25",
    "count_causes",
    "data_curve",
    "headline",
    "open_study",
    "print_examples",
    "recovered",
]
