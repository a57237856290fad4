"""embedlab's contrastive fine-tune: notebook 03 at its defaults.

python embedlab_contrastive.py DATA MODEL OUTPUT
"""

import tempfile

import torch

from embedlab import DevEvaluator, load_model
from embedlab.arena import script
from embedlab.evaluation.diagnose.probe import fit_probe
from embedlab.models.layers import project
from embedlab.models.save import save_model
from embedlab.search.vectors import encode_split
from embedlab.training import contrastive

job = script.job(__doc__)
params = contrastive.ContrastiveParams.checked(job.defaults_of("03_contrastive"))
data, model = job.dataset(), load_model(job.model)
vectors = encode_split(model, data, "train")
if params.linear_start:
    dev = encode_split(model, data, "dev", corpus_vectors=vectors.corpus)
    probe = fit_probe(vectors, data.pairs("train"), dev, data.qrels["dev"], seed=params.seed)
    model = project(model, torch.from_numpy(probe.blended(params.linear_start)))
mined, _ = contrastive.mine_negatives(data, params, vectors)
rows = contrastive.build_rows(data, params, mined)
size = contrastive.dev_size(model, data, rows, params.fit_settings())
evaluator = DevEvaluator(data, **size)
with tempfile.TemporaryDirectory() as scratch:
    contrastive.fine_tune(model, data, params, rows, base=vectors, evaluator=evaluator, output_dir=scratch)
save_model(model, job.output)
