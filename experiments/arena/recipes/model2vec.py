# /// script
# requires-python = ">=3.11"
# dependencies = ["sentence-transformers[train]==6.2.0", "torch==2.13.0", "transformers==5.23.0"]
# ///
"""Model2Vec's distillation: static embeddings of word pieces, without any pair. Rebuilt with torch.

    python model2vec.py DATA MODEL OUTPUT

Read from model2vec 0.10.0 (`distill_from_model`), whose package needs other versions of transformers. Each word piece
goes through the transformer alone, between its special tokens; the mean of the token vectors is reduced to 256
dimensions by PCA and weighted by SIF with 1e-4, where the probability of a piece is taken from its rank in the
vocabulary without the unused ones (Zipf's law).
"""

import argparse
import copy
import re

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from sklearn.decomposition import PCA

DIMENSIONS, SIF, BATCH = 256, 1e-4, 512

parser = argparse.ArgumentParser()
parser.add_argument("data", help="not used: distillation needs no pairs")
parser.add_argument("model", help="folder or hub name of the base model")
parser.add_argument("output", help="folder of the static model")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--max-steps", type=int, default=-1)
options = parser.parse_args()

model = SentenceTransformer(options.model, device="cpu")
tokenizer, transformer = model.tokenizer, model[0].auto_model.eval()
unused = {number for piece, number in tokenizer.get_vocab().items() if re.fullmatch(r"\[unused\d+\]", piece)}
pieces = torch.tensor([number for number in range(len(tokenizer)) if number not in unused])
first, last = torch.full_like(pieces, tokenizer.cls_token_id), torch.full_like(pieces, tokenizer.sep_token_id)
inputs = torch.stack([first, pieces, last], dim=1)
with torch.inference_mode():
    states = [transformer(input_ids=batch).last_hidden_state.mean(dim=1) for batch in inputs.split(BATCH)]
vectors = torch.cat(states).double().numpy()
reduced = PCA(min(DIMENSIONS, vectors.shape[1]), svd_solver="full").fit_transform(vectors)
chance = 1 / torch.arange(2, len(reduced) + 2, dtype=torch.double)
weights = SIF / (SIF + chance / chance.sum())
embeddings = torch.zeros(len(tokenizer), reduced.shape[1])
embeddings[pieces] = (torch.from_numpy(reduced) * weights[:, None]).float()

embedding = StaticEmbedding(copy.deepcopy(tokenizer.backend_tokenizer), embedding_weights=embeddings)
SentenceTransformer(modules=[embedding, Normalize()], device="cpu").save_pretrained(options.output)
