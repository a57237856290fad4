# /// script
# requires-python = ">=3.11"
# dependencies = ["sentence-transformers[train]==6.2.0", "torch==2.13.0", "transformers==5.23.0"]
# ///
"""sentence-transformers with mined negatives: the stronger of its documented recipes.

    python stock_mined.py DATA MODEL OUTPUT

One hard negative per pair (margin 5 %), MultipleNegativesRankingLoss, batch 64, rate 1e-4, two epochs.
"""

import argparse

from datasets import load_dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import mine_hard_negatives

parser = argparse.ArgumentParser()
parser.add_argument("data", help="folder with corpus.jsonl, and train.jsonl: query, positive")
parser.add_argument("model", help="folder or hub name of the base model")
parser.add_argument("output", help="folder of the fine-tuned model")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--max-steps", type=int, default=-1)
options = parser.parse_args()

model = SentenceTransformer(options.model, device="cpu")
pairs = load_dataset("json", data_files=f"{options.data}/train.jsonl", split="train")
corpus = list(load_dataset("json", data_files=f"{options.data}/corpus.jsonl", split="train")["text"])
rows = mine_hard_negatives(
    pairs, model, corpus=corpus, num_negatives=1, relative_margin=0.05, range_max=100, output_format="triplet"
)
arguments = SentenceTransformerTrainingArguments(
    output_dir=f"{options.output}-checkpoints",
    num_train_epochs=2,
    max_steps=options.max_steps,
    per_device_train_batch_size=64,
    learning_rate=1e-4,
    warmup_steps=0.1,
    batch_sampler=BatchSamplers.NO_DUPLICATES,
    save_strategy="no",
    report_to="none",
    seed=options.seed,
)
SentenceTransformerTrainer(model, arguments, rows, loss=MultipleNegativesRankingLoss(model)).train()
model.save_pretrained(options.output)
