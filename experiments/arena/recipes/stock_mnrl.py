# /// script
# requires-python = ">=3.11"
# dependencies = ["sentence-transformers[train]==6.2.0", "torch==2.13.0", "transformers==5.23.0"]
# ///
"""sentence-transformers as its training guide shows it: pairs, in-batch negatives, one epoch.

    python stock_mnrl.py DATA MODEL OUTPUT

MultipleNegativesRankingLoss, batch 16, rate 2e-5, warm-up of a tenth, batches without duplicates.
"""

import argparse

from datasets import load_dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

parser = argparse.ArgumentParser()
parser.add_argument("data", help="folder with train.jsonl: query, positive")
parser.add_argument("model", help="folder or hub name of the base model")
parser.add_argument("output", help="folder of the fine-tuned model")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--max-steps", type=int, default=-1)
options = parser.parse_args()

model = SentenceTransformer(options.model, device="cpu")
pairs = load_dataset("json", data_files=f"{options.data}/train.jsonl", split="train")
arguments = SentenceTransformerTrainingArguments(
    output_dir=f"{options.output}-checkpoints",
    num_train_epochs=1,
    max_steps=options.max_steps,
    per_device_train_batch_size=16,
    learning_rate=2e-5,
    warmup_steps=0.1,
    batch_sampler=BatchSamplers.NO_DUPLICATES,
    save_strategy="no",
    report_to="none",
    seed=options.seed,
)
SentenceTransformerTrainer(model, arguments, pairs, loss=MultipleNegativesRankingLoss(model)).train()
model.save_pretrained(options.output)
