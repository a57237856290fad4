"""embedlab's contrastive fine-tune: notebook 03 at its defaults.

python embedlab_contrastive.py DATA MODEL OUTPUT
"""

import tempfile

from embedlab import DevEvaluator, load_model
from embedlab.arena import script
from embedlab.models.save import save_model
from embedlab.search.vectors import encode_split
from embedlab.training import contrastive

job = script.job(__doc__)
params = contrastive.ContrastiveParams.checked(job.defaults_of("03_contrastive"))
data, model = job.dataset(), load_model(job.model)
vectors = encode_split(model, data, "train")
mined, _ = contrastive.mine_negatives(data, params, vectors)
rows = contrastive.build_rows(data, params, mined)
evaluator = DevEvaluator(data, max_docs=3000)
with tempfile.TemporaryDirectory() as scratch:
    contrastive.fine_tune(model, data, params, rows, base=vectors, evaluator=evaluator, output_dir=scratch)
save_model(model, job.output)
