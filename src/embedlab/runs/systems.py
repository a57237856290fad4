"""The systems that runs measure: one declared name each, with its technique and a one-line description.

A notebook that measures something else declares it with `run.declare_system`. The record stores the descriptions of
the systems it uses, so a table can explain a name that this version no longer declares.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from embedlab.errors import ParameterError


@dataclass(frozen=True)
class System:
    """What a name in the `system` column stands for.

    Attributes:
        technique: the family that the system belongs to, e.g. "contrastive".
        description: one line for a reader who does not know the name.
    """

    technique: str
    description: str


SYSTEMS: dict[str, System] = {
    # Baselines
    "bm25": System("baseline", "BM25 keyword search, without an embedding model"),
    "base": System("baseline", "the base model: what fine-tuning starts from, as the parameter model_name says"),
    "base-projected": System("baseline", "the base model, projected to its first principal components"),
    "hybrid": System("baseline", "BM25 and the base model, fused by reciprocal rank"),
    "word-frequencies": System("baseline", "a unigram language model: word frequencies of the training text"),
    # What the diagnosis tries on the base model
    "centring": System("diagnosis", "the base model without the mean and the main directions of its vectors"),
    "feedback": System("diagnosis", "the base model, queries moved towards the documents that a first search found"),
    "enrichment": System("diagnosis", "the base model, with headings or metadata in front of documents"),
    "prompts": System("diagnosis", "the base model with a prompt before queries and documents"),
    "filter": System("diagnosis", "the base model, searching only the documents that a metadata filter leaves"),
    "chunking": System("diagnosis", "the base model, with long documents split into chunks"),
    "linear-probe": System("diagnosis", "the base model with a linear map trained on its vectors: a cheap proxy"),
    # Fine-tuning
    "contrastive": System("contrastive", "fine-tuned on query-document pairs with MultipleNegativesRankingLoss"),
    "contrastive+bm25": System("contrastive", "contrastive and BM25, fused by reciprocal rank"),
    "contrastive-full-width": System("contrastive", "fine-tuned on pairs without Matryoshka: all dimensions only"),
    "pretrained": System("pretraining", "the base model after further pre-training on text of the domain"),
    "pretrained+contrastive": System("pretraining", "pre-trained on text of the domain, then fine-tuned on pairs"),
    "matryoshka-2d": System("matryoshka", "fine-tuned on pairs at several widths and several depths (2D Matryoshka)"),
    "matryoshka-adaptor": System("matryoshka", "contrastive, then a linear map that improves truncated vectors"),
    # Static models and students
    "static": System("distillation", "static embeddings of word pieces, fine-tuned on pairs"),
    "static-distilled": System("distillation", "static embeddings of word pieces, distilled only"),
    "distilled": System("distillation", "a student with fewer layers, distilled from the fine-tuned model"),
    "distilled-narrow": System("distillation", "a student with fewer dimensions, distilled from the fine-tuned model"),
    "distilled+labels": System("distillation", "a distilled student, then fine-tuned on pairs"),
    "distilled+scores": System("distillation", "a distilled student, then trained on the scores of a reranker"),
    "labels-only": System("distillation", "the student's architecture fine-tuned on pairs, without distillation"),
    # Across languages
    "bm25+glossary": System("baseline", "BM25 for the query and the translations of its words"),
    "character-n-grams": System("baseline", "cosine of TF-IDF weights of 3 to 5 characters, without training"),
    "vocabulary-extended": System("vocabulary", "the base model with word pieces for other languages, not trained"),
    "static-old-vocabulary": System("contrastive", "a static model over the base model's vocabulary, trained on pairs"),
    "static-contrastive": System("contrastive", "a static model over the extended vocabulary, trained on pairs"),
    # Other shapes of retriever
    "sparse-start": System("sparse", "learned sparse vectors before training: a computed head on the base model"),
    "sparse": System("sparse", "learned sparse vectors (SPLADE), trained on pairs, searched with an inverted index"),
    "contrastive+sparse": System("hybrid", "contrastive and sparse, fused by reciprocal rank"),
    "late-interaction": System("late interaction", "a vector per token (ColBERT), trained on pairs, scored by MaxSim"),
    "late-interaction-start": System("late interaction", "one vector per token of the base model, not trained"),
    "asymmetric-distilled": System("asymmetric", "a static query encoder distilled into the space of contrastive"),
    "asymmetric": System("asymmetric", "a static query encoder trained on pairs against documents of contrastive"),
    "distilled+tokens": System("distillation", "fine-tuned on pairs and on the scores of late interaction"),
    # Concatenation and merging
    "contrastive+static": System("concatenation", "vectors of the fine-tuned model and of the static model, joined"),
    "base+static": System("concatenation", "vectors of the base model and of the static model, joined"),
    "distilled+labels+static": System("concatenation", "vectors of distilled+labels and of the static model, joined"),
    "pretrained+contrastive+static": System(
        "concatenation", "vectors of the pre-trained, fine-tuned model and of the static model, joined"
    ),
    "merged": System("merging", "weights of the fine-tuned model averaged with those of the base model"),
    "merged+static": System("merging", "weights averaged with the base model, vectors joined with the static model's"),
    # Hybrid search with a tuned model
    **{
        f"{name}+bm25": System("hybrid", f"{name} and BM25, fused by reciprocal rank")
        for name in (
            "base-projected",
            "linear-probe",
            "static",
            "distilled",
            "merged",
            "base+static",
            "contrastive+static",
            "merged+static",
        )
    },
    # Reranking
    "reranker": System("reranking", "a cross-encoder that reorders the shortlist"),
    "reranker+contrastive": System("reranking", "scores of the cross-encoder and of the fine-tuned model, averaged"),
    "reranker+distilled+scores": System("reranking", "a cross-encoder that reorders the shortlist of distilled+scores"),
    # Several tasks
    "multitask": System("multitask", "fine-tuned on several tasks at once"),
    "retrieval-only": System("multitask", "fine-tuned on retrieval only"),
    "layer-decay": System("multitask", "fine-tuned on retrieval, with smaller learning rates for lower layers"),
    "replay": System("multitask", "fine-tuned on retrieval, with pairs of another domain replayed"),
    "anchor": System("multitask", "fine-tuned on retrieval, while general texts must keep their embeddings"),
    # Training data
    "real-pairs": System("data", "trained on the real query-document pairs"),
    "synthetic-same-documents": System("data", "trained on synthetic queries for the documents of the real pairs"),
    "synthetic-any-document": System("data", "trained on synthetic queries for any document of the corpus"),
    "synthetic-crop": System("data", "synthetic queries: a passage cropped from the document"),
    "synthetic-dropout": System("data", "synthetic queries: the document with words left out"),
    "synthetic-expand": System("data", "synthetic queries: abbreviations expanded"),
    "synthetic-keywords": System("data", "synthetic queries: the document's keywords"),
    "synthetic-title": System("data", "synthetic queries: the document's title"),
    "clicks-naive": System("data", "relevance as the plain click rate"),
    "clicks-corrected": System("data", "relevance from clicks, corrected for position bias"),
    "clicks-oracle": System("data", "relevance from clicks, corrected with the true position bias"),
    # Deployment
    "mixed-index": System("deployment", "an index that mixes vectors of two models, as happens without version checks"),
    "mapped-queries": System("deployment", "new queries mapped into the vector space of the old index"),
    # Comparison
    "all-runs": System("comparison", "all runs that a comparison covers"),
}


def resolve_system(name: str, declared: Mapping[str, System] = SYSTEMS) -> System:
    """The declaration of a system.

    Args:
        name: as it stands in the `system` column.
        declared: the systems that are known here; `SYSTEMS` by default.

    Raises:
        ParameterError: the name is not declared; the message lists similar names.
    """
    if name in declared:
        return declared[name]
    similar = difflib.get_close_matches(name, declared, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(similar)}? Otherwise declare it" if similar else "Declare it"
    remedy = f'{hint}: run.declare_system({name!r}, "technique", "one-line description")'
    raise ParameterError(f"the system {name!r} is not declared", remedy=remedy, field="system")
