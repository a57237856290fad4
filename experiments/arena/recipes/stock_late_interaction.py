# /// script
# requires-python = ">=3.11"
# dependencies = ["sentence-transformers[train]==6.2.0", "torch==2.13.0", "transformers==5.23.0"]
# ///
"""Late interaction of sentence-transformers: one vector per token, as in ColBERT, with mined negatives.

    python stock_late_interaction.py DATA MODEL OUTPUT

The negatives, the batch and the passes over the data are those of stock_mined.py. A `MultiVectorEncoder` projects token
vectors to 128 dimensions, at random in the beginning. MultiVectorMultipleNegativesRankingLoss compares with MaxSim.
"""

import argparse

from datasets import load_dataset
from sentence_transformers import (
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
)
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
from sentence_transformers.util import mine_hard_negatives

parser = argparse.ArgumentParser()
parser.add_argument("data", help="folder with corpus.jsonl, and train.jsonl: query, positive")
parser.add_argument("model", help="folder or hub name of the base model")
parser.add_argument("output", help="folder of the fine-tuned model")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--max-steps", type=int, default=-1)
options = parser.parse_args()

pairs = load_dataset("json", data_files=f"{options.data}/train.jsonl", split="train")
corpus = list(load_dataset("json", data_files=f"{options.data}/corpus.jsonl", split="train")["text"])
rows = mine_hard_negatives(
    pairs,
    SentenceTransformer(options.model, device="cpu"),
    corpus=corpus,
    num_negatives=1,
    relative_margin=0.05,
    range_max=100,
    output_format="triplet",
)
model = MultiVectorEncoder(options.model, device="cpu")
arguments = MultiVectorEncoderTrainingArguments(
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
MultiVectorEncoderTrainer(model, arguments, rows, loss=MultiVectorMultipleNegativesRankingLoss(model)).train()
model.save_pretrained(options.output)
