"""Train learned sparse vectors (SPLADE) on pairs and hard negatives."""

from embedlab.models.sparse import SparseStart, encode_sparse, load_sparse, sparse_from, strongest_terms
from embedlab.search.sparse import encode_sparse_split, rank_sparse
from embedlab.training.sparse.train import train_sparse

__all__ = [
    "SparseStart",
    "encode_sparse",
    "encode_sparse_split",
    "load_sparse",
    "rank_sparse",
    "sparse_from",
    "strongest_terms",
    "train_sparse",
]
