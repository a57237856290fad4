# /// script
# requires-python = ">=3.11"
# dependencies = ["sentence-transformers[train]==6.2.0", "torch==2.13.0", "transformers==5.23.0"]
# ///
"""LlamaIndex's linear adapter: a matrix on the query vectors, rebuilt with torch.

    python llama_index_adapter.py DATA MODEL OUTPUT

Read from llama-index-finetuning 0.4.2 (`EmbeddingAdapterFinetuneEngine`, `train_model`) and
llama-index-embeddings-adapter 0.6.0 (`LinearLayer`): a matrix without bias that starts as the identity, on the queries
only; cross-entropy over the batch at scale 20; batch 10 in the order of the file, AdamW at rate 2e-5, linear warm-up
of a tenth, gradients clipped at 1. Four epochs, as in its example; its default is one.
"""

import argparse

import torch
from datasets import load_dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from torch.nn import functional
from transformers import get_linear_schedule_with_warmup

BATCH, EPOCHS, SCALE = 10, 4, 20.0

parser = argparse.ArgumentParser()
parser.add_argument("data", help="folder with train.jsonl: query, positive")
parser.add_argument("model", help="folder or hub name of the base model")
parser.add_argument("output", help="folder of the fine-tuned model")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--max-steps", type=int, default=-1)
options = parser.parse_args()
torch.manual_seed(options.seed)

model = SentenceTransformer(options.model, device="cpu")
pairs = load_dataset("json", data_files=f"{options.data}/train.jsonl", split="train")
queries = model.encode(pairs["query"], convert_to_tensor=True, normalize_embeddings=True).clone()
documents = model.encode(pairs["positive"], convert_to_tensor=True, normalize_embeddings=True).clone()
adapter = torch.nn.Linear(queries.shape[1], queries.shape[1], bias=False)
torch.nn.init.eye_(adapter.weight)
optimizer = torch.optim.AdamW(adapter.parameters(), lr=2e-5)
starts = range(0, len(queries), BATCH)
steps = EPOCHS * len(starts)
schedule = get_linear_schedule_with_warmup(optimizer, int(0.1 * steps), steps)
order = [start for _ in range(EPOCHS) for start in starts]
for start in order[: options.max_steps if options.max_steps > 0 else None]:
    mapped = functional.normalize(adapter(queries[start : start + BATCH]), dim=-1)
    scores = SCALE * mapped @ documents[start : start + BATCH].T
    functional.cross_entropy(scores, torch.arange(len(scores))).backward()
    torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()

dense = Dense(queries.shape[1], queries.shape[1], bias=False, activation_function=torch.nn.Identity())
dense.linear.weight.data.copy_(adapter.weight.data)
router = Router.for_query_document([dense, Normalize()], [Normalize()])
encoder = [module for module in model if not isinstance(module, Normalize)]
SentenceTransformer(modules=[*encoder, router], device="cpu").save_pretrained(options.output)
