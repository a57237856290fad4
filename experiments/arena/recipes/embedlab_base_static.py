"""embedlab's static model and the untouched base model, concatenated; the transformer is not trained.

    python embedlab_base_static.py DATA MODEL OUTPUT

As in notebook 06 with `students=["static", "both"]` and the base model as teacher.
"""

import tempfile

from embedlab import DevEvaluator, load_model
from embedlab.arena import script
from embedlab.evaluation.static_share import best_share, score_static_shares
from embedlab.models.concatenation import concat_static_pca
from embedlab.models.encode import encode_by_role
from embedlab.models.save import save_model
from embedlab.search.vectors import encode_split
from embedlab.training import distillation

job = script.job(__doc__)
params = distillation.DistillationParams.checked(job.defaults_of("06_distillation") | {"teacher": job.model})
data, base = job.dataset(), load_model(job.model)
queries = set(data.split_queries("train").values())
texts = list(dict.fromkeys([*data.corpus.values(), *queries]))
vectors = encode_by_role(base, texts, queries)
first, second = params.static_settings()
with tempfile.TemporaryDirectory() as scratch:
    static, _ = distillation.distil_static(base, texts, vectors, first, output_dir=scratch)
    distillation.fine_tune_static(
        static, data, second, random_negatives=params.random_negatives, evaluator=DevEvaluator(data), output_dir=scratch
    )
halves = (
    encode_split(base, data, "dev", corpus_vectors=vectors[: len(data.corpus)]),
    encode_split(base, data, "dev", static=static),
)
share = best_share(score_static_shares(*halves, data.qrels["dev"]), {})
corpus = halves[0].concatenated(halves[1], share).corpus
save_model(concat_static_pca(base, static, share, corpus, halves[0].dim), job.output)
