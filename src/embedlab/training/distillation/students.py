"""Build students from a teacher and train them on its vectors: fewer layers, fewer dimensions, static embeddings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from embedlab.models.layers import keep_layers, layer_count, pca_projection, project, spread_layers
from embedlab.models.static import BagCollator, TokenBags, static_student, with_ngrams
from embedlab.training.contrastive.mining import MiningReport
from embedlab.training.contrastive.negative_sources import Rankers, mine_sources
from embedlab.training.contrastive.static import train_static
from embedlab.training.distillation.embeddings import PromptedTexts, distil
from embedlab.training.engine import prepare
from embedlab.training.examples import Row, contrastive_rows, number_rows, own_texts
from embedlab.training.fit import FitResult, FitSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

    from embedlab.data.dataset import Dataset
    from embedlab.search.vectors import Vectors

SHORTER_DIMS = (256, 128, 64, 32, 16)  # dimensions below the full width that static models are trained and scored at


def cut_layers(teacher: SentenceTransformer, layers: int) -> SentenceTransformer:
    """Copy the teacher with `layers` of its transformer layers, evenly spread. Nothing is trained."""
    return keep_layers(teacher, spread_layers(layer_count(teacher), layers))


def distil_layers(
    teacher: SentenceTransformer,
    layers: int,
    texts: Sequence[str],
    teacher_vectors: np.ndarray,
    settings: FitSettings,
    *,
    queries: Collection[str] = (),
    output_dir: str,
) -> tuple[SentenceTransformer, FitResult]:
    """Build a student from some of the teacher's layers and train it on the teacher's vectors.

    The vectors may also come from a model that nobody can load, see `distil_static`; `teacher` is then a local model
    whose layers the student starts with.

    Args:
        teacher: model with a transformer and d dimensions; left unchanged.
        layers: number of layers to keep.
        texts: N texts to learn on.
        teacher_vectors: (N, e) vectors of `texts`, e at least d; the principal components if there are more.
        settings: how to train.
        queries: those of `texts` that get the model's query prompt; all others get its document prompt.
        output_dir: scratch folder of the Trainer.

    Returns:
        The student and the training result.
    """
    student = cut_layers(teacher, layers)
    prepare(student, settings.engine)
    options: dict[str, Any] = {"collator": PromptedTexts(student, texts, queries), "output_dir": output_dir}
    projection = _into_student(teacher_vectors, student)
    return student, distil(student, texts, teacher_vectors, settings, projection=projection, **options)


def _into_student(teacher_vectors: np.ndarray, student: SentenceTransformer) -> Tensor | None:
    """Return the principal components (e, d) of vectors with more dimensions than the student has, else None."""
    dim = student.get_embedding_dimension()
    return pca_projection(teacher_vectors, dim) if teacher_vectors.shape[1] > dim else None


def distil_dimensions(
    student: SentenceTransformer,
    dim: int,
    texts: Sequence[str],
    teacher_vectors: np.ndarray,
    settings: FitSettings,
    *,
    queries: Collection[str] = (),
    output_dir: str,
) -> tuple[SentenceTransformer, FitResult]:
    """Add a linear layer with `dim` outputs to a copy of a student and train it on the projected teacher vectors.

    The layer starts as the principal components of the teacher's vectors.

    Args:
        student: model with d dimensions; left unchanged.
        dim: dimensions of the new student.
        texts: N texts to learn on.
        teacher_vectors: (N, e) vectors of `texts`, as `student` has learned them.
        settings: how to train.
        queries: those of `texts` that get the model's query prompt; all others get its document prompt.
        output_dir: scratch folder of the Trainer.

    Returns:
        The new student and the training result.
    """
    first = _into_student(teacher_vectors, student)
    if first is not None:
        teacher_vectors = teacher_vectors @ first.numpy()
    projection = pca_projection(teacher_vectors, dim)
    narrow = project(keep_layers(student, range(layer_count(student))), projection)
    prepare(narrow, settings.engine)
    collator = PromptedTexts(narrow, texts, queries)
    result = distil(
        narrow, texts, teacher_vectors, settings, collator=collator, projection=projection, output_dir=output_dir
    )
    return narrow, result


def distil_static(
    teacher: SentenceTransformer,
    texts: Sequence[str],
    teacher_vectors: np.ndarray,
    settings: FitSettings,
    *,
    ngrams: bool = False,
    output_dir: str,
) -> tuple[SentenceTransformer, FitResult]:
    """Build a static model from the teacher's token vectors and train it on the teacher's vectors.

    The vectors may also come from a model that nobody can load, such as one behind an API; `teacher` is then a local
    model that gives the tokenizer and the first token vectors. Vectors that are longer than its own are projected to
    their principal components.

    Args:
        teacher: any sentence-transformers model with a fast tokenizer, with d dimensions.
        texts: N texts to learn on; token frequencies are counted on them too.
        teacher_vectors: (N, e) vectors of `texts`, e at least d.
        settings: how to train; weight decay must be 0, it would shrink tokens that a batch does not contain.
        ngrams: add embeddings of words, pairs of words and character n-grams, see `with_ngrams`.
        output_dir: scratch folder of the Trainer.

    Returns:
        The static model and the training result.
    """
    student = static_student(teacher, texts)
    student = with_ngrams(student, texts) if ngrams else student
    collator = BagCollator(TokenBags.tokenise(student, texts), ["text"])
    projection = _into_student(teacher_vectors, student)
    result = distil(
        student, texts, teacher_vectors, settings, collator=collator, projection=projection, output_dir=output_dir
    )
    return student, result


def fine_tune_static(
    static: SentenceTransformer,
    data: Dataset,
    settings: FitSettings,
    *,
    random_negatives: int,
    evaluator: BaseEvaluator,
    output_dir: str,
) -> FitResult:
    """Train a static model in place on the labelled pairs, with random documents as negatives, at every width.

    Args:
        static: a static model, best distilled first.
        data: its training pairs are the positives, its corpus the random negatives.
        settings: how to train; weight decay must be 0.
        random_negatives: documents drawn per step.
        evaluator: dev evaluation; the model keeps the weights with the best value.
        output_dir: scratch folder of the Trainer.
    """
    rows = number_rows(contrastive_rows(data, hard_negatives=0, seed=settings.seed), own_texts(data))
    dims = [static.get_embedding_dimension(), *SHORTER_DIMS]
    options = {"random_negatives": random_negatives, "dims": dims, "evaluator": evaluator, "output_dir": output_dir}
    return train_static(static, rows, list(data.corpus.values()), settings, **options)


def mine_lists(
    data: Dataset,
    vectors: Vectors,
    *,
    negatives: int,
    relative_margin: float = 0.95,
    use_triplets: bool = False,
    seed: int = 0,
) -> tuple[list[Row], MiningReport]:
    """Build training rows of a query, its answer and its hard negatives.

    Args:
        data: dataset with training pairs.
        vectors: training queries and corpus, encoded with the model whose mistakes become hard negatives.
        negatives: hard negatives per pair.
        relative_margin: a negative scores at most this share of its positive's score; 2 keeps every candidate.
        use_triplets: add the dataset's expert triplets.
        seed: of the random documents that fill up rows with too few hard negatives.

    Returns:
        Rows (query, positive, negatives), and a report of the filters.
    """
    mined, reports = mine_sources(data, ["base"], Rankers(vectors), per_pair=negatives, relative_margin=relative_margin)
    rows = contrastive_rows(data, mined, hard_negatives=negatives, use_triplets=use_triplets, seed=seed)
    return rows, reports["base"]
