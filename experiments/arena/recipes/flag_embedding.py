# /// script
# requires-python = ">=3.11"
# dependencies = ["sentence-transformers[train]==6.2.0", "torch==2.13.0", "transformers==5.23.0"]
# ///
"""FlagEmbedding's fine-tune of a BGE model, rebuilt with sentence-transformers.

    python flag_embedding.py DATA MODEL OUTPUT

Read from FlagEmbedding 1.4.2, whose package needs other versions of transformers:

- `hn_mine`: 15 random documents of ranks 2 to 200, with `--range_for_sampling 2-200 --negative_number 15`;
- `train_group_size 8`: one positive and 7 of the negatives per query (AbsDataset);
- cross-entropy over all documents of the batch at temperature 0.02, normalised vectors (AbsModeling, AbsArguments);
- the documented command: rate 1e-5, two epochs, warm-up of a tenth, 2 queries on each of 2 GPUs that share negatives;
- queries are cut at 32 tokens and passages at 128 by default; here the model's own length is kept.
"""

import argparse
import random

from datasets import Dataset, load_dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import semantic_search

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
positives: dict[str, set[str]] = {}
for pair in pairs:
    positives.setdefault(pair["query"], set()).add(pair["positive"])
queries = list(positives)
ranked = semantic_search(
    model.encode(queries, convert_to_tensor=True),
    model.encode(corpus, convert_to_tensor=True),
    top_k=min(200, len(corpus)),
)
generator = random.Random(options.seed)
rows = []
for query, hits in zip(queries, ranked, strict=True):
    candidates = [corpus[hit["corpus_id"]] for hit in hits[2:]]
    negatives = [text for text in candidates if text not in positives[query]]
    mined = generator.sample(negatives, min(15, len(negatives)))
    group = generator.sample(mined, 7) if len(mined) >= 7 else generator.choices(mined, k=7)
    columns = {f"negative_{number}": text for number, text in enumerate(group)}
    rows.append({"query": query, "positive": generator.choice(sorted(positives[query])), **columns})
arguments = SentenceTransformerTrainingArguments(
    output_dir=f"{options.output}-checkpoints",
    num_train_epochs=2,
    max_steps=options.max_steps,
    per_device_train_batch_size=4,
    learning_rate=1e-5,
    warmup_steps=0.1,
    save_strategy="no",
    report_to="none",
    seed=options.seed,
)
SentenceTransformerTrainer(
    model, arguments, Dataset.from_list(rows), loss=MultipleNegativesRankingLoss(model, scale=1 / 0.02)
).train()
model.save_pretrained(options.output)
