# /// script
# requires-python = ">=3.11"
# dependencies = ["sentence-transformers[train]==6.2.0", "torch==2.13.0", "transformers==5.23.0"]
# ///
"""Pairs as SetFit trains them: cosine 1 for a pair, cosine 0 for a random one.

    python setfit_pairs.py DATA MODEL OUTPUT

Read from SetFit 1.2.0, which has labels instead of documents: here the text of the label is the document.
CosineSimilarityLoss, as many random pairs as true ones, batch 16, rate 2e-5, one epoch, warm-up of a tenth.
"""

import argparse
import random

from datasets import Dataset, load_dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

parser = argparse.ArgumentParser()
parser.add_argument("data", help="folder with train.jsonl: query, positive")
parser.add_argument("model", help="folder or hub name of the base model")
parser.add_argument("output", help="folder of the fine-tuned model")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--max-steps", type=int, default=-1)
options = parser.parse_args()

model = SentenceTransformer(options.model, device="cpu")
pairs = load_dataset("json", data_files=f"{options.data}/train.jsonl", split="train")
positives: dict[str, set[str]] = {}
for pair in pairs:
    positives.setdefault(pair["query"], set()).add(pair["positive"])
documents = sorted({pair["positive"] for pair in pairs})
generator = random.Random(options.seed)
rows = []
for pair in pairs:
    rows.append({"first": pair["query"], "second": pair["positive"], "label": 1.0})
    other = generator.choice(documents)
    if other not in positives[pair["query"]]:
        rows.append({"first": pair["query"], "second": other, "label": 0.0})
arguments = SentenceTransformerTrainingArguments(
    output_dir=f"{options.output}-checkpoints",
    num_train_epochs=1,
    max_steps=options.max_steps,
    per_device_train_batch_size=16,
    learning_rate=2e-5,
    warmup_steps=0.1,
    save_strategy="no",
    report_to="none",
    seed=options.seed,
)
SentenceTransformerTrainer(model, arguments, Dataset.from_list(rows), loss=CosineSimilarityLoss(model)).train()
model.save_pretrained(options.output)
