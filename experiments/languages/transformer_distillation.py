"""Multilingual distillation of the transformer itself, at study size (Reimers and Gurevych 2020).

    python -m experiments.languages.transformer_distillation [STEPS]

The student is all-MiniLM-L6-v2 with more word pieces. It learns to give English names and their translations the vector
that the untouched model gives the English name. A static model of the same vocabulary is distilled on the same texts.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace

from embedlab.data.load import load_dataset
from embedlab.models.cache import EmbeddingCache
from embedlab.models.load import load_model
from embedlab.models.vocabulary import extend_vocabulary
from embedlab.search.vectors import encode_split
from embedlab.training.distillation.languages import distil_translations, static_from_inputs, translations_of
from embedlab.training.fit import FitSettings
from experiments.languages.better_base import DATASET, show

PIECES = 4_000
BATCH = 64
TRANSFORMER = FitSettings(batch_size=BATCH, learning_rate=3e-4, embedding_rate=10.0)
STATIC = FitSettings(batch_size=BATCH, learning_rate=5e-3, weight_decay=0.0)


def main(steps: int = 250) -> None:
    """Distil both students and print nDCG@10 by language."""
    data, base = load_dataset(DATASET), load_model("all-MiniLM-L6-v2")
    base_vectors = encode_split(base, data, "test", encode=EmbeddingCache().encode)
    asked = list(data.split_queries("train").values())
    student = extend_vocabulary(base, asked, PIECES, keep=data.corpus.values())
    static = static_from_inputs(student)
    translations = translations_of(data)
    targets = EmbeddingCache().encode(base, translations.originals)
    systems = {"base": base_vectors}
    print(f"{len(translations.texts):,} texts, {steps} steps of {BATCH}", flush=True)
    for name, model, settings in [
        ("static, distilled", static, STATIC),
        ("transformer, distilled", student, TRANSFORMER),
    ]:
        started = time.process_time()
        with tempfile.TemporaryDirectory() as scratch:
            distil_translations(model, translations, targets, replace(settings, steps=steps), output_dir=scratch)
        print(f"{name}: {time.process_time() - started:.0f} CPU seconds", flush=True)
        systems[name] = encode_split(model, data, "test")
    show(systems, data.qrels["test"], data.fields)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
