"""embedlab's static model and the untouched base model, concatenated; the transformer is not trained.

    python embedlab_base_static.py DATA MODEL OUTPUT

As in notebook 06 with `students=["static", "both"]` and the base model as teacher. The result is projected to the width
of the base model if there are enough texts to compute principal components on.
"""

import tempfile

import numpy as np

from embedlab import DevEvaluator, load_model
from embedlab.arena import script
from embedlab.evaluation.static_share import best_share, score_static_shares
from embedlab.models.cache import EmbeddingCache
from embedlab.models.concatenation import concat_static, concat_static_pca, has_enough_rows
from embedlab.models.encode import encode_by_role
from embedlab.models.save import save_model
from embedlab.search.vectors import encode_split
from embedlab.training import distillation

job = script.job(__doc__)
params = distillation.DistillationParams.checked(job.defaults_of("06_distillation") | {"teacher": job.model})
data, base, cache = job.dataset(), load_model(job.model), EmbeddingCache()
queries = set(data.split_queries("train").values())
texts = list(dict.fromkeys([*data.corpus.values(), *queries]))
vectors = encode_by_role(base, texts, queries, encode=cache.encode)
first, second = params.static_settings()
with tempfile.TemporaryDirectory() as scratch:
    static, _ = distillation.distil_static(base, texts, vectors, first, output_dir=scratch)
    distillation.fine_tune_static(
        static, data, second, random_negatives=params.random_negatives, evaluator=DevEvaluator(data), output_dir=scratch
    )
halves = {
    split: (encode_split(base, data, split, encode=cache.encode), encode_split(base, data, split, static=static))
    for split in ("train", "dev")
}
share = best_share(score_static_shares(*halves["dev"], data.qrels["dev"]))
joined = halves["train"][0].concatenated(halves["train"][1], share)
rows, dim = np.concatenate([joined.corpus, joined.queries]), halves["train"][0].dim
enough = has_enough_rows(rows, dim)
model = concat_static_pca(base, static, share, rows, dim) if enough else concat_static(base, static, share)
save_model(model, job.output)
