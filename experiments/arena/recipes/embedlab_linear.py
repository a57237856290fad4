"""embedlab's cheapest recipe: one linear map on the vectors of the base model, chosen on dev.

python embedlab_linear.py DATA MODEL OUTPUT
"""

import torch

from embedlab import load_model
from embedlab.arena import script
from embedlab.evaluation.diagnose.probe import fit_probe
from embedlab.models.layers import project
from embedlab.models.save import save_model
from embedlab.search.vectors import encode_split

job = script.job(__doc__)
data, model = job.dataset(), load_model(job.model)
train = encode_split(model, data, "train")
dev = encode_split(model, data, "dev", corpus_vectors=train.corpus)
limit = {"steps": job.max_steps} if job.max_steps else {}
probe = fit_probe(train, data.pairs("train"), dev, data.qrels["dev"], seed=job.seed, **limit)
save_model(project(model, torch.from_numpy(probe.matrix)), job.output)
